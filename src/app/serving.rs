//! The running server: workers, snapshot, services, upkeep; its reloads, its rest and its end.
//!
//! Owns the order in which a snapshot takes effect: sockets first, then publication, then what
//! belongs to the old one is closed. Any error before publication leaves everything as it was.

use super::announce;
use super::handover::{Heir, Offer, Predecessor};
use super::load::{Loaded, Loader};
use super::log::Log;
use super::readiness::Readiness;
use super::services::{Prepared, Services};
use super::snapshot_file::{KeptCache, Reports};
use super::store::Listening;
use super::upkeep::Upkeep;
use super::version;
use crate::engine::Snapshot;
use crate::metrics::{Registry, names};
use crate::net::dnstap::Senders;
use crate::net::{Clock, HandedSockets, Heartbeat, Keeper, Workers};
use crate::plugin::cache::stores;
use crate::plugin::dnstap::Tap;
use crate::plugin::{Journal, Level, Part, Service};
use crate::sys::beside::beside;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long queries in flight may take to end at shutdown.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The running server.
pub(super) struct Serving {
    loader: Loader,
    log: Log,
    metrics: Registry,
    clock: Clock,
    readiness: Readiness,
    workers: Arc<Workers>,
    snapshot: Arc<Snapshot>,
    hash: String,
    services: Services,
    upkeep: Upkeep,
    senders: Senders,
    kept_cache: Option<KeptCache>,
    kept_path: Option<PathBuf>,
    /// The process that served before, while it is there.
    predecessor: Option<Predecessor>,
}

/// What a server is made of, beside its workers.
pub(super) struct Made {
    /// Where the Corefile comes from.
    pub(super) loader: Loader,
    /// The process's clock.
    pub(super) clock: Clock,
    /// Who is told that the listeners answer.
    pub(super) readiness: Readiness,
    /// What is served.
    pub(super) loaded: Loaded,
    /// The services, running.
    pub(super) services: Services,
    /// The work that belongs to no query.
    pub(super) upkeep: Upkeep,
    /// The kept cache.
    pub(super) kept_cache: Option<KeptCache>,
    /// Its file.
    pub(super) kept_path: Option<PathBuf>,
}

/// What a server that reads no more needs to read again.
pub(super) struct Resting(io::Result<Vec<HandedSockets>>);

impl Serving {
    /// Of what [`super::starting`] has made ready, and the workers that serve it already.
    pub(super) fn of(made: Made, workers: Arc<Workers>) -> Serving {
        let Made { loader, clock, readiness, loaded, services, upkeep, kept_cache, kept_path } =
            made;
        let (log, metrics) = (loader.log.clone(), loader.metrics.clone());
        let Loaded { snapshot, hash } = loaded;
        let mut senders = Senders::new(Arc::new(log.clone()));
        senders.replace(taps(&snapshot));
        let serving = Serving {
            loader,
            log,
            metrics,
            clock,
            readiness,
            workers,
            snapshot,
            hash,
            services,
            upkeep,
            senders,
            kept_cache,
            kept_path,
            predecessor: None,
        };
        announce::show(&serving.snapshot, &serving.log, &serving.metrics);
        serving
    }

    /// Who served before, from now on.
    pub(super) fn took_over(&mut self, predecessor: Option<Predecessor>) {
        self.predecessor = predecessor;
    }

    /// The interval and jitter of `reload`; the last block's values win.
    pub(super) fn reload_every(&self) -> Option<(Duration, Duration)> {
        self.snapshot.services.iter().rev().find_map(|service| match service {
            Service::Reload { interval, jitter } => Some((*interval, *jitter)),
            _ => None,
        })
    }

    /// The pulse of the workers.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        self.workers.heartbeat()
    }

    /// The zones that are served, one line each.
    pub(super) fn announce_zones(&self) {
        for line in announce::zone_lines(&self.snapshot) {
            self.log.plain(&line);
        }
    }

    /// The versions.
    pub(super) fn announce_version(&self) {
        self.log.plain(&version::banner());
    }

    /// False when no block has a listener (`unix://` alone).
    pub(super) fn has_listeners(&self) -> bool {
        !self.snapshot.servers.is_empty()
    }

    /// The hash of the Corefile, where `reload` watches it.
    pub(super) fn announce_hash(&self) {
        if self.reload_every().is_some() {
            self.say_hash();
        }
    }

    fn say_hash(&self) {
        self.log.line(
            Level::Info,
            format_args!("plugin/reload: Running configuration SHA512 = {}", self.hash),
        );
    }

    /// `reload`'s tick: looks at the Corefile, and takes it when its tokens changed. A Corefile
    /// that failed is not tried again before it changes.
    pub(super) async fn look_for_change(&mut self) {
        let loader = self.loader.clone();
        let hash = match beside(move || loader.hash_now()).await {
            Ok(Some(Ok(hash))) => hash,
            Ok(Some(Err(why))) => {
                self.log.line(
                    Level::Warning,
                    format_args!("plugin/reload: Corefile parse failed: {why}"),
                );
                return;
            }
            Ok(None) | Err(_) => return,
        };
        if hash == self.hash {
            return;
        }
        self.hash = hash;
        let result = self.restart().await;
        self.metrics.reset(&names::RELOAD_VERSION);
        self.metrics.gauge(&names::RELOAD_VERSION, &["sha512", &self.hash]).set(1.0);
        if let Err(why) = result {
            self.metrics.counter(&names::RELOAD_FAILED, &[]).increment();
            self.log.line(
                Level::Error,
                format_args!(
                    "plugin/reload: Corefile changed but reload failed: starting with listener \
                     file descriptors: {why}"
                ),
            );
        }
    }

    /// SIGUSR1: takes the Corefile as it is now.
    pub(super) async fn reload_now(&mut self) {
        self.log.line(Level::Info, format_args!("SIGUSR1: Reloading"));
        let loader = self.loader.clone();
        if let Ok(Err(why)) = beside(move || loader.look()).await {
            self.log.line(Level::Error, format_args!("SIGUSR1: loading updated Caddyfile: {why}"));
            return;
        }
        if let Err(why) = self.restart().await {
            self.log.line(
                Level::Error,
                format_args!("SIGUSR1: starting with listener file descriptors: {why}"),
            );
        }
    }

    /// Loads the Corefile anew and serves by it; after an error all is as before.
    async fn restart(&mut self) -> Result<(), String> {
        self.log.line(Level::Info, format_args!("Reloading"));
        let was_watched = self.reload_every().is_some();
        let result = self.replace().await;
        match &result {
            Ok(()) => {
                // Also of the Corefile that ends the watch.
                if was_watched || self.reload_every().is_some() {
                    self.say_hash();
                }
                self.log.line(Level::Info, format_args!("Reloading complete"));
            }
            Err(why) => self.log.line(Level::Error, format_args!("Restart failed: {why}")),
        }
        result
    }

    async fn replace(&mut self) -> Result<(), String> {
        let (loader, carried) = (self.loader.clone(), self.snapshot.carried.next());
        let era = self.metrics.begin_era();
        let loaded = blocking(move || loader.reload(carried)).await?;
        let prepared: Prepared = self.services.prepare(&loaded.snapshot.services)?;
        let (workers, next) = (self.workers.clone(), loaded.snapshot.clone());
        blocking(move || workers.publish(&next)).await?;
        let old = std::mem::replace(&mut self.snapshot, loaded.snapshot);
        self.hash = loaded.hash;
        self.services.replace(prepared, &self.snapshot.services).await;
        self.services.watch(&self.snapshot, &self.workers);
        self.upkeep.replace(&self.snapshot);
        self.senders.replace(taps(&self.snapshot));
        if let Some(kept) = &self.kept_cache {
            kept.replace(stores(&self.snapshot.carried));
        }
        self.flush(&old);
        self.metrics.serve_era(era);
        announce::show(&self.snapshot, &self.log, &self.metrics);
        Ok(())
    }

    /// Further descriptors of all listening sockets; the error when there are none left.
    pub(super) fn listening(&self) -> io::Result<Listening> {
        Ok(Listening { sockets: self.workers.second_sockets()?, sites: self.services.share()? })
    }

    /// What a successor is to have, with the sockets: from now on it may read them.
    pub(super) fn offer(&self, listening: Listening) -> Offer {
        self.workers.share();
        Offer { listening, stores: stores(&self.snapshot.carried), clock: self.clock }
    }

    /// One that had the sockets is gone, or has not read them.
    pub(super) fn own_sockets(&self) {
        self.workers.own_sockets();
    }

    /// A successor reads: stops reading, gives connections to it. What waits is still answered.
    pub(super) async fn retire(&mut self, heir: &Heir) -> Resting {
        self.kept_cache = None;
        let (workers, connections) = (self.workers.clone(), heir.of_connections());
        let resting = beside(move || {
            let sockets = workers.second_sockets();
            workers.bequeath(&connections);
            sockets
        });
        let sockets = resting.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        heir.retired();
        self.services.rest().await;
        Resting(sockets)
    }

    /// Waits until what had come is answered, 5 s at most, then gives the successor what came into the
    /// cache meanwhile. May be cancelled.
    pub(super) async fn drain_to(&self, heir: Arc<Heir>) {
        let (workers, clock) = (self.workers.clone(), self.clock);
        let stores = stores(&self.snapshot.carried);
        // What it did not get it asks for again.
        let _ = beside(move || {
            workers.drain(DRAIN_TIME);
            heir.finish(stores, clock);
        })
        .await;
    }

    /// The successor is gone: reads again.
    pub(super) async fn resume(&mut self, resting: Resting) {
        let handed = resting.0.unwrap_or_else(|error| {
            self.log.line(
                Level::Warning,
                format_args!(
                    "Handover: the sockets cannot be read again ({error}): new ones are opened"
                ),
            );
            Vec::new()
        });
        let (workers, snapshot) = (self.workers.clone(), self.snapshot.clone());
        if let Err(why) = blocking(move || workers.publish_with(&snapshot, handed)).await {
            self.log.line(Level::Error, format_args!("Handover: cannot serve again: {why}"));
        }
        self.services.resume(&self.snapshot.services);
        self.services.watch(&self.snapshot, &self.workers);
        let reports =
            Reports { clock: self.clock, log: self.log.clone(), metrics: self.metrics.clone() };
        let stores = stores(&self.snapshot.carried);
        self.kept_cache =
            self.kept_path.clone().map(|path| KeptCache::go_on(path, stores, reports));
    }

    /// What serves, for the address of the door.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// This process ends: one that served before is to take its place again, if it can.
    pub(super) fn give_back(&self) {
        if let Some(predecessor) = &self.predecessor {
            predecessor.give_back();
        }
    }

    /// This process ends, and another one serves.
    pub(super) fn bid_farewell(&self) {
        if let Some(predecessor) = &self.predecessor {
            predecessor.bid_farewell();
        }
    }

    /// The lameduck times, in Corefile order.
    pub(super) fn lameducks(&self) -> Vec<Duration> {
        let services = self.snapshot.services.iter();
        services
            .filter_map(|service| match service {
                Service::Health { lameduck, .. } if !lameduck.is_zero() => Some(*lameduck),
                _ => None,
            })
            .collect()
    }

    /// The end has begun: /ready says so.
    pub(super) fn ends(&self) {
        self.readiness.ends();
    }

    /// The handlers' last lines.
    pub(super) fn flush_handlers(&self) {
        self.flush(&self.snapshot);
    }

    /// Writes the kept cache and sends the dnstap records that wait, for an end without
    /// [`Serving::stop`].
    pub(super) async fn save(&mut self) {
        let none = Senders::new(Arc::new(self.log.clone()));
        let senders = std::mem::replace(&mut self.senders, none);
        let kept_cache = self.kept_cache.take();
        // What could not be sent in its time is lost, and counted.
        let _ = beside(move || {
            if let Some(kept) = kept_cache {
                kept.finish();
            }
            senders.stop();
        })
        .await;
    }

    /// Stops reading, answers what was received, closes everything; what arrives from then on waits where
    /// somebody keeps the sockets. False when queries were still in flight after 5 s.
    pub(super) async fn stop(self, keeper: Keeper) -> bool {
        self.readiness.lacks(Part::Listeners);
        let (workers, senders, kept_cache) = (self.workers, self.senders, self.kept_cache);
        drop(self.services);
        beside(move || {
            match keeper {
                Keeper::Manager => workers.leave_sockets(),
                Keeper::Nobody => workers.stop_reading(),
            }
            let is_drained = workers.drain(DRAIN_TIME);
            if let Some(kept) = kept_cache {
                kept.finish();
            }
            if let Some(workers) = Arc::into_inner(workers) {
                workers.join();
            }
            senders.stop();
            is_drained
        })
        .await
        .unwrap_or(false)
    }

    fn flush(&self, snapshot: &Snapshot) {
        let now = self.clock.now();
        for handler in snapshot.blocks.iter().flat_map(|block| &block.chain) {
            handler.flush(now, &self.log);
        }
    }
}

/// Where the snapshot's `dnstap` directives leave their records.
fn taps(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Tap>> {
    snapshot.services.iter().filter_map(|service| match service {
        Service::Dnstap(tap) => Some(tap),
        _ => None,
    })
}

/// Runs what blocks off the runtime's thread; its error as text.
pub(super) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String>
where
    T: Send + 'static,
    E: ToString + Send + 'static,
{
    match beside(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("internal error while loading: please report it".to_owned()),
    }
}
