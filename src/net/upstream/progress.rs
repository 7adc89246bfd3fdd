//! How far an exchange is: which tries go on, what came of the others, and what is waited for next.
//!
//! Owns the tries. Who is asked next and which response counts is decided by [`Tries`]; the waiting is the
//! exchange's.

use super::attempt::{Errand, Try};
use super::parked::Reply;
use super::peer::{Failed, Peer};
use super::peers;
use super::trail::Trail;
use crate::dns::Transport;
use crate::plugin::forward::{Exchanged, Move, Options, Tries};
use std::any::Any;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// How far one exchange is.
pub(super) struct Progress<'t> {
    errand: &'t Errand<'t>,
    began: Instant,
    in_use: &'t Arc<dyn Any + Send + Sync>,
    tries: Tries<'t>,
    running: Running<'t>,
    trail: Trail,
    /// The upstream that was asked last, or answered since.
    last: Option<&'t Peer>,
    /// The place of the upstream that is waited for alone, and until when.
    waited: Option<(usize, Option<Instant>)>,
}

impl<'t> Progress<'t> {
    /// Of an exchange that begins now.
    pub(super) fn new(errand: &'t Errand<'t>) -> Progress<'t> {
        Progress {
            errand,
            began: Instant::now(),
            in_use: errand.in_use(),
            tries: errand.tries(),
            running: Running::default(),
            trail: match errand.exchange.keeps_tries {
                true => Trail::kept(),
                false => Trail::unkept(),
            },
            last: None,
            waited: None,
        }
    }

    /// Asks the next upstream where one is due; gives until when a try's end is waited for. Breaks when
    /// there is nothing to wait for any more.
    pub(super) fn advance(&mut self) -> ControlFlow<(), Option<Instant>> {
        if let Some((_, until)) = self.waited {
            return ControlFlow::Continue(until);
        }
        let reading = Instant::now();
        let now = reading - self.began;
        ControlFlow::Continue(match self.errand.next(&mut self.tries, now, self.in_use) {
            Move::Ask { upstream, patience } => {
                let Some(peer) = peers(self.in_use).get(upstream) else {
                    return ControlFlow::Break(());
                };
                self.last = Some(peer);
                self.trail.asks(upstream, peer, self.errand.exchange.transport, now);
                let left = self.errand.exchange.budget.saturating_sub(now);
                let limit = self.errand.options().read_timeout.min(left);
                self.running.push(Try::new(self.errand, peer, upstream, reading + limit));
                // A try that is waited for to its end ends by itself.
                let until = (patience < limit).then(|| reading + patience);
                self.waited = Some((upstream, until));
                until
            }
            Move::Pause(pause) => Some(reading + pause),
            Move::End if self.running.is_empty() => return ControlFlow::Break(()),
            Move::End => None,
        })
    }

    /// The first try to end, with its result. Pending while there is none.
    pub(super) fn poll(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<(Ended<'t>, Result<Reply, Failed>)> {
        self.running.poll(task)
    }

    /// No try has ended in time: no upstream is waited for alone any more.
    pub(super) fn lose_patience(&mut self) {
        // Its try may be given up for another's response, and never fail: ask its health.
        let impatient = self.waited.take();
        if let Some(peer) = impatient.and_then(|(place, _)| peers(self.in_use).get(place)) {
            self.check(peer);
        }
    }

    /// Takes note of a try's end; gives the response of the exchange when that was it.
    pub(super) fn take(
        &mut self,
        ended: &Ended<'t>,
        result: Result<Reply, Failed>,
    ) -> Option<Arc<[u8]>> {
        let Ended { peer, upstream, transport, took } = *ended;
        self.waited = self.waited.filter(|(place, _)| *place != upstream);
        match result {
            Ok((bytes, meaning)) => {
                self.last = Some(peer);
                let transport = peer.transport(transport);
                self.trail.answered(upstream, transport, self.began.elapsed(), &bytes);
                self.tries.answered(bytes, meaning)
            }
            Err(failed) => {
                if !failed.is_ours {
                    self.check(peer);
                }
                if let Some((bytes, _)) = failed.instead {
                    self.tries.keep(bytes);
                }
                if self.errand.dispatcher.is_crowded() {
                    self.tries.hurry();
                }
                self.tries.failed(upstream, failed.text, failed.fault, took);
                None
            }
        }
    }

    /// Starts to probe an upstream, unless the directive wants none probed.
    fn check(&self, peer: &Peer) {
        if self.errand.options().max_fails != 0 {
            peer.check(self.in_use);
        }
    }

    /// The end: gives up all tries that go on.
    pub(super) fn into_exchanged(self, response: Option<Arc<[u8]>>) -> Exchanged {
        drop(self.running);
        if self.tries.found_all_down() {
            self.errand.dispatcher.shared.broken.increment();
        }
        Exchanged {
            outcome: match response {
                Some(response) => Ok(response),
                None => self.tries.outcome(),
            },
            upstream: self.last.and_then(Peer::address),
            took: self.began.elapsed(),
            tried: self.trail.into_tried(),
        }
    }
}

impl<'t> Errand<'t> {
    /// How its upstreams are asked.
    pub(super) fn options(&self) -> &'t Options {
        &self.exchange.upstreams.options
    }

    /// What was attached to its upstreams, now if not before.
    fn in_use(&self) -> &'t Arc<dyn Any + Send + Sync> {
        let upstreams = &self.exchange.upstreams;
        upstreams.attached.get_or_init(|| self.dispatcher.shared.attach(upstreams))
    }

    /// No try yet.
    fn tries(&self) -> Tries<'t> {
        let mut tries = Tries::new(self.options(), self.exchange.order, self.exchange.budget);
        if self.exchange.is_hasty {
            tries.hurry();
        }
        tries
    }

    /// The next move of `tries`.
    fn next(
        &self,
        tries: &mut Tries<'_>,
        now: Duration,
        in_use: &Arc<dyn Any + Send + Sync>,
    ) -> Move {
        let random = &self.dispatcher.random;
        let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
        let (peers, most) = (peers(in_use), self.options().max_fails);
        let is_down = |place: usize| peers.get(place).is_none_or(|peer| peer.is_down(most, in_use));
        tries.next(now, is_down, &mut random)
    }
}

/// The tries that go on: nearly always one, which takes no place elsewhere.
#[derive(Default)]
struct Running<'t> {
    one: Option<Try<'t>>,
    more: Option<Box<Running<'t>>>,
}

/// What is remembered of a try that has ended.
pub(super) struct Ended<'t> {
    peer: &'t Peer,
    /// The upstream's place.
    upstream: usize,
    /// How it last asked.
    transport: Transport,
    /// How long it took.
    took: Duration,
}

impl<'t> Ended<'t> {
    fn of(one: &Try<'t>) -> Ended<'t> {
        Ended { peer: one.peer, upstream: one.place, transport: one.transport, took: one.took() }
    }
}

impl<'t> Running<'t> {
    fn push(&mut self, one: Try<'t>) {
        match self.one {
            None => self.one = Some(one),
            Some(_) => self.more.get_or_insert_default().push(one),
        }
    }

    fn is_empty(&self) -> bool {
        self.one.is_none() && self.more.as_ref().is_none_or(|more| more.is_empty())
    }

    /// The first to end, taken out, with its result. Pending while there is none.
    fn poll(&mut self, task: &mut Context<'_>) -> Poll<(Ended<'t>, Result<Reply, Failed>)> {
        if let Some(one) = &mut self.one
            && let Poll::Ready(result) = one.poll(task)
        {
            let ended = Ended::of(one);
            self.one = None;
            return Poll::Ready((ended, result));
        }
        self.more.as_mut().map_or(Poll::Pending, |more| more.poll(task))
    }
}
