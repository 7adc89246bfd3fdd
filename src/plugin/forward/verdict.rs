//! What a message from an upstream is worth.
//!
//! Owns the check of a response against its question. Pure: bytes in, verdict out. The id and the
//! peer were checked before, by whoever owns the socket.

use crate::dns::{Malformed, Message, Rcode, flags};

/// The verdict on one message that carries the id of a query in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not a response to this question: wait on.
    Ignore,
    /// A response to pass on as it is.
    Accept(Meaning),
    /// A datagram too long for the client, or cut: pass on this empty message with TC instead.
    Cut(Vec<u8>, Meaning),
    /// The upstream did not understand the query, or refuses it, and says so without repeating the
    /// question: the client gets FORMERR.
    Misunderstood,
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
}

/// Judges `bytes` as the response to `question` (QNAME, QTYPE, QCLASS in wire form).
/// `udp_limit` is the greatest datagram that may be passed on, `None` for streams.
pub fn judge(question: &[u8], bytes: &[u8], udp_limit: Option<u16>) -> Verdict {
    let Some(header) = bytes.first_chunk::<12>() else { return Verdict::Ignore };
    let word = u16::from_be_bytes([header[2], header[3]]);
    let questions = u16::from_be_bytes([header[4], header[5]]);
    if word & flags::QR == 0 {
        return Verdict::Ignore;
    }
    let mut meaning =
        Meaning { rcode: Rcode(word & flags::RCODE), truncated: word & flags::TC != 0 };
    if questions == 0 && bytes.len() == header.len() && meaning.rcode != Rcode::NOERROR {
        return Verdict::Misunderstood;
    }
    if questions != 1 || !repeats(question, &bytes[12..]) {
        return Verdict::Ignore;
    }
    let question_end = 12 + question.len();
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
        Err(Malformed::Cut) if udp_limit.is_some() => cut(bytes, question_end, meaning),
        Err(malformed) => Verdict::Malformed(malformed),
    }
}

/// Whether `section` begins with the question: the name in any case, the type; CoreDNS does not
/// check the class.
fn repeats(question: &[u8], section: &[u8]) -> bool {
    let Some(section) = section.get(..question.len()) else { return false };
    let Some(name) = question.len().checked_sub(4) else { return false };
    section[..name].eq_ignore_ascii_case(&question[..name])
        && section[name..name + 2] == question[name..name + 2]
}

fn cut(bytes: &[u8], question_end: usize, meaning: Meaning) -> Verdict {
    let mut empty = bytes[..question_end].to_vec();
    empty[2] |= (flags::TC >> 8) as u8;
    empty[6..12].fill(0);
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

    const RECORD: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x14\0\x04\xc0\0\x02\x01";
    const UNKNOWN: &[u8] = b"\xc0\x0c\xff\0\0\x01\0\0\0\x14\0\x02\xc0\x0c";

    fn accepted(rcode: Rcode) -> Verdict {
        Verdict::Accept(Meaning { rcode, truncated: false })
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
    fn a_response_to_another_question_is_ignored() {
        for (counts, rest) in [
            ([1, 0, 0, 0], b"\x01b\x04test\0\0\x01\0\x01".as_slice()),
            ([1, 0, 0, 0], b"\x01a\x04test\0\0\x1c\0\x01"),
            ([1, 0, 0, 0], b"\x01a\x04test\0\0\x21\0\x01"),
            ([2, 0, 0, 0], b"\x01a\x04test\0\0\x01\0\x01\x01a\x04test\0\0\x01\0\x01"),
            ([0, 0, 0, 0], b""),
            ([1, 0, 0, 0], b"\x01a"),
        ] {
            let bytes = message(0x8180, counts, &[rest]);
            assert_eq!(judge(QUESTION, &bytes, Some(512)), Verdict::Ignore, "{rest:?}");
        }
        let bytes = message(0x0100, [1, 0, 0, 0], &[QUESTION]);
        assert_eq!(judge(QUESTION, &bytes, Some(512)), Verdict::Ignore, "a query");
        assert_eq!(judge(QUESTION, &bytes[..11], Some(512)), Verdict::Ignore, "too short");
    }

    #[test]
    fn the_class_is_not_checked() {
        let bytes = message(0x8180, [1, 0, 0, 0], &[b"\x01a\x04test\0\0\x01\0\x03"]);
        assert_eq!(judge(QUESTION, &bytes, None), accepted(Rcode::NOERROR));
    }

    #[test]
    fn a_datagram_that_is_too_long_or_cut_becomes_an_empty_truncated_message() {
        let empty = message(0x8780, [1, 0, 0, 0], &[QUESTION]);
        let whole = message(0x8580, [1, 1, 0, 0], &[QUESTION, RECORD]);
        let meaning = Meaning { rcode: Rcode::NOERROR, truncated: true };
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
    fn a_bare_header_says_that_the_upstream_did_not_understand() {
        for rcode in 1..=5 {
            let bytes = message(0x8180 | rcode, [0; 4], &[]);
            assert_eq!(judge(QUESTION, &bytes, Some(512)), Verdict::Misunderstood, "{rcode}");
        }
        let bytes = message(0x8180, [0; 4], &[]);
        assert_eq!(judge(QUESTION, &bytes, Some(512)), Verdict::Ignore);
    }
}
