//! The rules in a table of one's own, over netlink: no program is run. Where the kernel can, the table
//! is owned by the process: it goes with it, however it ends, and queries for the cluster DNS Service
//! go to the Service again.
//!
//! Owns the choice of the table's name, so that two nodens each have theirs while one takes over from
//! the other, and what happens to tables that are there. Touches no table but its own and those that
//! a nodens left behind.

use super::messages::{self, CHAINS};
use super::rewrite::Rewrite;
use super::rules::{Plan, Rule, Side};
use super::tables::{commit, get, is_of_nodens, picture};
use super::{Report, Trouble, WITHOUT_NET_ADMIN};
use crate::corefile::system_error_text;
use crate::plugin::Level;
use crate::sys::netlink::{Netlink, Refusal, Subsystem};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The names that the table may have; each living nodens has another.
pub const TABLE_NAMES: [&str; 4] = ["nodens", "nodens-b", "nodens-c", "nodens-d"];

/// Octets that the kernel may have waiting for us: a transaction that is refused is told of message by
/// message.
const ROOM: u32 = 1 << 20;

/// How long the table is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// As long as the process.
    Process,
    /// Until it is removed: `-skipteardown`.
    Node,
}

/// The rules of a plan, kept over netlink.
#[derive(Debug)]
pub struct Nftables {
    plan: Plan,
    rewrites: Vec<Rewrite>,
    life: Life,
    /// What asks the kernel for a table that goes with its process.
    owned: u32,
    /// An owned table goes when this is closed.
    netlink: Option<Netlink>,
    held: Option<Held>,
    /// What was said already, and is not said again.
    said: BTreeSet<String>,
}

/// The table that we set.
#[derive(Debug)]
struct Held {
    name: &'static str,
    is_owned: bool,
    /// How many rules it has.
    rules: usize,
    /// What the kernel showed of it when it was set: when it shows something else, it was changed.
    picture: Vec<Vec<u8>>,
}

/// Which of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Those that keep queries here, and those below.
    All,
    /// What replies need that leave when queries go elsewhere.
    Replies,
}

/// Whose a table is that has one of our names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// There is none.
    Nobody,
    /// A nodens made it and left it.
    LeftBehind,
    /// Another nodens has it.
    OtherNodens,
    /// It is none of nodens.
    Others,
}

impl Nftables {
    /// Rules of `plan`. Nothing is touched yet.
    pub fn new(plan: Plan, life: Life) -> Nftables {
        Nftables {
            plan,
            rewrites: Vec::new(),
            life,
            owned: messages::OWNED,
            netlink: None,
            held: None,
            said: BTreeSet::new(),
        }
    }

    /// Pods' queries for Services' addresses are sent to local addresses, too.
    pub fn rewriting(self, rewrites: Vec<Rewrite>) -> Nftables {
        Nftables { rewrites, ..self }
    }

    /// How many rules there are to be.
    fn count(&self) -> usize {
        let (rules, rewritten) = self.parts(Part::All);
        rules.len() + rewritten.len()
    }

    /// Rules that keep packets untracked, and those that exchange addresses.
    fn parts(&self, part: Part) -> (Vec<Rule>, Vec<(Rule, IpAddr)>) {
        let mut rules = messages::rules(&self.plan);
        let rewritten = self.rewrites.iter().flat_map(|one| one.rules(self.plan.dns_port));
        let mut rewritten: Vec<_> = rewritten.collect();
        if part == Part::Replies {
            rules.retain(|rule| !self.plan.keeps_queries(rule));
            rewritten.retain(|(rule, _)| rule.side == Side::Source);
        }
        (rules, rewritten)
    }

    /// Whether the kernel removes the rules when this process ends.
    pub fn ends_with_process(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_owned)
    }

    /// The table that is set, as `nft` names it: `inet nodens`.
    pub fn table(&self) -> Option<String> {
        self.held.as_ref().map(|held| format!("inet {}", held.name))
    }

    /// Sets the table unless it is there as it was set.
    pub fn ensure(&mut self) -> Report {
        let mut report = Report::default();
        if let Err(refusal) = self.set(&mut report) {
            self.refused("set", &refusal, &mut report);
        }
        report
    }

    fn set(&mut self, report: &mut Report) -> Result<(), Refusal> {
        if let Some(held) = &self.held {
            let (name, before) = (held.name, held.picture.clone());
            if picture(self.open()?, name)? == before {
                return Ok(());
            }
        }
        let back = if self.held.is_some() { "Added back" } else { "Added" };
        let Some((name, left_behind)) = self.choose(report)? else { return Ok(()) };
        let is_owned = self.make(name, &left_behind, report)?;
        let picture = picture(self.open()?, name)?;
        let rules = self.count();
        self.held = Some(Held { name, is_owned, rules, picture });
        report.added += rules as u64;
        let end =
            if is_owned { "it goes with this process" } else { "it stays until it is removed" };
        report.line(
            Level::Info,
            format!("{back} firewall rules - nftables table inet {name}, {rules} rules: {end}"),
        );
        for Rewrite { service, local } in &self.rewrites {
            let line = format!("Pods' queries for {service} are answered on {local}");
            report.line(Level::Info, line);
        }
        self.look_for_drops(report);
        Ok(())
    }

    /// The name for the table, and which tables go when it is set.
    fn choose(
        &mut self,
        report: &mut Report,
    ) -> Result<Option<(&'static str, Vec<&'static str>)>, Refusal> {
        let mut free = None;
        let mut left_behind = Vec::new();
        for name in TABLE_NAMES {
            match self.holder(name)? {
                Holder::OtherNodens => continue,
                Holder::Others => {
                    self.meet_others(name, report);
                    continue;
                }
                Holder::LeftBehind => left_behind.push(name),
                Holder::Nobody => {}
            }
            free = free.or(Some(name));
        }
        if free.is_none() {
            report.fail("nftables", self.count() as u64);
            report.line(
                Level::Error,
                format!(
                    "Error adding firewall rules - the tables {} are all others'",
                    TABLE_NAMES.join(", ")
                ),
            );
        }
        Ok(free.map(|name| (name, left_behind)))
    }

    fn holder(&mut self, name: &str) -> Result<Holder, Refusal> {
        let netlink = self.open()?;
        let own = netlink.port();
        let Some(table) = get(netlink, &messages::get_table(name))? else {
            return Ok(Holder::Nobody);
        };
        let owner = messages::read_table(&table).owner;
        let is_ours = is_of_nodens(netlink, name)?;
        Ok(match (owner, is_ours) {
            // What we set ourselves, and somebody changed.
            (Some(owner), _) if owner == own => Holder::LeftBehind,
            (Some(_), true) => Holder::OtherNodens,
            (None, true) => Holder::LeftBehind,
            (_, false) => Holder::Others,
        })
    }

    /// Sets the table, owned where that is wanted and the kernel can; gives whether it is.
    fn make(
        &mut self,
        name: &'static str,
        left_behind: &[&'static str],
        report: &mut Report,
    ) -> Result<bool, Refusal> {
        let wants_owned = self.life == Life::Process;
        let flags = if wants_owned { self.owned } else { 0 };
        match self.send(name, left_behind, flags, Part::All) {
            Err(refusal)
                if wants_owned
                    && matches!(refusal.number(), Some(libc::EOPNOTSUPP | libc::EINVAL)) =>
            {
                self.send(name, left_behind, 0, Part::All)?;
                self.say(
                    Level::Warning,
                    "This kernel has no tables that go with their process (Linux 5.12 has): after a \
                     crash the rules stay until the next start",
                    report,
                );
                Ok(false)
            }
            result => result.map(|()| wants_owned),
        }
    }

    /// Sets the table with these flags, and deletes what was left behind, in one transaction.
    fn send(
        &mut self,
        name: &str,
        left_behind: &[&'static str],
        flags: u32,
        part: Part,
    ) -> Result<(), Refusal> {
        let mut inner: Vec<_> = left_behind.iter().map(|old| messages::delete_table(old)).collect();
        inner.push(messages::new_table(name, flags));
        inner.extend(CHAINS.iter().map(|chain| messages::new_chain(name, *chain)));
        let (rules, rewritten) = self.parts(part);
        inner.extend(rules.iter().filter_map(|rule| messages::new_rule(name, rule)));
        let exchanges = rewritten.iter();
        inner.extend(exchanges.filter_map(|(rule, by)| messages::new_rewrite(name, rule, *by)));
        commit(self.open()?, inner)
    }

    /// Leaves of the table that was set what replies need, in one step; all of it goes where that cannot
    /// be done.
    pub fn let_queries_go(&mut self) -> Report {
        let Some(held) = &self.held else { return Report::default() };
        let (name, before) = (held.name, held.rules);
        let flags = if held.is_owned { self.owned } else { 0 };
        let (rules, rewritten) = self.parts(Part::Replies);
        let left = rules.len() + rewritten.len();
        let picture = self
            .send(name, &[name], flags, Part::Replies)
            .and_then(|()| picture(self.open()?, name));
        let (Ok(picture), Some(held)) = (picture, &mut self.held) else { return self.remove() };
        (held.rules, held.picture) = (left, picture);
        Report { removed: before.saturating_sub(left) as u64, ..Report::default() }
    }

    /// Removes the table that was set. Of one that could not be owned, only when nobody else needs
    /// it: that is for the caller to know.
    pub fn remove(&mut self) -> Report {
        let mut report = Report::default();
        let Some(held) = self.held.take() else { return report };
        let removed = self.open().and_then(|netlink| {
            match commit(netlink, vec![messages::delete_table(held.name)]) {
                // Somebody was quicker.
                Err(refusal) if refusal.number() == Some(libc::ENOENT) => Ok(()),
                result => result,
            }
        });
        match removed {
            Ok(()) => report.removed += held.rules as u64,
            Err(refusal) => self.refused("removed", &refusal, &mut report),
        }
        // An owned table goes now at the latest.
        self.netlink = None;
        report
    }

    /// The tables, as `nft` names them, that [`Nftables::remove_left_behind`] would remove: what a
    /// crash on an old kernel, or `-skipteardown`, left.
    ///
    /// # Errors
    ///
    /// Why the kernel does not show its tables: no permission, no nf_tables.
    pub fn left_behind(&mut self) -> Result<Vec<String>, Refusal> {
        Ok(self.names_left_behind()?.iter().map(|name| format!("inet {name}")).collect())
    }

    /// Removes the tables of nodens that no process owns.
    pub fn remove_left_behind(&mut self) -> Report {
        let mut report = Report::default();
        let removed = self.names_left_behind().and_then(|names| {
            let inner: Vec<_> = names.iter().map(|name| messages::delete_table(name)).collect();
            if inner.is_empty() { Ok(()) } else { commit(self.open()?, inner) }?;
            Ok(names)
        });
        match removed {
            Ok(names) => report.lines.extend(names.iter().map(|name| {
                (Level::Info, format!("Removed firewall rules - nftables table inet {name}"))
            })),
            Err(refusal) => self.refused("removed", &refusal, &mut report),
        }
        report
    }

    fn names_left_behind(&mut self) -> Result<Vec<&'static str>, Refusal> {
        let mut names = Vec::new();
        for name in TABLE_NAMES {
            if self.holder(name)? == Holder::LeftBehind {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Chains that drop what comes in do so whatever another table accepts: the operator is to know.
    fn look_for_drops(&mut self, report: &mut Report) {
        let chains = self.open().and_then(|netlink| netlink.dump(&messages::all_chains()));
        // The rules are set: that others could not be read is no failure.
        let chains = chains.unwrap_or_default();
        for chain in chains.iter().map(messages::read_chain).filter(|chain| chain.drops_input) {
            let port = self.plan.dns_port;
            let line = format!(
                "The chain {} of the nftables table {} {} drops what it does not accept, and no other \
                 table can accept for it: let it accept UDP and TCP to port {port} of the local \
                 addresses",
                chain.name, chain.family, chain.table
            );
            report.troubles.push(Trouble::PolicyDrops);
            self.say(Level::Warning, &line, report);
        }
    }

    fn meet_others(&mut self, name: &str, report: &mut Report) {
        report.troubles.push(Trouble::TableOfOthers);
        let line = format!(
            "The nftables table inet {name} is not of nodens: it is left alone, and another name is \
             used"
        );
        self.say(Level::Warning, &line, report);
    }

    /// Counts what the kernel refused, and says what to do about it the first time.
    fn refused(&mut self, what: &str, refusal: &Refusal, report: &mut Report) {
        // Half a conversation may wait there.
        if self.held.is_none() {
            self.netlink = None;
        }
        report.fail("nftables", self.count() as u64);
        let why = system_error_text(&refusal.error);
        let words = refusal.text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
        report.line(
            Level::Error,
            format!("Error: firewall rules were not {what} over nftables - {why}{words}"),
        );
        let (trouble, line) = match trouble(refusal) {
            Trouble::NoPermission => (Trouble::NoPermission, WITHOUT_NET_ADMIN),
            Trouble::NoNfTables => (
                Trouble::NoNfTables,
                "This kernel has no nf_tables: load the module `nf_tables`, or give \
                 -firewall=iptables",
            ),
            other => return report.troubles.push(other),
        };
        report.troubles.push(trouble);
        self.say(Level::Warning, line, report);
    }

    fn say(&mut self, level: Level, line: &str, report: &mut Report) {
        if self.said.insert(line.to_owned()) {
            report.line(level, line.to_owned());
        }
    }

    fn open(&mut self) -> Result<&mut Netlink, Refusal> {
        match &mut self.netlink {
            Some(netlink) => Ok(netlink),
            none => {
                let netlink = Netlink::open(Subsystem::Netfilter)?;
                // With less room a long refusal is told in part: it stays one.
                let _ = netlink.make_room(ROOM);
                Ok(none.insert(netlink))
            }
        }
    }
}

/// What a refusal means.
fn trouble(refusal: &Refusal) -> Trouble {
    match refusal.number() {
        Some(libc::EPERM | libc::EACCES) => Trouble::NoPermission,
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
            Trouble::NoNfTables
        }
        _ => Trouble::Kernel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::namespace::in_namespace;
    use std::io;

    fn refusal(number: i32) -> Refusal {
        Refusal::from(io::Error::from_raw_os_error(number))
    }

    fn nftables() -> Nftables {
        let addresses = vec!["169.254.20.10".parse().unwrap()];
        Nftables::new(Plan { addresses, dns_port: 53, health_port: 8080 }, Life::Process)
    }

    #[test]
    fn what_the_kernel_refuses_is_counted_each_time_and_explained_once() {
        for (number, trouble, word) in [
            (libc::EPERM, Trouble::NoPermission, "NET_ADMIN"),
            (libc::EPROTONOSUPPORT, Trouble::NoNfTables, "load the module `nf_tables`"),
            (libc::EINVAL, Trouble::NoNfTables, "-firewall=iptables"),
        ] {
            let mut nftables = nftables();
            let mut report = Report::default();
            nftables.refused("set", &refusal(number), &mut report);
            assert_eq!(report.errors, [("nftables", 8)]);
            assert_eq!(report.troubles, [trouble]);
            assert_eq!(report.lines.len(), 2);
            assert!(report.lines[1].1.contains(word), "{report:?}");
            let mut again = Report::default();
            nftables.refused("set", &refusal(number), &mut again);
            assert_eq!((again.lines.len(), again.troubles.len()), (1, 1));
        }
        let mut report = Report::default();
        nftables().refused("set", &refusal(libc::ENOMEM), &mut report);
        assert_eq!(
            report.lines[0].1,
            "Error: firewall rules were not set over nftables - cannot allocate memory"
        );
        assert_eq!(report.troubles, [Trouble::Kernel]);
    }

    #[test]
    fn on_a_kernel_without_owned_tables_the_table_stays_and_it_is_said_once() {
        const TEST: &str = "node::firewall::nftables::tests::\
                            on_a_kernel_without_owned_tables_the_table_stays_and_it_is_said_once";
        if !in_namespace(TEST) {
            return;
        }
        // A flag that no kernel knows is refused as this one is by kernels before 5.12.
        let mut kept = Nftables { owned: 0x80, ..nftables() };
        let report = kept.ensure();
        assert_eq!((report.errors.len(), report.added), (0, 8), "{report:?}");
        let lines: Vec<&str> = report.lines.iter().map(|(_, line)| line.as_str()).collect();
        let [first, second] = lines[..] else { panic!("{lines:?}") };
        assert!(
            first.starts_with("This kernel has no tables that go with their process"),
            "{first}"
        );
        assert!(second.ends_with("it stays until it is removed"), "{second}");
        assert!(!kept.ends_with_process());
        assert_eq!(kept.ensure(), Report::default());
        // As after a crash: the next one takes its place.
        drop(kept);
        let mut next = nftables();
        assert_eq!(next.left_behind().unwrap(), ["inet nodens"]);
        assert_eq!(next.ensure().added, 8);
        assert!(next.ends_with_process());
        assert!(nftables().left_behind().unwrap().is_empty());
    }

    #[test]
    fn nothing_is_removed_that_was_not_set() {
        assert_eq!(nftables().remove(), Report::default());
    }
}
