//! `check --probe`: asks every upstream for the root's name servers, over UDP and over TCP.
//!
//! The only part of `check` that opens sockets. Bounded in upstreams and time.

use super::finding::Finding;
use super::warnings::Asked;
use crate::dns::{flags, sizes};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// The most upstreams that are asked.
const MOST_UPSTREAMS: usize = 64;

/// How long an upstream may take over each transport, all tries included.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many datagrams are sent at most: one may get lost.
const DATAGRAMS: u32 = 2;

/// An upstream and what it answers.
struct Answers {
    address: SocketAddr,
    udp: Result<(), String>,
    tcp: Result<(), String>,
}

/// Warnings about upstreams that do not answer as they are asked. Those that speak TLS, and those
/// behind an interface, are left alone.
pub(super) fn probe(asked: &[Asked<'_>]) -> Vec<Finding> {
    let mut addresses: Vec<SocketAddr> = asked.iter().filter_map(address).collect();
    addresses.sort();
    addresses.dedup();
    addresses.truncate(MOST_UPSTREAMS);
    let answers: Vec<Answers> = thread::scope(|scope| {
        let one = |address: SocketAddr| {
            let udp = scope.spawn(move || over_udp(address));
            let tcp = scope.spawn(move || over_tcp(address));
            (address, udp, tcp)
        };
        let all: Vec<_> = addresses.into_iter().map(one).collect();
        let said = |result: thread::Result<io::Result<()>>| match result {
            Ok(result) => result.map_err(|error| reason(&error)),
            Err(_) => Err("it could not be asked".to_owned()),
        };
        let answers = all.into_iter().map(|(address, udp, tcp)| Answers {
            address,
            udp: said(udp.join()),
            tcp: said(tcp.join()),
        });
        answers.collect()
    });
    let mut findings = Vec::new();
    for one in asked {
        let Some(address) = address(one) else { continue };
        let Some(answers) = answers.iter().find(|answers| answers.address == address) else {
            continue;
        };
        findings.extend(judged(one, answers));
    }
    findings
}

fn judged(asked: &Asked<'_>, answers: &Answers) -> Option<Finding> {
    let shown = &asked.upstream.text;
    match (&answers.udp, &answers.tcp) {
        (Ok(()), Ok(())) => None,
        (Err(udp), Err(tcp)) => Some(Finding::warning(
            "upstream-silent",
            asked.token,
            format!("{shown} does not answer this machine: over UDP {udp}, over TCP {tcp}"),
            "is the address right, and may this machine reach it?",
        )),
        (Ok(()), Err(tcp)) if asked.is_forced => Some(Finding::warning(
            "upstream-without-tcp",
            asked.token,
            format!(
                "{shown} answers over UDP, and not over TCP ({tcp}): `force_tcp` asks over TCP alone"
            ),
            "leave `force_tcp` out",
        )),
        (Ok(()), Err(tcp)) => Some(Finding::warning(
            "upstream-without-tcp",
            asked.token,
            format!(
                "{shown} answers over UDP, and not over TCP ({tcp}): answers that are truncated stay so"
            ),
            "allow TCP on its port 53",
        )),
        (Err(_), Ok(())) if asked.is_forced => None,
        (Err(udp), Ok(())) => Some(Finding::warning(
            "upstream-without-udp",
            asked.token,
            format!("{shown} answers over TCP, and not over UDP ({udp})"),
            "add `force_tcp`",
        )),
    }
}

/// Whom to ask; `None` for those that are left alone.
fn address(asked: &Asked<'_>) -> Option<SocketAddr> {
    let upstream = &asked.upstream;
    let port = *upstream.port.as_ref().ok().filter(|port| **port != 0)?;
    let is_plain = upstream.tls.is_none() && upstream.interface.is_none();
    is_plain.then_some(SocketAddr::new(upstream.ip, port))
}

/// `. NS IN`, recursion desired.
fn question(id: u16) -> [u8; 17] {
    let mut message = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    message[..2].copy_from_slice(&id.to_be_bytes());
    message
}

/// Whether octets are a response to the question; which one does not matter.
fn is_response(octets: &[u8], id: u16) -> bool {
    octets.len() >= sizes::HEADER
        && octets[..2] == id.to_be_bytes()
        && octets[2] & (flags::QR >> 8) as u8 != 0
}

fn over_udp(address: SocketAddr) -> io::Result<()> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    let id: u16 = rand::random();
    let mut last = io::ErrorKind::TimedOut.into();
    for _ in 0..DATAGRAMS {
        socket.send(&question(id))?;
        let end = Instant::now() + PATIENCE / DATAGRAMS;
        while let Some(left) =
            end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            socket.set_read_timeout(Some(left))?;
            let mut octets = [0; 4096];
            match socket.recv(&mut octets) {
                Ok(length) if is_response(&octets[..length], id) => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
    }
    Err(last)
}

fn over_tcp(address: SocketAddr) -> io::Result<()> {
    let id: u16 = rand::random();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let question = question(id);
    let mut framed = Vec::with_capacity(2 + question.len());
    framed.extend_from_slice(&[0, 17]);
    framed.extend_from_slice(&question);
    stream.write_all(&framed)?;
    let mut head = [0; 2 + sizes::HEADER];
    stream.read_exact(&mut head)?;
    match is_response(&head[2..], id) {
        true => Ok(()),
        false => Err(io::Error::other("what came back is no response")),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("nothing within {} s", PATIENCE.as_secs())
        }
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed without a word".to_owned(),
        _ => crate::corefile::system_error_text(error),
    }
}
