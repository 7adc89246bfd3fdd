//! Sizes that the wire fixes, in octets (RFC 1035): one name for each, for all who read or write it.

/// The header (§4.1.1): id, flags, four counts. The question stands right behind it.
pub const HEADER: usize = 12;

/// QTYPE and QCLASS, behind the name of a question (§4.1.2).
pub const TYPE_AND_CLASS: usize = 4;

/// TYPE, CLASS, TTL and RDLENGTH, between a record's name and its RDATA (§4.1.3).
pub const RECORD_FIELDS: usize = 10;

/// The longest label (§2.3.4).
pub const LABEL_MOST: usize = 63;

/// The longest name, with the lengths of its labels and the root's (§2.3.4).
pub const NAME_MOST: usize = 255;

/// The longest message: a stream writes its length in 16 bits (§4.2.2).
pub const MESSAGE_MOST: usize = u16::MAX as usize;

/// The datagram that every client takes, with EDNS or without (§4.2.1, RFC 6891 §6.2.3).
pub const UDP_LEAST: u16 = 512;
