//! Rules that a nodens or a node-cache of any version left in the tables, by whatever kind of
//! iptables programs they were set: found, and removed.
//!
//! Owns what counts as left behind: rules with node-cache's comments, and rules of its form without a
//! comment (versions before 1.22.19) of addresses and ports that the caller knows. Finding changes
//! nothing: tables that are not there are not made.

use super::Within;
use super::command::{Deadline, Failure, run};
use super::iptables::Variant;
use super::rules::{Family, Plan};
use super::saved::{Found, read_saved, transaction};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The longest wait in seconds for the lock of the tables.
const LOCK_WAIT: &str = "5";

/// Whose rules are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Any address's with node-cache's comments; and those of these addresses without.
    Everybodys(Plan),
    /// Those of these addresses alone, with comments and without.
    Of(Plan),
}

/// The rules of one kind of programs and one family.
#[derive(Debug)]
struct Table {
    variant: Variant,
    family: Family,
    rules: Vec<Found>,
}

/// Rules that were left behind.
#[derive(Debug, Default)]
pub struct LeftRules {
    tables: Vec<Table>,
    failures: Vec<Failure>,
    has_programs: bool,
}

impl LeftRules {
    /// Looks into the tables of nf_tables and x_tables, of both families.
    pub fn find(whose: &Whose, within: Within) -> LeftRules {
        let deadline = Deadline::within(within.0);
        let mut left = LeftRules::default();
        for variant in [Variant::Nft, Variant::Legacy] {
            left.look(variant, whose, deadline);
        }
        if !left.has_programs {
            left.look(Variant::Plain, whose, deadline);
        }
        left
    }

    fn look(&mut self, variant: Variant, whose: &Whose, deadline: Deadline) {
        for family in Family::ALL {
            let program = format!("{}-save", variant.program(family));
            match run(&program, &[], "", deadline) {
                Ok(text) => {
                    self.has_programs = true;
                    let rules = of_text(&text, family, whose);
                    if !rules.is_empty() {
                        self.tables.push(Table { variant, family, rules });
                    }
                }
                Err(Failure::Missing { .. }) => {}
                Err(failure) => {
                    self.has_programs = true;
                    self.failures.push(failure);
                }
            }
        }
    }

    /// Whether iptables programs are there at all.
    pub fn has_programs(&self) -> bool {
        self.has_programs
    }

    /// Why tables could not be read.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// The rules: the program that tells of them, and the rule as it tells it, with its table:
    /// `iptables-nft`, `raw -A PREROUTING …`.
    pub fn rules(&self) -> impl Iterator<Item = (String, String)> {
        self.tables.iter().flat_map(|table| {
            let program = table.variant.program(table.family);
            let of = table.rules.iter();
            of.map(move |found| {
                (program.clone(), format!("{} -A {}", found.rule.place.table(), found.text))
            })
        })
    }

    /// The addresses that the rules are about.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let rules = self.tables.iter().flat_map(|table| &table.rules);
        rules.map(|found| found.rule.address).collect()
    }

    /// Removes them, one transaction for each kind of programs and family. What fails does not keep
    /// the others from going.
    pub fn remove(&self, within: Within) -> Vec<Failure> {
        let deadline = Deadline::within(within.0);
        let mut failures = Vec::new();
        for table in &self.tables {
            let program = format!("{}-restore", table.variant.program(table.family));
            let rules: Vec<&Found> = table.rules.iter().collect();
            let text = transaction(&rules, &[]);
            let mut result = run(&program, &["--noflush", "-w", LOCK_WAIT], &text, deadline);
            if result.as_ref().is_err_and(Failure::is_unknown_word) {
                result = run(&program, &["--noflush"], &text, deadline);
            }
            failures.extend(result.err());
        }
        failures
    }
}

/// The rules left behind in the whole output of `iptables-save`.
fn of_text(text: &str, family: Family, whose: &Whose) -> Vec<Found> {
    let (Whose::Everybodys(plan) | Whose::Of(plan)) = whose;
    let known = plan.rules(family);
    let is_left = |found: &Found| {
        let is_anybodys = found.is_commented && matches!(whose, Whose::Everybodys(_));
        let is_addresses = || plan.addresses_of(family).any(|one| one == found.rule.address);
        is_anybodys || (found.is_commented && is_addresses()) || known.contains(&found.rule)
    };
    let mut rules = Vec::new();
    let mut table = None;
    for line in text.lines() {
        match line {
            "*raw" => table = Some("raw"),
            "*filter" => table = Some("filter"),
            _ if line.starts_with('*') => table = None,
            _ => {}
        }
        let Some(name) = table else { continue };
        rules.extend(read_saved(name, line).filter(is_left));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "# Generated by iptables-save
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -m comment --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK
-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -j NOTRACK
-A PREROUTING -d 10.0.0.11/32 -p udp -m udp --dport 53 -j NOTRACK
-A OUTPUT -s 10.0.0.11/32 -p tcp -m tcp --sport 9000 -m comment --comment \"NodeLocal DNS Cache: skip conntrack\" -j CT --notrack
COMMIT
*mangle
-A PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -j ACCEPT
COMMIT
*filter
-A INPUT -d 10.0.0.10/32 -p tcp -m tcp --dport 53 -j ACCEPT
-A INPUT -d 10.0.0.10/32 -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -d 10.0.0.10/32 -p tcp -m tcp --dport 53 -j DROP
COMMIT
";

    fn found(whose: &Whose) -> Vec<String> {
        let found = of_text(SAVED, Family::V4, whose);
        let short =
            |text: &str| text.replace(" -m comment --comment \"NodeLocal DNS Cache: ", " \"");
        let shown = |found: &Found| format!("{} {}", found.rule.place.table(), short(&found.text));
        found.iter().map(shown).collect()
    }

    #[test]
    fn commented_rules_are_anybodys_and_others_those_of_known_addresses() {
        let commented = [
            "raw PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 \"skip conntrack\" -j NOTRACK",
            "raw OUTPUT -s 10.0.0.11/32 -p tcp -m tcp --sport 9000 \"skip conntrack\" -j CT --notrack",
        ];
        assert_eq!(found(&Whose::Everybodys(Plan::of(&[]))), commented);
        let mut all = vec![commented[0]];
        all.push("raw PREROUTING -d 10.0.0.10/32 -p udp -m udp --dport 53 -j NOTRACK");
        all.push("filter INPUT -d 10.0.0.10/32 -p tcp -m tcp --dport 53 -j ACCEPT");
        assert_eq!(found(&Whose::Of(Plan::of(&["10.0.0.10", "fd00::a"]))), all);
        all.insert(2, commented[1]);
        assert_eq!(found(&Whose::Everybodys(Plan::of(&["10.0.0.10"]))), all);
    }

    #[test]
    fn a_removal_names_each_rule_as_it_was_told() {
        let found = of_text(SAVED, Family::V4, &Whose::Of(Plan::of(&["10.0.0.11"])));
        assert_eq!(
            transaction(&found.iter().collect::<Vec<_>>(), &[]),
            "*raw\n-D PREROUTING -d 10.0.0.11/32 -p udp -m udp --dport 53 -j NOTRACK\n\
             -D OUTPUT -s 10.0.0.11/32 -p tcp -m tcp --sport 9000 -m comment --comment \"NodeLocal \
             DNS Cache: skip conntrack\" -j CT --notrack\nCOMMIT\n"
        );
    }
}
