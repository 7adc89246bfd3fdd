//! Binding the listening sockets, with errors in Go's words.
//!
//! Every worker has sockets of its own on every address (SO_REUSEPORT), so that the kernel spreads
//! clients over workers and a successor can bind before its predecessor goes.

use super::found::socket_number;
use super::h3;
use crate::corefile::{KeyTransport, system_error_text};
use crate::engine::Server;
use crate::sys::{interfaces, udp};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::HashSet;
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

/// Who has sockets beside this process, without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Nobody: they go with this process.
    Nobody,
    /// The service manager, which gave them: its next process must find them as they were.
    Manager,
}

/// All sockets of one address, on their way from one process to its successor.
#[derive(Debug)]
pub struct HandedSockets {
    /// The scheme.
    pub transport: KeyTransport,
    /// The address as the Corefile has it, `None` for all.
    pub host: Option<String>,
    /// The port as the Corefile has it.
    pub port: u16,
    /// Listening TCP sockets.
    pub streams: Vec<TcpListener>,
    /// UDP sockets.
    pub datagrams: Vec<UdpSocket>,
    /// Who keeps them.
    pub keeper: Keeper,
}

impl HandedSockets {
    /// Further descriptors of the same sockets.
    pub fn try_clone(&self) -> io::Result<HandedSockets> {
        Ok(HandedSockets {
            transport: self.transport,
            host: self.host.clone(),
            port: self.port,
            streams: self.streams.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?,
            datagrams: self
                .datagrams
                .iter()
                .map(UdpSocket::try_clone)
                .collect::<io::Result<_>>()?,
            keeper: self.keeper,
        })
    }

    /// Puts further sockets of the same address beside these.
    pub fn join(&mut self, others: HandedSockets) {
        self.streams.extend(others.streams);
        self.datagrams.extend(others.datagrams);
        if others.keeper == Keeper::Manager {
            self.keeper = Keeper::Manager;
        }
    }

    /// Whether both are of one address.
    pub fn is_beside(&self, others: &HandedSockets) -> bool {
        self.address() == others.address()
    }

    pub(super) fn address(&self) -> Address {
        Address { transport: self.transport, host: self.host.clone(), port: self.port, h3: None }
    }
}

/// A second descriptor for every socket of `sets`, address by address. QUIC and HTTP/3
/// are left out: their connections are state of the process that accepted them. So is an address for which there are
/// no more descriptors.
pub(super) fn duplicates(sets: &[Vec<Bound>]) -> Vec<(SocketAddr, HandedSockets)> {
    let Some(first) = sets.first() else { return Vec::new() };
    let whole = |at: usize| {
        let Address { transport, host, port, h3 } = sets[0][at].address.clone();
        let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
        for bound in sets.iter().filter_map(|set| set.get(at)) {
            streams.extend(bound.tcp.iter().map(TcpListener::try_clone));
            datagrams.extend(bound.udp.iter().map(UdpSocket::try_clone));
        }
        let streams: io::Result<Vec<_>> = streams.into_iter().collect();
        let datagrams: io::Result<Vec<_>> = datagrams.into_iter().collect();
        let (streams, datagrams) = match (streams, datagrams) {
            (Ok(streams), Ok(datagrams)) if transport != KeyTransport::Quic && h3.is_none() => {
                (streams, datagrams)
            }
            _ => (Vec::new(), Vec::new()),
        };
        let local = sets[0][at].local;
        let keeper = sets[0][at].keeper;
        (local, HandedSockets { transport, host, port, streams, datagrams, keeper })
    };
    (0..first.len()).map(whole).collect()
}

/// Spreads sockets that came from elsewhere over `copies` workers. Every socket is read by somebody, for
/// the kernel goes on spreading clients over all of them; where there are fewer than workers, some read
/// the same one. Where one kind is missing, it is opened. The error says what is wrong with them.
pub(super) fn adopt(handed: HandedSockets, copies: usize) -> Result<Vec<Bound>, String> {
    let address = handed.address();
    let mut candidates = address.candidates()?;
    let HandedSockets { streams, datagrams, keeper, .. } = handed;
    let (mut streams, mut datagrams) = (distinct(streams), distinct(datagrams));
    if !address.has_udp() && !datagrams.is_empty() {
        return Err("sockets of a kind that is not wanted".to_owned());
    }
    let first = match (streams.first(), datagrams.first()) {
        (Some(stream), _) => stream.local_addr(),
        (None, Some(datagrams)) => datagrams.local_addr(),
        (None, None) => return Err("no socket".to_owned()),
    };
    let local = first.map_err(|error| error.to_string())?;
    for candidate in &mut candidates {
        if candidate.port() == 0 {
            candidate.set_port(local.port());
        }
    }
    let is_right = |at: io::Result<SocketAddr>| at.is_ok_and(|at| at == local);
    if !candidates.contains(&local)
        || !streams.iter().all(|socket| is_right(socket.local_addr()) && is_listening(socket))
        || !datagrams.iter().all(|socket| is_right(socket.local_addr()) && is_free(socket))
    {
        return Err(format!("not sockets of {}", address.shown()));
    }
    let set = |error: io::Error| system("setsockopt", &error);
    for socket in &streams {
        prepare(&SockRef::from(socket), local, Type::STREAM).map_err(set)?;
    }
    for socket in &datagrams {
        prepare(&SockRef::from(socket), local, Type::DGRAM).map_err(set)?;
    }
    if streams.is_empty() {
        for _ in 0..copies {
            streams.push(listening(open(local, Type::STREAM)?)?);
        }
    }
    if datagrams.is_empty() && address.has_udp() {
        for _ in 0..copies {
            datagrams.push(open(local, Type::DGRAM)?.into());
        }
    }
    for socket in &datagrams {
        keep_datagrams(&SockRef::from(socket), datagrams.len());
    }
    let mut bound: Vec<Bound> = (0..copies)
        .map(|_| Bound {
            address: address.clone(),
            local,
            tcp: Vec::new(),
            udp: Vec::new(),
            keeper,
        })
        .collect();
    let copy = |error: io::Error| system("dup", &error);
    for number in 0..copies.max(streams.len()) {
        let socket = streams[number % streams.len()].try_clone().map_err(copy)?;
        bound[number % copies].tcp.push(socket);
    }
    for number in 0..copies.max(datagrams.len()) {
        let Some(socket) = datagrams.get(number % datagrams.len().max(1)) else { break };
        bound[number % copies].udp.push(socket.try_clone().map_err(copy)?);
    }
    Ok(bound)
}

/// One descriptor of each socket: a predecessor and the service manager may both have given it.
fn distinct<S: AsFd>(sockets: Vec<S>) -> Vec<S> {
    let mut known = HashSet::new();
    let is_new = |socket: &S| socket_number(socket.as_fd()).is_none_or(|one| known.insert(one));
    sockets.into_iter().filter(is_new).collect()
}

fn is_listening(socket: &TcpListener) -> bool {
    SockRef::from(socket).is_listener().unwrap_or(false)
}

/// Whether it takes datagrams of everybody.
fn is_free(socket: &UdpSocket) -> bool {
    SockRef::from(socket).r#type().is_ok_and(|kind| kind == Type::DGRAM)
        && socket.peer_addr().is_err()
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
        udp::tell_destination(socket.as_fd(), at.is_ipv6())?;
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
mod tests {
    use super::*;
    use crate::net::WORKERS_MOST;
    use crate::net::tests::ports::free_port;

    fn address(host: Option<&str>, port: u16) -> Address {
        Address { transport: KeyTransport::Dns, host: host.map(str::to_owned), port, h3: None }
    }

    #[test]
    fn every_spelling_of_all_addresses_is_one_socket_of_both_families() {
        let everywhere = address(None, 53).candidates().unwrap();
        assert!(everywhere[0].is_ipv6());
        for host in ["0.0.0.0", "::"] {
            assert_eq!(address(Some(host), 53).candidates().unwrap(), everywhere, "{host}");
        }
        assert_eq!(
            address(Some("127.0.0.1"), 53).candidates().unwrap(),
            ["127.0.0.1:53".parse().unwrap()]
        );
    }

    #[test]
    fn a_foreign_socket_is_told_in_go_s_words() {
        let port = free_port();
        let _foreign = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let error = bind(&address(Some("127.0.0.1"), port), 2).err().unwrap();
        assert_eq!(
            error.0,
            format!("Listen: listen tcp 127.0.0.1:{port}: bind: address already in use")
        );
        let port = free_port();
        let _foreign = std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let error = bind(&address(Some("127.0.0.1"), port), 2).err().unwrap();
        assert_eq!(
            error.0,
            format!("ListenPacket: listen udp 127.0.0.1:{port}: bind: address already in use")
        );
    }

    #[test]
    fn an_address_that_is_not_ours_is_told() {
        let error = bind(&address(Some("203.0.113.77"), 5300), 1).err().unwrap();
        assert_eq!(
            error.0,
            "Listen: listen tcp 203.0.113.77:5300: bind: cannot assign requested address"
        );
    }

    #[test]
    fn every_worker_gets_sockets_on_one_port() {
        let bound = bind(&address(Some("127.0.0.1"), 0), 3).unwrap();
        let port = bound[0].local.port();
        assert_ne!(port, 0);
        for one in &bound {
            assert_eq!(one.tcp[0].local_addr().unwrap().port(), port);
            assert_eq!(one.udp[0].local_addr().unwrap().port(), port);
        }
        assert!(bind(&address(Some("127.0.0.1"), port), 1).is_ok(), "a successor may bind");
    }

    #[test]
    fn all_addresses_are_one_socket() {
        let bound = bind(&address(None, 0), 1).unwrap();
        assert!(bound[0].local.ip().is_unspecified());
    }

    #[test]
    fn tls_without_a_certificate_is_plain_tcp_alone() {
        let plain = Address { transport: KeyTransport::Tls, ..address(Some("127.0.0.1"), 0) };
        assert!(bind(&plain, 1).unwrap()[0].udp.is_empty());
        let quic = Address { transport: KeyTransport::Quic, ..plain };
        let bound = bind(&quic, 2).unwrap();
        assert!(bound.iter().all(|one| one.tcp.is_empty() && one.udp.len() == 1));
    }

    #[test]
    fn receive_buffers_of_an_address_are_bounded_whatever_the_number_of_workers() {
        let of = |copies| {
            let bound = bind(&address(Some("127.0.0.1"), 0), copies).unwrap();
            bound.iter().map(|one| receive_buffers(&one.udp)).sum::<usize>()
        };
        // A kernel may allow less.
        let one = of(1);
        assert!(one <= 2 * RECEIVE_BUFFER, "{one}");
        assert!(one >= receive_buffers(&[UdpSocket::bind("127.0.0.1:0").unwrap()]), "{one}");
        let many = of(WORKERS_MOST);
        assert!((one..=RECEIVE_BUFFERS_MOST).contains(&many), "{many}");
    }

    fn handed(bound: Vec<Bound>) -> HandedSockets {
        let sets: Vec<Vec<Bound>> = bound.into_iter().map(|one| vec![one]).collect();
        duplicates(&sets).remove(0).1
    }

    #[test]
    fn every_handed_socket_is_read_whatever_the_number_of_workers() {
        for (before, after) in [(3, 3), (5, 2), (1, 3)] {
            let own = bind(&address(Some("127.0.0.1"), 0), before).unwrap();
            let local = own[0].local;
            let adopted = adopt(handed(own), after).unwrap();
            assert_eq!(adopted.len(), after);
            for kind in [
                adopted.iter().map(|one| one.udp.len()).collect::<Vec<_>>(),
                adopted.iter().map(|one| one.tcp.len()).collect(),
            ] {
                assert_eq!(kind.iter().sum::<usize>(), before.max(after));
                assert!(kind.iter().all(|count| *count > 0), "{kind:?}");
            }
            assert!(adopted.iter().all(|one| one.local == local));
        }
    }

    #[test]
    fn what_is_missing_of_one_kind_is_opened_and_what_came_twice_is_read_once() {
        let empty = |handed: &mut HandedSockets, kind: Type| match kind {
            Type::STREAM => handed.streams.clear(),
            _ => handed.datagrams.clear(),
        };
        for kind in [Type::STREAM, Type::DGRAM] {
            let mut half = handed(bind(&address(Some("127.0.0.1"), 0), 2).unwrap());
            empty(&mut half, kind);
            half.join(half.try_clone().unwrap());
            let adopted = adopt(half, 2).unwrap();
            for one in &adopted {
                assert_eq!((one.tcp.len(), one.udp.len()), (1, 1), "{kind:?}");
                assert_eq!(one.tcp[0].local_addr().unwrap(), one.udp[0].local_addr().unwrap());
            }
        }
    }

    #[test]
    fn sockets_that_are_not_the_address_s_are_not_adopted() {
        let mut wrong = handed(bind(&address(Some("127.0.0.1"), 0), 1).unwrap());
        wrong.host = Some("127.0.0.2".to_owned());
        assert!(adopt(wrong, 1).is_err());
        let connected = handed(bind(&address(Some("127.0.0.1"), 0), 1).unwrap());
        connected.datagrams[0].connect("127.0.0.1:9").unwrap();
        assert!(adopt(connected, 1).is_err());
        let quic = Address { transport: KeyTransport::Quic, ..address(Some("127.0.0.1"), 0) };
        assert!(adopt(handed(bind(&quic, 1).unwrap()), 1).is_err(), "QUIC is not handed on");
    }
}
