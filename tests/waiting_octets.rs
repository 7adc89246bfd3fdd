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
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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

/// Longer than an answer of a second lives.
const EXPIRED: Duration = Duration::from_millis(1_100);

/// One test counts at a time.
static COUNTS: Mutex<()> = Mutex::new(());

/// Less than the time after which the first queries fail.
const WAIT: Duration = Duration::from_secs(3);

fn query(number: usize) -> Vec<u8> {
    messages::query(&format!("n{number}.storm.test"), RecordType::A, number as u16)
}

/// A message behind its length.
fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// The next message of a stream.
fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

struct Server {
    workers: Workers,
    metrics: Registry,
}

impl Server {
    /// One worker whose upstream is `port`, asked as `word` says, behind a `cache` with these options.
    fn start(port: u16, word: &str, cache: &str) -> Server {
        let corefile = format!(
            "storm.test:0 {{\nbind 127.0.0.1\nerrors\ncache {{\n{cache}\n}}\nforward . 127.0.0.1:{port} {{\n{word}\n}}\n}}\n"
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

    /// Sends the queries with `send`, which sends the one of a number; octets that each of them takes while it
    /// waits. A machine so slow that the first are over before the last wait tries again.
    fn octets_each(&self, mut send: impl FnMut(usize)) -> usize {
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

    fn try_octets_each(&self, send: &mut impl FnMut(usize)) -> Option<usize> {
        let begun = Instant::now();
        let before = LIVE.load(Ordering::Relaxed);
        for first in (0..QUERIES).step_by(AT_A_TIME) {
            if first == CONNECTIONS.next_multiple_of(AT_A_TIME) {
                std::thread::sleep(STUCK);
            }
            for number in first..first + AT_A_TIME {
                send(number);
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
    let _alone = COUNTS.lock();
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = Server::start(silent.local_addr().unwrap().port(), "prefer_udp", "");
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(server.address()).unwrap();
    let over_udp = server.octets_each(|number| assert!(client.send(&query(number)).is_ok()));
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
    let server = Server::start(port, "force_tcp", "");
    client.connect(server.address()).unwrap();
    let over_tcp = server.octets_each(|number| assert!(client.send(&query(number)).is_ok()));
    eprintln!("UDP to TCP: {over_tcp} octets each");
    let begun = Instant::now();
    while accepted.load(Ordering::Relaxed) < CONNECTIONS {
        assert!(begun.elapsed() < PATIENCE, "fewer connections than there may be");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(over_udp <= reckoned(), "{over_udp} octets, not {}", reckoned());
    assert!(over_tcp <= reckoned(), "{over_tcp} octets, not {}", reckoned());
}

/// An upstream over TCP that gives the first question an answer of 40 KiB, which lives for a second, and then no
/// more; its port.
fn answering_once() -> u16 {
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = upstream.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut connections: Vec<TcpStream> = Vec::new();
        for mut connection in upstream.incoming().flatten().take(1000) {
            if connections.is_empty() {
                let asked = read_framed(&mut connection);
                let mut response = asked;
                (response[2], response[3]) = (0x81, 0x80);
                response[6..8].copy_from_slice(&160_u16.to_be_bytes());
                for _ in 0..160 {
                    response.extend(b"\xc0\x0c\0\x10\0\x01\0\0\0\x01\x01\0\xff");
                    response.extend([b'x'; 255]);
                }
                connection.write_all(&framed(&response)).unwrap();
            }
            connections.push(connection);
        }
    });
    port
}

#[test]
fn who_waits_for_an_expired_answer_to_be_verified_has_no_copy_of_it() {
    let _alone = COUNTS.lock();
    let cache = "success 9984 3600 1\nserve_stale 1h verify";
    let server = Server::start(answering_once(), "force_tcp\nmax_fails 0", cache);
    let question = || messages::query("one.storm.test", RecordType::TXT, 7);
    let mut first = TcpStream::connect(server.address()).unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    first.write_all(&framed(&question())).unwrap();
    assert!(read_framed(&mut first).len() > 40_000);
    std::thread::sleep(EXPIRED);
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(server.address()).unwrap();
    let each = server.octets_each(|_| assert!(client.send(&question()).is_ok()));
    eprintln!("verifying: {each} octets each");
    assert!(each <= reckoned(), "{each} octets, not {}", reckoned());
}
