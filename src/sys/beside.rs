//! Work on threads of its own, beside a runtime whose thread must not wait.
//!
//! Owns what becomes of it where there are no threads. tokio's own pool panics there, and with it ends who
//! asked.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tokio::sync::oneshot;

/// Has `work` done on a thread of its own; the receiver gets the result, and an error when `work`
/// panicked. Where the system gives no thread (process ids or memory are used up) it is done on this one
/// before this function returns: what else this one does waits, but the work is done.
pub fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    by(|run| thread::Builder::new().name("beside".to_owned()).spawn(run).map(drop), work)
}

fn by<T: Send + 'static>(
    start: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (teller, result) = oneshot::channel();
    // Whoever waits may be gone.
    let work = move || drop(teller.send(work()));
    // What a thread that cannot be started was to do is lost with it: so it takes it from here.
    let place = Arc::new(Mutex::new(Some(work)));
    let own = place.clone();
    let take =
        |place: &Mutex<Option<_>>| place.lock().unwrap_or_else(PoisonError::into_inner).take();
    let run = move || {
        if let Some(work) = take(&place) {
            work();
        }
    };
    if start(Box::new(run)).is_err()
        && let Some(work) = take(&own)
    {
        // As on a thread of its own, a panic is the end of the work alone.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_thread(_: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[test]
    fn work_is_done_on_another_thread() {
        let own = thread::current().id();
        let other = beside(|| thread::current().id()).blocking_recv();
        assert!(other.is_ok_and(|other| other != own));
    }

    #[test]
    fn without_threads_it_is_done_on_this_one() {
        let own = thread::current().id();
        assert_eq!(by(no_thread, || thread::current().id()).try_recv(), Ok(own));
    }

    #[test]
    fn work_that_panics_has_no_result_and_ends_nobody() {
        assert!(beside(|| panic!("on another thread")).blocking_recv().is_err());
        assert!(by(no_thread, || panic!("on this thread")).try_recv().is_err());
    }
}
