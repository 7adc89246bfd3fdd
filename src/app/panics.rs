//! Where a panic is told of: in a line of the log, for whose way out no thread waits. Rust's own place,
//! standard error, may be a pipe that nobody reads.
//!
//! Owns which threads those are. The main thread's panic is the end of the process, and the log's own can be told
//! nowhere else: both stay where they are. Who catches a panic, and counts it, is others' to say.

use super::log::Log;
use crate::plugin::{Journal, Level};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{set_hook, take_hook};
use std::thread;

/// From now on panics of other threads than these are told in the log.
pub(super) fn are_told_in(log: Log) {
    let otherwise = take_hook();
    set_hook(Box::new(move |panic| {
        let thread = thread::current();
        match thread.name() {
            None | Some("main" | super::log::THREAD) => otherwise(panic),
            Some(name) => tell(&log, name, &panic.to_string(), &Backtrace::capture()),
        }
    }));
}

/// One line, and with RUST_BACKTRACE the stack below it.
fn tell(journal: &dyn Journal, thread: &str, what: &str, stack: &Backtrace) {
    let what = what.replace('\n', " ");
    match stack.status() {
        BacktraceStatus::Captured => {
            journal.line(Level::Error, format_args!("Thread {thread} {what}\n{stack}"));
        }
        _ => journal.line(Level::Error, format_args!("Thread {thread} {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::FakeJournal;

    #[test]
    fn a_panic_is_one_line_with_its_thread_and_place() {
        let journal = FakeJournal::default();
        let what = "panicked at src/net/udp.rs:1:2:\nindex out of bounds";
        tell(&journal, "worker-0", what, &Backtrace::disabled());
        let line = "[ERROR] Thread worker-0 panicked at src/net/udp.rs:1:2: index out of bounds";
        assert_eq!(journal.take(), [line]);
    }
}
