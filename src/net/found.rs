//! Sockets that somebody else opened for this process, of which nobody says what they are for.
//!
//! Owns the look at what each one is: type, protocol and the address that it is bound to. What it was
//! called is for lines alone. Never reads one.

use super::sockets::{Address, HandedSockets, Keeper};
use crate::corefile::KeyTransport;
use crate::engine::Snapshot;
use socket2::{Protocol, SockRef, Type};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A socket that can serve, and where.
#[derive(Debug)]
pub struct Found {
    /// What it was called by whoever gave it.
    pub name: String,
    /// The address that it is bound to.
    pub local: SocketAddr,
    /// It.
    pub socket: FoundSocket,
}

/// The two kinds that are of use.
#[derive(Debug)]
pub enum FoundSocket {
    /// Listens for TCP.
    Stream(TcpListener),
    /// Takes UDP from everybody.
    Datagrams(UdpSocket),
}

impl Found {
    /// Looks at a descriptor. The error says why it cannot serve; it is closed then.
    pub fn recognize(name: String, descriptor: OwnedFd) -> Result<Found, &'static str> {
        let socket = SockRef::from(&descriptor);
        let Ok(kind) = socket.r#type() else { return Err("it is no socket") };
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        let local = local.ok_or("it is a socket of another family than IPv4 and IPv6")?;
        if local.port() == 0 {
            return Err("it is bound to no port");
        }
        // IPv4 would be answered by nobody.
        if local.is_ipv6() && local.ip().is_unspecified() && socket.only_v6().unwrap_or(false) {
            return Err("it takes IPv6 alone at all addresses (a socket unit: BindIPv6Only=both)");
        }
        let protocol = socket.protocol().ok().flatten();
        let is_stream = kind == Type::STREAM && protocol == Some(Protocol::TCP);
        let is_datagrams = kind == Type::DGRAM && protocol == Some(Protocol::UDP);
        match (is_stream, is_datagrams) {
            (true, _) if socket.is_listener().unwrap_or(false) => {
                Ok(Found { name, local, socket: FoundSocket::Stream(descriptor.into()) })
            }
            (true, _) => Err("it does not listen (a socket unit: Accept=no)"),
            (_, true) if socket.peer_addr().is_err() => {
                Ok(Found { name, local, socket: FoundSocket::Datagrams(descriptor.into()) })
            }
            (_, true) => Err("it is connected"),
            _ => Err("it is of another protocol than TCP and UDP"),
        }
    }

    /// The kernel's number of the socket, the same for all of its descriptors; `None` where the kernel
    /// does not tell.
    pub fn number(&self) -> Option<u64> {
        socket_number(match &self.socket {
            FoundSocket::Stream(socket) => socket.as_fd(),
            FoundSocket::Datagrams(socket) => socket.as_fd(),
        })
    }

    /// How lines call it: `UDP 127.0.0.1:53`.
    pub fn shown(&self) -> String {
        match self.socket {
            FoundSocket::Stream(_) => format!("TCP {}", self.local),
            FoundSocket::Datagrams(_) => format!("UDP {}", self.local),
        }
    }

    fn is_for(&self, address: &Address, at: SocketAddr) -> bool {
        let is_wanted = match self.socket {
            FoundSocket::Stream(_) => true,
            FoundSocket::Datagrams(_) => address.has_udp(),
        };
        is_wanted && self.local == at
    }
}

/// The kernel's number of a socket, the same for all of its descriptors.
pub fn socket_number(socket: BorrowedFd<'_>) -> Option<u64> {
    SockRef::from(&socket).cookie().ok()
}

/// Takes the sockets out of `found` that `snapshot` listens at, by its addresses. Those of QUIC and
/// HTTP/3 stay: each process opens its own.
pub fn take_wanted(found: &mut Vec<Found>, snapshot: &Snapshot) -> Vec<HandedSockets> {
    let mut taken = Vec::new();
    for server in &snapshot.servers {
        let address = Address::of(server);
        if address.transport == KeyTransport::Quic || address.h3.is_some() {
            continue;
        }
        // What has no address now is told of when it is bound.
        let candidates = address.candidates().unwrap_or_default();
        let is_there = |at: &&SocketAddr| found.iter().any(|one| one.is_for(&address, **at));
        let Some(&at) = candidates.iter().find(is_there) else { continue };
        let Address { transport, host, port, .. } = address.clone();
        let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
        for one in found.extract_if(.., |one| one.is_for(&address, at)) {
            match one.socket {
                FoundSocket::Stream(socket) => streams.push(socket),
                FoundSocket::Datagrams(socket) => datagrams.push(socket),
            }
        }
        let keeper = Keeper::Manager;
        taken.push(HandedSockets { transport, host, port, streams, datagrams, keeper });
    }
    taken
}
