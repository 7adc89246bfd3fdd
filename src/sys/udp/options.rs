//! What the kernel shall do for a UDP socket: how much it keeps, and whether it tells where a datagram was
//! sent to.
//!
//! Owns socket options alone; never reads or sends.
#![allow(unsafe_code)]

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGroSegment;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Has the kernel keep up to `octets` of datagrams for a socket, and as much again for what it needs
/// itself: beyond `net.core.rmem_max` where the process may (SO_RCVBUFFORCE, socket(7), CAP_NET_ADMIN), else
/// up to that. Best effort.
pub fn keep_datagrams(socket: BorrowedFd<'_>, octets: usize) {
    let octets = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX);
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        // SAFETY: both options take an int; the pointer and the length are `octets`'.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const octets).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 {
            return;
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

/// Has the kernel give what came together, and is of one length but for the last, as one train (UDP_GRO,
/// udp(7), since Linux 5.0). Best effort: older kernels give each datagram alone.
pub fn take_trains(socket: BorrowedFd<'_>) {
    let _ = setsockopt(&socket, UdpGroSegment, &true);
}

/// Has the kernel give each datagram alone again.
pub fn part_trains(socket: BorrowedFd<'_>) {
    let _ = setsockopt(&socket, UdpGroSegment, &false);
}
