//! IP networks as they stand in Corefiles (`10.0.0.0/8`), and the reverse zones they cover.

use crate::dns::Name;
use std::fmt::Write;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and a prefix length; host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The lowest address.
    pub address: IpAddr,
    /// The prefix length in bits: 0 to 32 or 128.
    pub length: u8,
}

/// Text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address with a prefix length")]
pub struct NotANetwork;

impl Network {
    /// The network of `length` bits that `address` is in; all of its bits where it has fewer.
    pub fn of(address: IpAddr, length: u8) -> Network {
        let length = length.min(if address.is_ipv4() { 32 } else { 128 });
        Network { address: masked(address, length), length }
    }

    /// True when the address lies inside, families equal.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }

    /// The reverse zones that cover the network exactly: several when the prefix does not end at
    /// an octet (IPv4) or a nibble (IPv6).
    pub fn reverse_zones(&self) -> Vec<Name> {
        let (step, width) = match self.address {
            IpAddr::V4(_) => (8u32, 32u32),
            IpAddr::V6(_) => (4, 128),
        };
        let length = u32::from(self.length);
        let boundary = length.div_ceil(step) * step;
        let count = 1u128 << (boundary - length);
        (0..count)
            .filter_map(|index| {
                // At most 2^7 networks, each `boundary` bits long.
                let part = index.checked_shl(width - boundary).unwrap_or(0);
                reverse_zone(self.address, part, boundary / step).parse().ok()
            })
            .collect()
    }
}

/// The reverse zone of the first `digits` octets or nibbles of `address` plus `part`.
fn reverse_zone(address: IpAddr, part: u128, digits: u32) -> String {
    let mut text = String::new();
    let (value, step, width, suffix) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 8, 32, "in-addr.arpa."),
        IpAddr::V6(address) => (address.to_bits(), 4, 128, "ip6.arpa."),
    };
    let value = value | part;
    for digit in (1..=digits).rev() {
        let digit = (value >> (width - digit * step)) & ((1 << step) - 1);
        // Writing to a String cannot fail.
        let _ = if step == 8 { write!(text, "{digit}.") } else { write!(text, "{digit:x}.") };
    }
    text + suffix
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    /// `ADDRESS/LENGTH`, as Go's `net.ParseCIDR`; host bits are dropped.
    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let (address, length) = text.split_once('/').ok_or(NotANetwork)?;
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotANetwork);
        }
        let length: u8 = length.parse().map_err(|_| NotANetwork)?;
        if length > if address.is_ipv4() { 32 } else { 128 } {
            return Err(NotANetwork);
        }
        Ok(Network::of(address, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses() {
        let network: Network = "10.0.1.7/23".parse().unwrap();
        assert_eq!(network.address, "10.0.0.0".parse::<IpAddr>().unwrap());
        assert!(network.contains("10.0.1.255".parse().unwrap()));
        assert!(!network.contains("10.0.2.0".parse().unwrap()));
        assert!(!network.contains("::1".parse().unwrap()));
        let all: Network = "::/0".parse().unwrap();
        assert!(all.contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "::/", "a/8", "1.2.3.4/+8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn odd_prefixes_split_at_the_next_boundary() {
        let count = |text: &str| text.parse::<Network>().unwrap().reverse_zones().len();
        assert_eq!(count("128.0.0.0/1"), 128);
        assert_eq!(count("10.0.0.0/9"), 128);
        assert_eq!(count("2001:db8::/29"), 8);
        assert_eq!(count("::1/128"), 1);
        assert_eq!(
            "10.0.0.0/0".parse::<Network>().unwrap().reverse_zones(),
            ["in-addr.arpa".parse().unwrap()]
        );
        assert_eq!(
            "1::/0".parse::<Network>().unwrap().reverse_zones(),
            ["ip6.arpa".parse().unwrap()]
        );
    }
}
