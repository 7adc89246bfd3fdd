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

/// Longer than an answer of a second lives: until its TTL is below 0.
const EXPIRED: Duration = Duration::from_millis(2_100);

/// Less than a question upstream goes on.
const AT_ONCE: Duration = Duration::from_secs(1);

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
    budget: Arc<Budget>,
}

impl Server {
    /// One worker whose upstream is `port`, asked as `word` says, behind these directives.
    fn start(port: u16, word: &str, directives: &str) -> Server {
        let corefile = format!(
            "storm.test:0 {{\nbind 127.0.0.1\nerrors\n{directives}\nforward . 127.0.0.1:{port} {{\n{word}\n}}\n}}\n"
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
        let budget = Arc::new(Budget::default());
        let equipment = Equipment {
            workers: 1,
            clock: Clock::start(),
            metrics: metrics.clone(),
            journal: Arc::new(SilentJournal),
            budget: budget.clone(),
            meter: Arc::new(OwnMeter),
        };
        Server { workers: Workers::start(&equipment, &snapshot).unwrap(), metrics, budget }
    }

    fn address(&self) -> SocketAddr {
        self.workers.addresses()[0]
    }

    /// Ends once nothing waits any more: what it lets go of is not the next one's.
    fn end(self) {
        let begun = Instant::now();
        while self.waiting() > 0 {
            assert!(begun.elapsed() < PATIENCE, "queries that wait without end");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.workers.stop_reading();
        assert!(self.workers.drain(PATIENCE));
        self.workers.join();
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
    let server = Server::start(silent.local_addr().unwrap().port(), "prefer_udp", "cache 30");
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(server.address()).unwrap();
    let over_udp = server.octets_each(|number| assert!(client.send(&query(number)).is_ok()));
    eprintln!("UDP to UDP: {over_udp} octets each");
    server.end();

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
    let server = Server::start(port, "force_tcp", "cache 30");
    client.connect(server.address()).unwrap();
    let over_tcp = server.octets_each(|number| assert!(client.send(&query(number)).is_ok()));
    eprintln!("UDP to TCP: {over_tcp} octets each");
    let begun = Instant::now();
    while accepted.load(Ordering::Relaxed) < CONNECTIONS {
        assert!(begun.elapsed() < PATIENCE, "fewer connections than there may be");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.end();
    assert!(over_udp <= reckoned(), "{over_udp} octets, not {}", reckoned());
    assert!(over_tcp <= reckoned(), "{over_tcp} octets, not {}", reckoned());
}

/// A record of the name that was asked for, of a type, with `ttl` seconds.
fn record(rtype: RecordType, ttl: u8, rdata: &[u8]) -> Vec<u8> {
    let head = [b"\xc0\x0c", &rtype.0.to_be_bytes()[..], b"\0\x01\0\0\0", &[ttl]].concat();
    let length = u16::try_from(rdata.len()).unwrap().to_be_bytes();
    [&head, &length[..], rdata].concat()
}

/// An upstream over TCP that answers the first question with these records in the answer or, where the first is an
/// SOA, the authority section, and then no more; its port.
fn answering_once(records: Vec<Vec<u8>>) -> u16 {
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = upstream.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut connections: Vec<TcpStream> = Vec::new();
        for mut connection in upstream.incoming().flatten().take(1000) {
            if connections.is_empty() {
                let mut response = read_framed(&mut connection);
                (response[2], response[3]) = (0x81, 0x80);
                let is_denial = records[0][2..4] == RecordType::SOA.0.to_be_bytes();
                response[if is_denial { 9 } else { 7 }] = u8::try_from(records.len()).unwrap();
                response.extend(records.concat());
                connection.write_all(&framed(&response)).unwrap();
            }
            connections.push(connection);
        }
    });
    port
}

/// Records of some 40 KiB together.
fn long(ttl: u8) -> Vec<Vec<u8>> {
    vec![record(RecordType::TXT, ttl, &[&[255][..], &[b'x'; 255]].concat()); 160]
}

/// A client of `server` that has asked for the records once, over TCP.
fn asked_once(server: &Server, rtype: RecordType) -> (UdpSocket, Vec<u8>) {
    let question = messages::query("one.storm.test", rtype, 7);
    let mut first = TcpStream::connect(server.address()).unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    first.write_all(&framed(&question)).unwrap();
    read_framed(&mut first);
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(server.address()).unwrap();
    (client, question)
}

#[test]
fn who_waits_for_an_expired_answer_to_be_verified_has_no_copy_of_it() {
    let _alone = COUNTS.lock();
    let cache = "cache {\nsuccess 9984 3600 1\nserve_stale 1h verify\n}";
    let server = Server::start(answering_once(long(1)), "force_tcp\nmax_fails 0", cache);
    let (client, question) = asked_once(&server, RecordType::TXT);
    std::thread::sleep(EXPIRED);
    let each = server.octets_each(|_| assert!(client.send(&question).is_ok()));
    eprintln!("verifying: {each} octets each");
    server.end();
    assert!(each <= reckoned(), "{each} octets, not {}", reckoned());
}

#[test]
fn little_is_left_of_those_that_waited_no_longer_and_followed_anothers_question() {
    let _alone = COUNTS.lock();
    let cache = "cache {\nsuccess 9984 3600 1\nserve_stale 1h verify 10ms\n}";
    let forward = "force_tcp\nmax_fails 0\nread_timeout 10s";
    let server = Server::start(answering_once(long(1)), forward, cache);
    let (client, question) = asked_once(&server, RecordType::TXT);
    std::thread::sleep(EXPIRED);
    let before = LIVE.load(Ordering::Relaxed);
    for _ in (0..QUERIES).step_by(AT_A_TIME) {
        for _ in 0..AT_A_TIME {
            client.send(&question).unwrap();
        }
        for _ in 0..AT_A_TIME {
            client.recv(&mut [0; 512]).unwrap();
        }
    }
    // The last replies have come before the worker has let go of what they were made of.
    let begun = Instant::now();
    let mut each = usize::MAX;
    while each > reckoned() / 4 && begun.elapsed() < AT_ONCE {
        std::thread::sleep(Duration::from_millis(10));
        each = LIVE.load(Ordering::Relaxed).saturating_sub(before) / QUERIES;
    }
    eprintln!("left behind: {each} octets each");
    server.end();
    assert!(each <= reckoned() / 4, "{each} octets, of {}", reckoned());
}

#[test]
fn a_response_that_waits_for_the_answer_to_a_further_question_is_counted() {
    let _alone = COUNTS.lock();
    let above = "cache 30 {\nservfail 0\n}\ndns64 {\nallow_ipv4\n}";
    let soa = b"\0\0\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x1e";
    let records = [vec![record(RecordType::SOA, 30, soa)], long(30)].concat();
    let server = Server::start(answering_once(records), "force_tcp\nmax_fails 0", above);
    let (client, question) = asked_once(&server, RecordType::AAAA);
    let each = server.octets_each(|_| assert!(client.send(&question).is_ok()));
    let counted = server.budget.waiting.used() as usize / QUERIES;
    eprintln!("with a response in hand: {each} octets each, {counted} counted");
    server.end();
    assert!(each > 40_000 && each <= counted, "{each} octets, {counted} counted");
}
