//! Rests of a worker whose process is about to use up its CPU quota.
//!
//! A container's CPU limit is a quota for each 100 ms: who has used it up stands still until they are
//! over, and so do all queries. A query that wakes a worker alone costs several times what it costs
//! among others. So while most of the quota is used, a worker that has nothing more to do rests for at
//! most [`LONGEST`] before it waits for the next query, and then finds several. Owns how long, whether CPU
//! time is scarce, and whether a thread was kept from working; never rests without a quota.

use crate::sys::{cgroup, cpu};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
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

/// Rests become longer above this share of the quota, and are the longest at once above the second. CPU
/// time is scarce from the second on, until less than the first is used.
const MUCH: f64 = 0.55;
const NEARLY_ALL: f64 = 0.85;

/// Rests become shorter below this share. Far below the others: it is the rests that make it little.
const LITTLE: f64 = 0.25;

/// A thread that wanted to work and was off the CPU for longer was kept from it.
const STANDSTILL: Duration = Duration::from_millis(5);

/// What a thread remembers while it rests between its turns.
#[derive(Clone, Copy)]
struct Watch {
    /// Since when it works, with its CPU time until then.
    works: Option<(Instant, Duration)>,
    /// Until when it stood still last.
    stood_still: Option<Instant>,
}

thread_local! {
    static WATCH: Cell<Watch> = const { Cell::new(Watch { works: None, stood_still: None }) };
}

/// Those that wait until this thread's next rest is over.
struct Waiting {
    /// Whether the thread rests before it waits.
    rests: Cell<bool>,
    /// How many rests were over until now.
    rest: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

thread_local! {
    static WAITING: Waiting =
        const { Waiting { rests: Cell::new(false), rest: Cell::new(0), wakers: RefCell::new(Vec::new()) } };
}

/// Waits until this thread has rested once more, if it rests between its turns. Answers of upstreams
/// come one after the other, and each would have a turn of its own.
pub(super) async fn rested() {
    let rest = WAITING.with(|waiting| waiting.rests.get().then(|| waiting.rest.get()));
    let Some(rest) = rest else { return };
    let mut is_known = false;
    poll_fn(|task| {
        WAITING.with(|waiting| {
            if waiting.rest.get() != rest {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut is_known, true) {
                waiting.wakers.borrow_mut().push(task.waker().clone());
            }
            Poll::Pending
        })
    })
    .await;
}

/// Has those go on that wait for the end of a rest: it is over, or the thread has too much to do to rest.
pub(super) fn go_on() {
    WAITING.with(|waiting| {
        if waiting.wakers.borrow().is_empty() {
            return;
        }
        waiting.rest.set(waiting.rest.get() + 1);
        let wakers = std::mem::take(&mut *waiting.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    });
}

impl Watch {
    /// Whether the thread got less of the time since it works than it wanted; begins anew if so.
    fn look(&mut self, now: Instant, used: impl FnOnce() -> Duration) {
        let Some((since, used_before)) = self.works else { return };
        let passed = now.saturating_duration_since(since);
        if passed <= STANDSTILL {
            return;
        }
        let used = used();
        if passed > used.saturating_sub(used_before) + STANDSTILL {
            self.stood_still = Some(now);
            self.works = Some((now, used));
        }
    }
}

/// Whether this thread was kept from working after `moment`: what then seems late may have been there in
/// time. Known of threads that rest between their turns alone.
pub(super) fn stood_still_since(moment: Instant) -> bool {
    let mut watch = WATCH.get();
    watch.look(Instant::now(), cpu::used_by_this_thread);
    WATCH.set(watch);
    watch.stood_still.is_some_and(|until| until > moment)
}

/// What tells the CPU time of the process.
pub trait Meter: Send + Sync {
    /// CPU time of all threads until now. A system call.
    fn used(&self) -> Duration;

    /// CPU time that may be used in a second; `None` when as much as there is.
    fn quota(&self) -> Option<Duration>;
}

/// This process, and the cgroup that it is in.
#[derive(Debug, Clone, Copy)]
pub struct OwnMeter;

impl Meter for OwnMeter {
    fn used(&self) -> Duration {
        cpu::used()
    }

    fn quota(&self) -> Option<Duration> {
        cgroup::cpu_quota(&cgroup::read)
    }
}

/// What one worker knows of the quota.
pub(super) struct Rests {
    meter: Arc<dyn Meter>,
    rest: Mutex<Rest>,
    is_scarce: AtomicBool,
    /// Whether the thread rested before it waited last.
    rests_now: AtomicBool,
}

impl Rests {
    pub(super) fn new(meter: Arc<dyn Meter>) -> Rests {
        let rest = Mutex::new(Rest::new(Instant::now()));
        Rests { meter, rest, is_scarce: AtomicBool::new(false), rests_now: AtomicBool::new(false) }
    }

    /// Judges anew, if a window has passed; how long to rest now. Also for a worker that never waits.
    pub(super) fn look(&self) -> Duration {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let length = rest.length(Instant::now(), || self.meter.used(), || self.meter.quota());
        self.is_scarce.store(rest.is_scarce, Ordering::Relaxed);
        length
    }

    /// What a thread shall do before it waits: rest, if need be.
    pub(super) fn before_waiting(&self) {
        let length = self.look();
        let rested = self.rests_now.swap(!length.is_zero(), Ordering::Relaxed);
        WAITING.with(|waiting| waiting.rests.set(!length.is_zero()));
        if length.is_zero() {
            go_on();
            if rested {
                WATCH.set(Watch { works: None, ..WATCH.get() });
            }
            return;
        }
        let mut watch = WATCH.get();
        let now = Instant::now();
        watch.look(now, cpu::used_by_this_thread);
        watch.works = None;
        std::thread::sleep(length);
        let woken = Instant::now();
        if woken.saturating_duration_since(now) > length + STANDSTILL {
            watch.stood_still = Some(woken);
        }
        WATCH.set(watch);
        // The runtime asks the kernel for events all the same, but does not wait for any.
        go_on();
    }

    /// What a thread shall do after it has waited.
    pub(super) fn after_waiting(&self) {
        if self.is_resting() {
            let works = Some((Instant::now(), cpu::used_by_this_thread()));
            WATCH.set(Watch { works, ..WATCH.get() });
        }
    }

    /// Whether nearly all of the quota is in use.
    pub(super) fn is_scarce(&self) -> bool {
        self.is_scarce.load(Ordering::Relaxed)
    }

    /// Whether the worker rests between its turns.
    pub(super) fn is_resting(&self) -> bool {
        self.rests_now.load(Ordering::Relaxed)
    }

    /// The process's CPU time until now, and what it may use in a second as it was last read.
    pub(super) fn reading(&self) -> (Duration, Option<Duration>) {
        let quota = self.rest.lock().unwrap_or_else(PoisonError::into_inner).quota;
        (self.meter.used(), quota)
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
    is_scarce: bool,
}

impl Rest {
    fn new(now: Instant) -> Rest {
        Rest {
            length: Duration::ZERO,
            began: now,
            used: Duration::ZERO,
            quota: None,
            quota_read: None,
            is_scarce: false,
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
            self.is_scarce = false;
            return self.length;
        };
        let used = used();
        let spent = used.saturating_sub(std::mem::replace(&mut self.used, used));
        let share = spent.as_secs_f64() / (passed.as_secs_f64() * quota.as_secs_f64());
        self.is_scarce = share > if self.is_scarce { MUCH } else { NEARLY_ALL };
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
    use std::pin::pin;
    use std::task::Context;

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
    fn cpu_time_is_scarce_from_nearly_all_of_the_quota_until_less_than_much() {
        let mut now = Instant::now();
        let mut rest = Rest::new(now);
        let mut used = Duration::ZERO;
        for (share, scarce) in [(80, false), (90, true), (60, true), (50, false), (80, false)] {
            now += WINDOW;
            used += WINDOW / 10 * share / 100;
            rest.length(now, || used, || Some(QUOTA));
            assert_eq!(rest.is_scarce, scarce, "{share}");
        }
    }

    #[test]
    fn a_thread_that_got_no_cpu_time_while_it_wanted_some_stood_still() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut watch = Watch { works: Some((start, WINDOW)), stood_still: None };
        // It had 30 of 34 ms.
        watch.look(at(34), || WINDOW + Duration::from_millis(30));
        assert_eq!(watch.stood_still, None);
        watch.look(at(40), || WINDOW + Duration::from_millis(30));
        assert_eq!(watch.stood_still, Some(at(40)));
        // What was seen is not seen again.
        watch.look(at(50), || WINDOW + Duration::from_millis(38));
        assert_eq!(watch.stood_still, Some(at(40)));
        watch.works = None;
        watch.look(at(900), || panic!("it waits"));
        assert_eq!(watch.stood_still, Some(at(40)));
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
    fn answers_are_waited_for_until_the_next_rest_is_over_if_there_are_rests() {
        let mut task = Context::from_waker(Waker::noop());
        assert!(pin!(rested()).poll(&mut task).is_ready());
        WAITING.with(|waiting| waiting.rests.set(true));
        let (mut first, mut second) = (pin!(rested()), pin!(rested()));
        for _ in 0..3 {
            assert!(first.as_mut().poll(&mut task).is_pending());
            assert!(second.as_mut().poll(&mut task).is_pending());
        }
        // However often it is looked at, it is called once.
        assert_eq!(WAITING.with(|waiting| waiting.wakers.borrow().len()), 2);
        go_on();
        assert!(first.as_mut().poll(&mut task).is_ready());
        assert!(second.as_mut().poll(&mut task).is_ready());
        assert!(pin!(rested()).poll(&mut task).is_pending(), "the next one");
    }

    #[test]
    fn a_thread_that_rests_no_more_keeps_nobody_waiting() {
        let rests = Rests::new(Arc::new(OwnMeter));
        WAITING.with(|waiting| waiting.rests.set(true));
        let mut waits = pin!(rested());
        let mut task = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut task).is_pending());
        rests.before_waiting();
        assert!(waits.as_mut().poll(&mut task).is_ready());
        assert!(pin!(rested()).poll(&mut task).is_ready());
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
