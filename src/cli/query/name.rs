//! Names as people and dig write them (RFC 1035 §5.1, RFC 4343 §2.1).
//!
//! hickory-proto writes escapes as octal numbers; master files, dig and we as decimal ones. What is
//! not ASCII becomes punycode by hickory-proto.

use crate::dns::sizes;
use hickory_proto::rr::Name;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Reads a name, with `\DDD` and `\X`. The error is for a person.
pub(super) fn parse(text: &str) -> Result<Name, String> {
    if !text.is_ascii() {
        let mut name = Name::from_utf8(text).map_err(|error| error.to_string())?;
        name.set_fqdn(true);
        return Ok(name);
    }
    if text == "." {
        return Ok(Name::root());
    }
    let mut labels = Vec::new();
    let mut label = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        match octet {
            b'.' => labels.push(finished(&mut label)?),
            b'\\' => {
                let (octet, behind) = escaped(rest)?;
                label.push(octet);
                rest = behind;
            }
            octet => label.push(octet),
        }
    }
    if !text.ends_with('.') || !label.is_empty() {
        labels.push(finished(&mut label)?);
    }
    let mut name = Name::from_labels(labels).map_err(|_| "longer than 255 octets".to_owned())?;
    name.set_fqdn(true);
    Ok(name)
}

fn finished(label: &mut Vec<u8>) -> Result<Vec<u8>, String> {
    match label.len() {
        0 => Err("an empty label".to_owned()),
        1..=sizes::LABEL_MOST => Ok(std::mem::take(label)),
        _ => Err("a label of more than 63 octets".to_owned()),
    }
}

/// What stands behind a backslash.
fn escaped(rest: &[u8]) -> Result<(u8, &[u8]), String> {
    let wrong = || "a backslash needs a character or three digits behind it".to_owned();
    match rest {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', behind @ ..] => {
            let number =
                [a, b, c].iter().fold(0, |sum, &&digit| sum * 10 + u32::from(digit - b'0'));
            Ok((u8::try_from(number).map_err(|_| wrong())?, behind))
        }
        [b'0'..=b'9', ..] | [] => Err(wrong()),
        [octet, behind @ ..] => Ok((*octet, behind)),
    }
}

/// The name under which an address has its PTR record (RFC 1035 §3.5, RFC 3596 §2.5).
pub(super) fn reverse(address: IpAddr) -> Name {
    Name::from(address)
}

/// The name as dig writes it, its dot at the end.
pub(super) fn text(name: &Name) -> String {
    if name.is_root() {
        return ".".to_owned();
    }
    let mut text = String::new();
    for label in name.iter() {
        for &octet in label {
            match octet {
                b'"' | b'(' | b')' | b'.' | b';' | b'\\' | b'@' | b'$' => {
                    text.push('\\');
                    text.push(char::from(octet));
                }
                0x21..=0x7e => text.push(char::from(octet)),
                // Writing to a String does not fail.
                _ => {
                    let _ = write!(text, "\\{octet:03}");
                }
            }
        }
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_as_dig_does() {
        for (given, shown) in [
            (".", "."),
            ("example.com", "example.com."),
            ("WWW.Example.com.", "WWW.Example.com."),
            ("_sip._tcp.example", "_sip._tcp.example."),
            (r"a\.b.c", r"a\.b.c."),
            (r"a\032b.c", r"a\032b.c."),
            (r"a\200.c", r"a\200.c."),
            (r"a\$b\;c", r"a\$b\;c."),
            (r"x\\y", r"x\\y."),
            ("*.example", "*.example."),
            ("bücher.example", "xn--bcher-kva.example."),
        ] {
            assert_eq!(text(&parse(given).unwrap()), shown, "{given}");
        }
    }

    #[test]
    fn what_is_no_name_says_why() {
        let long = "a".repeat(64);
        let very_long = "abcdefg.".repeat(32);
        for (given, why) in [
            ("", "an empty label"),
            ("..", "an empty label"),
            ("a..b", "an empty label"),
            (".a", "an empty label"),
            (r"a\", "a backslash needs a character or three digits behind it"),
            (r"a\25", "a backslash needs a character or three digits behind it"),
            (r"a\256", "a backslash needs a character or three digits behind it"),
            (long.as_str(), "a label of more than 63 octets"),
            (very_long.as_str(), "longer than 255 octets"),
        ] {
            assert_eq!(parse(given).map(|name| text(&name)), Err(why.to_owned()), "{given}");
        }
    }

    #[test]
    fn addresses_have_their_names() {
        let of = |address: &str| text(&reverse(address.parse().unwrap()));
        assert_eq!(of("192.0.2.7"), "7.2.0.192.in-addr.arpa.");
        assert_eq!(
            of("2001:db8::1"),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."
        );
    }
}
