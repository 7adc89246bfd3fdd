//! What a `cache` directive says, for those who judge a Corefile without serving it.

use super::options::{Limits, Options};
use super::store::effective_capacity;
use crate::corefile::{CorefileError, Dispenser, Token};
use crate::dns::Name;

/// What a `cache` directive keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The zones that are cached.
    pub zones: Vec<Name>,
    /// Positive responses.
    pub success: Keeps,
    /// Negative responses.
    pub denial: Keeps,
}

/// What one store keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeps {
    /// How many entries were asked for.
    pub asked: i64,
    /// How many entries that comes to.
    pub entries: u64,
    /// The greatest TTL in seconds.
    pub most: u32,
    /// The least TTL in seconds; the greatest wins over it.
    pub least: u32,
}

/// What the directive says in a block of these zones.
///
/// # Errors
///
/// As for [`super::setup`].
pub fn read(tokens: &[Token], block_zones: &[Name]) -> Result<Said, CorefileError> {
    let options = Options::parse(&mut Dispenser::new("cache", tokens), block_zones)?;
    let keeps = |limits: &Limits| Keeps {
        asked: limits.capacity,
        entries: effective_capacity(limits.capacity),
        most: limits.most,
        least: limits.least,
    };
    let (success, denial) = (keeps(&options.success), keeps(&options.denial));
    Ok(Said { zones: options.zones, success, denial })
}
