//! A query that waits, as small as it can be.

use super::Query;
use crate::dns::edns::Edns;
use crate::dns::name::Name;
use crate::dns::sizes;
use crate::dns::words::{Class, RecordType};
use std::borrow::Cow;
use std::sync::Arc;

/// A query that nobody looks at for now, as small as it can be: thousands may wait. Its name, which
/// alone has room for 255 octets, is read again when it is looked at.
#[derive(Debug, Clone)]
pub struct KeptQuery {
    wire: Arc<[u8]>,
    qtype: RecordType,
    qclass: Class,
    question_end: u32,
    received_size: u32,
    edns: Option<KeptEdns>,
    reflected: Option<Arc<[u16]>>,
}

/// [`Edns`] with offsets no wider than a message is long.
#[derive(Debug, Clone, Copy)]
struct KeptEdns {
    at: u32,
    options: (u32, u32),
    udp_size: u16,
    extended_rcode: u8,
    version: u8,
    flags: u16,
}

impl KeptQuery {
    /// The whole message, shared with whoever sends it.
    pub fn wire(&self) -> &Arc<[u8]> {
        &self.wire
    }

    /// Where the question section ends, in octets from the beginning of the message.
    pub fn question_end(&self) -> usize {
        self.question_end as usize
    }

    /// The question section: QNAME, QTYPE, QCLASS in wire form.
    pub fn question(&self) -> &[u8] {
        self.wire.get(sizes::HEADER..self.question_end()).unwrap_or_default()
    }

    /// QTYPE.
    pub fn qtype(&self) -> RecordType {
        self.qtype
    }

    /// The query as it was.
    pub fn wake(self) -> Query<'static> {
        let name =
            Name::parse(&self.wire, sizes::HEADER).map_or_else(|_| Name::root(), |(name, _)| name);
        debug_assert_eq!(
            sizes::HEADER + name.as_bytes().len() + sizes::TYPE_AND_CLASS,
            self.question_end()
        );
        Query {
            wire: Cow::Owned(self.wire.to_vec()),
            name,
            qtype: self.qtype,
            qclass: self.qclass,
            question_end: self.question_end(),
            edns: self.edns.map(|kept| Edns {
                at: kept.at as usize,
                udp_size: kept.udp_size,
                extended_rcode: kept.extended_rcode,
                version: kept.version,
                flags: kept.flags,
                options: kept.options.0 as usize..kept.options.1 as usize,
            }),
            received_size: self.received_size as usize,
            reflected: self.reflected,
        }
    }
}

impl Query<'_> {
    /// What a query that waits keeps of itself.
    pub fn keep(&self) -> KeptQuery {
        // A message is of 65535 octets, and what a plugin adds to one not much more.
        let narrow = |octets: usize| octets as u32;
        KeptQuery {
            qtype: self.qtype,
            qclass: self.qclass,
            question_end: narrow(self.question_end),
            received_size: narrow(self.received_size),
            edns: self.edns.as_ref().map(|edns| KeptEdns {
                at: narrow(edns.at),
                options: (narrow(edns.options.start), narrow(edns.options.end)),
                udp_size: edns.udp_size,
                extended_rcode: edns.extended_rcode,
                version: edns.version,
                flags: edns.flags,
            }),
            reflected: self.reflected.clone(),
            wire: self.wire.as_ref().into(),
        }
    }
}
