//! One record from zone-file text (RFC 1035 §5.1), as templates give it.
//!
//! Owns its fields, names and times; RDATA is `rdata`'s. Never panics on any text: parts of it come
//! from queries.

use super::line::Line;
use super::rdata;
use crate::dns::{Class, Name, Record, RecordType};

/// The TTL in seconds of a record that names none, as in miekg/dns.
const DEFAULT_TTL: u32 = 3600;

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

impl TextRecord {
    /// Reads `OWNER [TTL] [CLASS] TYPE RDATA…`, of the first line that has anything. The error says what
    /// is wrong and where, in the words of miekg/dns.
    pub(super) fn parse(text: &str) -> Result<TextRecord, String> {
        let line = Line::read(text);
        let mut fields = line.fields.as_slice();
        let mut owner = vec![0];
        if let [first, rest @ ..] = fields
            && !line.is_indented
            && (!rest.is_empty() || line.has_blank_end)
        {
            if first.is_quoted {
                return Err(first.wrong("syntax error at beginning"));
            }
            owner = name_octets(first.text).ok_or_else(|| first.wrong("bad owner name"))?;
            fields = rest;
        }
        let (mut ttl, mut class) = (None, None);
        let (rtype, place) = loop {
            let [field, rest @ ..] = fields else {
                return Err(line.end("expecting RR type, TTL or class, not this..."));
            };
            fields = rest;
            let word = field.text.to_uppercase();
            let is_class = word.parse::<Class>().is_ok();
            let expected = match (ttl, class) {
                (None, None) => "not a TTL",
                (None, Some(_)) if field.is_word() && !is_class => "not a TTL",
                (None, Some(_)) => "expecting RR type or TTL, not this...",
                (Some(_), None) => "expecting RR type or class, not this...",
                (Some(_), Some(_)) => "unknown RR type",
            };
            // It is a class before it is a type, and then no word is a type any more.
            let is_any = word == "ANY";
            if let (true, Ok(known)) = (class.is_none(), word.parse::<Class>()) {
                class = Some(known);
                if is_any {
                    return Err(fields.first().map_or_else(
                        || line.end("expecting RR type or TTL, not this..."),
                        |field| field.wrong("not a TTL"),
                    ));
                }
            } else if let (false, Ok(known)) = (field.is_quoted, word.parse::<RecordType>()) {
                break (known, field);
            } else if ttl.is_none()
                && !field.is_quoted
                && let Some(seconds) = parse_ttl(field.text)
            {
                ttl = Some(seconds);
            } else {
                return Err(field.wrong(expected));
            }
        };
        if line.is_open {
            return Err(place.wrong_behind(&rdata::unended(rtype)));
        }
        let rdata = rdata::octets(rtype, fields, |what| match line.has_blank_end {
            true => line.end(what),
            false => place.wrong_behind(what),
        })?;
        if rdata.len() > usize::from(u16::MAX) {
            return Err("record too long".to_owned());
        }
        let (ttl, class) = (ttl.unwrap_or(DEFAULT_TTL), class.unwrap_or(Class::IN));
        // Given in octets it may be anything.
        if !Record::can_have(rtype, class, &rdata) {
            return Err(format!("bad RDATA of type {rtype}"));
        }
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

/// Octets of text with `\DDD` and `\X` decoded; each with whether it was escaped.
pub(super) fn unescape(text: &str) -> Option<Vec<(u8, bool)>> {
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
pub(super) fn name_octets(text: &str) -> Option<Vec<u8>> {
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
pub(super) fn parse_ttl(text: &str) -> Option<u32> {
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
            (
                "a. HTTPS 1 . dohpath=/q{?dns} port=443 alpn=\"h2\" ohttp",
                3600,
                RecordType::HTTPS,
                b"\0\x01\0\0\x01\0\x03\x02h2\0\x03\0\x02\x01\xbb\0\x07\0\x08/q{?dns}\0\x08\0\0",
            ),
        ] {
            let record = TextRecord::parse(text).unwrap();
            assert_eq!((record.ttl, record.rtype), (ttl, rtype), "{text}");
            assert_eq!(record.class, Class::IN);
            assert_eq!(record.rdata, rdata, "{text}");
        }
    }

    #[test]
    fn the_first_line_with_a_record_counts() {
        for text in [
            "a. A 192.0.2.1\nb. A 192.0.2.2",
            "\n\t; none yet\n\na. A 192.0.2.1 ; here (it is\nb. A",
            "a. ( ; one\n A ; two )\n 192.0.2.1 )\nb.",
        ] {
            let record = TextRecord::parse(text).unwrap();
            assert_eq!(
                (&record.owner[..], &record.rdata[..]),
                (&b"\x01a\0"[..], &b"\xc0\0\x02\x01"[..])
            );
        }
        assert!(
            TextRecord::parse("a. A\n192.0.2.1").is_err(),
            "a line goes on only in parentheses"
        );
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
    fn what_is_wrong_is_told_with_its_place_as_miekgs_library_does() {
        for (text, error) in [
            ("a.test. A nonsense", "bad A A: \"nonsense\" at line: 1:18"),
            ("a.test. 60 IN A 1.2.3", "bad A A: \"1.2.3\" at line: 1:21"),
            ("\n\na.test.\tA\tx", "bad A A: \"x\" at line: 3:11"),
            ("a.test. A 1.2.3.4 5 6", "garbage after rdata: \"5\" at line: 1:20"),
            ("a.test. A ", "bad A A: \"\\n\" at line: 1:10"),
            ("a.test. A \u{e9}", "bad A A: \"\\u00e9\" at line: 1:12"),
            ("a.test.", "not a TTL: \"a.test.\" at line: 1:7"),
            ("  a.test. A 192.0.2.1", "not a TTL: \"a.test.\" at line: 1:10"),
            ("a.test. FOO x", "not a TTL: \"FOO\" at line: 1:12"),
            ("a. 60 FOO x", "expecting RR type or class, not this...: \"FOO\" at line: 1:10"),
            ("a. 60 IN FOO x", "unknown RR type: \"FOO\" at line: 1:13"),
            ("a. IN IN A 1.2.3.4", "expecting RR type or TTL, not this...: \"IN\" at line: 1:9"),
            ("a. IN 60x A 1.2.3.4", "not a TTL: \"60x\" at line: 1:10"),
            ("a. ANY A 1.2.3.4", "not a TTL: \"A\" at line: 1:9"),
            ("a..b A 1.2.3.4", "bad owner name: \"a..b\" at line: 1:5"),
            ("\"a\" A 1.2.3.4", "syntax error at beginning: \"\\\"\" at line: 1:1"),
            ("a. MX a", "bad MX Pref: \"a\" at line: 1:7"),
            ("a. MX 10", "bad MX Mx: \" \" at line: 1:6"),
            ("a. SRV 1 2 x b.", "bad SRV Port: \"x\" at line: 1:13"),
            ("a. SOA b. c. 1 2 x 4 5", "bad SOA zone parameter: \"x\" at line: 1:19"),
            ("a. SOA ( b. c. 1 2 3 4 5", "garbage after rdata: \"unbalanced brace\" at line: 1:24"),
            ("a. TXT b)", "bad TXT Txt: \"extra closing brace\" at line: 1:9"),
            ("a. TXT (b", "bad TXT Txt: \"unbalanced brace\" at line: 1:9"),
            ("a. TXT b \"open", "bad TXT Txt: \" \" at line: 1:7"),
        ] {
            assert_eq!(TextRecord::parse(text), Err(error.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn what_stands_behind_the_first_record_is_not_looked_at() {
        let record = TextRecord::parse("\na. A 192.0.2.1\nb. A nonsense").unwrap();
        assert_eq!((record.owner.as_slice(), record.rdata.len()), (&b"\x01a\0"[..], 4));
        // Without an owner it is the root's.
        assert_eq!(TextRecord::parse(" A 192.0.2.1").unwrap().owner, [0]);
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
