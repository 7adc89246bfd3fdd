//! The life of one query: down the chain, up again, waiting as a value.
//!
//! Owns the order of passes. Never waits itself: [`Step`] says what to wait for, and the caller
//! comes back with the result. The same code serves a hit at once and a miss in a task.

use super::snapshot::{Block, Server};
use crate::dns::{KeptQuery, Query, Rcode, Response, Transport};
use crate::plugin::forward::{Exchange, Exchanged};
use crate::plugin::{Client, Context, DropReason, Flow, Journal, Labels, Note, Now, Turn};
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;

/// What a query needs next.
#[derive(Debug)]
pub enum Step {
    /// The response is final: finish the reply and send it.
    Done,
    /// No reply.
    Drop(DropReason),
    /// Ask upstream, then [`Life::exchanged`]; when `patience` runs out before, [`Life::late`].
    Exchange(Exchange, Option<Duration>),
    /// Ask one further question through the whole server, then [`Life::answered`].
    Ask(Box<Query<'static>>),
}

/// A question to be asked again without a client: prefetch or refresh of a stale entry.
pub struct Refresh {
    /// The query as the wishing handler saw it.
    pub query: Query<'static>,
    /// The wishing handler's chain.
    pub block: Arc<Block>,
    /// Its place in the chain.
    pub depth: usize,
    /// The number of the listener.
    pub server: usize,
    /// Who asked first.
    pub client: Client,
}

/// Where a query is served.
#[derive(Clone, Copy)]
pub struct Place<'s> {
    /// The listener.
    pub server: &'s Server,
    /// The server block.
    pub block: &'s Arc<Block>,
}

/// What a pass may use.
pub struct Means<'m> {
    /// The clock reading of this pass.
    pub now: Now,
    /// When whoever receives messages began to take in those that arrive in this pass; else `now`.
    pub received: Now,
    /// Chance.
    pub random: &'m mut StdRng,
    /// Lines for the operator.
    pub journal: &'m dyn Journal,
    /// Refreshes that handlers wished for.
    pub refreshes: &'m mut Vec<Refresh>,
}

/// One query on its way. Its response is lent by the caller at each step.
#[derive(Debug)]
pub struct Life<'a> {
    query: Query<'a>,
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
struct Course {
    client: Client,
    received: Now,
    /// The handler that acts next on the way down, or that waits.
    depth: usize,
    /// The outermost handler that sees the response.
    floor: usize,
    notes: Vec<Note>,
    labels: Labels,
    clientless: bool,
    /// When it ends waiting.
    deadline: Option<Duration>,
    /// Boxed: hits have none, and a life is copied about.
    patience: Option<Box<Patience>>,
}

/// What a pass follows.
#[derive(Clone, Copy, Default)]
struct After<'e> {
    /// The exchange that ended.
    exchanged: Option<&'e Exchanged>,
    /// The handler's patience that ended.
    late: bool,
}

/// A handler that will not wait for ever.
#[derive(Debug)]
struct Patience {
    lasts: Duration,
    depth: usize,
    /// The query as that handler saw it: those below may have changed it since.
    query: KeptQuery,
}

impl KeptLife {
    /// Ready for the next pass.
    pub fn wake(self) -> Life<'static> {
        Life { query: self.query.wake(), course: self.course }
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
    /// through the handlers below the impatient one and ends there. Then call [`Life::late`].
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

impl<'a> Life<'a> {
    /// A client's query.
    pub fn new(query: Query<'a>, client: Client, received: Now) -> Life<'a> {
        let course = Course {
            client,
            received,
            depth: 0,
            floor: 0,
            notes: Vec::new(),
            labels: Labels::default(),
            clientless: false,
            deadline: None,
            patience: None,
        };
        Life { query, course }
    }

    /// A query without a client, through the handlers below `refresh.depth`; the response ends at
    /// that handler.
    pub fn refreshing(refresh: Refresh, received: Now) -> Life<'static> {
        let mut life = Life::new(refresh.query, refresh.client, received);
        life.course.depth = refresh.depth + 1;
        life.course.floor = refresh.depth;
        life.course.clientless = true;
        // CoreDNS's refreshes go out as a TCP client's query does (spec/coredns.md §2.6).
        life.course.client.transport = Transport::Tcp;
        life
    }

    /// The query, as the handlers left it.
    pub fn query(&self) -> &Query<'a> {
        &self.query
    }

    /// Who asked.
    pub fn client(&self) -> &Client {
        &self.course.client
    }

    /// The same life, for a question that `asker` waits for: it waits no longer than that one.
    pub fn within(mut self, asker: &KeptLife) -> Life<'a> {
        self.course.deadline = asker.course.deadline;
        self
    }

    /// Borrows nothing, until the next pass.
    pub fn keep(self) -> KeptLife {
        KeptLife { query: self.query.keep(), course: self.course }
    }

    /// The first pass down. `response` must be clear.
    pub fn start(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
    ) -> Step {
        self.course.labels.wanted = place.block.metadata;
        self.down(place, response, means)
    }

    /// The exchange ended: up from the handler that asked for it.
    pub fn exchanged(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
        exchanged: &Exchanged,
    ) -> Step {
        self.course.patience = None;
        match &exchanged.outcome {
            Ok(bytes) => {
                if response.take(bytes, "forward").is_err() {
                    response.fail(Rcode::SERVFAIL, Some("malformed response".into()));
                }
            }
            Err(failure) => response.fail(failure.rcode, Some(failure.text.clone())),
        }
        self.up(
            place,
            response,
            means,
            self.course.depth + 1,
            After { exchanged: Some(exchanged), late: false },
        )
    }

    /// Patience ended before the exchange did: up from the handler whose patience it was.
    pub fn late(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
    ) -> Step {
        let mut depth = self.course.depth;
        if let Some(patience) = self.course.patience.take() {
            depth = patience.depth;
            self.query = patience.query.wake();
        }
        response.fail(Rcode::SERVFAIL, None);
        self.up(place, response, means, depth + 1, After { exchanged: None, late: true })
    }

    /// The further question was answered: the handler that asked decides.
    pub fn answered(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
        further: &Response,
    ) -> Step {
        let depth = self.course.depth;
        let turn = self.with(place, means, depth, After::default(), |query, context| {
            place.block.chain[depth].answered(query, response, further, context)
        });
        self.turned(place, response, means, depth, turn, After::default())
    }

    fn down(&mut self, place: Place<'_>, response: &mut Response, means: &mut Means<'_>) -> Step {
        while let Some(handler) = place.block.chain.get(self.course.depth) {
            let depth = self.course.depth;
            let flow = self.with(place, means, depth, After::default(), |query, context| {
                handler.query(query, response, context)
            });
            match flow {
                Flow::Next => self.course.depth += 1,
                Flow::Answer => return self.up(place, response, means, depth, After::default()),
                Flow::Forward(exchange) => {
                    let lasts = self.course.patience.as_ref().map(|patience| patience.lasts);
                    return Step::Exchange(exchange, lasts);
                }
                Flow::Ask(question) => return Step::Ask(question),
                Flow::Drop(reason) => return self.dropped(place, response, means, reason),
            }
        }
        match place.block.chain.last() {
            None => response.fail(Rcode::REFUSED, None),
            Some(last) => response.fail(
                Rcode::SERVFAIL,
                Some(format!("plugin/{}: no next plugin found", last.word()).into()),
            ),
        }
        self.up(place, response, means, self.course.depth, After::default())
    }

    /// No reply, but the handlers above see that the query has ended: they log and count it. As
    /// with CoreDNS it ended with NOERROR and without a message.
    fn dropped(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
        reason: DropReason,
    ) -> Step {
        response.fail(Rcode::NOERROR, None);
        self.up(place, response, means, self.course.depth, After::default());
        Step::Drop(reason)
    }

    /// The way up for the handlers before `below`, innermost first.
    fn up(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
        below: usize,
        mut after: After<'_>,
    ) -> Step {
        for depth in (self.course.floor..below).rev() {
            self.course.depth = depth;
            let turn = self.with(place, means, depth, after, |query, context| {
                place.block.chain[depth].response(query, response, context)
            });
            // Only the handler whose patience it was is told.
            after.late = false;
            match turn {
                Turn::Up => {}
                turn => return self.turned(place, response, means, depth, turn, after),
            }
        }
        Step::Done
    }

    fn turned(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
        depth: usize,
        turn: Turn,
        after: After<'_>,
    ) -> Step {
        match turn {
            Turn::Up => self.up(place, response, means, depth, after),
            Turn::Down => {
                response.clear();
                self.course.depth = depth + 1;
                self.down(place, response, means)
            }
            Turn::Ask(question) => {
                self.course.depth = depth;
                Step::Ask(question)
            }
        }
    }

    fn wish(&self, place: Place<'_>, depth: usize, means: &mut Means<'_>) {
        means.refreshes.push(Refresh {
            query: self.query.clone().into_owned(),
            block: place.block.clone(),
            depth,
            server: place.server.identity.index,
            client: self.course.client,
        });
    }

    /// Calls a handler with its own note and a context, and notes what it wishes for.
    fn with<T>(
        &mut self,
        place: Place<'_>,
        means: &mut Means<'_>,
        depth: usize,
        after: After<'_>,
        call: impl FnOnce(&mut Query<'a>, &mut Context<'_>) -> T,
    ) -> T {
        let mut note = self.course.notes.get_mut(depth).and_then(Option::take);
        let mut refresh = false;
        let mut patience = None;
        let mut context = Context {
            now: means.now,
            received: self.course.received,
            client: &self.course.client,
            server: &place.server.identity,
            random: means.random,
            note: &mut note,
            labels: &mut self.course.labels,
            clientless: self.course.clientless,
            refresh: &mut refresh,
            patience: &mut patience,
            deadline: &mut self.course.deadline,
            late: after.late,
            exchanged: after.exchanged,
            journal: means.journal,
        };
        let result = call(&mut self.query, &mut context);
        if note.is_some() {
            let missing = (depth + 1).saturating_sub(self.course.notes.len());
            if missing > 0 {
                self.course.notes.reserve_exact(missing);
                self.course.notes.resize_with(depth + 1, || None);
            }
            self.course.notes[depth] = note;
        }
        if refresh {
            self.wish(place, depth, means);
        }
        if let Some(lasts) = patience {
            let query = self.query.clone().keep();
            self.course.patience = Some(Box::new(Patience { lasts, depth, query }));
        }
        result
    }
}
