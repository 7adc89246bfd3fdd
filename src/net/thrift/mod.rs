//! Who goes first when CPU time is scarce: hits, which are answered as they are read; then those that
//! would ask an upstream, with what is left.
//!
//! Who uses up a quota is stopped for the rest of its period (`rest`), and hits with it. So once nearly all of
//! it is used, a question for an upstream waits for its turn here, and turns are given as CPU time comes
//! (`credit`). Owns the order, the bound and the age of what waits; never looks at a query.

mod credit;

use super::counters::Counters;
use super::rest::{Rests, go_on};
use super::worker::Worker;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;

pub(super) use credit::Credit;

/// The most questions of a worker that wait for their turn; who comes then is not waited for.
pub const TURNS_MOST: usize = 1024;

/// The same once as many have waited for [`STANDING`]: a burst is worked off, but where more come than can be
/// asked, a long queue only makes all of them late, and each costs more for having left the processor's caches.
const STANDING_MOST: usize = 128;

/// How long a queue may be long.
const STANDING: Duration = Duration::from_millis(500);

/// The longest that a question waits for its turn. Stub resolvers ask again after 2.5 s (musl) or 5 s
/// (glibc, Go): an answer should be there well before.
pub const TURN_LONGEST: Duration = Duration::from_secs(1);

/// How many go at once before the CPU time is looked at again.
const TOGETHER: usize = 32;

/// How long a look at the CPU time lasts, unless as many went since.
const LOOK_LASTS: Duration = Duration::from_millis(1);

/// How long to wait when there is no CPU time left and nothing happens.
const PAUSE: Duration = LEAST_EVERY;

/// One goes on in any case after this time, so that names get into the cache at all.
const LEAST_EVERY: Duration = Duration::from_millis(10);

/// Those that wait, in their order.
#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<(Instant, T)>,
    /// When one went on last.
    last: Instant,
    /// When the queue was short last.
    short: Instant,
}

impl<T> Queue<T> {
    fn new(now: Instant) -> Queue<T> {
        Queue { waiting: VecDeque::new(), last: now, short: now }
    }

    /// How many may wait at `now`.
    fn most(&mut self, now: Instant) -> usize {
        if self.waiting.len() < STANDING_MOST {
            self.short = now;
        }
        match now.saturating_duration_since(self.short) > STANDING {
            true => STANDING_MOST,
            false => TURNS_MOST,
        }
    }

    /// Takes the next one in, or gives it back when there is no room.
    fn push(&mut self, now: Instant, one: T) -> Result<(), T> {
        if self.waiting.len() >= self.most(now) {
            return Err(one);
        }
        self.waiting.push_back((now, one));
        Ok(())
    }

    /// Takes out those that waited too long.
    fn overdue(&mut self, now: Instant) -> impl Iterator<Item = T> {
        let is_overdue =
            |(since, _): &(Instant, T)| now.saturating_duration_since(*since) > TURN_LONGEST;
        let count = self.waiting.iter().take_while(|one| is_overdue(one)).count();
        self.waiting.drain(..count).map(|(_, one)| one)
    }

    /// Takes out those that go now.
    fn next(&mut self, now: Instant, cpu: Cpu) -> impl Iterator<Item = T> {
        let is_time = now.saturating_duration_since(self.last) >= LEAST_EVERY;
        let count = match cpu {
            Cpu::Left => TOGETHER,
            Cpu::UsedUp => usize::from(is_time),
        };
        if count > 0 {
            self.last = now;
        }
        self.waiting.drain(..count.min(self.waiting.len())).map(|(_, one)| one)
    }
}

/// Whether there is CPU time for those that wait.
#[derive(Debug, Clone, Copy)]
enum Cpu {
    Left,
    UsedUp,
}

/// A question's turn.
pub(super) enum Turn {
    /// Now.
    Now,
    /// Once it is told; given up when the teller is gone.
    Waits(oneshot::Receiver<()>),
    /// Never: too many wait.
    Never,
}

impl Turn {
    /// Waits for it; false when it does not come.
    pub(super) async fn comes(self) -> bool {
        match self {
            Turn::Now => true,
            Turn::Waits(told) => told.await.is_ok(),
            Turn::Never => false,
        }
    }
}

/// The turns of one worker.
pub(super) struct Thrift {
    rests: Arc<Rests>,
    credit: SharedCredit,
    /// When the CPU time was looked at last without anybody waiting, and how many may go until the next look.
    looked: Cell<Instant>,
    free: Cell<usize>,
    queue: RefCell<Queue<oneshot::Sender<()>>>,
    /// Queries of this batch that will ask for a turn.
    coming: Cell<usize>,
    /// Sockets that hold more than was read.
    unread: Cell<usize>,
    filled: Notify,
    /// Something happened: time may have passed.
    passed: Notify,
}

impl Thrift {
    pub(super) fn new(rests: Arc<Rests>, credit: SharedCredit) -> Thrift {
        let now = Instant::now();
        Thrift {
            rests,
            credit,
            looked: Cell::new(now),
            free: Cell::new(0),
            queue: RefCell::new(Queue::new(now)),
            coming: Cell::new(0),
            unread: Cell::new(0),
            filled: Notify::new(),
            passed: Notify::new(),
        }
    }

    /// A batch begins, and the tasks of the last one have come to their turns.
    pub(super) fn begin_batch(&self) {
        self.coming.set(0);
        self.has_passed();
    }

    /// Has those that wait looked at: something happens, and it is about time.
    pub(super) fn has_passed(&self) {
        if !self.queue.borrow().waiting.is_empty() {
            self.passed.notify_one();
        }
    }

    /// Whether a query of this batch that must wait has a place to wait in; false is counted. Asked before
    /// it becomes a task: most of what one costs is saved.
    pub(super) fn has_place(&self, counters: &Counters) -> bool {
        let mut queue = self.queue.borrow_mut();
        if queue.waiting.is_empty() {
            return true;
        }
        let coming = self.coming.get();
        if queue.waiting.len() + coming >= queue.most(Instant::now()) {
            counters.shed_cpu.increment();
            return false;
        }
        self.coming.set(coming + 1);
        true
    }

    /// The turn of a question for an upstream.
    pub(super) fn turn(&self, counters: &Counters) -> Turn {
        if self.goes_at_once() {
            return Turn::Now;
        }
        let (teller, told) = oneshot::channel();
        if self.queue.borrow_mut().push(Instant::now(), teller).is_err() {
            counters.shed_cpu.increment();
            return Turn::Never;
        }
        counters.held_back.increment();
        self.filled.notify_one();
        Turn::Waits(told)
    }

    /// Whether a question need not wait: nobody does, and CPU time is left.
    fn goes_at_once(&self) -> bool {
        if !self.queue.borrow().waiting.is_empty() {
            return false;
        }
        if !self.rests.has_quota() {
            return true;
        }
        let now = Instant::now();
        if self.free.get() == 0 || now.saturating_duration_since(self.looked.get()) >= LOOK_LASTS {
            self.looked.set(now);
            self.free.set(if self.is_left(now) { TOGETHER } else { 0 });
        }
        let free = self.free.get();
        self.free.set(free.saturating_sub(1));
        free > 0
    }

    /// Whether CPU time is left for questions at `now`. A system call.
    fn is_left(&self, now: Instant) -> bool {
        let reading = self.rests.reading(now);
        self.credit.lock().unwrap_or_else(PoisonError::into_inner).is_left(now, reading)
    }

    /// How many wait now.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue.borrow().waiting.len()
    }

    /// Whether the worker rests between its turns, and then finds several queries.
    pub(super) fn is_resting(&self) -> bool {
        self.rests.is_resting()
    }

    /// Judges the quota anew, for a worker that has too much to do to rest.
    pub(super) fn look(&self) {
        self.rests.look();
        go_on();
    }

    /// Marks a socket that holds more than was read, until it is dropped.
    pub(super) fn unread(self: &Rc<Thrift>) -> Unread {
        self.unread.set(self.unread.get() + 1);
        Unread(self.clone())
    }
}

/// A socket that holds more than was read: hits may be among it.
pub(super) struct Unread(Rc<Thrift>);

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.unread.set(self.0.unread.get() - 1);
    }
}

/// Gives turns, for the worker's whole life.
pub(super) async fn give_turns(worker: Rc<Worker>) {
    let thrift = &worker.thrift;
    // One for the whole life: to set a timer wakes the runtime's own thread, with a system call.
    let mut alarm = pin!(tokio::time::sleep(PAUSE));
    loop {
        if thrift.queue.borrow().waiting.is_empty() {
            thrift.filled.notified().await;
            continue;
        }
        let now = Instant::now();
        let is_read = thrift.unread.get() == 0;
        let is_left = is_read && thrift.is_left(now);
        let cpu = if is_left { Cpu::Left } else { Cpu::UsedUp };
        {
            let mut queue = thrift.queue.borrow_mut();
            // Dropped tellers tell that no turn comes.
            worker.counters.shed_cpu.add(queue.overdue(now).count() as u64);
            for teller in queue.next(now, cpu) {
                // One that waits no more needs no turn.
                let _ = teller.send(());
            }
        }
        if is_left || !is_read {
            yield_now().await;
            continue;
        }
        tokio::select! {
            () = thrift.passed.notified() => {}
            () = alarm.as_mut() => alarm.as_mut().reset(tokio::time::Instant::now() + PAUSE),
        }
    }
}

/// What all workers of a process share.
pub(super) type SharedCredit = Arc<Mutex<Credit>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn queue(now: Instant, count: usize) -> Queue<usize> {
        let mut queue = Queue::new(now);
        for one in 0..count {
            queue.push(now, one).unwrap();
        }
        queue
    }

    #[test]
    fn turns_are_given_in_order_and_one_in_any_case() {
        let start = Instant::now();
        let mut queue = queue(start, 3 * TOGETHER);
        assert_eq!(queue.next(start, Cpu::UsedUp).count(), 0);
        let now = start + LEAST_EVERY;
        assert_eq!(queue.next(now, Cpu::UsedUp).collect::<Vec<_>>(), [0]);
        assert_eq!(queue.next(now, Cpu::UsedUp).count(), 0);
        assert_eq!(
            queue.next(now, Cpu::Left).collect::<Vec<_>>(),
            (1..=TOGETHER).collect::<Vec<_>>()
        );
        assert_eq!(queue.next(now + LEAST_EVERY, Cpu::UsedUp).next(), Some(TOGETHER + 1));
    }

    #[test]
    fn a_burst_is_waited_for_and_a_queue_that_stays_long_is_made_short() {
        let start = Instant::now();
        let mut queue = queue(start, TURNS_MOST - 1);
        let late = start + STANDING + milliseconds(1);
        assert_eq!(queue.push(start + STANDING, 7), Ok(()));
        // More come than go.
        queue.next(late, Cpu::Left).for_each(drop);
        assert_eq!(queue.push(late, 7), Err(7));
        while queue.waiting.len() >= STANDING_MOST {
            queue.next(late, Cpu::Left).for_each(drop);
        }
        // Once it was short, a burst is waited for again.
        for _ in 0..2 * STANDING_MOST {
            queue.push(late, 7).unwrap();
        }
    }

    #[test]
    fn who_finds_no_place_is_given_back_and_who_waits_too_long_is_taken_out() {
        let start = Instant::now();
        let mut queue = queue(start, TURNS_MOST);
        assert_eq!(queue.push(start, 7), Err(7));
        assert_eq!(queue.overdue(start + TURN_LONGEST).count(), 0);
        queue.next(start, Cpu::Left).for_each(drop);
        queue.push(start + milliseconds(1), 7).unwrap();
        let late = start + TURN_LONGEST + milliseconds(1);
        assert_eq!(queue.overdue(late).count(), TURNS_MOST - TOGETHER);
        assert_eq!(queue.next(late, Cpu::Left).collect::<Vec<_>>(), [7]);
    }
}
