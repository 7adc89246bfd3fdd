//! Any text as a Corefile: a tree or an error, then a snapshot or an error, never a panic; and `check`
//! tells errors when, and only when, it does not load.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodens::cli::check::{Severity, findings_of};
use nodens::corefile::{MemorySurroundings, parse};
use nodens::engine::{World, build};
use nodens::metrics::Registry;
use nodens::plugin::{Carried, SilentJournal, is_known};
use rand::SeedableRng;
use rand::rngs::StdRng;

fuzz_target!(|text: &[u8]| {
    let surroundings = MemorySurroundings::new()
        .with_file("/etc/resolv.conf", "nameserver 192.0.2.53\n")
        .with_file("/etc/hosts", "192.0.2.1 a.test\n")
        .with_file("more", "errors\n")
        .with_variable("A", "192.0.2.1 }")
        .with_interface("lo", &["127.0.0.1", "::1"]);
    let findings = findings_of(&String::from_utf8_lossy(text), &surroundings);
    let is_wrong = findings.iter().any(|one| one.severity == Severity::Error);
    let Ok(tree) = parse(text, "Corefile", &is_known, &surroundings) else {
        assert!(is_wrong);
        return;
    };
    let metrics = Registry::new(1);
    let mut random = StdRng::seed_from_u64(7);
    let world = World {
        surroundings: &surroundings,
        metrics: &metrics,
        journal: &SilentJournal,
        random: &mut random,
        default_port: 53,
        carried: Carried::default(),
    };
    // `check` takes host names for granted, and templates are filled in; octets that are no text may
    // be read otherwise.
    let is_checked = str::from_utf8(text).is_ok_and(|text| !text.contains("__P"));
    if build(&tree, world).is_ok() && is_checked {
        assert!(!is_wrong, "{findings:?}");
    }
});
