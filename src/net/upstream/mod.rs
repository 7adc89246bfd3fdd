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
mod progress;
mod stream;
mod ticket;
mod trail;
mod trust;

use self::attempt::Errand;
use self::dial::SystemRoots;
use self::limits::REMEMBERED;
use self::peer::{Peer, PeerKey};
use self::progress::Progress;
use crate::dns::sizes;
use crate::metrics::{Counter, Registry, names};
use crate::plugin::forward::{Exchange, Exchanged, Upstreams};
use rand::rngs::StdRng;
use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
            let _under_way = UnderWay::begin(&errand.dispatcher.under_way);
            // No more than this is kept while it waits: each that waits pays for it.
            let mut progress = Progress::new(&errand);
            let response = loop {
                let until = match progress.advance() {
                    ControlFlow::Continue(until) => until,
                    ControlFlow::Break(()) => break None,
                };
                let ended = match until {
                    None => Some(poll_fn(|task| progress.poll(task)).await),
                    // Boxed, as is all that few queries do: each that waits pays for its size.
                    Some(until) => {
                        let ended = poll_fn(|task| progress.poll(task));
                        let ended = tokio::time::timeout_at(until, ended);
                        Box::pin(ended).await.ok()
                    }
                };
                match ended {
                    None => progress.lose_patience(),
                    Some((ended, result)) => {
                        if let Some(response) = progress.take(&ended, result) {
                            break Some(response);
                        }
                    }
                }
            };
            progress.into_exchanged(response)
        }
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
