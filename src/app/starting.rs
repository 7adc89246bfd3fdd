//! The start of a server, step by step, so that what belongs between the steps finds its place: the
//! Corefile, the predecessor's offer, all that can be made ready, and only then the reading.
//!
//! Owns the order. An error in any step leaves a predecessor as it was.

use super::handover::{Giver, Handover, Taken, ask};
use super::load::{Loaded, Loader};
use super::readiness::Readiness;
use super::services::{Prepared, ServiceWorld, Services};
use super::serving::{Made, Serving, blocking};
use super::snapshot_file::{KeptCache, Reports};
use super::upkeep::Upkeep;
use crate::net::{Clock, Equipment, OwnMeter, WaitingWorkers, Workers};
use crate::plugin::cache::stores;
use crate::plugin::{Carried, Part};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::spawn_blocking;

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
}

/// The Corefile is loaded, and whoever serves has offered what it has.
pub(super) struct Starting {
    parts: Parts,
    clock: Clock,
    loaded: Loaded,
    taken: Option<Taken>,
}

/// All is made ready; nothing is read.
pub(super) struct Poised {
    loader: Loader,
    clock: Clock,
    readiness: Readiness,
    loaded: Loaded,
    services: Services,
    prepared: Prepared,
    upkeep: Upkeep,
    kept_cache: Option<KeptCache>,
    kept_path: Option<PathBuf>,
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
    /// Loads the Corefile and asks. The error is CoreDNS's text.
    pub(super) async fn load(parts: Parts) -> Result<Starting, String> {
        let loaded = parts.loader.load(Carried::within(parts.loader.budget.clone()))?;
        let (handover, snapshot) = (parts.handover.clone(), loaded.snapshot.clone());
        let taken = spawn_blocking(move || ask(&handover, &snapshot)).await.unwrap_or_default();
        Ok(Starting { parts, clock: Clock::start(), loaded, taken })
    }

    /// The predecessor's socket of an HTTP address that is none of the Corefile's.
    pub(super) fn site(&mut self, address: &str) -> Option<TcpListener> {
        self.taken.as_mut()?.sites.remove(address)
    }

    /// Makes all ready: HTTP sockets, the cache, the threads.
    pub(super) async fn prepare(self) -> Result<Poised, String> {
        let Starting { parts, clock, loaded, mut taken } = self;
        let Parts { loader, workers, kept_cache: kept_path, handover, readiness } = parts;
        let (log, metrics) = (loader.log.clone(), loader.metrics.clone());
        let (verdicts, verdict) = channel(1);
        let services = Services::new(ServiceWorld {
            metrics: metrics.clone(),
            log: log.clone(),
            readiness: readiness.clone(),
            verdicts,
        });
        let wanted = &loaded.snapshot.services;
        let prepared = match &mut taken {
            Some(taken) => services.prepare_with(wanted, &mut taken.sites)?,
            None => services.prepare(wanted)?,
        };
        let reports = Reports { clock, log: log.clone(), metrics: metrics.clone() };
        let (path, own) = (kept_path.clone(), stores(&loaded.snapshot.carried));
        let (taken, kept_cache) = spawn_blocking(move || {
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
        let mut taken = taken;
        let equipment = Equipment {
            workers,
            clock,
            metrics: metrics.clone(),
            journal: Arc::new(log.clone()),
            budget: loader.budget.clone(),
            meter: Arc::new(OwnMeter),
        };
        let sockets = taken.as_mut().map(|taken| std::mem::take(&mut taken.sockets));
        let first = loaded.snapshot.clone();
        let waiting =
            blocking(move || Workers::prepare(&equipment, &first, sockets.unwrap_or_default()))
                .await?;
        let upkeep = Upkeep::start(clock, log, &metrics, loader.budget.clone());
        upkeep.replace(&loaded.snapshot);
        Ok(Poised {
            loader,
            clock,
            readiness,
            loaded,
            services,
            prepared,
            upkeep,
            kept_cache,
            kept_path,
            waiting,
            verdict,
            taken,
            handover,
        })
    }
}

impl Poised {
    /// Whether a predecessor answers until this process does.
    pub(super) fn takes_over(&self) -> bool {
        self.taken.is_some()
    }

    /// Opens what was not handed over, reads, and has a predecessor stop.
    pub(super) async fn serve(self) -> Result<Started, String> {
        let Poised {
            loader,
            clock,
            readiness,
            loaded,
            mut services,
            prepared,
            upkeep,
            kept_cache,
            kept_path,
            waiting,
            verdict,
            taken,
            handover,
        } = self;
        let workers = Arc::new(blocking(move || waiting.serve()).await?);
        readiness.has(Part::Listeners);
        services.replace(prepared, &loaded.snapshot.services);
        services.watch(&loaded.snapshot, &workers);
        let own = stores(&loaded.snapshot.carried);
        let made = Made {
            loader,
            clock,
            readiness,
            workers: workers.clone(),
            loaded,
            services,
            upkeep,
            kept_cache,
            kept_path,
        };
        let mut serving = Serving::of(made);
        // Before the predecessor's is shut: a successor finds somebody at any moment.
        let mut giver = Giver::new(handover);
        giver.open(serving.snapshot());
        if let Some(taken) = taken {
            let commit = spawn_blocking(move || taken.commit(&workers, own, clock));
            serving.took_over(commit.await.ok().flatten());
        }
        Ok(Started { serving, verdict, giver })
    }
}
