//! What kind of response a message is (CoreDNS: plugin/pkg/response): for how long `cache` keeps it, which
//! class `log` gives it, what `minimal` takes away.
//!
//! Owns the signs that decide and their order of weight. Never changes the message.

use crate::dns::{Edns, Message, Opcode, Query, Rcode, Record, RecordType, Section, flags};
use std::time::Duration;

/// The kinds of responses that are treated differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// NOERROR with an answer, or with nothing at all.
    NoError,
    /// NOERROR without answer, with NS records: a referral.
    Delegation,
    /// NOERROR without answer, with a SOA record (RFC 2308 §2.2).
    NoData,
    /// NXDOMAIN with a SOA record (RFC 2308 §2.1).
    NameError,
    /// SERVFAIL or NOTIMP.
    ServerError,
    /// Transfers, notifications, updates.
    Meta,
    /// Other rcodes, and signatures out of their time.
    Other,
}

/// The rough classes of responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseClass {
    /// The question has its answer, or a referral.
    Success,
    /// There is no such name or no such record.
    Denial,
    /// All else.
    Error,
}

impl ResponseClass {
    /// CoreDNS's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            ResponseClass::Success => "success",
            ResponseClass::Denial => "denial",
            ResponseClass::Error => "error",
        }
    }
}

impl Kind {
    /// The kind of a whole message. `rcode` is the whole one, `unix` the time for signatures.
    pub(super) fn of(message: &Message<'_>, rcode: Rcode, unix: Duration) -> Kind {
        Signs::default().all(message, unix).kind(message, rcode)
    }

    /// The kind of the reply that `query` will get: it has the DO bit of its query.
    pub(super) fn of_reply(
        query: &Query<'_>,
        message: &Message<'_>,
        rcode: Rcode,
        unix: Duration,
    ) -> Kind {
        let signs = Signs { wants_dnssec: query.wants_dnssec(), ..Signs::default() };
        signs.all(message, unix).kind(message, rcode)
    }

    /// The kind of a query's end without a message.
    pub(super) fn of_failure(rcode: Rcode) -> Kind {
        match rcode {
            Rcode::SERVFAIL | Rcode::NOTIMP => Kind::ServerError,
            _ => Kind::Other,
        }
    }

    /// CoreDNS's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::NoError => "NOERROR",
            Kind::Delegation => "DELEGATION",
            Kind::NoData => "NODATA",
            Kind::NameError => "NXDOMAIN",
            Kind::ServerError => "SERVERERROR",
            Kind::Meta => "META",
            Kind::Other => "OTHERERROR",
        }
    }

    /// The class that it belongs to.
    pub(super) fn class(self) -> ResponseClass {
        match self {
            Kind::NoError | Kind::Delegation => ResponseClass::Success,
            Kind::NoData | Kind::NameError => ResponseClass::Denial,
            Kind::ServerError | Kind::Meta | Kind::Other => ResponseClass::Error,
        }
    }
}

/// What the records of a message say of its kind. Show it each of them, then ask.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // Each is a sign of its own.
pub(super) struct Signs {
    soa: bool,
    ns: bool,
    bad_signature: bool,
    wants_dnssec: bool,
}

impl Signs {
    fn all(mut self, message: &Message<'_>, unix: Duration) -> Signs {
        for record in message.records() {
            self.see(message, &record, unix);
        }
        self
    }

    /// Looks at one record of `message`.
    pub(super) fn see(&mut self, message: &Message<'_>, record: &Record, unix: Duration) {
        if record.is_opt() {
            self.wants_dnssec |= record.ttl & u32::from(Edns::DO) != 0;
            return;
        }
        match (record.section, record.rtype) {
            (Section::Authority, RecordType::SOA) => self.soa = true,
            (Section::Authority, RecordType::NS) => self.ns = true,
            (_, RecordType::RRSIG) => self.bad_signature |= !is_valid(message, record, unix),
            _ => {}
        }
    }

    /// The kind, once all records were seen. `rcode` is the whole one.
    pub(super) fn kind(&self, message: &Message<'_>, rcode: Rcode) -> Kind {
        let opcode = Opcode(((message.flags() & flags::OPCODE) >> 11) as u8);
        let transfer =
            matches!(message.question(), Some((_, RecordType::AXFR | RecordType::IXFR, _)));
        if matches!(opcode, Opcode::UPDATE | Opcode::NOTIFY) || transfer {
            return Kind::Meta;
        }
        if self.wants_dnssec && self.bad_signature {
            return Kind::Other;
        }
        match rcode {
            Rcode::NOERROR if message.count(Section::Answer) > 0 => Kind::NoError,
            Rcode::NOERROR if self.soa => Kind::NoData,
            Rcode::NXDOMAIN if self.soa => Kind::NameError,
            Rcode::SERVFAIL | Rcode::NOTIMP => Kind::ServerError,
            Rcode::NOERROR if self.ns => Kind::Delegation,
            Rcode::NOERROR => Kind::NoError,
            _ => Kind::Other,
        }
    }
}

/// Whether an RRSIG record is within its time, in serial number arithmetic (RFC 4034 §3.1.5).
fn is_valid(message: &Message<'_>, record: &Record, unix: Duration) -> bool {
    let rdata = message.rdata(record);
    let moment = |at: usize| {
        let octets = rdata.get(at..at + 4)?;
        octets.try_into().ok().map(u32::from_be_bytes)
    };
    let (Some(expiration), Some(inception)) = (moment(8), moment(12)) else {
        return false;
    };
    let now = unix.as_secs() as u32;
    let not_after = |earlier: u32, later: u32| later.wrapping_sub(earlier) as i32 >= 0;
    not_after(inception, now) && not_after(now, expiration)
}
