//! Ports of loopback for programs that a test starts: each is one test's alone until its program ends.
//!
//! Owns a claim on each port that it gave. The kernel gives none of these to a client, nor to a socket
//! that asks for any port, as it may with one that was bound and freed again.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// The least port that is given.
const LEAST: u16 = 10_000;

/// How many there are where clients' ports begin at the kernel's default, 32768.
const USUALLY: u16 = 32_768 - LEAST;

/// What shows other tests, and other programs of tests, that a port is taken.
static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port that nobody has, for UDP and TCP on 127.0.0.1.
pub(crate) fn free_port() -> u16 {
    let range =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first: Option<u16> = range.split_whitespace().next().and_then(|word| word.parse().ok());
    // Where clients may have nearly all ports, chance has to do.
    let below = first.map(|first| first.saturating_sub(LEAST)).filter(|count| *count > 1_000);
    let count = below.unwrap_or(USUALLY);
    let start: u16 = rand::random();
    for step in 0..count {
        let port = LEAST + start.wrapping_add(step) % count;
        let name = format!("nodens-test-port-{port}");
        let claim =
            SocketAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
        let is_free = || {
            UdpSocket::bind(("127.0.0.1", port)).is_ok()
                && TcpListener::bind(("127.0.0.1", port)).is_ok()
        };
        if let Ok(claim) = claim
            && is_free()
        {
            CLAIMS.lock().unwrap().push(claim);
            return port;
        }
    }
    panic!("no port from {LEAST} on is free");
}
