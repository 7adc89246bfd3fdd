//! The one place where time is read for queries.
//!
//! A worker reads it twice a batch, before it takes the messages in and before it answers them;
//! everything below takes the readings as arguments. The two cost what one of both the monotonic
//! and the wall clock would: the latter is read once a second, and with it how long the machine was
//! suspended, for a record ages while a laptop sleeps.

use crate::plugin::Now;
use crate::sys::sleep;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a worker goes by the wall clock as it last read it. Signature validity and time stamps
/// alone hang on it, both in whole seconds.
const WALL_CLOCK_LASTS: Duration = Duration::from_secs(1);

/// What monotonic time reads at the start: entries of a cache that was kept over a restart are
/// older than the process. Older ones than this are not taken in.
pub const LEAD: Duration = Duration::from_secs(7 * 24 * 3600);

/// The process's clock. Copies agree: make it once, hand it to everybody.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    /// How long the machine had been suspended at the start.
    asleep_before: Duration,
    /// Nanoseconds that it was since, as far as noticed. Of the process: never freed.
    slept: &'static AtomicU64,
}

impl Clock {
    /// Monotonic time counts from here, beginning with [`LEAD`].
    pub fn start() -> Clock {
        let now = Instant::now();
        // Where the system's time cannot be before its own start, there is no lead.
        Clock {
            origin: now.checked_sub(LEAD).unwrap_or(now),
            asleep_before: sleep::asleep(),
            slept: Box::leak(Box::default()),
        }
    }

    /// Monotonic time alone: half the price of [`Clock::now`]. With the time that the machine was
    /// suspended, a second after it woke at the latest.
    pub fn monotonic(&self) -> Duration {
        self.at(Instant::now())
    }

    fn at(&self, moment: Instant) -> Duration {
        let slept = Duration::from_nanos(self.slept.load(Ordering::Relaxed));
        moment.saturating_duration_since(self.origin) + slept
    }

    /// The machine has been suspended for so long since its boot.
    fn notice(&self, asleep: Duration) {
        let since = asleep.saturating_sub(self.asleep_before).as_nanos();
        self.slept.fetch_max(u64::try_from(since).unwrap_or(0), Ordering::Relaxed);
    }

    /// A reading. A wall clock before 1970 reads as 1970.
    pub fn now(&self) -> Now {
        Now {
            monotonic: self.monotonic(),
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
        }
    }
}

/// The clock of one thread, for frequent readings.
#[derive(Debug)]
pub(super) struct FrequentClock {
    clock: Clock,
    /// The last reading of both clocks.
    known: Cell<Now>,
    /// How long the machine has been suspended.
    asleep: fn() -> Duration,
}

impl FrequentClock {
    pub(super) fn new(clock: Clock) -> FrequentClock {
        FrequentClock { clock, known: Cell::new(clock.now()), asleep: sleep::asleep }
    }

    /// A reading; its wall clock is as right as a second ago.
    pub(super) fn now(&self) -> Now {
        self.reading().0
    }

    /// A reading, and the same as a moment of the runtime's.
    pub(super) fn reading(&self) -> (Now, Instant) {
        let moment = Instant::now();
        (self.at(self.clock.at(moment)), moment)
    }

    /// Monotonic time alone.
    pub(super) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn at(&self, monotonic: Duration) -> Now {
        let known = self.known.get();
        let since = monotonic.saturating_sub(known.monotonic);
        if since >= WALL_CLOCK_LASTS {
            self.clock.notice((self.asleep)());
            let read = self.clock.now();
            self.known.set(read);
            return read;
        }
        Now { monotonic, unix: known.unix + since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequent_clock_reads_the_wall_clock_once_a_second() {
        let frequent = FrequentClock::new(Clock::start());
        let stale = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(5) };
        frequent.known.set(stale);
        let between = frequent.at(Duration::from_millis(999));
        assert_eq!(between.unix, Duration::from_millis(5999));
        assert!(frequent.at(Duration::from_secs(1)).unix > Duration::from_secs(1_000_000));
        assert_ne!(frequent.known.get(), stale);
    }

    #[test]
    fn the_time_that_the_machine_was_suspended_counts() {
        const NIGHT: Duration = Duration::from_secs(8 * 3600);
        let clock = Clock::start();
        let frequent =
            FrequentClock { asleep: || sleep::asleep() + NIGHT, ..FrequentClock::new(clock) };
        let ahead = clock.monotonic() + NIGHT / 4;
        frequent.known.set(Now { monotonic: ahead, ..frequent.known.get() });
        let before = frequent.now().monotonic;
        assert!(before < LEAD + NIGHT / 2, "it looks once a second: {before:?}");
        // A second later it is noticed, by all who have the clock.
        let earlier = clock.monotonic() - WALL_CLOCK_LASTS;
        frequent.known.set(Now { monotonic: earlier, ..frequent.known.get() });
        let after = frequent.now().monotonic;
        assert!(after >= before + NIGHT - Duration::from_secs(1), "{after:?}");
        assert!(clock.monotonic() >= after && frequent.monotonic() >= after);
        // Awake again, it goes on from there.
        assert!(frequent.now().monotonic < after + NIGHT / 2);
    }
}
