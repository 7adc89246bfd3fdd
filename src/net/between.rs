//! Looks at the clients' datagrams between turns of tasks that are not the worker's own.
//!
//! When an upstream is silent, its connections end and begin by the dozen, and each turn of theirs makes
//! several system calls. Owns how a thread's connection tasks reach its worker; the worker decides
//! whether it is time. A thread without a worker looks at nothing.

use super::worker::{UNSEEN_BESIDE_LONG, UNSEEN_MOST, Worker};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::LocalSet;

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
