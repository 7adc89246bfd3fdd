//! A response made of templates, until all that belongs to it is there; and the message that it becomes.

use super::directive::Template;
use super::record::TextRecord;
use crate::dns::options::EXTENDED_ERROR;
use crate::dns::{Class, Edns, Message, Name, Query, RecordType, Response, Section, Writer, flags};

/// The UDP payload size in the OPT record that carries an extended error, as in CoreDNS.
const ERROR_UDP_SIZE: u16 = 4096;

/// A response whose CNAME targets are being asked for.
pub(super) struct Draft {
    pub(super) template: usize,
    pub(super) answer: Vec<TextRecord>,
    pub(super) authority: Vec<TextRecord>,
    pub(super) additional: Vec<TextRecord>,
    /// Responses for CNAME targets, by the place of the CNAME in `answer`.
    pub(super) chased: Vec<(usize, Vec<u8>)>,
    /// The place of the CNAME being asked for.
    pub(super) asking: usize,
}

impl Draft {
    pub(super) fn write(&self, template: &Template, query: &Query<'_>, response: &mut Response) {
        let chased: Vec<(usize, Message<'_>)> = self
            .chased
            .iter()
            .filter_map(|(at, wire)| Some((*at, Message::parse(wire).ok()?)))
            .collect();
        let truncated = chased.last().map_or(0, |(_, message)| message.flags() & flags::TC);
        let mut writer =
            response.start_with_records(query, template.rcode, flags::AA | truncated, "template");
        for (at, record) in self.answer.iter().enumerate() {
            record.write(Section::Answer, &mut writer);
            for (_, message) in chased.iter().filter(|(place, _)| *place == at) {
                for found in message.records().filter(|found| found.section == Section::Answer) {
                    writer.record(Section::Answer, message, &found, None);
                }
            }
        }
        for record in &self.authority {
            record.write(Section::Authority, &mut writer);
        }
        for record in &self.additional {
            record.write(Section::Additional, &mut writer);
        }
        if let Some((code, reason)) = &template.extended_error {
            write_error(&mut writer, *code, reason);
        }
    }
}

impl TextRecord {
    fn write(&self, section: Section, writer: &mut Writer<'_>) {
        writer.raw_record(section, &self.owner, self.rtype, self.class, self.ttl, &self.rdata);
    }
}

/// An OPT record with an extended error (RFC 8914 §2).
fn write_error(writer: &mut Writer<'_>, code: u16, reason: &str) {
    let mut option = EXTENDED_ERROR.to_be_bytes().to_vec();
    let length = u16::try_from(reason.len() + 2).unwrap_or(2);
    option.extend_from_slice(&length.to_be_bytes());
    option.extend_from_slice(&code.to_be_bytes());
    if usize::from(length) == reason.len() + 2 {
        option.extend_from_slice(reason.as_bytes());
    }
    writer.raw_record(
        Section::Additional,
        Name::root().as_bytes(),
        RecordType::OPT,
        Class(ERROR_UDP_SIZE),
        u32::from(Edns::DO),
        &option,
    );
}
