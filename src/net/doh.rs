//! What DNS over HTTPS fixes (RFC 8484), in one place for those that serve it and those that ask.
//!
//! Owns two words, and how a query is read out of an address; speaks no HTTP.

use crate::dns::sizes;
use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;

/// The path of queries: CoreDNS's, and what everybody takes where none is given.
pub const PATH: &str = "/dns-query";

/// The media type of a DNS message as the body of a request or a response (§6).
pub const MESSAGE_TYPE: &str = "application/dns-message";

/// base64url as Go reads it: without padding (§6), bits that are left over ignored, and ends of lines.
static BASE64URL: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
    specification.check_trailing_bits = false;
    specification.ignore.push_str("\r\n");
    specification.encoding().expect("64 symbols, and two that are none of them")
});

/// The message in the one `dns` of an address's query part (§4.1).
///
/// # Errors
///
/// CoreDNS's text: there is none, there are several, or it is not base64url.
pub(super) fn message_of(query: &str) -> Result<Vec<u8>, String> {
    let mut found = query.split('&').filter_map(pair).filter(|(key, _)| key == b"dns");
    let (_, text) = found.next().ok_or("no 'dns' query parameter found")?;
    if found.next().is_some() {
        return Err("multiple 'dns' query values found".to_owned());
    }
    let octets = BASE64URL
        .decode(&text)
        .map_err(|error| format!("illegal base64 data at input byte {}", error.position))?;
    match octets.len() > sizes::MESSAGE_MOST {
        true => Err("http: request body too large".to_owned()),
        false => Ok(octets),
    }
}

/// What is wrong with a message of which there are so many octets, fewer than a header has, in the words of
/// CoreDNS's parser.
pub(super) fn cut_at(length: usize) -> String {
    const FIELDS: [&str; 6] =
        ["id", "bits", "question count", "answer count", "ns count", "extra count"];
    let field = FIELDS.get(length / 2).unwrap_or(&"id");
    format!("bad header {field}: dns: overflow unpacking uint16")
}

/// Name and value; `None` of what Go leaves out.
fn pair(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    if text.contains(';') {
        return None;
    }
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    Some((unescaped(key)?, unescaped(value)?))
}

/// With octets for what stands as `%41`, and spaces for `+`.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut octets = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(octet) = octets.next() {
        plain.push(match octet {
            b'%' => {
                let mut digit = || char::from(octets.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_an_address_is_read_as_go_reads_it() {
        const ONE: &str = "AAABAAABAAAAAAAAAWEEdGVzdAAAAQAB";
        let message = message_of(&format!("dns={ONE}")).unwrap();
        for same in [
            "x=1&dns=AAABAAABAAAAAAAAAWEEdGVzdAAAAQAB&dns=%zz",
            "%64ns=%41AABAAABAAAAAAAAAWEEdGVzdAAAAQAB",
            "dns=AAABA%0D%0AAABAAAAAAAAAWEEdGVzdAAAAQAB",
        ] {
            assert_eq!(message_of(same).as_ref(), Ok(&message), "{same}");
        }
        assert_eq!(message_of("dns=AAH"), Ok(vec![0, 1]), "a bit is left over");
        assert_eq!(message_of("dns"), Ok(vec![]));
        let at = |position| format!("illegal base64 data at input byte {position}");
        for (query, why) in [
            // RFC 8484 §6: padding must not be there.
            ("dns=AAA=", at(3)),
            ("dns=AA%3D%3D", at(2)),
            ("dns=AAAAA", at(4)),
            ("dns=A", at(0)),
            ("dns=AA+A", at(2)),
            ("dns=AA!A", at(2)),
            ("dns=%zzAA", "no 'dns' query parameter found".to_owned()),
            ("dns=AA;x", "no 'dns' query parameter found".to_owned()),
            ("x=1", "no 'dns' query parameter found".to_owned()),
            ("dns=AA&dns=AA", "multiple 'dns' query values found".to_owned()),
        ] {
            assert_eq!(message_of(query), Err(why), "{query}");
        }
    }

    #[test]
    fn a_message_that_is_cut_in_its_header_is_told_by_the_field() {
        for (length, field) in [(0, "id"), (1, "id"), (5, "question count"), (11, "extra count")] {
            let why = format!("bad header {field}: dns: overflow unpacking uint16");
            assert_eq!(cut_at(length), why);
        }
    }
}
