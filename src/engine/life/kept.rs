//! What is kept of a query's life between its passes: its query and its course.
//!
//! Owns the forms of that: lent to a pass, whole, or as small as it can be, for thousands may wait. Never
//! calls a handler.

use super::{Life, Refresh};
use crate::dns::{KeptQuery, Query, Transport};
use crate::plugin::{Client, Labels, Note, Now};
use std::time::Duration;

/// A life that owns its parts.
#[derive(Debug)]
pub(in crate::engine) struct OwnLife {
    query: Query<'static>,
    course: Course,
}

/// A life between two passes: what a query that waits keeps.
#[derive(Debug)]
pub struct KeptLife {
    query: KeptQuery,
    course: Course,
}

/// A life without its query.
#[derive(Debug)]
pub(in crate::engine) struct Course {
    pub(super) client: Client,
    pub(super) received: Now,
    /// The handler that acts next on the way down, or that waits.
    pub(super) depth: usize,
    /// The outermost handler that sees the response.
    pub(super) floor: usize,
    pub(super) notes: Vec<Note>,
    pub(super) labels: Labels,
    pub(super) clientless: bool,
    /// When it ends waiting.
    pub(super) deadline: Option<Duration>,
    /// Boxed: hits have none, and a life is copied about.
    pub(super) patience: Option<Box<Patience>>,
}

/// A handler that will not wait for ever.
#[derive(Debug)]
pub(super) struct Patience {
    pub(super) lasts: Duration,
    pub(super) depth: usize,
    /// The query as that handler saw it: those below may have changed it since.
    pub(super) query: KeptQuery,
}

impl KeptLife {
    /// Of a life that is over for now.
    pub(in crate::engine) fn new(query: &Query<'_>, course: Course) -> KeptLife {
        KeptLife { query: query.keep(), course }
    }

    /// Ready for the next pass.
    pub(in crate::engine) fn wake(self) -> OwnLife {
        OwnLife { query: self.query.wake(), course: self.course }
    }

    /// The query, as the handlers left it.
    pub fn query(&self) -> &KeptQuery {
        &self.query
    }

    /// Who asked.
    pub fn client(&self) -> &Client {
        &self.course.client
    }

    /// The monotonic moment at which it ends waiting for upstreams, if there is one.
    pub fn deadline(&self) -> Option<Duration> {
        self.course.deadline
    }

    /// Splits off what goes on without the client when patience ends: the exchange's result passes
    /// through the handlers below the impatient one and ends there. Then comes
    /// [`crate::engine::Event::Late`].
    pub fn leave_behind(&mut self) -> Option<KeptLife> {
        let course = &mut self.course;
        let depth = course.patience.as_ref()?.depth;
        let mut notes: Vec<Note> = Vec::new();
        for (place, note) in course.notes.iter_mut().enumerate().skip(depth + 1) {
            notes.resize_with(place, || None);
            notes.push(note.take());
        }
        let course = Course {
            client: course.client,
            received: course.received,
            depth: course.depth,
            floor: depth,
            notes,
            labels: Labels::default(),
            clientless: true,
            deadline: None,
            patience: None,
        };
        Some(KeptLife { query: self.query.clone(), course })
    }
}

impl Course {
    /// Of a client's query.
    pub(in crate::engine) fn new(client: Client, received: Now) -> Course {
        Course {
            client,
            received,
            depth: 0,
            floor: 0,
            notes: Vec::new(),
            labels: Labels::default(),
            clientless: false,
            deadline: None,
            patience: None,
        }
    }
}

impl OwnLife {
    /// A client's query.
    pub(in crate::engine) fn new(query: Query<'static>, client: Client, received: Now) -> OwnLife {
        OwnLife { query, course: Course::new(client, received) }
    }

    /// A query without a client, through the handlers below `refresh.depth`; the response ends at
    /// that handler.
    pub(in crate::engine) fn refreshing(refresh: Refresh, received: Now) -> OwnLife {
        let mut life = OwnLife::new(refresh.query, refresh.client, received);
        life.course.depth = refresh.depth + 1;
        life.course.floor = refresh.depth;
        life.course.clientless = true;
        // CoreDNS's refreshes go out as a TCP client's query does.
        life.course.client.transport = Transport::Tcp;
        life
    }

    /// The query, as the handlers left it.
    pub(in crate::engine) fn query(&self) -> &Query<'static> {
        &self.query
    }

    /// Who asked.
    pub(in crate::engine) fn client(&self) -> &Client {
        &self.course.client
    }

    /// The same life, for a question that `asker` waits for: it waits no longer than that one.
    pub(in crate::engine) fn within(mut self, asker: &KeptLife) -> OwnLife {
        self.course.deadline = asker.course.deadline;
        self
    }

    /// To be lived on.
    pub(in crate::engine) fn lend(&mut self) -> Life<'_, 'static> {
        Life::of(&mut self.query, &mut self.course)
    }

    /// As small as it can be, until the next pass.
    pub(in crate::engine) fn keep(self) -> KeptLife {
        KeptLife::new(&self.query, self.course)
    }
}
