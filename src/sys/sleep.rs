//! How long this machine has been suspended.
//!
//! The clock of deadlines stands still meanwhile, and what was kept in a cache does not get younger.

use super::cpu::read;
use std::time::Duration;

/// All suspensions since the machine's boot together, in a time namespace with what it adds; never more
/// than there was. Two readings of a clock.
pub fn asleep() -> Duration {
    // In this order: what passes between the two readings makes it less.
    let since_boot = read(libc::CLOCK_BOOTTIME);
    since_boot.saturating_sub(read(libc::CLOCK_MONOTONIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_awake_sleeps_no_more() {
        // One reading may be less: this thread may have waited between its two clocks.
        let before = (0..100).map(|_| asleep()).max().unwrap_or_default();
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(20) {
            assert!(asleep() <= before + Duration::from_millis(1), "{before:?}");
        }
    }
}
