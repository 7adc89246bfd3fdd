//! Rests of a worker whose process is about to use up its CPU quota.
//!
//! A container's CPU limit is a quota for each 100 ms: who has used it up stands still until they are
//! over, and so do all queries. A query that wakes a worker alone costs several times what it costs
//! among others. So while most of the quota is used, a worker that has nothing more to do rests for at
//! most [`LONGEST`] before it waits for the next query, and then finds several. Owns how long, whether CPU
//! time is scarce, and whether a thread was kept from working; never rests without a quota.
//!
//! Judged at the end of each window, and of a load that has just begun before: by the end of its first
//! window it would have used up the quota.

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

/// How often CPU time is looked at within a window.
const GLANCE: Duration = Duration::from_millis(4);

/// Rests are the longest within a window, too, once so much of its quota went at a pace that uses nearly
/// all: a load has begun that is more than a few queries.
const AT_ONCE: f64 = 0.15;

/// CPU time is scarce within a window, too, once so much of its quota is used and the pace since rests are
/// the longest, seen for so long, would use more than all of it. If hardly more, the kernel's stop is shorter
/// than what waiting for turns would cost.
const FORESEEN: f64 = 0.4;
const MORE_THAN_ALL: f64 = 1.1;
const SEEN: Duration = Duration::from_millis(20);

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

thread_local! {
    /// When this thread's turn began, if that is known.
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// This thread's turn began at `moment`, and need not be asked of the clock again when it is over.
pub(super) fn turn_began(moment: Instant) {
    TURN.set(Some(moment));
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
        self.look_at(Instant::now())
    }

    fn look_at(&self, now: Instant) -> Duration {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let length = rest.length(now, || self.meter.used(), || self.meter.quota());
        self.is_scarce.store(rest.is_scarce, Ordering::Relaxed);
        length
    }

    /// What a thread shall do before it waits: rest, if need be.
    pub(super) fn before_waiting(&self) {
        // A turn is short beside the time after which something is judged.
        let length = self.look_at(TURN.take().unwrap_or_else(Instant::now));
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

    /// What is known of the CPU time now.
    pub(super) fn reading(&self) -> Reading {
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let (window, quota) = (rest.window, rest.quota);
        drop(rest);
        Reading { used: self.meter.used(), quota, window }
    }
}

/// A moment, and the CPU time that the process had used until then.
pub(super) type Moment = (Instant, Duration);

/// What is known of the CPU time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// The process's until now.
    pub(super) used: Duration,
    /// What it may use in a second, as it was last read.
    pub(super) quota: Option<Duration>,
    /// When the window began.
    pub(super) window: Moment,
}

/// How long a worker rests.
#[derive(Debug)]
struct Rest {
    length: Duration,
    /// When the window began.
    window: Moment,
    /// Since when rests have their length, in this window.
    since: Moment,
    /// When CPU time was looked at last.
    glanced: Moment,
    /// What went at a pace that uses nearly all, until the last look.
    hurried: Duration,
    /// CPU time for each second, and when that was read.
    quota: Option<Duration>,
    quota_read: Option<Instant>,
    is_scarce: bool,
}

/// CPU time that was used from `since` to `now`, and which share of a quota that was.
fn spent(since: Moment, now: Moment, quota: Duration) -> (Duration, f64) {
    let passed = now.0.saturating_duration_since(since.0).as_secs_f64();
    let spent = now.1.saturating_sub(since.1);
    (spent, spent.as_secs_f64() / (passed * quota.as_secs_f64()).max(f64::MIN_POSITIVE))
}

impl Rest {
    fn new(now: Instant) -> Rest {
        let begin = (now, Duration::ZERO);
        Rest {
            length: Duration::ZERO,
            window: begin,
            since: begin,
            glanced: begin,
            hurried: Duration::ZERO,
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
            self.is_scarce = false;
            self.window.0 = now;
            return;
        };
        let now = (now, used());
        let since = std::mem::replace(&mut self.since, now);
        self.window = now;
        let (last, hurried) = (std::mem::replace(&mut self.glanced, now), self.hurried);
        self.hurried = pace(last, now, quota, hurried);
        if passed >= LONG_AGO {
            self.length = Duration::ZERO;
            self.is_scarce = false;
            return;
        }
        if now.0.saturating_duration_since(since.0) < SEEN {
            return;
        }
        let (_, share) = spent(since, now, quota);
        self.is_scarce = share > if self.is_scarce { MUCH } else { NEARLY_ALL };
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
        let last = std::mem::replace(&mut self.glanced, now);
        self.hurried = pace(last, now, quota, self.hurried);
        let whole = WINDOW.as_secs_f64() * quota.as_secs_f64();
        if self.length < LONGEST {
            if self.hurried.as_secs_f64() > AT_ONCE * whole {
                self.length = LONGEST;
                self.since = now;
            }
            return;
        }
        let (of_window, _) = spent(self.window, now, quota);
        let seen = now.0.saturating_duration_since(self.since.0);
        if seen < SEEN || of_window.as_secs_f64() < FORESEEN * whole {
            return;
        }
        let (_, share) = spent(self.since, now, quota);
        let left = WINDOW.saturating_sub(now.0.saturating_duration_since(self.window.0));
        let foreseen = of_window.as_secs_f64() + share * quota.as_secs_f64() * left.as_secs_f64();
        self.is_scarce |= foreseen > MORE_THAN_ALL * whole;
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

    /// A worker that knows its quota and had nothing to do until now.
    fn idle(start: Instant) -> Rest {
        let mut rest = Rest::new(start);
        for window in 1..=2 {
            rest.length(start + WINDOW * window, || Duration::ZERO, || Some(QUOTA));
        }
        rest
    }

    /// Looks every 2 ms of a window, in each of which so many microseconds are used: one number until
    /// rests are long, then the other. When they became long, when CPU time scarce, and what was used.
    fn window(unrested: u64, rested: u64) -> (Option<u64>, Option<u64>, Duration) {
        let start = Instant::now();
        let mut rest = idle(start);
        let (mut used, mut long, mut scarce) = (Duration::ZERO, None, None);
        for milliseconds in (2..100).step_by(2) {
            used += Duration::from_micros(if long.is_none() { unrested } else { rested });
            let now = start + 2 * WINDOW + Duration::from_millis(milliseconds);
            let length = rest.length(now, || used, || panic!("it is known"));
            assert!(length.is_zero() || length == LONGEST);
            long = long.or((length == LONGEST).then_some(milliseconds));
            scarce = scarce.or(rest.is_scarce.then_some(milliseconds));
        }
        (long, scarce, used)
    }

    #[test]
    fn a_load_that_has_just_begun_makes_long_rests_before_the_quota_is_used_up() {
        // 4,000 misses a second: 36 µs each, and 16 when rests bring them together.
        let (long, scarce, used) = window(290, 130);
        assert_eq!((long, scarce), (Some(12), None));
        assert!(used < WINDOW / 10, "{used:?}");
    }

    #[test]
    fn cpu_time_is_scarce_as_soon_as_long_rests_do_not_save_enough() {
        let (long, scarce, _) = window(460, 260);
        assert_eq!((long, scarce), (Some(8), Some(28)));
    }

    #[test]
    fn a_few_queries_and_a_load_that_the_quota_can_pay_for_make_no_long_rests() {
        assert_eq!(window(160, 0), (None, None, Duration::from_micros(49 * 160)));
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
        assert_eq!((rest.length, rest.is_scarce), (LONGEST, false));
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
        let soon = start + WINDOW + GLANCE / 2;
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
