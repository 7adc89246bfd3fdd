//! THE ordered table of directives: setup order and chain order (CoreDNS: plugin.cfg).

use super::Setup;
use crate::corefile::CorefileError;

/// Reads a directive's tokens, all of one block's, and changes the block under construction.
///
/// # Errors
///
/// What is wrong with them, at its place, in CoreDNS's words where CoreDNS refuses it too; each setup
/// names its own. The Corefile is then not used, and the block is as it may be.
pub type SetupFn = fn(&mut Setup<'_>) -> Result<(), CorefileError>;

/// One directive.
pub struct DirectiveRow {
    /// The word in the Corefile.
    pub word: &'static str,
    /// Its setup; `Err` with what to do instead for words that CoreDNS knows and nodens does not
    /// carry.
    pub setup: Result<SetupFn, &'static str>,
}

const fn row(word: &'static str, setup: SetupFn) -> DirectiveRow {
    DirectiveRow { word, setup: Ok(setup) }
}

const fn absent(word: &'static str, instead: &'static str) -> DirectiveRow {
    DirectiveRow { word, setup: Err(instead) }
}

/// For what answers from records of its own: the cluster, zone files, a cloud's or another store.
const FORWARD: &str = "a node cache holds no zones of its own: name the server that does with \
                       `forward ZONE ADDRESS`, for the cluster's domain the cluster DNS";

/// For what looks at the names of pods and services.
const CLUSTER_DNS: &str = "it needs the cluster's names: leave it to the cluster DNS, to which \
                           `forward` leads";

/// For what signs, or checks signatures.
const SIGNED: &str = "signing is the work of the server that holds the zone; a node cache hands \
                      signatures on as they come";

/// For the settings of one scheme's listeners, of CoreDNS 1.14.
const SCHEME: &str = "the bounds of listeners are fixed (docs/operating.md); certificates are given \
                      by `tls`, times by `timeouts`";

/// The directives, outermost first.
pub static TABLE: &[DirectiveRow] = &[
    absent("root", "no directive of nodens reads zone files: write whole paths"),
    row("metadata", super::metadata::setup),
    absent(
        "geoip",
        "for answers by the client's address, write server blocks that `bind` different addresses, or `acl`",
    ),
    row("cancel", super::cancel::setup),
    row("tls", super::tls::setup),
    absent(
        "proxyproto",
        "clients must reach nodens themselves: a node cache has no balancer before it",
    ),
    absent("quic", SCHEME),
    absent("grpc_server", SCHEME),
    absent("https", SCHEME),
    absent("https3", SCHEME),
    row("timeouts", super::timeouts::setup),
    absent("shed", "queries beyond the bounds fail at once by themselves; see docs/operating.md"),
    row("multisocket", super::multisocket::setup),
    row("reload", super::reload::setup),
    row("nsid", super::nsid::setup),
    row("bufsize", super::bufsize::setup),
    row("bind", super::bind::setup),
    row("debug", super::debug::setup),
    row("trace", super::trace::setup),
    row("ready", super::ready::setup),
    row("health", super::health::setup),
    row("pprof", super::pprof::setup),
    row("prometheus", super::prometheus::setup),
    row("errors", super::errors::setup),
    row("log", super::log::setup),
    row("dnstap", super::dnstap::setup),
    row("local", super::local::setup),
    row("dns64", super::dns64::setup),
    row("acl", super::acl::setup),
    row("any", super::any::setup),
    row("chaos", super::chaos::setup),
    row("loadbalance", super::loadbalance::setup),
    absent("tsig", SIGNED),
    row("cache", super::cache::setup),
    row("rewrite", super::rewrite::setup),
    row("header", super::header::setup),
    absent("dnssec", SIGNED),
    absent("autopath", CLUSTER_DNS),
    row("minimal", super::minimal::setup),
    row("template", super::template::setup),
    absent("transfer", "a node cache has no zone to hand out; ask the server that holds it"),
    row("hosts", super::hosts::setup),
    absent("route53", FORWARD),
    absent("azure", FORWARD),
    absent("clouddns", FORWARD),
    absent("k8s_external", CLUSTER_DNS),
    absent("kubernetes", FORWARD),
    absent("file", FORWARD),
    absent("auto", FORWARD),
    absent("secondary", FORWARD),
    absent("etcd", FORWARD),
    row("loop", super::looping::setup),
    row("forward", super::forward::setup),
    absent(
        "grpc",
        "name the upstream by its DNS address: `forward ZONE ADDRESS`, or `tls://ADDRESS` for encryption",
    ),
    absent("erratic", "for failures on purpose there is `template`, with `rcode SERVFAIL`"),
    row("whoami", super::whoami::setup),
    absent("on", "nodens starts no commands; run them before it, or beside it"),
    absent("sign", SIGNED),
    absent(
        "view",
        "a block is chosen by its zone and address: give each kind of client an address of its own with `bind`, or write `acl`",
    ),
    absent("nomad", FORWARD),
];

/// Whether a word may stand in a Corefile at all.
pub fn is_known(word: &str) -> bool {
    TABLE.iter().any(|row| row.word == word)
}

#[cfg(test)]
mod tests {
    use super::TABLE;

    #[test]
    fn a_word_that_stays_out_says_what_to_do_instead() {
        for row in TABLE {
            if let Err(instead) = row.setup {
                assert!(instead.len() > 20 && !instead.contains("  "), "{}: {instead}", row.word);
            }
        }
    }
}
