//! One record from zone-file text (RFC 1035 §5.1), as templates give it.
//!
//! Owns the text form of the types that Corefiles use, and RFC 3597's form for any type; the few
//! others are hickory-proto's. Never panics on any text: parts of it come from queries.

use crate::dns::{Class, Name, RecordType};
use hickory_proto::rr::{RData, RecordType as HickoryType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The TTL in seconds of a record that names none, as in miekg/dns.
const DEFAULT_TTL: u32 = 3600;

/// The greatest length in octets of a character string (RFC 1035 §3.3).
const MOST_STRING: usize = 255;

/// A record, its names in wire form with the spelling of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextRecord {
    /// Owner name.
    pub(super) owner: Vec<u8>,
    /// TTL in seconds.
    pub(super) ttl: u32,
    /// CLASS.
    pub(super) class: Class,
    /// TYPE.
    pub(super) rtype: RecordType,
    /// RDATA without compression.
    pub(super) rdata: Vec<u8>,
}

/// One word or quoted string; its escapes are still in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field<'t> {
    text: &'t str,
    is_quoted: bool,
}

impl TextRecord {
    /// Reads `OWNER [TTL] [CLASS] TYPE RDATA…`. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<TextRecord, String> {
        let fields = split(text)?;
        let mut rest = fields.iter();
        let owner = rest.next().ok_or("no record in the text")?;
        let owner = name_octets(owner.text).ok_or_else(|| bad("owner name", owner.text))?;
        let (mut ttl, mut class) = (None, None);
        let rtype = loop {
            let word = rest.next().ok_or("no type in the record")?.text;
            if ttl.is_none() && word.starts_with(|first: char| first.is_ascii_digit()) {
                ttl = Some(parse_ttl(word).ok_or_else(|| bad("TTL", word))?);
            } else if word.eq_ignore_ascii_case("ANY") {
                // A type before it is a class, and no record has it.
                return Err(bad("type", word));
            } else if let (None, Ok(known)) = (class, word.to_uppercase().parse::<Class>()) {
                class = Some(known);
            } else {
                break word.to_uppercase().parse().map_err(|_| bad("type", word))?;
            }
        };
        let rdata = rdata_octets(rtype, rest.as_slice())?;
        if rdata.len() > usize::from(u16::MAX) {
            return Err("record too long".to_owned());
        }
        let (ttl, class) = (ttl.unwrap_or(DEFAULT_TTL), class.unwrap_or(Class::IN));
        Ok(TextRecord { owner, ttl, class, rtype, rdata })
    }

    /// The target of a CNAME record.
    pub(super) fn alias_target(&self) -> Option<Name> {
        if self.rtype != RecordType::CNAME {
            return None;
        }
        Name::parse(&self.rdata, 0).ok().map(|(name, _)| name)
    }
}

fn bad(what: &str, text: &str) -> String {
    format!("bad {what}: {text:?}")
}

/// The fields of one logical line: comments left out, parentheses as white space.
fn split(text: &str) -> Result<Vec<Field<'_>>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '(' || c == ')');
        let Some(first) = rest.chars().next() else { return Ok(fields) };
        if first == ';' {
            rest = rest.split_once('\n').map_or("", |(_, behind)| behind);
            continue;
        }
        let is_quoted = first == '"';
        let body = if is_quoted { &rest[1..] } else { rest };
        let mut is_escaped = false;
        let end = body.find(|c: char| {
            if std::mem::take(&mut is_escaped) {
                return false;
            }
            is_escaped = c == '\\';
            match is_quoted {
                true => c == '"',
                false => c.is_ascii_whitespace() || matches!(c, ';' | '"' | '(' | ')'),
            }
        });
        if is_quoted && end.is_none() {
            return Err("unterminated quoted string".to_owned());
        }
        let end = end.unwrap_or(body.len());
        fields.push(Field { text: &body[..end], is_quoted });
        rest = &body[end + usize::from(is_quoted)..];
    }
}

/// Octets of text with `\DDD` and `\X` decoded; each with whether it was escaped.
fn unescape(text: &str) -> Option<Vec<(u8, bool)>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'\\' {
            octets.push((octet, false));
            continue;
        }
        let first = rest.next()?;
        if !first.is_ascii_digit() {
            octets.push((first, true));
            continue;
        }
        let mut number = u16::from(first - b'0');
        for _ in 0..2 {
            let digit = rest.next().filter(u8::is_ascii_digit)?;
            number = number * 10 + u16::from(digit - b'0');
        }
        octets.push((u8::try_from(number).ok()?, true));
    }
    Some(octets)
}

/// A name in wire form with its spelling kept. `@` is the origin, the root.
fn name_octets(text: &str) -> Option<Vec<u8>> {
    if text == "@" {
        return Some(vec![0]);
    }
    text.parse::<Name>().ok()?;
    let mut octets = Vec::with_capacity(text.len() + 2);
    if text != "." {
        let mut label = Vec::new();
        for (octet, is_escaped) in unescape(text)?.into_iter().chain([(b'.', false)]) {
            if octet != b'.' || is_escaped {
                label.push(octet);
            } else if !label.is_empty() {
                octets.push(u8::try_from(label.len()).ok().filter(|length| *length < 64)?);
                octets.append(&mut label);
            }
        }
    }
    octets.push(0);
    Some(octets)
}

/// Seconds, or numbers with the units `s m h d w`.
fn parse_ttl(text: &str) -> Option<u32> {
    let (mut total, mut number, mut has_digit) = (0u32, 0u32, false);
    for c in text.chars() {
        let unit = match c.to_ascii_lowercase() {
            '0'..='9' => {
                number = number.checked_mul(10)?.checked_add(c.to_digit(10)?)?;
                has_digit = true;
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        number = 0;
    }
    has_digit.then(|| total.checked_add(number)).flatten()
}

/// Reads the fields of an RDATA one by one.
struct Rdata<'f, 't> {
    rtype: RecordType,
    fields: std::slice::Iter<'f, Field<'t>>,
    octets: Vec<u8>,
}

impl Rdata<'_, '_> {
    fn wrong(&self) -> String {
        format!("bad RDATA of type {}", self.rtype)
    }

    fn text(&mut self) -> Result<&str, String> {
        self.fields.next().map(|field| field.text).ok_or_else(|| self.wrong())
    }

    fn name(&mut self) -> Result<(), String> {
        let octets = self.fields.next().and_then(|field| name_octets(field.text));
        self.octets.extend(octets.ok_or_else(|| self.wrong())?);
        Ok(())
    }

    fn number(&mut self, octets: usize) -> Result<(), String> {
        let wrong = self.wrong();
        let text = self.text()?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number: u32 = text.parse().ok().filter(|_| digits).ok_or_else(|| wrong.clone())?;
        let wide = number.to_be_bytes();
        let (high, low) = wide.split_at(4 - octets);
        if high.iter().any(|octet| *octet != 0) {
            return Err(wrong);
        }
        self.octets.extend_from_slice(low);
        Ok(())
    }

    /// A time: a number of seconds, or with units.
    fn time(&mut self) -> Result<(), String> {
        let wrong = self.wrong();
        let seconds = parse_ttl(self.text()?).ok_or(wrong)?;
        self.octets.extend_from_slice(&seconds.to_be_bytes());
        Ok(())
    }

    /// Character strings, one per field; longer ones become several.
    fn strings(&mut self) -> Result<(), String> {
        for field in self.fields.by_ref() {
            let wrong = || format!("bad RDATA of type {}", self.rtype);
            let octets: Vec<u8> = unescape(field.text)
                .ok_or_else(wrong)?
                .into_iter()
                .map(|(octet, _)| octet)
                .collect();
            if octets.is_empty() {
                self.octets.push(0);
            }
            for piece in octets.chunks(MOST_STRING) {
                self.octets.push(piece.len() as u8);
                self.octets.extend_from_slice(piece);
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        let octets = self.fields.next().and_then(|field| unescape(field.text));
        let octets = octets.filter(|octets| octets.len() <= MOST_STRING);
        let octets = octets.ok_or_else(|| self.wrong())?;
        self.octets.push(octets.len() as u8);
        self.octets.extend(octets.into_iter().map(|(octet, _)| octet));
        Ok(())
    }

    /// All remaining fields as one string of hexadecimal digits.
    fn hex(&mut self) -> Result<(), String> {
        let wrong = self.wrong();
        let digits: Vec<u8> = self
            .fields
            .by_ref()
            .flat_map(|field| field.text.chars())
            .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
            .collect::<Option<_>>()
            .ok_or_else(|| wrong.clone())?;
        if !digits.len().is_multiple_of(2) {
            return Err(wrong);
        }
        self.octets.extend(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]));
        Ok(())
    }

    /// RFC 3597 §5: `\# LENGTH HEX`.
    fn generic(&mut self) -> Result<(), String> {
        let wrong = self.wrong();
        self.text()?;
        let length: usize = self.text()?.parse().map_err(|_| wrong.clone())?;
        self.hex()?;
        if self.octets.len() == length { Ok(()) } else { Err(wrong) }
    }

    fn address<A: std::str::FromStr>(
        &mut self,
        octets: impl Fn(A) -> Vec<u8>,
    ) -> Result<(), String> {
        let wrong = self.wrong();
        let address = self.text()?.parse::<A>().map_err(|_| wrong)?;
        self.octets.extend(octets(address));
        Ok(())
    }
}

fn rdata_octets(rtype: RecordType, fields: &[Field<'_>]) -> Result<Vec<u8>, String> {
    let mut rdata = Rdata { rtype, fields: fields.iter(), octets: Vec::new() };
    let is_generic = fields.first().is_some_and(|field| field.text == "\\#" && !field.is_quoted);
    match rtype {
        _ if is_generic => rdata.generic()?,
        RecordType::A => rdata.address(|address: Ipv4Addr| address.octets().to_vec())?,
        RecordType::AAAA => rdata.address(|address: Ipv6Addr| address.octets().to_vec())?,
        RecordType::NS
        | RecordType::CNAME
        | RecordType::PTR
        | RecordType::DNAME
        | RecordType::MB
        | RecordType::MD
        | RecordType::MF
        | RecordType::MG
        | RecordType::MR => rdata.name()?,
        RecordType::RP | RecordType::MINFO => {
            rdata.name()?;
            rdata.name()?;
        }
        RecordType::MX | RecordType::KX | RecordType::AFSDB | RecordType::RT => {
            rdata.number(2)?;
            rdata.name()?;
        }
        RecordType::SRV => {
            for _ in 0..3 {
                rdata.number(2)?;
            }
            rdata.name()?;
        }
        RecordType::NAPTR => {
            rdata.number(2)?;
            rdata.number(2)?;
            for _ in 0..3 {
                rdata.string()?;
            }
            rdata.name()?;
        }
        RecordType::SOA => {
            rdata.name()?;
            rdata.name()?;
            rdata.number(4)?;
            for _ in 0..4 {
                rdata.time()?;
            }
        }
        RecordType::TXT | RecordType::SPF | RecordType::AVC | RecordType::NINFO => {
            if fields.is_empty() {
                return Err(rdata.wrong());
            }
            rdata.strings()?;
        }
        RecordType::HINFO => {
            rdata.string()?;
            rdata.string()?;
        }
        RecordType::CAA => {
            rdata.number(1)?;
            rdata.string()?;
            let value = rdata.fields.next().and_then(|field| unescape(field.text));
            let value = value.ok_or_else(|| rdata.wrong())?;
            rdata.octets.extend(value.into_iter().map(|(octet, _)| octet));
        }
        RecordType::URI => {
            rdata.number(2)?;
            rdata.number(2)?;
            let target = rdata.fields.next().and_then(|field| unescape(field.text));
            let target = target.ok_or_else(|| rdata.wrong())?;
            rdata.octets.extend(target.into_iter().map(|(octet, _)| octet));
        }
        RecordType::DS | RecordType::CDS | RecordType::DLV => {
            rdata.number(2)?;
            rdata.number(1)?;
            rdata.number(1)?;
            rdata.hex()?;
        }
        RecordType::SSHFP => {
            rdata.number(1)?;
            rdata.number(1)?;
            rdata.hex()?;
        }
        RecordType::TLSA | RecordType::SMIMEA => {
            for _ in 0..3 {
                rdata.number(1)?;
            }
            rdata.hex()?;
        }
        _ => return by_hickory(rtype, fields),
    }
    match rdata.fields.next() {
        None => Ok(rdata.octets),
        Some(_) => Err(rdata.wrong()),
    }
}

/// The types that are not read here: SVCB, HTTPS, CERT, CSYNC, OPENPGPKEY.
fn by_hickory(rtype: RecordType, fields: &[Field<'_>]) -> Result<Vec<u8>, String> {
    let mut text = String::new();
    for field in fields {
        let quote = if field.is_quoted { "\"" } else { "" };
        if !text.is_empty() && !text.ends_with('=') {
            text.push(' ');
        }
        text.extend([quote, field.text, quote]);
    }
    let kind = HickoryType::from(rtype.0);
    let rdata = RData::try_from_str(kind, &text)
        .map_err(|error| format!("bad RDATA of type {rtype}: {error}"))?;
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    rdata.emit(&mut encoder).map_err(|error| format!("bad RDATA of type {rtype}: {error}"))?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_in_a_zone_file() {
        for (text, ttl, rtype, rdata) in [
            ("a.test. 60 IN A 192.0.2.1", 60, RecordType::A, &b"\xc0\0\x02\x01"[..]),
            ("a.test. IN 60 A 192.0.2.1", 60, RecordType::A, b"\xc0\0\x02\x01"),
            ("a.test. A 192.0.2.1", 3600, RecordType::A, b"\xc0\0\x02\x01"),
            ("a.test. 1h30m in a 192.0.2.1 ; yes", 5400, RecordType::A, b"\xc0\0\x02\x01"),
            ("a.test. CNAME B.test", 3600, RecordType::CNAME, b"\x01B\x04test\0"),
            ("a.test. PTR a\\.b.c.", 3600, RecordType::PTR, b"\x03a.b\x01c\0"),
            ("a.test. MX 10 .", 3600, RecordType::MX, b"\0\x0a\0"),
            ("a.test. MX 10 @", 3600, RecordType::MX, b"\0\x0a\0"),
            ("a.test. SRV 1 2 3 b.", 3600, RecordType::SRV, b"\0\x01\0\x02\0\x03\x01b\0"),
            ("a.test. TXT ab \"c d\\\"\\065\"", 3600, RecordType::TXT, b"\x02ab\x05c d\"A"),
            (
                "a. SOA n. h. ( 1 2 3m 4\n5 )",
                3600,
                RecordType::SOA,
                b"\x01n\0\x01h\0\0\0\0\x01\0\0\0\x02\0\0\0\xb4\0\0\0\x04\0\0\0\x05",
            ),
            ("a. CAA 0 issue \"x\"", 3600, RecordType::CAA, b"\0\x05issuex"),
            ("a. DS 1 8 2 ABCD", 3600, RecordType::DS, b"\0\x01\x08\x02\xab\xcd"),
            ("a. TYPE65280 \\# 2 abcd", 3600, RecordType(65280), b"\xab\xcd"),
            ("a. HTTPS 1 . alpn=h2", 3600, RecordType::HTTPS, b"\0\x01\0\0\x01\0\x03\x02h2"),
        ] {
            let record = TextRecord::parse(text).unwrap();
            assert_eq!((record.ttl, record.rtype), (ttl, rtype), "{text}");
            assert_eq!(record.class, Class::IN);
            assert_eq!(record.rdata, rdata, "{text}");
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for text in [
            "",
            "a.test.",
            "a.test. 20 IN A nonsense",
            "a.test. 20 IN A 192.0.2.1 192.0.2.2",
            "a..test. A 192.0.2.1",
            "a.test. FOO x",
            "a.test. 20 ANY A 192.0.2.1",
            "a.test. TXT",
            "a.test. TXT \"open",
            "a.test. TXT a\\99",
            "a.test. MX 70000 b.",
            "a.test. MX -1 b.",
            "a.test. 99999999999 A 192.0.2.1",
            "a.test. TYPE1 \\# 5 abcd",
            "a.test. RRSIG x",
            "a.test. OPT",
            "a.test. HTTPS 1 . alpn=\"h",
        ] {
            assert!(TextRecord::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn long_text_becomes_several_strings() {
        let record = TextRecord::parse(&format!("a. TXT {}", "x".repeat(300))).unwrap();
        assert_eq!(record.rdata.len(), 302);
        assert_eq!((record.rdata[0], record.rdata[256]), (255, 45));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-z0-9. \"\\\\;()#=$@\\n]{0,60}") {
            let _ = TextRecord::parse(&text);
            for rtype in ["TXT", "HTTPS", "CERT", "CSYNC", "NAPTR", "SOA", "TYPE9"] {
                let _ = TextRecord::parse(&format!("a. {rtype} {text}"));
            }
        }
    }
}
