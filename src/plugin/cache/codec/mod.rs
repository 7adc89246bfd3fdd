//! Entries of a cache as octets, for a file or for another process of this machine.
//!
//! Owns the format: records, frames of records of one store, a chain of checksums over the frames.
//! Reads and writes what it is lent; opens nothing, reads no clock. What comes in is judged: its
//! length is bounded, and whatever [`encode`] and [`FileWriter`] would not have left so is refused.

mod file;
mod record;

pub use file::{FRAME_OCTETS_MOST, FileWriter, Totals, read};
pub use record::{decode, encode};

use sha2::{Digest, Sha256};
use std::io;

/// The version of the format. Another one is refused: what it would mean is not known.
pub const VERSION: u16 = 1;

/// Which store an entry belongs to: the same in every process that keeps it for the same block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 32]);

impl StoreId {
    /// That of the store with this text ([`super::stores`]).
    pub fn of(text: &str) -> StoreId {
        StoreId(Sha256::digest(text).into())
    }
}

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

#[cfg(test)]
mod tests {
    use super::file::{FRAME_HEAD_OCTETS, HEAD_OCTETS};
    use super::record::FIXED_OCTETS;
    use super::*;
    use crate::dns::Rcode;
    use crate::plugin::cache::{Kept, KeptAs};
    use proptest::prelude::*;
    use std::time::Duration;

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

    #[test]
    fn bits_and_rcodes_that_nobody_writes_are_refused() {
        let mut octets = Vec::new();
        encode(&Kept { rcode: Rcode(4095), ..kept(12) }, UNIX, &mut octets);
        assert!(decode(&octets, UNIX, |_| ()).is_ok());
        // Behind the length: the flags, then the rcode.
        for (place, octet) in [(4, 16), (4, 3), (5, 0x10)] {
            let mut wrong = octets.clone();
            wrong[place] |= octet;
            assert!(matches!(decode(&wrong, UNIX, |_| ()), Err(Refusal::Torn)), "{place}");
        }
    }

    #[test]
    fn a_file_that_was_written_up_to_its_bound_is_read_within_it() {
        let one = [(StoreId::of("a"), kept(1000))];
        let most = (HEAD_OCTETS + FRAME_HEAD_OCTETS + 4 + FIXED_OCTETS + 1000) as u64;
        let (whole, totals) = file(&one, most);
        assert_eq!((totals.entries, totals.left_out), (1, 0));
        assert_eq!(read_back(&whole, most).unwrap().len(), 1);
        assert_eq!(file(&one, most - 1).1.left_out, 1);
        assert_eq!(read_back(&whole, most - 1).unwrap_err().word(), "too_large");
    }
}
