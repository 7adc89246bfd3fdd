//! What rules do to a response on its way up.
//!
//! Owns the rebuilding of a response: question restored, owner names, name values, TTLs, rcode and
//! EDNS options changed. Records that no rule touches are copied.

use super::options::{self, EdnsOption};
use super::text::TextRewriter;
use crate::dns::{
    Malformed, Message, Name, Rcode, Record, RecordType, Response, Section, Writer, flags,
};

/// One change to a response. Of several, the last one ordered acts first.
#[derive(Debug, Clone)]
pub(super) enum Reversal {
    /// Owner names.
    Name(TextRewriter),
    /// Names in CNAME, DNAME, MX, NAPTR, NS, PTR, SOA (MNAME) and SRV records.
    Value(TextRewriter),
    /// TTLs, to within two bounds in seconds.
    Ttl(u32, u32),
    /// One rcode to another.
    Rcode(Rcode, Rcode),
    /// An EDNS option that the query was given goes: the last one with this code.
    OptionOut(u16),
    /// An EDNS option gets the client's own octets back.
    OptionBack(u16, Vec<u8>),
}

/// Why a response could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub(super) enum RevertError {
    /// The response does not parse.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A rule made something of a name that is none.
    #[error("invalid name after rewrite: {0}")]
    Name(String),
}

/// Rebuilds `response` with `question` (wire form) and all `reversals`.
pub(super) fn revert(
    response: &mut Response,
    question: &[u8],
    reversals: &[Reversal],
) -> Result<(), RevertError> {
    let message = response.message()?;
    let mut wire = Vec::with_capacity(message.wire().len() + question.len());
    let mut writer = Writer::new(&mut wire, message.id(), message.flags());
    writer.question(question);
    let mut has_records = false;
    for record in message.records() {
        has_records = true;
        copy(&mut writer, &message, &record, reversals)?;
    }
    let mut rcode = response.rcode;
    // CoreDNS goes by records, so a response without any keeps its rcode.
    if has_records {
        for reversal in reversals.iter().rev() {
            match reversal {
                Reversal::Rcode(old, new) if rcode == *old => rcode = *new,
                _ => {}
            }
        }
    }
    replace(response, wire, rcode);
    Ok(())
}

/// Puts a rebuilt message in place of the old one; error and writer stay.
pub(super) fn replace(response: &mut Response, wire: Vec<u8>, rcode: Rcode) {
    response.wire = wire;
    response.known_size = 0;
    response.rcode = rcode;
    let flags = (response.flags() & !flags::RCODE) | (rcode.0 & flags::RCODE);
    response.set_flags(flags);
}

fn copy(
    writer: &mut Writer<'_>,
    message: &Message<'_>,
    record: &Record,
    reversals: &[Reversal],
) -> Result<(), RevertError> {
    if record.is_opt() {
        copy_opt(writer, message, record, reversals);
        return Ok(());
    }
    let mut owner = None;
    let mut value = None;
    let mut ttl = record.ttl;
    for reversal in reversals.iter().rev() {
        match reversal {
            Reversal::Name(rewriter) => {
                let text = owner.take().unwrap_or_else(|| message.owner(record).to_string());
                owner = Some(rewriter.rewrite(&text).unwrap_or(text));
            }
            Reversal::Value(rewriter) => {
                let text = value.take().or_else(|| {
                    let at = name_offset(message, record)?;
                    message.rdata_name(record, at).map(|name| name.to_string())
                });
                value = text.map(|text| rewriter.rewrite(&text).unwrap_or(text));
            }
            Reversal::Ttl(least, most) => ttl = ttl.clamp(*least, (*most).max(*least)),
            Reversal::Rcode(..) | Reversal::OptionOut(_) | Reversal::OptionBack(..) => {}
        }
    }
    let owner = owner.map(parse_name).transpose()?.filter(|new| *new != message.owner(record));
    let rdata = match value {
        None => None,
        Some(text) => rdata_with(message, record, &parse_name(text)?),
    };
    match (owner, rdata) {
        (None, None) => writer.record(record.section, message, record, Some(ttl)),
        (Some(owner), None) => {
            writer.renamed_record(record.section, message, record, owner.as_bytes(), ttl);
        }
        (owner, Some(rdata)) => {
            let owner = owner.unwrap_or_else(|| message.owner(record));
            let (rtype, class) = (record.rtype, record.class);
            writer.raw_record(record.section, owner.as_bytes(), rtype, class, ttl, &rdata);
        }
    }
    Ok(())
}

fn parse_name(text: String) -> Result<Name, RevertError> {
    text.parse().map_err(|_| RevertError::Name(text))
}

/// Where in the RDATA the name stands that value rules rewrite.
fn name_offset(message: &Message<'_>, record: &Record) -> Option<usize> {
    match record.rtype {
        RecordType::CNAME
        | RecordType::DNAME
        | RecordType::NS
        | RecordType::PTR
        | RecordType::SOA => Some(0),
        RecordType::MX => Some(2),
        RecordType::SRV => Some(6),
        RecordType::NAPTR => {
            let rdata = message.rdata(record);
            let mut at = 4;
            for _ in 0..3 {
                at += 1 + usize::from(*rdata.get(at)?);
            }
            Some(at)
        }
        _ => None,
    }
}

/// The RDATA with its name replaced, or `None` when that changes nothing.
fn rdata_with(message: &Message<'_>, record: &Record, name: &Name) -> Option<Vec<u8>> {
    let at = name_offset(message, record)?;
    if message.rdata_name(record, at)? == *name {
        return None;
    }
    let (_, end) = Name::parse(message.wire(), record.rdata.start + at).ok()?;
    let mut rdata = message.rdata(record).get(..at)?.to_vec();
    rdata.extend_from_slice(name.as_bytes());
    if record.rtype == RecordType::SOA {
        let (mailbox, end) = Name::parse(message.wire(), end).ok()?;
        rdata.extend_from_slice(mailbox.as_bytes());
        rdata.extend_from_slice(message.wire().get(end..record.rdata.end)?);
    }
    Some(rdata)
}

/// Whether any of these is about EDNS options.
pub(super) fn concern_options(reversals: &[Reversal]) -> bool {
    let is_about =
        |reversal: &Reversal| matches!(reversal, Reversal::OptionOut(_) | Reversal::OptionBack(..));
    reversals.iter().any(is_about)
}

/// Takes out of `options` what the query was given, and gives back what the client had.
pub(super) fn revert_options(options: &mut Vec<EdnsOption>, reversals: &[Reversal]) {
    for reversal in reversals.iter().rev() {
        match reversal {
            Reversal::OptionOut(code) => {
                if let Some(place) = options.iter().rposition(|(known, _)| known == code) {
                    options.remove(place);
                }
            }
            Reversal::OptionBack(code, octets) => {
                for option in options.iter_mut().filter(|(known, _)| known == code) {
                    option.1.clone_from(octets);
                }
            }
            _ => {}
        }
    }
}

fn copy_opt(
    writer: &mut Writer<'_>,
    message: &Message<'_>,
    record: &Record,
    reversals: &[Reversal],
) {
    if !concern_options(reversals) {
        return writer.record(record.section, message, record, None);
    }
    let mut options = options::read(message.rdata(record));
    revert_options(&mut options, reversals);
    let rdata = options::write(&options);
    let root = Name::root();
    writer.raw_record(
        Section::Additional,
        root.as_bytes(),
        RecordType::OPT,
        record.class,
        record.ttl,
        &rdata,
    );
}
