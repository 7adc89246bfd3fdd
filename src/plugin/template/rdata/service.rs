//! The parameters of SVCB and HTTPS records from their text (RFC 9460 §2.1, appendix A).
//!
//! Owns the keys, how the value of each is written, and their order. Never panics on any text.

use super::super::line::Field;
use super::super::record::unescape;
use data_encoding::BASE64;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The names of keys by their numbers (RFC 9460 §14.3.2, RFC 9461 §5, RFC 9540 §4).
const KEYS: [&str; 9] = [
    "mandatory",
    "alpn",
    "no-default-alpn",
    "port",
    "ipv4hint",
    "ech",
    "ipv6hint",
    "dohpath",
    "ohttp",
];

/// The octets of parameters `KEY`, `KEY=VALUE` and `KEY="VALUE"`, in the order of their keys, which are not
/// repeated.
pub(super) fn octets<'f, 't: 'f>(fields: impl Iterator<Item = &'f Field<'t>>) -> Option<Vec<u8>> {
    let mut fields = fields.peekable();
    let mut parameters = BTreeMap::new();
    while let Some(field) = fields.next() {
        let (key, value) = match field.text.split_once('=') {
            _ if field.is_quoted => return None,
            None => (field.text, ""),
            Some((key, "")) => {
                (key, fields.next_if(|next| next.is_quoted).map_or("", |next| next.text))
            }
            Some(parameter) => parameter,
        };
        let key = number(key)?;
        if parameters.insert(key, octets_of(key, value)?).is_some() {
            return None;
        }
    }
    let mut octets = Vec::new();
    for (key, value) in parameters {
        octets.extend(key.to_be_bytes());
        octets.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
        octets.extend(value);
    }
    Some(octets)
}

/// The number of a key: by its name, or `keyN` for those that have none.
fn number(key: &str) -> Option<u16> {
    let of = |name: &str| KEYS.iter().position(|known| *known == name).map(|place| place as u16);
    let Some(digits) = key.strip_prefix("key") else { return of(key) };
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && !digits.starts_with('0');
    let number: u16 = digits.parse().ok().filter(|_| is_plain)?;
    (usize::from(number) >= KEYS.len() && number != u16::MAX).then_some(number)
}

fn octets_of(key: u16, value: &str) -> Option<Vec<u8>> {
    match KEYS.get(usize::from(key)).copied() {
        Some("mandatory") => {
            let mut keys: Vec<u16> = list(value).map(number).collect::<Option<_>>()?;
            keys.sort_unstable();
            Some(keys.into_iter().flat_map(u16::to_be_bytes).collect())
        }
        Some("alpn") => protocols(&unescaped(value)?),
        Some("no-default-alpn" | "ohttp") => value.is_empty().then(Vec::new),
        Some("port") => {
            let is_number = value.bytes().all(|digit| digit.is_ascii_digit());
            let port: u16 = value.parse().ok().filter(|_| is_number)?;
            Some(port.to_be_bytes().to_vec())
        }
        Some("ipv4hint") => addresses(value, |address: Ipv4Addr| Some(address.octets())),
        Some("ech") => BASE64.decode(value.as_bytes()).ok(),
        Some("ipv6hint") => addresses(value, |address: Ipv6Addr| {
            address.to_ipv4_mapped().is_none().then(|| address.octets())
        }),
        _ => unescaped(value),
    }
}

fn unescaped(value: &str) -> Option<Vec<u8>> {
    Some(unescape(value)?.into_iter().map(|(octet, _)| octet).collect())
}

/// The items of a list; it may end with a comma.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split_terminator(',')
}

fn addresses<A: FromStr, const OCTETS: usize>(
    value: &str,
    octets: impl Fn(A) -> Option<[u8; OCTETS]>,
) -> Option<Vec<u8>> {
    let each = list(value).map(|item| octets(item.parse().ok()?));
    let all: Vec<[u8; OCTETS]> = each.collect::<Option<_>>()?;
    (!all.is_empty()).then(|| all.concat())
}

/// Protocols behind their lengths. A comma ends one, unless a backslash stands before it: that is beside the
/// escapes of all values, which are decoded before (RFC 9460 §7.1.1).
fn protocols(value: &[u8]) -> Option<Vec<u8>> {
    let mut protocols = vec![Vec::new()];
    let mut rest = value.iter();
    while let Some(octet) = rest.next() {
        let octet = match octet {
            b',' => {
                protocols.push(Vec::new());
                continue;
            }
            b'\\' => rest.next().filter(|next| matches!(next, b'\\' | b','))?,
            octet => octet,
        };
        protocols.last_mut()?.push(*octet);
    }
    if value.is_empty() {
        return Some(Vec::new());
    }
    let mut octets = Vec::new();
    for protocol in protocols {
        octets.push(u8::try_from(protocol.len()).ok().filter(|length| *length > 0)?);
        octets.extend(protocol);
    }
    Some(octets)
}
