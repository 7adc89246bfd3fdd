//! The RDATA of APL from its text (RFC 3123).
//!
//! Owns its items: a family, a network, and whether it is excluded. Never panics on any text.

use std::net::IpAddr;

/// The bit of an item that excludes its network (RFC 3123 §4).
const NEGATED: u8 = 0x80;

/// The RDATA of items `[!]family:network/length`.
pub(super) fn octets<'t>(fields: impl Iterator<Item = &'t str>) -> Option<Vec<u8>> {
    let items: Option<Vec<_>> = fields.map(item).collect();
    Some(items?.concat())
}

/// One item. The octets of 0 that an address ends with are left out (RFC 3123 §4).
fn item(text: &str) -> Option<Vec<u8>> {
    let (negated, text) = text.strip_prefix('!').map_or((0, text), |text| (NEGATED, text));
    let (family, network) = text.split_once(':')?;
    let (address, length) = network.split_once('/')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length.parse().ok().filter(|_| number(length))?;
    let family: u16 = family.parse().ok().filter(|_| number(family))?;
    let address = match (family, address.parse().ok()?) {
        (1, IpAddr::V4(address)) => address.octets().to_vec(),
        (2, IpAddr::V6(address)) => address.octets().to_vec(),
        _ => return None,
    };
    let bits = address.len() * 8;
    let is_clear = |bit: usize| address[bit / 8] & (0x80 >> (bit % 8)) == 0;
    if usize::from(length) > bits || !(usize::from(length)..bits).all(is_clear) {
        return None;
    }
    let used = address.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    let [high, low] = family.to_be_bytes();
    let mut octets = vec![high, low, length, negated | used as u8];
    octets.extend_from_slice(&address[..used]);
    Some(octets)
}
