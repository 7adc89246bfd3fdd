//! Upstream connections, health, retries: runs the exchanges that `forward` asks for.
//!
//! Owns every socket towards upstreams and the time that tries take. Who is tried, in which order
//! and what a response means is decided by `plugin::forward`; here it is carried out.

mod attempt;
mod carry;
mod connection;
mod dial;
mod doh_get;
mod ending;
mod health;
mod hearing;
mod lifetime;
mod limits;
mod messenger;
mod pace;
mod parked;
mod peer;
mod pool;
mod stream;
mod ticket;
mod trail;
mod trust;

use self::attempt::{Errand, Try};
use self::dial::SystemRoots;
use self::limits::REMEMBERED;
use self::parked::Reply;
use self::peer::{Failed, Peer, PeerKey};
use self::trail::Trail;
use crate::dns::{Transport, sizes};
use crate::metrics::{Counter, Registry, names};
use crate::plugin::forward::{Exchange, Exchanged, Move, Options, Tries, Upstreams};
use rand::rngs::StdRng;
use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// While more exchanges than this are under way on the node, its workers taken to have equal parts, nobody
/// waits for an upstream to come back: an outage must not fill the memory of a busy node.
const PATIENT_MOST: usize = 3_000;

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
    under_way: AtomicUsize,
}

/// An exchange that is under way.
struct UnderWay<'t>(&'t AtomicUsize);

impl<'t> UnderWay<'t> {
    fn begin(count: &'t AtomicUsize) -> UnderWay<'t> {
        count.fetch_add(1, Ordering::Relaxed);
        UnderWay(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A query as it goes out, but for its id; shared by all who hold it.
#[derive(Debug, Clone)]
pub struct Asked {
    wire: Arc<[u8]>,
    question_end: u32,
}

impl Asked {
    /// The query whose message is `wire`, with its question up to the octet at `question_end`.
    pub fn new(wire: Arc<[u8]>, question_end: usize) -> Asked {
        // A question is of less than 300 octets.
        Asked { wire, question_end: question_end as u32 }
    }

    /// The whole message.
    fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The question section.
    fn question(&self) -> &[u8] {
        self.wire.get(sizes::HEADER..self.question_end as usize).unwrap_or_default()
    }
}

/// The tries that go on: nearly always one, which takes no place elsewhere.
#[derive(Default)]
struct Running<'t> {
    one: Option<Try<'t>>,
    more: Option<Box<Running<'t>>>,
}

/// What is remembered of a try that has ended.
struct Ended {
    /// The upstream's place.
    upstream: usize,
    /// How it last asked.
    transport: Transport,
    /// How long it took.
    took: Duration,
}

impl Ended {
    fn of(one: &Try<'_>) -> Ended {
        Ended { upstream: one.place, transport: one.transport, took: one.took() }
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
    fn poll(&mut self, task: &mut Context<'_>) -> Poll<(Ended, Result<Reply, Failed>)> {
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

impl Dispatcher {
    /// For the worker with this number, from 0 and below the `workers` of [`Shared::new`].
    pub fn new(shared: Arc<Shared>, worker: usize) -> Dispatcher {
        let random = Mutex::new(rand::make_rng());
        Dispatcher { shared, worker, random, under_way: AtomicUsize::new(0) }
    }

    /// Whether so many exchanges are under way that none has time for an upstream to come back.
    fn is_crowded(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > PATIENT_MOST / self.shared.workers.max(1)
    }

    /// Asks the upstreams of `exchange` in policy order until one gives a usable response or the
    /// budget ends (at most 4 s in all). Call it inside the worker's runtime; dropping the future
    /// gives up the question.
    #[allow(clippy::manual_async_fn)] // Which would hold its arguments beside what is made of them.
    pub fn exchange<'t>(
        &'t self,
        query: &'t Asked,
        exchange: &'t Exchange,
    ) -> impl Future<Output = Exchanged> + 't {
        let errand = Errand { dispatcher: self, query, exchange };
        async move {
            let began = Instant::now();
            let _under_way = UnderWay::begin(&errand.dispatcher.under_way);
            // No more than this is kept while it waits: each that waits pays for it.
            let in_use = errand.in_use();
            let mut tries = errand.tries();
            let mut running = Running::default();
            let mut trail = match errand.exchange.keeps_tries {
                true => Trail::kept(),
                false => Trail::unkept(),
            };
            let mut last = None;
            // The upstream that is waited for alone, and until when.
            let mut waited: Option<(usize, Option<Instant>)> = None;
            let response = loop {
                let until = if let Some((_, until)) = waited {
                    until
                } else {
                    let reading = Instant::now();
                    let now = reading - began;
                    match errand.next(&mut tries, now, in_use) {
                        Move::Ask { upstream, patience } => {
                            let Some(peer) = peers(in_use).get(upstream) else { break None };
                            last = Some(peer);
                            trail.asks(upstream, peer, errand.exchange.transport, now);
                            let left = errand.exchange.budget.saturating_sub(now);
                            let limit = errand.options().read_timeout.min(left);
                            running.push(Try::new(&errand, peer, upstream, reading + limit));
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
                    None => Some(poll_fn(|task| running.poll(task)).await),
                    // Boxed, as is all that few queries do: each that waits pays for its size.
                    Some(until) => {
                        let ended = poll_fn(|task| running.poll(task));
                        let ended = tokio::time::timeout_at(until, ended);
                        Box::pin(ended).await.ok()
                    }
                };
                let Some((Ended { upstream, transport, took }, result)) = ended else {
                    // Its try may be given up for another's response, and never fail: ask its health.
                    let impatient = waited.take().and_then(|(place, _)| peers(in_use).get(place));
                    if let Some(peer) = impatient
                        && errand.options().max_fails != 0
                    {
                        peer.check(in_use);
                    }
                    continue;
                };
                waited = waited.filter(|(place, _)| *place != upstream);
                let Some(peer) = peers(in_use).get(upstream) else { break None };
                match result {
                    Ok((bytes, meaning)) => {
                        last = Some(peer);
                        trail.answered(
                            upstream,
                            peer.transport(transport),
                            began.elapsed(),
                            &bytes,
                        );
                        if let Some(response) = tries.answered(bytes, meaning) {
                            break Some(response);
                        }
                    }
                    Err(failed) => {
                        if !failed.is_ours && errand.options().max_fails != 0 {
                            peer.check(in_use);
                        }
                        if let Some((bytes, _)) = failed.instead {
                            tries.keep(bytes);
                        }
                        if errand.dispatcher.is_crowded() {
                            tries.hurry();
                        }
                        tries.failed(upstream, failed.text, failed.fault, took);
                    }
                }
            };
            drop(running);
            if tries.found_all_down() {
                errand.dispatcher.shared.broken.increment();
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
    }
}

impl<'t> Errand<'t> {
    /// How its upstreams are asked.
    fn options(&self) -> &'t Options {
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

/// The peers of what was attached.
fn peers(in_use: &Arc<dyn Any + Send + Sync>) -> &[Arc<Peer>] {
    let attached = in_use.downcast_ref::<Attached>();
    debug_assert!(attached.is_some(), "only this module attaches");
    attached.map_or(&[], |all| &all.peers)
}

#[cfg(test)]
mod tests;
