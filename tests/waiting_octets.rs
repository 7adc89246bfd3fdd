//! What a query that waits takes of the memory, counted by an allocator that counts: the figure that
//! `-memory-limit` reckons with is no less.
#![allow(unsafe_code)] // An allocator can be written in no other way.
#![allow(clippy::unwrap_used)] // A test may panic, and so may what it calls.

mod messages;

use nodens::corefile::{MemorySurroundings, parse};
use nodens::dns::RecordType;
use nodens::engine::{World, build};
use nodens::metrics::Registry;
use nodens::net::{Clock, Equipment, OwnMeter, WAITING_OCTETS, Workers};
use nodens::plugin::{Budget, Carried, SilentJournal};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// What glibc takes for an allocation: a word in front, steps of 16, and room to move an aligned one.
fn taken(layout: Layout) -> usize {
    let moved = if layout.align() > 16 { layout.align() } else { 0 };
    (layout.size() + 8).next_multiple_of(16).max(32) + moved
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// So many that what the worker itself takes meanwhile shows little.
const QUERIES: usize = 2_000;

/// Sent at a time: what the socket holds.
const AT_A_TIME: usize = 50;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Connections that a silent upstream gets at the most: half of them, until those are stuck.
const CONNECTIONS: usize = 128;

/// Longer than it takes until a connection is stuck.
const STUCK: Duration = Duration::from_millis(200);

/// Less than the time after which the first queries fail.
const WAIT: Duration = Duration::from_secs(3);

fn query(number: usize) -> Vec<u8> {
    messages::query(&format!("n{number}.storm.test"), RecordType::A, number as u16)
}

struct Server {
    workers: Workers,
    metrics: Registry,
}

impl Server {
    /// One worker whose upstream is `port`, asked as `word` says.
    fn start(port: u16, word: &str) -> Server {
        let corefile = format!(
            "storm.test:0 {{\nbind 127.0.0.1\nerrors\ncache 30\nforward . 127.0.0.1:{port} {{\n{word}\n}}\n}}\n"
        );
        let surroundings = MemorySurroundings::new();
        let tree = parse(corefile.as_bytes(), "Corefile", &|_| true, &surroundings).unwrap();
        let metrics = Registry::new(1);
        let world = World {
            surroundings: &surroundings,
            metrics: &metrics,
            journal: &SilentJournal,
            random: &mut StdRng::seed_from_u64(1),
            default_port: 53,
            carried: Carried::default(),
        };
        let snapshot = Arc::new(build(&tree, world).unwrap());
        let equipment = Equipment {
            workers: 1,
            clock: Clock::start(),
            metrics: metrics.clone(),
            journal: Arc::new(SilentJournal),
            budget: Arc::new(Budget::default()),
            meter: Arc::new(OwnMeter),
        };
        Server { workers: Workers::start(&equipment, &snapshot).unwrap(), metrics }
    }

    fn address(&self) -> SocketAddr {
        self.workers.addresses()[0]
    }

    /// How many queries wait.
    fn waiting(&self) -> usize {
        let text = self.metrics.text();
        let value = text.lines().find_map(|line| line.strip_prefix("nodens_queries_in_flight "));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as usize)
    }

    /// Sends the queries with `send`, which sends one; octets that each of them takes while it waits.
    /// A machine so slow that the first are over before the last wait tries again.
    fn octets_each(&self, mut send: impl FnMut(&[u8])) -> usize {
        let begun = Instant::now();
        loop {
            if let Some(octets) = self.try_octets_each(&mut send) {
                return octets;
            }
            while self.waiting() > 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            assert!(begun.elapsed() < PATIENCE, "never did all wait at once");
        }
    }

    fn try_octets_each(&self, send: &mut impl FnMut(&[u8])) -> Option<usize> {
        let begun = Instant::now();
        let before = LIVE.load(Ordering::Relaxed);
        for first in (0..QUERIES).step_by(AT_A_TIME) {
            if first == CONNECTIONS.next_multiple_of(AT_A_TIME) {
                std::thread::sleep(STUCK);
            }
            for number in first..first + AT_A_TIME {
                send(&query(number));
            }
            while self.waiting() < first + AT_A_TIME {
                if begun.elapsed() > WAIT {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Some(LIVE.load(Ordering::Relaxed).saturating_sub(before) / QUERIES)
    }
}

/// The most that the reckoning allows for one of these queries.
fn reckoned() -> usize {
    WAITING_OCTETS as usize + 4 * query(QUERIES).len()
}

#[test]
fn a_query_that_waits_takes_no_more_than_is_reckoned_with() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = Server::start(silent.local_addr().unwrap().port(), "prefer_udp");
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(server.address()).unwrap();
    let over_udp = server.octets_each(|query| assert!(client.send(query).is_ok()));
    eprintln!("UDP to UDP: {over_udp} octets each");

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    std::thread::spawn(move || {
        let mut connections: Vec<TcpStream> = Vec::new();
        for connection in silent.incoming().flatten().take(1000) {
            connections.push(connection);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let server = Server::start(port, "force_tcp");
    client.connect(server.address()).unwrap();
    let over_tcp = server.octets_each(|query| assert!(client.send(query).is_ok()));
    eprintln!("UDP to TCP: {over_tcp} octets each");
    let begun = Instant::now();
    while accepted.load(Ordering::Relaxed) < CONNECTIONS {
        assert!(begun.elapsed() < PATIENCE, "fewer connections than there may be");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(over_udp <= reckoned(), "{over_udp} octets, not {}", reckoned());
    assert!(over_tcp <= reckoned(), "{over_tcp} octets, not {}", reckoned());
}
