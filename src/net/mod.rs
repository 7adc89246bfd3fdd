//! Sockets in, engine, sockets out: workers, UDP, TCP, upstream connections.
//!
//! Owns every socket and every await. Never looks inside a message beyond framing and id: what a
//! message means is the engine's and the plugins' to say.

mod clock;
pub mod upstream;
mod workers;

pub use clock::Clock;
pub use workers::{Equipment, ListenError, Workers, can_listen, default_workers};
