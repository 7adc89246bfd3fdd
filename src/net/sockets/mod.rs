//! Binding the listening sockets, with errors in Go's words.
//!
//! Every worker has sockets of its own on every address (SO_REUSEPORT), so that the kernel spreads
//! clients over workers and a successor can bind before its predecessor goes.

mod adopted;

use super::h3;
use crate::corefile::{KeyTransport, system_error_text};
use crate::engine::Server;
use crate::sys::{interfaces, udp};
pub use adopted::{HandedSockets, Keeper};
pub(super) use adopted::{adopt, duplicates};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::os::fd::AsFd;

/// Why an address cannot be listened on, in Go's words: `Listen: listen tcp 127.0.0.1:53: bind:
/// address already in use`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ListenError(pub String);

/// Connections that the kernel keeps for us until they are accepted, at most.
const BACKLOG: i32 = 4096;

/// Octets of datagrams that the kernel is asked to keep for a socket: what comes while a process that has
/// used up its CPU quota stands still.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The most octets that the kernel may keep for all sockets of an address together, as it counts them:
/// twice what it is asked for. `-memory-limit` leaves room for it.
pub const RECEIVE_BUFFERS_MOST: usize = 8 << 20;

/// Tries to find a port that is free for TCP and UDP when the Corefile says port 0.
const PORT_TRIES: usize = 8;

/// What a listener is known by over reloads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) transport: KeyTransport,
    pub(super) host: Option<String>,
    pub(super) port: u16,
    /// What an HTTP/3 endpoint is made with, if it is one.
    pub(super) h3: Option<h3::Identity>,
}

impl Address {
    /// The address that a server of a snapshot listens at.
    pub(super) fn of(server: &Server) -> Address {
        Address {
            transport: server.transport,
            host: server.host.clone(),
            port: server.port,
            h3: h3::Settings::of(server).map(|settings| settings.identity()),
        }
    }

    /// As Go shows it: `127.0.0.1:53`, `[::1]:53`, `:53`.
    fn shown(&self) -> String {
        match &self.host {
            Some(host) if host.contains(':') => format!("[{host}]:{}", self.port),
            Some(host) => format!("{host}:{}", self.port),
            None => format!(":{}", self.port),
        }
    }

    /// Whether its datagrams are DNS messages.
    pub(super) fn has_udp(&self) -> bool {
        self.transport == KeyTransport::Dns
    }

    /// The addresses to try, in order: all addresses means both families on one socket where the
    /// kernel can do that, else IPv4 alone. As in Go this also holds for `0.0.0.0` and `::`.
    pub(super) fn candidates(&self) -> Result<Vec<SocketAddr>, String> {
        let everywhere = vec![
            SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), self.port),
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), self.port),
        ];
        let Some(host) = &self.host else { return Ok(everywhere) };
        let (address, zone) = match host.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (host.as_str(), None),
        };
        match address.parse() {
            Ok(IpAddr::V6(v6)) if zone.is_some() => {
                let scope = zone.and_then(interfaces::index);
                let scope = scope.ok_or_else(|| "no such network interface".to_owned())?;
                Ok(vec![SocketAddr::V6(SocketAddrV6::new(v6, self.port, 0, scope))])
            }
            Ok(ip) if ip.is_unspecified() => Ok(everywhere),
            Ok(ip) => Ok(vec![SocketAddr::new(ip, self.port)]),
            Err(_) => Err(format!("lookup {host}: no such host")),
        }
    }
}

/// One worker's sockets of one address: one of each kind, or more when a predecessor with more
/// workers handed them on.
pub(super) struct Bound {
    pub(super) address: Address,
    /// The address and port really bound.
    pub(super) local: SocketAddr,
    /// Empty for QUIC and HTTP/3.
    pub(super) tcp: Vec<TcpListener>,
    pub(super) udp: Vec<UdpSocket>,
    pub(super) keeper: Keeper,
}

/// Binds `address` for `copies` workers. Nothing listens before all are bound.
pub(super) fn bind(address: &Address, copies: usize) -> Result<Vec<Bound>, ListenError> {
    let mut tries = if address.port == 0 { PORT_TRIES } else { 1 };
    loop {
        match bind_once(address, copies) {
            Err(_) if tries > 1 => tries -= 1,
            result => return result,
        }
    }
}

fn bind_once(address: &Address, copies: usize) -> Result<Vec<Bound>, ListenError> {
    let listen =
        |text: &str| ListenError(format!("Listen: listen tcp {}: {text}", address.shown()));
    let packet =
        |text: &str| ListenError(format!("ListenPacket: listen udp {}: {text}", address.shown()));
    if address.transport == KeyTransport::Quic || address.h3.is_some() {
        return bind_datagrams(address, copies).map_err(|text| packet(&text));
    }
    let candidates = address.candidates().map_err(|text| listen(&text))?;
    let (first, mut local) = open_first(&candidates, Type::STREAM).map_err(|text| listen(&text))?;
    if local.port() == 0 {
        let chosen = first.local_addr().ok().and_then(|chosen| chosen.as_socket());
        local.set_port(chosen.map_or(0, |chosen| chosen.port()));
    }
    let mut streams = vec![first];
    for _ in 1..copies {
        streams.push(open(local, Type::STREAM).map_err(|text| listen(&text))?);
    }
    let mut datagrams = Vec::new();
    if address.has_udp() {
        for _ in 0..copies {
            datagrams.push(open(local, Type::DGRAM).map_err(|text| packet(&text))?);
        }
    }
    let mut bound = Vec::with_capacity(copies);
    datagrams.iter().for_each(|socket| keep_datagrams(socket, copies));
    let mut datagrams = datagrams.into_iter();
    for stream in streams {
        let stream = listening(stream).map_err(|text| listen(&text))?;
        bound.push(Bound {
            address: address.clone(),
            local,
            tcp: vec![stream],
            udp: datagrams.next().map(Into::into).into_iter().collect(),
            keeper: Keeper::Nobody,
        });
    }
    Ok(bound)
}

/// UDP sockets alone.
fn bind_datagrams(address: &Address, copies: usize) -> Result<Vec<Bound>, String> {
    let (first, mut local) = open_first(&address.candidates()?, Type::DGRAM)?;
    if local.port() == 0 {
        let chosen = first.local_addr().ok().and_then(|chosen| chosen.as_socket());
        local.set_port(chosen.map_or(0, |chosen| chosen.port()));
    }
    let mut sockets = vec![first];
    for _ in 1..copies {
        sockets.push(open(local, Type::DGRAM)?);
    }
    sockets.iter().for_each(|socket| keep_datagrams(socket, copies));
    let bound = sockets.into_iter().map(|socket| Bound {
        address: address.clone(),
        local,
        tcp: Vec::new(),
        udp: vec![socket.into()],
        keeper: Keeper::Nobody,
    });
    Ok(bound.collect())
}

fn open_first(candidates: &[SocketAddr], kind: Type) -> Result<(Socket, SocketAddr), String> {
    let mut first_error = None;
    for candidate in candidates {
        match open(*candidate, kind) {
            Ok(socket) => return Ok((socket, *candidate)),
            Err(text) => {
                first_error.get_or_insert(text);
            }
        }
        // Only a kernel without IPv6 makes the second candidate right; a port in use is an error.
        if socket_possible(*candidate) {
            break;
        }
    }
    Err(first_error.unwrap_or_else(|| "no address".to_owned()))
}

/// Whether a socket of the candidate's family can be bound at all here.
fn socket_possible(candidate: SocketAddr) -> bool {
    let any = SocketAddr::new(candidate.ip(), 0);
    Socket::new(Domain::for_address(any), Type::DGRAM, Some(Protocol::UDP))
        .and_then(|socket| socket.bind(&any.into()))
        .is_ok()
}

fn open(at: SocketAddr, kind: Type) -> Result<Socket, String> {
    let domain = Domain::for_address(at);
    let socket = Socket::new(domain, kind, None).map_err(|error| system("socket", &error))?;
    let set = |error: io::Error| system("setsockopt", &error);
    prepare(&socket, at, kind).map_err(set)?;
    if at.is_ipv6() {
        socket.set_only_v6(!at.ip().is_unspecified()).map_err(set)?;
    }
    socket.bind(&at.into()).map_err(|error| system("bind", &error))?;
    Ok(socket)
}

fn listening(socket: Socket) -> Result<TcpListener, String> {
    socket.listen(BACKLOG).map_err(|error| system("listen", &error))?;
    Ok(socket.into())
}

/// What is set on every socket, whoever opened it.
fn prepare(socket: &Socket, at: SocketAddr, kind: Type) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    } else if at.ip().is_unspecified() {
        udp::tell_destination(socket.as_fd(), at.ip())?;
    }
    Ok(())
}

/// Makes room for what comes in a busy moment, for one of `copies` sockets of an address.
fn keep_datagrams(socket: &Socket, copies: usize) {
    let each = RECEIVE_BUFFERS_MOST / 2 / copies.max(1);
    udp::keep_datagrams(socket.as_fd(), each.min(RECEIVE_BUFFER));
}

/// The most octets that the kernel keeps for these sockets, as it counts them.
pub(super) fn receive_buffers(sockets: &[UdpSocket]) -> usize {
    sockets.iter().filter_map(|socket| SockRef::from(socket).recv_buffer_size().ok()).sum()
}

fn system(call: &str, error: &io::Error) -> String {
    format!("{call}: {}", system_error_text(error))
}

#[cfg(test)]
mod tests;
