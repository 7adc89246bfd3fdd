//! Being told when a socket has something to read, and only that.
#![allow(unsafe_code)]

use super::netlink::Netlink;
use std::io;
use std::net::UdpSocket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a non-blocking socket with the current runtime for reading alone. A runtime's own UDP
/// socket also asks for writability, and is then woken for every reply that the network took.
///
/// # Errors
///
/// Outside of a runtime, or the kernel's.
pub fn readable(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: a UdpSocket owns its descriptor, returns the same one at every call, and nobody else
    // can close it while the AsyncFd owns the socket.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// Registers a non-blocking netlink socket with the current runtime for reading.
///
/// # Errors
///
/// Outside of a runtime, or the kernel's.
pub fn readable_netlink(netlink: Netlink) -> io::Result<AsyncFd<Netlink>> {
    // SAFETY: a Netlink owns its descriptor, returns the same one at every call, and nobody else
    // can close it while the AsyncFd owns the socket.
    Ok(unsafe { AsyncFd::register_with_interest(netlink, Interest::READABLE) }?)
}
