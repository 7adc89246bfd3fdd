//! The life of one query: down the chain, up again, waiting as a value.
//!
//! Owns the order of passes. Never waits itself: [`Step`] says what to wait for, and the caller
//! comes back with the result. The same code serves a hit at once and a miss in a task.

mod kept;

use super::snapshot::{Block, Server};
use crate::dns::{Query, Rcode, Response};
use crate::plugin::forward::{Exchange, Exchanged};
use crate::plugin::{Client, Context, DropReason, Flow, Journal, Note, Now, Turn};
pub use kept::KeptLife;
use kept::Patience;
pub(super) use kept::{Course, OwnLife};
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
    /// Ask upstream, then [`super::Event::Exchanged`]; when the patience runs out before,
    /// [`super::Event::Late`].
    Exchange(Exchange, Option<Duration>),
    /// Ask one further question through the whole server, then [`super::Event::Answered`].
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

/// One query on its way: its parts are lent, and its response by the caller at each step.
#[derive(Debug)]
pub(super) struct Life<'l, 'a> {
    query: &'l mut Query<'a>,
    course: &'l mut Course,
}

/// What a pass follows.
#[derive(Clone, Copy, Default)]
struct After<'e> {
    /// The exchange that ended.
    exchanged: Option<&'e Exchanged>,
    /// The handler's patience that ended.
    late: bool,
}

impl<'l, 'a> Life<'l, 'a> {
    /// Of a query and its course.
    pub(super) fn of(query: &'l mut Query<'a>, course: &'l mut Course) -> Life<'l, 'a> {
        Life { query, course }
    }

    /// The first pass down. `response` must be clear.
    pub(super) fn start(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
    ) -> Step {
        self.course.labels.wanted = place.block.metadata;
        self.down(place, response, means)
    }

    /// The exchange ended: up from the handler that asked for it.
    pub(super) fn exchanged(
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
    pub(super) fn late(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
    ) -> Step {
        let mut depth = self.course.depth;
        if let Some(patience) = self.course.patience.take() {
            depth = patience.depth;
            *self.query = patience.query.wake();
        }
        response.fail(Rcode::SERVFAIL, None);
        self.up(place, response, means, depth + 1, After { exchanged: None, late: true })
    }

    /// The further question was answered: the handler that asked decides.
    pub(super) fn answered(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
        further: &Response,
    ) -> Step {
        let depth = self.course.depth;
        let mut pass = self.pass(place, means, After::default());
        let turn = pass.call(|query, context| {
            place.block.chain[depth].answered(query, response, further, context)
        });
        match turn {
            Turn::Up => self.up(place, response, means, depth, After::default()),
            turn => self.turned(place, response, means, turn),
        }
    }

    fn down(&mut self, place: Place<'_>, response: &mut Response, means: &mut Means<'_>) -> Step {
        let mut pass = self.pass(place, means, After::default());
        match pass.down(response) {
            Flow::Answer => {
                let turn = pass.up(*pass.depth, response);
                self.turned(place, response, means, turn)
            }
            Flow::Forward(exchange) => {
                let lasts = self.course.patience.as_ref().map(|patience| patience.lasts);
                Step::Exchange(exchange, lasts)
            }
            Flow::Ask(question) => Step::Ask(question),
            Flow::Drop(reason) => self.dropped(place, response, means, reason),
            Flow::Next => {
                match place.block.chain.last() {
                    None => response.fail(Rcode::REFUSED, None),
                    Some(last) => response.fail(
                        Rcode::SERVFAIL,
                        Some(format!("plugin/{}: no next plugin found", last.word()).into()),
                    ),
                }
                self.up(place, response, means, self.course.depth, After::default())
            }
        }
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
        after: After<'_>,
    ) -> Step {
        let turn = self.pass(place, means, after).up(below, response);
        self.turned(place, response, means, turn)
    }

    /// The way up ended: all the way, or at a handler that turned it.
    fn turned(
        &mut self,
        place: Place<'_>,
        response: &mut Response,
        means: &mut Means<'_>,
        turn: Turn,
    ) -> Step {
        match turn {
            Turn::Up => Step::Done,
            Turn::Down => {
                response.clear();
                self.course.depth += 1;
                self.down(place, response, means)
            }
            Turn::Ask(question) => Step::Ask(question),
        }
    }

    fn pass<'p>(
        &'p mut self,
        place: Place<'p>,
        means: &'p mut Means<'_>,
        after: After<'p>,
    ) -> Pass<'p, 'a> {
        let course = &mut *self.course;
        Pass {
            query: self.query,
            place,
            depth: &mut course.depth,
            floor: course.floor,
            notes: &mut course.notes,
            patience: &mut course.patience,
            refreshes: means.refreshes,
            context: Context {
                now: means.now,
                received: course.received,
                client: &course.client,
                server: &place.server.identity,
                random: means.random,
                note: None,
                labels: &mut course.labels,
                clientless: course.clientless,
                refresh: false,
                patience: None,
                falls_back: false,
                deadline: &mut course.deadline,
                late: after.late,
                exchanged: after.exchanged,
                journal: means.journal,
            },
        }
    }
}

/// Handlers called in turn, to each of which the same context is lent.
struct Pass<'p, 'a> {
    query: &'p mut Query<'a>,
    place: Place<'p>,
    /// Which handler is called.
    depth: &'p mut usize,
    floor: usize,
    notes: &'p mut Vec<Note>,
    patience: &'p mut Option<Box<Patience>>,
    refreshes: &'p mut Vec<Refresh>,
    context: Context<'p>,
}

impl<'a> Pass<'_, 'a> {
    /// On down until a handler decides; [`Flow::Next`] when none did.
    fn down(&mut self, response: &mut Response) -> Flow {
        let chain = &self.place.block.chain;
        while let Some(handler) = chain.get(*self.depth) {
            match self.call(|query, context| handler.query(query, response, context)) {
                Flow::Next => *self.depth += 1,
                flow => return flow,
            }
        }
        Flow::Next
    }

    /// Up through the handlers before `below`, until one turns.
    fn up(&mut self, below: usize, response: &mut Response) -> Turn {
        let chain = &self.place.block.chain;
        for depth in (self.floor..below).rev() {
            *self.depth = depth;
            let turn = self.call(|query, context| chain[depth].response(query, response, context));
            // Only the handler whose patience it was is told.
            self.context.late = false;
            match turn {
                Turn::Up => {}
                turn => return turn,
            }
        }
        Turn::Up
    }

    /// Calls the handler at this depth with its own note, and notes what it wishes for.
    fn call<T>(&mut self, call: impl FnOnce(&mut Query<'a>, &mut Context<'_>) -> T) -> T {
        if let Some(note) = self.notes.get_mut(*self.depth) {
            self.context.note = note.take();
        }
        let result = call(self.query, &mut self.context);
        let context = &self.context;
        if context.note.is_some() || context.refresh || context.patience.is_some() {
            self.settle();
        }
        result
    }

    /// What a handler left in the context.
    fn settle(&mut self) {
        let depth = *self.depth;
        if let Some(note) = self.context.note.take() {
            let missing = (depth + 1).saturating_sub(self.notes.len());
            if missing > 0 {
                self.notes.reserve_exact(missing);
                self.notes.resize_with(depth + 1, || None);
            }
            self.notes[depth] = Some(note);
        }
        if std::mem::take(&mut self.context.refresh) {
            self.refreshes.push(Refresh {
                query: self.query.clone().into_owned(),
                block: self.place.block.clone(),
                depth,
                server: self.place.server.identity.index,
                client: *self.context.client,
            });
        }
        if let Some(lasts) = self.context.patience.take() {
            *self.patience = Some(Box::new(Patience { lasts, depth, query: self.query.keep() }));
        }
    }
}
