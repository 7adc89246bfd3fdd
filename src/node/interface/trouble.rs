//! What can be wrong with a node: its label, and what its operator is told to do.

use crate::sys::netlink::Refusal;

/// What is wrong with the node, by its label in `nodens_node_trouble_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// The kernel has no driver for dummy links.
    NoDriver,
    /// The capability NET_ADMIN is missing.
    NoPermission,
    /// A local address is on another link, too.
    AddressElsewhere,
    /// A local address is a Service's that kube-proxy serves by IPVS, which takes its queries.
    AddressOfIpvs,
    /// The link is another's: it stays at the end.
    LinkOfOthers,
    /// The link is down, and it is not ours to set up: IPv6 addresses do not answer.
    LinkDown,
    /// The runtime directory cannot be written.
    RuntimeDirectory,
    /// The kernel has no nf_tables.
    NoNfTables,
    /// A table of our name is another's.
    TableOfOthers,
    /// A chain drops what comes in, and rules of our own cannot accept for it.
    PolicyDrops,
    /// Links, addresses or tables could not be read, made or removed.
    Kernel,
}

impl Trouble {
    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Trouble::NoDriver => "no_driver",
            Trouble::NoPermission => "no_permission",
            Trouble::AddressElsewhere => "address_elsewhere",
            Trouble::AddressOfIpvs => "address_of_ipvs",
            Trouble::LinkOfOthers => "link_of_others",
            Trouble::LinkDown => "link_down",
            Trouble::RuntimeDirectory => "runtime_directory",
            Trouble::NoNfTables => "no_nf_tables",
            Trouble::TableOfOthers => "table_of_others",
            Trouble::PolicyDrops => "policy_drops",
            Trouble::Kernel => "kernel",
        }
    }

    /// What a refusal says of the node.
    pub(super) fn of(refusal: &Refusal) -> Trouble {
        match refusal.number() {
            Some(libc::EPERM | libc::EACCES) => Trouble::NoPermission,
            _ => Trouble::Kernel,
        }
    }

    /// What to do about it on the interface `name`; `None` where that is told in its place.
    pub(super) fn advice(self, name: &str) -> Option<String> {
        Some(match self {
            Trouble::NoDriver => {
                "This kernel has no dummy interfaces: load the module `dummy`, or name \
                                  an interface that is there, such as the loopback one: \
                                  -interfacename lo"
                    .to_owned()
            }
            Trouble::NoPermission => format!(
                "The capability NET_ADMIN is missing: give it to nodens, or make the interface \
                 {name} yourself and give -setupinterface=false"
            ),
            Trouble::LinkOfOthers => {
                format!("The interface {name} has addresses of others: it stays at the end")
            }
            Trouble::LinkDown => format!(
                "The interface {name} is down and was not made by nodens: its IPv6 addresses do not \
                 answer until it is set up"
            ),
            // Told where they are met.
            Trouble::AddressElsewhere
            | Trouble::AddressOfIpvs
            | Trouble::RuntimeDirectory
            | Trouble::NoNfTables
            | Trouble::TableOfOthers
            | Trouble::PolicyDrops
            | Trouble::Kernel => return None,
        })
    }
}
