//! A reply, read for showing: header words, EDNS, sections of records as text.
//!
//! Reads what is there and judges only whether it is a message at all.

use super::{name, rdata};
use crate::dns::{Class, Edns, Message, Opcode, Rcode, RecordType, Section, flags, sizes};
use std::fmt::Write as _;

/// A reply's parts.
#[derive(Debug)]
pub(super) struct Reply {
    /// The id.
    pub(super) id: u16,
    /// The opcode.
    pub(super) opcode: Opcode,
    /// The rcode, with the bits of EDNS.
    pub(super) rcode: Rcode,
    /// The flags that are set, in dig's words and order.
    pub(super) flags: Vec<&'static str>,
    /// The OPT record.
    pub(super) edns: Option<Extension>,
    /// The questions: without TTL and data.
    pub(super) questions: Vec<Row>,
    /// Answer, authority, additional (without OPT).
    pub(super) sections: [Vec<Row>; 3],
    /// Octets.
    pub(super) size: usize,
    /// Octets behind the last record.
    pub(super) extra: usize,
}

/// What the OPT record says.
#[derive(Debug)]
pub(super) struct Extension {
    /// The version.
    pub(super) version: u8,
    /// Whether DO is set.
    pub(super) dnssec: bool,
    /// The greatest datagram that the server takes, octets.
    pub(super) size: u16,
    /// Name and text of each option.
    pub(super) options: Vec<(String, String)>,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Its owner.
    pub(super) name: String,
    /// Seconds.
    pub(super) ttl: u32,
    /// Its class.
    pub(super) class: String,
    /// Its type.
    pub(super) rtype: String,
    /// Its RDATA.
    pub(super) data: String,
}

impl Reply {
    /// Reads a message. The error says why it is none.
    pub(super) fn read(wire: &[u8]) -> Result<Reply, String> {
        let message = Message::parse(wire).map_err(|error| error.to_string())?;
        let promised =
            |at: usize| wire.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        let there = [
            message.questions(),
            message.count(Section::Answer),
            message.count(Section::Authority),
            message.count(Section::Additional),
        ];
        for (at, count) in [4, 6, 8, 10].into_iter().zip(there) {
            if promised(at) != Some(count) {
                return Err("it ends before its last record".to_owned());
            }
        }
        let word = message.flags();
        let edns = message.edns();
        let high = edns.as_ref().map_or(0, |edns| u16::from(edns.extended_rcode));
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        for record in message.records().filter(|record| !record.is_opt()) {
            let Some((owner, _)) = rdata::read_name(wire, record.at) else {
                return Err("an owner name cannot be read".to_owned());
            };
            sections[record.section as usize].push(Row {
                name: name::text(&owner),
                ttl: record.ttl,
                class: record.class.to_string(),
                rtype: record.rtype.to_string(),
                data: rdata::text(record.rtype, record.class, wire, record.rdata),
            });
        }
        Ok(Reply {
            id: u16::from_be_bytes([wire[0], wire[1]]),
            opcode: Opcode(((word & flags::OPCODE) >> 11) as u8),
            rcode: Rcode(high << 4 | (word & flags::RCODE)),
            // dig shows no Z.
            flags: flags::WORDS
                .into_iter()
                .filter(|(bit, _)| word & bit != 0 && *bit != flags::Z)
                .map(|(_, word)| word)
                .collect(),
            edns: edns.map(|edns| extension(&edns, wire)),
            questions: questions(wire, message.questions())?,
            sections,
            size: wire.len(),
            extra: wire.len() - message.end(),
        })
    }

    /// The rcode in dig's words.
    pub(super) fn status(&self) -> String {
        match self.rcode {
            Rcode::BADVERS => "BADVERS".to_owned(),
            Rcode(other @ (12..=15 | 24..)) => format!("RESERVED{other}"),
            rcode => rcode.to_string(),
        }
    }
}

fn questions(wire: &[u8], count: u16) -> Result<Vec<Row>, String> {
    let mut at = sizes::HEADER;
    let mut rows = Vec::new();
    for _ in 0..count {
        let unread = || "a question cannot be read".to_owned();
        let (name, end) = rdata::read_name(wire, at).ok_or_else(unread)?;
        let words = wire.get(end..end + sizes::TYPE_AND_CLASS).ok_or_else(unread)?;
        rows.push(Row {
            name: name::text(&name),
            ttl: 0,
            class: Class(u16::from_be_bytes([words[2], words[3]])).to_string(),
            rtype: RecordType(u16::from_be_bytes([words[0], words[1]])).to_string(),
            data: String::new(),
        });
        at = end + sizes::TYPE_AND_CLASS;
    }
    Ok(rows)
}

fn extension(edns: &Edns, wire: &[u8]) -> Extension {
    Extension {
        version: edns.version,
        dnssec: edns.flags & Edns::DO != 0,
        size: edns.udp_size,
        options: edns.each_option(wire).map(|(code, data)| option(code, data)).collect(),
    }
}

/// An option's name and text, as dig writes both.
fn option(code: u16, data: &[u8]) -> (String, String) {
    let digits = |data: &[u8]| -> String {
        let mut text = String::new();
        for (place, octet) in data.iter().enumerate() {
            // Writing to a String does not fail.
            let _ = write!(text, "{}{octet:02x}", if place == 0 { "" } else { " " });
        }
        text
    };
    let with_text = |data: &[u8]| match data {
        [] => String::new(),
        data => format!("{} (\"{}\")", digits(data), printable(data)),
    };
    match (code, data) {
        (3, data) => ("NSID".to_owned(), with_text(data)),
        (8, data) => ("CLIENT-SUBNET".to_owned(), subnet(data).unwrap_or_else(|| digits(data))),
        (10, data) => ("COOKIE".to_owned(), digits(data).replace(' ', "")),
        (15, &[high, low, ref text @ ..]) => {
            let info = u16::from_be_bytes([high, low]);
            let meaning = ERRORS.get(usize::from(info)).map(|word| format!(" ({word})"));
            let text = match text {
                [] => String::new(),
                text => format!(": ({})", printable(text)),
            };
            ("EDE".to_owned(), format!("{info}{}{text}", meaning.unwrap_or_default()))
        }
        (code, data) => (format!("OPT={code}"), with_text(data)),
    }
}

/// What can be shown on a terminal; all else is a dot.
fn printable(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets)
        .chars()
        .map(|letter| if letter.is_control() || letter == '\u{fffd}' { '.' } else { letter })
        .collect()
}

/// `ADDRESS/SOURCE/SCOPE` (RFC 7871 §6).
fn subnet(data: &[u8]) -> Option<String> {
    let (head, address) = data.split_first_chunk::<4>()?;
    let mut octets = [0; 16];
    octets.get_mut(..address.len())?.copy_from_slice(address);
    let address = match u16::from_be_bytes([head[0], head[1]]) {
        1 if address.len() <= 4 => {
            std::net::Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).to_string()
        }
        2 => std::net::Ipv6Addr::from(octets).to_string(),
        _ => return None,
    };
    Some(format!("{address}/{}/{}", head[2], head[3]))
}

/// Extended errors by their number (RFC 8914 §5.2).
const ERRORS: [&str; 25] = [
    "Other",
    "Unsupported DNSKEY Algorithm",
    "Unsupported DS Digest Type",
    "Stale Answer",
    "Forged Answer",
    "DNSSEC Indeterminate",
    "DNSSEC Bogus",
    "Signature Expired",
    "Signature Not Yet Valid",
    "DNSKEY Missing",
    "RRSIGs Missing",
    "No Zone Key Bit Set",
    "NSEC Missing",
    "Cached Error",
    "Not Ready",
    "Blocked",
    "Censored",
    "Filtered",
    "Prohibited",
    "Stale NXDOMAIN Answer",
    "Not Authoritative",
    "Not Supported",
    "No Reachable Authority",
    "Network Error",
    "Invalid Data",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_as_dig_writes_them() {
        let told = |code, data: &[u8]| {
            let (name, text) = option(code, data);
            format!("{name}: {text}")
        };
        assert_eq!(told(3, b"ns1"), "NSID: 6e 73 31 (\"ns1\")");
        assert_eq!(told(3, b"\x1b[1m"), "NSID: 1b 5b 31 6d (\".[1m\")");
        assert_eq!(told(8, &[0, 1, 24, 0, 192, 0, 2]), "CLIENT-SUBNET: 192.0.2.0/24/0");
        assert_eq!(told(8, &[0, 9, 24, 0]), "CLIENT-SUBNET: 00 09 18 00");
        assert_eq!(told(10, &[1, 2, 3, 4, 5, 6, 7, 8]), "COOKIE: 0102030405060708");
        assert_eq!(told(15, b"\0\x03"), "EDE: 3 (Stale Answer)");
        assert_eq!(told(15, b"\0\x17why"), "EDE: 23 (Network Error): (why)");
        assert_eq!(told(15, b"\xff\0"), "EDE: 65280");
        assert_eq!(told(65001, b"x"), "OPT=65001: 78 (\"x\")");
    }

    #[test]
    fn what_is_cut_is_no_message() {
        let whole = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x01a\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x7f\0\0\x01";
        let reply = Reply::read(whole).unwrap();
        assert_eq!(reply.sections[0][0].data, "127.0.0.1");
        assert_eq!((reply.status().as_str(), reply.extra), ("NOERROR", 0));
        for length in 0..whole.len() {
            assert!(Reply::read(&whole[..length]).is_err(), "{length}");
        }
        assert_eq!(Reply::read(&[&whole[..], b"xy"].concat()).unwrap().extra, 2);
    }

    proptest::proptest! {
        /// Whatever a server sends is read or refused; what is shown has no control characters.
        #[test]
        fn any_octets_are_read_or_refused(
            rtype in 0..300_u16,
            rdata in proptest::collection::vec(0..=255_u8, 0..80),
            junk in proptest::collection::vec(0..=255_u8, 0..120),
        ) {
            let _ = Reply::read(&junk);
            let mut wire = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x01a\0\0\x01\0\x01\xc0\x0c".to_vec();
            wire.extend(rtype.to_be_bytes());
            wire.extend([0, 1, 0, 0, 0, 5, 0, rdata.len() as u8]);
            wire.extend(&rdata);
            if let Ok(reply) = Reply::read(&wire) {
                let rows = reply.sections.iter().flatten();
                let shown: String = rows.map(|row| format!("{} {}", row.name, row.data)).collect();
                proptest::prop_assert!(!shown.contains(char::is_control), "{shown:?}");
            }
        }
    }
}
