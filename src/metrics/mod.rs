//! The registry: CoreDNS's names, handles whose cells belong to threads, text exposition.
//!
//! Owns every counter of the process. A handle is found once, by its labels, and moved without a
//! lock: each worker thread has its own cell, the scrape sums. Never decides anything.

mod cells;
mod exposition;
pub mod names;
mod process;
mod registry;

pub use cells::{Counter, Gauge, Histogram, enter_worker};
pub use names::{Desc, Kind};
pub use registry::{Era, LEFT_SERIES, LazyCounter, MOST_SERIES, Registry};
