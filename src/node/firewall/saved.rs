//! The text that `iptables-save` gives and `iptables-restore` takes: rules of ours read from it, and
//! changes written.
//!
//! Pure: runs nothing.

use super::rules::{Place, Protocol, Rule, Side};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// A rule of ours as a line of `iptables-save` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Which one it is.
    pub(super) rule: Rule,
    /// Whether it has the comment; versions before 1.22.19 wrote none.
    pub(super) is_commented: bool,
    /// The line after `-A `, as it was printed.
    pub(super) text: String,
}

/// Reads a line of `iptables-save -t TABLE`. `None` when it is no rule of this kind: another
/// chain, another target, a further condition, somebody else's comment.
pub(super) fn read_saved(table: &str, line: &str) -> Option<Found> {
    let text = line.strip_prefix("-A ")?;
    let words = split(text)?;
    let mut words = words.iter().map(String::as_str);
    let place = Place::of(table, words.next()?)?;
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    while let Some(option) = words.next() {
        match option {
            "--notrack" => {}
            "-m" if matches!(words.next(), Some("tcp" | "udp" | "comment")) => {}
            "-s" | "-d" | "-p" | "--sport" | "--dport" | "--comment" | "-j" => {
                // An option twice is a rule that we do not know.
                if given.insert(option, words.next()?).is_some() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    let side = match (given.contains_key("-s"), given.contains_key("-d")) {
        (true, false) => Side::Source,
        (false, true) => Side::Destination,
        _ => return None,
    };
    let (address, port, other_port) = match side {
        Side::Source => (given.get("-s")?, given.get("--sport")?, "--dport"),
        Side::Destination => (given.get("-d")?, given.get("--dport")?, "--sport"),
    };
    let protocol = match *given.get("-p")? {
        "tcp" | "6" => Protocol::Tcp,
        "udp" | "17" => Protocol::Udp,
        _ => return None,
    };
    let target = match (*given.get("-j")?, place.target()) {
        ("NOTRACK", "NOTRACK") | ("ACCEPT", "ACCEPT") => true,
        ("CT", "NOTRACK") => text.contains(" --notrack"),
        _ => false,
    };
    let is_commented = match given.get("--comment") {
        None => false,
        Some(comment) if *comment == place.comment() => true,
        Some(_) => return None,
    };
    if !target || given.contains_key(other_port) {
        return None;
    }
    let rule = Rule { place, protocol, side, address: host(address)?, port: port.parse().ok()? };
    Some(Found { rule, is_commented, text: text.to_owned() })
}

/// The address of `169.254.20.10/32`, with the full length or none.
fn host(text: &str) -> Option<IpAddr> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let full = if address.is_ipv4() { "32" } else { "128" };
    (length.is_empty() || length == full).then_some(address)
}

/// The words of a saved rule: blanks part them, double quotes keep them, a backslash in quotes
/// takes the next character as it is. `None` when a quote stays open.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(&first) = letters.peek() {
        if first.is_whitespace() {
            letters.next();
            continue;
        }
        let mut word = String::new();
        let mut is_quoted = false;
        while let Some(&letter) = letters.peek() {
            if letter.is_whitespace() && !is_quoted {
                break;
            }
            letters.next();
            match letter {
                '"' => is_quoted = !is_quoted,
                '\\' if is_quoted => word.push(letters.next()?),
                _ => word.push(letter),
            }
        }
        if is_quoted {
            return None;
        }
        words.push(word);
    }
    Some(words)
}

/// The input of `iptables-restore --noflush`: removals, then each new rule before the others.
pub(super) fn transaction(removed: &[&Found], added: &[Rule]) -> String {
    let mut text = String::new();
    for table in ["raw", "filter"] {
        let mut removed =
            removed.iter().filter(|found| found.rule.place.table() == table).peekable();
        let mut added = added.iter().filter(|rule| rule.place.table() == table).peekable();
        if removed.peek().is_none() && added.peek().is_none() {
            continue;
        }
        // Writing to a String does not fail.
        let _ = writeln!(text, "*{table}");
        for found in removed {
            let _ = writeln!(text, "-D {}", found.text);
        }
        for rule in added {
            let _ = writeln!(text, "-I {}", spelled(rule));
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// The same for removing rules of one table that stand there with their comment.
pub(super) fn removal(rules: &[Rule]) -> String {
    let Some(first) = rules.first() else { return String::new() };
    let mut text = format!("*{}\n", first.place.table());
    for rule in rules {
        let _ = writeln!(text, "-D {}", spelled(rule));
    }
    text + "COMMIT\n"
}

/// Chain and words.
fn spelled(rule: &Rule) -> String {
    let mut text = rule.place.chain().to_owned();
    for word in rule.words() {
        let quote = if word.contains(' ') { "\"" } else { "" };
        let _ = write!(text, " {quote}{word}{quote}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Family, Plan};
    use super::*;

    #[test]
    fn a_transaction_removes_copies_and_prepends_what_is_missing() {
        let rules = Plan::of(&["10.0.0.10"]).rules(Family::V4);
        let old = "PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -j NOTRACK";
        let found = read_saved("raw", &format!("-A {old}")).unwrap();
        assert_eq!(
            transaction(&[&found], &rules[1..3]),
            format!(
                "*raw\n-D {old}\n\
                 -I PREROUTING -p udp -d 10.0.0.10 --dport 53 -j NOTRACK -m comment --comment \
                 \"NodeLocal DNS Cache: skip conntrack\"\nCOMMIT\n\
                 *filter\n\
                 -I INPUT -p tcp -d 10.0.0.10 --dport 53 -j ACCEPT -m comment --comment \
                 \"NodeLocal DNS Cache: allow DNS traffic\"\nCOMMIT\n"
            )
        );
        assert_eq!(transaction(&[], &[]), "");
    }

    #[test]
    fn what_iptables_saves_is_read_back() {
        let rule = Plan::of(&["10.0.0.10"]).rules(Family::V4)[1];
        for (line, is_commented) in [
            (
                "-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -m comment --comment \
                 \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK",
                true,
            ),
            (
                "-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -m comment --comment \
                 \"NodeLocal DNS Cache: skip conntrack\" -j CT --notrack",
                true,
            ),
            ("-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -j NOTRACK", false),
        ] {
            let found = read_saved("raw", line).unwrap();
            assert_eq!((found.rule, found.is_commented), (rule, is_commented), "{line}");
            assert_eq!(format!("-A {}", found.text), line);
        }
        let v6 = read_saved("filter", "-A OUTPUT -s fd00::a/128 -p tcp --sport 53 -j ACCEPT");
        assert_eq!(v6.unwrap().rule.address.to_string(), "fd00::a");
    }

    #[test]
    fn other_peoples_rules_are_not_taken_for_ours() {
        for (table, line) in [
            ("raw", "-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -j DROP"),
            ("raw", "-A PREROUTING -d 10.0.0.10/32 -i eth0 -p udp -m udp --dport 53 -j NOTRACK"),
            ("raw", "-A PREROUTING ! -d 10.0.0.10/32 -p udp -m udp --dport 53 -j NOTRACK"),
            ("raw", "-A PREROUTING -d 10.0.0.0/24 -p udp -m udp --dport 53 -j NOTRACK"),
            ("raw", "-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53:54 -j NOTRACK"),
            ("raw", "-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 --sport 1 -j NOTRACK"),
            ("raw", "-A PREROUTING -d 10.0.0.10/32 -s 10.0.0.10/32 -p udp --dport 53 -j NOTRACK"),
            ("raw", "-A PREROUTING -d 10.0.0.10/32 -p udp -j NOTRACK"),
            ("raw", "-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -j CT --zone 1"),
            (
                "raw",
                "-A PREROUTING -d 10.0.0.10/32 -p udp --dport 53 -m comment --comment x -j NOTRACK",
            ),
            ("raw", "-A KUBE-X -d 10.0.0.10/32 -p udp -m udp --dport 53 -j NOTRACK"),
            ("filter", "-A FORWARD -d 10.0.0.10/32 -p udp -m udp --dport 53 -j ACCEPT"),
            ("filter", "-A INPUT -d 10.0.0.10/32 -p udp --dport 53 -m limit --limit 1/s -j ACCEPT"),
            ("raw", ":PREROUTING ACCEPT [0:0]"),
            ("raw", "-A PREROUTING -d \"10.0.0.10"),
            ("raw", "-A"),
        ] {
            assert_eq!(read_saved(table, line), None, "{line}");
        }
    }

    #[test]
    fn words_are_parted_as_iptables_restore_parts_them() {
        assert_eq!(split(r#" a  "b c" d\e "f\"g" "#).unwrap(), ["a", "b c", r"d\e", "f\"g"]);
        assert_eq!(split("\"open"), None);
    }
}
