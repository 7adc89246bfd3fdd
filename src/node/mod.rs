//! What nodens does to and learns from its node: the Corefile's template and inputs.
//!
//! Never sees a query.

mod files;
pub mod firewall;
mod kubedns;
mod sources;
mod template;

pub use files::{Listing, Look, look, write_if_changed};
pub use kubedns::KubeDns;
pub use sources::{LOOK_EVERY, NewCorefile, News, SourcePaths, Sources};
pub use template::{NodeValues, Rendered, UnknownService, cluster_dns, render, service_variable};
