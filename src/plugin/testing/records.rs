//! Records as text, both ways: what tests write responses with, and what they compare.

use super::name;
use crate::dns::{Class, Message, Name, Record, RecordType, Response, Written};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A record from text.
#[derive(Debug)]
pub(crate) struct TextRecord {
    /// The owner name.
    pub(crate) owner: Name,
    /// TYPE.
    pub(crate) rtype: RecordType,
    /// CLASS.
    pub(crate) class: Class,
    /// TTL in seconds.
    pub(crate) ttl: u32,
    /// RDATA without compression.
    pub(crate) rdata: Vec<u8>,
}

/// Reads `OWNER TTL CLASS TYPE RDATA…` for A, AAAA, NS, CNAME, PTR, DNAME, MX, TXT, SRV, SOA; any
/// other type takes its RDATA as hexadecimal digits.
pub(crate) fn parse_record(text: &str) -> TextRecord {
    let words: Vec<&str> = text.split_whitespace().collect();
    let rtype: RecordType = words[3].parse().unwrap();
    let mut rdata = Vec::new();
    let number = |at: usize| words[at].parse::<u32>().unwrap();
    let short = |at: usize| words[at].parse::<u16>().unwrap().to_be_bytes();
    match rtype {
        RecordType::A => rdata.extend(words[4].parse::<Ipv4Addr>().unwrap().octets()),
        RecordType::AAAA => rdata.extend(words[4].parse::<Ipv6Addr>().unwrap().octets()),
        RecordType::NS | RecordType::CNAME | RecordType::PTR | RecordType::DNAME => {
            rdata.extend(name(words[4]).as_bytes());
        }
        RecordType::MX => {
            rdata.extend(short(4));
            rdata.extend(name(words[5]).as_bytes());
        }
        RecordType::SRV => {
            for at in 4..7 {
                rdata.extend(short(at));
            }
            rdata.extend(name(words[7]).as_bytes());
        }
        RecordType::SOA => {
            rdata.extend(name(words[4]).as_bytes());
            rdata.extend(name(words[5]).as_bytes());
            for at in 6..11 {
                rdata.extend(number(at).to_be_bytes());
            }
        }
        RecordType::TXT => {
            for word in &words[4..] {
                let word = word.trim_matches('"');
                rdata.push(word.len() as u8);
                rdata.extend(word.as_bytes());
            }
        }
        _ => {
            let digits = words[4..].concat();
            for at in (0..digits.len()).step_by(2) {
                rdata.push(u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
            }
        }
    }
    TextRecord {
        owner: name(words[0]),
        ttl: number(1),
        class: words[2].parse().unwrap(),
        rtype,
        rdata,
    }
}

/// All records of a response as text, OPT left out; empty when nothing is written.
pub(crate) fn records_of(response: &Response) -> Vec<String> {
    if response.written == Written::Nothing {
        return Vec::new();
    }
    let message = response.message().unwrap();
    message
        .records()
        .filter(|record| record.rtype != RecordType::OPT)
        .map(|record| record_text(&message, &record))
        .collect()
}

fn record_text(message: &Message<'_>, record: &Record) -> String {
    let wire = message.wire();
    let rdata = &wire[record.rdata.clone()];
    let at = record.rdata.start;
    let name_at = |at: usize| Name::parse(wire, at).unwrap();
    let short = |at: usize| u16::from_be_bytes([rdata[at], rdata[at + 1]]);
    let value = match record.rtype {
        RecordType::A => Ipv4Addr::from(<[u8; 4]>::try_from(rdata).unwrap()).to_string(),
        RecordType::AAAA => Ipv6Addr::from(<[u8; 16]>::try_from(rdata).unwrap()).to_string(),
        RecordType::NS | RecordType::CNAME | RecordType::PTR | RecordType::DNAME => {
            name_at(at).0.to_string()
        }
        RecordType::MX => format!("{} {}", short(0), name_at(at + 2).0),
        RecordType::SRV => {
            format!("{} {} {} {}", short(0), short(2), short(4), name_at(at + 6).0)
        }
        RecordType::SOA => {
            let (primary, after) = name_at(at);
            let (mailbox, after) = name_at(after);
            let numbers: Vec<String> = wire[after..record.rdata.end]
                .chunks(4)
                .map(|four| u32::from_be_bytes(four.try_into().unwrap()).to_string())
                .collect();
            format!("{primary} {mailbox} {}", numbers.join(" "))
        }
        RecordType::TXT => {
            let mut words = Vec::new();
            let mut rest = rdata;
            while let Some((&length, tail)) = rest.split_first() {
                let (word, tail) = tail.split_at(usize::from(length));
                words.push(format!("\"{}\"", String::from_utf8_lossy(word)));
                rest = tail;
            }
            words.join(" ")
        }
        _ => rdata.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    format!("{} {} {} {} {value}", message.owner(record), record.ttl, record.class, record.rtype)
}
