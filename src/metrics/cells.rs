//! Handles and their per-thread cells.

use std::sync::Arc;

/// Says which cell this thread owns: 1 to `workers`, each given to one thread only. Threads that
/// never call this share cell 0 (atomically).
pub fn enter_worker(slot: usize) {
    let _ = slot;
    todo!()
}

/// A counter with its labels resolved. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Counter(#[allow(dead_code)] Arc<()>);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        let _ = n;
        todo!()
    }

    /// The sum over all threads.
    pub fn value(&self) -> u64 {
        todo!()
    }
}

/// A gauge with its labels resolved: one value for all threads.
#[derive(Debug, Clone)]
pub struct Gauge(#[allow(dead_code)] Arc<()>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        let _ = value;
        todo!()
    }

    /// The value.
    pub fn value(&self) -> f64 {
        todo!()
    }
}

/// A histogram with its labels resolved; the buckets are its description's.
#[derive(Debug, Clone)]
pub struct Histogram(#[allow(dead_code)] Arc<()>);

impl Histogram {
    /// Counts one value (seconds or octets, as the name says).
    pub fn observe(&self, value: f64) {
        let _ = value;
        todo!()
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        todo!()
    }
}
