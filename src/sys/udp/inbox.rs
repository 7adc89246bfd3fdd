//! What takes in a batch of datagrams with one system call, trains whole.
//!
//! Owns the buffers that the kernel writes into. A sender that hands the kernel several messages at once
//! (UDP_SEGMENT), and a device that puts together what it received, have them arrive as one train where
//! the socket takes such ([`take_trains`](super::take_trains)): it costs one datagram's way, and is cut up
//! here. Never sends.
#![allow(unsafe_code)]

use super::control::{CONTROL, Control, destination, segment};
use super::route::no_name;
use super::{Datagram, Route, no_header, no_iovec, part_trains};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Octets of a room: 128 messages, the most of a train (UDP_MAX_SEGMENTS since Linux 6.9), of 128 octets
/// each. Memory is taken by what was written to.
const ROOM: usize = 16_384;

/// Octets between two rooms. Were they powers of two apart, their beginnings would all fall into one
/// set of a CPU's cache, and drive each other out.
const APART: usize = 64;

/// From the beginning of one room to the next one's.
const STRIDE: usize = ROOM + APART;

/// A datagram within what was received.
#[derive(Debug, Clone, Copy)]
struct Piece {
    slot: u16,
    /// Where it begins in its slot's room.
    start: u16,
    length: u16,
}

/// How the address that a datagram was sent to is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destinations {
    /// The kernel says it with each: [`tell_destination`](super::tell_destination) was called on the
    /// socket.
    Told,
    /// It is the one that the socket is bound to.
    Bound,
}

/// Buffers for a batch of datagrams. One serves all sockets of a thread.
pub struct Inbox {
    octets: usize,
    /// Slots that the last batch filled; before the first one, all: none is prepared.
    filled: usize,
    destinations: Destinations,
    pieces: Vec<Piece>,
    buffers: Box<[u8]>,
    names: Box<[libc::sockaddr_in6]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Inbox {
    /// Room for `slots` datagrams or trains, 1 to 65535, of which at most `octets` of each datagram are
    /// kept; at least 1, at most 16384.
    pub fn new(slots: usize, octets: usize) -> Inbox {
        let slots = slots.clamp(1, usize::from(u16::MAX));
        Inbox {
            octets: octets.min(ROOM),
            filled: slots,
            destinations: Destinations::Bound,
            pieces: Vec::with_capacity(slots),
            buffers: vec![0; slots * STRIDE].into_boxed_slice(),
            names: vec![no_name(); slots].into_boxed_slice(),
            controls: vec![Control::NONE; slots].into_boxed_slice(),
            iovecs: vec![no_iovec(); slots].into_boxed_slice(),
            headers: vec![no_header(); slots].into_boxed_slice(),
        }
    }

    /// Receives what has arrived. Returns true when the socket was emptied.
    ///
    /// # Errors
    ///
    /// The kernel's: `WouldBlock` when nothing has arrived.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        destinations: Destinations,
    ) -> io::Result<bool> {
        // The others are as they were prepared.
        (0..self.filled).for_each(|slot| self.prepare(slot));
        self.filled = 0;
        self.pieces.clear();
        self.destinations = destinations;
        // SAFETY: every header points into this struct's own allocations, which are never replaced and
        // stay in place for the call; the lengths given are theirs; the descriptor is open for as long as
        // it is borrowed.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        self.filled = count as usize;
        let mut is_cut = false;
        for slot in 0..self.filled {
            is_cut |= self.cut_up(slot);
        }
        if is_cut {
            // The end of a train had no room. From now on its sender's messages come one by one.
            part_trains(socket);
        }
        Ok(self.filled < self.headers.len())
    }

    /// Has a slot's header point to its room, name and control.
    fn prepare(&mut self, slot: usize) {
        let room = &mut self.buffers[slot * STRIDE..][..ROOM];
        self.iovecs[slot] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_name = (&raw mut self.names[slot]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        header.msg_iov = &raw mut self.iovecs[slot];
        header.msg_iovlen = 1;
        header.msg_flags = 0;
        header.msg_control = (&raw mut self.controls[slot]).cast();
        header.msg_controllen = CONTROL as _;
    }

    /// Notes the datagrams of a slot; true when the end of a train had no room.
    fn cut_up(&mut self, slot: usize) -> bool {
        let header = &self.headers[slot];
        let length = (header.msg_len as usize).min(ROOM);
        let piece = |start: usize, end: usize| Piece {
            slot: slot as u16,
            start: start as u16,
            length: (end - start).min(self.octets) as u16,
        };
        // SAFETY: the kernel has filled the slot; its control is this struct's own, in place.
        let segment = unsafe { segment(&header.msg_hdr) };
        let Some(segment) = segment.filter(|segment| *segment < length) else {
            self.pieces.push(piece(0, length));
            return false;
        };
        let ends = (segment..length).step_by(segment).chain([length]);
        self.pieces
            .extend(ends.scan(0, |start, end| Some(piece(std::mem::replace(start, end), end))));
        header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0
    }

    /// How many datagrams the last batch has, each of a train counted.
    pub fn count(&self) -> usize {
        self.pieces.len()
    }

    /// A datagram of the last batch; `place` below [`Inbox::count`].
    pub fn datagram(&self, place: usize) -> Datagram<'_> {
        let piece = self.pieces[place];
        let slot = usize::from(piece.slot);
        let header = &self.headers[slot].msg_hdr;
        let local = match self.destinations {
            // SAFETY: the kernel has filled the slot; its control is this struct's own, in place.
            Destinations::Told => unsafe { destination(header) },
            Destinations::Bound => None,
        };
        let start = slot * STRIDE + usize::from(piece.start);
        Datagram {
            bytes: &self.buffers[start..start + usize::from(piece.length)],
            route: Route {
                peer: self.names[slot],
                length: header.msg_namelen.min(size_of::<libc::sockaddr_in6>() as u32) as u8,
                local,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Outbox, Sent, take_trains, tell_destination};
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::os::fd::AsFd;

    #[test]
    fn what_has_arrived_is_taken_in_together_as_far_as_there_is_room() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut inbox = Inbox::new(8, 512);
        for count in [1, 3, 7, 1, 8] {
            for number in 0..count as u8 {
                client.send_to(&[number; 600], server.local_addr().unwrap()).unwrap();
            }
            let emptied = inbox.receive(server.as_fd(), Destinations::Bound).unwrap();
            assert_eq!((inbox.count(), emptied), (count, count < 8));
            for number in 0..count {
                let datagram = inbox.datagram(number);
                assert_eq!(datagram.bytes, [number as u8; 512], "cut to its room");
                assert_eq!(datagram.route.peer(), client.local_addr().unwrap());
            }
            let empty = inbox.receive(server.as_fd(), Destinations::Bound).unwrap_err();
            assert_eq!((empty.kind(), inbox.count()), (io::ErrorKind::WouldBlock, 0));
        }
    }

    /// What arrives of messages that a client hands over at once, and whether it came as trains.
    fn taken_in(server: &UdpSocket, messages: &[Vec<u8>]) -> (Vec<Vec<u8>>, bool) {
        let any = if server.local_addr().unwrap().is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let client = UdpSocket::bind(any).unwrap();
        let mut target = server.local_addr().unwrap();
        target.set_ip(client.local_addr().unwrap().ip());
        let route = Route::to(target);
        let sent = Outbox::new(messages.len())
            .send(client.as_fd(), messages.len(), |place| (messages[place].as_slice(), &route));
        assert_eq!(sent, Sent { sent: messages.len(), failed: 0 });
        let mut inbox = Inbox::new(16, 512);
        let (mut came, mut has_trains) = (Vec::new(), false);
        while inbox.receive(server.as_fd(), Destinations::Told).is_ok() {
            has_trains |= inbox.count() > 16;
            for place in 0..inbox.count() {
                let datagram = inbox.datagram(place);
                assert_eq!(datagram.route.peer(), client.local_addr().unwrap());
                assert_eq!(datagram.route.local(), Some(target.ip()));
                came.push(datagram.bytes.to_vec());
            }
        }
        (came, has_trains)
    }

    #[test]
    fn what_came_as_a_train_is_taken_in_message_by_message() {
        for any in ["0.0.0.0:0", "[::]:0"] {
            let server = UdpSocket::bind(any).unwrap();
            server.set_nonblocking(true).unwrap();
            tell_destination(server.as_fd(), server.local_addr().unwrap().ip()).unwrap();
            take_trains(server.as_fd());
            let mut messages: Vec<Vec<u8>> = (0..200_u8).map(|number| vec![number; 60]).collect();
            messages.push(vec![200; 7]);
            messages.push(vec![201; 600]);
            let (mut came, has_trains) = taken_in(&server, &messages);
            assert!(has_trains, "the kernel gives trains");
            messages[201].truncate(512);
            came.sort();
            assert!(came == messages, "{any}: {} came", came.len());
        }
    }

    #[test]
    fn a_train_longer_than_its_room_is_the_last_one_of_its_socket() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        server.set_nonblocking(true).unwrap();
        tell_destination(server.as_fd(), Ipv4Addr::UNSPECIFIED.into()).unwrap();
        take_trains(server.as_fd());
        let messages: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number; 500]).collect();
        let (came, has_trains) = taken_in(&server, &messages);
        assert!(has_trains && came.len() == 33, "{} came", came.len());
        assert!(came[..32] == messages[..32]);
        assert_eq!(came[32], messages[32][..16_384 - 32 * 500], "the rest of its room");
        let (came, _) = taken_in(&server, &messages);
        assert!(came == messages, "one by one, {} came", came.len());
    }
}
