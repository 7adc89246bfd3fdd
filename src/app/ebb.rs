//! When free memory goes back to the system: once it has grown, until no more comes of it.
//!
//! Owns the decision alone; reads no clock and no memory. The allocator keeps what is freed in
//! small pieces, such as what thousands of queries left behind that waited.

use std::time::Duration;

/// How often to look.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Growth in octets from which on it is worth giving something back.
const GROWTH: u64 = 512 * 1024;

/// Less than this, in octets, is nothing: what has grown is in use.
const LITTLE: u64 = 128 * 1024;

/// Looks in a row that brought little before it is left at that: longer than what waits in a storm
/// waits, and than the failures of a storm are kept.
const VAIN_LOOKS: u32 = 5;

/// After this time it is tried in any case: what has ended since, such as the entries of a cache,
/// shows nowhere.
const AT_LATEST: Duration = Duration::from_secs(60);

/// What was seen.
#[derive(Debug)]
pub(super) struct Ebb {
    /// Resident octets after the last time.
    low: u64,
    vain_looks: u32,
    last: Duration,
}

impl Ebb {
    /// Nothing seen yet, at `now`.
    pub(super) fn new(now: Duration) -> Ebb {
        Ebb { low: 0, vain_looks: VAIN_LOOKS, last: now }
    }

    /// Whether memory is given back at `now`, with so many octets resident.
    pub(super) fn is_due(&self, resident: u64, now: Duration) -> bool {
        self.vain_looks < VAIN_LOOKS
            || resident > self.low + GROWTH
            || now.saturating_sub(self.last) >= AT_LATEST
    }

    /// It was: so much was resident before, so much is now.
    pub(super) fn given_back(&mut self, before: u64, after: u64, now: Duration) {
        let has_grown = before > self.low + GROWTH;
        let brought = before.saturating_sub(after);
        self.vain_looks = match has_grown || brought > LITTLE {
            true => 0,
            false => self.vain_looks.saturating_add(1),
        };
        self.low = after;
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// At each look so much is resident, and so much of it goes back: at which looks it is tried.
    fn tried(looks: &[(u64, u64)]) -> Vec<usize> {
        let mut ebb = Ebb::new(Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut tried = Vec::new();
        for (number, &(resident, free)) in looks.iter().enumerate() {
            now += LOOK_EVERY;
            if ebb.is_due(resident, now) {
                tried.push(number);
                ebb.given_back(resident, resident - free, now);
            }
        }
        tried
    }

    #[test]
    fn what_a_storm_leaves_goes_back_however_late_it_is_freed() {
        let calm = (8 * MIB, 0);
        let storm = (20 * MIB, 0);
        let looks =
            [calm, calm, storm, storm, storm, (20 * MIB, 12 * MIB), calm, calm, calm, calm, calm];
        let tried = tried(&looks);
        assert!(tried.contains(&5), "{tried:?}");
    }

    #[test]
    fn what_a_storm_of_expired_names_leaves_is_enough_to_try() {
        let looks = [(10 * MIB, 0), (10 * MIB, 0), (10 * MIB + 600 * 1024, 600 * 1024)];
        let mut quiet = vec![looks[0]; 8];
        quiet.extend(looks);
        assert_eq!(tried(&quiet).last(), Some(&10));
    }

    #[test]
    fn memory_that_stays_in_use_is_left_alone() {
        let mut looks = vec![(8 * MIB, 0); 8];
        looks.extend([(40 * MIB, 0); 20]);
        let tried = tried(&looks);
        assert!(!tried.contains(&27), "{tried:?}");
        assert!(tried.contains(&8), "{tried:?}");
    }

    #[test]
    fn a_minute_is_the_longest_without_a_try() {
        let tried = tried(&[(8 * MIB, 0); 100]);
        let late: Vec<usize> = tried.into_iter().filter(|number| *number > 10).collect();
        assert!((2..=6).contains(&late.len()), "{late:?}");
    }
}
