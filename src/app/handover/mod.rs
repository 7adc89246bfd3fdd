//! Handover: a process that starts takes over from the one that serves, and no query is lost.
//!
//! Owns the conversation of the two and its bounds. The successor loads its Corefile, asks, and gets
//! the listening sockets and the cache; it makes all ready, reads the sockets and says so. Only then
//! the predecessor stops reading. A datagram is read by one of the two, whichever comes first, so
//! nothing is lost at any moment; a conversation that breaks before leaves the predecessor as it was.
//! Decides nothing about serving: that is the main loop's.

mod after;
mod conversation;
mod door;
mod giving;
mod heir;
mod message;
mod taking;
mod talk;
mod turn;

pub(super) use after::AfterHandover;
pub(super) use giving::Giver;
pub(super) use heir::{Event, Heir, Offer};
pub(super) use taking::{Predecessor, Taken, ask, join};

use self::message::Place;
use super::log::Log;
use crate::corefile::KeyTransport;
use crate::engine::Snapshot;
use crate::metrics::{Registry, names};
use crate::plugin::{Journal, Level};
use std::fmt::Arguments;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the cache may take from one process to the other.
const CACHE_TIME: Duration = Duration::from_secs(10);

/// How long a successor may take from the offer until it reads: setting firewall rules may take 16 s.
const COMMIT_TIME: Duration = Duration::from_secs(30);

/// How long the predecessor may take to stop reading: a reload may be under way.
const RETIRE_TIME: Duration = Duration::from_secs(10);

/// The most sockets that are handed over; a message holds 64 of them.
pub(super) const SOCKETS_MOST: usize = 1024;

/// The most HTTP addresses.
pub(super) const SITES_MOST: usize = 64;

/// Which part this process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Successor,
    Predecessor,
}

impl Role {
    fn label(self) -> &'static str {
        match self {
            Role::Successor => "successor",
            Role::Predecessor => "predecessor",
        }
    }
}

/// How a handover ended, by its label in `nodens_handover_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// One process serves in place of the other.
    Done,
    /// Nobody listens at the socket file any more.
    Stale,
    /// The predecessor hands nothing over.
    Refused,
    /// The other side runs as another user, or does not speak this.
    Foreign,
    /// The other side ended, or did not answer in time.
    Broken,
    /// The runtime directory or its file cannot be used.
    Directory,
    /// The successor is gone again, and this process serves on.
    Returned,
}

impl End {
    fn label(self) -> &'static str {
        match self {
            End::Done => "done",
            End::Stale => "stale",
            End::Refused => "refused",
            End::Foreign => "foreign",
            End::Broken => "broken",
            End::Directory => "directory",
            End::Returned => "returned",
        }
    }
}

/// Where handovers take place, and where they are told of.
#[derive(Clone)]
pub(super) struct Handover {
    /// The runtime directory; `None` with `-handover=false`.
    pub(super) directory: Option<PathBuf>,
    /// Lines for the operator.
    pub(super) log: Log,
    /// The registry.
    pub(super) metrics: Registry,
}

impl Handover {
    /// Whether somebody may have something for this process: then its sockets are asked for before
    /// others are opened.
    pub(super) fn is_anybody_there(&self) -> bool {
        self.directory.as_deref().is_some_and(door::is_anybody_there)
    }

    fn tell(&self, role: Role, end: End, level: Level, text: Arguments<'_>) {
        self.metrics.counter(&names::HANDOVER, &[role.label(), end.label()]).increment();
        self.log.line(level, format_args!("Handover: {text}"));
    }
}

/// The addresses of a snapshot that have a number, each once, in order.
fn places(snapshot: &Snapshot) -> Vec<Place> {
    let mut places: Vec<Place> = snapshot
        .servers
        .iter()
        // What has no port yet is found by nobody; UDP alone is not handed over.
        .filter(|server| server.port != 0)
        .filter(|server| !matches!(server.transport, KeyTransport::Quic | KeyTransport::Https3))
        .map(|server| Place {
            transport: server.transport,
            host: server.host.clone(),
            port: server.port,
        })
        .collect();
    places.sort_by(|one, other| {
        let key = |place: &Place| (place.transport.word(), place.port, place.host.clone());
        key(one).cmp(&key(other))
    });
    places.dedup();
    places
}

/// Whether a process serves DNS at `host` and `port`, and can be taken over from.
pub(super) fn is_served(directory: &Path, host: &str, port: u16) -> bool {
    let place = Place { transport: KeyTransport::Dns, host: Some(host.to_owned()), port };
    door::is_served(&door::file(directory, &place))
}

/// The network namespace, as the kernel names it: another's sockets are no use here.
fn namespace() -> String {
    std::fs::read_link(Path::new("/proc/self/ns/net"))
        .map(|place| place.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The program's version, for lines.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// How a process is named in lines.
fn process(number: u32) -> String {
    match number {
        0 => "a process of another container".to_owned(),
        number => format!("process {number}"),
    }
}
