//! One query through a chain, by the order of passes that `engine::life` has.

use super::{Bench, Outcome};
use crate::dns::{Query, Rcode, Response, Transport, Written};
use crate::plugin::forward::{ExchangeFailure, Exchanged, Tried};
use crate::plugin::{Context, Flow, Handler, Labels, Note, Turn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// One query under way.
pub(super) struct Run<'r> {
    pub(super) bench: &'r mut Bench,
    pub(super) chain: &'r [Arc<dyn Handler>],
    pub(super) floor: usize,
    pub(super) clientless: bool,
    pub(super) notes: Vec<Note>,
    pub(super) labels: Labels,
    pub(super) patience: Option<usize>,
    pub(super) late: bool,
    /// A handler above has an answer to fall back on.
    pub(super) falls_back: bool,
    pub(super) below: &'r mut dyn FnMut(&Query<'_>, &mut Response),
    pub(super) outcome: Outcome,
}

impl Run<'_> {
    pub(super) fn down(&mut self, from: usize) {
        for depth in from..self.chain.len() {
            let handler = self.chain[depth].clone();
            let flow = self.call(depth, None, false, |query, response, context| {
                handler.query(query, response, context)
            });
            match flow {
                Flow::Next => {}
                Flow::Answer => return self.up(depth, None, false),
                Flow::Forward(exchange) => {
                    self.outcome.exchanges.push(exchange);
                    if let Some(patient) = self.impatient() {
                        self.outcome.response.fail(Rcode::SERVFAIL, None);
                        return self.up(patient + 1, None, true);
                    }
                    let exchanged = self.exchange();
                    return self.up(depth + 1, Some(&exchanged), false);
                }
                Flow::Ask(question) => return self.further(depth, *question),
                Flow::Drop(reason) => {
                    self.outcome.dropped = Some(reason);
                    self.outcome.response.fail(Rcode::NOERROR, None);
                    return self.up(depth, None, false);
                }
            }
        }
        if let Some(patient) = self.impatient() {
            self.outcome.response.fail(Rcode::SERVFAIL, None);
            return self.up(patient + 1, None, true);
        }
        (self.below)(&self.outcome.query, &mut self.outcome.response);
        self.up(self.chain.len(), None, false);
    }

    fn impatient(&mut self) -> Option<usize> {
        self.patience.take().filter(|_| self.late)
    }

    /// Has `below` answer in an upstream's place.
    fn exchange(&mut self) -> Exchanged {
        (self.below)(&self.outcome.query, &mut self.outcome.response);
        let response = &mut self.outcome.response;
        let outcome = match response.written {
            Written::Message => Ok(Arc::from(response.wire.as_slice())),
            Written::Nothing => Err(ExchangeFailure {
                rcode: response.rcode,
                text: response.error.clone().unwrap_or_default(),
            }),
        };
        let upstream = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)), 53);
        let took = self.bench.exchange_takes;
        let keeps_tries = self.outcome.exchanges.last().is_some_and(|last| last.keeps_tries);
        let tried = keeps_tries.then(|| Tried {
            upstream,
            transport: Transport::Udp,
            began: Duration::ZERO,
            response: outcome.clone().ok().map(|response| (took, response)),
        });
        Exchanged { outcome, upstream: Some(upstream), took, tried: tried.into_iter().collect() }
    }

    fn further(&mut self, depth: usize, question: Query<'static>) {
        let mut result = Response::new();
        (self.below)(&question, &mut result);
        self.outcome.further.push(question);
        let handler = self.chain[depth].clone();
        let turn = self.call(depth, None, false, |query, response, context| {
            handler.answered(query, response, &result, context)
        });
        self.turned(depth, turn, None);
    }

    fn turned(&mut self, depth: usize, turn: Turn, exchanged: Option<&Exchanged>) {
        match turn {
            Turn::Up => self.up(depth, exchanged, false),
            Turn::Down => {
                self.outcome.response.clear();
                self.down(depth + 1);
            }
            Turn::Ask(question) => self.further(depth, *question),
        }
    }

    fn up(&mut self, below: usize, exchanged: Option<&Exchanged>, late: bool) {
        let mut late = late;
        for depth in (self.floor..below).rev() {
            let handler = self.chain[depth].clone();
            let turn = self.call(depth, exchanged, late, |query, response, context| {
                handler.response(query, response, context)
            });
            late = false;
            if !matches!(turn, Turn::Up) {
                return self.turned(depth, turn, exchanged);
            }
        }
    }

    fn call<T>(
        &mut self,
        depth: usize,
        exchanged: Option<&Exchanged>,
        late: bool,
        call: impl FnOnce(&mut Query<'_>, &mut Response, &mut Context<'_>) -> T,
    ) -> T {
        let bench = &mut *self.bench;
        let mut context = Context {
            now: bench.now,
            received: bench.now,
            client: &bench.client,
            server: &bench.server,
            random: &mut bench.random,
            note: self.notes[depth].take(),
            labels: &mut self.labels,
            clientless: self.clientless,
            refresh: false,
            patience: None,
            falls_back: self.falls_back,
            deadline: &mut self.outcome.deadline,
            late,
            exchanged,
            journal: &bench.journal,
        };
        let result = call(&mut self.outcome.query, &mut self.outcome.response, &mut context);
        let Context { note, refresh, patience, falls_back, .. } = context;
        self.falls_back = falls_back;
        self.notes[depth] = note;
        if refresh {
            self.outcome.refreshes.push((depth, self.outcome.query.clone().into_owned()));
        }
        if patience.is_some() {
            self.patience = Some(depth);
        }
        result
    }
}
