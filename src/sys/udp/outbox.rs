//! What sends a batch of datagrams with one system call, each along its route.
//!
//! What goes to one client leaves as a train (`trains`) where the kernel can cut it up. Owns the headers
//! that the kernel reads. Never receives, and never waits.
#![allow(unsafe_code)]

use super::control::{Control, put_control};
use super::trains::Trains;
use super::{Route, no_header, no_iovec};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

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
    trains: Trains,
    /// Whether the kernel takes trains, once it was asked.
    takes_trains: Option<bool>,
}

impl Outbox {
    /// For at most `slots` messages a system call, fewer than 65535.
    pub fn new(slots: usize) -> Outbox {
        let slots = slots.max(1);
        Outbox {
            controls: vec![Control::NONE; slots].into_boxed_slice(),
            iovecs: vec![no_iovec(); slots].into_boxed_slice(),
            headers: vec![no_header(); slots].into_boxed_slice(),
            trains: Trains::new(slots),
            takes_trains: None,
        }
    }

    /// Sends `count` messages, each along its route; `message` gives them by their numbers. Those to
    /// one client may change their order. Never blocks.
    pub fn send<'m>(
        &mut self,
        socket: BorrowedFd<'_>,
        count: usize,
        message: impl Fn(usize) -> (&'m [u8], &'m Route),
    ) -> Sent {
        self.send_in_parts(socket, count, message, usize::MAX, || ())
    }

    /// As [`Outbox::send`], at most `part` trains by one system call, and `between` run between two of
    /// them: dozens of trains keep a thread in the kernel for longer than others can wait.
    pub fn send_in_parts<'m>(
        &mut self,
        socket: BorrowedFd<'_>,
        count: usize,
        message: impl Fn(usize) -> (&'m [u8], &'m Route),
        part: usize,
        mut between: impl FnMut(),
    ) -> Sent {
        let mut total = Sent::default();
        if count == 1 {
            let (bytes, route) = message(0);
            let sent = usize::from(self.send_alone(socket, bytes, route));
            return Sent { sent, failed: 1 - sent };
        }
        let slots = self.headers.len();
        for start in (0..count).step_by(slots) {
            let message = |place: usize| message(start + place);
            let length = |place: usize| message(place).0.len();
            let count = slots.min(count - start);
            if count > 1 && *self.takes_trains.get_or_insert_with(|| takes_trains(socket)) {
                let hash = |place: usize| usize::from(message(place).1.peer.sin6_port);
                let is_same = |one: usize, other: usize| message(one).1.is_same(message(other).1);
                self.trains.arrange(count, length, hash, is_same);
            } else {
                self.trains.part(count, length);
            }
            self.fill(&message);
            self.flush(socket, &message, &mut total, part.max(1), &mut between);
        }
        total
    }

    /// Lays out the headers of all trains.
    fn fill<'m>(&mut self, message: &impl Fn(usize) -> (&'m [u8], &'m Route)) {
        let mut at = 0;
        for (slot, train) in self.trains.trains().iter().enumerate() {
            let begin = at;
            for &place in &self.trains.order()[begin..begin + train.count] {
                let bytes = message(place).0;
                // The kernel only reads through the pointer; its type is for recvmsg's sake.
                self.iovecs[at] = libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                };
                at += 1;
            }
            let header = &mut self.headers[slot].msg_hdr;
            address(header, &mut self.controls[slot], message(train.first).1);
            header.msg_iov = &raw mut self.iovecs[begin];
            header.msg_iovlen = train.count as _;
            if train.count > 1 {
                let room = &mut self.controls[slot];
                // No segment is longer than a datagram.
                let segment = train.segment as u16;
                put_control(header, room, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
            }
        }
    }

    fn flush<'m>(
        &mut self,
        socket: BorrowedFd<'_>,
        message: &impl Fn(usize) -> (&'m [u8], &'m Route),
        total: &mut Sent,
        part: usize,
        between: &mut impl FnMut(),
    ) {
        let filled = self.trains.trains().len();
        let (mut done, mut at) = (0, 0);
        while done < filled {
            if done > 0 {
                between();
            }
            let left = &mut self.headers[done..filled.min(done.saturating_add(part))];
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
                for train in &self.trains.trains()[done..done + count as usize] {
                    total.sent += train.count;
                    at += train.count;
                }
                done += count as usize;
                continue;
            }
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::WouldBlock {
                total.failed += self.trains.order().len() - at;
                return;
            }
            let train = self.trains.trains()[done];
            if train.count == 1 {
                // The error is this message's alone: no route, not permitted, too big.
                total.failed += 1;
            } else {
                // A device that sums nothing up takes no trains (EIO), a small MTU not this one.
                if error.raw_os_error() == Some(libc::EIO) {
                    self.takes_trains = Some(false);
                }
                let route = message(train.first).1;
                for piece in at..at + train.count {
                    let sent = self.send_one(socket, done, piece, route);
                    total.sent += usize::from(sent);
                    total.failed += usize::from(!sent);
                }
            }
            at += train.count;
            done += 1;
        }
    }

    /// Sends the only message that there is; false when it is refused.
    fn send_alone(&mut self, socket: BorrowedFd<'_>, bytes: &[u8], route: &Route) -> bool {
        if route.local.is_some() {
            // Which address it is from is said in a header alone.
            self.iovecs[0] = libc::iovec {
                // The kernel only reads through the pointer; its type is for recvmsg's sake.
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            return self.send_one(socket, 0, 0, route);
        }
        // SAFETY: the octets and the route are lent for the call, with their lengths.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT,
                (&raw const route.peer).cast(),
                libc::socklen_t::from(route.length),
            )
        };
        sent >= 0
    }

    /// Sends one message of a train by itself; false when it is refused.
    fn send_one(
        &mut self,
        socket: BorrowedFd<'_>,
        slot: usize,
        piece: usize,
        route: &Route,
    ) -> bool {
        let header = &mut self.headers[slot].msg_hdr;
        address(header, &mut self.controls[slot], route);
        header.msg_iov = &raw mut self.iovecs[piece];
        header.msg_iovlen = 1;
        // SAFETY: the header points to the lent route and to this struct's own iovec, which points to
        // lent bytes, and control; all stay in place for the call.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), header, libc::MSG_DONTWAIT) };
        sent >= 0
    }
}

/// Whether the kernel cuts up trains (Linux 4.18).
fn takes_trains(socket: BorrowedFd<'_>) -> bool {
    getsockopt(&socket, UdpGsoSegment).is_ok()
}

/// Has a header send along `route`: the client, and the address that it asked.
fn address(header: &mut libc::msghdr, room: &mut Control, route: &Route) {
    // The kernel only reads through these pointers; the types are mutable for recvmsg's sake.
    header.msg_name = (&raw const route.peer).cast_mut().cast();
    header.msg_namelen = libc::socklen_t::from(route.length);
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
        put_control(header, room, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
    } else {
        let source = match source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
            ipi6_ifindex: 0,
        };
        put_control(header, room, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Datagram, Destinations, Inbox, tell_destination};
    use super::*;
    use std::net::UdpSocket;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::fd::AsFd;
    use std::time::Duration;

    /// Nothing but a mistake takes as long.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Sends `questions` datagrams to `target`, has each echoed along its route, and returns the
    /// addresses that the echoes came from.
    fn echoed(
        server: &UdpSocket,
        target: &str,
        destinations: Destinations,
        questions: u8,
    ) -> Vec<SocketAddr> {
        let mut inbox = Inbox::new(64, 512);
        let mut outbox = Outbox::new(4);
        let any = if target.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let client = UdpSocket::bind(any).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        for number in 0..questions {
            client.send_to(&[number; 20], target).unwrap();
        }
        let mut seen = Vec::new();
        let mut answered = 0;
        while answered < questions {
            match inbox.receive(server.as_fd(), destinations) {
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
                    let sent = outbox.send(server.as_fd(), batch.len(), |place| {
                        (batch[place].bytes, &batch[place].route)
                    });
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
        let seen = echoed(&server, &target.to_string(), Destinations::Bound, 150);
        assert!(seen.iter().all(|from| *from == target));
    }

    #[test]
    fn between_two_system_calls_others_have_their_turn() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut inbox, mut outbox) = (Inbox::new(64, 512), Outbox::new(64));
        let clients: Vec<UdpSocket> =
            (0..5).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut routes = Vec::new();
        for client in &clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(b"q", server.local_addr().unwrap()).unwrap();
        }
        while routes.len() < clients.len() {
            if inbox.receive(server.as_fd(), Destinations::Bound).is_ok() {
                routes.extend((0..inbox.count()).map(|place| inbox.datagram(place).route));
            }
        }
        for (part, turns) in [(2, 2), (1, 4), (0, 4), (5, 0), (usize::MAX, 0)] {
            let mut had = 0;
            let message = |place: usize| (&b"reply"[..], &routes[place]);
            let sent =
                outbox.send_in_parts(server.as_fd(), routes.len(), message, part, || had += 1);
            assert_eq!((sent, had), (Sent { sent: 5, failed: 0 }, turns), "{part} at a time");
            for client in &clients {
                assert_eq!(client.recv(&mut [0; 16]).unwrap(), 5);
            }
        }
    }

    #[test]
    fn a_reply_comes_from_the_address_that_was_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        tell_destination(server.as_fd(), Ipv4Addr::UNSPECIFIED.into()).unwrap();
        let target = format!("127.0.0.99:{}", port(&server));
        assert_eq!(echoed(&server, &target, Destinations::Told, 1)[0].to_string(), target);
    }

    #[test]
    fn a_socket_for_both_families_replies_from_the_address_that_was_asked() {
        let server = UdpSocket::bind("[::]:0").unwrap();
        tell_destination(server.as_fd(), Ipv6Addr::UNSPECIFIED.into()).unwrap();
        let target = format!("127.0.0.98:{}", port(&server));
        assert_eq!(echoed(&server, &target, Destinations::Told, 3)[0].to_string(), target);
        let target = format!("[::1]:{}", port(&server));
        assert_eq!(echoed(&server, &target, Destinations::Told, 3)[2].to_string(), target);
    }

    #[test]
    fn a_message_that_cannot_be_sent_does_not_stop_those_behind_it() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let unreachable = Route::to("192.0.2.1:9".parse().unwrap());
        let good = Route::to(client.local_addr().unwrap());
        let messages: [(&[u8], &Route); 2] = [(b"a", &unreachable), (b"b", &good)];
        let sent = Outbox::new(8).send(server.as_fd(), 2, |place| messages[place]);
        assert_eq!(sent, Sent { sent: 1, failed: 1 });
    }

    /// Sends `count` messages to `clients` in turn; how many the outbox says it sent, and what came.
    fn sent_to(
        clients: &[UdpSocket],
        server: &UdpSocket,
        messages: &[Vec<u8>],
    ) -> (Sent, Vec<Vec<Vec<u8>>>) {
        let routes: Vec<Route> =
            clients.iter().map(|client| Route::to(client.local_addr().unwrap())).collect();
        let sent = Outbox::new(64).send(server.as_fd(), messages.len(), |place| {
            (messages[place].as_slice(), &routes[place % routes.len()])
        });
        let mut buffer = [0; 2048];
        let came = clients.iter().enumerate().map(|(number, client)| {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let mine = (number..messages.len()).step_by(clients.len());
            let mine = mine.map(|_| {
                let length = client.recv(&mut buffer).unwrap();
                buffer[..length].to_vec()
            });
            mine.collect()
        });
        (sent, came.collect())
    }

    #[test]
    fn what_goes_to_one_client_arrives_message_by_message() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(any).unwrap();
            let clients = [(); 3].map(|()| UdpSocket::bind(any).unwrap());
            let messages: Vec<Vec<u8>> = (0..150_usize)
                .map(|number| vec![number as u8; 20 + number / 3 % 4 * 400])
                .collect();
            let (sent, came) = sent_to(&clients, &server, &messages);
            assert_eq!(sent, Sent { sent: 150, failed: 0 });
            for (number, mut came) in came.into_iter().enumerate() {
                let mut mine: Vec<_> = messages.iter().skip(number).step_by(3).cloned().collect();
                came.sort();
                mine.sort();
                assert!(came == mine, "client {number} of {any}");
            }
        }
    }

    #[test]
    fn a_train_comes_from_the_address_that_was_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        tell_destination(server.as_fd(), Ipv4Addr::UNSPECIFIED.into()).unwrap();
        let target = format!("127.0.0.97:{}", port(&server));
        let seen = echoed(&server, &target, Destinations::Told, 40);
        assert!(seen.iter().all(|from| from.to_string() == target), "{seen:?}");
    }

    #[test]
    fn a_train_that_the_kernel_refuses_is_sent_message_by_message() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        // A socket that sums nothing up cannot have trains cut up.
        let off: libc::c_int = 1;
        // SAFETY: the option takes an int; the pointer and the length are `off`'s.
        let result = unsafe {
            libc::setsockopt(
                server.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NO_CHECK,
                (&raw const off).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
        let messages = [vec![1; 30], vec![2; 30], vec![3; 20]];
        let (sent, came) = sent_to(std::slice::from_ref(&client), &server, &messages);
        assert_eq!(sent, Sent { sent: 3, failed: 0 });
        assert_eq!(came[0], messages);
    }
}
