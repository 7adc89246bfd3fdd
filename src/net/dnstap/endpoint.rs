//! Sockets towards dnstap collectors: unix, TCP, TLS; blocking, with a limit on each wait.
//!
//! Owns connecting and Go's words for what goes wrong with it.

use super::frames;
use crate::corefile::system_error_text;
use crate::net::Unverified;
use crate::plugin::dnstap::{Endpoint, Tap};
use crate::plugin::split_host_port;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// How long connecting, one read and one write may take (CoreDNS's).
const PATIENCE: Duration = Duration::from_secs(4);

/// An open stream to a collector, its handshake done.
pub(super) enum Line {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Line {
    /// Connects and agrees on the content. The error is Go's text.
    pub(super) fn open(tap: &Tap) -> Result<Line, String> {
        let endpoint = &tap.endpoint;
        let (network, address) = (endpoint.network(), endpoint.address());
        let told = |call: &str, error: &io::Error| {
            let what = words(error);
            match call {
                "" => format!("dial {network} {address}: {what}"),
                _ => format!("dial {network} {address}: {call}: {what}"),
            }
        };
        let mut line = match endpoint {
            Endpoint::Unix(path) => {
                if path.is_empty() {
                    return Err("dial unix: missing address".to_owned());
                }
                let target = SockAddr::unix(path).map_err(|error| told("connect", &error))?;
                Line::Plain(connect(Domain::UNIX, &target).map_err(|e| told("connect", &e))?)
            }
            Endpoint::Tcp(_) => Line::Plain(tcp(address, tap.send_buffer, &told)?),
            Endpoint::Tls { is_verified, .. } => {
                let socket = tcp(address, tap.send_buffer, &told)?;
                let trust = if *is_verified { Trust::SystemRoots } else { Trust::Anyone };
                Line::Tls(Box::new(secured(socket, address, trust)?))
            }
        };
        let agreed = match &mut line {
            Line::Plain(socket) => frames::open(socket),
            Line::Tls(stream) => frames::open(stream),
        };
        agreed.map_err(|error| told("", &error))?;
        Ok(line)
    }

    /// Writes whole frames. On an error nothing more can be written.
    pub(super) fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        match self {
            Line::Plain(socket) => socket.write_all(frames),
            Line::Tls(stream) => stream.write_all(frames).and_then(|()| stream.flush()),
        }
    }

    /// Whether the collector has gone: a first write would still succeed, and be lost.
    pub(super) fn is_closed(&mut self) -> bool {
        let is_open = match self {
            Line::Plain(socket) => socket.set_nonblocking(true).and_then(|()| {
                let is_open = would_block(socket.peek(&mut [MaybeUninit::uninit()]))? != Some(0);
                socket.set_nonblocking(false).map(|()| is_open)
            }),
            Line::Tls(stream) => stream.sock.set_nonblocking(true).and_then(|()| {
                let is_open = hears_no_end(stream)?;
                stream.sock.set_nonblocking(false).map(|()| is_open)
            }),
        };
        !is_open.unwrap_or(false)
    }

    /// Takes leave of the collector.
    pub(super) fn close(mut self) -> io::Result<()> {
        match &mut self {
            Line::Plain(socket) => frames::close(socket),
            Line::Tls(stream) => frames::close(stream),
        }
    }
}

/// Takes in what is there inside TLS, without waiting; false when the end is among it.
fn hears_no_end(stream: &mut StreamOwned<ClientConnection, Socket>) -> io::Result<bool> {
    while let Some(octets) = would_block(stream.conn.read_tls(&mut stream.sock))? {
        let state = stream.conn.process_new_packets().map_err(io::Error::other)?;
        if octets == 0 || state.peer_has_closed() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `None` when nothing is there yet.
fn would_block(octets: io::Result<usize>) -> io::Result<Option<usize>> {
    match octets {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        octets => octets.map(Some),
    }
}

/// Go's words.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => system_error_text(error),
    }
}

type Told<'t> = &'t dyn Fn(&str, &io::Error) -> String;

fn tcp(address: &str, send_buffer: usize, told: Told<'_>) -> Result<Socket, String> {
    if address.is_empty() {
        return Err("dial tcp: missing address".to_owned());
    }
    let (host, port) = split_host_port(address).map_err(|why| format!("dial tcp: {why}"))?;
    let number: u16 =
        port.parse().map_err(|_| format!("dial tcp: address {port}: invalid port"))?;
    let targets: Vec<SocketAddr> = match (host, number).to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(_) => return Err(format!("dial tcp: lookup {host}: no such host")),
    };
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for target in targets {
        match connect(Domain::for_address(target), &target.into()) {
            Ok(socket) => {
                // What the kernel does not grant is a smaller buffer, no more.
                let _ = socket.set_send_buffer_size(send_buffer << 20);
                return Ok(socket);
            }
            Err(error) => last = told("connect", &error),
        }
    }
    Err(last)
}

fn connect(domain: Domain, target: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.connect_timeout(target, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Whose certificate is taken.
#[derive(Clone, Copy)]
enum Trust {
    /// One that the system's roots vouch for.
    SystemRoots,
    /// Any (`skipverify`).
    Anyone,
}

fn secured(
    socket: Socket,
    address: &str,
    trust: Trust,
) -> Result<StreamOwned<ClientConnection, Socket>, String> {
    let host = split_host_port(address).map_or(address, |(host, _)| host);
    let wrong = |error: rustls::Error| format!("tls: handshake with {host}: {error}");
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("tls: not a server name: {host:?}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let config = match trust {
        Trust::SystemRoots => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            builder.with_root_certificates(store)
        }
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified::new(provider))),
    };
    let connection = ClientConnection::new(Arc::new(config.with_no_client_auth()), name);
    let mut stream = StreamOwned::new(connection.map_err(wrong)?, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match inner {
                Some(error @ rustls::Error::InvalidCertificate(_)) => {
                    format!("tls: failed to verify certificate of {host}: x509: {error}")
                }
                Some(error) => format!("tls: handshake with {host}: {error}"),
                None => format!("tls: handshake with {host}: {}", words(&error)),
            }
        })?;
    }
    Ok(stream)
}
