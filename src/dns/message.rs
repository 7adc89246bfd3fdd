//! Read message bytes: a checked walk over the sections.
//!
//! A [`Message`] is parsed once, whole; afterwards its records are offsets. Never allocates.

use super::edns::Edns;
use super::layout::{self, Piece};
use super::malformed::Malformed;
use super::name::{self, Name, Spelled};
use super::record::{Record, Section};
use super::sizes;
use super::words::{Class, RecordType};

/// A message whose every section was walked once: offsets below hold.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    wire: &'a [u8],
    questions: u16,
    counts: [u16; 3],
    question_end: usize,
    end: usize,
}

impl<'a> Message<'a> {
    /// Checks the whole message: names, lengths, counts, and the names inside the RDATA of the
    /// types that may be compressed (RFC 3597 §4). Octets behind the last record are allowed, and
    /// so are counts that promise records where the message has ended: CoreDNS takes both.
    ///
    /// # Errors
    ///
    /// What of it is malformed, the first that is met.
    pub fn parse(wire: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let header = wire.first_chunk::<{ sizes::HEADER }>().ok_or(Malformed::Cut)?;
        let promised = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let mut questions = 0;
        let mut at = sizes::HEADER;
        while questions < promised(4) && at < wire.len() {
            let (_, end) = name::measure(wire, at)?;
            at = end + sizes::TYPE_AND_CLASS;
            if at > wire.len() {
                return Err(Malformed::Cut);
            }
            questions += 1;
        }
        Message::parse_records(wire, questions, at)
    }

    /// Checks the names of the question section alone. A message may end behind the name or the
    /// type of its last question, or behind its header: CoreDNS takes all three.
    ///
    /// # Errors
    ///
    /// What of a name is malformed; [`Malformed::Cut`] without a whole header.
    pub fn check_questions(wire: &[u8]) -> Result<(), Malformed> {
        let promised = word(wire, 4).ok_or(Malformed::Cut)?;
        let mut at = sizes::HEADER;
        for _ in 0..if wire.len() == sizes::HEADER { 0 } else { promised } {
            let (_, end) = name::measure(wire, at)?;
            at = wire.len().min(end + sizes::TYPE_AND_CLASS);
        }
        Ok(())
    }

    /// As [`Message::parse`], for a message whose one question was read already and ends, complete
    /// or not, at `question_end`.
    pub(super) fn parse_behind(
        wire: &'a [u8],
        question_end: usize,
    ) -> Result<Message<'a>, Malformed> {
        Message::parse_records(wire, 1, question_end)
    }

    fn parse_records(
        wire: &'a [u8],
        questions: u16,
        question_end: usize,
    ) -> Result<Message<'a>, Malformed> {
        let header = wire.first_chunk::<{ sizes::HEADER }>().ok_or(Malformed::Cut)?;
        let promised = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let mut at = question_end;
        let mut counts = [0; 3];
        for section in Section::ALL {
            let count = &mut counts[section as usize];
            while *count < promised(section.count_place().start) && at < wire.len() {
                at = Record::check(wire, at, section)?.rdata.end;
                *count += 1;
            }
        }
        Ok(Message { wire, questions, counts, question_end, end: at })
    }

    /// The bytes.
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }

    /// The id.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.wire[0], self.wire[1]])
    }

    /// The flag word.
    pub fn flags(&self) -> u16 {
        u16::from_be_bytes([self.wire[2], self.wire[3]])
    }

    /// The count of a section's records that are there: never more than the header says.
    pub fn count(&self, section: Section) -> u16 {
        self.counts[section as usize]
    }

    /// The count of questions that are there: never more than QDCOUNT.
    pub fn questions(&self) -> u16 {
        self.questions
    }

    /// The first question, or `None` when there is none.
    pub fn question(&self) -> Option<(Name, RecordType, Class)> {
        if self.questions == 0 {
            return None;
        }
        let (name, end) = Name::parse(self.wire, sizes::HEADER).ok()?;
        Some((name, RecordType(word(self.wire, end)?), Class(word(self.wire, end + 2)?)))
    }

    /// The question section as it stands there.
    pub fn question_section(&self) -> &'a [u8] {
        self.wire.get(sizes::HEADER..self.question_end).unwrap_or_default()
    }

    /// Offset just behind the question section.
    pub fn question_end(&self) -> usize {
        self.question_end
    }

    /// Offset just behind the last record.
    pub fn end(&self) -> usize {
        self.end
    }

    /// All records in order, OPT included. Allocates nothing.
    pub fn records(&self) -> impl Iterator<Item = Record> + use<'a> {
        let (wire, counts) = (self.wire, self.counts);
        let mut at = self.question_end;
        Section::ALL
            .into_iter()
            .flat_map(move |section| (0..counts[section as usize]).map(move |_| section))
            .map_while(move |section| {
                let record = Record::read(wire, at, name::skip(wire, at)?, section)?;
                at = record.rdata.end;
                Some(record)
            })
    }

    /// The owner name of a record of this message.
    pub fn owner(&self, record: &Record) -> Name {
        Name::parse(self.wire, record.at).map_or_else(|_| Name::root(), |(name, _)| name)
    }

    /// The record's RDATA as it lies in the message: names inside may be compressed.
    pub fn rdata(&self, record: &Record) -> &'a [u8] {
        self.wire.get(record.rdata.clone()).unwrap_or_default()
    }

    /// The name at an offset inside a record's RDATA (0 for CNAME, NS, PTR, DNAME; 2 for MX; 6 for
    /// SRV), or `None` when no name lies there.
    pub fn rdata_name(&self, record: &Record, offset: usize) -> Option<Name> {
        let at = record.rdata.start.checked_add(offset)?;
        let (name, end) = Name::parse(self.wire, at).ok()?;
        (end <= record.rdata.end).then_some(name)
    }

    /// The last OPT record of the additional section.
    pub fn edns(&self) -> Option<Edns> {
        if self.count(Section::Additional) == 0 {
            return None;
        }
        self.records().filter(Record::is_opt).last().map(|record| Edns::read(&record))
    }

    /// Length in octets when no name is compressed: CoreDNS's message size. An OPT that is in the message counts; the client's own is added only later.
    pub fn uncompressed_size(&self) -> usize {
        let mut size = sizes::HEADER;
        let mut at = sizes::HEADER;
        for _ in 0..self.questions {
            let Ok((length, end)) = name::measure(self.wire, at) else { break };
            size += length + sizes::TYPE_AND_CLASS;
            at = end + sizes::TYPE_AND_CLASS;
        }
        let measured = |at| name::measure(self.wire, at).map_or(0, |(length, _)| length);
        for record in self.records() {
            size += measured(record.at) + sizes::RECORD_FIELDS;
            let (rtype, class, rdata) = (record.rtype, record.class, record.rdata.clone());
            // Every record was checked when the message was parsed.
            let _ = layout::pieces(rtype, class, self.wire, rdata, |piece| {
                size += match piece {
                    Piece::Octets(octets) => octets.len(),
                    Piece::Name(at) => measured(at),
                };
                Ok(())
            });
        }
        size
    }

    /// The owner name of a record in the case it came in.
    pub(super) fn spelled_owner(&self, record: &Record) -> Option<Spelled<'_>> {
        Spelled::parse(self.wire, record.at).ok().map(|(spelled, _)| spelled)
    }
}

/// The two octets at `at` as a number.
pub(super) fn word(wire: &[u8], at: usize) -> Option<u16> {
    wire.get(at..)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rdata_that_disagrees_with_its_length_is_malformed() {
        for (rtype, rdata) in [
            (RecordType::A, &b"\x7f\0\0"[..]),
            (RecordType::AAAA, b"\0\0\0\0"),
            (RecordType::CNAME, b"\x01a\0\0"),
            (RecordType::CNAME, b"\x01a"),
            (RecordType::MX, b"\0\x0a"),
            (RecordType::SOA, b"\0\0\0\0\0\x01"),
            (RecordType::NAPTR, b"\0\x01\0\x02\x30"),
            (RecordType::OPT, b"\0\x0a\0\x05abc"),
        ] {
            let mut wire = b"\0\x01\x80\0\0\0\0\x01\0\0\0\0\0".to_vec();
            wire.extend_from_slice(&rtype.0.to_be_bytes());
            wire.extend_from_slice(b"\0\x01\0\0\0\x05\0");
            wire.push(rdata.len() as u8);
            wire.extend_from_slice(rdata);
            assert!(Message::parse(&wire).is_err(), "{rtype} {rdata:?}");
        }
    }

    #[test]
    fn questions_that_are_promised_where_the_message_ends_are_not_there() {
        let wire = b"\0\x01\x80\0\0\x02\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        let message = Message::parse(wire).unwrap();
        assert_eq!(message.questions(), 1);
        assert_eq!(message.question().unwrap().0.as_bytes(), b"\x01a\0");
        assert_eq!(message.uncompressed_size(), wire.len());
        assert_eq!(Message::parse(&wire[..12]).unwrap().question(), None);
    }

    #[test]
    fn pointers_that_chase_each_other_are_refused() {
        let mut wire = b"\0\x01\x80\0\0\0\0\x01\0\0\0\0\0".to_vec();
        // A chain of pointers, each to the one before; an owner that walks it all.
        wire.extend_from_slice(b"\xff\0\0\x01\0\0\0\x05\x02\x00");
        let start = wire.len();
        wire.extend_from_slice(b"\x01a\0\0");
        while wire.len() < start + 512 {
            let before = (wire.len() - 2).max(start) as u16;
            let target = if wire.len() == start + 4 { start as u16 } else { before };
            wire.extend_from_slice(&(0xc000 | target).to_be_bytes());
        }
        wire[7] = 2;
        let last = wire.len() as u16 - 2;
        wire.extend_from_slice(&(0xc000 | last).to_be_bytes());
        wire.extend_from_slice(b"\xff\0\0\x01\0\0\0\x05\0\0");
        assert_eq!(Message::parse(&wire).unwrap_err(), Malformed::Pointer);
    }
}
