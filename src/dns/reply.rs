//! The last step of a response: id, the client's OPT, the size limit (spec/coredns.md §5.4).

use super::query::{Query, Reject};
use super::response::Response;

/// What the way back to the client allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// The greatest size in octets of the reply: for UDP max(512, the client's size), else 65535.
    pub octets: usize,
}

/// Makes the reply of `response` ready to send in `response.wire`: an error reply when nothing was
/// written; the query's id; the OPT rules; the extended rcode; truncation with TC when it does not
/// fit. Allocates nothing when the message fits and needs no rebuilding.
pub fn finish_reply(query: &Query<'_>, response: &mut Response, limits: ReplyLimits) {
    let _ = (query, response, limits);
    todo!()
}

/// Writes the reply to a rejected message into `out` (cleared first).
pub fn reject_reply(received: &[u8], reject: &Reject, out: &mut Vec<u8>) {
    let _ = (received, reject, out);
    todo!()
}
