//! What a nodens or a node-cache, of any version, left on the node when it ended without removing
//! it: rules, the interface, addresses. Found, and removed when the caller says so.
//!
//! Owns the order of removal (rules before the interface) and who would miss it. Finding changes
//! nothing.

use super::claims::{Claim, are_rules_claimed, is_claimed_by_anybody};
use super::firewall::{Failure, LeftRules, Life, Nftables, Plan, Whose, Within};
use super::interface::{Interface, Left, Wish};
use super::served;
use crate::plugin::Level;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The interface's name (`-interfacename`); those that the runtime directory remembers are looked at too.
    pub interface: String,
    /// The local addresses; when empty those of the interfaces, and those of all rules that have
    /// node-cache's comments.
    pub addresses: Vec<IpAddr>,
    /// The port of DNS in the rules.
    pub dns_port: u16,
    /// The port of health checks in the rules.
    pub health_port: u16,
    /// Where nodens remembers what it made (`-runtime-dir`).
    pub runtime_directory: PathBuf,
}

/// One thing that is left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A firewall rule.
    Rule {
        /// The program that tells of it: `iptables-nft`.
        program: String,
        /// As the program tells it, with the table: `raw -A PREROUTING …`.
        text: String,
    },
    /// A table of nftables, with its rules: `inet nodens`.
    Table(String),
    /// A link, with its addresses.
    Interface(String),
    /// An address of a link that stays.
    Address {
        /// The address.
        address: IpAddr,
        /// The link's name.
        interface: String,
    },
}

/// What could not be read or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One line for the operator.
    pub text: String,
    /// Whether a privilege is missing.
    pub is_permission: bool,
}

/// What is left, as it was found.
#[derive(Debug)]
pub struct Leftovers {
    interfaces: Vec<Interface>,
    rules: LeftRules,
    nftables: Nftables,
    /// The things, in the order of their removal.
    pub things: Vec<Thing>,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// Who serves with some of it, a line each.
    pub users: Vec<String>,
    /// Whether rules of the iptables programs could not be looked for: there are no such programs.
    pub is_without_programs: bool,
}

impl Leftovers {
    /// Looks. Waits at most as long as setting rules may take.
    pub fn find(lookup: &Lookup) -> Leftovers {
        let mut problems = Vec::new();
        let wish = Wish { name: lookup.interface.clone(), addresses: lookup.addresses.clone() };
        let mut interfaces = vec![Interface::new(wish, &lookup.runtime_directory)];
        let others = Interface::remembered(&lookup.runtime_directory).into_iter();
        interfaces.extend(others.filter(|other| other.name() != lookup.interface));
        let mut left = Vec::new();
        for interface in &mut interfaces {
            let of_it = interface.left_behind().unwrap_or_else(|refusal| {
                let text = format!("the interface {} cannot be read: {refusal}", interface.name());
                problems.push(Problem { text, is_permission: is_permission(refusal.number()) });
                Left::default()
            });
            left.push((interface.name().to_owned(), of_it));
        }
        let rules = LeftRules::find(&whose(lookup, &left), Within::SETTING);
        problems.extend(rules.failures().iter().map(of_failure));
        let none = Plan {
            addresses: Vec::new(),
            dns_port: lookup.dns_port,
            health_port: lookup.health_port,
        };
        let mut nftables = Nftables::new(none, Life::Process);
        let tables = match nftables.left_behind() {
            Ok(tables) => tables,
            Err(refusal) => {
                let is_permission = is_permission(refusal.number());
                // Any other refusal is a kernel's without nf_tables: there is no table.
                if is_permission {
                    let text = format!("tables of nftables cannot be read: {refusal}");
                    problems.push(Problem { text, is_permission });
                }
                Vec::new()
            }
        };
        let things = things(&left, &rules, &tables);
        let mut users = match things.is_empty() {
            true => Vec::new(),
            false => users(lookup, &left, &rules),
        };
        if !tables.is_empty() && users.is_empty() && are_rules_claimed() {
            users.push("a living nodens serves with firewall rules".to_owned());
        }
        let is_without_programs = !rules.has_programs();
        Leftovers { interfaces, rules, nftables, things, problems, users, is_without_programs }
    }

    /// Removes all of it, whoever serves with it. Gives what could not be removed.
    pub fn remove(&mut self) -> Vec<Problem> {
        let failures = self.rules.remove(Within::SETTING);
        let mut problems: Vec<Problem> = failures.iter().map(of_failure).collect();
        let report = self.nftables.remove_left_behind();
        let lines = report.lines.into_iter().filter(|(level, _)| *level == Level::Error);
        let is_permission = report.troubles.contains(&super::Trouble::NoPermission);
        problems.extend(lines.map(|(_, text)| Problem { text, is_permission }));
        for interface in &mut self.interfaces {
            let report = interface.remove_left_behind();
            let lines = report.lines.into_iter().filter(|(level, _)| *level == Level::Error);
            let is_permission = report.troubles.contains(&super::Trouble::NoPermission);
            problems.extend(lines.map(|(_, text)| Problem { text, is_permission }));
        }
        problems
    }
}

/// What is left behind of the interfaces, by name.
type Names = [(String, Left)];

fn whose(lookup: &Lookup, left: &Names) -> Whose {
    let given = !lookup.addresses.is_empty();
    let addresses = match given {
        true => lookup.addresses.clone(),
        false => left.iter().flat_map(|(_, left)| &left.addresses).copied().collect(),
    };
    let plan = Plan { addresses, dns_port: lookup.dns_port, health_port: lookup.health_port };
    if given { Whose::Of(plan) } else { Whose::Everybodys(plan) }
}

fn things(left: &Names, rules: &LeftRules, tables: &[String]) -> Vec<Thing> {
    let rules = rules.rules().map(|(program, text)| Thing::Rule { program, text });
    let mut things: Vec<Thing> = rules.collect();
    things.extend(tables.iter().map(|table| Thing::Table(table.clone())));
    for (name, left) in left {
        if left.link {
            things.push(Thing::Interface(name.clone()));
        } else {
            let of_link =
                |address: &IpAddr| Thing::Address { address: *address, interface: name.clone() };
            things.extend(left.addresses.iter().map(of_link));
        }
    }
    things
}

/// Living processes: those of nodens by their claims, others by a socket on a local address.
fn users(lookup: &Lookup, left: &Names, rules: &LeftRules) -> Vec<String> {
    let mut users = Vec::new();
    let mut addresses: BTreeSet<IpAddr> = rules.addresses();
    for (name, left) in left {
        if (left.link || !left.addresses.is_empty())
            && is_claimed_by_anybody(&Claim::Link(name.clone()))
        {
            users.push(format!("a living nodens serves with the interface {name}"));
        }
        addresses.extend(left.addresses.iter().map(IpAddr::to_canonical));
    }
    let sockets = served::addresses();
    for address in addresses {
        let claims = [Claim::Address(address), Claim::Rules(address, lookup.dns_port)];
        let is_served = sockets.contains(&SocketAddr::new(address, lookup.dns_port));
        if claims.iter().any(is_claimed_by_anybody) {
            users.push(format!("a living nodens serves on {address}"));
        } else if is_served {
            let port = lookup.dns_port;
            users.push(format!("somebody serves on {address} port {port}"));
        }
    }
    users
}

fn of_failure(failure: &Failure) -> Problem {
    Problem { text: failure.to_string(), is_permission: failure.is_permission() }
}

fn is_permission(number: Option<i32>) -> bool {
    matches!(number, Some(libc::EPERM | libc::EACCES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_is_told_from_other_failures() {
        let failure = |words: &str| Failure::Exit {
            program: "iptables-nft-save".to_owned(),
            code: Some(4),
            status: "exit status 4".to_owned(),
            words: words.to_owned(),
        };
        let problem = of_failure(&failure("Permission denied (you must be root)"));
        assert!(
            problem.is_permission && problem.text.starts_with("iptables-nft-save: exit status")
        );
        assert!(!of_failure(&failure("Another app is holding the xtables lock")).is_permission);
    }
}
