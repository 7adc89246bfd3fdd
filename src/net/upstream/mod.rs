//! Upstream connections, health, retries: runs the exchanges that `forward` asks for.
//!
//! Owns every socket towards upstreams and the time that tries take. Who is tried, in which order
//! and what a response means is decided by `plugin::forward`; here it is carried out.

mod carry;
mod connection;
mod dial;
mod doh_get;
mod health;
mod limits;
mod messenger;
mod pace;
mod peer;
mod pool;
mod trail;
mod trust;

use self::connection::Reply;
use self::dial::SystemRoots;
use self::limits::REMEMBERED;
use self::peer::{Failed, Peer, PeerKey, Try};
use self::trail::Trail;
use crate::dns::Transport;
use crate::metrics::{Counter, Registry, names};
use crate::plugin::forward::{Exchange, Exchanged, Move, Options, Tries, Upstreams};
use rand::rngs::StdRng;
use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// What all workers share: upstream health, stream connections, node-wide bounds. Made once, kept
/// over reloads.
#[derive(Debug)]
pub struct Shared {
    workers: usize,
    metrics: Registry,
    roots: Arc<SystemRoots>,
    broken: Counter,
    peers: Mutex<HashMap<PeerKey, Arc<Peer>>>,
}

/// The upstreams of one directive as they were found in [`Shared`].
#[derive(Debug)]
struct Attached {
    peers: Box<[Arc<Peer>]>,
}

impl Shared {
    /// Nothing known yet. `workers` is how many [`Dispatcher`]s there will be.
    pub fn new(metrics: &Registry, workers: usize) -> Arc<Shared> {
        Arc::new(Shared {
            workers,
            metrics: metrics.clone(),
            roots: Arc::default(),
            broken: metrics.counter(&names::HEALTHCHECK_BROKEN, &[]),
            peers: Mutex::default(),
        })
    }

    /// Finds or makes the state of a directive's upstreams.
    fn attach(&self, upstreams: &Upstreams) -> Arc<dyn Any + Send + Sync> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let attached = upstreams.all.iter().map(|upstream| {
            let key = PeerKey::new(upstream, &upstreams.options);
            if peers.len() >= REMEMBERED {
                peers.retain(|_, peer| Arc::strong_count(peer) > 1);
            }
            peers
                .entry(key)
                .or_insert_with_key(|key| {
                    let roots = self.roots.clone();
                    Arc::new(Peer::new(key, self.workers, roots, &self.metrics))
                })
                .clone()
        });
        Arc::new(Attached { peers: attached.collect() })
    }

    /// Whether one of them has answered, a query or a probe, and is not down since. Starts to greet
    /// those that never answered, on the current runtime.
    pub fn answers(&self, upstreams: &Upstreams) -> bool {
        let in_use = upstreams.attached.get_or_init(|| self.attach(upstreams));
        let peers = in_use.downcast_ref::<Attached>().map_or(&[][..], |attached| &attached.peers);
        // All are asked before one is waited for.
        let max_fails = upstreams.options.max_fails;
        peers.iter().fold(false, |any, peer| any | peer.answers(max_fails))
    }
}

/// One worker's way to the upstreams. Its connections are read on the worker's runtime.
#[derive(Debug)]
pub struct Dispatcher {
    shared: Arc<Shared>,
    worker: usize,
    random: Mutex<StdRng>,
}

type Running<'t> = Pin<Box<dyn Future<Output = (usize, Result<Reply, Failed>)> + Send + 't>>;

impl Dispatcher {
    /// For the worker with this number, from 0 and below the `workers` of [`Shared::new`].
    pub fn new(shared: Arc<Shared>, worker: usize) -> Dispatcher {
        Dispatcher { shared, worker, random: Mutex::new(rand::make_rng()) }
    }

    /// Asks the upstreams of `exchange` in policy order until one gives a usable response or the
    /// budget ends (at most 4 s in all). `wire` is the query, all but its id as it goes out, with
    /// `question` in it. Call it inside the worker's runtime; dropping the future gives up the
    /// question.
    pub async fn exchange(&self, wire: &[u8], question: &[u8], exchange: &Exchange) -> Exchanged {
        let began = Instant::now();
        let upstreams = &exchange.upstreams;
        let in_use = upstreams.attached.get_or_init(|| self.shared.attach(upstreams));
        let own;
        let attached = match in_use.downcast_ref::<Attached>() {
            Some(attached) => attached,
            None => {
                debug_assert!(false, "only this module attaches");
                own = Attached { peers: Box::default() };
                &own
            }
        };
        let options = &upstreams.options;
        let budget = exchange.budget;
        let mut tries = Tries::new(options, exchange.order, budget);
        let mut running: Vec<Running<'_>> = Vec::new();
        let mut trail = Trail::new(exchange.keeps_tries);
        let mut last = None;
        // The upstream that is waited for alone, and until when.
        let mut waited: Option<(usize, Option<Instant>)> = None;
        let response = loop {
            let until = if let Some((_, until)) = waited {
                until
            } else {
                let reading = Instant::now();
                let now = reading - began;
                match self.next(&mut tries, now, attached, options, in_use) {
                    Move::Ask { upstream, patience } => {
                        let Some(peer) = attached.peers.get(upstream) else { break None };
                        last = Some(peer);
                        trail.asks(upstream, peer, exchange.transport, now);
                        let limit = options.read_timeout.min(budget.saturating_sub(now));
                        let (transport, udp_limit) = (exchange.transport, exchange.udp_limit);
                        let this = Try {
                            worker: self.worker,
                            wire,
                            question,
                            transport,
                            udp_limit,
                            deadline: reading + limit,
                            random: &self.random,
                        };
                        running.push(trying(upstream, peer, this, options.prefer_udp));
                        // A try that is waited for to its end ends by itself.
                        let until = (patience < limit).then(|| reading + patience);
                        waited = Some((upstream, until));
                        until
                    }
                    Move::Pause(pause) => Some(reading + pause),
                    Move::End if running.is_empty() => break None,
                    Move::End => None,
                }
            };
            let ended = match until {
                None => Some(first(&mut running).await),
                // Boxed, as is all that few queries do: each that waits pays for its size.
                Some(until) => {
                    let ended = tokio::time::timeout_at(until, first(&mut running));
                    Box::pin(ended).await.ok()
                }
            };
            let Some((upstream, result)) = ended else {
                // Its try may be given up for another's response, and never fail: ask its health.
                let impatient = waited.take().and_then(|(place, _)| attached.peers.get(place));
                if let Some(peer) = impatient
                    && options.max_fails != 0
                {
                    peer.check(in_use);
                }
                continue;
            };
            waited = waited.filter(|(place, _)| *place != upstream);
            let Some(peer) = attached.peers.get(upstream) else { break None };
            match result {
                Ok((bytes, meaning)) => {
                    last = Some(peer);
                    trail.answered(upstream, began.elapsed(), &bytes);
                    if let Some(response) = tries.answered(bytes, meaning) {
                        break Some(response);
                    }
                }
                Err(failed) => {
                    if !failed.is_ours && options.max_fails != 0 {
                        peer.check(in_use);
                    }
                    if let Some((bytes, _)) = failed.instead {
                        tries.keep(bytes);
                    }
                    tries.failed(failed.text);
                }
            }
        };
        drop(running);
        if tries.found_all_down() {
            self.shared.broken.increment();
        }
        Exchanged {
            outcome: match response {
                Some(response) => Ok(response),
                None => tries.outcome(),
            },
            upstream: last.and_then(|peer| peer.address()),
            took: began.elapsed(),
            tried: trail.into_tried(),
        }
    }

    /// The next move of `tries`.
    fn next(
        &self,
        tries: &mut Tries<'_>,
        now: Duration,
        attached: &Attached,
        options: &Options,
        in_use: &Arc<dyn Any + Send + Sync>,
    ) -> Move {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let is_down = |place: usize| {
            attached.peers.get(place).is_none_or(|peer| peer.is_down(options.max_fails, in_use))
        };
        tries.next(now, is_down, &mut random)
    }
}

/// One try of the upstream at `place`, with `prefer_udp`'s second go over TCP when the response is
/// truncated. One future without others in it that hold the same again: thousands may wait.
fn trying<'t>(place: usize, peer: &'t Peer, mut this: Try<'t>, prefer_udp: bool) -> Running<'t> {
    Box::pin(async move {
        let began = Instant::now();
        let result = peer.ask(&this).await;
        let Ok((_, meaning)) = &result else { return (place, result) };
        peer.observe(meaning.rcode, began.elapsed());
        if !prefer_udp || this.transport != Transport::Udp || !meaning.truncated {
            return (place, result);
        }
        this.transport = Transport::Tcp;
        // What came over UDP is better than nothing.
        (place, Box::pin(observed(peer, &this)).await.or(result))
    })
}

async fn observed(peer: &Peer, this: &Try<'_>) -> Result<Reply, Failed> {
    let began = Instant::now();
    let result = peer.ask(this).await;
    if let Ok((_, meaning)) = &result {
        peer.observe(meaning.rcode, began.elapsed());
    }
    result
}

/// The first of the running tries to end, taken out; pending while there is none.
async fn first<T>(running: &mut Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
    poll_fn(|context| {
        for place in 0..running.len() {
            if let Poll::Ready(result) = running[place].as_mut().poll(context) {
                drop(running.swap_remove(place));
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;
