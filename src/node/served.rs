//! Who serves on local addresses, by the kernel's list of UDP sockets.
//!
//! Owns which of them are others'. Nodens knows its like by claims: this is how node-cache is seen.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The most octets that are read of the kernel's list of UDP sockets.
const LONGEST_LIST: u64 = 8 << 20;

/// What UDP sockets of this network namespace are bound to.
pub(super) fn addresses() -> BTreeSet<SocketAddr> {
    sockets().into_iter().map(|(address, _)| address).collect()
}

/// Those of the addresses on whose UDP port somebody listens with a socket that this process has not. None where
/// it does not see which are its own.
pub fn served_by_others(addresses: &[IpAddr], port: u16) -> Vec<IpAddr> {
    let Ok(own) = own_inodes() else { return Vec::new() };
    let others: BTreeSet<SocketAddr> = sockets()
        .into_iter()
        .filter(|(_, inode)| !own.contains(inode))
        .map(|(address, _)| address)
        .collect();
    let is_served =
        |address: &IpAddr| others.contains(&SocketAddr::new(address.to_canonical(), port));
    addresses.iter().copied().filter(is_served).collect()
}

/// The numbers of the sockets that this process has.
fn own_inodes() -> io::Result<BTreeSet<u64>> {
    let mut own = BTreeSet::new();
    for descriptor in fs::read_dir("/proc/self/fd")? {
        // Closed meanwhile is none.
        let Ok(target) = fs::read_link(descriptor?.path()) else { continue };
        let inode =
            target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        own.extend(inode.and_then(|text| text.parse::<u64>().ok()));
    }
    Ok(own)
}

/// Each UDP socket of this network namespace: what it is bound to, and its number.
fn sockets() -> Vec<(SocketAddr, u64)> {
    let mut sockets = Vec::new();
    for path in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        let mut list = String::new();
        let read =
            File::open(path).and_then(|file| file.take(LONGEST_LIST).read_to_string(&mut list));
        // Without the list nobody is seen but nodens, by its claims.
        if read.is_ok() {
            sockets.extend(list.lines().skip(1).filter_map(socket));
        }
    }
    sockets
}

/// A line of `/proc/net/udp`: the local address, words of 32 bits in the machine's order, as hex, and the port;
/// later the inode.
fn socket(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let inode = fields.nth(7)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let mut octets = [0; 16];
            for (at, part) in octets.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at * 8)?.to_ne_bytes());
            }
            IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some((SocketAddr::new(address, port), inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn the_sockets_of_this_process_are_not_others() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = socket.local_addr().unwrap();
        assert!(addresses().contains(&own));
        assert_eq!(served_by_others(&[own.ip()], own.port()), [] as [IpAddr; 0]);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_kernels_list_of_sockets_is_read() {
        let bound = |address: &str| {
            let line = format!(
                " 12: {address} 00000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 4711 2"
            );
            socket(&line).map(|(address, inode)| {
                assert_eq!(inode, 4711);
                address.to_string()
            })
        };
        assert_eq!(bound("0A14FEA9:0035").unwrap(), "169.254.20.10:53");
        assert_eq!(bound("000000FD000000000000000001000000:1F90").unwrap(), "[fd00::1]:8080");
        assert_eq!(bound("0000000000000000FFFF00000A14FEA9:0035").unwrap(), "169.254.20.10:53");
        for torn in ["0A14FEA9", "0A14FE:0035", "0A14FEAX:0035", "0A14FEA9:x"] {
            assert_eq!(bound(torn), None, "{torn}");
        }
    }
}
