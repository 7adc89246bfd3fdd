//! A query's hold on the connection that it was put on: its response, or the end of the wait for it.
//!
//! Knows its id and number there; the connection keeps all else.

use super::connection::Connection;
use super::parked::{Failure, Reply};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A query's hold on its connection. After [`Ticket::leave`] a late response finds nobody.
#[derive(Debug)]
pub(super) struct Ticket {
    /// The connection.
    pub(super) connection: Arc<Connection>,
    /// The id that it is sent with.
    pub(super) id: u16,
    /// Its number on the connection, from 1.
    pub(super) number: u64,
    /// The connection was there before.
    pub(super) is_reused: bool,
    /// What tells its end.
    pub(super) receiver: oneshot::Receiver<Result<Reply, Failure>>,
}

impl Ticket {
    /// Whether the connection was opened for a query before this one.
    pub(super) fn is_behind(&self) -> bool {
        self.number > 1
    }

    /// The response, or why there is none.
    pub(super) fn poll(&mut self, task: &mut Context<'_>) -> Poll<Result<Reply, Failure>> {
        Pin::new(&mut self.receiver).poll(task).map(|told| match told {
            Ok(result) => result,
            Err(_) => Err(Failure::Closed(self.connection.words("operation was canceled").into())),
        })
    }

    /// Gives the query up, if it is not answered yet.
    pub(super) fn leave(&self) {
        self.connection.leave(self.id, self.number);
    }
}
