//! The addresses and numbers of the node's network interfaces.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use std::net::Ipv6Addr;

/// The addresses of an interface in the kernel's order, IPv6 link-local ones with `%interface`;
/// `None` when there is no such interface.
pub fn addresses(interface: &str) -> Option<Vec<String>> {
    // The kernel finds `eth0` by `eth0:1`, too: that is a label of addresses, no interface.
    if_nametoindex(interface).ok().filter(|_| !interface.contains(':'))?;
    let mut found = Vec::new();
    for entry in getifaddrs().ok()?.filter(|entry| is_of(&entry.interface_name, interface)) {
        let Some(address) = entry.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            found.push(v4.ip().to_string());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            found.push(with_zone(v6.ip(), interface));
        }
    }
    Some(found)
}

/// Whether an address is an interface's, by the name or the label (`eth0:1`) that is listed with it.
fn is_of(label: &str, interface: &str) -> bool {
    label.split(':').next() == Some(interface)
}

/// The number that an IPv6 zone (`eth0`, or already a number) stands for; `None` when there is no
/// such interface.
pub fn index(zone: &str) -> Option<u32> {
    zone.parse().ok().or_else(|| if_nametoindex(zone).ok())
}

fn with_zone(address: Ipv6Addr, interface: &str) -> String {
    match address.is_unicast_link_local() {
        true => format!("{address}%{interface}"),
        false => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_its_address() {
        assert!(addresses("lo").unwrap().contains(&"127.0.0.1".to_owned()));
        assert_eq!(addresses("no-such-interface"), None);
        assert_eq!(addresses("lo:1"), None);
    }

    #[test]
    fn an_address_with_a_label_is_the_interface_s() {
        assert!(is_of("eth0:1", "eth0") && is_of("eth0", "eth0"));
        assert!(!is_of("eth01", "eth0") && !is_of("eth0", "eth0:1"));
    }

    #[test]
    fn a_zone_is_a_name_or_a_number() {
        assert_eq!(index("lo"), Some(1));
        assert_eq!(index("7"), Some(7));
        assert_eq!(index("no-such-interface"), None);
    }
}
