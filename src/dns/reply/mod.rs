//! The last step of a response: id, the client's OPT, the size limit (CoreDNS: SizeAndDo and
//! Scrub of request).
//!
//! Owns what every reply has in common; `opt` has the rules of its OPT, `unseen` the replies to messages
//! that no plugin sees. Never sends more than the limit, and never nothing.

mod opt;
mod unseen;

use self::opt::{BARE_OPT, KEPT_EDNS_FLAGS, append_opt, opt_ttl, patch_opt};
pub use self::unseen::{badvers_reply, reject_reply};

use super::edns::Edns;
use super::malformed::Malformed;
use super::message::Message;
use super::query::{Query, copied};
use super::record::Section;
use super::response::{Response, Written};
use super::sizes;
use super::words::{Class, Rcode, Transport, flags};
use super::writer::Writer;

/// The greatest payload of a UDP datagram over IPv4 (RFC 768, RFC 791).
const GREATEST_UDP: usize = 65507;

/// What the way back to the client allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// The greatest size in octets of the reply: for UDP the client's size, 512 to 65507, else 65535.
    pub octets: usize,
}

impl ReplyLimits {
    /// The limit of the way that the client of `query` came.
    pub fn of(query: &Query<'_>, transport: Transport) -> ReplyLimits {
        match transport {
            Transport::Udp => ReplyLimits::udp(query),
            Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic => {
                ReplyLimits::stream()
            }
        }
    }

    /// The limit of a datagram to the client of `query`: its advertised size as the plugins left
    /// it, never below 512.
    pub fn udp(query: &Query<'_>) -> ReplyLimits {
        let advertised = query.edns().map_or(0, |edns| usize::from(edns.udp_size));
        ReplyLimits { octets: advertised.clamp(usize::from(sizes::UDP_LEAST), GREATEST_UDP) }
    }

    /// The limit of a stream: what the length prefix can say.
    pub fn stream() -> ReplyLimits {
        ReplyLimits { octets: sizes::MESSAGE_MOST }
    }
}

/// Makes the reply of `response` ready to send in `response.wire`: an error reply when nothing was
/// written; the query's id; the OPT rules; the extended rcode; and when it is longer than the limit
/// what `fit` makes of it: [`fit_reply`], or the same from where it was kept. Allocates nothing
/// when the message fits.
pub fn finish_reply(
    query: &Query<'_>,
    response: &mut Response,
    limits: ReplyLimits,
    fit: impl Fn(&mut Vec<u8>, usize) -> Result<(), Malformed>,
) {
    if response.written == Written::Nothing || response.wire.len() < sizes::HEADER {
        write_error(query, response, response.rcode);
    }
    if finish(query, response, limits.octets, &fit).is_err() {
        // Only a plugin's own mistake comes here: what upstreams send was checked when taken.
        debug_assert!(false, "a plugin wrote a message that does not parse");
        write_error(query, response, Rcode::SERVFAIL);
        let finished = finish(query, response, limits.octets, &fit);
        debug_assert!(finished.is_ok(), "an error reply parses");
    }
}

/// What [`finish_reply`] will make of `response`: for those who tell what a client gets before it
/// is made.
pub fn foreseen_reply(query: &Query<'_>, response: &Response, limits: ReplyLimits) -> Response {
    let mut reply = Response::new();
    reply.wire.clone_from(&response.wire);
    reply.written = response.written;
    reply.rcode = response.rcode;
    finish_reply(query, &mut reply, limits, fit_reply);
    reply
}

/// Whether the reply will have TC: upstream's, or because the client's limit leaves records out.
pub fn will_be_truncated(query: &Query<'_>, response: &Response, limits: ReplyLimits) -> bool {
    if response.flags() & flags::TC != 0 {
        return true;
    }
    let added = query.edns().map_or(0, |edns| BARE_OPT + edns.options.len());
    response.wire.len() + added > limits.octets
        && foreseen_reply(query, response, limits).flags() & flags::TC != 0
}

/// Puts an error reply into the buffer; error, writer and size stay what the plugins made them.
fn write_error(query: &Query<'_>, response: &mut Response, rcode: Rcode) {
    let flags = flags::QR
        | (query.flags() & flags::OPCODE)
        | copied(query.flags())
        | (rcode.0 & flags::RCODE);
    response.wire.clear();
    begin(&mut response.wire, query.id(), flags, query.question());
    response.rcode = rcode;
}

/// A header with one question.
fn begin(out: &mut Vec<u8>, id: u16, flags: u16, question: &[u8]) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(question);
}

fn finish(
    query: &Query<'_>,
    response: &mut Response,
    limit: usize,
    fit: &impl Fn(&mut Vec<u8>, usize) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let theirs = match response.wire[Section::Additional.count_place()] {
        [0, 0] => None,
        _ => response.message()?.edns(),
    };
    let mut rcode = response.rcode;
    if rcode.0 > flags::RCODE && theirs.is_none() && query.edns().is_none() {
        // Its upper bits have no place to stand in: better an error that the client understands
        // than the rest of a number, or CoreDNS's silence.
        rcode = Rcode::SERVFAIL;
        write_error(query, response, rcode);
    }
    response.wire[..2].copy_from_slice(&query.id().to_be_bytes());
    let flags = (response.flags() & !flags::RCODE) | (rcode.0 & flags::RCODE);
    response.set_flags(flags);
    let extended = (rcode.0 >> 4) as u8;
    match (theirs, query.edns()) {
        (Some(theirs), client) => {
            let mut opt = theirs;
            opt.extended_rcode = extended;
            if let Some(client) = client {
                opt.version = 0;
                opt.udp_size = client.udp_size;
                opt.flags = (opt.flags & KEPT_EDNS_FLAGS) | (client.flags & Edns::DO);
            }
            patch_opt(&mut response.wire, &opt)?;
        }
        (None, Some(client)) => append_opt(query, client, extended, &mut response.wire),
        (None, None) => {}
    }
    if response.wire.len() > limit { fit(&mut response.wire, limit) } else { Ok(()) }
}

/// The message within `limit` octets: compressed, and where that is not enough without its last
/// records and with TC (RFC 2181 §9). The OPT stays, if need be without its options. What it
/// becomes follows from the octets and the limit alone.
///
/// # Errors
///
/// [`Malformed`] when it is no message.
pub fn fit_reply(reply: &mut Vec<u8>, limit: usize) -> Result<(), Malformed> {
    let message = Message::parse(reply)?;
    let opt = message.edns();
    let mut wire = Vec::with_capacity(limit.min(message.wire().len()));
    let mut options =
        opt.as_ref().and_then(|opt| message.wire().get(opt.options.clone())).unwrap_or_default();
    // Only options can be so long that header, question and OPT alone pass the limit.
    if opt.is_some() && message.question_end() + BARE_OPT + options.len() > limit {
        options = &[];
    }
    let reserved = if opt.is_some() { BARE_OPT + options.len() } else { 0 };
    let mut writer =
        Writer::copying(&mut wire, &message).limited_to(limit.saturating_sub(reserved));
    for record in message.records().filter(|record| !record.is_opt()) {
        writer.record(record.section, &message, &record, None);
        if writer.is_cut() {
            break;
        }
    }
    if let Some(opt) = opt {
        writer.opt(Class(opt.udp_size), opt_ttl(&opt), options);
    }
    *reply = wire;
    Ok(())
}

#[cfg(test)]
mod tests;
