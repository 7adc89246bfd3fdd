//! A server without sockets: a Corefile in memory, the engine's passes, a clock that the caller
//! moves, and an upstream that says what it is told. For benchmarks and fuzzing.
//!
//! Owns nothing of the engine's order; only plays what lies outside of it.
#![allow(dead_code)] // Not every benchmark uses all of it.

use nodens::corefile::{MemorySurroundings, parse};
use nodens::dns::{Response, Transport};
use nodens::engine::{Arrival, Event, Means, Parked, Refresh, Silence, Snapshot, Step, World};
use nodens::engine::{arrive, build};
use nodens::metrics::{Registry, enter_worker};
use nodens::plugin::cache::{Store, stores};
use nodens::plugin::forward::Exchanged;
use nodens::plugin::{Carried, Client, Now, SilentJournal};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The directives of a usual node-local Corefile that see a query.
pub(crate) const COREFILE: &str = ".:53 {
    errors
    cache 30
    forward . 192.0.2.53
    prometheus :9253
}
";

/// What became of a query.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The reply stands in [`Rig::reply`].
    Reply,
    /// No reply.
    Silence(Silence),
    /// Upstream is asked.
    Asked(Box<Parked>),
}

/// One listener with all it needs.
pub(crate) struct Rig {
    snapshot: Arc<Snapshot>,
    random: StdRng,
    refreshes: Vec<Refresh>,
    response: Response,
    /// The clock, for the caller to move.
    pub(crate) now: Now,
    client: Client,
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Rig {
    /// A server that runs `corefile`, which must be a right one.
    pub(crate) fn new(corefile: &str) -> Rig {
        let surroundings = MemorySurroundings::new();
        let tree = parse(corefile.as_bytes(), "Corefile", &|_| true, &surroundings)
            .expect("the Corefile parses");
        let metrics = Registry::new(1);
        // The thread that makes the rig is its worker: it alone counts.
        enter_worker(1);
        let mut random = StdRng::seed_from_u64(7);
        let world = World {
            surroundings: &surroundings,
            metrics: &metrics,
            journal: &SilentJournal,
            random: &mut random,
            default_port: 53,
            carried: Carried::default(),
        };
        let snapshot = Arc::new(build(&tree, world).expect("the Corefile can be set up"));
        Rig {
            snapshot,
            random,
            refreshes: Vec::new(),
            response: Response::new(),
            now: Now {
                monotonic: Duration::from_secs(1000),
                unix: Duration::from_secs(1_700_000_000),
            },
            client: Client {
                address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40212),
                local: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53),
                transport: Transport::Udp,
            },
        }
    }

    /// The store of the Corefile's first `cache`.
    pub(crate) fn store(&self) -> Arc<Store> {
        stores(&self.snapshot.carried).swap_remove(0).1
    }

    /// The transport of the queries that follow; UDP unless told.
    pub(crate) fn set_transport(&mut self, transport: Transport) {
        self.client.transport = transport;
    }

    /// The reply to the last query that got one.
    pub(crate) fn reply(&self) -> &[u8] {
        &self.response.wire
    }

    /// A message from the client.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Outcome {
        let mut means = Means {
            now: self.now,
            received: self.now,
            random: &mut self.random,
            journal: &SilentJournal,
            refreshes: &mut self.refreshes,
        };
        match arrive(&self.snapshot, 0, bytes, self.client, &mut self.response, &mut means) {
            Arrival::Reply => Outcome::Reply,
            Arrival::Silence(silence) => Outcome::Silence(silence),
            Arrival::Wait(parked, _) => Outcome::Asked(parked),
        }
    }

    /// The upstream's answer to a query that waits; true when the reply is ready.
    pub(crate) fn answer(&mut self, mut parked: Box<Parked>, upstream: &[u8]) -> bool {
        let exchanged = Exchanged {
            outcome: Ok(upstream.into()),
            upstream: None,
            took: Duration::from_millis(1),
            tried: Vec::new(),
        };
        let mut means = Means {
            now: self.now,
            received: self.now,
            random: &mut self.random,
            journal: &SilentJournal,
            refreshes: &mut self.refreshes,
        };
        let step = parked.resume(&mut means, &Event::Exchanged(&exchanged));
        let done = matches!(step, Step::Done);
        if done {
            parked.finish(&mut means);
            self.response = parked.into_response();
        }
        done
    }
}

/// A query for `name` (wire form) and type with an id, RD, and an OPT of `size` if given.
pub(crate) fn query(id: u16, name: &[u8], qtype: u16, size: Option<u16>) -> Vec<u8> {
    let mut wire = id.to_be_bytes().to_vec();
    wire.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(size.is_some())]);
    wire.extend_from_slice(name);
    wire.extend_from_slice(&qtype.to_be_bytes());
    wire.extend_from_slice(&[0, 1]);
    if let Some(size) = size {
        wire.extend_from_slice(&[0, 0, 41]);
        wire.extend_from_slice(&size.to_be_bytes());
        wire.extend_from_slice(&[0; 6]);
    }
    wire
}

/// A response to `query` (without OPT) with A records 192.0.2.1 and on, their owners pointers.
pub(crate) fn addresses(query: &[u8], count: u8) -> Vec<u8> {
    let mut wire = query.to_vec();
    wire[2] |= 0x80;
    wire[3] |= 0x80;
    wire[7] = count;
    for address in 1..=count {
        wire.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02");
        wire.push(address);
    }
    wire
}
