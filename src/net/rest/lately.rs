//! What was used of the CPU in the last period.
//!
//! The kernel stops who uses more than its quota within a period, and does not tell when one begins. Who stays
//! below it in each span of that length is never stopped. Owns readings of one span; never takes one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The period of a quota, as Kubernetes sets it.
pub(in crate::net) const PERIOD: Duration = Duration::from_millis(100);

/// The most readings that are kept.
const READINGS_MOST: usize = 64;

/// A moment, and the CPU time that the process had used until then.
pub(in crate::net) type Moment = (Instant, Duration);

/// Readings, the oldest first: one that is older than a period, and those within it.
#[derive(Debug)]
pub(super) struct Lately {
    readings: VecDeque<Moment>,
}

impl Lately {
    pub(super) fn new(now: Moment) -> Lately {
        Lately { readings: VecDeque::from([now]) }
    }

    /// Takes a reading in.
    pub(super) fn add(&mut self, now: Moment) {
        let is_older = |reading: &Moment| now.0.saturating_duration_since(reading.0) >= PERIOD;
        while self.readings.get(1).is_some_and(is_older) || self.readings.len() >= READINGS_MOST {
            self.readings.pop_front();
        }
        self.readings.push_back(now);
    }

    /// What was used within the period before `now`; between two readings as if evenly.
    pub(super) fn used(&self, now: Moment) -> Duration {
        let age = |reading: &Moment| now.0.saturating_duration_since(reading.0);
        let within = self.readings.partition_point(|reading| age(reading) > PERIOD);
        let after = self.readings.get(within).copied().unwrap_or(now);
        let since_after = now.1.saturating_sub(after.1);
        let Some(before) = within.checked_sub(1).map(|place| self.readings[place]) else {
            return since_after;
        };
        let between = after.0.saturating_duration_since(before.0).as_secs_f64();
        let part =
            PERIOD.saturating_sub(age(&after)).as_secs_f64() / between.max(f64::MIN_POSITIVE);
        since_after + after.1.saturating_sub(before.1).mul_f64(part.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_period_is_not_counted() {
        let start = Instant::now();
        let at = |milliseconds: u64, used: u64| {
            (start + Duration::from_millis(milliseconds), Duration::from_millis(used))
        };
        let mut lately = Lately::new(at(0, 5));
        assert_eq!(lately.used(at(50, 8)), Duration::from_millis(3));
        for (milliseconds, used) in [(40, 7), (60, 8), (110, 10), (130, 13)] {
            lately.add(at(milliseconds, used));
        }
        // From 30 ms on: a quarter of what was used from 0 to 40 ms is counted.
        assert_eq!(lately.used(at(130, 13)), Duration::from_micros(6500));
        assert_eq!(lately.used(at(200, 14)), Duration::from_micros(4400));
        assert_eq!(lately.used(at(230, 14)), Duration::from_micros(1000));
        assert_eq!(lately.used(at(1130, 23)), Duration::from_micros(1000));
    }

    #[test]
    fn readings_are_bounded() {
        let start = Instant::now();
        let mut lately = Lately::new((start, Duration::ZERO));
        for microseconds in 0..10_000 {
            lately.add((start + Duration::from_micros(microseconds), Duration::ZERO));
            assert!(lately.readings.len() <= READINGS_MOST);
        }
    }
}
