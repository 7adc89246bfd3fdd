//! What hosts files say: addresses by name, names by address (hosts(5)).
//!
//! Owns the file format and the lookups. Never reads a file. Its size is bounded by the operator's
//! own files and Corefile, not by the network.

use crate::dns::Name;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a table also gives names by address (`no_reverse`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reverse {
    /// It does.
    Kept,
    /// Addresses by name alone.
    LeftOut,
}

/// The entries of one text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostsTable {
    v4: HashMap<Name, Vec<Ipv4Addr>>,
    v6: HashMap<Name, Vec<Ipv6Addr>>,
    names: HashMap<IpAddr, Vec<Name>>,
}

impl HostsTable {
    /// Reads lines of `ADDRESS NAME…`; what is no such line is passed over. Names outside of
    /// `zones` do not count.
    pub(super) fn parse(text: &str, zones: &[Name], reverse: Reverse) -> HostsTable {
        let mut table = HostsTable::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("");
            let mut fields = line.split_whitespace();
            let Some(address) = fields.next().and_then(parse_address) else { continue };
            for field in fields {
                let Ok(name) = field.parse::<Name>() else { continue };
                if !zones.iter().any(|zone| name.is_in(zone)) {
                    continue;
                }
                if reverse == Reverse::Kept {
                    table.names.entry(address).or_default().push(name.clone());
                }
                match address {
                    IpAddr::V4(address) => table.v4.entry(name).or_default().push(address),
                    IpAddr::V6(address) => table.v6.entry(name).or_default().push(address),
                }
            }
        }
        table
    }

    /// The IPv4 addresses of a name, in the order of the lines.
    pub(super) fn v4(&self, name: &Name) -> &[Ipv4Addr] {
        self.v4.get(name).map_or(&[], Vec::as_slice)
    }

    /// The IPv6 addresses of a name, in the order of the lines.
    pub(super) fn v6(&self, name: &Name) -> &[Ipv6Addr] {
        self.v6.get(name).map_or(&[], Vec::as_slice)
    }

    /// The names of an address, in the order of the lines.
    pub(super) fn names(&self, address: IpAddr) -> &[Name] {
        self.names.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Whether a name has an address of any family.
    pub(super) fn knows(&self, name: &Name) -> bool {
        self.v4.contains_key(name) || self.v6.contains_key(name)
    }

    /// Addresses of both families and reverse names, each pair counted.
    pub(super) fn entries(&self) -> usize {
        self.v4.values().map(Vec::len).sum::<usize>()
            + self.v6.values().map(Vec::len).sum::<usize>()
            + self.names.values().map(Vec::len).sum::<usize>()
    }
}

/// An address as written in a hosts file: an IPv6 zone (`%eth0`) is cut off, and an IPv4 address
/// mapped into IPv6 counts as IPv4, as in Go.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.split('%').next().unwrap_or(text);
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The address that a name under in-addr.arpa. or ip6.arpa. stands for (RFC 1035 §3.5,
/// RFC 3596 §2.5).
pub(super) fn address_of_reverse(name: &Name) -> Option<IpAddr> {
    // The longest is 32 nibbles, `ip6` and `arpa`.
    let mut labels = [&[][..]; 34];
    let mut count = 0;
    for label in name.labels() {
        *labels.get_mut(count)? = label;
        count += 1;
    }
    let (labels, tail) = labels[..count].split_at_checked(count.checked_sub(2)?)?;
    match (tail, labels.len()) {
        ([b"in-addr", b"arpa"], 4) => {
            let mut octets = [0u8; 4];
            for (octet, label) in octets.iter_mut().rev().zip(labels) {
                let text = std::str::from_utf8(label).ok()?;
                if text.len() > 1 && text.starts_with('0') || text.starts_with('+') {
                    return None;
                }
                *octet = text.parse().ok()?;
            }
            Some(IpAddr::from(octets))
        }
        ([b"ip6", b"arpa"], 32) => {
            let mut bits = 0u128;
            for label in labels.iter().rev() {
                let [digit] = *label else { return None };
                bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn table(text: &str) -> HostsTable {
        HostsTable::parse(text, &[Name::root()], Reverse::Kept)
    }

    #[test]
    fn lines_are_read_as_libc_would() {
        let table = table(
            "# comment\n192.0.2.10 a.test Alias.test  # trailing\n192.0.2.11\ta.test\r\n\
             2001:db8::10 a.test\nfe80::1%eth0 scoped.test\n192.0.2.12\ngarbage line here\n\
             300.1.1.1 bad.test\n::ffff:192.0.2.14 mapped.test\n010.0.0.1 octal.test\n",
        );
        assert_eq!(
            table.v4(&name("a.test")),
            [Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 11)]
        );
        assert_eq!(table.v6(&name("a.test")).len(), 1);
        assert_eq!(table.v4(&name("ALIAS.test")).len(), 1);
        assert_eq!(table.v6(&name("scoped.test")), ["fe80::1".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(table.v4(&name("mapped.test")), [Ipv4Addr::new(192, 0, 2, 14)]);
        for unknown in ["bad.test", "here", "octal.test"] {
            assert!(!table.knows(&name(unknown)), "{unknown}");
        }
        let address = "192.0.2.10".parse().unwrap();
        assert_eq!(table.names(address), [name("a.test"), name("alias.test")]);
        assert_eq!(table.entries(), 12);
    }

    #[test]
    fn names_outside_the_zones_do_not_count() {
        let text = "192.0.2.1 a.test a.other";
        let table = HostsTable::parse(text, &[name("test")], Reverse::LeftOut);
        assert!(table.knows(&name("a.test")));
        assert!(!table.knows(&name("a.other")));
        assert_eq!(table.entries(), 1);
    }

    #[test]
    fn reverse_names_give_addresses() {
        for (text, address) in [
            ("10.2.0.192.in-addr.arpa.", Some("192.0.2.10")),
            (
                "1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
                Some("2001:db8::11"),
            ),
            (
                "1.2.0.0.0.0.0.c.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.",
                Some("192.0.0.33"),
            ),
            ("2.0.192.in-addr.arpa.", None),
            ("1.10.2.0.192.in-addr.arpa.", None),
            ("256.2.0.192.in-addr.arpa.", None),
            ("01.2.0.192.in-addr.arpa.", None),
            ("+1.2.0.192.in-addr.arpa.", None),
            ("a.test.", None),
            ("arpa.", None),
            (".", None),
        ] {
            let address = address.map(|text| text.parse().unwrap());
            assert_eq!(address_of_reverse(&name(text)), address, "{text}");
        }
    }
}
