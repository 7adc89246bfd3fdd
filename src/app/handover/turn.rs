//! Whose turn it is at the door: one successor at a time.
//!
//! Owns the pause behind one that failed. Knows nothing of what is said.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// Whose turn it is at the door.
#[derive(Default, Clone)]
pub(super) struct Turn(Arc<Mutex<Whose>>);

/// Who may come next.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Whoever comes.
    #[default]
    Nobodys,
    /// Whoever comes, from then on.
    NobodysFrom(Instant),
    /// One that has not committed, nor failed.
    Somebodys,
}

impl Turn {
    /// Gives the turn to one that has come, behind a pause that is due; false when it is another one's.
    pub(super) fn take(&self) -> bool {
        if let Whose::NobodysFrom(at) = self.whose() {
            thread::sleep(at.saturating_duration_since(Instant::now()));
        }
        self.set(Whose::Somebodys) != Whose::Somebodys
    }

    /// Says whose it is from now on; gives whose it was.
    pub(super) fn set(&self, whose: Whose) -> Whose {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), whose)
    }

    /// Whose it is now.
    pub(super) fn whose(&self) -> Whose {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
