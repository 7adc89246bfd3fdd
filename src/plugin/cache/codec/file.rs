//! A file of records: frames of one store each, chained by their checksums.

use super::record::{FIXED_OCTETS, encode, take};
use super::{Refusal, StoreId, VERSION};
use crate::plugin::cache::export::Kept;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::time::Duration;

/// The most octets of records in one frame. A message has at most 65535, so one always fits.
pub const FRAME_OCTETS_MOST: usize = 128 * 1024;

/// What every file begins with, before the version.
const MAGIC: [u8; 14] = *b"nodens cache\r\n";

/// Octets of a file's head: [`MAGIC`] and the version.
pub(super) const HEAD_OCTETS: usize = MAGIC.len() + 2;

/// Octets of a frame's head: the store, the length of the records, the checksum.
pub(super) const FRAME_HEAD_OCTETS: usize = 32 + 4 + 8;

/// Stands in the last frame.
const NO_STORE: StoreId = StoreId([0; 32]);

/// Binds every frame to all before it, so that none can be missing or moved.
struct Chain([u8; 8]);

impl Chain {
    fn start(head: &[u8; HEAD_OCTETS]) -> Chain {
        let mut chain = Chain([0; 8]);
        chain.follow(&[head]);
        chain
    }

    fn follow(&mut self, parts: &[&[u8]]) -> [u8; 8] {
        let mut digest = Sha256::new_with_prefix(self.0);
        for part in parts {
            digest.update(part);
        }
        let whole: [u8; 32] = digest.finalize().into();
        let (first, _) = whole.split_first_chunk().expect("32 octets hold 8");
        self.0 = *first;
        self.0
    }
}

fn head() -> [u8; HEAD_OCTETS] {
    let mut head = [0; HEAD_OCTETS];
    head[..MAGIC.len()].copy_from_slice(&MAGIC);
    head[MAGIC.len()..].copy_from_slice(&VERSION.to_be_bytes());
    head
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries.
    pub entries: u64,
    /// Entries for which there was no room.
    pub left_out: u64,
    /// Octets of the whole.
    pub octets: u64,
}

/// Writes a file of entries.
pub struct FileWriter<W> {
    out: W,
    chain: Chain,
    most: u64,
    store: StoreId,
    records: Vec<u8>,
    totals: Totals,
}

impl<W: Write> FileWriter<W> {
    /// A file of `most` octets at most, without what frames an empty one.
    ///
    /// # Errors
    ///
    /// Of the writer below.
    pub fn new(mut out: W, most: u64) -> io::Result<FileWriter<W>> {
        let head = head();
        out.write_all(&head)?;
        Ok(FileWriter {
            out,
            chain: Chain::start(&head),
            most,
            store: NO_STORE,
            records: Vec::with_capacity(FRAME_OCTETS_MOST),
            totals: Totals { octets: HEAD_OCTETS as u64, ..Totals::default() },
        })
    }

    /// Adds an entry of `store`; true when a frame was written. `unix` as for [`encode`].
    ///
    /// # Errors
    ///
    /// Of the writer below.
    pub fn put(&mut self, store: StoreId, kept: &Kept, unix: Duration) -> io::Result<bool> {
        let octets = 4 + FIXED_OCTETS + kept.message.len();
        let is_full = self.records.len() + octets > FRAME_OCTETS_MOST || store != self.store;
        let is_due = is_full && !self.records.is_empty();
        if is_due {
            self.write_frame()?;
        }
        let before = self.totals.octets + (FRAME_HEAD_OCTETS + self.records.len()) as u64;
        if before + octets as u64 > self.most {
            self.totals.left_out += 1;
            return Ok(is_due);
        }
        self.store = store;
        encode(kept, unix, &mut self.records);
        self.totals.entries += 1;
        Ok(is_due)
    }

    /// Writes what is left and the end.
    ///
    /// # Errors
    ///
    /// Of the writer below.
    pub fn finish(mut self) -> io::Result<(W, Totals)> {
        if !self.records.is_empty() {
            self.write_frame()?;
        }
        self.store = NO_STORE;
        self.write_frame()?;
        Ok((self.out, self.totals))
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let length = (self.records.len() as u32).to_be_bytes();
        let checksum = self.chain.follow(&[&self.store.0, &length, &self.records]);
        for part in [&self.store.0[..], &length, &checksum, &self.records] {
            self.out.write_all(part)?;
        }
        self.totals.octets += (FRAME_HEAD_OCTETS + self.records.len()) as u64;
        self.records.clear();
        Ok(())
    }
}

/// Reads a file of at most `most` octets from its beginning and gives `each` its frames: a store and
/// its records, for [`decode`](super::decode). After an error some have been given: to take all or nothing, read
/// twice. Holds one frame at a time.
pub fn read(
    mut from: impl Read,
    most: u64,
    mut each: impl FnMut(StoreId, &[u8]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut head = [0; HEAD_OCTETS];
    fill(&mut from, &mut head, Refusal::Foreign)?;
    let (magic, version) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(Refusal::Foreign);
    }
    let version = u16::from_be_bytes([version[0], version[1]]);
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let mut chain = Chain::start(&head);
    let mut octets = HEAD_OCTETS as u64;
    let mut records = Vec::new();
    loop {
        let mut frame = [0; FRAME_HEAD_OCTETS];
        fill(&mut from, &mut frame, Refusal::Torn)?;
        let mut rest = &frame[..];
        let store = StoreId(take(&mut rest).ok_or(Refusal::Torn)?);
        let length: [u8; 4] = take(&mut rest).ok_or(Refusal::Torn)?;
        let size = u32::from_be_bytes(length) as usize;
        if size > FRAME_OCTETS_MOST {
            return Err(Refusal::Torn);
        }
        octets += (FRAME_HEAD_OCTETS + size) as u64;
        // The end does not count: a writer goes to the bound without it.
        if octets > most && store != NO_STORE {
            return Err(Refusal::TooLarge);
        }
        records.resize(size, 0);
        fill(&mut from, &mut records, Refusal::Torn)?;
        if chain.follow(&[&store.0, &length, &records])[..] != *rest {
            return Err(Refusal::Torn);
        }
        if store != NO_STORE {
            each(store, &records)?;
            continue;
        }
        // Something behind the end was not written by us.
        return match (size, from.read(&mut [0])) {
            (0, Ok(0)) => Ok(()),
            (_, Err(error)) => Err(Refusal::Unread(error)),
            _ => Err(Refusal::Torn),
        };
    }
}

/// Reads exactly so many octets; `short` when there are fewer.
fn fill(from: &mut impl Read, octets: &mut [u8], short: Refusal) -> Result<(), Refusal> {
    from.read_exact(octets).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => short,
        _ => Refusal::Unread(error),
    })
}
