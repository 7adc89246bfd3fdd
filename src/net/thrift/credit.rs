//! CPU time that is left for questions.
//!
//! Two measures, and both must have some left: a credit that grows with time, so that a load far beyond the
//! quota is spread over its period; and what was used within the last period, so that the kernel never
//! stops the process. Owns the account; readings come in.

use crate::net::rest::{PERIOD, Reading};
use std::time::{Duration, Instant};

/// Which part of the quota the credit grows with.
const GIVEN_OUT: f64 = 0.96;

/// Which part of a period's quota may be used within any period: the kernel stops who uses all of it, and
/// what was begun is still to be ended.
const USED_MOST: f64 = 0.98;

/// For how long CPU time that was not used can be used later, in seconds. So much a load may begin with, before
/// rests save what it takes too much.
const SAVED: f64 = 0.03;

/// For how long CPU time that was used too much keeps others waiting, at most, in seconds.
const OWED: f64 = 0.02;

/// After so long without a reading nothing is owed: what the last period used is known otherwise.
const LONG_AGO: Duration = PERIOD;

/// CPU time that is left for questions, of the whole process.
#[derive(Debug)]
pub(in crate::net) struct Credit {
    at: Instant,
    used: Duration,
    /// Seconds.
    left: f64,
}

impl Credit {
    pub(in crate::net) fn new(now: Instant) -> Credit {
        Credit { at: now, used: Duration::ZERO, left: 0.0 }
    }

    /// Whether there is some, by this reading of `now`.
    pub(super) fn is_left(&mut self, now: Instant, reading: Reading) -> bool {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.at, now));
        let spent = reading.used.saturating_sub(std::mem::replace(&mut self.used, reading.used));
        let Some(quota) = reading.quota.map(|quota| quota.as_secs_f64()) else { return true };
        self.left = match passed > LONG_AGO {
            true => SAVED * quota,
            false => {
                let left =
                    self.left + passed.as_secs_f64() * quota * GIVEN_OUT - spent.as_secs_f64();
                left.clamp(-OWED * quota, SAVED * quota)
            }
        };
        self.left > 0.0 && reading.lately.as_secs_f64() < USED_MOST * quota * PERIOD.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Option<Duration> = Some(Duration::from_millis(100));

    /// A credit at `start`, of a process that has used nothing; and readings of what it used since.
    fn full(start: Instant) -> Credit {
        let mut credit = Credit::new(start - 2 * LONG_AGO);
        assert!(credit.is_left(start, used(0)));
        credit
    }

    /// So many microseconds were used, all of them lately.
    fn used(microseconds: u64) -> Reading {
        let used = Duration::from_micros(microseconds);
        Reading { used, quota: QUOTA, lately: used }
    }

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_load_begins_with_what_was_saved_and_goes_on_with_what_comes() {
        let start = Instant::now();
        let mut credit = full(start);
        assert!(credit.is_left(start, used(2990)));
        assert!(!credit.is_left(start, used(3050)));
        // A millisecond brings 96 microseconds.
        assert!(credit.is_left(start + milliseconds(1), used(3050)));
        assert!(!credit.is_left(start + milliseconds(2), used(3200)));
        assert!(credit.is_left(start + milliseconds(3), used(3200)));
    }

    #[test]
    fn what_was_used_too_much_is_owed_for_a_fifth_of_a_period_at_most() {
        let start = Instant::now();
        let mut credit = full(start);
        let reading = Reading { lately: Duration::ZERO, ..used(100_000_000) };
        assert!(!credit.is_left(start, reading));
        assert!(!credit.is_left(start + milliseconds(20), reading));
        assert!(credit.is_left(start + milliseconds(21), reading));
    }

    #[test]
    fn no_more_is_used_within_a_period_than_the_kernel_allows() {
        let start = Instant::now();
        let mut credit = full(start);
        // Credit comes as fast as it goes, but the period began with more.
        let mut now = start;
        for step in 0..7 {
            assert!(credit.is_left(now, used(2900 + 960 * step)), "{step}");
            now += milliseconds(10);
        }
        assert!(!credit.is_left(now, used(9810)));
        let later = Reading { lately: Duration::from_micros(9700), ..used(9810) };
        assert!(credit.is_left(now + milliseconds(1), later));
    }

    #[test]
    fn what_was_used_while_nobody_looked_is_not_owed() {
        let start = Instant::now();
        let mut credit = full(start);
        let now = start + milliseconds(5000);
        let reading = Reading { lately: milliseconds(9), ..used(500_000) };
        assert!(credit.is_left(now, reading));
        assert!(!credit.is_left(now, Reading { lately: milliseconds(10), ..reading }));
    }

    #[test]
    fn without_a_quota_there_is_always_credit() {
        let start = Instant::now();
        let mut credit = full(start);
        assert!(credit.is_left(start, Reading { quota: None, ..used(100_000_000) }));
    }
}
