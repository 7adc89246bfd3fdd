//! How many queries an upstream is given at a time on one connection: learned from its answers.
//!
//! CoreDNS and its kin answer a stream's queries one after the other, so a query waits for all that
//! were written before it. Where some answers take long, a connection carries one query and further
//! ones go to other connections; where none do, queries share a connection, for one system call
//! carries many. Owns that number. Pure: time comes in.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An answer that took less is never slow.
const SLOW: Duration = Duration::from_millis(10);

/// An answer that took more is slow, wherever the upstream is: queries that wait for one another then
/// have each a connection of their own at once.
pub(super) const SLOW_ANYWHERE: Duration = Duration::from_millis(250);

/// An answer is slow that took so many times as long as answers take.
const SLOW_TIMES: u32 = 4;

/// So many answers in a row, none of them slow, double the depth. With one slow answer in a hundred
/// it never comes to that; with one in ten thousand, those that it holds up are too few to show in
/// the 99th percentile.
const RUN: u32 = 1024;

/// The depth towards one upstream.
#[derive(Debug)]
pub(super) struct Pace {
    least: u32,
    most: u32,
    depth: AtomicU32,
    /// In microseconds.
    patience: AtomicU64,
    learned: Mutex<Learned>,
}

#[derive(Debug, Default)]
struct Learned {
    /// How long answers take.
    typical: Duration,
    /// Answers since the last slow one.
    run: u32,
    /// When the depth was cut last.
    cut: Option<Instant>,
    /// A slow answer was overtaken: it holds up nobody.
    overtakes: bool,
}

/// What a slow answer did to those asked after it on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// One of them was answered before.
    Overtaken,
    /// They waited for as long as an answer may take, and none was answered.
    HeldUp,
    /// There were none that could tell.
    Alone,
    /// It may have come in time: we stood still.
    Unknown,
}

impl Pace {
    /// Between these depths, both at least 1; begins with the least.
    pub(super) fn new(least: u32, most: u32) -> Pace {
        let patience = if least < most { micros(SLOW) } else { u64::MAX };
        Pace {
            least,
            most,
            depth: AtomicU32::new(least),
            patience: AtomicU64::new(patience),
            learned: Mutex::default(),
        }
    }

    /// Queries in flight on a connection before another one is used.
    pub(super) fn depth(&self) -> u32 {
        self.depth.load(Ordering::Relaxed)
    }

    /// How long nothing may come over a connection with queries in flight before further ones go
    /// elsewhere. For ever where answers overtake one another.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_micros(self.patience.load(Ordering::Relaxed))
    }

    /// An answer is read `now` to what was asked then. `effect` is called for a slow one, with how
    /// long the others must have waited.
    pub(super) fn answered(
        &self,
        asked: Instant,
        now: Instant,
        effect: impl FnOnce(Duration) -> Effect,
    ) {
        if self.least >= self.most {
            return;
        }
        let took = now.saturating_duration_since(asked);
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let slow = (SLOW_TIMES * learned.typical).clamp(SLOW, SLOW_ANYWHERE);
        // One answer alone moves it little, however long it took.
        let counted = took.min(slow);
        learned.typical = (learned.typical * 15 + counted) / 16;
        if took > slow {
            match effect(slow) {
                Effect::Overtaken => learned.overtakes = true,
                Effect::HeldUp => learned.overtakes = false,
                Effect::Alone => {}
                Effect::Unknown => return,
            }
        }
        let patience = if learned.overtakes { u64::MAX } else { micros(slow) };
        self.patience.store(patience, Ordering::Relaxed);
        if took > slow && !learned.overtakes {
            if took > SLOW_ANYWHERE {
                self.depth.store(self.least, Ordering::Relaxed);
            }
            self.cut(&mut learned, asked, now);
            return;
        }
        learned.run += 1;
        if learned.run >= RUN {
            learned.run = 0;
            let deeper = (2 * self.depth()).min(self.most);
            self.depth.store(deeper, Ordering::Relaxed);
        }
    }

    /// Halves the depth, once for all that were asked before it was halved.
    fn cut(&self, learned: &mut Learned, asked: Instant, now: Instant) {
        learned.run = 0;
        if learned.cut.is_some_and(|cut| asked < cut) {
            return;
        }
        learned.cut = Some(now);
        let shallower = (self.depth() / 2).max(self.least);
        self.depth.store(shallower, Ordering::Relaxed);
    }
}

/// Whole microseconds; what is said of time here is below a second.
fn micros(time: Duration) -> u64 {
    u64::from(time.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(300);
    const LATE: Duration = Duration::from_millis(100);

    /// One answer every 50 µs; every `slow_in`th takes [`LATE`]. The depth afterwards.
    fn play(pace: &Pace, answers: u32, slow_in: u32, effect: Effect) -> u32 {
        let start = Instant::now();
        for number in 1..=answers {
            let now = start + number * Duration::from_micros(50) + LATE;
            let took = if number.is_multiple_of(slow_in) { LATE } else { FAST };
            pace.answered(now - took, now, |_| effect);
        }
        pace.depth()
    }

    #[test]
    fn an_upstream_that_is_always_fast_gets_many_at_a_time() {
        let pace = Pace::new(1, 32);
        assert_eq!(play(&pace, RUN - 1, u32::MAX, Effect::Alone), 1);
        assert_eq!(play(&pace, 1, u32::MAX, Effect::Alone), 2);
        assert_eq!(play(&pace, 5 * RUN, u32::MAX, Effect::Alone), 32);
        assert_eq!(play(&pace, 5 * RUN, u32::MAX, Effect::Alone), 32);
    }

    #[test]
    fn one_slow_answer_in_a_hundred_keeps_each_query_to_itself() {
        let pace = Pace::new(1, 32);
        assert_eq!(play(&pace, 100_000, 100, Effect::Alone), 1);
    }

    #[test]
    fn slow_answers_that_hold_up_others_undo_what_was_learned() {
        let pace = Pace::new(1, 32);
        play(&pace, 10 * RUN, u32::MAX, Effect::Alone);
        assert_eq!(play(&pace, 20_000, 100, Effect::HeldUp), 1);
    }

    #[test]
    fn one_pause_cuts_once_whoever_waited_through_it() {
        let pace = Pace::new(1, 32);
        play(&pace, 10 * RUN, u32::MAX, Effect::Alone);
        let asked = Instant::now();
        for _ in 0..32 {
            pace.answered(asked, asked + LATE, |_| Effect::HeldUp);
        }
        assert_eq!(pace.depth(), 16);
    }

    #[test]
    fn after_an_answer_that_took_long_each_query_is_alone_at_once() {
        for (took, depth) in [(250, 16), (251, 1)] {
            let pace = Pace::new(1, 32);
            play(&pace, 10 * RUN, u32::MAX, Effect::Alone);
            let asked = Instant::now();
            pace.answered(asked, asked + Duration::from_millis(took), |_| Effect::Alone);
            assert_eq!(pace.depth(), depth, "{took}");
        }
    }

    #[test]
    fn who_waits_for_a_connection_waits_as_long_as_answers_may_take() {
        let pace = Pace::new(1, 32);
        assert_eq!(pace.patience(), SLOW);
        play(&pace, 1000, u32::MAX, Effect::Alone);
        assert_eq!(pace.patience(), SLOW);
        let answered_in = |pace: &Pace, millis: u64, effect: Effect| {
            let asked = Instant::now();
            for _ in 0..200 {
                pace.answered(asked, asked + Duration::from_millis(millis), |_| effect);
            }
            pace.patience()
        };
        let far = answered_in(&pace, 30, Effect::Alone);
        assert!(far > Duration::from_millis(110) && far <= Duration::from_millis(120), "{far:?}");
        assert_eq!(answered_in(&pace, 1500, Effect::HeldUp), SLOW_ANYWHERE, "not with the queue");
        assert!(answered_in(&pace, 1500, Effect::Overtaken) > Duration::from_secs(3600));
        assert!(Pace::new(64, 64).patience() > Duration::from_secs(3600));
    }

    #[test]
    fn slow_answers_that_are_overtaken_hold_up_nobody() {
        let pace = Pace::new(1, 32);
        assert_eq!(play(&pace, 100_000, 100, Effect::Overtaken), 32);
        assert_eq!(play(&pace, 1_000, 1_001, Effect::Alone), 32);
    }

    #[test]
    fn answers_that_are_read_late_say_nothing() {
        let pace = Pace::new(1, 32);
        play(&pace, 10 * RUN, u32::MAX, Effect::Alone);
        assert_eq!(play(&pace, 20_000, 100, Effect::Unknown), 32);
    }

    #[test]
    fn an_upstream_that_is_far_away_is_not_slow() {
        let pace = Pace::new(1, 32);
        let start = Instant::now();
        for number in 0..20 * RUN {
            let asked = start + number * Duration::from_millis(1);
            pace.answered(asked, asked + Duration::from_millis(60), |_| Effect::Alone);
        }
        assert_eq!(pace.depth(), 32);
    }

    #[test]
    fn a_depth_that_is_fixed_stays() {
        let pace = Pace::new(64, 64);
        assert_eq!(play(&pace, 10_000, 2, Effect::HeldUp), 64);
    }
}
