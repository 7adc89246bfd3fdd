//! Handles and their per-thread cells.
//!
//! A cell has one writer: the worker thread that entered its slot adds with a plain load and
//! store. Slot 0 belongs to all other threads together and is added to atomically. Never takes a
//! lock, never allocates after a handle is made.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// The slot of this thread; 0 is the shared one.
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// Says which cell this thread owns: 1 to `workers`, each given to one thread only. Threads that
/// never call this share cell 0 (atomically).
pub fn enter_worker(slot: usize) {
    SLOT.set(slot);
}

/// Where a thread counts.
#[derive(Clone, Copy)]
enum Slot {
    /// Slot 0: other threads count there too.
    Shared,
    /// A worker's alone, from 1 on.
    Own(usize),
}

/// Eight numbers on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; 8]);

const PER_LINE: usize = 8;

/// `slots` times `width` numbers; different slots never share a cache line.
#[derive(Debug)]
struct Cells {
    lines: Box<[Line]>,
    lines_per_slot: usize,
    /// Kept: dividing for each query costs as much as all the adding.
    slots: usize,
}

impl Cells {
    fn new(slots: usize, width: usize) -> Cells {
        let lines_per_slot = width.div_ceil(PER_LINE);
        Cells {
            lines: (0..slots * lines_per_slot).map(|_| Line::default()).collect(),
            lines_per_slot,
            slots,
        }
    }

    /// The calling thread's slot. One that this registry does not have counts as the shared one.
    fn slot(&self) -> Slot {
        match SLOT.get() {
            number if number > 0 && number < self.slots => Slot::Own(number),
            _ => Slot::Shared,
        }
    }

    fn at(&self, slot: usize, place: usize) -> &AtomicU64 {
        &self.lines[slot * self.lines_per_slot + place / PER_LINE].0[place % PER_LINE]
    }

    fn add(&self, slot: Slot, place: usize, n: u64) {
        match slot {
            Slot::Shared => {
                self.at(0, place).fetch_add(n, Ordering::Relaxed);
            }
            Slot::Own(slot) => {
                let cell = self.at(slot, place);
                cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
            }
        }
    }

    fn sum(&self, place: usize) -> u64 {
        (0..self.slots)
            .fold(0, |sum, slot| sum.wrapping_add(self.at(slot, place).load(Ordering::Relaxed)))
    }
}

/// A counter with its labels resolved. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Counter(Arc<Cells>);

impl Counter {
    /// A counter at 0 with `workers` cells beside the shared one.
    pub(super) fn new(workers: usize) -> Counter {
        Counter(Arc::new(Cells::new(workers + 1, 1)))
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.add(self.0.slot(), 0, n);
    }

    /// The sum over all threads.
    pub fn value(&self) -> u64 {
        self.0.sum(0)
    }

    /// Whether there is another handle of it.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// A gauge with its labels resolved: one value for all threads.
#[derive(Debug, Clone)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// A gauge at 0.
    pub(super) fn new() -> Gauge {
        Gauge(Arc::new(AtomicU64::new(0f64.to_bits())))
    }

    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds to the value; negative numbers take away.
    pub fn add(&self, by: f64) {
        add_float(&self.0, by);
    }

    /// The value.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Whether there is another handle of it.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

fn add_float(cell: &AtomicU64, by: f64) {
    // The closure never refuses, so the update cannot fail.
    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
        Some((f64::from_bits(bits) + by).to_bits())
    });
}

/// A histogram with its labels resolved; the buckets are its description's.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

/// Per slot: one count for each bound, one for what is above all bounds, the sum's bits.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    cells: Cells,
}

/// A histogram as read at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// Values at or below each bound, not cumulated; the last is for those above all.
    pub(super) counts: Vec<u64>,
    /// The sum of all values.
    pub(super) sum: f64,
}

impl Histogram {
    /// An empty histogram with ascending upper `bounds`.
    pub(super) fn new(workers: usize, bounds: &'static [f64]) -> Histogram {
        let cells = Cells::new(workers + 1, bounds.len() + 2);
        Histogram(Arc::new(Buckets { bounds, cells }))
    }

    /// Counts one value (seconds or octets, as the name says).
    pub fn observe(&self, value: f64) {
        let Buckets { bounds, cells } = &*self.0;
        // In turn: what is observed of hits lies in the first buckets.
        let place = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        let slot = cells.slot();
        cells.add(slot, place, 1);
        let sum_place = bounds.len() + 1;
        match slot {
            Slot::Shared => add_float(cells.at(0, sum_place), value),
            Slot::Own(slot) => {
                let sum = cells.at(slot, sum_place);
                let now = f64::from_bits(sum.load(Ordering::Relaxed)) + value;
                sum.store(now.to_bits(), Ordering::Relaxed);
            }
        }
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        (0..=self.0.bounds.len()).fold(0, |sum, place| sum.wrapping_add(self.0.cells.sum(place)))
    }

    /// Whether there is another handle of it.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// The upper bounds.
    pub(super) fn bounds(&self) -> &'static [f64] {
        self.0.bounds
    }

    /// All counts and the sum.
    pub(super) fn read(&self) -> Reading {
        let Buckets { bounds, cells } = &*self.0;
        let counts = (0..=bounds.len()).map(|place| cells.sum(place)).collect();
        let sum = (0..cells.slots)
            .map(|slot| f64::from_bits(cells.at(slot, bounds.len() + 1).load(Ordering::Relaxed)))
            .sum();
        Reading { counts, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_with_and_without_a_slot_are_summed() {
        let counter = Counter::new(2);
        std::thread::scope(|scope| {
            for slot in [0, 1, 2, 7] {
                let counter = &counter;
                scope.spawn(move || {
                    enter_worker(slot);
                    for _ in 0..1000 {
                        counter.increment();
                    }
                });
            }
        });
        assert_eq!(counter.value(), 4000);
    }

    #[test]
    fn a_value_on_a_bound_counts_below_it() {
        let histogram = Histogram::new(1, &[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 2.5] {
            histogram.observe(value);
        }
        assert_eq!(histogram.read(), Reading { counts: vec![2, 1, 1], sum: 5.5 });
        assert_eq!(histogram.count(), 4);
    }

    #[test]
    fn histogram_cells_of_workers_are_summed() {
        static BOUNDS: [f64; 16] = [0.0; 16];
        let histogram = Histogram::new(1, &BOUNDS);
        std::thread::scope(|scope| {
            for slot in 0..2 {
                let histogram = &histogram;
                scope.spawn(move || {
                    enter_worker(slot);
                    histogram.observe(2.0);
                });
            }
        });
        assert_eq!((histogram.count(), histogram.read().sum), (2, 4.0));
    }

    #[test]
    fn a_gauge_goes_both_ways() {
        let gauge = Gauge::new();
        gauge.set(3.0);
        gauge.add(-1.0);
        assert_eq!(gauge.value(), 2.0);
    }
}
