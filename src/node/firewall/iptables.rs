//! The rules by the iptables programs: one `iptables-restore` for each family, the state read by
//! `iptables-save`. Where those two are missing, single commands as node-cache runs them.
//!
//! Owns which rules are missing or stand twice. Touches no rule but node-cache's of these addresses.

use super::command::{Deadline, Failure, find, run, run_beside};
use super::rules::{Family, Place, Plan, Rule};
use super::saved::{Found, read_saved, removal, transaction};
use super::{Report, Trouble, WITHOUT_NET_ADMIN, Within};
use crate::plugin::Level;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The longest to wait for the lock of the tables; node-cache's `-w 5`.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How often a change is tried when the rules changed between look and change.
const ATTEMPTS: usize = 3;

/// How many copies of one rule single commands remove; `iptables-restore` removes all.
const MOST_COPIES: usize = 64;

/// The exit code of `iptables -C` for a rule that is not there.
const NOT_THERE: i32 = 1;

/// Which of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// `iptables`, whatever the node has put there.
    Plain,
    /// `iptables-nft`: rules in nf_tables.
    Nft,
    /// `iptables-legacy`: rules in x_tables.
    Legacy,
}

impl Variant {
    /// The program's name for a family: `ip6tables-nft`.
    pub fn program(self, family: Family) -> String {
        let stem = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let ending = match self {
            Variant::Plain => "",
            Variant::Nft => "-nft",
            Variant::Legacy => "-legacy",
        };
        format!("{stem}{ending}")
    }
}

/// The rules of a plan, kept by the iptables programs.
#[derive(Debug)]
pub struct Iptables {
    plan: Plan,
    variant: Variant,
    /// Whether it was said what to do without the privilege: once is enough.
    is_advised: bool,
}

/// What stands in the tables of one family.
#[derive(Debug, Default)]
struct State {
    /// Rules of the plan that stand there with their comment.
    there: BTreeSet<Rule>,
    /// Copies too many, and those without comment, by place; removed where a rule is set anew too.
    spare: BTreeMap<Place, Vec<Found>>,
}

impl State {
    fn spare_count(&self) -> usize {
        self.spare.values().map(Vec::len).sum()
    }
}

/// What the tables of one family are to hold: each of `wanted` once, and no other of `known`.
#[derive(Clone, Copy)]
struct Aim<'r> {
    family: Family,
    known: &'r [Rule],
    wanted: &'r [Rule],
}

/// What was done in one family.
#[derive(Debug, Default)]
struct Change {
    added: Vec<Rule>,
    kept: Vec<Rule>,
    removed: usize,
}

impl Iptables {
    /// Rules of `plan`. Nothing is run yet.
    pub fn new(plan: Plan, variant: Variant) -> Iptables {
        Iptables { plan, variant, is_advised: false }
    }

    /// Sets what is missing and removes what stands twice, in both families.
    pub fn ensure(&mut self, within: Within) -> Report {
        let deadline = Deadline::within(within.0);
        let mut report = Report::default();
        for (family, rules) in self.plan.families() {
            match self.change(Aim { family, known: &rules, wanted: &rules }, deadline) {
                Ok(change) => report_change(&mut report, &change),
                Err(failure) => {
                    let kind = kind_of(&failure);
                    report.fail(kind, rules.len() as u64);
                    let first = &rules[0];
                    let others = rules.len() - 1;
                    report.line(
                        Level::Error,
                        format!(
                            "Error checking/adding iptables rule {first} and {others} others, \
                             error - {failure}"
                        ),
                    );
                    if failure.is_permission() {
                        report.troubles.push(Trouble::NoPermission);
                    }
                }
            }
        }
        if !self.is_advised && report.troubles.contains(&Trouble::NoPermission) {
            self.is_advised = true;
            report.line(Level::Warning, WITHOUT_NET_ADMIN.to_owned());
        }
        report
    }

    /// Removes every copy of the rules that keep queries here, of any age: first those that stand there
    /// as they were set, with one program and unseen, for until then nobody may answer.
    pub fn let_queries_go(&mut self, within: Within) -> Report {
        let deadline = Deadline::within(within.0);
        let mut removed = 0;
        let mut hung = None;
        for (family, mut rules) in self.plan.families() {
            rules.retain(|rule| self.plan.keeps_queries(rule));
            match self.restore(family, &removal(&rules), deadline) {
                Ok(()) => removed += rules.len() as u64,
                Err(failure @ Failure::Killed { .. }) => hung = Some(failure),
                // Where one of them is missing nothing is changed, and all are looked for below.
                Err(_) => {}
            }
        }
        let rest = Within(deadline.left());
        let mut report = self.remove_those(rest, |plan, rule| plan.keeps_queries(rule));
        if let Some(failure) = hung {
            // What took the time of all that follows.
            report.lines.insert(0, removal_failed(&failure));
        }
        report.removed += removed;
        tell_removed(report)
    }

    /// Removes every copy of the rules, of any age.
    pub fn remove(&mut self, within: Within) -> Report {
        tell_removed(self.remove_those(within, |_, _| true))
    }

    fn remove_those(&self, within: Within, is_meant: impl Fn(&Plan, &Rule) -> bool) -> Report {
        let deadline = Deadline::within(within.0);
        let mut report = Report::default();
        for (family, mut rules) in self.plan.families() {
            rules.retain(|rule| is_meant(&self.plan, rule));
            match self.change(Aim { family, known: &rules, wanted: &[] }, deadline) {
                Ok(change) => report.removed += change.removed as u64,
                Err(failure) => {
                    report.fail(kind_of(&failure), rules.len() as u64);
                    report.lines.push(removal_failed(&failure));
                }
            }
        }
        report
    }

    /// Brings the tables to hold that.
    fn change(&self, aim: Aim<'_>, deadline: Deadline) -> Result<Change, Failure> {
        let mut attempt = 1;
        loop {
            match self.change_once(aim, deadline) {
                // Somebody changed the tables between our look and our change, or took the program
                // away: look again.
                Err(failure) if attempt < ATTEMPTS && may_pass(&failure) => {
                    attempt += 1;
                }
                Err(failure) if needs_single_commands(&failure) => {
                    return self.change_singly(aim, deadline);
                }
                result => return result,
            }
        }
    }

    fn change_once(&self, aim: Aim<'_>, deadline: Deadline) -> Result<Change, Failure> {
        let state = self.state(aim, deadline)?;
        let is_there = |rule: &&Rule| state.there.contains(*rule);
        let kept: Vec<Rule> = aim.wanted.iter().filter(is_there).copied().collect();
        let added: Vec<Rule> = aim.wanted.iter().filter(|rule| !is_there(rule)).copied().collect();
        let change = Change { added, kept, removed: state.spare_count() };
        if !change.added.is_empty() || change.removed > 0 {
            let spare: Vec<&Found> = state.spare.values().flatten().collect();
            self.restore(aim.family, &transaction(&spare, &change.added), deadline)?;
        }
        Ok(change)
    }

    /// Runs `iptables-restore`, which changes all of `text` or nothing.
    fn restore(&self, family: Family, text: &str, deadline: Deadline) -> Result<(), Failure> {
        let wait = lock_wait(deadline);
        self.run(family, "restore", &["--noflush", "-w", &wait], text, deadline).map(drop)
    }

    /// Runs `iptables-ENDING`, the one that belongs to the program `iptables` that counts here.
    fn run(
        &self,
        family: Family,
        ending: &str,
        arguments: &[&str],
        input: &str,
        deadline: Deadline,
    ) -> Result<String, Failure> {
        let first = self.variant.program(family);
        let path = find(&first);
        run_beside(path.as_deref(), &format!("{first}-{ending}"), arguments, input, deadline)
    }

    /// Reads the tables that the rules stand in. One copy of each that is wanted counts as there,
    /// everything else that is known as spare.
    fn state(&self, aim: Aim<'_>, deadline: Deadline) -> Result<State, Failure> {
        let mut state = State::default();
        let is_meant = |table: &&str| aim.known.iter().any(|rule| rule.place.table() == *table);
        // The filter table of a node with thousands of Services takes long to read.
        for table in ["raw", "filter"].into_iter().filter(is_meant) {
            let text = self.run(aim.family, "save", &["-t", table], "", deadline)?;
            for found in text.lines().filter_map(|line| read_saved(table, line)) {
                if !aim.known.contains(&found.rule) {
                    continue;
                }
                let is_wanted = found.is_commented && aim.wanted.contains(&found.rule);
                if !is_wanted || !state.there.insert(found.rule) {
                    state.spare.entry(found.rule.place).or_default().push(found);
                }
            }
        }
        Ok(state)
    }

    /// The same by one command after the other. Copies with and without comment go too.
    fn change_singly(&self, aim: Aim<'_>, deadline: Deadline) -> Result<Change, Failure> {
        let Aim { family, known, wanted } = aim;
        let mut change = Change::default();
        for rule in known {
            if wanted.contains(rule) {
                if self.single(family, "-C", rule, Form::Commented, deadline)? {
                    change.kept.push(*rule);
                } else {
                    self.single(family, "-I", rule, Form::Commented, deadline)?;
                    change.added.push(*rule);
                }
                continue;
            }
            for form in [Form::Commented, Form::Bare] {
                let mut copies = 0;
                while copies < MOST_COPIES
                    && self.single(family, "-C", rule, form, deadline)?
                    && self.single(family, "-D", rule, form, deadline)?
                {
                    copies += 1;
                }
                change.removed += copies;
            }
        }
        Ok(change)
    }

    /// One command; false for a rule that is not there.
    fn single(
        &self,
        family: Family,
        verb: &str,
        rule: &Rule,
        form: Form,
        deadline: Deadline,
    ) -> Result<bool, Failure> {
        let program = self.variant.program(family);
        let (place, mut words) = (rule.place, rule.words());
        if let Form::Bare = form {
            words.truncate(words.iter().position(|word| word == "-m").unwrap_or(words.len()));
        }
        let wait = lock_wait(deadline);
        let mut arguments = vec!["-w", &wait, verb, place.chain(), "-t", place.table()];
        arguments.extend(words.iter().map(String::as_str));
        match run(&program, &arguments, "", deadline) {
            Ok(_) => Ok(true),
            Err(Failure::Exit { code: Some(NOT_THERE), .. }) if verb != "-I" => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

fn removal_failed(failure: &Failure) -> (Level, String) {
    (Level::Error, format!("Error deleting iptables rules: error deleting rule: {failure}"))
}

/// How a rule is spelled.
#[derive(Clone, Copy)]
enum Form {
    /// With the comment that says whose it is.
    Commented,
    /// Without, as node-cache before 1.22.19 wrote them.
    Bare,
}

/// The seconds for `-w`: never so long that we would have to kill the program.
fn lock_wait(deadline: Deadline) -> String {
    let left = deadline.left().saturating_sub(Duration::from_secs(1));
    left.min(LOCK_WAIT).as_secs().max(1).to_string()
}

/// Whether another try may end otherwise: not where the lock was waited for, a privilege is missing or
/// the program does not know its words.
fn may_pass(failure: &Failure) -> bool {
    let finals =
        ["holding the xtables lock", "Permission denied", "you must be root", "does not exist"];
    match failure {
        Failure::Exit { code: Some(_), words, .. } => {
            !failure.is_unknown_word() && !finals.iter().any(|text| words.contains(text))
        }
        _ => false,
    }
}

fn kind_of(failure: &Failure) -> &'static str {
    if failure.is_lock() { "iptables_lock" } else { "iptables" }
}

fn tell_removed(mut report: Report) -> Report {
    if report.removed > 0 {
        let count = report.removed;
        report.line(Level::Info, format!("Removed {count} nodelocaldns rules"));
    }
    report
}

fn report_change(report: &mut Report, change: &Change) {
    for rule in &change.kept {
        report.line(Level::Debug, format!("iptables rule {rule} for nodelocaldns already exists"));
    }
    for rule in &change.added {
        report.line(Level::Info, format!("Added back nodelocaldns rule - {rule}"));
    }
    if change.removed > 0 {
        let count = change.removed;
        report.line(Level::Info, format!("Removed {count} nodelocaldns rules that stood twice"));
    }
    report.added += change.added.len() as u64;
    report.removed += change.removed as u64;
}

/// Whether the node has no `iptables-restore` that can do this.
fn needs_single_commands(failure: &Failure) -> bool {
    matches!(failure, Failure::Missing { .. }) || failure.is_unknown_word()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_the_lock_ends_before_the_program_is_killed() {
        for (left, wait) in [(60, "5"), (4, "3"), (1, "1"), (0, "1")] {
            assert_eq!(lock_wait(Deadline::within(Duration::from_millis(left * 1000 + 500))), wait);
        }
    }

    #[test]
    fn each_variant_has_its_programs() {
        assert_eq!(Variant::Plain.program(Family::V4), "iptables");
        assert_eq!(Variant::Nft.program(Family::V6), "ip6tables-nft");
        assert_eq!(Variant::Legacy.program(Family::V4), "iptables-legacy");
    }
}
