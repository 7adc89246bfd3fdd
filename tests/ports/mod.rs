//! Ports of loopback for programs that a test starts: each is one test's alone until its program ends.
//!
//! Owns a claim on each port that it gave. The kernel gives none of these to a client, nor to a socket
//! that asks for any port, as it may with one that was bound and freed again.
//!
//! A program that another test starts has, until it runs, all that this process has open: what was closed
//! meanwhile is taken for open by the kernel. So nothing is bound here to see whether a port is free, and
//! whether this process listens is read from its own descriptors.

#![allow(dead_code)] // Not every test file uses all of it.

use std::collections::HashSet;
use std::fs;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The least port that is given.
const LEAST: u16 = 10_000;

/// How many there are where clients' ports begin at the kernel's default, 32768.
const USUALLY: u16 = 32_768 - LEAST;

/// Nothing but a mistake takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What shows other tests, and other programs of tests, that a port is taken.
static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A socket of this network.
struct Known {
    port: u16,
    listens: bool,
    number: String,
}

/// All sockets of a kind: `tcp`, `udp6`.
fn known(kind: &str) -> Vec<Known> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{kind}")).unwrap_or_default();
    let sockets = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(words.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        let (state, number) = (*words.get(3)?, (*words.get(9)?).to_owned());
        let listens = state == "0A" || kind.starts_with("udp");
        Some(Known { port, listens, number })
    });
    sockets.collect()
}

/// A port that nobody has, for UDP and TCP on 127.0.0.1.
pub(crate) fn free_port() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first: Option<u16> = range.split_whitespace().next().and_then(|word| word.parse().ok());
    // Where clients may have nearly all ports, chance has to do.
    let below = first.map(|first| first.saturating_sub(LEAST)).filter(|count| *count > 1_000);
    let count = below.unwrap_or(USUALLY);
    let all = KINDS.into_iter().flat_map(known);
    let taken: HashSet<u16> = all.map(|socket| socket.port).collect();
    let start: u16 = rand::random();
    for step in 0..count {
        let port = LEAST + start.wrapping_add(step) % count;
        if taken.contains(&port) {
            continue;
        }
        let name = format!("nodens-test-port-{port}");
        let claim =
            SocketAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
        if let Ok(claim) = claim {
            CLAIMS.lock().unwrap().push(claim);
            return port;
        }
    }
    panic!("no port from {LEAST} on is free");
}

/// Every kind of socket that has a port.
const KINDS: [&str; 4] = ["tcp", "tcp6", "udp", "udp6"];

/// Whether this process listens at a port by TCP, or has a UDP socket there.
pub(crate) fn listens(port: u16) -> bool {
    let all = KINDS.into_iter().flat_map(known);
    let there: HashSet<String> = all
        .filter(|socket| socket.listens && socket.port == port)
        .map(|socket| format!("socket:[{}]", socket.number))
        .collect();
    let own = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let mut own = own.filter_map(|entry| fs::read_link(entry.path()).ok());
    own.any(|socket| there.contains(&*socket.to_string_lossy()))
}

/// This process must listen at a port no more; waits until nobody does.
pub(crate) fn is_given_up(port: u16) {
    assert!(!listens(port), "{port} is still listened at");
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < end, "somebody listens at {port}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
