//! Rests of a worker whose process is about to use up its CPU quota.
//!
//! A container's CPU limit is a quota for each 100 ms: who has used it up stands still until they are
//! over, and so do all queries. A query that wakes a worker alone costs several times what it costs
//! among others. So while most of the quota is used, a worker that has nothing more to do rests for at
//! most 3 ms before it waits for the next query, and then finds several. Owns when a thread rests and who
//! waits for the end of a rest; never rests without a quota.

mod lately;
mod length;
mod standstill;

use crate::sys::{cgroup, cpu};
use length::Rest;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

pub(super) use lately::PERIOD;
pub(super) use standstill::stood_still_since;

/// Those that wait until this thread's next rest is over.
struct Waiting {
    /// Whether the thread rests before it waits.
    rests: Cell<bool>,
    /// How many rests were over until now.
    rest: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

thread_local! {
    /// When this thread's turn began, if that is known.
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };

    /// Whether this thread has waited since it was last asked.
    static WOKE: Cell<bool> = const { Cell::new(false) };

    static WAITING: Waiting =
        const { Waiting { rests: Cell::new(false), rest: Cell::new(0), wakers: RefCell::new(Vec::new()) } };
}

/// This thread's turn began at `moment`, and need not be asked of the clock again when it is over.
pub(super) fn turn_began(moment: Instant) {
    TURN.set(Some(moment));
    WOKE.set(false);
}

/// Whether this thread has waited since the last call, or since its turn began.
pub(super) fn woke() -> bool {
    WOKE.replace(false)
}

/// Whether this thread rests between its turns.
pub(super) fn rests() -> bool {
    WAITING.with(|waiting| waiting.rests.get())
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
    /// Whether there is a quota, as it was last read.
    has_quota: AtomicBool,
    /// Whether the thread rested before it waited last.
    rests_now: AtomicBool,
}

impl Rests {
    pub(super) fn new(meter: Arc<dyn Meter>) -> Rests {
        let rest = Mutex::new(Rest::new(Instant::now()));
        Rests { meter, rest, has_quota: AtomicBool::new(false), rests_now: AtomicBool::new(false) }
    }

    /// Judges anew, if a window has passed; how long to rest now. Also for a worker that never waits.
    pub(super) fn look(&self) -> Duration {
        self.look_at(Instant::now())
    }

    fn look_at(&self, now: Instant) -> Duration {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let length = rest.length(now, || self.meter.used(), || self.meter.quota());
        self.has_quota.store(rest.quota.is_some(), Ordering::Relaxed);
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
                standstill::is_not_watched();
            }
            return;
        }
        standstill::sleep(length);
        // The runtime asks the kernel for events all the same, but does not wait for any.
        go_on();
    }

    /// What a thread shall do after it has waited.
    pub(super) fn after_waiting(&self) {
        WOKE.set(true);
        if self.is_resting() {
            standstill::begins_working();
        }
    }

    /// Whether the process has a quota.
    pub(super) fn has_quota(&self) -> bool {
        self.has_quota.load(Ordering::Relaxed)
    }

    /// Whether the worker rests between its turns.
    pub(super) fn is_resting(&self) -> bool {
        self.rests_now.load(Ordering::Relaxed)
    }

    /// What is known of the CPU time at `now`. A system call.
    pub(super) fn reading(&self, now: Instant) -> Reading {
        let used = self.meter.used();
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        Reading { used, quota: rest.quota, lately: rest.lately.used((now, used)) }
    }
}

/// What is known of the CPU time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// The process's until now.
    pub(super) used: Duration,
    /// What it may use in a second, as it was last read.
    pub(super) quota: Option<Duration>,
    /// What of it was used within the last [`PERIOD`].
    pub(super) lately: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Context;

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
    fn a_thread_that_has_waited_is_told_so_once() {
        let rests = Rests::new(Arc::new(OwnMeter));
        rests.after_waiting();
        assert!(woke() && !woke());
        rests.after_waiting();
        turn_began(Instant::now());
        assert!(!woke(), "its first turn has begun");
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
}
