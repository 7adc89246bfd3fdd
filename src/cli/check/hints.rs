//! What to do about each mistake.
//!
//! A correction that a hint proposes for a word was tried out: the loading code takes it. Knows no rule
//! of a directive but its syntax as the pages show it.

use super::syntax::{SYNTAX, line_of, nearest, options_of};
use crate::corefile::{CorefileError, Directive, ServerBlock, Token, Tree};
use crate::engine::{InspectedBlock, Mistake};
use crate::plugin::{TABLE, split_host_port};
use std::net::IpAddr;

/// Where to read on.
pub(super) const SEE: &str = "see docs/plugins for the page of each directive";

/// Tells all mistakes of a tree.
pub(super) type Judge<'j> = &'j dyn Fn(&Tree) -> Vec<Mistake>;

/// The code and the hint for what the parser says; `written` are the tokens of the whole file.
pub(super) fn of_reading(error: &CorefileError, written: &[Token]) -> (&'static str, String) {
    let message = error.message.as_str();
    let has = |part: &str| message.contains(part);
    if let Some(word) = quoted(message).filter(|_| message.starts_with("Unknown directive")) {
        return ("unknown-directive", of_unknown_directive(word));
    }
    let is_import = ["mport", "lob pattern"].iter().any(|part| has(part));
    if is_import {
        return ("import", of_import(error, written));
    }
    let hint = if has("Unexpected '}'") {
        "`}` stands on a line of its own".to_owned()
    } else if has("check for extra comma") {
        "leave out the comma before `{`".to_owned()
    } else if has("redeclaration") {
        "give each snippet a name of its own".to_owned()
    } else if has("expecting '{'") {
        "what a snippet stands for is in braces: `(name) {`, its lines, `}`".to_owned()
    } else if has("EOF") || has("expecting '}'") {
        "something must follow here: a `}` for each `{`, a key behind each comma".to_owned()
    } else {
        SEE.to_owned()
    };
    ("syntax", hint)
}

/// What stands in the first single quotes.
fn quoted(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once('\'')?;
    rest.rsplit_once('\'').map(|(word, _)| word)
}

fn of_unknown_directive(word: &str) -> String {
    let carried = TABLE.iter().filter(|row| row.setup.is_ok()).map(|row| row.word);
    if let Some(near) = nearest(word, carried) {
        return format!("did you mean `{near}`?");
    }
    let owner = SYNTAX.iter().find(|(owner, _)| options_of(owner).contains(&word));
    if let Some((owner, _)) = owner {
        return format!("`{word}` belongs into the braces of a directive such as `{owner}`");
    }
    let known = TABLE.iter().map(|row| row.word);
    if let Some(near) = nearest(word, known) {
        return format!("did you mean `{near}`? nodens does not carry it");
    }
    if word.contains(['.', ':']) {
        return "a key of a server block? Then the block above has no `}`".to_owned();
    }
    "neither nodens nor CoreDNS has it; docs/plugins has a page for each directive".to_owned()
}

fn of_import(error: &CorefileError, written: &[Token]) -> String {
    if !error.message.starts_with("File to import not found") {
        return "`import` takes the name of a snippet, a file, or a pattern with one `*`"
            .to_owned();
    }
    let wanted = error.message.rsplit(": ").next().unwrap_or_default();
    let names = written.iter().filter_map(|token| {
        token
            .text
            .strip_prefix('(')
            .and_then(|name| name.strip_suffix(')'))
            .map(|name| (name, token))
    });
    let names: Vec<(&str, &Token)> = names.collect();
    if let Some((_, token)) = names.iter().find(|(name, _)| *name == wanted) {
        return format!(
            "the snippet stands at line {}: move it above its first import",
            token.line
        );
    }
    match nearest(wanted, names.iter().map(|(name, _)| *name)) {
        Some(near) => format!("did you mean the snippet `{near}`?"),
        None => format!(
            "neither a snippet nor a file beside {} has this name",
            error.place.as_ref().map_or("this file", |place| &place.file)
        ),
    }
}

/// For a key that names no zone.
pub(super) fn of_key(error: &CorefileError) -> String {
    let message = error.message.as_str();
    let hint = if message.ends_with('{') {
        "put a space before `{`"
    } else if message.ends_with("domain name: ") {
        "a port alone is no zone: write `.:53` for all names"
    } else if message.contains("after last colon") {
        "write the port behind the colon, or leave the colon out"
    } else if message.contains("CIDR") {
        "all names are the zone `.`"
    } else {
        "a key is `[SCHEME://]ZONE[:PORT]`, or a network for its reverse zone"
    };
    hint.to_owned()
}

/// A directive of a tree, and which of its tokens is wrong.
struct Spot<'t> {
    block: &'t ServerBlock,
    directive: &'t Directive,
    token: &'t Token,
    /// The tokens of its line.
    line: &'t [Token],
}

impl<'t> Spot<'t> {
    fn find(error: &CorefileError, tree: &'t Tree) -> Option<Spot<'t>> {
        let place = error.place.as_ref()?;
        for block in &tree.blocks {
            for directive in &block.directives {
                let tokens = directive.tokens.as_slice();
                let Some(at) = tokens.iter().position(|token| token.place() == *place) else {
                    continue;
                };
                let breaks = |index: &usize| !tokens[index - 1].shares_line_with(&tokens[*index]);
                let start = (1..=at).rev().find(breaks).unwrap_or(0);
                let end = (at + 1..tokens.len()).find(breaks).unwrap_or(tokens.len());
                let line = &tokens[start..end];
                return Some(Spot { block, directive, token: &tokens[at], line });
            }
        }
        None
    }

    /// Whether it is a `forward` that begins with an upstream.
    fn lacks_from(&self) -> bool {
        let words: Vec<&str> = self.line.iter().map(|token| token.text.as_str()).collect();
        let is_upstream = |word: &str| {
            let word = word.split_once("://").map_or(word, |(_, rest)| rest);
            word.starts_with('/')
                || split_host_port(word).map_or(word, |(host, _)| host).parse::<IpAddr>().is_ok()
        };
        matches!(words[..], ["forward", to] | ["forward", to, "{"] if is_upstream(to))
    }

    /// The same tree of one block, with another text for the token.
    fn with(&self, text: &str) -> Tree {
        let mut block = self.block.clone();
        for token in block.directives.iter_mut().flat_map(|directive| &mut directive.tokens) {
            if token.place() == self.token.place() {
                text.clone_into(&mut token.text);
            }
        }
        Tree { blocks: vec![block], warnings: Vec::new() }
    }
}

/// For what a directive says of its words.
pub(super) fn of_directive(error: &CorefileError, tree: &Tree, judge: Judge<'_>) -> String {
    let Some(spot) = Spot::find(error, tree) else {
        return SEE.to_owned();
    };
    let word = spot.directive.word.as_str();
    let text = spot.token.text.as_str();
    let is_first = spot.line.first().is_some_and(|first| first.place() == spot.token.place());
    if text == "{" && is_first {
        return format!("the `{{` of `{word}` stands on the line of `{word}`");
    }
    if error.message.contains("only be used once") {
        return format!("a block has one `{word}`: put its lines into one");
    }
    let options = options_of(word);
    if is_first && text != word && !options.contains(&text) {
        if let Some(near) = nearest(text, options.iter().copied()) {
            return format!("did you mean `{near}`?");
        }
        let owner = SYNTAX.iter().find(|(owner, _)| options_of(owner).contains(&text));
        if let Some((owner, _)) = owner {
            return format!("`{text}` is an option of `{owner}`, not of `{word}`");
        }
        if TABLE.iter().any(|row| row.word == text) {
            return format!("is a `}}` missing before it? `{text}` is a directive of its own");
        }
        if !options.is_empty() && !["{", "}"].contains(&text) {
            let options = options.join(", ");
            return format!("`{word}` has the options {options}: see docs/plugins/{word}.md");
        }
    }
    if text == "}" {
        return "`}` stands on a line of its own".to_owned();
    }
    if text.contains([',', ';']) && spot.token.length as usize == text.chars().count() {
        return "words are separated by spaces alone".to_owned();
    }
    if word == "forward" && spot.lacks_from() {
        return format!("say first for which names, `.` for all: `forward . {text}`");
    }
    let syntax = spot.line.first().and_then(|first| line_of(word, &first.text));
    let alternatives = syntax.unwrap_or_default().split(['|', ' ', '[', ']']).skip(1);
    let alternatives = alternatives.filter(|one| one.starts_with(|c: char| c.is_ascii_lowercase()));
    if let Some(near) = nearest(text, alternatives).filter(|near| *near != text) {
        return format!("did you mean `{near}`?");
    }
    if let Some(taken) = repaired(&spot, &error.message, judge) {
        return format!("write `{taken}`");
    }
    let first = spot.line.first().map_or(word, |first| &first.text);
    let first = if first == "}" { word } else { first };
    match line_of(word, first).or_else(|| line_of(word, word)) {
        Some(line) => format!("the syntax is `{line}`, see docs/plugins/{word}.md"),
        None => format!("see docs/plugins/{word}.md for the syntax"),
    }
}

/// A text for the token with which the directive loads.
fn repaired(spot: &Spot<'_>, message: &str, judge: Judge<'_>) -> Option<String> {
    let place = spot.token.place();
    let loads = |text: &String| {
        let still = |mistake: &Mistake| mistake.error.place.as_ref() == Some(&place);
        !judge(&spot.with(text)).iter().any(still)
    };
    repairs(&spot.directive.word, &spot.token.text, message).into_iter().find(loads)
}

/// The ports of endpoints, for those who leave them out.
const PORTS: [(&str, u16); 4] =
    [("health", 8080), ("prometheus", 9253), ("ready", 8181), ("pprof", 6053)];

/// What a word may have been meant for, by what is said of it: with a unit or without, with a port or
/// without, in the other case.
fn repairs(directive: &str, text: &str, message: &str) -> Vec<String> {
    let has = |part: &str| message.contains(part);
    let is_number = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let mut repairs = Vec::new();
    if has("missing unit") {
        repairs.push(format!("{text}s"));
    }
    if has("of percentage") {
        repairs.push(format!("{text}%"));
    }
    if has("missing port") {
        let port = PORTS.iter().find(|(word, _)| *word == directive).map(|(_, port)| port);
        repairs.extend(is_number.then(|| format!(":{text}")));
        repairs.extend(port.filter(|_| !is_number).map(|port| format!("{text}:{port}")));
    }
    if has("invalid syntax") {
        repairs.push(text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).to_owned());
    }
    if has("IP address") {
        let (_, rest) = text.split_once("://").unwrap_or(("", text));
        let without_length = rest.split_once('/').map_or(rest, |(address, _)| address);
        let without_port = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
        repairs.extend(
            [rest, without_length, without_port.trim_matches(['[', ']'])].map(str::to_owned),
        );
    }
    if has("invalid query class") || has("invalid RR class") || has("unknown rcode") {
        repairs.push(text.to_ascii_uppercase());
    }
    repairs.retain(|repair| repair != text && !repair.is_empty());
    repairs
}

/// For ports, and blocks that contradict one another.
pub(super) fn of_listener(error: &CorefileError, blocks: &[InspectedBlock]) -> String {
    let message = error.message.as_str();
    if message.ends_with("invalid port") {
        return "a port is a number up to 65535".to_owned();
    }
    let served = message.strip_prefix("cannot serve ").and_then(|rest| rest.split(" - ").next());
    let served = served.and_then(|rest| rest.split(" on ").next()).unwrap_or_default();
    let first = blocks.iter().flat_map(|block| &block.keys).find(|(key, place)| {
        let shown = format!("{}://{}:{}", key.transport.word(), key.zone, key.port);
        shown == served && Some(place) != error.place.as_ref()
    });
    let line =
        first.map_or_else(|| "above".to_owned(), |(_, place)| format!("at line {}", place.line));
    match message.ends_with("already defined") {
        true => format!(
            "the key {line} serves it: join the blocks, or let them `bind` different addresses"
        ),
        false => format!(
            "one of this block and the one {line} listens on all addresses: let both `bind` theirs"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_repaired_by_what_is_said_of_it() {
        for (directive, text, message, repair) in [
            ("reload", "30", "time: missing unit in duration \"30\"", "30s"),
            ("health", "8080", "address 8080: missing port in address", ":8080"),
            ("health", "127.0.0.1", "address 127.0.0.1: missing port in address", "127.0.0.1:8080"),
            ("cache", "30s", "strconv.Atoi: parsing \"30s\": invalid syntax", "30"),
            ("bind", "[::1]:53", "not a valid IP address or interface name", "::1"),
            ("bind", "10.0.0.1/24", "not a valid IP address or interface name", "10.0.0.1"),
            ("template", "in", "invalid query class in", "IN"),
        ] {
            let found = repairs(directive, text, message);
            assert!(found.iter().any(|one| one == repair), "{directive} {text}: {found:?}");
        }
        assert_eq!(repairs("cache", "0", "cache TTL can not be zero or negative: 0"), [""; 0]);
    }

    #[test]
    fn an_unknown_word_is_explained() {
        for (word, start) in [
            ("kache", "did you mean `cache`?"),
            ("sucess", "neither"),
            ("success", "`success` belongs into the braces of a directive such as `cache`"),
            ("kubernets", "did you mean `kubernetes`? nodens does not carry it"),
            ("b.test:53", "a key of a server block?"),
        ] {
            let hint = of_unknown_directive(word);
            assert!(hint.starts_with(start), "{word}: {hint}");
        }
    }
}
