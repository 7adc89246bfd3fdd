//! Looks at the clients' datagrams between turns of other tasks.
//!
//! When an upstream is silent, queries that waited end by the hundred, its connections end and begin by the
//! dozen, and each turn of theirs makes system calls. Owns when it is time for a look, and how a thread's
//! connection tasks reach its worker. A thread without a worker looks at nothing.

use super::rest::woke;
use super::udp;
use super::worker::Worker;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::LocalSet;

/// How long datagrams may lie while queries that waited and connections to upstreams have their turns, and
/// after how many turns of the former the clock is read.
const UNSEEN_MOST: Duration = Duration::from_micros(30);
const TURNS_A_LOOK: u8 = 2;

/// The same before and behind what keeps the thread in the kernel for as long itself: a connection to an
/// upstream that begins or ends.
pub(super) const UNSEEN_BESIDE_LONG: Duration = Duration::from_micros(10);

/// The same for a worker that rests between its turns: several that are taken in together cost less.
const UNSEEN_MOST_RESTING: Duration = Duration::from_millis(1);

/// While more queries than this wait on the node, an upstream is silent or slow: each of them may be a step that
/// keeps datagrams waiting, so that all steps are taken for long ones.
pub(super) const CROWD: usize = 512;

impl Worker {
    /// A query that waited has its turn. When hundreds have theirs together, because an upstream is
    /// silent, those that could be answered at once are not kept waiting until the last: datagrams
    /// are taken in between.
    pub(super) fn look_between(self: &Rc<Worker>) {
        let turns = self.turns.get() + 1;
        self.turns.set(turns % TURNS_A_LOOK);
        if turns < TURNS_A_LOOK {
            return;
        }
        self.thrift.has_passed();
        self.look_if_time();
    }

    /// Takes in the datagrams that are there, if they may have been lying for long.
    pub(super) fn look_if_time(self: &Rc<Worker>) {
        if self.is_time_to_look(UNSEEN_MOST) {
            self.look();
        }
    }

    /// Whether so many queries wait that an upstream is silent or slow.
    pub(super) fn is_crowded(&self) -> bool {
        self.node.places.taken() > CROWD
    }

    /// Whether datagrams may have been lying for as long as `most`: at most [`UNSEEN_BESIDE_LONG`] in a crowd,
    /// and [`UNSEEN_MOST_RESTING`] between rests.
    /// What was there when the thread woke has its own task's turn: it counts from about then.
    pub(super) fn is_time_to_look(&self, most: Duration) -> bool {
        let now = self.clock.monotonic();
        if woke() {
            self.received.set(now.saturating_sub(UNSEEN_BESIDE_LONG));
        }
        let most = match self.thrift.is_resting() {
            true => UNSEEN_MOST_RESTING,
            false if self.is_crowded() => most.min(UNSEEN_BESIDE_LONG),
            false => most,
        };
        now.saturating_sub(self.received.get()) >= most
    }

    /// Takes in the datagrams that are there, a batch of each socket at most.
    pub(super) fn look(self: &Rc<Worker>) {
        // A thread whose tasks never end neither rests nor finds more than it reads at once.
        self.thrift.look();
        for (listener, port) in self.doors.borrow().iter() {
            udp::look(self, listener, port);
        }
    }
}

thread_local! {
    /// The worker of this thread, and what its tasks are spawned on.
    static HERE: RefCell<(Weak<LocalSet>, Weak<Worker>)> = RefCell::default();
}

/// This thread is `worker`'s from now on, and its tasks are spawned on `tasks`.
pub(super) fn works_here(tasks: &Weak<LocalSet>, worker: &Rc<Worker>) {
    HERE.replace((tasks.clone(), Rc::downgrade(worker)));
}

/// Looks at the datagrams that may have been lying for as long as `most`.
fn look(most: Duration) {
    let here = HERE.with_borrow(|(tasks, worker)| tasks.upgrade().zip(worker.upgrade()));
    let Some((tasks, worker)) = here else { return };
    if worker.is_time_to_look(most) {
        // What is found may have to wait, in a task of the worker's.
        let _inside = tasks.enter();
        worker.look();
    }
}

/// A step comes that keeps this thread in the kernel for long: datagrams are looked at before, if it is time.
pub(super) fn before_long_step() {
    look(UNSEEN_BESIDE_LONG);
}

/// A task of a connection to an upstream: behind each of its turns datagrams are looked at, if it is time.
pub(super) struct InTurns<F>(Pin<Box<F>>);

/// As `task`, with looks behind its turns.
pub(super) fn in_turns<F: Future>(task: F) -> InTurns<F> {
    InTurns(Box::pin(task))
}

impl<F: Future> Future for InTurns<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.0.as_mut().poll(task);
        look(if polled.is_ready() { UNSEEN_BESIDE_LONG } else { UNSEEN_MOST });
        polled
    }
}
