//! RDATA as dig writes it (RFC 1035 §5.1, and each type's own RFC).
//!
//! Owns the table of layouts, one row a type. hickory-proto's texts are not dig's (quotes, escapes,
//! empty lists), and scripts read dig's. What has no row, or does not fit its row, is written as
//! RFC 3597 has it: `\# LENGTH HEX`.

use super::name;
use crate::dns::{Class, RecordType};
use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXUPPER};
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use time::OffsetDateTime;
use time::macros::format_description;

/// One field of a layout.
#[derive(Debug, Clone, Copy)]
enum Field {
    U8,
    U16,
    U32,
    V4,
    V6,
    Name,
    /// A character string, in quotes.
    Text,
    /// All character strings that follow.
    Texts,
    /// The rest as one text in quotes.
    LongText,
    /// A length and a word of letters and digits.
    Tag,
    /// The rest in hexadecimal digits, in pieces.
    Hex,
    Base64,
    /// A length and octets in hexadecimal digits, `-` for none.
    Salt,
    /// A length and octets in base32.
    Hash,
    Type,
    /// The rest as a bit map of types.
    Types,
    /// Seconds since 1970 as a date.
    Date,
    /// The rest in pairs of digits between dashes.
    Eui,
    /// The rest as parameters of a service (RFC 9460).
    Parameters,
}

use Field::{
    Base64, Date, Eui, Hash, Hex, LongText, Parameters, Salt, Tag, Text, Texts, Type, Types, U8,
    U16, U32, V4, V6,
};

/// The layouts.
#[rustfmt::skip] // A table.
static LAYOUTS: &[(RecordType, &[Field])] = &[
    (RecordType::A, &[V4]),
    (RecordType::NS, &[Field::Name]),
    (RecordType::CNAME, &[Field::Name]),
    (RecordType::SOA, &[Field::Name, Field::Name, U32, U32, U32, U32, U32]),
    (RecordType::PTR, &[Field::Name]),
    (RecordType::HINFO, &[Text, Text]),
    (RecordType::MINFO, &[Field::Name, Field::Name]),
    (RecordType::MX, &[U16, Field::Name]),
    (RecordType::TXT, &[Texts]),
    (RecordType::RP, &[Field::Name, Field::Name]),
    (RecordType::AFSDB, &[U16, Field::Name]),
    (RecordType::RT, &[U16, Field::Name]),
    (RecordType::PX, &[U16, Field::Name, Field::Name]),
    (RecordType::AAAA, &[V6]),
    (RecordType::SRV, &[U16, U16, U16, Field::Name]),
    (RecordType::NAPTR, &[U16, U16, Text, Text, Text, Field::Name]),
    (RecordType::KX, &[U16, Field::Name]),
    (RecordType::DNAME, &[Field::Name]),
    (RecordType::DS, &[U16, U8, U8, Hex]),
    (RecordType::SSHFP, &[U8, U8, Hex]),
    (RecordType::RRSIG, &[Type, U8, U8, U32, Date, Date, U16, Field::Name, Base64]),
    (RecordType::NSEC, &[Field::Name, Types]),
    (RecordType::DNSKEY, &[U16, U8, U8, Base64]),
    (RecordType::DHCID, &[Base64]),
    (RecordType::NSEC3, &[U8, U8, U16, Salt, Hash, Types]),
    (RecordType::NSEC3PARAM, &[U8, U8, U16, Salt]),
    (RecordType::TLSA, &[U8, U8, U8, Hex]),
    (RecordType::SMIMEA, &[U8, U8, U8, Hex]),
    (RecordType::CDS, &[U16, U8, U8, Hex]),
    (RecordType::CDNSKEY, &[U16, U8, U8, Base64]),
    (RecordType::OPENPGPKEY, &[Base64]),
    (RecordType::CSYNC, &[U32, U16, Types]),
    (RecordType::ZONEMD, &[U32, U8, U8, Hex]),
    (RecordType::SVCB, &[U16, Field::Name, Parameters]),
    (RecordType::HTTPS, &[U16, Field::Name, Parameters]),
    (RecordType::SPF, &[Texts]),
    (RecordType::L32, &[U16, V4]),
    (RecordType::LP, &[U16, Field::Name]),
    (RecordType::EUI48, &[Eui]),
    (RecordType::EUI64, &[Eui]),
    (RecordType::URI, &[U16, U16, LongText]),
    (RecordType::CAA, &[U8, Tag, LongText]),
    (RecordType::AVC, &[Texts]),
];

/// The RDATA of a record of `message`, whose names may lie elsewhere in it.
pub(super) fn text(rtype: RecordType, class: Class, message: &[u8], rdata: Range<usize>) -> String {
    let octets = message.get(rdata.clone()).unwrap_or_default();
    let is_of_the_internet =
        class == Class::IN || !matches!(rtype, RecordType::A | RecordType::AAAA);
    let layout = LAYOUTS.iter().find(|(known, _)| *known == rtype).filter(|_| is_of_the_internet);
    let written = layout.and_then(|(_, fields)| {
        let mut reader = Reader { message, at: rdata.start, end: rdata.end };
        let words: Option<Vec<String>> = fields.iter().map(|field| reader.word(*field)).collect();
        // An empty list leaves no word, and no blank.
        let words: Vec<String> = words?.into_iter().filter(|word| !word.is_empty()).collect();
        (reader.at == reader.end).then(|| words.join(" "))
    });
    written.unwrap_or_else(|| unknown(octets))
}

fn unknown(octets: &[u8]) -> String {
    let digits = pieces(&HEXUPPER.encode(octets));
    format!("\\# {} {digits}", octets.len()).trim_end().to_owned()
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
    end: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.end)?;
        let octets = self.message.get(self.at..end)?;
        self.at = end;
        Some(octets)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn rest(&mut self) -> Option<&'m [u8]> {
        self.take(self.end.checked_sub(self.at)?)
    }

    /// What stands behind an octet that says how long it is.
    fn counted(&mut self) -> Option<&'m [u8]> {
        let [length] = self.array()?;
        self.take(usize::from(length))
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn name(&mut self) -> Option<String> {
        let (name, end) = read_name(self.message, self.at)?;
        (end <= self.end).then(|| {
            self.at = end;
            name::text(&name)
        })
    }

    fn word(&mut self, field: Field) -> Option<String> {
        Some(match field {
            U8 => self.array::<1>()?[0].to_string(),
            U16 => self.u16()?.to_string(),
            U32 => self.u32()?.to_string(),
            V4 => Ipv4Addr::from(self.array::<4>()?).to_string(),
            V6 => Ipv6Addr::from(self.array::<16>()?).to_string(),
            Field::Name => self.name()?,
            Text => quoted(self.counted()?),
            Texts => {
                let mut texts = Vec::new();
                while self.at < self.end {
                    texts.push(quoted(self.counted()?));
                }
                texts.join(" ")
            }
            LongText => quoted(self.rest()?),
            Tag => {
                let tag = self.counted()?;
                let is_word = !tag.is_empty() && tag.iter().all(u8::is_ascii_alphanumeric);
                is_word.then(|| String::from_utf8_lossy(tag).into_owned())?
            }
            Hex => pieces(&HEXUPPER.encode(self.rest()?)),
            Base64 => pieces(&BASE64.encode(self.rest()?)),
            Salt => match self.counted()? {
                [] => "-".to_owned(),
                salt => HEXUPPER.encode(salt),
            },
            Hash => BASE32HEX_NOPAD.encode(self.counted()?),
            Type => RecordType(self.u16()?).to_string(),
            Types => types(self.rest()?)?,
            Date => date(self.u32()?),
            Eui => {
                let pairs: Vec<String> =
                    self.rest()?.iter().map(|octet| format!("{octet:02x}")).collect();
                pairs.join("-")
            }
            Parameters => self.parameters()?,
        })
    }

    fn parameters(&mut self) -> Option<String> {
        let mut words = Vec::new();
        while self.at < self.end {
            let key = self.u16()?;
            let length = self.u16()?;
            let value = self.take(usize::from(length))?;
            words.push(parameter(key, value)?);
        }
        Some(words.join(" "))
    }
}

/// A name of `message` and where what follows it begins.
pub(super) fn read_name(message: &[u8], at: usize) -> Option<(Name, usize)> {
    let mut decoder = BinDecoder::new(message).clone(u16::try_from(at).ok()?);
    let name = Name::read(&mut decoder).ok()?;
    Some((name, decoder.index()))
}

/// A text in quotes.
fn quoted(octets: &[u8]) -> String {
    let mut text = String::from("\"");
    for &octet in octets {
        match octet {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(octet));
            }
            0x20..=0x7e => text.push(char::from(octet)),
            // Writing to a String does not fail.
            _ => {
                let _ = write!(text, "\\{octet:03}");
            }
        }
    }
    text.push('"');
    text
}

/// Long digits with a blank after every 56, as dig writes them.
fn pieces(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 56);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && place % 56 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A bit map of types (RFC 4034 §4.1.2).
fn types(mut map: &[u8]) -> Option<String> {
    let mut words = Vec::new();
    while let Some((head, behind)) = map.split_first_chunk::<2>() {
        let (bits, behind) = behind.split_at_checked(usize::from(head[1]))?;
        map = behind;
        for (place, octet) in bits.iter().enumerate() {
            for bit in 0..8_u16 {
                if octet & (0x80 >> bit) != 0 {
                    let low = u16::try_from(place * 8).ok()? + bit;
                    words.push(RecordType(u16::from(head[0]) << 8 | low).to_string());
                }
            }
        }
    }
    map.is_empty().then(|| words.join(" "))
}

/// `YYYYMMDDHHmmSS` (RFC 4034 §3.2), in the years that 32 bits count from 1970.
fn date(seconds: u32) -> String {
    let format = format_description!("[year][month][day][hour][minute][second]");
    let time = OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(seconds));
    time.format(&format).unwrap_or_default()
}

/// `key=value` (RFC 9460 §2.1).
fn parameter(key: u16, value: &[u8]) -> Option<String> {
    let list = |size: usize, each: &dyn Fn(&[u8]) -> Option<String>| -> Option<String> {
        if value.is_empty() || !value.len().is_multiple_of(size) {
            return None;
        }
        let words: Option<Vec<String>> = value.chunks(size).map(each).collect();
        Some(words?.join(","))
    };
    Some(match key {
        0 => {
            let word =
                |pair: &[u8]| Some(parameter_name(u16::from_be_bytes(pair.try_into().ok()?)));
            format!("mandatory={}", list(2, &word)?)
        }
        1 => {
            let mut reader = Reader { message: value, at: 0, end: value.len() };
            let mut words = Vec::new();
            while reader.at < reader.end {
                let word = quoted(reader.counted()?);
                // A comma within one of them is escaped twice (RFC 9460 appendix A.1).
                words.push(word[1..word.len() - 1].replace('\\', "\\\\").replace(',', "\\\\,"));
            }
            format!("alpn=\"{}\"", words.join(","))
        }
        2 if value.is_empty() => "no-default-alpn".to_owned(),
        3 => format!("port={}", u16::from_be_bytes(value.try_into().ok()?)),
        4 => {
            let word =
                |four: &[u8]| Some(Ipv4Addr::from(<[u8; 4]>::try_from(four).ok()?).to_string());
            format!("ipv4hint={}", list(4, &word)?)
        }
        5 => format!("ech={}", BASE64.encode(value)),
        6 => {
            let word = |address: &[u8]| {
                Some(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).to_string())
            };
            format!("ipv6hint={}", list(16, &word)?)
        }
        7 => format!("dohpath={}", quoted(value)),
        _ if value.is_empty() => parameter_name(key),
        _ => format!("{}={}", parameter_name(key), quoted(value)),
    })
}

fn parameter_name(key: u16) -> String {
    const NAMES: [&str; 8] =
        ["mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath"];
    match NAMES.get(usize::from(key)) {
        Some(name) => (*name).to_owned(),
        None => format!("key{key}"),
    }
}
