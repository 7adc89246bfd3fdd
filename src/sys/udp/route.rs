//! The way of a datagram's reply: whose it is, and from which of our addresses.
//!
//! Owns the kernel's form of socket addresses. Makes no system call.
#![allow(unsafe_code)]

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Where a datagram came from and which of our addresses it was sent to: what its reply needs.
#[derive(Clone, Copy)]
pub struct Route {
    /// A `sockaddr_in6`, or a `sockaddr_in` in its first 16 octets.
    pub(super) peer: libc::sockaddr_in6,
    pub(super) length: u8,
    pub(super) local: Option<IpAddr>,
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

    /// Whether what goes along both may go as one: the same client, from the same address.
    pub(super) fn is_same(&self, other: &Route) -> bool {
        let (one, two) = (&self.peer, &other.peer);
        one.sin6_port == two.sin6_port
            && one.sin6_flowinfo == two.sin6_flowinfo
            && one.sin6_family == two.sin6_family
            && self.local == other.local
            // A sockaddr_in ends before these; what stands there is another's.
            && (i32::from(one.sin6_family) == libc::AF_INET
                || (one.sin6_addr.s6_addr == two.sin6_addr.s6_addr
                    && one.sin6_scope_id == two.sin6_scope_id))
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

pub(super) fn no_name() -> libc::sockaddr_in6 {
    // SAFETY: all fields are integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
