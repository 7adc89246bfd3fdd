//! Which upstream is tried next, and when a question is given up (docs/plugins/forward.md).
//!
//! Owns the loop over the upstreams as a state machine: time, health and chance come in, moves go
//! out. Where CoreDNS spins (a refused port, `failover` when all fail) it ends: two bad tries for each
//! upstream, a second of refusals and one pass of `failover` (docs/differences.md), all within [`BUDGET`].

use super::options::Options;
use super::policy::{MOST_UPSTREAMS, Order};
use super::{ExchangeFailure, Meaning};
use crate::dns::Rcode;
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;

/// All tries for one question end within this time: 4 s, less what the answer needs to get out.
pub const BUDGET: Duration = Duration::from_millis(3_900);

/// The least time between the first two passes over the upstreams: a port that refuses does so again at
/// once. Each further time is twice the one before.
const BETWEEN_PASSES: Duration = Duration::from_millis(100);

/// The longest of these times.
const MOST_BETWEEN: Duration = Duration::from_millis(300);

/// A question that nothing but refusals met is given up within this time: whoever asks has SERVFAIL after
/// a second at most, as with CoreDNS.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// The most tries of one upstream for one question, unless `max_connect_attempts` says: of those that
/// [`Fault::Bad`] ends.
const TRIES_EACH: u8 = 2;

/// A try that took so long failed for want of an answer, or of a way to the upstream: that may have come
/// back meanwhile, and as long as there is time it is tried again.
const LONG: Duration = Duration::from_secs(1);

/// The least time that a try has for itself before the next upstream is asked beside it.
const LEAST_PATIENCE: Duration = Duration::from_millis(200);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Ask this upstream. When `patience` is over without a result, go on while it is waited for.
    Ask {
        /// Its place among the directive's upstreams.
        upstream: usize,
        /// How long it is the only one to wait for.
        patience: Duration,
    },
    /// Come back after this time.
    Pause(Duration),
    /// No further upstream is asked; what is waited for may still bring the response.
    End,
}

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody was there: the port refused, the connection was closed without a response, or there was no
    /// way to it. Somebody may be there again in a moment (a restart, a Service without endpoints), so for
    /// a second it is tried again.
    Away,
    /// Anything else: what was wrong may be wrong with every try.
    Bad,
}

/// The tries for one question.
#[derive(Debug)]
pub struct Tries<'o> {
    options: &'o Options,
    order: Order,
    budget: Duration,
    /// No pass begins later: [`REFUSED_FOR`] until a try took long, from then on the budget.
    last_pass: Duration,
    /// The next step of the order in this pass.
    step: u8,
    /// Upstreams found down in this pass.
    down: u8,
    /// Whether this pass asked anyone, or waits for the health checks.
    asked: bool,
    /// The last failure was that nobody was there, told at once.
    is_refused: bool,
    pass_began: Duration,
    /// Passes that are over.
    passes: u8,
    each: [u8; MOST_UPSTREAMS],
    attempts: u32,
    ended: bool,
    hasty: bool,
    broken: bool,
    error: Option<Box<str>>,
    kept: Option<Arc<[u8]>>,
}

impl<'o> Tries<'o> {
    /// Nobody asked yet. Times count from here; at `budget` all is over.
    pub fn new(options: &'o Options, order: Order, budget: Duration) -> Tries<'o> {
        Tries {
            options,
            order,
            budget,
            last_pass: budget.min(REFUSED_FOR),
            step: 0,
            down: 0,
            asked: false,
            is_refused: false,
            pass_began: Duration::ZERO,
            passes: 0,
            each: [0; MOST_UPSTREAMS],
            attempts: 0,
            ended: false,
            hasty: false,
            broken: false,
            error: None,
            kept: None,
        }
    }

    /// Counts every failure from now on: nobody is waited for to come back, and who took long is not asked
    /// again.
    pub fn hurry(&mut self) {
        self.hasty = true;
    }

    /// The next move at `now`. `is_down` tells an upstream's health.
    pub fn next(
        &mut self,
        now: Duration,
        mut is_down: impl FnMut(usize) -> bool,
        random: &mut StdRng,
    ) -> Move {
        let most = self.options.max_connect_attempts;
        if self.ended || now >= self.budget || (most > 0 && self.attempts >= most) {
            return Move::End;
        }
        let count = self.order.count();
        loop {
            let Some(upstream) = self.order.get(self.step.into()) else {
                if self.kept.is_some() || !self.asked || self.all_spent() {
                    self.ended = true;
                    return Move::End;
                }
                let next_pass = self.pass_began + between(self.passes);
                if next_pass >= self.last_pass {
                    self.ended = true;
                    return Move::End;
                }
                if now < next_pass {
                    return Move::Pause(next_pass - now);
                }
                self.passes = self.passes.saturating_add(1);
                (self.step, self.down, self.asked, self.pass_began) = (0, 0, false, now);
                continue;
            };
            self.step += 1;
            let mut chosen = upstream;
            if is_down(upstream) {
                self.down += 1;
                if usize::from(self.down) < count {
                    continue;
                }
                self.broken = true;
                if self.options.failfast {
                    self.ended = true;
                    return Move::End;
                }
                // The checks tell when somebody is there again: thousands that wait need not ask, too.
                if self.is_refused {
                    self.asked = true;
                    continue;
                }
                chosen = random.random_range(0..count);
            } else if most == 0 && self.each[upstream] >= TRIES_EACH {
                continue;
            }
            self.asked = true;
            self.attempts += 1;
            self.each[chosen] = self.each[chosen].saturating_add(1);
            let left = (self.step.into()..count)
                .filter_map(|step| self.order.get(step))
                .filter(|&upstream| !is_down(upstream))
                .count();
            let share = (self.budget - now) / (left as u32 + 1);
            let patience = share.max(LEAST_PATIENCE).min(self.options.read_timeout);
            return Move::Ask { upstream: chosen, patience };
        }
    }

    /// Whether another pass could ask nobody, whoever is up by then.
    fn all_spent(&self) -> bool {
        self.options.max_connect_attempts == 0
            && self.each[..self.order.count()].iter().all(|&tries| tries >= TRIES_EACH)
    }

    /// The try of an upstream failed, in Go's words, after it `took` so long. One that took its time, or
    /// found nobody, is not counted: the pauses keep these from going round and round.
    pub fn failed(&mut self, upstream: usize, error: Box<str>, fault: Fault, took: Duration) {
        self.error = Some(error);
        let was_long = took >= LONG;
        if was_long {
            self.last_pass = self.budget;
        }
        self.is_refused = !self.hasty && fault == Fault::Away && !was_long;
        match self.hasty {
            false if was_long || fault == Fault::Away => {
                self.each[upstream] = self.each[upstream].saturating_sub(1);
                return;
            }
            true if was_long => self.each[upstream] = TRIES_EACH,
            _ => {}
        }
        // One try by chance when all are down: its failure is the end.
        self.ended |= usize::from(self.down) >= self.order.count();
    }

    /// A try brought a response. Gives it back when it is the answer; keeps it when `failover`
    /// wants another upstream's.
    pub fn answered(&mut self, response: Arc<[u8]>, meaning: Meaning) -> Option<Arc<[u8]>> {
        let fails_over = meaning.is_response && self.options.failover.contains(&meaning.rcode);
        if fails_over && !self.broken {
            self.kept = Some(response);
            return None;
        }
        Some(response)
    }

    /// Whether all upstreams were found down.
    pub fn found_all_down(&self) -> bool {
        self.broken
    }

    /// Keeps a response for the case that no try brings one.
    pub fn keep(&mut self, response: Arc<[u8]>) {
        self.kept.get_or_insert(response);
    }

    /// The outcome when no try brought the answer: the last response that `failover` passed over,
    /// or SERVFAIL with the last error.
    pub fn outcome(self) -> Result<Arc<[u8]>, ExchangeFailure> {
        match self.kept {
            Some(response) => Ok(response),
            None => Err(ExchangeFailure {
                rcode: Rcode::SERVFAIL,
                text: self.error.unwrap_or_else(|| "no healthy proxies".into()),
            }),
        }
    }
}

/// The time between the beginnings of two passes, when so many were before the first of them.
fn between(passes: u8) -> Duration {
    BETWEEN_PASSES.saturating_mul(1 << passes.min(8)).min(MOST_BETWEEN)
}

#[cfg(test)]
mod tests;
