//! The wire and its words: names, questions, EDNS, views over message bytes, response patching.
//!
//! Owns the wire format (RFC 1035, 3597, 6891). Never does I/O, reads a clock or logs; what the
//! hit path calls here does not allocate.

mod edns;
mod layout;
mod malformed;
mod message;
mod name;
mod query;
mod record;
mod reply;
mod response;
pub mod sizes;
mod suffixes;
mod words;
mod writer;

pub use edns::Edns;
pub use malformed::Malformed;
pub use message::Message;
pub use name::{Name, NameError};
pub use query::{KeptQuery, Query, Received, Reject};
pub use record::{Record, Section};
pub use reply::{
    ReplyLimits, badvers_reply, finish_reply, fit_reply, foreseen_reply, reject_reply,
    will_be_truncated,
};
pub use response::{Response, Written};
pub use words::{Class, Opcode, Rcode, RecordType, Transport, UnknownWord, flags, options};
pub use writer::Writer;
