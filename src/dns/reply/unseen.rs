//! Replies to messages that no plugin sees: what is no query, and EDNS of another version.

use super::super::query::{Query, Reject, copied};
use super::super::words::{Rcode, RecordType, flags};
use super::begin;

/// Writes the reply to a rejected message into `out` (cleared first).
pub fn reject_reply(received: &[u8], reject: &Reject, out: &mut Vec<u8>) {
    let id = received.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let flags = reject.flags | (reject.rcode.0 & flags::RCODE);
    out.clear();
    match reject.question.clone().and_then(|range| received.get(range)) {
        Some(question) => begin(out, id, flags, question),
        None => {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&flags.to_be_bytes());
            out.extend_from_slice(&[0; 8]);
        }
    }
}

/// Writes the reply to a query of an EDNS version that does not exist into `out` (cleared first):
/// BADVERS in an OPT of version 0 and size 0.
pub fn badvers_reply(query: &Query<'_>, out: &mut Vec<u8>) {
    let flags = flags::QR | (query.flags() & flags::OPCODE) | copied(query.flags());
    out.clear();
    begin(out, query.id(), flags | (Rcode::BADVERS.0 & flags::RCODE), query.question());
    out[11] = 1;
    out.push(0);
    out.extend_from_slice(&RecordType::OPT.0.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&[(Rcode::BADVERS.0 >> 4) as u8, 0, 0, 0]);
    out.extend_from_slice(&[0, 0]);
}
