//! `forward`: upstreams that cannot answer, that lead back, or that no query reaches.

use super::super::finding::Finding;
use super::super::load::Whose;
use super::{Block, Facts, Line, lines, zone_of};
use crate::corefile::{Directive, KeyTransport, Token};
use crate::dns::Name;
use crate::plugin::forward::{Said, Upstream};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Ports that people write behind an IPv6 address without brackets.
const PORTS: [u16; 5] = [0x53, 0x853, 0x5353, 0x1053, 0x5300];

/// The time of all tries for a question, its answer's way included.
const ALL_TRIES: Duration = Duration::from_secs(4);

/// One `forward` line: its words and what they say.
struct Stanza<'f> {
    block: Block<'f>,
    head: &'f [Token],
    lines: Vec<Line<'f>>,
    said: Said,
}

impl<'f> Stanza<'f> {
    fn from(&self) -> &'f Token {
        &self.head[1]
    }

    /// Each upstream with its word, and the file that names it, if one does.
    fn upstreams(&self) -> Vec<(&'f Token, &Upstream, Option<&PathBuf>)> {
        let words = self.head[2..].iter().filter(|token| token.text != "{");
        let mut rest = self.said.upstreams.iter().peekable();
        let mut found = Vec::new();
        for word in words {
            let names = |file: &Option<PathBuf>| {
                file.as_ref().is_some_and(|path| word.text.ends_with(&*path.to_string_lossy()))
            };
            match rest.peek() {
                Some((_, file)) if names(file) => {
                    while let Some((upstream, file)) = rest.next_if(|(_, file)| names(file)) {
                        found.push((word, upstream, file.as_ref()));
                    }
                }
                Some((_, None)) if !word.text.starts_with('/') => {
                    found.extend(rest.next().map(|(upstream, _)| (word, upstream, None)));
                }
                _ => {}
            }
        }
        found
    }

    fn option(&self, word: &str) -> Option<&'f Token> {
        let found = self.lines.iter().find(|line| line.depth > 0 && line.first().text == word);
        found.map(Line::first)
    }
}

/// All `forward` lines, in the order of the file.
fn stanzas<'f>(facts: &Facts<'f>) -> Vec<Stanza<'f>> {
    let mut found = Vec::new();
    for (block, directive) in facts.directives("forward") {
        found.extend(stanzas_of(facts, block, directive));
    }
    found
}

fn stanzas_of<'f>(
    facts: &Facts<'f>,
    block: Block<'f>,
    directive: &'f Directive,
) -> Vec<Stanza<'f>> {
    let mut said = facts.forwards(directive).into_iter();
    let mut found: Vec<Stanza<'f>> = Vec::new();
    for line in lines(&directive.tokens) {
        match found.last_mut() {
            Some(stanza) if line.depth > 0 => stanza.lines.push(line),
            _ => {
                let Some(said) = said.next().filter(|_| line.tokens.len() > 2) else { break };
                found.push(Stanza { block, head: line.tokens, lines: Vec::new(), said });
            }
        }
    }
    found
}

/// A `forward` that another above takes everything from.
pub(super) fn shadowed(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for (block, directive) in facts.directives("forward") {
        let stanzas = stanzas_of(facts, block, directive);
        for (at, stanza) in stanzas.iter().enumerate() {
            let takes_all = |above: &&Stanza<'_>| {
                let options = &above.said.options;
                stanza.said.from.is_in(&above.said.from)
                    && options.except.is_empty()
                    && options.next.is_empty()
                    && !options.next_on_nodata
            };
            if let Some(above) = stanzas[..at].iter().find(takes_all) {
                findings.push(Finding::warning(
                    "forward-shadowed",
                    stanza.from(),
                    format!(
                        "the `forward {}` at line {} takes every query: the first one that matches counts",
                        above.said.from,
                        above.from().line
                    ),
                    "put the narrower zone first, or give it a server block of its own",
                ));
            }
        }
    }
}

/// A `forward` below a directive that answers everything.
pub(super) fn unreachable(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for block in facts.blocks() {
        if !block.has("forward") {
            continue;
        }
        let covers_block = |zones: &[Token]| {
            let zones: Vec<Name> = zones.iter().filter_map(zone_of).collect();
            zones.is_empty() || block.zones().all(|own| zones.iter().any(|zone| own.is_in(zone)))
        };
        for word in ["hosts", "template"] {
            let Some(directive) = block.directive(word) else { continue };
            let lines = lines(&directive.tokens);
            let mut heads = lines.iter().enumerate().filter(|(_, line)| line.depth == 0).peekable();
            while let Some((at, head)) = heads.next() {
                let end = heads.peek().map_or(lines.len(), |(next, _)| *next);
                let has = |option| {
                    lines[at..end].iter().any(|line| line.depth > 0 && line.first().text == option)
                };
                let arguments = head.arguments();
                let answers_all = match word {
                    "hosts" => covers_block(arguments.get(1..).unwrap_or_default()),
                    _ => {
                        arguments.get(1).is_some_and(|qtype| qtype.text == "ANY")
                            && !has("match")
                            && covers_block(arguments.get(2..).unwrap_or_default())
                    }
                };
                if answers_all && !has("fallthrough") {
                    let what = match word {
                        "hosts" => "a name that `hosts` does not know is answered SERVFAIL",
                        _ => "this `template` answers every query",
                    };
                    findings.push(Finding::warning(
                        "forward-unreachable",
                        head.first(),
                        format!("{what}: `forward` never sees it, wherever it stands in the block"),
                        format!("add `fallthrough` to `{word}`, or leave `forward` out"),
                    ));
                }
            }
        }
    }
}

/// `except` with names that would not come anyway.
pub(super) fn excepted(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for stanza in stanzas(facts) {
        for line in stanza.lines.iter().filter(|line| line.first().text == "except") {
            for token in line.arguments() {
                let Some(name) = zone_of(token) else {
                    findings.push(Finding::warning(
                        "except-matches-nothing",
                        token,
                        format!("`{}` is no name: it is ignored", token.text),
                        "write a name, or a network for its reverse zone",
                    ));
                    continue;
                };
                if !name.is_in(&stanza.said.from) || !stanza.block.may_see(&name) {
                    findings.push(Finding::warning(
                        "except-matches-nothing",
                        token,
                        format!("no query below `{name}` comes to this `forward`"),
                        "leave it out, or name something that the block serves and `forward` takes",
                    ));
                }
            }
        }
    }
}

/// Upstreams that load and cannot be asked, or not as it seems.
pub(super) fn upstreams(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for stanza in stanzas(facts) {
        let mut seen: Vec<&Upstream> = Vec::new();
        for (token, upstream, file) in stanza.upstreams() {
            let port = upstream.port.as_ref().ok().filter(|port| **port != 0);
            if port.is_none() {
                findings.push(Finding::warning(
                    "upstream-port",
                    token,
                    format!(
                        "`{}` has a port that nobody can have: every query to it fails",
                        token.text
                    ),
                    "a port is a number from 1 to 65535",
                ));
            }
            if let Some(hint) = port_in_address(&token.text) {
                findings.push(Finding::warning(
                    "upstream-port-in-address",
                    token,
                    format!("`{}` is read as an address alone: its end is no port", token.text),
                    hint,
                ));
            }
            if seen.contains(&upstream) && file.is_none() {
                findings.push(Finding::warning(
                    "upstream-twice",
                    token,
                    format!("{} was named already: it is asked once", upstream.text),
                    "leave it out; it gets no greater share of the queries",
                ));
            }
            seen.push(upstream);
        }
    }
}

/// What an IPv6 address without brackets was meant to be, when its end looks like a port.
fn port_in_address(word: &str) -> Option<String> {
    let text = word.split_once("://").map_or(word, |(_, rest)| rest);
    let address: Ipv6Addr = text.parse().ok()?;
    let last = address.segments()[7];
    let (host, port) = text.rsplit_once(':')?;
    let host = if host.ends_with(':') { format!("{host}0") } else { host.to_owned() };
    let host: Ipv6Addr = host.parse().ok()?;
    let host =
        if host.is_unspecified() { text.rsplit_once(':')?.0.to_owned() } else { host.to_string() };
    PORTS.contains(&last).then(|| format!("with a port it is `[{host}]:{port}`"))
}

/// Whether a query to this upstream comes to a listener of the Corefile, and to which block.
fn own_block<'f>(facts: &Facts<'f>, upstream: &Upstream, name: &Name) -> Option<Block<'f>> {
    let port = *upstream.port.as_ref().ok()?;
    if upstream.tls.is_some() {
        return None;
    }
    let here = |block: &Block<'f>| {
        let is_host = block.inspected.hosts.iter().any(|host| match host.as_deref() {
            None => upstream.ip.is_loopback(),
            Some(host) => {
                let host = host.split('%').next().unwrap_or_default().parse::<IpAddr>();
                host.is_ok_and(|host| {
                    host == upstream.ip || (host.is_unspecified() && upstream.ip.is_loopback())
                })
            }
        });
        is_host.then_some(*block)
    };
    let mut best: Option<(usize, Block<'f>)> = None;
    for block in facts.blocks().filter_map(|block| here(&block)) {
        for (key, _) in &block.inspected.keys {
            let is_listener = key.transport == KeyTransport::Dns && key.port == port.to_string();
            let length = key.zone.labels().count();
            if is_listener && name.is_in(&key.zone) && best.is_none_or(|(most, _)| length >= most) {
                best = Some((length, block));
            }
        }
    }
    best.map(|(_, block)| block)
}

/// Whether a query for `name` that comes to `block` comes there again, through listeners of this
/// Corefile alone.
fn leads_back<'f>(
    facts: &Facts<'f>,
    block: Block<'f>,
    name: &Name,
    passed: &mut Vec<*const ()>,
) -> bool {
    let this = std::ptr::from_ref(block.source).cast::<()>();
    if passed.contains(&this) {
        return true;
    }
    passed.push(this);
    let Some(directive) = block.directive("forward") else { return false };
    let stanzas = stanzas_of(facts, block, directive);
    let Some(stanza) = stanzas.iter().find(|stanza| name.is_in(&stanza.said.from)) else {
        return false;
    };
    stanza.upstreams().iter().any(|(_, upstream, file)| {
        let is_known = file.is_none() || facts.whose == Whose::Ours;
        let next = own_block(facts, upstream, name).filter(|_| is_known);
        next.is_some_and(|next| leads_back(facts, next, name, passed))
    })
}

/// Upstreams that lead back.
pub(super) fn loops(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for stanza in stanzas(facts) {
        let from = &stanza.said.from;
        // What comes to the block is below one of its zones as well.
        let narrower = stanza.block.zones().find(|zone| zone.is_in(from));
        let name = narrower.unwrap_or(from);
        for (token, upstream, file) in stanza.upstreams() {
            if file.is_some() && facts.whose == Whose::Anothers {
                continue;
            }
            let mut passed = vec![std::ptr::from_ref(stanza.block.source).cast::<()>()];
            let next = own_block(facts, upstream, name);
            let said = match file {
                Some(file) => format!("{} in {}", upstream.text, file.display()),
                None => upstream.text.clone(),
            };
            if next.is_some_and(|next| leads_back(facts, next, name, &mut passed)) {
                findings.push(Finding::warning(
                    "forward-loop",
                    token,
                    format!("{said} is an address of this Corefile: a query for `{name}` comes back"),
                    "name the server that is to be asked; for the cluster's names the upstream Service, \
                     whose address nobody takes over",
                ));
            } else if file.is_some() && upstream.ip.is_loopback() && next.is_none() {
                findings.push(Finding::warning(
                    "resolv-conf-loopback",
                    token,
                    format!(
                        "{said} is a resolver on this machine: when it asks nodens, queries go in a \
                         circle; in a pod without the host's network nobody answers there"
                    ),
                    "name a file with the resolvers that it asks itself, with systemd-resolved \
                     /run/systemd/resolve/resolv.conf",
                ));
            }
        }
    }
}

/// `force_tcp` to resolvers that nobody chose for it.
pub(super) fn forced(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for stanza in stanzas(facts) {
        let file = stanza.upstreams().into_iter().find_map(|(_, _, file)| file.cloned());
        if let (Some(option), Some(file)) = (stanza.option("force_tcp"), file) {
            findings.push(Finding::warning(
                "force-tcp-to-resolv-conf",
                option,
                format!(
                    "the resolvers of {} are asked over TCP alone: one that only speaks UDP never answers",
                    file.display()
                ),
                "leave `force_tcp` out for them, or see with --probe whether all of them speak TCP",
            ));
        }
    }
}

/// More time for a try than a question has.
pub(super) fn patient(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for stanza in stanzas(facts) {
        let is_cut = stanza.said.options.read_timeout > ALL_TRIES;
        if let Some(option) = stanza.option("read_timeout").filter(|_| is_cut) {
            findings.push(Finding::note(
                "read-timeout-cut",
                option,
                "all tries for a question end within 4 s: this is no more",
                "leave it, or write `read_timeout 4s`",
            ));
        }
    }
}

/// An upstream as it would be asked.
pub(in super::super) struct Asked<'f> {
    /// The word that names it.
    pub(in super::super) token: &'f Token,
    /// It.
    pub(in super::super) upstream: Upstream,
    /// Over TCP alone.
    pub(in super::super) is_forced: bool,
}

/// All upstreams of a Corefile.
pub(in super::super) fn asked<'f>(facts: &Facts<'f>) -> Vec<Asked<'f>> {
    let mut found = Vec::new();
    for stanza in stanzas(facts) {
        let is_forced = stanza.said.options.force_tcp;
        for (token, upstream, _) in stanza.upstreams() {
            found.push(Asked { token, upstream: upstream.clone(), is_forced });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_at_the_end_of_an_ipv6_address_is_seen() {
        assert_eq!(port_in_address("::1:53").as_deref(), Some("with a port it is `[::1]:53`"));
        assert_eq!(
            port_in_address("fd00::a:53").as_deref(),
            Some("with a port it is `[fd00::a]:53`")
        );
        assert_eq!(port_in_address("fd00::a"), None);
        assert_eq!(port_in_address("[::1]:53"), None);
        assert_eq!(port_in_address("192.0.2.1:53"), None);
    }
}
