//! Netlink sockets: requests to the kernel, its acknowledgements, dumps, and news by multicast.
//!
//! Owns the socket, its port and the numbering of requests. Knows nothing of what messages mean: links
//! and firewall tables are others' business.
//! Requests wait at most [`REPLY_TIME`]; what the kernel sends to anyone but us is not read.
#![allow(unsafe_code)]

mod dump;
mod message;

use dump::{Collected, undisturbed};
pub use message::{Attributes, Message, Refusal, Request, attributes};
use message::{acknowledgement, messages};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// How long one reply of the kernel may take.
pub const REPLY_TIME: Duration = Duration::from_secs(5);

/// Octets of one datagram from the kernel: twice its largest dump.
const DATAGRAM: usize = 64 * 1024;

/// The most messages that one dump may have: a bound on memory, far above what a node has.
pub const MOST_DUMPED: usize = 65_536;

/// The option that leaves the request out of acknowledgements (`NETLINK_CAP_ACK`).
const CAP_ACK: libc::c_int = 10;

/// The option that adds the kernel's words to refusals (`NETLINK_EXT_ACK`).
const EXT_ACK: libc::c_int = 11;

/// The part of the kernel that a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subsystem {
    /// Links, addresses, routes: `NETLINK_ROUTE`.
    Route,
    /// nftables and others: `NETLINK_NETFILTER`.
    Netfilter,
}

/// A socket to one part of the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket. Needs no privilege; most requests do.
    ///
    /// # Errors
    ///
    /// The kernel has no such family (`EPROTONOSUPPORT`), or the process no descriptor left.
    pub fn open(subsystem: Subsystem) -> io::Result<Netlink> {
        let protocol = match subsystem {
            Subsystem::Route => libc::NETLINK_ROUTE,
            Subsystem::Netfilter => libc::NETLINK_NETFILTER,
        };
        // SAFETY: no pointers; the descriptor, if any, is nobody else's.
        let descriptor = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol)
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just opened, and nothing else closes it.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let port = bind(&socket)?;
        let netlink = Netlink { socket, port, sequence: 0, buffer: vec![0; DATAGRAM] };
        netlink.wait_at_most(REPLY_TIME)?;
        // Kernels before 4.12 have neither: refusals are then told by their number alone.
        let _ = netlink.set(libc::SOL_NETLINK, CAP_ACK, &1_i32);
        let _ = netlink.set(libc::SOL_NETLINK, EXT_ACK, &1_i32);
        Ok(netlink)
    }

    /// The socket's number in its network namespace, by which the kernel names it as an owner.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// From now on the news of a multicast group (`RTNLGRP_LINK`) come in.
    ///
    /// # Errors
    ///
    /// The kernel's: there is no such group.
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &group)
    }

    /// Waits at most this long for each datagram. [`REPLY_TIME`] by default.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        let time = libc::timeval {
            tv_sec: time.as_secs() as libc::time_t,
            tv_usec: time.subsec_micros() as libc::suseconds_t,
        };
        self.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)
    }

    /// The room for what waits to be read, in octets, where it may be set. A transaction that is
    /// acknowledged or refused message by message needs much. Without `NET_ADMIN` it is
    /// `net.core.rmem_max` at most.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn make_room(&self, octets: u32) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &octets)
            .or_else(|_| self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, &octets))
    }

    /// Lets one datagram be so long. Without `NET_ADMIN` it is `net.core.wmem_max` at most.
    fn allow(&self, octets: usize) -> io::Result<()> {
        // The kernel doubles it, which is more than its own part of it.
        let octets = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX / 2);
        self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &octets)
            .or_else(|_| self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, &octets))
    }

    /// Sends a request and waits until it is done.
    ///
    /// # Errors
    ///
    /// What the kernel refused, or that it did not answer in time.
    pub fn ask(&mut self, request: Request) -> Result<(), Refusal> {
        let mut refused = self.ask_all(vec![request])?;
        refused.pop().map_or(Ok(()), |(_, refusal)| Err(refusal))
    }

    /// Sends requests in one datagram, as transactions need it, and waits for the acknowledgement
    /// of each that has one. Gives the refused ones by index; an error is the socket's own.
    ///
    /// # Errors
    ///
    /// The socket's: the datagram is longer than it may be, or no reply came in time.
    pub fn ask_all(&mut self, requests: Vec<Request>) -> io::Result<Vec<(usize, Refusal)>> {
        let first = self.sequence.wrapping_add(1);
        let count = requests.len();
        let mut octets = Vec::new();
        let mut waited_for = 0;
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            waited_for += usize::from(request.is_acknowledged);
            let request = match request.is_acknowledged {
                true => request.with_flags(libc::NLM_F_ACK as u16),
                false => request,
            };
            octets.extend_from_slice(&request.finish(self.sequence, self.port));
        }
        match self.send(&octets) {
            // A socket takes some 200 KiB at once, which are 500 rules.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.allow(octets.len())?;
                self.send(&octets)?;
            }
            sent => sent?,
        }
        let refused = self.acknowledgements(first, count, waited_for);
        self.wait_at_most(REPLY_TIME)?;
        refused
    }

    fn acknowledgements(
        &mut self,
        first: u32,
        count: usize,
        mut waited_for: usize,
    ) -> io::Result<Vec<(usize, Refusal)>> {
        let mut refused: Vec<(usize, Refusal)> = Vec::new();
        while waited_for > 0 {
            let messages = match self.receive() {
                // A transaction that failed as a whole is told of once, not for each part.
                Err(error) if !refused.is_empty() && error.kind() == io::ErrorKind::WouldBlock => {
                    break;
                }
                other => other?,
            };
            for message in messages {
                let index = message.sequence.wrapping_sub(first) as usize;
                let Some(done) = acknowledgement(&message).filter(|_| index < count) else {
                    continue;
                };
                waited_for = waited_for.saturating_sub(1);
                if let Err(refusal) = done {
                    refused.push((index, refusal));
                    // The kernel works before `send` returns: all that it says is here already.
                    self.wait_at_most(Duration::from_micros(1))?;
                }
            }
        }
        Ok(refused)
    }

    /// Sends a request for many things (`NLM_F_DUMP`) and gathers what comes, at most
    /// [`MOST_DUMPED`] messages. Where they changed meanwhile, so that some may be missing or come twice
    /// (`NLM_F_DUMP_INTR`), it asks again a few times; the last time counts.
    ///
    /// # Errors
    ///
    /// What the kernel refused, that it did not answer in time, or that there is more than
    /// [`MOST_DUMPED`].
    pub fn dump(&mut self, request: &Request) -> Result<Vec<Message>, Refusal> {
        let request = request.clone().with_flags(libc::NLM_F_DUMP as u16);
        undisturbed(|| self.collect(&request))
    }

    /// Sends a request for one thing and gives it.
    ///
    /// # Errors
    ///
    /// What the kernel refused, `ENOENT` when there is no such thing, or that it did not answer in
    /// time.
    pub fn get(&mut self, request: &Request) -> Result<Option<Message>, Refusal> {
        let request = request.clone().with_flags(libc::NLM_F_ACK as u16);
        Ok(self.collect(&request)?.messages.pop())
    }

    /// Sends a request and gathers what comes until it is done.
    fn collect(&mut self, request: &Request) -> Result<Collected, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&request.finish(sequence, self.port))?;
        let mut collected = Collected::default();
        loop {
            for message in self.receive()? {
                if message.sequence != sequence {
                    continue;
                }
                if let Some(end) = collected.take(message) {
                    return end.map(|()| collected);
                }
            }
        }
    }

    /// Receives one datagram: its messages. `ENOBUFS` means that news were lost.
    ///
    /// # Errors
    ///
    /// `ENOBUFS`: news were lost. `WouldBlock`: nothing is there, or nothing came in time.
    pub fn receive(&mut self) -> io::Result<Vec<Message>> {
        loop {
            let mut name = no_name();
            let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            // SAFETY: buffer and name are ours, of the lengths given, and live for the call.
            let received = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    libc::MSG_TRUNC,
                    (&raw mut name).cast(),
                    &raw mut length,
                )
            };
            if received < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            // Any process may send to us; only the kernel has the port 0.
            if name.nl_pid != 0 {
                continue;
            }
            let octets = self.buffer.get(..received as usize).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "a datagram longer than can be read")
            })?;
            return Ok(messages(octets));
        }
    }

    /// Reads no more than what is there: [`Netlink::receive`] then gives `WouldBlock`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        // SAFETY: no pointers; the descriptor is open as long as self.
        let flags = unsafe { libc::fcntl(self.socket.as_raw_fd(), libc::F_GETFL) };
        // SAFETY: as before.
        let set = unsafe {
            libc::fcntl(self.socket.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
        };
        if flags < 0 || set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn send(&self, octets: &[u8]) -> io::Result<()> {
        let name = no_name();
        // SAFETY: octets and name live for the call and have the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                octets.as_ptr().cast(),
                octets.len(),
                0,
                (&raw const name).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        match usize::try_from(sent) {
            Ok(sent) if sent == octets.len() => Ok(()),
            Ok(_) => Err(io::Error::other("a request was sent in part")),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: value points to size_of::<T>() octets that live for the call; the kernel reads
        // them alone, and refuses a length that is not the option's.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Binds to a port that the kernel chooses; gives it.
fn bind(socket: &OwnedFd) -> io::Result<u32> {
    let mut name = no_name();
    let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: name is a sockaddr_nl of the length given and lives for the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as before, and the kernel writes no more than the length given.
    let told =
        unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut name).cast(), &raw mut length) };
    if told < 0 { Err(io::Error::last_os_error()) } else { Ok(name.nl_pid) }
}

fn no_name() -> libc::sockaddr_nl {
    // SAFETY: a sockaddr_nl is integers alone; all zeros but for the family is the kernel's name.
    let mut name: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    name.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    name
}

#[cfg(test)]
mod tests;
