//! Rests of a worker whose process is about to use up its CPU quota.
//!
//! A container's CPU limit is a quota for each 100 ms: who has used it up stands still until they are
//! over, and so do all queries. A query that wakes a worker alone costs several times what it costs
//! among others. So while most of the quota is used, a worker that has nothing more to do rests for at
//! most [`LONGEST`] before it waits for the next query, and then finds several. Owns how long; never
//! rests without a quota.

use crate::sys::{cgroup, cpu};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest rest: what a query may wait beyond its time, and a miss once more for its answer.
const LONGEST: Duration = Duration::from_millis(2);

/// The shortest rest that there is.
const SHORTEST: Duration = Duration::from_micros(500);

/// How long CPU time is counted before the rest is changed: the period of the quota.
const WINDOW: Duration = Duration::from_millis(100);

/// After this time without a look nothing is known any more.
const LONG_AGO: Duration = Duration::from_secs(2);

/// How often the quota is read anew: it can be changed while a container runs.
const QUOTA_LASTS: Duration = Duration::from_secs(1);

/// Rests become longer above this share of the quota, and are the longest at once above the second.
const MUCH: f64 = 0.55;
const NEARLY_ALL: f64 = 0.85;

/// Rests become shorter below this share. Far below the others: it is the rests that make it little.
const LITTLE: f64 = 0.25;

/// What a runtime shall do before its thread waits: rest, if need be.
pub(super) fn before_waiting() -> impl Fn() + Send + Sync + 'static {
    let rest = Mutex::new(Rest::new(Instant::now()));
    move || {
        let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
        let length = rest.length(Instant::now(), cpu::used, || cgroup::cpu_quota(&cgroup::read));
        drop(rest);
        if !length.is_zero() {
            std::thread::sleep(length);
        }
    }
}

/// How long a worker rests.
#[derive(Debug)]
struct Rest {
    length: Duration,
    /// When the window began, and the CPU time that had been used until then.
    began: Instant,
    used: Duration,
    /// CPU time for each second, and when that was read.
    quota: Option<Duration>,
    quota_read: Option<Instant>,
}

impl Rest {
    fn new(now: Instant) -> Rest {
        Rest {
            length: Duration::ZERO,
            began: now,
            used: Duration::ZERO,
            quota: None,
            quota_read: None,
        }
    }

    /// The length of a rest that begins now. `used` is the process's CPU time, `quota` what it may use
    /// in a second.
    fn length(
        &mut self,
        now: Instant,
        used: impl FnOnce() -> Duration,
        quota: impl FnOnce() -> Option<Duration>,
    ) -> Duration {
        let passed = now.saturating_duration_since(self.began);
        if passed < WINDOW {
            return self.length;
        }
        self.began = now;
        if self.quota_read.is_none_or(|read| now.duration_since(read) >= QUOTA_LASTS) {
            self.quota = quota();
            self.quota_read = Some(now);
        }
        let Some(quota) = self.quota.filter(|quota| !quota.is_zero()) else {
            self.length = Duration::ZERO;
            return self.length;
        };
        let used = used();
        let spent = used.saturating_sub(std::mem::replace(&mut self.used, used));
        let share = spent.as_secs_f64() / (passed.as_secs_f64() * quota.as_secs_f64());
        self.length = match self.length {
            _ if passed >= LONG_AGO => Duration::ZERO,
            _ if share > NEARLY_ALL => LONGEST,
            length if share > MUCH => (2 * length).max(SHORTEST).min(LONGEST),
            length if share < LITTLE && length <= SHORTEST => Duration::ZERO,
            length if share < LITTLE => length / 2,
            length => length,
        };
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Duration = Duration::from_millis(100);

    /// The rests after windows in which so many hundredths of the quota were used.
    fn rests(quota: Option<Duration>, shares: &[u32]) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut rest = Rest::new(now);
        let mut used = Duration::ZERO;
        let lengths = shares.iter().map(|share| {
            now += WINDOW;
            used += WINDOW / 10 * *share / 100;
            rest.length(now, || used, || quota)
        });
        lengths.collect()
    }

    fn microseconds(lengths: &[u64]) -> Vec<Duration> {
        lengths.iter().copied().map(Duration::from_micros).collect()
    }

    #[test]
    fn rests_grow_while_much_of_the_quota_is_used_and_end_when_little_is() {
        let shares = [50, 60, 60, 60, 60, 40, 20, 20, 20, 50];
        let lengths = [0, 500, 1000, 2000, 2000, 2000, 1000, 500, 0, 0];
        assert_eq!(rests(Some(QUOTA), &shares), microseconds(&lengths));
    }

    #[test]
    fn a_quota_that_is_used_up_makes_long_rests_at_once() {
        assert_eq!(rests(Some(QUOTA), &[90, 100, 50]), microseconds(&[2000, 2000, 2000]));
    }

    #[test]
    fn without_a_quota_nobody_rests() {
        assert_eq!(rests(None, &[100, 1000]), microseconds(&[0, 0]));
    }

    #[test]
    fn within_a_window_and_after_a_long_time_nothing_is_judged() {
        let start = Instant::now();
        let mut rest = Rest::new(start);
        let quota = || Some(QUOTA);
        assert_eq!(rest.length(start + WINDOW, || WINDOW / 10, quota), LONGEST);
        let soon = start + WINDOW + WINDOW / 2;
        assert_eq!(rest.length(soon, || panic!("too soon"), quota), LONGEST);
        assert_eq!(rest.length(start + 2 * LONG_AGO, || LONG_AGO, quota), Duration::ZERO);
    }

    #[test]
    fn the_quota_is_read_anew() {
        let start = Instant::now();
        let mut rest = Rest::new(start);
        for window in 1..20 {
            let now = start + WINDOW * window;
            let quota = || (window > 5).then_some(QUOTA);
            let length = rest.length(now, || WINDOW / 10 * window, quota);
            assert_eq!(length.is_zero(), window < 11, "{window}");
        }
    }
}
