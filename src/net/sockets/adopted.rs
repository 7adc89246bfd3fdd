//! Sockets that come from elsewhere, or go there: a predecessor's, a successor's, the service manager's.
//!
//! Owns who keeps them and how they are spread over workers. One that is not what the Corefile listens at
//! is refused.

use super::{Address, Bound, keep_datagrams, listening, open, prepare, system};
use crate::corefile::KeyTransport;
use crate::net::found::socket_number;
use socket2::{SockRef, Type};
use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

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
    ///
    /// # Errors
    ///
    /// The kernel's: the process has no descriptor left.
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

    pub(in crate::net) fn address(&self) -> Address {
        Address { transport: self.transport, host: self.host.clone(), port: self.port, h3: None }
    }
}

/// A second descriptor for every socket of `sets`, address by address. QUIC and HTTP/3
/// are left out: their connections are state of the process that accepted them. So is an address for which there are
/// no more descriptors.
pub(in crate::net) fn duplicates(sets: &[Vec<Bound>]) -> Vec<(SocketAddr, HandedSockets)> {
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
pub(in crate::net) fn adopt(handed: HandedSockets, copies: usize) -> Result<Vec<Bound>, String> {
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
