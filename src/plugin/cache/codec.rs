//! Entries of a cache as octets, for a file or for another process of this machine.
//!
//! Owns the format: records, frames of records of one store, a chain of checksums over the frames.
//! Reads and writes what it is lent; opens nothing, reads no clock. What comes in is judged: its
//! length is bounded, and whatever is not as [`write`] would have left it is refused.

use super::export::{Kept, KeptAs};
use crate::dns::{Rcode, sizes};
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::time::Duration;

/// The version of the format. Another one is refused: what it would mean is not known.
pub const VERSION: u16 = 1;

/// The most octets of records in one frame. A message has at most 65535, so one always fits.
pub const FRAME_OCTETS_MOST: usize = 128 * 1024;

/// What every file begins with, before the version.
const MAGIC: [u8; 14] = *b"nodens cache\r\n";

/// Octets of a file's head: [`MAGIC`] and the version.
const HEAD_OCTETS: usize = MAGIC.len() + 2;

/// Octets of a frame's head: the store, the length of the records, the checksum.
const FRAME_HEAD_OCTETS: usize = 32 + 4 + 8;

/// Octets of a record behind its length and before its message.
const FIXED_OCTETS: usize = 27;

/// The least and the most octets of a message.
const MESSAGE_OCTETS: std::ops::RangeInclusive<usize> = sizes::HEADER..=sizes::MESSAGE_MOST;

/// How far in the future an entry may have been stored: the wall clock is set a little back now and
/// then. After a larger step nobody knows how old entries are: they are left out.
const CLOCK_STEP_MOST: u64 = 1000;

/// Which store an entry belongs to: the same in every process that keeps it for the same block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 32]);

impl StoreId {
    /// That of the store with this text ([`super::stores`]).
    pub fn of(text: &str) -> StoreId {
        StoreId(Sha256::digest(text).into())
    }
}

/// Stands in the last frame.
const NO_STORE: StoreId = StoreId([0; 32]);

/// Why octets were not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It does not begin as ours do.
    #[error("not a cache of nodens")]
    Foreign,
    /// Another version of the format.
    #[error("version {0}, this is version {VERSION}")]
    Version(u16),
    /// It ends too early, or a checksum is wrong.
    #[error("torn or changed")]
    Torn,
    /// Longer than the bound.
    #[error("too large")]
    TooLarge,
    /// It could not be read.
    #[error("{0}")]
    Unread(io::Error),
}

impl Refusal {
    /// A word for a metric's label.
    pub fn word(&self) -> &'static str {
        match self {
            Refusal::Foreign => "foreign",
            Refusal::Version(_) => "version",
            Refusal::Torn => "torn",
            Refusal::TooLarge => "too_large",
            Refusal::Unread(_) => "unread",
        }
    }
}

/// Appends one record. `unix` is the wall clock at the moment of the export: ages are kept as
/// moments, since time passes until they are read.
pub fn encode(kept: &Kept, unix: Duration, octets: &mut Vec<u8>) {
    let now = milliseconds(unix);
    let kind = match kept.kind {
        KeptAs::Success => 0,
        KeptAs::Denial => 1,
        KeptAs::Failure => 2,
    };
    let flags = kind | u8::from(kept.dnssec_ok) << 2 | u8::from(kept.checking_disabled) << 3;
    let last_hit = kept.last_hit.map_or(0, |ago| now.saturating_sub(ago).max(1));
    // A message has at most 65535 octets.
    octets.extend(((FIXED_OCTETS + kept.message.len()) as u32).to_be_bytes());
    octets.push(flags);
    octets.extend(kept.rcode.0.to_be_bytes());
    octets.extend(kept.ttl.to_be_bytes());
    octets.extend(now.saturating_sub(kept.age).to_be_bytes());
    octets.extend(kept.hits.to_be_bytes());
    octets.extend(last_hit.to_be_bytes());
    octets.extend_from_slice(&kept.message);
}

/// Gives `each` the entries of the records in `octets`, as they are at the wall clock's `unix`; those
/// that lie in the future are left out. The error is [`Refusal::Torn`]: what stood before has been
/// given.
pub fn decode(octets: &[u8], unix: Duration, mut each: impl FnMut(Kept)) -> Result<(), Refusal> {
    let mut rest = octets;
    while !rest.is_empty() {
        if let Some(kept) = next(&mut rest, milliseconds(unix)).ok_or(Refusal::Torn)? {
            each(kept);
        }
    }
    Ok(())
}

/// The next record; `Some(None)` when it lies in the future.
fn next(rest: &mut &[u8], now: u64) -> Option<Option<Kept>> {
    let length = u32::from_be_bytes(take(rest)?) as usize;
    let (mut record, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    let record = &mut record;
    let [flags] = take(record)?;
    let kind = match flags & 3 {
        0 => KeptAs::Success,
        1 => KeptAs::Denial,
        2 => KeptAs::Failure,
        _ => return None,
    };
    let rcode = Rcode(u16::from_be_bytes(take(record)?));
    let ttl = u32::from_be_bytes(take(record)?);
    let stored = u64::from_be_bytes(take(record)?);
    let hits = u32::from_be_bytes(take(record)?);
    let last_hit = u64::from_be_bytes(take(record)?);
    if flags > 15 || rcode.0 > 4095 || !MESSAGE_OCTETS.contains(&record.len()) {
        return None;
    }
    if stored > now.saturating_add(CLOCK_STEP_MOST) {
        return Some(None);
    }
    Some(Some(Kept {
        message: (*record).into(),
        rcode,
        kind,
        dnssec_ok: flags & 4 != 0,
        checking_disabled: flags & 8 != 0,
        ttl,
        age: now.saturating_sub(stored),
        hits,
        last_hit: (last_hit != 0).then(|| now.saturating_sub(last_hit)),
    }))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*taken)
}

fn milliseconds(unix: Duration) -> u64 {
    u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
}

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
/// its records, for [`decode`]. After an error some have been given: to take all or nothing, read
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNIX: Duration = Duration::from_secs(1_700_000_000);

    fn any_kept() -> impl Strategy<Value = Kept> {
        let kind = prop_oneof![Just(KeptAs::Success), Just(KeptAs::Denial), Just(KeptAs::Failure)];
        let times = (any::<u32>(), 0..10_000_000_u64, any::<u32>());
        let last_hit = proptest::option::of(0..10_000_000_u64);
        let message = proptest::collection::vec(any::<u8>(), 12..300);
        (message, 0..4096_u16, kind, any::<(bool, bool)>(), times, last_hit).prop_map(
            |(message, rcode, kind, (dnssec_ok, checking_disabled), (ttl, age, hits), last_hit)| {
                Kept {
                    message: message.into(),
                    rcode: Rcode(rcode),
                    kind,
                    dnssec_ok,
                    checking_disabled,
                    ttl,
                    age,
                    hits,
                    last_hit,
                }
            },
        )
    }

    fn kept(octets: usize) -> Kept {
        Kept {
            message: vec![7; octets].into(),
            rcode: Rcode::NOERROR,
            kind: KeptAs::Success,
            dnssec_ok: false,
            checking_disabled: false,
            ttl: 30,
            age: 5000,
            hits: 2,
            last_hit: Some(100),
        }
    }

    fn file(all: &[(StoreId, Kept)], most: u64) -> (Vec<u8>, Totals) {
        let mut writer = FileWriter::new(Vec::new(), most).unwrap();
        for (store, kept) in all {
            writer.put(*store, kept, UNIX).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read_back(file: &[u8], most: u64) -> Result<Vec<(StoreId, Kept)>, Refusal> {
        let mut all = Vec::new();
        read(file, most, |store, records| decode(records, UNIX, |kept| all.push((store, kept))))?;
        Ok(all)
    }

    proptest! {
        #[test]
        fn a_file_gives_back_what_was_put_in(
            all in proptest::collection::vec((0..3_u8, any_kept()), 0..40),
        ) {
            let stores = ["a", "b", "c"].map(StoreId::of);
            let all: Vec<_> =
                all.into_iter().map(|(at, kept)| (stores[usize::from(at)], kept)).collect();
            let (file, totals) = file(&all, u64::MAX);
            prop_assert_eq!(totals.entries as usize, all.len());
            prop_assert_eq!(totals.octets as usize, file.len());
            prop_assert_eq!(read_back(&file, u64::MAX).unwrap(), all);
        }

        #[test]
        fn a_file_with_any_octet_changed_or_cut_off_is_refused(
            all in proptest::collection::vec(any_kept(), 0..5),
            at in any::<proptest::sample::Index>(),
            bits in 1..=255_u8,
        ) {
            let all: Vec<_> = all.into_iter().map(|kept| (StoreId::of("a"), kept)).collect();
            let (mut file, _) = file(&all, u64::MAX);
            let at = at.index(file.len());
            prop_assert!(read_back(&file[..at], u64::MAX).is_err());
            file[at] ^= bits;
            prop_assert!(read_back(&file, u64::MAX).is_err());
        }

        #[test]
        fn any_octets_are_records_or_refused(
            octets in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut again = Vec::new();
            let _ = decode(&octets, UNIX, |kept| encode(&kept, UNIX, &mut again));
            prop_assert!(again.len() <= octets.len());
        }
    }

    #[test]
    fn each_way_of_being_wrong_has_its_reason() {
        let (whole, _) = file(&[(StoreId::of("a"), kept(100))], u64::MAX);
        let mut later = whole.clone();
        later[HEAD_OCTETS - 1] = 2;
        let mut behind = whole.clone();
        behind.push(0);
        let mut long = whole.clone();
        long[HEAD_OCTETS + 32] = 0xff;
        // A frame left out, and two exchanged.
        let two = [(StoreId::of("a"), kept(100)), (StoreId::of("b"), kept(100))];
        let (two, _) = file(&two, u64::MAX);
        let frame = FRAME_HEAD_OCTETS + 4 + FIXED_OCTETS + 100;
        let (first, second) = (HEAD_OCTETS, HEAD_OCTETS + frame);
        let missing = [&two[..first], &two[second..]].concat();
        let exchanged = [
            &two[..first],
            &two[second..second + frame],
            &two[first..second],
            &two[second + frame..],
        ];
        for (file, word) in [
            (&b""[..], "foreign"),
            (b"a file of somebody else's, long enough", "foreign"),
            (&later, "version"),
            (&whole[..whole.len() - 1], "torn"),
            (&whole[..HEAD_OCTETS], "torn"),
            (&behind, "torn"),
            (&long, "torn"),
            (&missing, "torn"),
            (&exchanged.concat(), "torn"),
        ] {
            assert_eq!(read_back(file, u64::MAX).unwrap_err().word(), word, "{file:?}");
        }
        assert_eq!(read_back(&whole, 60).unwrap_err().word(), "too_large");
        assert!(read_back(&two, u64::MAX).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let all: Vec<_> = (0..100).map(|_| (StoreId::of("a"), kept(1000))).collect();
        let (file, totals) = file(&all, 50_000);
        assert_eq!((totals.entries, totals.left_out), (48, 52));
        assert_eq!(file.len() as u64, totals.octets);
        assert_eq!(read_back(&file, 50_000).unwrap().len(), 48);
    }

    #[test]
    fn a_frame_is_bounded_whatever_the_entries() {
        let all: Vec<_> = (0..9).map(|_| (StoreId::of("a"), kept(65535))).collect();
        let (file, _) = file(&all, u64::MAX);
        let mut frames = 0;
        read(&file[..], u64::MAX, |_, records| {
            frames += 1;
            assert!(records.len() <= FRAME_OCTETS_MOST);
            Ok(())
        })
        .unwrap();
        assert_eq!(frames, 9);
        assert_eq!(read_back(&file, u64::MAX).unwrap().len(), 9);
    }

    #[test]
    fn time_passes_between_writing_and_reading_and_never_backwards() {
        let mut octets = Vec::new();
        encode(&kept(12), UNIX, &mut octets);
        let at = |unix| {
            let mut found = None;
            decode(&octets, unix, |kept| found = Some(kept)).unwrap();
            found
        };
        let later = at(UNIX + Duration::from_secs(60)).unwrap();
        assert_eq!((later.age, later.last_hit), (65_000, Some(60_100)));
        // The clock was set back: by a little, and by more than entries can be trusted with.
        let little = at(UNIX - Duration::from_millis(5500)).unwrap();
        assert_eq!((little.age, little.last_hit), (0, Some(0)));
        assert_eq!(at(UNIX - Duration::from_millis(6500)), None);
    }
}
