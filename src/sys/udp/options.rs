//! What the kernel shall do for a UDP socket: how much it keeps, and whether it tells where a datagram was
//! sent to.
//!
//! Owns socket options alone; never reads or sends.

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{
    Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBuf, RcvBufForce, UdpGroSegment,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Has the kernel keep up to `octets` of datagrams for a socket, and as much again for what it needs
/// itself: beyond `net.core.rmem_max` where the process may (SO_RCVBUFFORCE, socket(7), CAP_NET_ADMIN), else
/// up to that. Best effort.
pub fn keep_datagrams(socket: BorrowedFd<'_>, octets: usize) {
    if setsockopt(&socket, RcvBufForce, &octets).is_err() {
        let _ = setsockopt(&socket, RcvBuf, &octets);
    }
}

/// Has the kernel tell with each datagram which address it was sent to (IP_PKTINFO, RFC 3542 §6.1).
/// For sockets that listen on all addresses, of the family of `at`.
///
/// # Errors
///
/// The kernel's: it does not know the option.
pub fn tell_destination(socket: BorrowedFd<'_>, at: IpAddr) -> io::Result<()> {
    match at {
        IpAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
        IpAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
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
