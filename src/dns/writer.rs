//! Write message bytes: header, question, records; names compressed, sizes bounded.
//!
//! Never allocates but to grow the buffer it writes to, and never writes more than its limit.

use super::layout::{self, Piece};
use super::message::{Message, Record, Section};
use super::name::Spelled;
use super::sizes;
use super::suffixes::Suffixes;
use super::words::{Class, RecordType, flags};

/// Writes a message into a buffer, compressing owner names and the RDATA names of the types of
/// RFC 1035. A record that does not fit within the limit is left out, with all that come after it,
/// and TC is set.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    limit: usize,
    full: bool,
    suffixes: Option<Suffixes>,
}

impl<'b> Writer<'b> {
    /// Starts a message: clears `out`, writes the 12 octets of the header with all counts 0.
    pub fn new(out: &'b mut Vec<u8>, id: u16, flags: u16) -> Writer<'b> {
        out.clear();
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        Writer { out, limit: sizes::MESSAGE_MOST, full: false, suffixes: Some(Suffixes::default()) }
    }

    /// Starts a message with the id, flags and first question of another: no message with more
    /// questions comes to where messages are rebuilt.
    pub fn copying(out: &'b mut Vec<u8>, from: &Message<'_>) -> Writer<'b> {
        let wire = from.wire();
        let mut writer = Writer::new(out, u16::from_be_bytes([wire[0], wire[1]]), from.flags());
        if from.questions() > 0
            && let Ok((name, end)) = Spelled::parse(wire, sizes::HEADER)
        {
            let rest = wire.get(end..end + sizes::TYPE_AND_CLASS).unwrap_or_default();
            writer.name(name.as_bytes());
            writer.out.extend_from_slice(rest);
            writer.add_to_count(4);
        }
        writer
    }

    /// Writes all names in full.
    pub fn uncompressed(mut self) -> Writer<'b> {
        self.suffixes = None;
        self
    }

    /// Sets the greatest size of the message in octets; 65535 unless told, and at most.
    pub fn limited_to(mut self, octets: usize) -> Writer<'b> {
        self.limit = octets.min(sizes::MESSAGE_MOST);
        self
    }

    /// Appends a question in wire form (QNAME uncompressed, QTYPE, QCLASS).
    pub fn question(&mut self, question: &[u8]) {
        let Ok((name, end)) = Spelled::parse(question, 0) else {
            debug_assert!(false, "a question begins with a name");
            return;
        };
        self.name(name.as_bytes());
        self.out.extend_from_slice(question.get(end..).unwrap_or_default());
        self.add_to_count(4);
    }

    /// Appends a copy of another message's record to `section`, with its TTL replaced if given.
    /// Sections must be written in order. The counts are kept.
    pub fn record(
        &mut self,
        section: Section,
        from: &Message<'_>,
        record: &Record,
        ttl: Option<u32>,
    ) {
        let Some(owner) = from.spelled_owner(record) else { return };
        let parts = Parts {
            owner: owner.as_bytes(),
            rtype: record.rtype,
            class: record.class,
            ttl: ttl.unwrap_or(record.ttl),
        };
        self.append(section, &parts, from.wire(), record.rdata.clone());
    }

    /// Appends a copy of another message's record under another owner name (in wire form) and
    /// with another TTL.
    pub fn renamed_record(
        &mut self,
        section: Section,
        from: &Message<'_>,
        record: &Record,
        owner: &[u8],
        ttl: u32,
    ) {
        let Ok((owner, _)) = Spelled::parse(owner, 0) else {
            debug_assert!(false, "an owner is a name");
            return;
        };
        let parts =
            Parts { owner: owner.as_bytes(), rtype: record.rtype, class: record.class, ttl };
        self.append(section, &parts, from.wire(), record.rdata.clone());
    }

    /// Appends a record given by its parts; `owner` is a name in wire form, `rdata` holds no
    /// compressed names.
    pub fn raw_record(
        &mut self,
        section: Section,
        owner: &[u8],
        rtype: RecordType,
        class: Class,
        ttl: u32,
        rdata: &[u8],
    ) {
        let Ok((owner, _)) = Spelled::parse(owner, 0) else {
            debug_assert!(false, "an owner is a name");
            return;
        };
        let parts = Parts { owner: owner.as_bytes(), rtype, class, ttl };
        self.append(section, &parts, rdata, 0..rdata.len());
    }

    /// Appends an OPT record whatever the limit says: room for it was kept.
    pub(super) fn opt(&mut self, udp_size: Class, ttl: u32, options: &[u8]) {
        self.out.push(0);
        self.out.extend_from_slice(&RecordType::OPT.0.to_be_bytes());
        self.out.extend_from_slice(&udp_size.0.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        let length = options.len().min(sizes::MESSAGE_MOST);
        self.out.extend_from_slice(&(length as u16).to_be_bytes());
        self.out.extend_from_slice(&options[..length]);
        self.add_to_count(Section::Additional.count_place().start);
    }

    /// True when a record was left out because of the limit.
    pub fn is_cut(&self) -> bool {
        self.full
    }

    fn append(
        &mut self,
        section: Section,
        parts: &Parts<'_>,
        source: &[u8],
        rdata: std::ops::Range<usize>,
    ) {
        if self.full {
            return;
        }
        let start = self.out.len();
        self.name(parts.owner);
        self.out.extend_from_slice(&parts.rtype.0.to_be_bytes());
        self.out.extend_from_slice(&parts.class.0.to_be_bytes());
        self.out.extend_from_slice(&parts.ttl.to_be_bytes());
        let length_at = self.out.len();
        self.out.extend_from_slice(&[0; 2]);
        let written = layout::pieces(parts.rtype, parts.class, source, rdata, |piece| {
            match piece {
                Piece::Octets(octets) => {
                    self.out.extend_from_slice(source.get(octets).unwrap_or_default());
                }
                Piece::Name(at) => {
                    let (name, _) = Spelled::parse(source, at)?;
                    if layout::may_compress(parts.rtype) {
                        self.name(name.as_bytes());
                    } else {
                        self.name_in_full(name.as_bytes());
                    }
                }
            }
            Ok(())
        });
        if written.is_err() || self.out.len() > self.limit {
            self.out.truncate(start);
            self.full = true;
            self.out[2] |= (flags::TC >> 8) as u8;
            return;
        }
        let length = (self.out.len() - length_at - 2) as u16;
        self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        self.add_to_count(section.count_place().start);
    }

    fn name(&mut self, name: &[u8]) {
        match &mut self.suffixes {
            Some(suffixes) => suffixes.write(self.out, name),
            None => self.out.extend_from_slice(name),
        }
    }

    fn name_in_full(&mut self, name: &[u8]) {
        match &mut self.suffixes {
            Some(suffixes) => suffixes.write_in_full(self.out, name),
            None => self.out.extend_from_slice(name),
        }
    }

    /// The limit keeps every count far below its greatest value.
    fn add_to_count(&mut self, at: usize) {
        let count = u16::from_be_bytes([self.out[at], self.out[at + 1]]).saturating_add(1);
        self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
}

/// A record but for its RDATA.
struct Parts<'p> {
    owner: &'p [u8],
    rtype: RecordType,
    class: Class,
    ttl: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Malformed, Query, Received, ReplyLimits, Response, finish_reply, fit_reply};
    use hickory_proto::op;
    use hickory_proto::rr::{self, Name, RData, rdata};
    use hickory_proto::serialize::binary::{BinDecodable, BinEncodable, BinEncoder, NameEncoding};
    use proptest::prelude::*;

    fn copy(message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::copying(&mut out, message);
        for record in message.records() {
            writer.record(record.section, message, &record, None);
        }
        out
    }

    #[test]
    fn only_the_types_of_rfc_1035_are_written_compressed() {
        // Each RDATA ends in a name that is a pointer to the question's; what is before it.
        let table: &[(RecordType, &[u8], bool)] = &[
            (RecordType::NS, b"", true),
            (RecordType::CNAME, b"", true),
            (RecordType::PTR, b"", true),
            (RecordType::MX, b"\0\x0a", true),
            (RecordType::MINFO, b"\0", true),
            (RecordType::DNAME, b"", false),
            (RecordType::SRV, b"\0\0\0\x05\x13\xc4", false),
            (RecordType::NAPTR, b"\0\x01\0\x02\x01u\x01x\0", false),
            (RecordType::AFSDB, b"\0\x01", false),
            (RecordType::RP, b"\0", false),
            (RecordType::KX, b"\0\x01", false),
            (RecordType::RRSIG, b"\0\x01\x08\x02\0\0\0\x05\0\0\0\x01\0\0\0\0\0\x07", false),
            (RecordType::NSEC, b"", false),
            (RecordType::SVCB, b"\0\x01", false),
        ];
        let name = b"\x01a\x04test\0";
        for (rtype, before, compressed) in table {
            let mut wire = b"\0\x01\x80\0\0\x01\0\x01\0\0\0\0\x01a\x04test\0\0\x01\0\x01".to_vec();
            wire.extend_from_slice(b"\xc0\x0c");
            wire.extend_from_slice(&rtype.0.to_be_bytes());
            wire.extend_from_slice(b"\0\x01\0\0\0\x05\0");
            wire.push(before.len() as u8 + 2);
            wire.extend_from_slice(before);
            wire.extend_from_slice(b"\xc0\x0c");
            let message = Message::parse(&wire).unwrap();
            let out = copy(&message);
            let written = Message::parse(&out).unwrap();
            let record = written.records().next().unwrap();
            let expected =
                if *compressed { [before, &b"\xc0\x0c"[..]] } else { [before, &name[..]] }.concat();
            assert_eq!(written.rdata(&record), expected, "{rtype}");
            assert_eq!(written.uncompressed_size(), message.uncompressed_size(), "{rtype}");
        }
    }

    #[test]
    fn a_name_that_is_written_in_full_is_pointed_to_later() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 1, flags::QR);
        let (class, answer) = (Class::IN, Section::Answer);
        let target = b"\x01n\x03new\x04test\0";
        writer.raw_record(answer, b"\x03old\0", RecordType::DNAME, class, 5, target);
        writer.raw_record(answer, target, RecordType::A, class, 5, &[192, 0, 2, 1]);
        let record = out.len() - 16;
        assert_eq!(out[record..record + 2], 0xc01b_u16.to_be_bytes(), "the target of the DNAME");
    }

    #[test]
    fn rdata_of_unknown_types_is_copied_whatever_it_looks_like() {
        let wire = b"\0\x01\x80\0\0\x01\0\x01\0\0\0\0\x01u\0\0\x01\0\x01\
            \xc0\x0c\xff\0\0\x01\0\0\0\x05\0\x06\xc0\x0c\xc0\x0c\x01\x02";
        let message = Message::parse(wire).unwrap();
        assert_eq!(copy(&message), wire);
    }

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
    fn a_record_behind_the_limit_is_left_out_and_tc_set() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 1, flags::QR).limited_to(12 + 15);
        for _ in 0..2 {
            let address = [127, 0, 0, 1];
            writer.raw_record(Section::Answer, &[0], RecordType::A, Class::IN, 5, &address);
        }
        assert!(writer.is_cut());
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.count(Section::Answer), 1);
        assert_eq!(message.flags(), flags::QR | flags::TC);
    }

    #[test]
    fn names_beyond_a_pointers_reach_are_written_in_full() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 1, flags::QR);
        for count in 0..600u16 {
            let mut owner = vec![31];
            owner.resize(28, b'x');
            owner.extend_from_slice(format!("{count:04}").as_bytes());
            owner.push(0);
            for _ in 0..2 {
                let class = Class::IN;
                writer.raw_record(
                    Section::Answer,
                    &owner,
                    RecordType::A,
                    class,
                    5,
                    &[127, 0, 0, 1],
                );
            }
        }
        assert!(out.len() > Suffixes::REACH);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.count(Section::Answer), 1200);
        assert_eq!(copy(&message), out);
    }

    #[test]
    fn the_first_offset_that_a_pointer_cannot_hold_is_not_pointed_to() {
        for (place, is_shared) in [(Suffixes::REACH - 1, true), (Suffixes::REACH, false)] {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out, 1, flags::QR);
            let rest = place - 12 - 11;
            let owner = b"\x01a\x04test\0";
            let null = RecordType(10);
            writer.raw_record(Section::Answer, &[0], null, Class::IN, 5, &vec![0; rest]);
            for _ in 0..2 {
                writer.raw_record(Section::Answer, owner, null, Class::IN, 5, &[]);
            }
            let second = if is_shared { 2 } else { owner.len() };
            assert_eq!(out.len(), place + owner.len() + second + 2 * 10, "{place}");
            let message = Message::parse(&out).unwrap();
            for record in message.records().skip(1) {
                assert_eq!(message.owner(&record).as_bytes(), owner);
            }
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

    fn name() -> impl Strategy<Value = Name> {
        let label = prop_oneof![
            4 => prop::sample::select(vec!["a", "B", "b", "svc", "cluster", "local", "x-1"])
                .prop_map(|label| label.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..64),
        ];
        prop::collection::vec(label, 0..6).prop_filter_map("a long name", |labels| {
            let mut name = Name::from_labels(labels).ok()?;
            name.set_fqdn(true);
            Some(name)
        })
    }

    fn rdata() -> impl Strategy<Value = RData> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(|octets| RData::A(rdata::A(octets.into()))),
            any::<[u8; 16]>().prop_map(|octets| RData::AAAA(rdata::AAAA(octets.into()))),
            name().prop_map(|name| RData::CNAME(rdata::CNAME(name))),
            name().prop_map(|name| RData::NS(rdata::NS(name))),
            name().prop_map(|name| RData::PTR(rdata::PTR(name))),
            (any::<u16>(), name()).prop_map(|(rank, name)| RData::MX(rdata::MX::new(rank, name))),
            (any::<u16>(), any::<u16>(), any::<u16>(), name())
                .prop_map(|(a, b, c, name)| RData::SRV(rdata::SRV::new(a, b, c, name))),
            (name(), name(), any::<u32>())
                .prop_map(|(a, b, n)| RData::SOA(rdata::SOA::new(a, b, n, 1, 2, 3, n))),
            prop::collection::vec("[a-z]{0,40}", 1..4)
                .prop_map(|texts| RData::TXT(rdata::TXT::new(texts))),
            prop::collection::vec(any::<u8>(), 1..40).prop_map(|octets| RData::Unknown {
                code: rr::RecordType::Unknown(65280),
                rdata: rdata::NULL::with(octets),
            }),
        ]
    }

    fn record() -> impl Strategy<Value = rr::Record> {
        (name(), 0..100_000u32, rdata())
            .prop_map(|(name, ttl, rdata)| rr::Record::from_rdata(name, ttl, rdata))
    }

    fn message() -> impl Strategy<Value = op::Message> {
        let section = || prop::collection::vec(record(), 0..12);
        (name(), section(), section(), section()).prop_map(|(name, answer, authority, more)| {
            let mut message = op::Message::new(7, op::MessageType::Response, op::OpCode::Query);
            message.add_query(op::Query::query(name, rr::RecordType::A));
            message.answers = answer;
            message.authorities = authority;
            message.additionals = more;
            message
        })
    }

    fn encoded(message: &op::Message, encoding: NameEncoding) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut encoder = BinEncoder::new(&mut wire);
        encoder.set_name_encoding(encoding);
        message.emit(&mut encoder).unwrap();
        wire
    }

    proptest! {
        #[test]
        fn a_copied_message_is_the_same_message(message in message()) {
            let compressed = encoded(&message, NameEncoding::Compressed);
            let plain = encoded(&message, NameEncoding::Uncompressed);
            let parsed = Message::parse(&compressed).unwrap();
            prop_assert_eq!(parsed.uncompressed_size(), plain.len());
            let out = copy(&parsed);
            prop_assert!(out.len() <= plain.len());
            prop_assert_eq!(op::Message::from_bytes(&out).unwrap(), message);
            // Copying changes nothing more.
            prop_assert_eq!(copy(&Message::parse(&out).unwrap()), out);
            // Every name we wrote is spelled as it was.
            let mut again = Vec::new();
            let mut writer = Writer::copying(&mut again, &parsed).uncompressed();
            for record in parsed.records() {
                writer.record(record.section, &parsed, &record, None);
            }
            prop_assert_eq!(again, plain);
        }

        #[test]
        fn a_finished_reply_keeps_to_its_limit(message in message(), size in prop::option::of(0..3000u16)) {
            let wire = encoded(&message, NameEncoding::Compressed);
            let mut query = encoded(&{
                let mut query = message.clone();
                (query.answers, query.authorities, query.additionals) = Default::default();
                query.metadata.message_type = op::MessageType::Query;
                query
            }, NameEncoding::Compressed);
            if let Some(size) = size {
                query[11] = 1;
                query.extend_from_slice(b"\0\0\x29");
                query.extend_from_slice(&size.to_be_bytes());
                query.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
            }
            let Received::Query(query) = Query::receive(&query) else { panic!("a query") };
            let limits = ReplyLimits::udp(&query);
            let mut response = Response::new();
            response.take(&wire, "forward").unwrap();
            finish_reply(&query, &mut response, limits, fit_reply);
            prop_assert!(response.wire.len() <= limits.octets);
            let got = op::Message::from_bytes(&response.wire).unwrap();
            let all = [&message.answers, &message.authorities, &message.additionals];
            let kept = [&got.answers, &got.authorities, &got.additionals];
            let all: Vec<_> = all.into_iter().flatten().collect();
            let kept: Vec<_> = kept.into_iter().flatten().collect();
            prop_assert!(all.starts_with(&kept));
            prop_assert_eq!(response.flags() & flags::TC != 0, kept.len() < all.len());
            prop_assert_eq!(got.edns.map(|edns| edns.max_payload()), size.map(|size| size.max(512)));
        }

        #[test]
        fn no_octets_cause_a_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            survives(&octets);
        }

        #[test]
        fn no_damage_to_a_message_causes_a_panic(
            message in message(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut wire = encoded(&message, NameEncoding::Compressed);
            for (place, octet) in damage {
                let place = place.index(wire.len());
                wire[place] = octet;
            }
            wire.truncate(cut.index(wire.len() * 2).max(12));
            survives(&wire);
        }
    }

    /// Takes octets as a query and as a response.
    fn survives(octets: &[u8]) {
        if let Received::Query(query) = Query::receive(octets) {
            assert!(matches!(Query::receive(query.wire()), Received::Query(_)));
        }
        let mut response = Response::new();
        if response.take(octets, "forward").is_ok() {
            let message = response.message().unwrap();
            assert_eq!(message.end(), response.wire.len());
            let _ = (message.uncompressed_size(), message.question());
            let question = Query::new(&"a.".parse().unwrap(), RecordType::A, Class::IN);
            finish_reply(&question, &mut response, ReplyLimits { octets: 512 }, fit_reply);
            assert!(response.wire.len() <= 512);
            assert!(Message::parse(&response.wire).is_ok());
        }
    }
}
