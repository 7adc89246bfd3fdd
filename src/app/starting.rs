//! The start of a server, step by step, so that what belongs between the steps finds its place: the
//! Corefile, the predecessor's offer, all that can be made ready, and only then the reading.
//!
//! Owns the order. An error in any step leaves a predecessor as it was.

use super::handover::{Giver, Handover, Taken, ask, join};
use super::inherited::Inherited;
use super::load::{Loaded, Loader};
use super::readiness::Readiness;
use super::services::{Prepared, ServiceWorld, Services};
use super::serving::{Made, Serving, blocking};
use super::snapshot_file::{KeptCache, Reports};
use super::store::Store;
use super::upkeep::Upkeep;
use crate::net::{Clock, Equipment, HandedSockets, OwnMeter, WaitingWorkers, Workers};
use crate::plugin::cache::stores;
use crate::plugin::{Carried, Part};
use crate::sys::beside::beside;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, channel};

/// What a server is started with.
pub(super) struct Parts {
    /// Where the Corefile comes from.
    pub(super) loader: Loader,
    /// How many worker threads: the number that the registry was made for.
    pub(super) workers: usize,
    /// The file that keeps the cache over a restart.
    pub(super) kept_cache: Option<PathBuf>,
    /// Where a predecessor is looked for.
    pub(super) handover: Handover,
    /// Who is told that the listeners answer.
    pub(super) readiness: Readiness,
    /// The sockets that the service manager gave us.
    pub(super) inherited: Inherited,
    /// Where it keeps them.
    pub(super) store: Store,
}

/// The Corefile is loaded, and whoever serves has offered what it has.
pub(super) struct Starting {
    parts: Parts,
    clock: Clock,
    loaded: Loaded,
    taken: Option<Taken>,
    /// The listening sockets that came from elsewhere.
    sockets: Vec<HandedSockets>,
}

/// All is made ready; nothing is read.
pub(super) struct Poised {
    made: Made,
    prepared: Prepared,
    waiting: WaitingWorkers,
    verdict: Receiver<String>,
    taken: Option<Taken>,
    handover: Handover,
}

/// A server that serves.
pub(super) struct Started {
    /// It.
    pub(super) serving: Serving,
    /// Gives the verdict of a `loop`.
    pub(super) verdict: Receiver<String>,
    /// Where its successor is waited for.
    pub(super) giver: Giver,
}

impl Starting {
    /// Loads the Corefile, looks at what was inherited, and asks. The error is CoreDNS's text.
    pub(super) async fn load(mut parts: Parts) -> Result<Starting, String> {
        let loaded = parts.loader.load(Carried::within(parts.loader.budget.clone()))?;
        let mut sockets = parts.inherited.take_wanted(&loaded.snapshot);
        let (handover, snapshot) = (parts.handover.clone(), loaded.snapshot.clone());
        let mut taken = beside(move || ask(&handover, &snapshot)).await.unwrap_or_default();
        if let Some(taken) = &mut taken {
            join(&mut sockets, std::mem::take(&mut taken.sockets));
        }
        Ok(Starting { parts, clock: Clock::start(), loaded, taken, sockets })
    }

    /// A socket that came from elsewhere for an HTTP address.
    pub(super) fn site(&mut self, address: &str) -> Option<TcpListener> {
        let inherited = self.parts.inherited.take_site(address);
        let taken = self.taken.as_mut().and_then(|taken| taken.sites.remove(address));
        taken.or(inherited)
    }

    /// Makes all ready: HTTP sockets, the cache, the threads. The metrics of the set-up are served at
    /// `setup_metrics`.
    pub(super) async fn prepare(
        mut self,
        setup_metrics: Option<SocketAddr>,
    ) -> Result<Poised, String> {
        let (log, metrics) = (self.parts.loader.log.clone(), self.parts.loader.metrics.clone());
        let (verdicts, verdict) = channel(1);
        let services = Services::new(ServiceWorld {
            metrics: metrics.clone(),
            log: log.clone(),
            readiness: self.parts.readiness.clone(),
            verdicts,
            setup_metrics,
        });
        let wanted = services.addresses(&self.loaded.snapshot.services);
        let mut sites: BTreeMap<String, TcpListener> = wanted
            .into_iter()
            .filter_map(|address| self.site(&address).map(|socket| (address, socket)))
            .collect();
        self.close_rest().await;
        let Starting { parts, clock, loaded, taken, sockets } = self;
        let Parts { loader, workers, kept_cache: kept_path, handover, readiness, .. } = parts;
        let prepared = services.prepare_with(&loaded.snapshot.services, &mut sites)?;
        let reports = Reports { clock, log: log.clone(), metrics: metrics.clone() };
        let (path, own) = (kept_path.clone(), stores(&loaded.snapshot.carried));
        let (taken, kept_cache) = beside(move || {
            let mut taken = taken;
            // What the predecessor holds is newer than what a file holds.
            let is_full = taken.as_mut().is_some_and(|taken| taken.fill(&own, clock));
            let kept_cache = path.map(|path| match is_full {
                true => KeptCache::go_on(path, own, reports),
                false => KeptCache::start(path, own, reports),
            });
            (taken, kept_cache)
        })
        .await
        .map_err(|error| error.to_string())?;
        let equipment = Equipment {
            workers,
            clock,
            metrics: metrics.clone(),
            journal: Arc::new(log.clone()),
            budget: loader.budget.clone(),
            meter: Arc::new(OwnMeter),
        };
        let first = loaded.snapshot.clone();
        let waiting = blocking(move || Workers::prepare(&equipment, &first, sockets)).await?;
        let waiting = if taken.is_some() { waiting.shared() } else { waiting };
        let upkeep = Upkeep::start(clock, log, &metrics, loader.budget.clone(), waiting.spares());
        upkeep.replace(&loaded.snapshot);
        let made =
            Made { loader, clock, readiness, loaded, services, upkeep, kept_cache, kept_path };
        Ok(Poised { made, prepared, waiting, verdict, taken, handover })
    }

    /// Closes what nobody wants of the inherited sockets, here and where they are kept, before others are
    /// opened beside them.
    async fn close_rest(&mut self) {
        let (store, names) = (self.parts.store.clone(), self.parts.inherited.close_rest());
        // Only fails when it is cut off: then the manager goes on keeping them.
        let _ = beside(move || store.forget(names)).await;
    }
}

impl Poised {
    /// Whether a predecessor answers until this process does.
    pub(super) fn takes_over(&self) -> bool {
        self.taken.is_some()
    }

    /// Opens what did not come from elsewhere, reads, and has a predecessor stop.
    pub(super) async fn serve(self) -> Result<Started, String> {
        let Poised { mut made, prepared, waiting, verdict, taken, handover } = self;
        let workers = Arc::new(blocking(move || waiting.serve()).await?);
        made.readiness.has(Part::Listeners);
        let (snapshot, clock) = (made.loaded.snapshot.clone(), made.clock);
        made.services.replace(prepared, &snapshot.services).await;
        made.services.watch(&snapshot, &workers);
        let mut serving = Serving::of(made, workers.clone());
        // Before the predecessor's is shut: a successor finds somebody at any moment.
        let mut giver = Giver::new(handover);
        giver.open(serving.snapshot());
        if let Some(taken) = taken {
            let own = stores(&snapshot.carried);
            let commit = beside(move || taken.commit(&workers, own, clock));
            serving.took_over(commit.await.ok().flatten());
        }
        Ok(Started { serving, verdict, giver })
    }
}
