//! Real sockets on 127.0.0.1, real directives, no upstream but the test's own.

use super::*;
use crate::corefile::{MemorySurroundings, parse};
use crate::dns::{Class, Message, Query, RecordType, Section, flags};
use crate::engine::{Snapshot, World, build};
use crate::metrics::Registry;
use crate::plugin::cache::{Kept, stores};
use crate::plugin::testing::FakeJournal;
use crate::plugin::{Budget, Carried, is_known};
use crate::sys::udp::{Outbox, Route};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod bounds;
mod further;
mod h3;
mod handing;
mod https;
#[path = "../../../tests/ports/mod.rs"]
pub(crate) mod ports;
mod reloads;
mod scarcity;
mod silence;
mod streams;
mod tls;

/// Nothing but a mistake takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A timeout, in a Corefile, that ends after every test.
const NEVER: &str = "1h";

/// A server on a port of its own.
struct Running {
    equipment: Equipment,
    workers: Workers,
}

fn snapshot(corefile: &str, metrics: &Registry) -> Arc<Snapshot> {
    let surroundings = MemorySurroundings::new()
        .with_file("/up.pem", include_str!("../upstream/testdata/up.pem"))
        .with_file("/up.key", include_str!("../upstream/testdata/up.key"))
        .with_file("/ca.pem", include_str!("../upstream/testdata/ca.pem"));
    let tree = parse(corefile.as_bytes(), "Corefile", &is_known, &surroundings).unwrap();
    let world = World {
        surroundings: &surroundings,
        metrics,
        journal: &FakeJournal::default(),
        random: &mut StdRng::seed_from_u64(1),
        default_port: 53,
        carried: Carried::default(),
    };
    Arc::new(build(&tree, world).unwrap())
}

/// A block on 127.0.0.1 that answers A questions for a.test and b.test with 192.0.2.`last`. Where `more`
/// does not say, its clients have all the time they want for their queries.
fn answering(key: &str, last: u8, more: &str) -> String {
    let timeouts = match more.contains("timeouts") {
        true => String::new(),
        false => format!("timeouts {{\nread {NEVER}\nidle {NEVER}\n}}\n"),
    };
    format!(
        "{key} {{\nbind 127.0.0.1\n{timeouts}{more}\nhosts {{\n192.0.2.{last} a.test b.test\n}}\n}}\n"
    )
}

impl Running {
    fn start(corefile: &str, workers: usize) -> Running {
        Running::start_within(corefile, workers, Arc::default())
    }

    fn start_within(corefile: &str, workers: usize, budget: Arc<Budget>) -> Running {
        Running::start_knowing(corefile, workers, budget, &[])
    }

    /// With a cache that knows some responses already.
    fn start_knowing(
        corefile: &str,
        workers: usize,
        budget: Arc<Budget>,
        known: &[Kept],
    ) -> Running {
        let equipment = Equipment {
            workers,
            clock: Clock::start(),
            metrics: Registry::new(workers),
            journal: Arc::new(FakeJournal::default()),
            budget,
            meter: Arc::new(OwnMeter),
        };
        let snapshot = snapshot(corefile, &equipment.metrics);
        for kept in known {
            let (_, store) = &stores(&snapshot.carried)[0];
            assert!(store.import(kept, equipment.clock.now().monotonic));
        }
        let workers = Workers::start(&equipment, &snapshot).unwrap();
        Running { equipment, workers }
    }

    fn publish(&self, corefile: &str) -> Result<(), ListenError> {
        self.workers.publish(&snapshot(corefile, &self.equipment.metrics))
    }

    fn address(&self) -> SocketAddr {
        self.workers.addresses()[0]
    }

    fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, name: &str) -> Option<u8> {
        let socket = self.udp();
        socket.send(&query(name, 7)).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).ok()?;
        last_octet(&buffer[..length])
    }

    fn stop(self) {
        self.workers.stop_reading();
        assert!(self.workers.drain(PATIENCE));
        self.workers.join();
    }
}

fn query(name: &str, id: u16) -> Vec<u8> {
    let mut query = Query::new(&name.parse().unwrap(), RecordType::A, Class::IN);
    query.set_id(id);
    query.wire().to_vec()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}

fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// All octets that come until the server closes the connection, in a proper way or not.
fn octets_to_its_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut octets = Vec::new();
    match stream.read_to_end(&mut octets) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            panic!("it is not closed: {error}")
        }
        _ => octets,
    }
}

/// The last octet of the first record: which server answered.
fn last_octet(message: &[u8]) -> Option<u8> {
    let message = Message::parse(message).ok()?;
    let record = message.records().find(|record| record.section == Section::Answer)?;
    message.wire()[record.rdata].last().copied()
}

fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// Forwards to an upstream that is not asked again when it takes long, as it may on a busy machine.
fn asking_once(port: u16) -> String {
    format!("forward . 127.0.0.1:{port} {{\nmax_fails 0\nmax_connect_attempts 1\n}}\n")
}

/// An upstream on 127.0.0.1 that answers when the test says so. Unless it is [`asking_once`], it is asked
/// again after two seconds.
struct Held {
    socket: UdpSocket,
    /// What was asked, and by whom.
    asked: Vec<(Vec<u8>, SocketAddr)>,
}

impl Held {
    fn start() -> Held {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Held { socket, asked: Vec::new() }
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    /// Waits for the next question.
    fn until_asked(&mut self) {
        let mut buffer = [0; 512];
        let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
        self.asked.push((buffer[..length].to_vec(), from));
    }

    /// Answers what was waited for, without records.
    fn answer(&mut self) {
        for (mut message, from) in self.asked.drain(..) {
            message[2] |= 0x80;
            self.socket.send_to(&message, from).unwrap();
        }
    }

    /// Whether there is a question that was not waited for.
    fn is_asked_more(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let is_asked = self.socket.recv_from(&mut [0; 512]).is_ok();
        self.socket.set_nonblocking(false).unwrap();
        is_asked
    }
}

/// An upstream on 127.0.0.1 that answers each datagram after `delay`, with one record; counts them.
fn upstream_saying(
    delay: Duration,
    record: &'static [u8],
) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut reply = buffer[..length].to_vec();
            reply[2] |= 0x80;
            reply[7] = 1;
            reply.extend_from_slice(record);
            let socket = socket.try_clone().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                let _ = socket.send_to(&reply, from);
            });
        }
    });
    (port, count)
}

#[test]
fn datagrams_are_answered_each_with_its_id() {
    let server = Running::start(&answering(".:0", 9, ""), 2);
    let socket = server.udp();
    for id in 0..200 {
        socket.send(&query("a.test.", id)).unwrap();
    }
    let mut seen = Vec::new();
    let mut buffer = [0; 512];
    for _ in 0..200 {
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(last_octet(&buffer[..length]), Some(9));
        seen.push(id(&buffer));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<u16>>());
    server.stop();
}

#[test]
fn each_query_of_a_train_is_answered() {
    let server = Running::start(&answering(".:0", 9, ""), 1);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let route = Route::to(server.address());
    // More than leave together, in trains of 64.
    let queries: Vec<Vec<u8>> = (0..160).map(|id| query("a.test.", id)).collect();
    Outbox::new(queries.len())
        .send(client.as_fd(), queries.len(), |place| (queries[place].as_slice(), &route));
    let mut seen = Vec::new();
    let mut buffer = [0; 512];
    for _ in 0..160 {
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(last_octet(&buffer[..length]), Some(9));
        seen.push(id(&buffer));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..160).collect::<Vec<u16>>());
    server.stop();
}

#[test]
fn a_reply_comes_from_the_address_that_was_asked_on_a_socket_for_all() {
    let server = Running::start(".:0 {\nwhoami\n}\n", 1);
    let port = server.address().port();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let target: SocketAddr = format!("127.0.0.77:{port}").parse().unwrap();
    socket.send_to(&query("a.test.", 1), target).unwrap();
    let (_, from) = socket.recv_from(&mut [0; 512]).unwrap();
    assert_eq!(from, target);
    server.stop();
}

#[test]
fn a_question_is_asked_once_however_many_wait_for_it() {
    let mut upstream = Held::start();
    let port = upstream.port();
    let corefile = format!(".:0 {{\nbind 127.0.0.1\n{}}}\n", asking_once(port));
    let server = Running::start(&corefile, 2);
    let sockets: Vec<UdpSocket> = (0..20).map(|_| server.udp()).collect();
    for (number, socket) in sockets.iter().enumerate() {
        let mut message = query("a.test.", 100 + number as u16);
        if number % 2 == 1 {
            message[13] = b'A';
        }
        socket.send(&message).unwrap();
    }
    wait_until_parked(&server, sockets.len());
    upstream.until_asked();
    upstream.answer();
    for (number, socket) in sockets.iter().enumerate() {
        let mut buffer = [0; 512];
        socket.recv(&mut buffer).unwrap();
        assert_eq!(id(&buffer), 100 + number as u16);
        let spelled = if number % 2 == 1 { b'A' } else { b'a' };
        assert_eq!(buffer[13], spelled, "each client's own capitals");
    }
    assert!(!upstream.is_asked_more());
    server.stop();
}

/// Asks once, until that is cancelled, and once more; the error says how the second one fared when it was
/// not answered by what the first one had asked.
fn join_what_was_cancelled() -> Result<(), String> {
    let begun = Instant::now();
    let mut upstream = Held::start();
    let port = upstream.port();
    let corefile = format!(".:0 {{\nbind 127.0.0.1\ncancel 1s\nforward . 127.0.0.1:{port}\n}}\n");
    let server = Running::start(&corefile, 1);
    let (first, second) = (server.udp(), server.udp());
    let mut buffer = [0; 512];
    first.send(&query("a.test.", 1)).unwrap();
    first.recv(&mut buffer).unwrap();
    assert_eq!(buffer[3] & 15, 2, "SERVFAIL");
    second.send(&query("a.test.", 2)).unwrap();
    let has_joined = || server.equipment.metrics.text().contains("nodens_queries_joined_total 1\n");
    while !has_joined() && begun.elapsed() < 2 * CANCELLED {
        std::thread::sleep(Duration::from_millis(1));
    }
    upstream.until_asked();
    upstream.answer();
    second.recv(&mut buffer).unwrap();
    let (fared, is_asked_more) = ((id(&buffer), buffer[3] & 15), upstream.is_asked_more());
    server.stop();
    match (fared, is_asked_more) {
        ((2, 0), false) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// What `cancel` says in [`join_what_was_cancelled`]. A second later the upstream is asked again, and the
/// second query is cancelled.
const CANCELLED: Duration = Duration::from_secs(1);

#[test]
fn a_query_waits_no_longer_than_cancel_says_and_who_joined_it_does() {
    let end = Instant::now() + PATIENCE;
    loop {
        let begun = Instant::now();
        let Err(fared) = join_what_was_cancelled() else { return };
        // A machine that is too busy for that second tries again.
        let was_quick = begun.elapsed() < 2 * CANCELLED;
        assert!(!was_quick && Instant::now() < end, "{fared}");
    }
}

/// Waits until so many queries wait for something.
fn wait_until_parked(server: &Running, count: usize) {
    let end = Instant::now() + PATIENCE;
    while server.workers.parked() < count {
        assert!(Instant::now() < end, "{} of {count} wait", server.workers.parked());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stops a server while a query waits over UDP and one over TCP.
fn stop_while_waiting(bind: &str) {
    let mut upstream = Held::start();
    let port = upstream.port();
    let corefile = format!(".:0 {{\n{bind}\nforward . 127.0.0.1:{port}\n}}\n");
    let server = Running::start(&corefile, 1);
    let target = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(target).unwrap();
    let mut stream = TcpStream::connect(target).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&query("a.test.", 1)).unwrap();
    stream.write_all(&framed(&query("b.test.", 2))).unwrap();
    wait_until_parked(&server, 2);
    upstream.until_asked();
    upstream.until_asked();
    server.workers.stop_reading();
    upstream.answer();
    assert!(server.workers.drain(PATIENCE));
    let mut buffer = [0; 512];
    socket.recv(&mut buffer).unwrap();
    assert_eq!(id(&buffer), 1);
    assert_ne!(u16::from_be_bytes([buffer[2], buffer[3]]) & flags::QR, 0);
    assert_eq!(id(&read_frame(&mut stream).unwrap()), 2);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    server.workers.join();
}

#[test]
fn what_waits_when_reading_stops_still_gets_its_reply() {
    stop_while_waiting("bind 127.0.0.1");
}

#[test]
fn what_waits_on_a_socket_for_all_addresses_gets_its_reply_too() {
    stop_while_waiting("errors");
}

#[test]
fn a_worker_that_leaves_gives_its_address_to_its_successor() {
    let server = Running::start(&answering(".:0", 1, ""), 1);
    let port = server.address().port();
    let next = Running::start(&answering(&format!(".:{port}"), 2, ""), 1);
    server.workers.stop_reading();
    for _ in 0..40 {
        assert_eq!(next.ask("a.test."), Some(2));
    }
    server.workers.join();
    next.stop();
}

#[test]
fn an_option_that_a_rewrite_rule_names_is_reflected_also_from_the_cache() {
    let more = "cache\nrewrite edns0 local set 0xffee 0x07";
    let server = Running::start(&answering(".:0", 9, more), 1);
    let mut asked = query("a.test.", 1);
    asked[11] = 1;
    asked.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0xff, 0xee, 0, 1, 7]);
    let socket = server.udp();
    let mut buffer = [0; 512];
    for from in ["hosts", "the cache"] {
        socket.send(&asked).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..length].ends_with(&[0xff, 0xee, 0, 1, 7]), "{from}");
    }
    server.stop();
}
