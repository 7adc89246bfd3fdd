//! Stub domains that a Corefile with them could not be loaded for: the template serves their zones already.
//!
//! Owns which those are. What becomes of them, and what is said, is for `sources`.

use super::kubedns::KubeDns;
use super::template::{NodeValues, render};
use crate::corefile::{Surroundings, parse};
use crate::engine::{MistakeKind, World, inspect};
use crate::metrics::Registry;
use crate::plugin::{Carried, SilentJournal, is_known};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// The stub domains whose zone a block of the template serves at the same address and port. None when the template
/// cannot be loaded in any case: its own mistakes are told then.
pub(super) fn repeated(
    base: &str,
    values: &NodeValues,
    config: &KubeDns,
    surroundings: &dyn Surroundings,
) -> Vec<String> {
    let with = |domains: &[&String]| {
        let servers = |domain: &&String| ((*domain).clone(), config.stub_domains[*domain].clone());
        let stub_domains = domains.iter().map(servers).collect();
        let config = KubeDns { stub_domains, ..config.clone() };
        contradicts(&render(base, values, &config).text, values.dns_port, surroundings)
    };
    let all: Vec<&String> = config.stub_domains.keys().collect();
    // As good as always; then none is looked at by itself.
    if all.is_empty() || with(&all) == Some(false) || with(&[]) != Some(false) {
        return Vec::new();
    }
    all.into_iter().filter(|domain| with(&[*domain]) == Some(true)).cloned().collect()
}

/// Whether blocks contradict one another in what they serve where; `None` when that cannot be read.
fn contradicts(text: &str, default_port: u16, surroundings: &dyn Surroundings) -> Option<bool> {
    let mut tree = parse(text.as_bytes(), "Corefile", &is_known, surroundings).ok()?;
    // Nothing else says where a block listens, and nothing else is to be set up.
    tree.blocks.iter_mut().for_each(|block| block.directives.retain(|one| one.word == "bind"));
    let world = World {
        surroundings,
        metrics: &Registry::new(0),
        journal: &SilentJournal,
        random: &mut StdRng::seed_from_u64(0),
        default_port,
        carried: Carried::default(),
    };
    let mistakes = inspect(&tree, world).mistakes;
    Some(mistakes.iter().any(|mistake| mistake.kind == MistakeKind::Listener))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;

    /// Which of the stub domains b.test and c.test repeat a zone of the template.
    fn found(base: &str) -> Vec<String> {
        let values = NodeValues {
            local: "169.254.20.10,10.0.0.10".to_owned(),
            cluster_dns: Ok("10.0.0.11".parse().unwrap()),
            prometheus: ":9253".to_owned(),
            dns_port: 53,
        };
        let servers = || vec!["192.0.2.1".to_owned()];
        let stub_domains =
            [("b.test".to_owned(), servers()), ("c.test".to_owned(), servers())].into();
        let config = KubeDns { stub_domains, upstream_nameservers: Vec::new() };
        let surroundings = MemorySurroundings::new().with_file("more", "C.test:53 {\n errors\n}\n");
        repeated(base, &values, &config, &surroundings)
    }

    #[test]
    fn a_stub_domain_repeats_a_zone_that_is_served_at_its_address_and_port() {
        const LOCAL: &str = "bind __PILLAR__LOCAL__DNS__";
        for (base, repeats) in [
            (format!(".:53 {{\n {LOCAL}\n}}\n"), &[][..]),
            (format!("a.test:53 b.test:53 {{\n {LOCAL}\n forward . nonsense\n}}\n"), &["b.test"]),
            ("b.test {\n bind 10.0.0.10\n}\n".to_owned(), &["b.test"]),
            ("b.test {\n bind 10.0.0.9\n}\nc.test:54 {\n bind 10.0.0.10\n}\n".to_owned(), &[]),
            ("b.test {\n errors\n}\nimport more\n".to_owned(), &["b.test", "c.test"]),
            ("tls://b.test:53 {\n errors\n}\n".to_owned(), &[]),
            // It is not loaded in any case.
            ("b.test {\n errors\n}\nb.test {\n errors\n}\n".to_owned(), &[]),
            ("b.test {\n errors\n".to_owned(), &[]),
        ] {
            assert_eq!(found(&base), repeats, "{base}");
        }
    }
}
