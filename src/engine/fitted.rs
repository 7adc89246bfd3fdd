//! Replies longer than a datagram to their client may be, kept as they were cut.
//!
//! Cutting decodes and compresses the whole message: twenty times the work of a hit that fits. What
//! comes of it follows from the octets and the limit alone, so it is kept under these, and can
//! never be a wrong answer: nothing has to be taken back when an entry or the Corefile changes. A
//! TTL that has counted down makes other octets, so that a reply is of use for one second.

use crate::dns::{Malformed, fit_reply};
use crate::metrics::{Counter, Gauge, Registry, names};
use foldhash::fast::RandomState;
use moka::sync::Cache;
use std::sync::Arc;
use std::time::Duration;

/// The most octets of kept replies, with the messages that they were made of.
pub const FITTED_OCTETS_MOST: u64 = 1 << 20;

/// For how long a reply is kept: until its TTLs have surely counted down.
const KEPT: Duration = Duration::from_secs(2);

/// Octets that a kept reply takes beside its own and its message's: the cache's notes.
const NOTES: usize = 200;

/// A reply before it was cut, its id zero, and the limit.
type Uncut = Box<[u8]>;

/// Replies by the message and limit that they were made of.
pub struct FittedReplies {
    replies: Cache<Uncut, Arc<[u8]>, RandomState>,
    kept: Counter,
    made: Counter,
    octets: Gauge,
}

impl FittedReplies {
    /// None yet.
    pub fn new(metrics: &Registry) -> FittedReplies {
        FittedReplies {
            replies: Cache::builder()
                .max_capacity(FITTED_OCTETS_MOST)
                .weigher(|message: &Uncut, reply: &Arc<[u8]>| {
                    u32::try_from(message.len() + reply.len() + NOTES).unwrap_or(u32::MAX)
                })
                .time_to_live(KEPT)
                .build_with_hasher(RandomState::default()),
            kept: metrics.counter(&names::FITTED_REPLIES, &["kept"]),
            made: metrics.counter(&names::FITTED_REPLIES, &["made"]),
            octets: metrics.gauge(&names::FITTED_BYTES, &[]),
        }
    }

    /// What [`fit_reply`] makes of `reply` and `limit`, whose ids may differ.
    ///
    /// # Errors
    ///
    /// [`Malformed`] as [`fit_reply`].
    pub fn fit(&self, reply: &mut Vec<u8>, limit: usize) -> Result<(), Malformed> {
        let id: [u8; 2] = *reply.first_chunk().ok_or(Malformed::Cut)?;
        let length = reply.len();
        reply[..2].fill(0);
        reply.extend_from_slice(&limit.to_be_bytes());
        if let Some(kept) = self.replies.get(reply.as_slice()) {
            self.kept.increment();
            reply.clear();
            reply.extend_from_slice(&kept);
        } else {
            let message = Uncut::from(reply.as_slice());
            reply.truncate(length);
            fit_reply(reply, limit)?;
            self.made.increment();
            self.replies.insert(message, Arc::from(reply.as_slice()));
            self.octets.set(self.replies.weighted_size() as f64);
        }
        reply[..2].copy_from_slice(&id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Message, flags};

    /// A response to `a.test. A` with so many addresses, the first octet of each `from`.
    fn message(id: u16, addresses: u16, from: u8) -> Vec<u8> {
        let mut wire = id.to_be_bytes().to_vec();
        wire.extend_from_slice(b"\x81\x80\0\x01");
        wire.extend_from_slice(&addresses.to_be_bytes());
        wire.extend_from_slice(b"\0\0\0\0\x01a\x04test\0\0\x01\0\x01");
        for address in 0..addresses {
            wire.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x14\0\x04");
            wire.extend_from_slice(&[from, 0]);
            wire.extend_from_slice(&address.to_be_bytes());
        }
        wire
    }

    fn fitted() -> FittedReplies {
        FittedReplies::new(&Registry::new(1))
    }

    #[test]
    fn a_kept_reply_is_what_would_be_made_again() {
        let replies = fitted();
        for (addresses, limit) in [(40, 512), (40, 600), (200, 600), (200, 1232)] {
            for id in [7, 0xabcd] {
                let mut expected = message(id, addresses, 10);
                let mut reply = expected.clone();
                fit_reply(&mut expected, limit).unwrap();
                replies.fit(&mut reply, limit).unwrap();
                assert_eq!(reply, expected, "{addresses} {limit} {id}");
                assert!(Message::parse(&reply).unwrap().flags() & flags::TC != 0);
            }
        }
        assert_eq!((replies.made.value(), replies.kept.value()), (4, 4));
    }

    #[test]
    fn another_message_is_never_taken_for_it() {
        let replies = fitted();
        for from in [10, 11] {
            let mut reply = message(1, 40, from);
            replies.fit(&mut reply, 512).unwrap();
            assert_eq!(reply[24 + 12], from);
        }
        assert_eq!(replies.kept.value(), 0);
    }

    #[test]
    fn what_is_no_message_is_not_kept() {
        let replies = fitted();
        for _ in 0..2 {
            let mut reply = message(1, 40, 10);
            reply.truncate(20);
            assert!(replies.fit(&mut reply, 16).is_err());
        }
        assert_eq!((replies.made.value(), replies.kept.value()), (0, 0));
    }

    #[test]
    fn kept_replies_stay_within_their_octets() {
        let replies = fitted();
        for id in 0..2_000 {
            let mut reply = message(1, 60 + id, 10);
            replies.fit(&mut reply, 512).unwrap();
        }
        replies.replies.run_pending_tasks();
        let octets = replies.replies.weighted_size();
        assert!(octets > FITTED_OCTETS_MOST / 2 && octets <= FITTED_OCTETS_MOST, "{octets}");
        assert!(replies.octets.value() > 0.0);
    }
}
