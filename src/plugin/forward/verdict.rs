//! What a message from an upstream is worth.
//!
//! Owns the check of a response against its question. Pure: bytes in, verdict out. The id and the
//! peer were checked before, by whoever owns the socket.

use crate::dns::{Malformed, Message, Rcode, Section, flags, sizes};

/// The verdict on one message that carries the id of a query in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not a response to this question: wait on.
    Ignore,
    /// A response to pass on as it is.
    Accept(Meaning),
    /// A datagram too long for the client, or cut: pass on this empty message with TC instead.
    Cut(Vec<u8>, Meaning),
    /// A response that ends before the class of its question: pass on this one with class 0 instead.
    Classless(Vec<u8>, Meaning),
    /// The upstream did not understand the query, or refuses it, and says so without repeating the
    /// question: the client gets FORMERR.
    Misunderstood,
    /// A message whose question does not parse: this try failed.
    BadQuestion(Malformed),
    /// A response that does not parse: this try failed.
    Malformed(Malformed),
}

/// What decides about a response's further way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// The rcode, extended by EDNS.
    pub rcode: Rcode,
    /// The TC bit.
    pub truncated: bool,
    /// It answers the question. A message that does not is FORMERR to the client whatever its rcode,
    /// and no other upstream is asked for its sake.
    pub is_response: bool,
}

/// The rcode in the header of `bytes`, whatever they answer; NOERROR where they are no header.
pub fn rcode_of(bytes: &[u8]) -> Rcode {
    Rcode(bytes.get(3).map_or(0, |low| u16::from(*low) & flags::RCODE))
}

/// Judges `bytes` as the response to `question` (QNAME, QTYPE, QCLASS in wire form).
/// `udp_limit` is the greatest datagram that may be passed on, `None` for streams.
pub fn judge(question: &[u8], bytes: &[u8], udp_limit: Option<u16>) -> Verdict {
    let Some(header) = bytes.first_chunk::<{ sizes::HEADER }>() else { return Verdict::Ignore };
    if let Err(malformed) = Message::check_questions(bytes) {
        return Verdict::BadQuestion(malformed);
    }
    let word = u16::from_be_bytes([header[2], header[3]]);
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if word & flags::QR == 0 {
        return no_response(bytes, udp_limit);
    }
    let mut meaning =
        Meaning { rcode: rcode_of(bytes), truncated: word & flags::TC != 0, is_response: true };
    if questions == 0 && bytes.len() == header.len() && meaning.rcode != Rcode::NOERROR {
        return Verdict::Misunderstood;
    }
    if questions == 1 && bytes.len() + 2 == sizes::HEADER + question.len() {
        let whole = [bytes, &[0, 0]].concat();
        return match judge(question, &whole, udp_limit) {
            Verdict::Accept(meaning) => Verdict::Classless(whole, meaning),
            other => other,
        };
    }
    if questions != 1 || !repeats(question, &bytes[sizes::HEADER..]) {
        return no_response(bytes, udp_limit);
    }
    let question_end = sizes::HEADER + question.len();
    if udp_limit.is_some_and(|limit| bytes.len() > usize::from(limit)) {
        return cut(bytes, question_end, meaning);
    }
    match Message::parse(bytes) {
        Ok(message) => {
            if let Some(edns) = message.edns() {
                meaning.rcode.0 |= u16::from(edns.extended_rcode) << 4;
            }
            Verdict::Accept(meaning)
        }
        Err(Malformed::Cut | Malformed::RdataCut) if udp_limit.is_some() => {
            cut(bytes, question_end, meaning)
        }
        Err(malformed) => Verdict::Malformed(malformed),
    }
}

/// No response to this question. Over a stream, which nobody forges, the try has failed if it does not parse either.
fn no_response(bytes: &[u8], udp_limit: Option<u16>) -> Verdict {
    match Message::parse(bytes) {
        Err(malformed) if udp_limit.is_none() => Verdict::Malformed(malformed),
        _ => Verdict::Ignore,
    }
}

/// Whether `section` begins with the question: the name in any case, the type; CoreDNS does not
/// check the class.
fn repeats(question: &[u8], section: &[u8]) -> bool {
    let Some(section) = section.get(..question.len()) else { return false };
    let Some(name) = question.len().checked_sub(sizes::TYPE_AND_CLASS) else { return false };
    section[..name].eq_ignore_ascii_case(&question[..name])
        && section[name..name + 2] == question[name..name + 2]
}

fn cut(bytes: &[u8], question_end: usize, meaning: Meaning) -> Verdict {
    let mut empty = bytes[..question_end].to_vec();
    empty[2] |= (flags::TC >> 8) as u8;
    empty[Section::Answer.count_place().start..sizes::HEADER].fill(0);
    Verdict::Cut(empty, Meaning { truncated: true, ..meaning })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x01a\x04test\0\0\x01\0\x01";

    fn message(flags: u16, counts: [u8; 4], rest: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0, 7];
        bytes.extend(flags.to_be_bytes());
        for count in counts {
            bytes.extend([0, count]);
        }
        bytes.extend(rest.concat());
        bytes
    }

    #[test]
    fn over_a_stream_what_does_not_parse_is_a_failed_try_whatever_it_answers() {
        let other = b"\x01b\x04test\0\0\x01\0\x01";
        for (flags, question) in [(0x8180, &other[..]), (0x0180, QUESTION)] {
            let cut = message(flags, [1, 1, 0, 0], &[question, &RECORD[..9]]);
            assert!(matches!(judge(QUESTION, &cut, None), Verdict::Malformed(_)));
            assert_eq!(judge(QUESTION, &cut, Some(512)), Verdict::Ignore);
            let whole = message(flags, [1, 1, 0, 0], &[question, RECORD]);
            assert_eq!(judge(QUESTION, &whole, None), Verdict::Ignore);
        }
    }

    const RECORD: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x14\0\x04\xc0\0\x02\x01";
    const UNKNOWN: &[u8] = b"\xc0\x0c\xff\0\0\x01\0\0\0\x14\0\x02\xc0\x0c";

    fn accepted(rcode: Rcode) -> Verdict {
        Verdict::Accept(Meaning { rcode, truncated: false, is_response: true })
    }

    #[test]
    fn a_response_to_the_question_is_accepted_in_any_spelling() {
        let bytes = message(0x8180, [1, 1, 0, 0], &[QUESTION, RECORD]);
        assert_eq!(judge(QUESTION, &bytes, Some(512)), accepted(Rcode::NOERROR));
        let bytes = message(0x8183, [1, 0, 0, 0], &[b"\x01A\x04tEST\0\0\x01\0\x01"]);
        assert_eq!(judge(QUESTION, &bytes, None), accepted(Rcode::NXDOMAIN));
        let bytes = message(0x8180, [1, 1, 0, 0], &[QUESTION, UNKNOWN]);
        assert_eq!(judge(QUESTION, &bytes, None), accepted(Rcode::NOERROR));
    }

    #[test]
    fn the_upper_bits_of_the_rcode_are_the_opts() {
        let opt = b"\0\0\x29\x04\xd0\x01\0\0\0\0\0";
        let bytes = message(0x8180, [1, 0, 0, 1], &[QUESTION, opt]);
        assert_eq!(judge(QUESTION, &bytes, Some(512)), accepted(Rcode::BADVERS));
    }

    #[test]
    fn a_response_to_another_question_is_ignored() {
        for (counts, rest) in [
            ([1, 0, 0, 0], b"\x01b\x04test\0\0\x01\0\x01".as_slice()),
            ([1, 0, 0, 0], b"\x01a\x04test\0\0\x1c\0\x01"),
            ([1, 0, 0, 0], b"\x01a\x04test\0\0\x21\0\x01"),
            ([2, 0, 0, 0], b"\x01a\x04test\0\0\x01\0\x01\x01a\x04test\0\0\x01\0\x01"),
            ([1, 0, 0, 0], b"\x01a\x04test\0"),
            ([0, 0, 0, 0], b""),
        ] {
            let bytes = message(0x8180, counts, &[rest]);
            assert_eq!(judge(QUESTION, &bytes, Some(512)), Verdict::Ignore, "{rest:?}");
        }
        let bytes = message(0x0100, [1, 0, 0, 0], &[QUESTION]);
        assert_eq!(judge(QUESTION, &bytes, Some(512)), Verdict::Ignore, "a query");
        assert_eq!(judge(QUESTION, &bytes[..11], Some(512)), Verdict::Ignore, "too short");
    }

    #[test]
    fn a_datagram_may_be_as_long_as_the_client_takes() {
        let bytes = message(0x8180, [1, 1, 0, 0], &[QUESTION, RECORD]);
        let length = bytes.len() as u16;
        assert_eq!(judge(QUESTION, &bytes, Some(length)), accepted(Rcode::NOERROR));
        assert!(matches!(judge(QUESTION, &bytes, Some(length - 1)), Verdict::Cut(..)));
    }

    #[test]
    fn the_class_is_not_checked() {
        let bytes = message(0x8180, [1, 0, 0, 0], &[b"\x01a\x04test\0\0\x01\0\x03"]);
        assert_eq!(judge(QUESTION, &bytes, None), accepted(Rcode::NOERROR));
    }

    #[test]
    fn a_response_that_ends_before_the_class_is_passed_on_with_class_0() {
        let bytes = message(0x8180, [1, 0, 0, 0], &[b"\x01a\x04test\0\0\x01\0\0"]);
        let meaning = Meaning { rcode: Rcode::NOERROR, truncated: false, is_response: true };
        let expected = Verdict::Classless(bytes.clone(), meaning);
        assert_eq!(judge(QUESTION, &bytes[..bytes.len() - 2], Some(512)), expected);
        assert_eq!(judge(QUESTION, &bytes[..bytes.len() - 2], None), expected);
        for other in [b"\x01b\x04test\0\0\x01".as_slice(), b"\x01a\x04test\0\0\x1c"] {
            let bytes = message(0x8180, [1, 0, 0, 0], &[other]);
            assert_eq!(judge(QUESTION, &bytes, Some(512)), Verdict::Ignore, "{other:?}");
        }
    }

    #[test]
    fn a_datagram_that_is_too_long_or_cut_becomes_an_empty_truncated_message() {
        let empty = message(0x8780, [1, 0, 0, 0], &[QUESTION]);
        let whole = message(0x8580, [1, 1, 0, 0], &[QUESTION, RECORD]);
        let meaning = Meaning { rcode: Rcode::NOERROR, truncated: true, is_response: true };
        assert_eq!(judge(QUESTION, &whole, Some(30)), Verdict::Cut(empty.clone(), meaning));
        let cut = &whole[..whole.len() - 3];
        assert_eq!(judge(QUESTION, cut, Some(512)), Verdict::Cut(empty, meaning));
        assert_eq!(judge(QUESTION, cut, None), Verdict::Malformed(Malformed::Cut));
    }

    #[test]
    fn a_response_that_does_not_parse_fails_the_try() {
        let bad = b"\xc0\x0c\0\x05\0\x01\0\0\0\x14\0\x02\xc0\xff";
        let bytes = message(0x8180, [1, 1, 0, 0], &[QUESTION, bad]);
        assert!(matches!(judge(QUESTION, &bytes, Some(512)), Verdict::Malformed(_)));
    }

    #[test]
    fn a_datagram_whose_rdata_ends_too_soon_becomes_an_empty_truncated_message() {
        let empty = message(0x8780, [1, 0, 0, 0], &[QUESTION]);
        let meaning = Meaning { rcode: Rcode::NOERROR, truncated: true, is_response: true };
        for record in [
            b"\xc0\x0c\0\x01\0\x01\0\0\0\x14\0\x03\xc0\0\x02".as_slice(),
            b"\xc0\x0c\0\x0f\0\x01\0\0\0\x14\0\x01\x01",
            b"\xc0\x0c\0\x06\0\x01\0\0\0\x14\0\x04\0\0\0\0",
            b"\xc0\x0c\0\x10\0\x01\0\0\0\x14\0\x02\x05a",
        ] {
            let bytes = message(0x8580, [1, 1, 0, 0], &[QUESTION, record]);
            let cut = Verdict::Cut(empty.clone(), meaning);
            assert_eq!(judge(QUESTION, &bytes, Some(512)), cut, "{record:?}");
            let malformed = Verdict::Malformed(Malformed::RdataCut);
            assert_eq!(judge(QUESTION, &bytes, None), malformed, "{record:?}");
        }
    }

    #[test]
    fn a_response_whose_question_does_not_parse_fails_the_try() {
        for (counts, rest, malformed) in [
            ([1, 0, 0, 0], b"\x01a".as_slice(), Malformed::Cut),
            ([1, 0, 0, 0], b"\x41a\0\0\x01\0\x01", Malformed::LabelKind),
            ([1, 0, 0, 0], b"\xc0\x0c\0\x01\0\x01", Malformed::Pointer),
            ([2, 0, 0, 0], QUESTION, Malformed::Cut),
        ] {
            for flags in [0x8180, 0x8183, 0x8382, 0x0180] {
                let bytes = message(flags, counts, &[rest]);
                let bad = Verdict::BadQuestion(malformed);
                assert_eq!(judge(QUESTION, &bytes, Some(512)), bad, "{flags:x} {rest:?}");
                assert_eq!(judge(QUESTION, &bytes, None), bad, "{flags:x} {rest:?}");
            }
        }
    }

    #[test]
    fn a_bare_header_says_that_the_upstream_did_not_understand() {
        for rcode in 1..=5 {
            let bytes = message(0x8180 | rcode, [0; 4], &[]);
            assert_eq!(judge(QUESTION, &bytes, Some(512)), Verdict::Misunderstood, "{rcode}");
        }
        let bytes = message(0x8180, [0; 4], &[]);
        assert_eq!(judge(QUESTION, &bytes, Some(512)), Verdict::Ignore);
        let with_more = message(0x8181, [0, 0, 0, 1], &[b"\0\0\x29\x04\xd0\0\0\0\0\0\0"]);
        assert_eq!(judge(QUESTION, &with_more, Some(512)), Verdict::Ignore);
    }
}
