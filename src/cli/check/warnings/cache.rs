//! `cache`: what is a zone though it was meant otherwise, and numbers that contradict each other.

use super::super::finding::Finding;
use super::super::syntax::options_of;
use super::{Block, Facts, Line, lines};
use crate::corefile::{Directive, Token, parse_duration, parse_integer};
use crate::dns::Name;
use crate::plugin::cache::{Keeps, Said, read};

/// Words behind `cache` that are read as zones.
pub(super) fn zones(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for (_, directive) in facts.directives("cache") {
        let head = lines(&directive.tokens);
        let Some(head) = head.first() else { continue };
        let mut arguments = head.arguments();
        if let [first, rest @ ..] = arguments
            && parse_integer(&first.text).is_ok()
        {
            arguments = rest;
        }
        let options = options_of("cache");
        for token in arguments {
            let text = token.text.as_str();
            let caches =
                format!("`{text}` is read as a zone: nothing but names below `{text}.` is cached");
            if parse_integer(text).is_ok() || options.contains(&text) {
                findings.push(Finding::warning(
                    "cache-zone-is-option",
                    token,
                    caches,
                    "`cache` takes one TTL and zones; success, denial and the rest go into its braces",
                ));
            } else if parse_duration(text).is_ok() {
                let hint = match seconds(text) {
                    Some(seconds) => format!("the TTL is a number of seconds: `cache {seconds}`"),
                    None => "the TTL is a number of seconds, without a unit".to_owned(),
                };
                findings.push(Finding::warning("cache-zone-is-duration", token, caches, hint));
            }
        }
    }
}

fn seconds(duration: &str) -> Option<i64> {
    parse_duration(duration)
        .ok()
        .map(|nanoseconds| nanoseconds / 1_000_000_000)
        .filter(|&one| one > 0)
}

fn said(block: Block<'_>, directive: &Directive) -> Option<Said> {
    let zones: Vec<Name> = block.zones().cloned().collect();
    read(&directive.tokens, &zones).ok()
}

/// A greatest TTL below the least.
pub(super) fn ttls(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for (block, directive) in facts.directives("cache") {
        let Some(said) = said(block, directive) else { continue };
        let lines = lines(&directive.tokens);
        let mut told: Vec<&Token> = Vec::new();
        for (word, keeps) in [("success", said.success), ("denial", said.denial)] {
            if keeps.most >= keeps.least {
                continue;
            }
            let Some((token, line)) = ttl_of(&lines, word) else { continue };
            if told.contains(&token) {
                continue;
            }
            told.push(token);
            let Keeps { most, least, .. } = keeps;
            let is_given = line.depth > 0 && line.arguments().len() > 2;
            let hint = match is_given {
                true => format!(
                    "write the greater number first, `{word} CAPACITY {least} {most}`, or only one of them"
                ),
                false => format!(
                    "the least is {least} unless given: `{word} CAPACITY {most} 1` keeps TTLs from 1 to {most}"
                ),
            };
            findings.push(Finding::warning(
                "cache-ttl-below-minimum",
                token,
                format!("the greatest TTL, {most}, is below the least, {least}: everything is kept {most} s"),
                hint,
            ));
        }
    }
}

/// The word that says the greatest TTL of a store, and its line.
fn ttl_of<'l, 't>(lines: &'l [Line<'t>], word: &str) -> Option<(&'t Token, &'l Line<'t>)> {
    let own = lines.iter().rfind(|line| line.depth > 0 && line.first().text == word);
    let own = own.and_then(|line| line.arguments().get(1).map(|token| (token, line)));
    own.or_else(|| lines.first().and_then(|head| Some((head.arguments().first()?, head))))
}

/// Capacities that are not what they come to.
pub(super) fn capacities(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for (block, directive) in facts.directives("cache") {
        let Some(said) = said(block, directive) else { continue };
        for line in lines(&directive.tokens).iter().filter(|line| line.depth > 0) {
            let keeps = match line.first().text.as_str() {
                "success" => said.success,
                "denial" => said.denial,
                _ => continue,
            };
            let Some(token) = line.arguments().first() else { continue };
            let is_its = parse_integer(&token.text).is_ok_and(|asked| asked == keeps.asked);
            let is_raised = u64::try_from(keeps.asked).unwrap_or(0) < keeps.entries;
            if is_its && is_raised {
                findings.push(Finding::warning(
                    "cache-capacity-raised",
                    token,
                    format!("the store holds {} entries: fewer cannot be had", keeps.entries),
                    format!(
                        "write `{}`, or more; `disable {}` keeps nothing",
                        keeps.entries,
                        line.first().text
                    ),
                ));
            }
        }
    }
}
