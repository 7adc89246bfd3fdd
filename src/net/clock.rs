//! The one place where time is read for queries.
//!
//! A worker reads it once a batch; everything below takes the reading as an argument.

use crate::plugin::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The process's clock. Copies agree: make it once, hand it to everybody.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Monotonic time counts from here.
    pub fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// A reading. A wall clock before 1970 reads as 1970.
    pub fn now(&self) -> Now {
        Now {
            monotonic: self.origin.elapsed(),
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
        }
    }
}
