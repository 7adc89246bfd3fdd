//! The HTTP endpoints: /metrics, /health, /ready, /debug/pprof, and the poll of one's own /health.
//!
//! Owns its listeners, connections and their bounds. Runs on the main thread's runtime, never on a
//! worker's. Decides nothing: what is ready, what is counted, is told to it.

mod listen;
mod negotiate;
mod pages;
mod poll;
mod profile;
mod refuse;
mod respond;
mod site;

pub use listen::{is_at, listen};
pub use poll::{PollFailure, poll_health};
pub use respond::{Alive, Condition, Endpoints};
pub use site::{MOST_CONNECTIONS, Site};
