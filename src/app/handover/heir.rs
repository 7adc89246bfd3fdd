//! What the main loop and the threads that talk tell one another of a successor.
//!
//! Owns the way to one that reads. Decides nothing.

use super::super::cache_stream::Stores;
use super::super::store::Listening;
use super::CACHE_TIME;
use super::talk::ANSWER_TIME;
use crate::net::{Clock, HandedConnection};
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, sync_channel};

/// What the main loop is told.
pub(crate) enum Event {
    /// A successor is there: what is there for it? From now on it may have the sockets.
    Wanted(SyncSender<Option<Offer>>),
    /// It has gone or was refused, and has read nothing.
    Ended,
    /// It reads.
    Committed(Heir),
    /// It is gone, or is about to end, after it had committed.
    Returned,
    /// It is gone, and has no socket any more.
    Gone,
}

/// What a successor gets.
pub(crate) struct Offer {
    /// All listening sockets.
    pub(crate) listening: Listening,
    /// The cache.
    pub(crate) stores: Stores,
    /// The clock of the cache.
    pub(crate) clock: Clock,
}

/// What the conversation's thread is to send.
pub(super) enum Task {
    /// That this process reads no more.
    Retired,
    /// A client's connection.
    Connection(HandedConnection),
    /// What came into the cache since the offer; `done` is told when all is said.
    Last { stores: Stores, clock: Clock, done: SyncSender<()> },
}

/// The successor that reads now.
pub(crate) struct Heir {
    /// Its process; 0 where it is not seen.
    pub(crate) process: u32,
    /// No more waits there than two words and each connection that was open once.
    pub(super) tasks: Sender<Task>,
}

impl Heir {
    /// This process reads no more.
    pub(crate) fn retired(&self) {
        // A thread that is gone has told that the successor is.
        let _ = self.tasks.send(Task::Retired);
    }

    /// Who takes clients' connections.
    pub(crate) fn of_connections(&self) -> crate::net::Heir {
        let tasks = self.tasks.clone();
        Arc::new(move |connection| {
            let _ = tasks.send(Task::Connection(connection));
        })
    }

    /// Sends what came into the cache since the offer; returns when all is said. Blocks.
    pub(crate) fn finish(&self, stores: Stores, clock: Clock) {
        let (done, is_done) = sync_channel(1);
        if self.tasks.send(Task::Last { stores, clock, done }).is_ok() {
            let _ = is_done.recv_timeout(CACHE_TIME + ANSWER_TIME);
        }
    }
}
