//! Real sockets on 127.0.0.1, real directives, no upstream but the test's own.

use super::*;
use crate::corefile::{MemorySurroundings, parse};
use crate::dns::{Class, Message, Query, RecordType, Section};
use crate::engine::{Snapshot, World, build};
use crate::metrics::Registry;
use crate::plugin::cache::{Kept, stores};
use crate::plugin::testing::FakeJournal;
use crate::plugin::tls::{ClientCertificates, ServerTls, server_config};
use crate::plugin::{Budget, Carried, is_known};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod bounds;
mod datagrams;
mod further;
mod h3;
mod handing;
mod https;
#[path = "../../../tests/ports/mod.rs"]
pub(crate) mod ports;
mod quic;
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

/// A TLS server for up.test, which the authority of ca.pem vouches for, that speaks one of `protocols`, or
/// with none what its clients take for granted.
pub(super) fn sealing(protocols: &[&str]) -> Arc<rustls::ServerConfig> {
    let settings = ServerTls {
        certificate: include_bytes!("../upstream/testdata/up.pem").to_vec(),
        key: include_bytes!("../upstream/testdata/up.key").to_vec(),
        clients: ClientCertificates::No,
        authorities: Vec::new(),
        only_tls13: false,
    };
    let mut config = server_config(&settings).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().into()).collect();
    Arc::new(config)
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

/// Waits until so many queries wait for something.
fn wait_until_parked(server: &Running, count: usize) {
    let end = Instant::now() + PATIENCE;
    while server.workers.parked() < count {
        assert!(Instant::now() < end, "{} of {count} wait", server.workers.parked());
        std::thread::sleep(Duration::from_millis(1));
    }
}
