//! THE ordered table of directives: setup order and chain order (spec/coredns.md §0.3).

use super::Setup;
use crate::corefile::CorefileError;

/// Reads a directive's tokens and changes the block under construction.
pub type SetupFn = fn(&mut Setup<'_>) -> Result<(), CorefileError>;

/// One directive.
pub struct DirectiveRow {
    /// The word in the Corefile.
    pub word: &'static str,
    /// Its setup; `None` for words that CoreDNS knows and nodens does not carry.
    pub setup: Option<SetupFn>,
}

const fn row(word: &'static str, setup: SetupFn) -> DirectiveRow {
    DirectiveRow { word, setup: Some(setup) }
}

const fn absent(word: &'static str) -> DirectiveRow {
    DirectiveRow { word, setup: None }
}

/// The directives, outermost first.
pub static TABLE: &[DirectiveRow] = &[
    absent("root"),
    row("metadata", super::metadata::setup),
    absent("geoip"),
    absent("cancel"),
    row("tls", super::tls::setup),
    absent("quic"),
    row("timeouts", super::timeouts::setup),
    absent("multisocket"),
    row("reload", super::reload::setup),
    absent("nsid"),
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
    absent("local"),
    row("dns64", super::dns64::setup),
    absent("acl"),
    absent("any"),
    absent("chaos"),
    row("loadbalance", super::loadbalance::setup),
    absent("tsig"),
    row("cache", super::cache::setup),
    row("rewrite", super::rewrite::setup),
    absent("header"),
    absent("dnssec"),
    absent("autopath"),
    absent("minimal"),
    row("template", super::template::setup),
    absent("transfer"),
    row("hosts", super::hosts::setup),
    absent("route53"),
    absent("azure"),
    absent("clouddns"),
    absent("k8s_external"),
    absent("kubernetes"),
    absent("file"),
    absent("auto"),
    absent("secondary"),
    absent("etcd"),
    row("loop", super::looping::setup),
    row("forward", super::forward::setup),
    absent("grpc"),
    absent("erratic"),
    row("whoami", super::whoami::setup),
    absent("on"),
    absent("sign"),
    absent("view"),
    absent("nomad"),
];

/// Whether a word may stand in a Corefile at all.
pub fn is_known(word: &str) -> bool {
    TABLE.iter().any(|row| row.word == word)
}
