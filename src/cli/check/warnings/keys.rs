//! Keys of server blocks: zones that were meant to be something else, and blocks that take queries
//! away from others.

use super::super::finding::{Finding, Severity};
use super::{Block, Facts, lines, zone_of};
use crate::corefile::{KeyTransport, Place, ServerKey, Token, has_preferred_syntax};
use crate::dns::Name;
use std::net::IpAddr;

/// Keys whose zone is hardly a zone.
pub(super) fn zones(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for block in facts.blocks() {
        for token in &block.source.keys {
            let text = token.text.as_str();
            let keys = || block.inspected.keys.iter().filter(|(_, at)| *at == token.place());
            let Some((key, _)) = keys().next() else { continue };
            let shown = key.zone.to_string();
            let zone = shown.trim_end_matches('.');
            if text.contains(['{', '}']) {
                findings.push(Finding::warning(
                    "stray-brace",
                    token,
                    format!("`{text}` is read as the key of a server block"),
                    "leave it out, or put a space before it: a brace stands alone",
                ));
            } else if zone.parse::<IpAddr>().is_ok() {
                findings.push(Finding::warning(
                    "key-is-address",
                    token,
                    format!("`{zone}` is read as a zone: only names that end in it are served"),
                    format!(
                        "a key is a zone: write `.:{}`, and in the block `bind {zone}`",
                        key.port
                    ),
                ));
            } else if !zone.is_empty() && zone.bytes().all(|octet| octet.is_ascii_digit()) {
                findings.push(Finding::warning(
                    "key-is-number",
                    token,
                    format!("`{zone}` is read as a zone of its own"),
                    format!("a port follows its zone behind a colon: `ZONE:{zone}`"),
                ));
            } else if !keys().all(|(key, _)| has_preferred_syntax(&key.zone)) {
                findings.push(Finding::note(
                    "key-syntax",
                    token,
                    format!("`{shown}` is not a name of letters, digits and hyphens"),
                    "no host can have such a name (RFC 1035 section 2.3.1); services may",
                ));
            }
            if text.bytes().any(|octet| octet.is_ascii_uppercase()) {
                findings.push(Finding::note(
                    "key-capitals",
                    token,
                    format!(
                        "node-cache never matches a zone with capitals; nodens reads `{shown}`"
                    ),
                    "write it in small letters",
                ));
            }
        }
        redundant(block, findings);
    }
}

/// Keys that another key of the same block holds already.
fn redundant(block: Block<'_>, findings: &mut Vec<Finding>) {
    let keys = &block.inspected.keys;
    for (key, place) in keys {
        let holds = |(other, at): &&(ServerKey, Place)| {
            at != place
                && other.zone != key.zone
                && key.zone.is_in(&other.zone)
                && (other.transport, &other.port) == (key.transport, &key.port)
        };
        if let Some((other, _)) = keys.iter().find(holds) {
            findings.push(Finding {
                severity: Severity::Note,
                code: "key-within-key",
                place: Some(place.clone()),
                message: format!(
                    "the block serves `{}` by its key `{}` already",
                    key.zone, other.zone
                ),
                hint: "leave one of them out".to_owned(),
            });
        }
    }
}

/// Where a key is served: scheme, address, port.
type Spot<'f> = (KeyTransport, Option<&'f str>, &'f str);

fn spots<'f>(block: Block<'f>, key: &'f ServerKey) -> impl Iterator<Item = Spot<'f>> {
    let hosts = block.inspected.hosts.iter();
    hosts.map(|host| (key.transport, host.as_deref(), key.port.as_str()))
}

/// Keys that a key above takes all queries from.
pub(super) fn shadowed(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let mut taken: Vec<(Spot<'_>, &Name, &Place)> = Vec::new();
    for block in facts.blocks() {
        for (key, place) in &block.inspected.keys {
            for spot in spots(block, key) {
                let first = taken
                    .iter()
                    .find(|(other, zone, at)| *other == spot && **zone == key.zone && *at != place);
                let is_told = facts.wrong.contains(place);
                if let Some((_, _, at)) = first.filter(|_| !is_told) {
                    findings.push(Finding {
                        severity: Severity::Warning,
                        code: "zone-shadowed",
                        place: Some(place.clone()),
                        message: format!(
                            "the key at line {} serves `{}` on the same address, written in another way: \
                             this block sees none of its queries there",
                            at.line, key.zone
                        ),
                        hint: "join the blocks, or `bind` different addresses".to_owned(),
                    });
                }
                taken.push((spot, &key.zone, place));
            }
        }
    }
}

/// The key of another block that gets all queries for `name` that would come to `block`.
pub(super) fn owner<'f>(
    facts: &Facts<'f>,
    block: Block<'f>,
    name: &Name,
) -> Option<(&'f Name, &'f Place)> {
    let own = block.inspected.keys.iter().filter(|(key, _)| name.is_in(&key.zone));
    let own = own.max_by_key(|(key, _)| key.zone.labels().count())?;
    let wanted: Vec<Spot<'_>> = spots(block, &own.0).collect();
    let mut best: Option<(&Name, &Place)> = None;
    for other in facts.blocks() {
        for (key, place) in &other.inspected.keys {
            let is_longer = key.zone != own.0.zone && key.zone.is_in(&own.0.zone);
            let served: Vec<Spot<'_>> = spots(other, key).collect();
            let is_everywhere = wanted.iter().all(|spot| served.contains(spot));
            let is_own = std::ptr::eq(other.source, block.source);
            if name.is_in(&key.zone) && is_longer && is_everywhere && !is_own {
                best = best.filter(|(zone, _)| zone.is_in(&key.zone)).or(Some((&key.zone, place)));
            }
        }
    }
    best
}

/// Words about names that another block gets the queries for.
pub(super) fn names_of_others(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for block in facts.blocks() {
        for directive in &block.inspected.directives {
            for token in names(&directive.word, &directive.tokens) {
                let owner = zone_of(token).and_then(|name| owner(facts, block, &name));
                if let Some((zone, at)) = owner {
                    findings.push(Finding::warning(
                        "name-of-another-block",
                        token,
                        format!(
                            "queries for `{}` go to the block of `{zone}` at line {}, and never come here",
                            token.text, at.line
                        ),
                        format!("move it to the block of `{zone}`"),
                    ));
                }
            }
        }
    }
}

/// The words of a directive that say for which names it is there.
fn names<'t>(word: &str, tokens: &'t [Token]) -> Vec<&'t Token> {
    let mut names: Vec<&Token> = Vec::new();
    for line in lines(tokens) {
        let arguments = line.arguments();
        match (word, line.depth) {
            ("forward", 0) => names.extend(arguments.first()),
            ("template", 0) => names.extend(arguments.iter().skip(2)),
            ("hosts", 1) if line.first().text.parse::<IpAddr>().is_ok() => names.extend(arguments),
            _ => {}
        }
    }
    names
}

/// Blocks that listen on all addresses beside blocks that bind some: these addresses do not know the
/// others' zones.
pub(super) fn addresses(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for block in facts.blocks() {
        let listens_everywhere =
            block.inspected.hosts.iter().any(|host| host.as_deref().is_none_or(is_wildcard));
        if !listens_everywhere {
            continue;
        }
        for (key, place) in &block.inspected.keys {
            let others = facts.blocks().flat_map(|other| {
                let keys = other.inspected.keys.iter();
                keys.flat_map(move |(key, _)| spots(other, key)).collect::<Vec<_>>()
            });
            let others = others.filter(|(transport, host, port)| {
                let is_one = host.is_some_and(|host| !is_wildcard(host));
                is_one && (*transport, *port) == (key.transport, key.port.as_str())
            });
            let mut others: Vec<&str> = others.filter_map(|(_, host, _)| host).collect();
            others.sort_unstable();
            others.dedup();
            let Some(first) = others.first().filter(|_| !facts.wrong.contains(place)) else {
                continue;
            };
            let all = others.join(" ");
            let fate = match served_by(facts, (key.transport, Some(first), &key.port), &key.zone) {
                Some(zone) => format!("go to the block of `{zone}`"),
                None => "are refused".to_owned(),
            };
            findings.push(Finding {
                severity: Severity::Warning,
                code: "bind-missing",
                place: Some(place.clone()),
                message: format!(
                    "queries for `{}` at {all} {fate}: other blocks bind that, this one listens on all \
                     other addresses",
                    key.zone
                ),
                hint: format!("give the block `bind {all}` as well"),
            });
        }
    }
}

fn is_wildcard(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

/// The zone of a listener that gets the queries for `zone`.
fn served_by<'f>(facts: &Facts<'f>, spot: Spot<'_>, zone: &Name) -> Option<&'f Name> {
    let zones = facts.blocks().flat_map(|block| {
        let here = move |key: &ServerKey| spots(block, key).any(|other| other == spot);
        let keys = block.inspected.keys.iter().filter(move |(key, _)| here(key));
        keys.map(|(key, _)| &key.zone).collect::<Vec<_>>()
    });
    zones.filter(|own| zone.is_in(own)).max_by_key(|own| own.labels().count())
}

/// A Corefile without any server block.
pub(super) fn no_block(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    if facts.tree.blocks.is_empty() && facts.wrong.is_empty() {
        findings.push(Finding {
            severity: Severity::Warning,
            code: "no-server-block",
            place: None,
            message: "there is no server block: nodens then answers every query with its client's \
                      address, on all addresses"
                .to_owned(),
            hint: "write one, such as `.:53 {`, its directives, `}`".to_owned(),
        });
    }
}

/// A block without a key, which is left out without a word.
pub(super) fn block_without_key(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let mut depth = 0u32;
    let mut before: Option<&Token> = None;
    for token in facts.written {
        match token.text.as_str() {
            "{" => {
                if depth == 0 && before.is_none_or(|before| before.text == "}") {
                    findings.push(Finding::warning(
                        "block-without-key",
                        token,
                        "the block has no key: it is left out",
                        "write its zone before the brace, such as `.:53 {`",
                    ));
                }
                depth += 1;
            }
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = Some(token);
    }
}
