//! How long a worker rests.
//!
//! Judged at the end of each window, and of a load that has just begun before: by the end of its first
//! window it would have used up the quota. Never reads a clock or a counter: both come in.

use super::lately::{Lately, Moment, PERIOD};
use std::time::{Duration, Instant};

/// The longest rest: what a query may wait beyond its time, and a miss once more for its answer.
const LONGEST: Duration = Duration::from_millis(3);

/// The shortest rest that there is.
const SHORTEST: Duration = Duration::from_micros(500);

/// How long CPU time is counted before the rest is changed.
pub(super) const WINDOW: Duration = PERIOD;

/// After this time without a look nothing is known any more.
const LONG_AGO: Duration = Duration::from_secs(2);

/// How often the quota is read anew: it can be changed while a container runs.
const QUOTA_LASTS: Duration = Duration::from_secs(1);

/// Rests become longer above this share of the quota, and are the longest at once above the second.
const MUCH: f64 = 0.55;
const NEARLY_ALL: f64 = 0.85;

/// Rests become shorter below this share. Far below the others: it is the rests that make it little.
const LITTLE: f64 = 0.25;

/// How often CPU time is looked at within a window.
const GLANCE: Duration = Duration::from_millis(4);

/// Rests are the longest within a window, too, once so much of its quota went at a pace that uses nearly
/// all: a load has begun that is more than a few queries.
const AT_ONCE: f64 = 0.15;

/// What was used while rests had their length must be of so much time to be judged.
const SEEN: Duration = Duration::from_millis(20);

/// How long a worker rests.
#[derive(Debug)]
pub(super) struct Rest {
    length: Duration,
    /// When the window began.
    window: Moment,
    /// Since when rests have their length, in this window.
    since: Moment,
    /// When CPU time was looked at last.
    glanced: Moment,
    /// What went at a pace that uses nearly all, until the last look.
    hurried: Duration,
    pub(super) lately: Lately,
    /// CPU time for each second, and when that was read.
    pub(super) quota: Option<Duration>,
    quota_read: Option<Instant>,
}

/// CPU time that was used from `since` to `now`, and which share of a quota that was.
fn spent(since: Moment, now: Moment, quota: Duration) -> (Duration, f64) {
    let passed = now.0.saturating_duration_since(since.0).as_secs_f64();
    let spent = now.1.saturating_sub(since.1);
    (spent, spent.as_secs_f64() / (passed * quota.as_secs_f64()).max(f64::MIN_POSITIVE))
}

impl Rest {
    pub(super) fn new(now: Instant) -> Rest {
        let begin = (now, Duration::ZERO);
        Rest {
            length: Duration::ZERO,
            window: begin,
            since: begin,
            glanced: begin,
            hurried: Duration::ZERO,
            lately: Lately::new(begin),
            quota: None,
            quota_read: None,
        }
    }

    /// The length of a rest that begins now. `used` is the process's CPU time, `quota` what it may use
    /// in a second.
    pub(super) fn length(
        &mut self,
        now: Instant,
        used: impl FnOnce() -> Duration,
        quota: impl FnOnce() -> Option<Duration>,
    ) -> Duration {
        let passed = now.saturating_duration_since(self.window.0);
        if passed >= WINDOW {
            if self.quota_read.is_none_or(|read| now.duration_since(read) >= QUOTA_LASTS) {
                self.quota = quota();
                self.quota_read = Some(now);
            }
            self.end_window(passed, now, used);
        } else if let Some(quota) = self.quota
            && now.saturating_duration_since(self.glanced.0) >= GLANCE
        {
            self.glance((now, used()), quota);
        }
        self.length
    }

    /// Judges what was used since rests have their length, and begins the next window.
    fn end_window(&mut self, passed: Duration, now: Instant, used: impl FnOnce() -> Duration) {
        let Some(quota) = self.quota.filter(|quota| !quota.is_zero()) else {
            self.length = Duration::ZERO;
            self.window.0 = now;
            return;
        };
        let now = (now, used());
        self.lately.add(now);
        let since = std::mem::replace(&mut self.since, now);
        self.window = now;
        let (last, hurried) = (std::mem::replace(&mut self.glanced, now), self.hurried);
        self.hurried = pace(last, now, quota, hurried);
        if passed >= LONG_AGO {
            self.length = Duration::ZERO;
            return;
        }
        if now.0.saturating_duration_since(since.0) < SEEN {
            return;
        }
        let (_, share) = spent(since, now, quota);
        self.length = match self.length {
            _ if share > NEARLY_ALL => LONGEST,
            length if share > MUCH => (2 * length).max(SHORTEST).min(LONGEST),
            length if share < LITTLE && length <= SHORTEST => Duration::ZERO,
            length if share < LITTLE => length / 2,
            length => length,
        };
    }

    /// Looks whether the window's quota would be used up before the window is over.
    fn glance(&mut self, now: Moment, quota: Duration) {
        self.lately.add(now);
        let last = std::mem::replace(&mut self.glanced, now);
        self.hurried = pace(last, now, quota, self.hurried);
        let whole = WINDOW.as_secs_f64() * quota.as_secs_f64();
        if self.length < LONGEST && self.hurried.as_secs_f64() > AT_ONCE * whole {
            self.length = LONGEST;
            self.since = now;
        }
    }
}

/// What goes at a pace that uses nearly all, with `hurried` until the last look.
fn pace(last: Moment, now: Moment, quota: Duration, hurried: Duration) -> Duration {
    match spent(last, now, quota) {
        (spent, share) if share > NEARLY_ALL => hurried + spent,
        _ => Duration::ZERO,
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
        let shares = [50, 60, 60, 60, 60, 60, 40, 20, 20, 20, 20, 50];
        let lengths = [0, 500, 1000, 2000, 3000, 3000, 3000, 1500, 750, 375, 0, 0];
        assert_eq!(rests(Some(QUOTA), &shares), microseconds(&lengths));
    }

    #[test]
    fn a_quota_that_is_used_up_makes_long_rests_at_once() {
        assert_eq!(rests(Some(QUOTA), &[90, 100, 50]), microseconds(&[3000, 3000, 3000]));
    }

    /// A worker that knows its quota and had nothing to do until now.
    fn idle(start: Instant) -> Rest {
        let mut rest = Rest::new(start);
        for window in 1..=2 {
            rest.length(start + WINDOW * window, || Duration::ZERO, || Some(QUOTA));
        }
        rest
    }

    /// Looks every 2 ms of a window, in each of which so many microseconds are used: one number until
    /// rests are long, then the other. When they became long, and what was used.
    fn window(unrested: u64, rested: u64) -> (Option<u64>, Duration) {
        let start = Instant::now();
        let mut rest = idle(start);
        let (mut used, mut long) = (Duration::ZERO, None);
        for milliseconds in (2..100).step_by(2) {
            used += Duration::from_micros(if long.is_none() { unrested } else { rested });
            let now = start + 2 * WINDOW + Duration::from_millis(milliseconds);
            let length = rest.length(now, || used, || panic!("it is known"));
            assert!(length.is_zero() || length == LONGEST);
            long = long.or((length == LONGEST).then_some(milliseconds));
        }
        (long, used)
    }

    #[test]
    fn a_load_that_has_just_begun_makes_long_rests_before_the_quota_is_used_up() {
        // 4,000 misses a second: 36 µs each, and 16 when rests bring them together.
        let (long, used) = window(290, 130);
        assert_eq!(long, Some(12));
        assert!(used < WINDOW / 10, "{used:?}");
    }

    #[test]
    fn what_was_used_lately_is_known_from_every_look() {
        let start = Instant::now();
        let mut rest = idle(start);
        let mut used = Duration::ZERO;
        for milliseconds in (4..=200).step_by(4) {
            // 200 ms a second at first, then a tenth.
            used += Duration::from_micros(if milliseconds <= 60 { 800 } else { 80 });
            let now = start + 2 * WINDOW + Duration::from_millis(milliseconds);
            rest.length(now, || used, || Some(QUOTA));
            let expected = match milliseconds {
                0..=60 => 200 * milliseconds,
                61..=100 => 12_000 + 20 * (milliseconds - 60),
                101..=160 => 12_000 + 20 * (milliseconds - 60) - 200 * (milliseconds - 100),
                _ => 2_000,
            };
            assert_eq!(
                rest.lately.used((now, used)).as_micros(),
                u128::from(expected),
                "{milliseconds}"
            );
        }
    }

    #[test]
    fn a_few_queries_and_a_load_that_the_quota_can_pay_for_make_no_long_rests() {
        assert_eq!(window(160, 0), (None, Duration::from_micros(49 * 160)));
        let start = Instant::now();
        let mut rest = idle(start);
        let now = start + 2 * WINDOW;
        // 40 misses at once: 1.4 ms.
        for (milliseconds, used) in [(6, 1400), (12, 1400), (90, 2000), (101, 2000)] {
            let used = Duration::from_micros(used);
            let now = now + Duration::from_millis(milliseconds);
            assert_eq!(rest.length(now, || used, || Some(QUOTA)), Duration::ZERO);
        }
    }

    #[test]
    fn a_window_is_judged_by_what_was_used_since_rests_are_long() {
        let start = Instant::now();
        let mut rest = idle(start);
        let mut used = Duration::ZERO;
        for milliseconds in (2..=102).step_by(2) {
            used += Duration::from_micros(if rest.length.is_zero() { 400 } else { 160 });
            let now = start + 2 * WINDOW + Duration::from_millis(milliseconds);
            rest.length(now, || used, || Some(QUOTA));
        }
        // Nine tenths in all, but four fifths since.
        assert!(used > WINDOW / 10 * 85 / 100, "{used:?}");
        assert_eq!(rest.length, LONGEST);
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
        let soon = start + WINDOW + GLANCE / 2;
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
