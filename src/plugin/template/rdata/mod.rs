//! RDATA from zone-file text, by type.
//!
//! Owns the octets of each part of a text ([`parts`] has which type has which), and RFC 3597's form for
//! any type. Never panics on any text.

mod bitmap;
mod location;
mod parts;
mod prefixes;
mod service;

use self::parts::{Part, parts};
use super::line::Field;
use super::record::{name_octets, parse_ttl, unescape};
use crate::dns::RecordType;
use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXLOWER_PERMISSIVE};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use time::{Date, Month};

/// The greatest length in octets of a character string (RFC 1035 §3.3).
const MOST_STRING: usize = 255;

/// The RDATA that these fields are the text of. The error says what is wrong; `missing` makes it where a
/// field is.
pub(super) fn octets(
    rtype: RecordType,
    fields: &[Field<'_>],
    missing: impl Fn(&str) -> String,
) -> Result<Vec<u8>, String> {
    let mut rdata = Rdata { rtype, fields: fields.iter(), octets: Vec::new() };
    let is_generic = fields.first().is_some_and(|field| field.text == "\\#" && !field.is_quoted);
    let known = parts(rtype);
    if is_generic {
        rdata.generic()?;
    } else if let Some(parts) = known {
        for (word, part) in parts {
            let ahead = rdata.fields.as_slice();
            let fault = ahead.iter().find(|field| field.is_fault && matches!(part, Part::Strings));
            let first = fault.or(ahead.first());
            rdata.part(*part).map_err(|_| {
                let what = format!("bad {rtype} {word}");
                first.map_or_else(|| missing(&what), |field| field.wrong(&what))
            })?;
        }
    } else {
        return Err(bad(rtype));
    }
    match rdata.fields.next() {
        None => Ok(rdata.octets),
        Some(field) => Err(field.wrong("garbage after rdata")),
    }
}

/// What is wrong where the text ends within a string.
pub(super) fn unended(rtype: RecordType) -> String {
    let last = parts(rtype).and_then(<[_]>::last).map_or("Rdata", |(word, _)| word);
    format!("bad {rtype} {last}")
}

/// Reads the fields of an RDATA one by one.
struct Rdata<'f, 't> {
    rtype: RecordType,
    fields: std::slice::Iter<'f, Field<'t>>,
    octets: Vec<u8>,
}

impl Rdata<'_, '_> {
    fn wrong(&self) -> String {
        bad(self.rtype)
    }

    fn part(&mut self, part: Part) -> Result<(), String> {
        let mut ahead = self.fields.as_slice().iter();
        let is_fit = match part {
            Part::Strings | Part::Parameters => !ahead.any(|field| field.is_fault),
            Part::String | Part::Text => !ahead.next().is_some_and(|field| field.is_fault),
            Part::Hex | Part::Base64 | Part::Types | Part::Location | Part::Prefixes => {
                ahead.all(|field| field.is_word())
            }
            _ => ahead.next().is_none_or(|field| field.is_word()),
        };
        if !is_fit {
            return Err(self.wrong());
        }
        match part {
            Part::Name => self.name(),
            Part::Number(octets) => self.number(octets),
            Part::Word(octets, words) => self.word(octets, words),
            Part::Time => self.time(),
            Part::String => self.string(),
            Part::Strings => self.strings(),
            Part::Text => self.unescaped(),
            Part::Ipv4 => self.address(|address: Ipv4Addr| address.octets().to_vec()),
            Part::Ipv6 => self.address(|address: Ipv6Addr| address.octets().to_vec()),
            Part::Hex => self.hex(),
            Part::Base64 => self.base64(),
            Part::Type => self.type_word(),
            Part::Types => self.types(),
            Part::Date => self.date(),
            Part::Salt => self.salt(),
            Part::Hash => self.hash(),
            Part::Hyphens(octets) => self.grouped('-', octets, 2),
            Part::Groups => self.grouped(':', 4, 4),
            Part::Location => self.rest(|fields| location::octets(fields)),
            Part::Prefixes => self.rest(|fields| prefixes::octets(fields)),
            Part::Parameters => {
                let read = service::octets(self.fields.by_ref());
                self.octets.extend(read.ok_or_else(|| self.wrong())?);
                Ok(())
            }
        }
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

    fn word(&mut self, octets: usize, words: &[(&str, u8)]) -> Result<(), String> {
        let text = self.fields.as_slice().first().map_or("", |field| field.text);
        let known = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        let Some((_, number)) = known else { return self.number(octets) };
        self.fields.next();
        self.octets.resize(self.octets.len() + octets - 1, 0);
        self.octets.push(*number);
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
        if self.fields.len() == 0 {
            return Err(self.wrong());
        }
        for field in self.fields.by_ref() {
            let wrong = || bad(self.rtype);
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

    /// A text as it is, its escapes decoded.
    fn unescaped(&mut self) -> Result<(), String> {
        let octets = self.fields.next().and_then(|field| unescape(field.text));
        let octets = octets.ok_or_else(|| self.wrong())?;
        self.octets.extend(octets.into_iter().map(|(octet, _)| octet));
        Ok(())
    }

    /// All remaining fields as one run of digits.
    fn digits(&mut self) -> String {
        self.fields.by_ref().map(|field| field.text).collect()
    }

    fn hex(&mut self) -> Result<(), String> {
        let digits = self.digits();
        let octets = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| self.wrong())?;
        self.octets.extend(octets);
        Ok(())
    }

    fn base64(&mut self) -> Result<(), String> {
        let digits = self.digits();
        let octets = BASE64.decode(digits.as_bytes()).map_err(|_| self.wrong())?;
        self.octets.extend(octets);
        Ok(())
    }

    fn type_word(&mut self) -> Result<(), String> {
        let wrong = self.wrong();
        let rtype: RecordType = self.text()?.to_uppercase().parse().map_err(|_| wrong)?;
        self.octets.extend(rtype.0.to_be_bytes());
        Ok(())
    }

    fn types(&mut self) -> Result<(), String> {
        let mut windows: BTreeMap<u8, [u8; 32]> = BTreeMap::new();
        for field in self.fields.by_ref() {
            let rtype = field.text.to_uppercase().parse::<RecordType>();
            let [window, bit] = rtype.map_err(|_| bad(self.rtype))?.0.to_be_bytes();
            windows.entry(window).or_default()[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
        }
        for (window, bits) in windows {
            let length = bits.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
            self.octets.extend([window, length as u8]);
            self.octets.extend_from_slice(&bits[..length]);
        }
        Ok(())
    }

    fn date(&mut self) -> Result<(), String> {
        let wrong = self.wrong();
        let text = self.text()?;
        let seconds = match text.len() {
            14 => seconds_of_date(text),
            _ => text.parse().ok().filter(|_| !text.starts_with('+')),
        };
        self.octets.extend(seconds.ok_or(wrong)?.to_be_bytes());
        Ok(())
    }

    fn salt(&mut self) -> Result<(), String> {
        let wrong = self.wrong();
        let text = self.text()?;
        let text = if text == "-" { "" } else { text };
        let octets = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| wrong)?;
        self.behind_length(&octets)
    }

    fn hash(&mut self) -> Result<(), String> {
        let wrong = self.wrong();
        let text = self.text()?.to_uppercase();
        let octets = BASE32HEX_NOPAD.decode(text.as_bytes()).map_err(|_| wrong)?;
        self.behind_length(&octets)
    }

    fn behind_length(&mut self, octets: &[u8]) -> Result<(), String> {
        self.octets.push(u8::try_from(octets.len()).map_err(|_| self.wrong())?);
        self.octets.extend_from_slice(octets);
        Ok(())
    }

    /// So many groups of so many hexadecimal digits.
    fn grouped(&mut self, mark: char, groups: usize, digits: usize) -> Result<(), String> {
        let wrong = self.wrong();
        let text = self.text()?;
        let all: Vec<&str> = text.split(mark).collect();
        if all.len() != groups || all.iter().any(|group| group.len() != digits) {
            return Err(wrong);
        }
        let octets = HEXLOWER_PERMISSIVE.decode(all.concat().as_bytes()).map_err(|_| wrong)?;
        self.octets.extend(octets);
        Ok(())
    }

    /// All fields that are left, read by `octets`.
    fn rest(
        &mut self,
        octets: impl FnOnce(&mut dyn Iterator<Item = &str>) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        let wrong = self.wrong();
        let read = octets(&mut self.fields.by_ref().map(|field| field.text)).ok_or(wrong)?;
        self.octets.extend(read);
        Ok(())
    }

    /// RFC 3597 §5: `\# LENGTH HEX`.
    fn generic(&mut self) -> Result<(), String> {
        let wrong = self.wrong();
        self.text()?;
        let length: usize = self.text()?.parse().map_err(|_| wrong.clone())?;
        self.hex()?;
        if self.octets.len() != length {
            return Err(wrong);
        }
        self.octets = bitmap::in_form(self.rtype, std::mem::take(&mut self.octets)).ok_or(wrong)?;
        Ok(())
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

fn bad(rtype: RecordType) -> String {
    format!("bad RDATA of type {rtype}")
}

/// Seconds since 1970 of YYYYMMDDHHmmSS, in serial arithmetic (RFC 4034 §3.1.5).
fn seconds_of_date(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| text.get(range)?.parse::<u8>().ok();
    let year = text.get(..4)?.parse().ok()?;
    let month = Month::try_from(part(4..6)?).ok()?;
    let date = Date::from_calendar_date(year, month, part(6..8)?).ok()?;
    let moment = date.with_hms(part(8..10)?, part(10..12)?, part(12..14)?).ok()?;
    Some(moment.assume_utc().unix_timestamp() as u32)
}

#[cfg(test)]
mod tests;
