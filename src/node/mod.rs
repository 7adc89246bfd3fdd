//! What nodens does to and learns from its node: the interface with the local addresses, who else
//! serves here, the Corefile's template and inputs.
//!
//! Never sees a query.

mod claims;
mod files;
pub mod firewall;
mod interface;
mod kubedns;
mod leftovers;
#[cfg(test)]
mod namespace;
mod repeats;
mod served;
mod sources;
mod template;

pub use claims::{Claim, Claims, is_claimed};
pub use files::{Listing, Look, Neighbours, SourcePaths, look, write_if_changed};
pub use interface::{Interface, Left, Report as InterfaceReport, Trouble, Watch, Wish, read_news};
pub use kubedns::KubeDns;
pub use leftovers::{Leftovers, Lookup, Problem, Thing};
pub use served::served_by_others;
pub use sources::{LOOK_EVERY, NewCorefile, News, Sources};
pub use template::{NodeValues, Rendered, UnknownService, cluster_dns, render, service_variable};

/// The link that kube-proxy makes in IPVS mode: it has the addresses of all Services.
const PROXY_LINK: &str = "kube-ipvs0";
