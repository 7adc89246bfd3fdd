//! Batched UDP: many datagrams with one system call, each with the address it was sent to.
//!
//! Owns the buffers that the kernel writes into and the layout of its control messages. Never
//! waits: both calls are for a socket that is ready, and return at once.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Asked of the kernel while there is little traffic: preparing a place costs, too.
const FEW: usize = 8;

/// Octets of control message per datagram: one `in6_pktinfo` with its header is 40.
const CONTROL: usize = 64;

/// Room for control messages, aligned as the kernel lays them out.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Where a datagram came from and which of our addresses it was sent to: what its reply needs.
#[derive(Clone, Copy)]
pub struct Route {
    /// A `sockaddr_in6`, or a `sockaddr_in` in its first 16 octets.
    peer: libc::sockaddr_in6,
    length: u8,
    local: Option<IpAddr>,
}

impl Route {
    /// A route to `peer` from whatever address the kernel chooses.
    pub fn to(peer: SocketAddr) -> Route {
        let mut name = no_name();
        name.sin6_port = peer.port().to_be();
        let length = match peer {
            SocketAddr::V4(v4) => {
                name.sin6_family = libc::AF_INET as libc::sa_family_t;
                name.sin6_flowinfo = u32::from_ne_bytes(v4.ip().octets());
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.sin6_flowinfo = v6.flowinfo();
                name.sin6_addr.s6_addr = v6.ip().octets();
                name.sin6_scope_id = v6.scope_id();
                size_of::<libc::sockaddr_in6>()
            }
        };
        Route { peer: name, length: length as u8, local: None }
    }

    /// The sender. An IPv4 sender on an IPv6 socket is shown as IPv4.
    pub fn peer(&self) -> SocketAddr {
        let port = u16::from_be(self.peer.sin6_port);
        if i32::from(self.peer.sin6_family) == libc::AF_INET {
            // The address of a sockaddr_in lies where a sockaddr_in6 has its flow label.
            let octets = self.peer.sin6_flowinfo.to_ne_bytes();
            return SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(octets), port));
        }
        let address = Ipv6Addr::from(self.peer.sin6_addr.s6_addr);
        match address.to_ipv4_mapped() {
            Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, port)),
            None => {
                let scope = self.peer.sin6_scope_id;
                SocketAddr::V6(SocketAddrV6::new(address, port, self.peer.sin6_flowinfo, scope))
            }
        }
    }

    /// The address the datagram was sent to, when the kernel told.
    pub fn local(&self) -> Option<IpAddr> {
        self.local.map(|address| address.to_canonical())
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("peer", &self.peer()).field("local", &self.local()).finish()
    }
}

/// One received datagram.
#[derive(Debug)]
pub struct Datagram<'i> {
    /// Its content, cut at the inbox's octets.
    pub bytes: &'i [u8],
    /// Whence and to where.
    pub route: Route,
}

/// Buffers for a batch of datagrams. One serves all sockets of a thread.
pub struct Inbox {
    octets: usize,
    asked: usize,
    received: usize,
    with_destination: bool,
    buffers: Box<[u8]>,
    names: Box<[libc::sockaddr_in6]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Inbox {
    /// Room for `slots` datagrams of at most `octets` octets each; both at least 1.
    pub fn new(slots: usize, octets: usize) -> Inbox {
        let slots = slots.max(1);
        Inbox {
            octets,
            asked: FEW.min(slots),
            received: 0,
            with_destination: false,
            buffers: vec![0; slots * octets].into_boxed_slice(),
            names: vec![no_name(); slots].into_boxed_slice(),
            controls: vec![Control([0; CONTROL]); slots].into_boxed_slice(),
            iovecs: vec![no_iovec(); slots].into_boxed_slice(),
            headers: vec![no_header(); slots].into_boxed_slice(),
        }
    }

    /// Receives what has arrived. `with_destination` for sockets that [`tell_destination`] was
    /// called on. Returns true when the socket was emptied.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, with_destination: bool) -> io::Result<bool> {
        self.received = 0;
        self.with_destination = with_destination;
        let asked = self.asked;
        let buffers = self.buffers.as_mut_ptr();
        for slot in 0..asked {
            self.iovecs[slot] = libc::iovec {
                // SAFETY: slot < slots, so the offset lies inside the slots * octets allocation.
                iov_base: unsafe { buffers.add(slot * self.octets) }.cast(),
                iov_len: self.octets,
            };
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_name = (&raw mut self.names[slot]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[slot];
            header.msg_iovlen = 1;
            header.msg_flags = 0;
            if with_destination {
                header.msg_control = (&raw mut self.controls[slot]).cast();
                header.msg_controllen = CONTROL as _;
            } else {
                header.msg_control = std::ptr::null_mut();
                header.msg_controllen = 0;
            }
        }
        // SAFETY: the first `asked` headers were just filled with pointers into this struct's own
        // allocations, which live and stay in place for the call; the lengths given are theirs;
        // the descriptor is open for as long as it is borrowed.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                asked as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        self.received = count as usize;
        let emptied = self.received < asked;
        self.asked = if emptied { FEW.min(self.headers.len()) } else { self.headers.len() };
        Ok(emptied)
    }

    /// How many datagrams the last batch has.
    pub fn count(&self) -> usize {
        self.received
    }

    /// A datagram of the last batch; `slot` below [`Inbox::count`].
    pub fn datagram(&self, slot: usize) -> Datagram<'_> {
        debug_assert!(slot < self.received);
        let header = &self.headers[slot];
        let length = (header.msg_len as usize).min(self.octets);
        let start = slot * self.octets;
        Datagram {
            bytes: &self.buffers[start..start + length],
            route: Route {
                peer: self.names[slot],
                length: header.msg_hdr.msg_namelen.min(size_of::<libc::sockaddr_in6>() as u32)
                    as u8,
                local: if self.with_destination { destination(&header.msg_hdr) } else { None },
            },
        }
    }
}

/// What became of the messages given to [`Outbox::send`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Handed to the kernel.
    pub sent: usize,
    /// Refused by it: its buffer was full, or there is no way to the client. They are gone.
    pub failed: usize,
}

/// What a batched send needs beside the messages. One serves all sockets of a thread.
pub struct Outbox {
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Outbox {
    /// For at most `slots` messages a system call.
    pub fn new(slots: usize) -> Outbox {
        let slots = slots.max(1);
        Outbox {
            controls: vec![Control([0; CONTROL]); slots].into_boxed_slice(),
            iovecs: vec![no_iovec(); slots].into_boxed_slice(),
            headers: vec![no_header(); slots].into_boxed_slice(),
        }
    }

    /// Sends every message along its route. Never blocks.
    pub fn send<'m>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl IntoIterator<Item = (&'m [u8], &'m Route)>,
    ) -> Sent {
        let mut total = Sent::default();
        let mut filled = 0;
        for (bytes, route) in messages {
            self.fill(filled, bytes, route);
            filled += 1;
            if filled == self.headers.len() {
                self.flush(socket, filled, &mut total);
                filled = 0;
            }
        }
        self.flush(socket, filled, &mut total);
        total
    }

    fn fill(&mut self, slot: usize, bytes: &[u8], route: &Route) {
        // The kernel only reads through these pointers; the types are mutable for recvmsg's sake.
        self.iovecs[slot] =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let control = (&raw mut self.controls[slot]).cast();
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_name = (&raw const route.peer).cast_mut().cast();
        header.msg_namelen = libc::socklen_t::from(route.length);
        header.msg_iov = &raw mut self.iovecs[slot];
        header.msg_iovlen = 1;
        header.msg_flags = 0;
        header.msg_control = std::ptr::null_mut();
        header.msg_controllen = 0;
        let Some(source) = route.local else { return };
        if i32::from(route.peer.sin6_family) == libc::AF_INET {
            let IpAddr::V4(source) = source.to_canonical() else { return };
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: address,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put_control(header, control, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        } else {
            let source = match source {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                ipi6_ifindex: 0,
            };
            put_control(header, control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }

    fn flush(&mut self, socket: BorrowedFd<'_>, filled: usize, total: &mut Sent) {
        let mut done = 0;
        while done < filled {
            let left = &mut self.headers[done..filled];
            // SAFETY: every header in `left` was filled since the caller of `send` lent the bytes
            // and routes it points to, and they are still lent; iovecs and controls are this
            // struct's own, in place for the call.
            let count = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    left.as_mut_ptr(),
                    left.len() as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if count > 0 {
                done += count as usize;
                total.sent += count as usize;
                continue;
            }
            if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
                total.failed += filled - done;
                return;
            }
            // The error is the first message's alone: no route, not permitted, too big.
            done += 1;
            total.failed += 1;
        }
    }
}

/// Has the kernel tell with each datagram which address it was sent to (IP_PKTINFO, RFC 3542 §6.1).
/// For sockets that listen on all addresses.
pub fn tell_destination(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let (level, option) = match ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int; the pointer and the length are `on`'s.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn put_control<T>(
    header: &mut libc::msghdr,
    room: *mut libc::c_void,
    level: libc::c_int,
    kind: libc::c_int,
    content: T,
) {
    header.msg_control = room;
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: pure arithmetic.
    let (space, length) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size)) };
    debug_assert!(space as usize <= CONTROL);
    header.msg_controllen = space as _;
    // SAFETY: `room` points to CONTROL octets, aligned for a cmsghdr, and `space` is at most
    // CONTROL: header and content fit. CMSG_FIRSTHDR is not null for a length of `space`.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        (*first).cmsg_level = level;
        (*first).cmsg_type = kind;
        (*first).cmsg_len = length as _;
        libc::CMSG_DATA(first).cast::<T>().write_unaligned(content);
    }
}

fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: msg_control and msg_controllen are as the kernel left them after recvmmsg: a
    // well-formed chain inside the Control of this slot, which is alive and aligned. The macros
    // walk within that length; the content of each kind is read by its own type and size.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while !at.is_null() {
            match ((*at).cmsg_level, (*at).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(at).cast::<libc::in_pktinfo>().read_unaligned();
                    let octets = info.ipi_spec_dst.s_addr.to_ne_bytes();
                    return Some(IpAddr::V4(Ipv4Addr::from(octets)));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(at).cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                _ => at = libc::CMSG_NXTHDR(header, at),
            }
        }
    }
    None
}

fn no_name() -> libc::sockaddr_in6 {
    // SAFETY: all fields are integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn no_iovec() -> libc::iovec {
    libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }
}

fn no_header() -> libc::mmsghdr {
    // SAFETY: integers and pointers, for which zero and null are values.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    /// Sends `questions` datagrams to `target`, has each echoed along its route, and returns the
    /// addresses that the echoes came from.
    fn echoed(
        server: &UdpSocket,
        target: &str,
        with_destination: bool,
        questions: u8,
    ) -> Vec<SocketAddr> {
        let mut inbox = Inbox::new(64, 512);
        let mut outbox = Outbox::new(4);
        let any = if target.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let client = UdpSocket::bind(any).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        for number in 0..questions {
            client.send_to(&[number; 20], target).unwrap();
        }
        let mut seen = Vec::new();
        let mut answered = 0;
        while answered < questions {
            match inbox.receive(server.as_fd(), with_destination) {
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                Ok(_) => {
                    let batch: Vec<Datagram<'_>> =
                        (0..inbox.count()).map(|slot| inbox.datagram(slot)).collect();
                    for datagram in &batch {
                        assert_eq!(datagram.bytes, [datagram.bytes[0]; 20]);
                        assert_eq!(
                            datagram.route.peer().port(),
                            client.local_addr().unwrap().port()
                        );
                    }
                    let sent = outbox.send(
                        server.as_fd(),
                        batch.iter().map(|datagram| (datagram.bytes, &datagram.route)),
                    );
                    assert_eq!(sent, Sent { sent: batch.len(), failed: 0 });
                    answered += batch.len() as u8;
                }
            }
        }
        let mut buffer = [0; 64];
        for number in 0..questions {
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..length], [number; 20]);
            seen.push(from);
        }
        seen
    }

    fn port(socket: &UdpSocket) -> u16 {
        socket.local_addr().unwrap().port()
    }

    #[test]
    fn a_batch_comes_back_whole_and_in_order() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let seen = echoed(&server, &target.to_string(), false, 150);
        assert!(seen.iter().all(|from| *from == target));
    }

    #[test]
    fn a_reply_comes_from_the_address_that_was_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        tell_destination(server.as_fd(), false).unwrap();
        let target = format!("127.0.0.99:{}", port(&server));
        assert_eq!(echoed(&server, &target, true, 1)[0].to_string(), target);
    }

    #[test]
    fn a_socket_for_both_families_replies_from_the_address_that_was_asked() {
        let Ok(server) = UdpSocket::bind("[::]:0") else { return };
        tell_destination(server.as_fd(), true).unwrap();
        let target = format!("127.0.0.98:{}", port(&server));
        assert_eq!(echoed(&server, &target, true, 3)[0].to_string(), target);
        let target = format!("[::1]:{}", port(&server));
        assert_eq!(echoed(&server, &target, true, 3)[2].to_string(), target);
    }

    #[test]
    fn a_message_that_cannot_be_sent_does_not_stop_those_behind_it() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let unreachable = Route::to("192.0.2.1:9".parse().unwrap());
        let good = Route::to(client.local_addr().unwrap());
        let messages: [(&[u8], &Route); 2] = [(b"a", &unreachable), (b"b", &good)];
        let sent = Outbox::new(8).send(server.as_fd(), messages);
        assert_eq!(sent, Sent { sent: 1, failed: 1 });
    }

    #[test]
    fn addresses_survive_the_kernel_s_layout() {
        for text in ["127.0.0.1:53", "[2001:db8::1]:5353", "[fe80::1%2]:53"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Route::to(address).peer(), address);
        }
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:53".parse().unwrap();
        assert_eq!(Route::to(mapped).peer(), "192.0.2.1:53".parse().unwrap());
    }
}
