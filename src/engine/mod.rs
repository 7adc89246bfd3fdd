//! The snapshot of a loaded Corefile, zone lookup, the chain, the life of one query, the table of
//! questions in flight. Names no socket, no clock, no thread.

mod build;
mod fitted;
mod flight;
mod inspect;
mod life;
mod serve;
mod snapshot;
mod zones;

pub use build::{World, build};
pub use fitted::{FITTED_OCTETS_MOST, FittedReplies};
pub use flight::{FlightKey, Flights, QUESTIONS_MOST, Role, WAITERS_PER_QUESTION_MOST};
pub use inspect::{InspectedBlock, Inspection, Mistake, MistakeKind, inspect};
pub use life::{KeptLife, Means, Place, Refresh, Step};
pub use serve::{Arrival, Event, Further, Parked, Silence, arrive};
pub use snapshot::{Block, BuildError, Server, Snapshot};
pub use zones::Zones;

#[cfg(test)]
mod tests;
