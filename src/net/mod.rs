//! Sockets in, engine, sockets out: workers, UDP, TCP, upstream connections.
//!
//! Owns every socket and every await. Never looks inside a message beyond framing and id: what a
//! message means is the engine's and the plugins' to say.

mod between;
mod clock;
mod counters;
pub mod dnstap;
pub mod doh;
mod drive;
mod found;
mod h3;
mod handed;
mod hands;
mod https;
mod listener;
mod places;
mod quic;
mod rest;
mod sockets;
mod stream;
mod tcp;
mod thrift;
mod udp;
mod unverified;
pub mod upstream;
mod worker;
mod workers;

pub use clock::{Clock, LEAD};
pub use found::{Found, FoundSocket, socket_number, take_wanted};
pub use h3::{H3_CONNECTIONS_MOST, H3_QUEUE_MOST};
pub use handed::{HandedConnection, Heir};
pub use hands::{Heartbeat, Spares};
pub use https::STREAMS_MOST;
pub use quic::QUIC_STREAMS_MOST;
pub use rest::{Meter, OwnMeter};
pub use sockets::{HandedSockets, Keeper, ListenError, RECEIVE_BUFFERS_MOST};
pub use tcp::{CONNECTIONS_PER_WORKER_MOST, UNSENT_MOST, WAITING_PER_CONNECTION_MOST};
pub use thrift::{TURN_LONGEST, TURNS_MOST};
pub use unverified::Unverified;
pub use worker::{PARKED_MOST, REFRESHES_MOST, WAITING_OCTETS};
pub use workers::{Equipment, WORKERS_MOST, WaitingWorkers, Workers, can_listen, default_workers};

#[cfg(test)]
pub(crate) mod tests;
