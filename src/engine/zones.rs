//! Longest-suffix match of names to blocks.

/// The zones of one listener.
#[derive(Debug, Default)]
pub struct Zones {}
