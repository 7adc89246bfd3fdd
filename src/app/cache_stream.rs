//! The entries of all caches as one stream of octets: into a file that outlives the process, or to
//! the process that takes over.
//!
//! Owns the walk over the stores and the way back into them; the format is
//! [`codec`]'s. A slice of one shard is copied under its lock, so no query waits for it. Never holds a
//! whole cache in memory.

use crate::net::Clock;
use crate::plugin::cache::codec::{self, FileWriter, Refusal, StoreId, Totals};
use crate::plugin::cache::{Cursor, Store};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most octets of a stream; entries beyond are left out, and counted. Six times what a node's
/// default cache holds of usual responses.
pub(super) const OCTETS_MOST: u64 = 64 << 20;

/// The stores of a snapshot, each with the text that says which it is.
pub(super) type Stores = Vec<(String, Arc<Store>)>;

/// How a stream is written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// The pause behind each frame.
    pub(super) pause: Duration,
    /// Only entries that were stored no longer ago than this.
    pub(super) newest: Option<Duration>,
    /// Past this moment it fails with `TimedOut`.
    pub(super) until: Option<Instant>,
}

/// Writes all entries of `stores` that may still be served.
pub(super) fn pour<W: Write>(
    out: W,
    stores: &Stores,
    clock: Clock,
    pace: Pace,
) -> io::Result<(W, Totals)> {
    let mut writer = FileWriter::new(out, OCTETS_MOST)?;
    let newest =
        pace.newest.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    for (text, store) in stores {
        let id = StoreId::of(text);
        let mut cursor = Cursor::default();
        loop {
            if pace.until.is_some_and(|until| Instant::now() > until) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let now = clock.now();
            let Some(entries) = store.export(&mut cursor, now.monotonic) else { break };
            for kept in entries.iter().filter(|kept| kept.age <= newest) {
                if writer.put(id, kept, now.unix)? && !pace.pause.is_zero() {
                    std::thread::sleep(pace.pause);
                }
            }
        }
    }
    writer.finish()
}

/// Puts what a stream holds into `stores`; gives how many entries that were, and whether the stream
/// was whole. What came before a defect is in: each frame is judged by itself.
pub(super) fn take(from: impl Read, stores: &Stores, clock: Clock) -> (u64, Result<(), Refusal>) {
    let by_id: HashMap<StoreId, &Store> =
        stores.iter().map(|(text, store)| (StoreId::of(text), &**store)).collect();
    let mut entries = 0;
    let result = codec::read(from, OCTETS_MOST, |id, records| {
        // A block that is no longer there, or another one now.
        let Some(store) = by_id.get(&id) else { return Ok(()) };
        let now = clock.now();
        codec::decode(records, now.unix, |kept| {
            entries += u64::from(store.import(&kept, now.monotonic));
        })
    });
    (entries, result)
}
