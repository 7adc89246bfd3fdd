//! Whether this thread was kept from working, as the kernel does with a process whose quota is used up.
//!
//! Known of threads that rest between their turns alone.

use crate::sys::cpu;
use std::cell::Cell;
use std::time::{Duration, Instant};

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

/// This thread has waited, and works from now on.
pub(super) fn begins_working() {
    let works = Some((Instant::now(), cpu::used_by_this_thread()));
    WATCH.set(Watch { works, ..WATCH.get() });
}

/// This thread waits without having rested: whether it works is not known.
pub(super) fn is_not_watched() {
    WATCH.set(Watch { works: None, ..WATCH.get() });
}

/// Sleeps, and notices when the thread was woken too late.
pub(super) fn sleep(length: Duration) {
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
}

/// Whether this thread was kept from working after `moment`: what then seems late may have been there in
/// time. Known of threads that rest between their turns alone.
pub(in crate::net) fn stood_still_since(moment: Instant) -> bool {
    let mut watch = WATCH.get();
    watch.look(Instant::now(), cpu::used_by_this_thread);
    WATCH.set(watch);
    watch.stood_still.is_some_and(|until| until > moment)
}

#[cfg(test)]
mod tests {
    use super::super::length::WINDOW;
    use super::*;

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
}
