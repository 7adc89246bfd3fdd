//! Firewall rules: what lets pods' queries reach this process and keeps them out of connection
//! tracking. Without NOTRACK kube-proxy's DNAT would take queries for the cluster DNS Service away.
//!
//! Owns the choice of backend and what a caller is told. Every operation is bounded in time, never
//! fatal, and may be repeated. Never sees a query.

mod choice;
mod command;
mod iptables;
mod messages;
mod nftables;
mod rewrite;
mod rules;
mod saved;
mod sweep;
mod tables;

pub use choice::{Backend, Choice, NfTables, Scene, Wanted};
pub use command::Failure;
pub use iptables::{Iptables, Variant};
pub use nftables::{Life, Nftables, TABLE_NAMES};
pub use rewrite::Rewrite;
pub use rules::{Family, Place, Plan, Protocol, Rule, Side};
pub use sweep::{LeftRules, Whose};

use super::Trouble;
use crate::metrics::{Registry, names};
use crate::plugin::{Journal, Level};
use std::time::Duration;

/// The longest that an operation may take, both families together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within(pub Duration);

impl Within {
    /// For setting and checking: the wait for the lock, and twice as much for the programs.
    pub const SETTING: Within = Within(Duration::from_secs(15));
    /// For removing on the way out: below the grace period that Kubernetes gives by default, with room
    /// for lameduck and the drain.
    pub const REMOVING: Within = Within(Duration::from_secs(10));
    /// For removing what is left of the rules when the last reply has left: nothing waits for it.
    pub const TIDYING: Within = Within(Duration::from_secs(5));
    /// For removing what a server left that was killed: nobody answers until then, and nobody waits.
    pub const CLEARING: Within = Within(Duration::from_secs(20));
}

/// What to do where rules need a privilege that is not there.
const WITHOUT_NET_ADMIN: &str = "The capability NET_ADMIN is missing: give it to nodens, or set the \
                                 firewall rules yourself and give -firewall=none";

/// What an operation did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// For the operator, in order.
    pub lines: Vec<(Level, String)>,
    /// Errors by their label in `coredns_nodecache_setup_errors_total`.
    pub errors: Vec<(&'static str, u64)>,
    /// What is wrong with the node, each time it is met.
    pub troubles: Vec<Trouble>,
    /// How many rules were missing and are there now.
    pub added: u64,
    /// How many rules were removed.
    pub removed: u64,
}

impl Report {
    /// Whether all is as it should be now.
    pub fn is_good(&self) -> bool {
        self.errors.is_empty()
    }

    /// Counts the errors and the changes, and writes the lines: who reads one finds it counted.
    pub fn tell(&self, journal: &dyn Journal, metrics: &Registry) {
        for (kind, count) in &self.errors {
            metrics.counter(&names::SETUP_ERRORS, &[kind]).add(*count);
        }
        for trouble in &self.troubles {
            metrics.counter(&names::NODE_TROUBLE, &[trouble.label()]).increment();
        }
        metrics.counter(&names::FIREWALL_ADDED, &[]).add(self.added);
        metrics.counter(&names::FIREWALL_REMOVED, &[]).add(self.removed);
        for (level, text) in &self.lines {
            journal.line(*level, format_args!("{text}"));
        }
    }

    fn line(&mut self, level: Level, text: String) {
        self.lines.push((level, text));
    }

    fn fail(&mut self, kind: &'static str, count: u64) {
        self.errors.push((kind, count));
    }
}

/// The rules and who keeps them.
#[derive(Debug)]
pub enum Firewall {
    /// Nobody: `-firewall=none`, `-setupiptables=false`.
    None,
    /// The iptables programs.
    Iptables(Iptables),
    /// The process itself, over netlink.
    Nftables(Nftables),
}

impl Firewall {
    /// Pods' queries for Services' addresses are sent to local addresses, too; nftables alone does that.
    pub fn rewriting(self, rewrites: Vec<Rewrite>) -> Firewall {
        match self {
            Firewall::Nftables(nftables) => Firewall::Nftables(nftables.rewriting(rewrites)),
            other => other,
        }
    }

    /// Sets all rules; those that are there stay. Repeating it changes nothing.
    pub fn apply(&mut self) -> Report {
        match self {
            Firewall::None => Report::default(),
            Firewall::Iptables(iptables) => iptables.ensure(Within::SETTING),
            Firewall::Nftables(nftables) => nftables.ensure(),
        }
    }

    /// Sets what is missing; [`Report::added`] says how much that was. Call it every sync interval.
    pub fn check_and_repair(&mut self) -> Report {
        self.apply()
    }

    /// Removes what keeps queries here: from now on the cluster DNS Service gets those to its address. What
    /// lets replies to earlier ones leave as they should stays, and so do accepts.
    pub fn let_queries_go(&mut self, within: Within) -> Report {
        match self {
            Firewall::None => Report::default(),
            Firewall::Iptables(iptables) => iptables.let_queries_go(within),
            Firewall::Nftables(nftables) => nftables.let_queries_go(),
        }
    }

    /// Removes the rules: with iptables copies of any age included, with nftables the table that was
    /// set.
    pub fn remove(&mut self, within: Within) -> Report {
        match self {
            Firewall::None => Report::default(),
            Firewall::Iptables(iptables) => iptables.remove(within),
            Firewall::Nftables(nftables) => nftables.remove(),
        }
    }

    /// Removes what a process left that was to keep these rules, where nobody needs any: those of
    /// the plan, and tables that no process owns.
    pub fn remove_all_left_behind(&mut self, within: Within) -> Report {
        match self {
            Firewall::Nftables(nftables) => nftables.remove_left_behind(),
            Firewall::None | Firewall::Iptables(_) => self.remove_plan_left_behind(within),
        }
    }

    /// The same where somebody needs the rules of other addresses: those of the plan alone. A table
    /// stays, for it is of all addresses.
    pub fn remove_plan_left_behind(&mut self, within: Within) -> Report {
        match self {
            Firewall::None | Firewall::Nftables(_) => Report::default(),
            Firewall::Iptables(iptables) => iptables.remove(within),
        }
    }

    /// Whether the rules are of this process alone: the kernel removes them when it ends, and a
    /// successor has its own.
    pub fn ends_with_process(&self) -> bool {
        matches!(self, Firewall::Nftables(nftables) if nftables.ends_with_process())
    }
}
