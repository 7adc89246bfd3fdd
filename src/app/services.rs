//! What directives asked to run beside the servers: HTTP addresses, health polls, loop probes.
//!
//! Owns their sockets and tasks; a reload takes over what stays and closes what goes.

use super::log::Log;
use super::probe::probe;
use super::readiness::Readiness;
use crate::admin::{Alive, Endpoints, Site, poll_health};
use crate::corefile::format_duration;
use crate::engine::Snapshot;
use crate::metrics::{Registry, names};
use crate::net::Workers;
use crate::plugin::{Journal, Level, Service};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often /health asks itself.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// How long it waits for the response.
const POLL_TIMEOUT: Duration = Duration::from_secs(3);

/// From here on a response was slow.
const POLL_SLOW: Duration = Duration::from_secs(1);

/// What services use for their whole life.
#[derive(Clone)]
pub(super) struct ServiceWorld {
    /// The registry.
    pub(super) metrics: Registry,
    /// Lines for the operator.
    pub(super) log: Log,
    /// What /ready and a strict /health say.
    pub(super) readiness: Readiness,
    /// A loop's verdict ends the process.
    pub(super) verdicts: Sender<String>,
    /// Where `-metrics-listen-address` is served: a second socket there would take a part of its requests.
    pub(super) setup_metrics: Option<SocketAddr>,
}

/// The services that run now.
pub(super) struct Services {
    world: ServiceWorld,
    sites: BTreeMap<String, Site>,
    tasks: JoinSet<()>,
}

/// Sockets opened for a new snapshot, not yet in use.
#[derive(Default)]
pub(super) struct Prepared {
    wanted: BTreeMap<String, Endpoints>,
    opened: BTreeMap<String, Site>,
    /// A predecessor's sockets, at which it still accepts.
    handed: BTreeMap<String, TcpListener>,
}

impl Services {
    /// Nothing runs yet.
    pub(super) fn new(world: ServiceWorld) -> Services {
        Services { world, sites: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Opens the addresses that `services` add. The error is Go's text; a /metrics address that
    /// cannot be opened is only logged.
    pub(super) fn prepare(&self, services: &[Service]) -> Result<Prepared, String> {
        self.prepare_with(services, &mut BTreeMap::new())
    }

    /// As [`Services::prepare`], with a predecessor's sockets, which are taken out where their address
    /// is wanted. Nothing is accepted at them before [`Services::replace`].
    pub(super) fn prepare_with(
        &self,
        services: &[Service],
        handed: &mut BTreeMap<String, TcpListener>,
    ) -> Result<Prepared, String> {
        let mut prepared = Prepared { wanted: self.wanted(services), ..Prepared::default() };
        for (address, endpoints) in &prepared.wanted {
            if self.sites.contains_key(address) {
                continue;
            }
            if let Some(socket) = handed.remove(address) {
                prepared.handed.insert(address.clone(), socket);
                continue;
            }
            // While the old snapshot serves, a new address answers already: CoreDNS opens /health
            // before it serves, too.
            match Site::open(address, endpoints.clone()).and_then(|site| self.apart(address, site))
            {
                Ok(site) => {
                    prepared.opened.insert(address.clone(), site);
                }
                Err(why) if endpoints.profile => {
                    self.world.log.line(
                        Level::Error,
                        format_args!("plugin/pprof: Failed to start pprof handler: {why}"),
                    );
                    return Err(why);
                }
                Err(why) if endpoints.health.is_some() || endpoints.ready.is_some() => {
                    return Err(why);
                }
                Err(why) => self.world.log.line(
                    Level::Error,
                    format_args!("plugin/prometheus: Failed to start metrics handler: {why}"),
                ),
            }
        }
        Ok(prepared)
    }

    /// `site`, when it is not the address of the metrics of the set-up; else Go's text.
    fn apart(&self, address: &str, site: Site) -> Result<Site, String> {
        if self.world.setup_metrics == Some(site.address()) {
            return Err(format!("listen tcp {address}: bind: address already in use"));
        }
        Ok(site)
    }

    /// The addresses that `services` want.
    pub(super) fn addresses(&self, services: &[Service]) -> Vec<String> {
        self.wanted(services).into_keys().collect()
    }

    /// Runs what was prepared for `services`; returns once the addresses that are not theirs are closed.
    pub(super) async fn replace(&mut self, prepared: Prepared, services: &[Service]) {
        let Prepared { wanted, opened, handed } = prepared;
        let is_gone = |address: &String, _: &mut Site| !wanted.contains_key(address);
        let gone: Vec<Site> = self.sites.extract_if(.., is_gone).map(|(_, site)| site).collect();
        for site in gone {
            site.close().await;
        }
        self.sites.extend(opened);
        for (address, socket) in handed {
            match Site::on(socket, Endpoints::default()) {
                Ok(site) => drop(self.sites.insert(address, site)),
                Err(why) => self.world.log.line(
                    Level::Error,
                    format_args!("The HTTP socket of {address} cannot be taken over: {why}"),
                ),
            }
        }
        for (address, endpoints) in wanted {
            if let Some(site) = self.sites.get(&address) {
                site.serve(endpoints);
            }
        }
        self.run(services);
    }

    /// Further descriptors of all HTTP sockets, with their addresses, for a successor.
    pub(super) fn share(&self) -> io::Result<Vec<(String, TcpListener)>> {
        self.sites.iter().map(|(address, site)| Ok((address.clone(), site.share()?))).collect()
    }

    /// A successor accepts, and asks itself.
    pub(super) async fn rest(&mut self) {
        self.tasks.abort_all();
        for site in self.sites.values() {
            site.rest().await;
        }
    }

    /// Nobody else accepts any more.
    pub(super) fn resume(&mut self, services: &[Service]) {
        for site in self.sites.values() {
            site.resume();
        }
        self.run(services);
    }

    /// Begins what goes on by itself.
    fn run(&mut self, services: &[Service]) {
        self.tasks.abort_all();
        self.tasks = JoinSet::new();
        for service in services {
            match service {
                Service::Health { address, .. } => {
                    self.tasks.spawn(poll(address.clone(), self.world.clone()));
                }
                Service::Loop(looping) => {
                    let (looping, verdicts) = (looping.clone(), self.world.verdicts.clone());
                    self.tasks.spawn(async move {
                        if let Some(verdict) = probe(&looping).await {
                            // The first verdict ends the process: one is enough.
                            let _ = verdicts.try_send(verdict);
                        }
                    });
                }
                Service::Ready { .. }
                | Service::Pprof { .. }
                | Service::Prometheus { .. }
                | Service::Reload { .. }
                | Service::Dnstap(_) => {}
            }
        }
    }

    /// Keeps an eye on what a `ready` or a strict `health` of the snapshot asks for, until the next
    /// [`Services::replace`].
    pub(super) fn watch(&mut self, snapshot: &Snapshot, workers: &Arc<Workers>) {
        let asks = |service: &Service| match service {
            Service::Ready { .. } => true,
            Service::Health { strict, .. } => !strict.is_empty(),
            _ => false,
        };
        // What nobody keeps any more must not be shown as it was.
        self.world.metrics.reset(&names::READY);
        if !snapshot.services.iter().any(asks) {
            return;
        }
        let (readiness, metrics) = (self.world.readiness.clone(), self.world.metrics.clone());
        let chains = snapshot.blocks.iter().flat_map(|block| &block.chain);
        let handlers = chains.filter(|handler| handler.upstreams().is_some()).cloned().collect();
        let workers_now = Arc::downgrade(workers);
        self.tasks.spawn(readiness.clone().watch_listeners(workers.heartbeat()));
        self.tasks.spawn(readiness.watch_upstreams(handlers, workers_now, metrics));
    }

    fn wanted(&self, services: &[Service]) -> BTreeMap<String, Endpoints> {
        let mut wanted: BTreeMap<String, Endpoints> = BTreeMap::new();
        for service in services {
            match service {
                Service::Health { address, strict, .. } => {
                    let endpoints = wanted.entry(address.clone()).or_default();
                    endpoints.health = Some(match strict.is_empty() {
                        true => Arc::new(Alive),
                        false => self.world.readiness.strict(strict.clone()),
                    });
                }
                Service::Ready { address, monitor } => {
                    wanted.entry(address.clone()).or_default().ready =
                        Some(self.world.readiness.ready(*monitor));
                }
                Service::Pprof { address } => {
                    wanted.entry(address.clone()).or_default().profile = true;
                }
                Service::Prometheus { address, tls } => {
                    let endpoints = wanted.entry(address.clone()).or_default();
                    endpoints.metrics = Some(self.world.metrics.clone());
                    // As for the address itself, the first block to name it says.
                    endpoints.tls = endpoints.tls.take().or_else(|| tls.clone());
                }
                Service::Reload { .. } | Service::Loop(_) | Service::Dnstap(_) => {}
            }
        }
        wanted
    }
}

/// Asks one's own /health each second, for ever: a process that cannot answer itself shows it.
async fn poll(address: String, world: ServiceWorld) {
    let duration = world.metrics.histogram(&names::HEALTH_DURATION, &[]);
    let failures = world.metrics.counter(&names::HEALTH_FAILURES, &[]);
    let host = if address.starts_with(':') { "localhost" } else { "" };
    let url = format!("http://{host}{address}/health");
    let mut ticks = interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let start = Instant::now();
        let result = poll_health(&address, POLL_TIMEOUT).await;
        let took = start.elapsed();
        duration.observe(took.as_secs_f64());
        match result {
            Ok(()) if took <= POLL_SLOW => {}
            Ok(()) => world.log.line(
                Level::Warning,
                format_args!(
                    "plugin/health: Local health request to \"{url}\" took more than 1s: {}",
                    format_duration(took)
                ),
            ),
            Err(why) => {
                failures.increment();
                world.log.line(
                    Level::Warning,
                    format_args!("plugin/health: Local health request to \"{url}\" failed: {why}"),
                );
            }
        }
    }
}
