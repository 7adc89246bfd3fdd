//! Netlink sockets: requests to the kernel, its acknowledgements, dumps, and news by multicast.
//!
//! Owns the socket, its port and the numbering of requests. Knows the framing of messages and
//! attributes and nothing of what they mean: links and firewall tables are others' business.
//! Requests wait at most [`REPLY_TIME`]; what the kernel sends to anyone but us is not read.
#![allow(unsafe_code)]

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

/// Octets of a message's header, `nlmsghdr`.
const HEADER: usize = 16;

/// Octets of an attribute's header, `nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

/// The bits of an attribute's kind that are flags (nested, network byte order).
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// An attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;

/// The acknowledgement leaves the request out (`NLM_F_CAPPED`).
const CAPPED: u16 = 0x100;

/// The acknowledgement has attributes (`NLM_F_ACK_TLVS`).
const HAS_TEXT: u16 = 0x200;

/// The attribute of an acknowledgement that has the kernel's words (`NLMSGERR_ATTR_MSG`).
const TEXT: u16 = 1;

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

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Refusal {
    /// The system's error; of the kernel's number, or of the socket.
    pub error: io::Error,
    /// What the kernel said beyond the number.
    pub text: Option<String>,
}

impl Refusal {
    /// The kernel's error number, `EEXIST` and so on.
    pub fn number(&self) -> Option<i32> {
        self.error.raw_os_error()
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal { error, text: None }
    }
}

/// One request under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    octets: Vec<u8>,
    is_acknowledged: bool,
}

impl Request {
    /// A request of a kind (`RTM_NEWLINK`) with flags (`NLM_F_CREATE`); `NLM_F_REQUEST` is added.
    /// Whoever sends it adds `NLM_F_ACK` or `NLM_F_DUMP`.
    pub fn new(kind: u16, flags: u16) -> Request {
        let mut octets = vec![0; HEADER];
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        octets[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        Request { octets, is_acknowledged: true }
    }

    /// For what the kernel does not acknowledge by itself: the begin and end of an nftables batch.
    #[must_use]
    pub fn unacknowledged(mut self) -> Request {
        self.is_acknowledged = false;
        self
    }

    /// Appends the fixed part that the kind has (`ifinfomsg`, `nfgenmsg`).
    #[must_use]
    pub fn fixed(mut self, octets: &[u8]) -> Request {
        self.octets.extend_from_slice(octets);
        self.pad();
        self
    }

    /// Appends an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        self.push(kind, value);
        self
    }

    /// Appends an attribute that is a text with its final NUL.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Request {
        let mut octets = value.as_bytes().to_vec();
        octets.push(0);
        self.attribute(kind, &octets)
    }

    /// Appends an attribute that holds those that `fill` appends.
    #[must_use]
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Request) -> Request) -> Request {
        let start = self.octets.len();
        self.push(kind | NESTED, &[]);
        let mut filled = fill(self);
        let length = filled.octets.len() - start;
        // An attribute's length has sixteen bits: a longer one is our own mistake.
        debug_assert!(length <= usize::from(u16::MAX));
        filled.octets[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        filled
    }

    /// Adds flags (`NLM_F_ACK`).
    #[must_use]
    pub fn with_flags(mut self, flags: u16) -> Request {
        let all = self.flags() | flags;
        self.octets[6..8].copy_from_slice(&all.to_ne_bytes());
        self
    }

    /// The length of the request in octets.
    pub fn length(&self) -> usize {
        self.octets.len()
    }

    /// The request as it is sent, but for its length, number and sender.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.octets[6], self.octets[7]])
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let length = ATTRIBUTE_HEADER + value.len();
        debug_assert!(length <= usize::from(u16::MAX));
        self.octets.extend_from_slice(&(length as u16).to_ne_bytes());
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        self.octets.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.octets.resize(aligned(self.octets.len()), 0);
    }

    /// The whole message, numbered.
    fn finish(&self, sequence: u32, port: u32) -> Vec<u8> {
        let mut octets = self.octets.clone();
        let length = octets.len() as u32;
        octets[0..4].copy_from_slice(&length.to_ne_bytes());
        octets[8..12].copy_from_slice(&sequence.to_ne_bytes());
        octets[12..16].copy_from_slice(&port.to_ne_bytes());
        octets
    }
}

/// One message from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `RTM_NEWADDR` and so on.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The number of the request that it answers; 0 for news.
    pub sequence: u32,
    /// What follows the header: the fixed part, then attributes.
    pub payload: Vec<u8>,
}

impl Message {
    /// The attributes behind a fixed part of `fixed` octets.
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        attributes(self.payload.get(aligned(fixed)..).unwrap_or_default())
    }
}

/// The attributes in `octets`: kind without its flag bits, and value. Ends at the first that is
/// malformed.
pub fn attributes(octets: &[u8]) -> Attributes<'_> {
    Attributes { rest: octets }
}

/// The iterator of [`attributes`].
#[derive(Debug, Clone)]
pub struct Attributes<'o> {
    rest: &'o [u8],
}

impl<'o> Iterator for Attributes<'o> {
    type Item = (u16, &'o [u8]);

    fn next(&mut self) -> Option<(u16, &'o [u8])> {
        let header = self.rest.get(..ATTRIBUTE_HEADER)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !ATTRIBUTE_FLAGS;
        let value = self.rest.get(ATTRIBUTE_HEADER..length)?;
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
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
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &group)
    }

    /// Waits at most this long for each datagram. [`REPLY_TIME`] by default.
    pub fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        let time = libc::timeval {
            tv_sec: time.as_secs() as libc::time_t,
            tv_usec: time.subsec_micros() as libc::suseconds_t,
        };
        self.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)
    }

    /// The room for what waits to be read, in octets, where it may be set. A transaction that is
    /// refused message by message needs much.
    pub fn make_room(&self, octets: u32) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, &octets)
    }

    /// Sends a request and waits until it is done.
    pub fn ask(&mut self, request: Request) -> Result<(), Refusal> {
        let mut refused = self.ask_all(vec![request])?;
        refused.pop().map_or(Ok(()), |(_, refusal)| Err(refusal))
    }

    /// Sends requests in one datagram, as transactions need it, and waits for the acknowledgement
    /// of each that has one. Gives the refused ones by index; an error is the socket's own.
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
        self.send(&octets)?;
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
    /// [`MOST_DUMPED`] messages.
    pub fn dump(&mut self, request: &Request) -> Result<Vec<Message>, Refusal> {
        self.collect(&request.clone().with_flags(libc::NLM_F_DUMP as u16), true)
    }

    /// Sends a request for one thing and gives it.
    pub fn get(&mut self, request: &Request) -> Result<Option<Message>, Refusal> {
        Ok(self.collect(&request.clone().with_flags(libc::NLM_F_ACK as u16), false)?.pop())
    }

    fn collect(&mut self, request: &Request, is_dump: bool) -> Result<Vec<Message>, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&request.finish(sequence, self.port))?;
        let mut collected = Vec::new();
        loop {
            for message in self.receive()? {
                if message.sequence != sequence {
                    continue;
                }
                if i32::from(message.kind) == libc::NLMSG_DONE && is_dump {
                    return Ok(collected);
                }
                match acknowledgement(&message) {
                    Some(Ok(())) => return Ok(collected),
                    Some(Err(refusal)) => return Err(refusal),
                    None if collected.len() == MOST_DUMPED => {
                        return Err(io::Error::other("more than can be read").into());
                    }
                    None => collected.push(message),
                }
            }
        }
    }

    /// Receives one datagram: its messages. `ENOBUFS` means that news were lost.
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

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The messages of a datagram; ends at the first that is malformed.
fn messages(mut octets: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let Some((message, rest)) = split_message(octets) {
        found.push(message);
        octets = rest;
    }
    found
}

fn split_message(octets: &[u8]) -> Option<(Message, &[u8])> {
    let header = octets.get(..HEADER)?;
    let number = |at: usize| -> u32 {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let length = number(0) as usize;
    let payload = octets.get(HEADER..length)?.to_vec();
    let message = Message {
        kind: u16::from_ne_bytes([header[4], header[5]]),
        flags: u16::from_ne_bytes([header[6], header[7]]),
        sequence: number(8),
        payload,
    };
    Some((message, octets.get(aligned(length)..).unwrap_or_default()))
}

/// What an acknowledgement says; `None` for other messages.
fn acknowledgement(message: &Message) -> Option<Result<(), Refusal>> {
    let is_error = i32::from(message.kind) == libc::NLMSG_ERROR;
    let is_end = i32::from(message.kind) == libc::NLMSG_DONE;
    if !is_error && !is_end {
        return None;
    }
    let number = message
        .payload
        .get(..4)
        .map_or(0, |octets| i32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]));
    if number == 0 {
        return Some(Ok(()));
    }
    let text = (message.flags & HAS_TEXT != 0).then(|| text_of(message, is_error)).flatten();
    let error = io::Error::from_raw_os_error(number.saturating_neg());
    Some(Err(Refusal { error, text }))
}

fn text_of(message: &Message, has_request: bool) -> Option<String> {
    let request = match (has_request, message.flags & CAPPED != 0) {
        (false, _) => 0,
        (true, true) => HEADER,
        (true, false) => {
            let length = message.payload.get(4..8)?;
            u32::from_ne_bytes([length[0], length[1], length[2], length[3]]) as usize
        }
    };
    let (_, text) = message.attributes(4 + aligned(request)).find(|(kind, _)| *kind == TEXT)?;
    let text = String::from_utf8_lossy(text);
    Some(text.trim_end_matches('\0').trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct ifinfomsg` of a link by its number.
    fn link(number: i32) -> [u8; 16] {
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&number.to_ne_bytes());
        fixed
    }

    fn name_of(message: &Message) -> Option<String> {
        let mut all = message.attributes(16);
        let (_, name) = all.find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
        Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
    }

    #[test]
    fn the_loopback_link_is_among_all_links() {
        let mut netlink = Netlink::open(Subsystem::Route).unwrap();
        let links = netlink.dump(&Request::new(libc::RTM_GETLINK, 0).fixed(&link(0))).unwrap();
        assert!(links.iter().any(|link| name_of(link).as_deref() == Some("lo")), "{links:?}");
    }

    #[test]
    fn one_link_is_asked_for_by_its_number() {
        let mut netlink = Netlink::open(Subsystem::Route).unwrap();
        for _ in 0..3 {
            let request = Request::new(libc::RTM_GETLINK, 0).fixed(&link(1));
            let found = netlink.get(&request).unwrap().unwrap();
            assert_eq!(name_of(&found).as_deref(), Some("lo"));
        }
    }

    #[test]
    fn what_the_kernel_refuses_comes_with_its_number() {
        let mut netlink = Netlink::open(Subsystem::Route).unwrap();
        let request = Request::new(libc::RTM_GETLINK, 0).fixed(&link(1 << 30));
        assert_eq!(netlink.get(&request).unwrap_err().number(), Some(libc::ENODEV));
        // Refused with or without the privilege to do it.
        let request = Request::new(libc::RTM_DELLINK, 0).fixed(&link(1 << 30));
        let number = netlink.ask(request).unwrap_err().number();
        assert!([Some(libc::ENODEV), Some(libc::EPERM)].contains(&number), "{number:?}");
        // The socket is as good as before.
        assert!(netlink.get(&Request::new(libc::RTM_GETLINK, 0).fixed(&link(1))).is_ok());
    }

    #[test]
    fn attributes_nest_and_are_padded() {
        let request = Request::new(16, 0)
            .fixed(&[1, 2, 3])
            .text(3, "ab")
            .nested(18, |inner| inner.attribute(1, &[9; 5]));
        let octets = request.finish(7, 0);
        assert_eq!(octets.len() % 4, 0);
        let (message, rest) = split_message(&octets).unwrap();
        assert!(rest.is_empty());
        assert_eq!((message.kind, message.sequence), (16, 7));
        let all: Vec<_> = message.attributes(3).collect();
        assert_eq!(all[0], (3, &b"ab\0"[..]));
        assert_eq!(all[1].0, 18);
        assert_eq!(attributes(all[1].1).collect::<Vec<_>>(), [(1, &[9; 5][..])]);
    }

    #[test]
    fn malformed_messages_and_attributes_end_the_reading() {
        assert!(messages(&[1, 2, 3]).is_empty());
        let mut octets = Request::new(16, 0).fixed(&[0; 4]).finish(1, 0);
        octets[0..4].copy_from_slice(&999_u32.to_ne_bytes());
        assert!(messages(&octets).is_empty());
        octets[0..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert!(messages(&octets).is_empty());
        for broken in [&[0, 0, 1, 0][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 5]] {
            assert_eq!(attributes(broken).count(), 0, "{broken:?}");
        }
    }

    #[test]
    fn a_refusal_has_the_kernels_words() {
        let mut payload = (-libc::EOPNOTSUPP).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER]);
        let mut octets = Request::new(libc::NLMSG_ERROR as u16, CAPPED | HAS_TEXT)
            .fixed(&payload)
            .text(TEXT, "Unknown device type")
            .finish(1, 0);
        let message = messages(&octets).remove(0);
        let refusal = acknowledgement(&message).unwrap().unwrap_err();
        assert_eq!(refusal.number(), Some(libc::EOPNOTSUPP));
        assert!(refusal.to_string().ends_with("(Unknown device type)"), "{refusal}");
        // Without the flag there is no text to look for.
        octets[6..8].copy_from_slice(&CAPPED.to_ne_bytes());
        let message = messages(&octets).remove(0);
        assert_eq!(acknowledgement(&message).unwrap().unwrap_err().text, None);
    }
}
