//! `nodens cleanup`: removes what a nodens or a node-cache, of any version, left on the node.
//!
//! Without `--yes` it tells what is there and changes nothing. It refuses while somebody serves with
//! it, and may be repeated.

use super::failure::{Failure, NO_PERMISSION, NOT_NOW, SYSTEM};
use super::output;
use crate::node::{Leftovers, Lookup, Problem, Thing};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

/// Something is there, and it was not to be removed.
const LEFT: u8 = 1;

/// Its command line.
pub(super) fn command() -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let port = |name: &'static str, default: &'static str, help: &'static str| {
        let value = Arg::new(name).long(name).value_name("PORT").default_value(default);
        value.value_parser(value_parser!(u16)).help(help)
    };
    Command::new("cleanup")
        .about("Remove rules, interface and addresses that nodens or node-cache left on the node")
        .long_about(
            "Remove the firewall rules (of iptables-nft and iptables-legacy, of both families, with \
             comments and without), the tables of nftables, the dummy interface and the addresses \
             that a nodens or a node-cache of any version left on the node. Without --yes it shows \
             them and changes nothing.",
        )
        .after_help(
            "Exit status: 0 nothing is left, 1 something is there (without --yes), 71 something \
             could not be read or removed, 75 somebody serves with it, 77 not permitted.",
        )
        .arg(switch("yes", "Remove what is there").short('y'))
        .arg(switch("force", "Remove it even while somebody serves with it"))
        .arg(
            Arg::new("localip")
                .long("localip")
                .value_name("ADDRESSES")
                .value_delimiter(',')
                .value_parser(value_parser!(IpAddr))
                .help(
                    "The rules of these addresses alone; else of the interface's, and all that \
                     have node-cache's comments",
                ),
        )
        .arg(
            Arg::new("interface")
                .long("interface")
                .visible_alias("interfacename")
                .value_name("NAME")
                .default_value("nodelocaldns")
                .help("The interface, beside those that the runtime directory remembers"),
        )
        .arg(port("dns-port", "53", "The port of DNS in rules without comment"))
        .arg(port("health-port", "8080", "The port of health checks in rules without comment"))
        .arg(
            Arg::new("runtime-dir")
                .long("runtime-dir")
                .value_name("DIRECTORY")
                .default_value("/run/nodens")
                .value_parser(value_parser!(PathBuf))
                .help("Where nodens remembers what it made"),
        )
        .arg(
            Arg::new("output")
                .long("output")
                .short('o')
                .value_name("FORMAT")
                .default_value("text")
                .value_parser(PossibleValuesParser::new(["text", "json"]))
                .help("How to tell it"),
        )
}

/// Looks, and removes when asked to.
pub(super) fn run(matches: &ArgMatches) -> Result<u8, Failure> {
    let lookup = lookup(matches);
    let is_json = matches.get_one::<String>("output").is_some_and(|format| format == "json");
    let is_asked = matches.get_flag("yes");
    let mut found = Leftovers::find(&lookup);
    let things = std::mem::take(&mut found.things);
    let in_use = !found.users.is_empty() && !matches.get_flag("force");
    let removes = is_asked && !in_use && !things.is_empty();
    let mut told = Told { problems: found.problems.clone(), ..Told::default() };
    if removes {
        told.problems.extend(found.remove());
        let now = Leftovers::find(&lookup);
        told.left = now.things;
        let fresh = now.problems.into_iter().filter(|one| !found.problems.contains(one));
        told.problems.extend(fresh);
    } else {
        told.left = things.clone();
    }
    told.removed = things.into_iter().filter(|thing| !told.left.contains(thing)).collect();
    told.users = found.users;
    told.is_refused = is_asked && in_use;
    if found.is_without_programs {
        told.notes.push("no iptables programs are here: their rules were not looked for");
    }
    match is_json {
        true => output::write(&format!("{:#}\n", told.as_json()))?,
        false => {
            output::write(&told.as_text())?;
            for line in told.remarks() {
                output::complain(&format!("nodens cleanup: {line}"));
            }
        }
    }
    Ok(told.code())
}

fn lookup(matches: &ArgMatches) -> Lookup {
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let port = |name: &str| matches.get_one::<u16>(name).copied().unwrap_or_default();
    let addresses = matches.get_many::<IpAddr>("localip").unwrap_or_default();
    Lookup {
        interface: text("interface"),
        addresses: addresses.map(IpAddr::to_canonical).collect(),
        dns_port: port("dns-port"),
        health_port: port("health-port"),
        runtime_directory: matches.get_one::<PathBuf>("runtime-dir").cloned().unwrap_or_default(),
    }
}

/// What is told in the end.
#[derive(Debug, Default)]
struct Told {
    removed: Vec<Thing>,
    left: Vec<Thing>,
    users: Vec<String>,
    problems: Vec<Problem>,
    notes: Vec<&'static str>,
    is_refused: bool,
}

impl Told {
    fn code(&self) -> u8 {
        if self.problems.iter().any(|problem| problem.is_permission) {
            NO_PERMISSION
        } else if !self.problems.is_empty() {
            SYSTEM
        } else if self.is_refused && !self.left.is_empty() {
            NOT_NOW
        } else if !self.left.is_empty() {
            LEFT
        } else {
            0
        }
    }

    fn as_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        for thing in &self.removed {
            let _ = writeln!(text, "removed {}", shown(thing));
        }
        for thing in &self.left {
            let _ = writeln!(text, "{}", shown(thing));
        }
        if self.left.is_empty() && self.removed.is_empty() && self.problems.is_empty() {
            text.push_str("nothing is left of nodens or node-cache\n");
        }
        text
    }

    /// What is said beside it.
    fn remarks(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.notes.iter().map(|note| (*note).to_owned()).collect();
        lines.extend(self.problems.iter().map(|problem| problem.text.clone()));
        lines.extend(self.users.iter().cloned());
        if self.left.is_empty() {
            return lines;
        }
        lines.push(match (self.is_refused, self.removed.is_empty()) {
            (true, _) => "nothing was changed: end it first, or give --force".to_owned(),
            (false, true) if self.problems.is_empty() && !self.users.is_empty() => {
                "nothing was changed: --yes removes it once that has ended".to_owned()
            }
            (false, true) if self.problems.is_empty() => {
                "nothing was changed: --yes removes it".to_owned()
            }
            _ => "not all could be removed".to_owned(),
        });
        lines
    }

    fn as_json(&self) -> Value {
        let things = |things: &[Thing]| -> Vec<Value> { things.iter().map(fields).collect() };
        let problems: Vec<&str> = self.problems.iter().map(|one| one.text.as_str()).collect();
        json!({
            "removed": things(&self.removed),
            "left": things(&self.left),
            "users": self.users,
            "problems": problems,
            "notes": self.notes,
        })
    }
}

fn shown(thing: &Thing) -> String {
    match thing {
        Thing::Rule { program, text } => format!("rule {program}: {text}"),
        Thing::Table(name) => format!("nftables table {name}"),
        Thing::Interface(name) => format!("interface {name}"),
        Thing::Address { address, interface } => {
            format!("address {address} of the interface {interface}")
        }
    }
}

fn fields(thing: &Thing) -> Value {
    match thing {
        Thing::Rule { program, text } => json!({"kind": "rule", "program": program, "text": text}),
        Thing::Table(name) => json!({"kind": "table", "name": name}),
        Thing::Interface(name) => json!({"kind": "interface", "name": name}),
        Thing::Address { address, interface } => {
            json!({"kind": "address", "address": address.to_string(), "interface": interface})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        Told { left: vec![Thing::Interface("nodelocaldns".to_owned())], ..Told::default() }
    }

    #[test]
    fn each_end_has_its_exit_code() {
        let problem = |is_permission| Problem { text: "x".to_owned(), is_permission };
        assert_eq!(Told::default().code(), 0);
        assert_eq!(told().code(), 1);
        assert_eq!(Told { is_refused: true, ..told() }.code(), 75);
        assert_eq!(Told { problems: vec![problem(false)], ..told() }.code(), 71);
        assert_eq!(Told { problems: vec![problem(false), problem(true)], ..told() }.code(), 77);
    }

    #[test]
    fn people_are_told_what_is_there_and_what_to_do() {
        assert_eq!(told().as_text(), "interface nodelocaldns\n");
        assert_eq!(told().remarks(), ["nothing was changed: --yes removes it"]);
        let refused = Told { is_refused: true, users: vec!["u".to_owned()], ..told() };
        assert_eq!(refused.remarks(), ["u", "nothing was changed: end it first, or give --force"]);
        let done = Told { removed: told().left, ..Told::default() };
        assert_eq!(done.as_text(), "removed interface nodelocaldns\n");
        assert_eq!(done.remarks(), [""; 0]);
        assert_eq!(Told::default().as_text(), "nothing is left of nodens or node-cache\n");
    }
}
