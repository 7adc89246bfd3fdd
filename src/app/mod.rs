//! Flags, start, reload, signals, handover, shutdown.
//!
//! Owns the process; everything below is told what it needs.

pub mod flags;
pub mod options;
