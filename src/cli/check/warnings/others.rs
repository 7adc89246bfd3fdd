//! What concerns several directives: zones outside of their block, variables, and what a node cache
//! should have.

use super::super::finding::Finding;
use super::{Facts, Line, lines};
use crate::corefile::{Surroundings, Token, normalise_zone, parse_duration, parse_integer};
use crate::plugin::split_host_port;
use std::net::IpAddr;

/// Words that name zones which no query of their block is in.
pub(super) fn outside(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for block in facts.blocks() {
        for directive in &block.inspected.directives {
            for line in lines(&directive.tokens).iter().filter(|line| line.depth == 0) {
                let arguments = line.arguments();
                let zones = match directive.word.as_str() {
                    "cache" => match arguments {
                        [first, rest @ ..] if parse_integer(&first.text).is_ok() => rest,
                        all => all,
                    },
                    "forward" => arguments.get(..1).unwrap_or_default(),
                    "hosts" => arguments.get(1..).unwrap_or_default(),
                    "template" => arguments.get(2..).unwrap_or_default(),
                    "log" | "metadata" | "acl" => arguments,
                    _ => continue,
                };
                for token in zones.iter().filter(|token| is_zone(token)) {
                    let zones = normalise_zone(&token.text);
                    let is_inside = zones.iter().any(|zone| block.may_see(zone));
                    if zones.is_empty() || is_inside || block.inspected.keys.is_empty() {
                        continue;
                    }
                    let own: Vec<String> = block.zones().map(ToString::to_string).collect();
                    findings.push(Finding::warning(
                        "zone-outside-block",
                        token,
                        format!("no query below `{}` comes to this block", zones[0]),
                        format!(
                            "the block serves {}: name something below, or leave it out",
                            own.join(" ")
                        ),
                    ));
                }
            }
        }
    }
}

/// Words that end with a comma or a semicolon, which are part of the name then.
pub(super) fn commas(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for block in facts.blocks() {
        let names = block.inspected.directives.iter().flat_map(|directive| {
            let lines = lines(&directive.tokens).into_iter();
            lines.flat_map(move |line| {
                match (directive.word.as_str(), line.first().text.as_str()) {
                    ("cache" | "hosts" | "metadata" | "acl", _)
                    | ("forward", "except" | "forward") => line.tokens,
                    _ => &[],
                }
            })
        });
        for token in block.source.keys.iter().chain(names) {
            let text = token.text.as_str();
            let is_quoted =
                usize::try_from(token.length).is_ok_and(|most| most > text.chars().count());
            if !is_quoted && text.contains([',', ';']) {
                findings.push(Finding::warning(
                    "comma-in-word",
                    token,
                    format!("`{text}` is one word: what separates is part of it"),
                    "words are separated by spaces alone",
                ));
            }
        }
    }
}

/// Whether a word is meant as a zone: no format, number or duration.
fn is_zone(token: &Token) -> bool {
    let text = token.text.as_str();
    !text.contains(['{', ',', ';']) && parse_integer(text).is_err() && parse_duration(text).is_err()
}

/// Variables that nobody fills in.
pub(super) fn variables(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let mut told: Vec<&str> = Vec::new();
    for token in facts.written {
        let text = token.text.as_str();
        if text.contains("__PILLAR__") || text.contains("__PROMETHEUS__ENDPOINT__") {
            findings.push(Finding::warning(
                "variable-left",
                token,
                format!("`{text}` is a variable that is not filled in"),
                "deployers fill it in, with sed or their own templates, before the node sees it",
            ));
        }
        for name in names(text) {
            if facts.surroundings.variable(name).is_none() && !told.contains(&name) {
                told.push(name);
                findings.push(Finding::warning(
                    "variable-unset",
                    token,
                    format!(
                        "the environment variable {name} is not set here: it stands for nothing"
                    ),
                    format!("set {name} for nodens, in a pod with `env:`"),
                ));
            }
        }
    }
}

/// The names of the environment variables in a word.
fn names(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (open, close) in [("{$", "}"), ("{%", "%}")] {
        let mut rest = text;
        while let Some((_, behind)) = rest.split_once(open) {
            let Some((name, behind)) = behind.split_once(close) else { break };
            if !name.is_empty() {
                found.push(name);
            }
            rest = behind;
        }
    }
    found
}

/// `log` with a format alone, which is a name.
pub(super) fn log_format(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for (_, directive) in facts.directives("log") {
        for line in lines(&directive.tokens).iter().filter(|line| line.depth == 0) {
            if let [only] = line.arguments()
                && only.text.contains('{')
            {
                findings.push(Finding::warning(
                    "log-format-is-name",
                    only,
                    "a single word behind `log` is a zone: nothing is logged",
                    "name the zone first: `log . FORMAT`",
                ));
            }
        }
    }
}

/// Words behind directives that read none, or in the block of one that has none.
pub(super) fn passed_over(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for (word, has_block) in [("any", false), ("local", true)] {
        for (_, directive) in facts.directives(word) {
            let lines = lines(&directive.tokens);
            let said = lines.iter().find(|line| line.depth == 0).map_or(&[][..], Line::arguments);
            let inside = lines.iter().find(|line| line.depth > 0 && !has_block).map(Line::first);
            if let Some(token) = said.first().or(inside) {
                findings.push(Finding::warning(
                    "word-passed-over",
                    token,
                    format!("`{word}` reads no such word: `{}` does nothing", token.text),
                    "take it out",
                ));
            }
        }
    }
}

/// Directives that a node cache should have.
pub(super) fn missing(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for block in facts.blocks() {
        if !block.has("forward") || block.has("errors") {
            continue;
        }
        if let Some(key) = block.source.keys.first() {
            findings.push(Finding::note(
                "errors-missing",
                key,
                "the block has no `errors`: nobody is told why a query failed",
                "add `errors`",
            ));
        }
    }
    let has_reload = facts.blocks().any(|block| block.has("reload"));
    let first = facts.blocks().find_map(|block| block.source.keys.first());
    if let Some(key) = first.filter(|_| !has_reload) {
        findings.push(Finding::note(
            "reload-missing",
            key,
            "no block has `reload`: a changed Corefile counts when nodens is told by a signal, or started",
            "add `reload` to one block",
        ));
    }
}

/// Metrics that the whole network may read.
pub(super) fn open_metrics(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let open = facts.directives("prometheus").into_iter().find_map(|(_, directive)| {
        let address = directive.tokens.get(1)?;
        let (host, _) = split_host_port(&address.text).ok()?;
        let is_all = host.is_empty() || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        is_all.then_some(address)
    });
    if let Some(address) = open {
        findings.push(Finding::note(
            "metrics-on-all-addresses",
            address,
            "metrics are open on all addresses of the node, to whoever reaches it",
            "name an address, such as the node's: `prometheus {$NODE_IP}:9253`",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_are_found_in_both_forms() {
        assert_eq!(names("{$A}:{%B%}{$C}"), ["A", "C", "B"]);
        assert_eq!(names("{$}{%%}{$A"), [""; 0]);
    }
}
