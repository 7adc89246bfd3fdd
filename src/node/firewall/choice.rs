//! Which backend keeps the rules, and why: as the operator asked, or by what the node and its
//! kube-proxy use.
//!
//! Owns the reasoning, as a value that can be told. Looking changes nothing.

use super::command::find;
use super::messages::{self, INET, IPV4, IPV6};
use super::nftables::{Life, Nftables};
use super::rules::{Family, Plan};
use super::{Firewall, Iptables, Variant};
use crate::node::PROXY_LINK;
use crate::sys::netlink::{Message, Netlink, Refusal, Request, Subsystem};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;

/// The table of a kube-proxy in nftables mode, in each family.
const PROXY_TABLE: &str = "kube-proxy";

/// The chain that kube-proxy makes in iptables mode.
const PROXY_CHAIN: &str = "KUBE-SERVICES";

/// The most octets that are read of the kernel's list of links.
const LONGEST_LIST: u64 = 1 << 20;

/// What `-firewall` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What fits the node.
    Auto,
    /// The iptables programs.
    Iptables,
    /// A table of one's own, over netlink.
    Nftables,
    /// No rules.
    None,
}

impl Wanted {
    /// Reads the flag's value.
    pub fn parse(text: &str) -> Option<Wanted> {
        match text {
            "auto" => Some(Wanted::Auto),
            "iptables" => Some(Wanted::Iptables),
            "nftables" => Some(Wanted::Nftables),
            "none" => Some(Wanted::None),
            _ => None,
        }
    }
}

/// Who keeps the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Nobody.
    None,
    /// The iptables programs.
    Iptables,
    /// The process itself, over netlink.
    Nftables,
}

impl Backend {
    /// The backend for a plan; nothing is touched yet.
    pub fn keeper(self, plan: Plan, life: Life) -> Firewall {
        match self {
            Backend::None => Firewall::None,
            Backend::Iptables => Firewall::Iptables(Iptables::new(plan, Variant::Plain)),
            Backend::Nftables => Firewall::Nftables(Nftables::new(plan, life)),
        }
    }
}

/// Whether the kernel has nf_tables, and who uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NfTables {
    /// The kernel has none.
    Missing,
    /// It could not be asked: the capability NET_ADMIN is missing.
    Unknown,
    /// It is there.
    Here {
        /// A kube-proxy in nftables mode works here.
        has_proxy: bool,
        /// A kube-proxy in iptables mode works here, by `iptables-nft`.
        has_proxy_chains: bool,
        /// A chain drops what comes to the node unless a rule in its own table accepts it.
        drops_input: bool,
    },
}

/// What a node uses, as far as the choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// Whether there is a program `iptables`.
    pub has_programs: bool,
    /// nf_tables.
    pub nf_tables: NfTables,
    /// Whether `iptables-legacy` translates addresses here, as a kube-proxy in iptables mode does.
    pub has_legacy_nat: bool,
    /// Whether a kube-proxy in IPVS mode works here.
    pub has_ipvs: bool,
}

/// A backend and why it was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The backend.
    pub backend: Backend,
    /// A clause that follows "because": `there is no program iptables`.
    pub reason: &'static str,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason;
        match self.backend {
            Backend::None => write!(f, "No firewall rules are kept: {reason}"),
            Backend::Iptables => write!(f, "Firewall rules are kept by iptables: {reason}"),
            Backend::Nftables => write!(f, "Firewall rules are kept in nftables: {reason}"),
        }
    }
}

impl Choice {
    /// For what was asked for; the node is looked at only when that decides. Waits for the kernel
    /// alone.
    pub fn make(wanted: Wanted) -> Choice {
        let as_asked = |backend| Choice { backend, reason: "as -firewall says" };
        match wanted {
            Wanted::None => as_asked(Backend::None),
            Wanted::Iptables => as_asked(Backend::Iptables),
            Wanted::Nftables => as_asked(Backend::Nftables),
            Wanted::Auto => Choice::for_scene(&Scene::look()),
        }
    }

    /// iptables wherever node-cache would work with it, so that a node's rules stay as they were;
    /// nftables where there is no iptables, or where kube-proxy left it.
    pub fn for_scene(scene: &Scene) -> Choice {
        let (backend, reason) = match scene {
            Scene { has_programs: false, .. } => {
                (Backend::Nftables, "there is no program iptables")
            }
            Scene { nf_tables: NfTables::Missing, .. } => {
                (Backend::Iptables, "this kernel has no nf_tables")
            }
            Scene { nf_tables: NfTables::Unknown, .. } => {
                (Backend::Iptables, "nf_tables cannot be asked without the capability NET_ADMIN")
            }
            Scene { has_ipvs: true, .. } => (Backend::Iptables, "kube-proxy uses IPVS"),
            Scene { nf_tables: NfTables::Here { has_proxy: false, .. }, .. } => {
                (Backend::Iptables, "the program is here and kube-proxy does not use nftables")
            }
            Scene { nf_tables: NfTables::Here { has_proxy_chains: true, .. }, .. }
            | Scene { has_legacy_nat: true, .. } => (
                Backend::Iptables,
                "kube-proxy's tables are in nftables, but iptables is in use too",
            ),
            Scene { nf_tables: NfTables::Here { drops_input: true, .. }, .. } => (
                Backend::Iptables,
                "a chain drops what comes in, and a table of its own cannot accept for it",
            ),
            _ => (Backend::Nftables, "kube-proxy uses nftables"),
        };
        Choice { backend, reason }
    }
}

impl Scene {
    /// Looks at the node and the kernel.
    pub fn look() -> Scene {
        Scene {
            has_programs: find(&Variant::Plain.program(Family::V4)).is_some(),
            nf_tables: look_at_nf_tables(),
            has_legacy_nat: fs::read_to_string("/proc/self/net/ip_tables_names")
                .is_ok_and(|names| names.lines().any(|name| name == "nat")),
            has_ipvs: has_link(PROXY_LINK),
        }
    }
}

fn has_link(name: &str) -> bool {
    let mut list = String::new();
    let read = File::open("/proc/self/net/dev")
        .and_then(|file| file.take(LONGEST_LIST).read_to_string(&mut list));
    read.is_ok()
        && list.lines().filter_map(|line| line.split_once(':')).any(|(link, _)| link.trim() == name)
}

fn look_at_nf_tables() -> NfTables {
    match ask_nf_tables() {
        Ok(here) => here,
        Err(refusal) if matches!(refusal.number(), Some(libc::EPERM | libc::EACCES)) => {
            NfTables::Unknown
        }
        Err(_) => NfTables::Missing,
    }
}

fn ask_nf_tables() -> Result<NfTables, Refusal> {
    let mut netlink = Netlink::open(Subsystem::Netfilter)?;
    let mut is_there = |request: Request| match netlink.get(&request) {
        Err(refusal) if refusal.number() == Some(libc::ENOENT) => Ok(false),
        result => result.map(|found: Option<Message>| found.is_some()),
    };
    let mut has_proxy = false;
    let mut has_proxy_chains = false;
    for family in [INET, IPV4, IPV6] {
        has_proxy |= is_there(messages::get_table_of(family, PROXY_TABLE))?;
        if family != INET {
            has_proxy_chains |= is_there(messages::get_chain_of(family, "nat", PROXY_CHAIN))?;
        }
    }
    // A node may have very many chains: they are read only where they decide.
    let drops_input = has_proxy
        && netlink
            .dump(&messages::all_chains())?
            .iter()
            .any(|chain| messages::read_chain(chain).drops_input);
    Ok(NfTables::Here { has_proxy, has_proxy_chains, drops_input })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NfTables =
        NfTables::Here { has_proxy: false, has_proxy_chains: false, drops_input: false };

    /// A node with iptables programs, nf_tables, and nothing else that is known.
    const PLAIN: Scene =
        Scene { has_programs: true, nf_tables: HERE, has_legacy_nat: false, has_ipvs: false };

    #[test]
    fn iptables_stays_wherever_node_cache_would_work() {
        let proxy = |has_proxy_chains, drops_input| NfTables::Here {
            has_proxy: true,
            has_proxy_chains,
            drops_input,
        };
        for (scene, word) in [
            (PLAIN, "kube-proxy does not use nftables"),
            (Scene { nf_tables: NfTables::Missing, ..PLAIN }, "no nf_tables"),
            (Scene { nf_tables: NfTables::Unknown, ..PLAIN }, "NET_ADMIN"),
            (Scene { has_ipvs: true, ..PLAIN }, "IPVS"),
            (Scene { nf_tables: proxy(true, false), ..PLAIN }, "in use too"),
            (Scene { nf_tables: proxy(false, true), ..PLAIN }, "drops"),
            (Scene { nf_tables: proxy(false, false), has_legacy_nat: true, ..PLAIN }, "in use too"),
        ] {
            let choice = Choice::for_scene(&scene);
            assert_eq!(choice.backend, Backend::Iptables, "{scene:?}");
            assert!(choice.reason.contains(word), "{choice}");
        }
    }

    #[test]
    fn nftables_is_for_nodes_without_iptables_and_for_kube_proxys_that_left_it() {
        let none = Scene { has_programs: false, ..PLAIN };
        assert_eq!(
            Choice::for_scene(&none).to_string(),
            "Firewall rules are kept in nftables: there is no program iptables"
        );
        let proxy = NfTables::Here { has_proxy: true, has_proxy_chains: false, drops_input: false };
        let choice = Choice::for_scene(&Scene { nf_tables: proxy, ..PLAIN });
        assert_eq!(choice.backend, Backend::Nftables);
        assert_eq!(choice.reason, "kube-proxy uses nftables");
    }

    #[test]
    fn what_is_asked_for_is_taken_without_a_look() {
        for (text, backend) in [
            ("iptables", Backend::Iptables),
            ("nftables", Backend::Nftables),
            ("none", Backend::None),
        ] {
            assert_eq!(Choice::make(Wanted::parse(text).unwrap()).backend, backend);
        }
        assert_eq!(Wanted::parse("auto"), Some(Wanted::Auto));
        assert_eq!(Wanted::parse("nft"), None);
    }

    #[test]
    fn links_are_looked_for() {
        assert!(has_link("lo") && !has_link("no-such-link"));
    }
}
