//! Drop-in mode: what node-cache does before CoreDNS exists, in its order, then the server.

use super::flags::{self, Outcome, Stream};
use super::handover::{AfterHandover, Handover};
use super::inherited::Inherited;
use super::load::Source;
use super::log::Log;
use super::node::NodeNetwork;
use super::options::{ClientAuth, MetricsTls, Options};
use super::privileges::Privileges;
use super::run::{Look, Run, write_pidfile};
use super::signals::Signals;
use super::starting::{Parts, Started, Starting};
use super::surroundings::Machine;
use super::{Common, fatal};
use crate::admin::{Endpoints, Site};
use crate::corefile::{Surroundings, system_error_text};
use crate::metrics::{Registry, names};
use crate::node::{
    Neighbours, NodeValues, SourcePaths, Sources, cluster_dns, look, write_if_changed,
};
use crate::plugin::tls::{ClientCertificates, ServerTls, server_config};
use crate::plugin::{Budget, Journal, Level};
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Serves by the command line; `arguments` start with the program's name. Gives the exit code.
pub(super) async fn serve(arguments: &[String], mut common: Common) -> u8 {
    let log = common.log.clone();
    // Nothing is touched by reading the command line, and the first line has its format already.
    let outcome = flags::parse(arguments);
    if let Outcome::Run(options) = &outcome {
        log.write_as(options.log_format);
    }
    log.line(
        Level::Info,
        format_args!("Starting node-cache image: nodens {}", env!("CARGO_PKG_VERSION")),
    );
    let options = match outcome {
        Outcome::Run(options) => options,
        Outcome::Print { text, stream, code } => {
            print(&text, stream);
            return code;
        }
        Outcome::Fatal(why) => {
            log.fatal(format_args!("{why}"));
            return 1;
        }
        Outcome::Extra(why) => {
            log.plain(&why);
            return 1;
        }
    };
    // From here on signals wait for the server; before, their defaults hold.
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fatal(&log, &format!("cannot listen for signals: {error}")),
    };
    let inherited = common.inherited();
    let mut node = Node::new(&options, &common);
    let directory = options.network.hands_over.then(|| options.network.runtime_directory.clone());
    let handover = common.handover(directory);
    let mut metrics = MetricsEndpoint::new(&options, &common.metrics, &log);
    // Where somebody may have its socket for us, that is asked for first.
    if inherited.is_empty() && !handover.is_anybody_there() {
        metrics.open(None);
    }
    node.look();
    if node.sources.paths().kube_dns.is_none() {
        log.line(
            Level::Info,
            format_args!("Skipping kube-dns configmap sync as no directory was specified"),
        );
    }
    if let Err(why) = node.sources.paths().find_base_folder() {
        log.line(Level::Error, format_args!("{why}"));
    }
    let network = NodeNetwork::make(&options, &common.metrics, &log, &common.readiness);
    log.start();
    run(&options, common, Made { signals, node, network, metrics, handover, inherited }).await
}

async fn run(options: &Options, common: Common, made: Made) -> u8 {
    let Made { signals, mut node, mut network, metrics: mut endpoint, handover, inherited } = made;
    let log = common.log.clone();
    let (notify, store) = super::manager(&inherited, &log, &common.metrics);
    let privileges = Privileges::of_server(&options.network, network.backend());
    privileges.hand_on();
    let limit = options.memory_limit.octets(|path| fs::read_to_string(path).ok());
    let source = Source::File(options.files.corefile.clone());
    let loader = common.loader(source, options.dns_port, Budget::new(limit));
    let parts = Parts {
        kept_cache: options.files.cache_snapshot.clone(),
        ..common.parts(loader, handover, (inherited, store.clone()))
    };
    let started = start(parts, &mut network, &mut endpoint).await;
    let Started { serving, verdict, giver } = match started {
        Ok(started) => started,
        Err(why) => {
            // Nobody answers on the interface's addresses: neither they nor rules, a killed one's either, must
            // keep queries here.
            network.give_up().await;
            return fatal(&log, &why);
        }
    };
    if !options.quiet {
        serving.announce_zones();
    }
    let pidfile = options.files.pid_file.clone();
    if let Some(path) = &pidfile {
        write_pidfile(path, &log);
    }
    serving.announce_hash();
    if !options.quiet {
        serving.announce_version();
    }
    if !serving.has_listeners() {
        // As in CoreDNS: nothing to wait for.
        log.line(Level::Error, format_args!("Untrapped signal, tearing down"));
        network.leave_at_once().await;
        return 0;
    }
    network.listeners_answer();
    let look: Look = Box::new(move || node.look());
    let run = Run {
        serving,
        signals,
        verdict,
        look: Some(look),
        pidfile,
        log,
        network,
        notify,
        privileges: Some((privileges, common.metrics)),
        metrics_site: endpoint.site.map(|site| (endpoint.address, site)),
        giver,
        store,
        after_handover: AfterHandover::by(|name| Machine.variable(name)),
        reload_every: None,
    };
    run.until_the_end().await
}

/// What is there before the server.
struct Made {
    signals: Signals,
    node: Node,
    network: NodeNetwork,
    metrics: MetricsEndpoint,
    handover: Handover,
    inherited: Inherited,
}

/// Starts the server. Where it takes over, its rules are set before it reads: while it sets them, its
/// predecessor answers.
async fn start(
    parts: Parts,
    network: &mut NodeNetwork,
    metrics: &mut MetricsEndpoint,
) -> Result<Started, String> {
    let mut starting = Starting::load(parts).await?;
    metrics.open(starting.site(&metrics.address));
    let setup_metrics = metrics.site.as_ref().map(Site::address);
    let poised = starting.prepare(setup_metrics).await?;
    if poised.takes_over() {
        network.listeners_answer();
        network.settle().await;
    }
    poised.serve().await
}

fn print(text: &str, stream: Stream) {
    // Nobody reads: nothing to be done about it.
    let _ = match stream {
        Stream::Out => io::stdout().lock().write_all(text.as_bytes()),
        Stream::Error => io::stderr().lock().write_all(text.as_bytes()),
    };
}

/// The Corefile's inputs and where it is written.
struct Node {
    sources: Sources,
    corefile: PathBuf,
    /// With `-reloadwithsignal` what is written is loaded at once, and so is what lies beside the template:
    /// node-cache writes again whatever changed there.
    neighbours: Option<Neighbours>,
    /// The inputs were not looked at yet: what is written then is told as a reload, whatever stood there.
    is_first_look: bool,
    metrics: Registry,
    log: Log,
}

impl Node {
    fn new(options: &Options, common: &Common) -> Node {
        let (files, log) = (&options.files, common.log.clone());
        log.line(Level::Info, format_args!("Using Corefile {}", files.corefile.display()));
        let pidfile = files.pid_file.as_deref().unwrap_or(Path::new(""));
        log.line(Level::Info, format_args!("Using Pidfile {}", pidfile.display()));
        for warning in &options.warnings {
            log.line(Level::Warning, format_args!("{warning}"));
        }
        let service = &options.upstream_service;
        let cluster_dns = cluster_dns(service, |name| Machine.variable(name));
        if let Err(why) = &cluster_dns
            && !service.is_empty()
        {
            log.line(Level::Warning, format_args!("{why}"));
        }
        let values = NodeValues {
            local: options.local.text.clone(),
            cluster_dns,
            prometheus: options.endpoints.prometheus.clone(),
            dns_port: options.dns_port,
        };
        let by_default = Path::new(super::options::Files::DEFAULT_KUBE_DNS);
        let kube_dns =
            files.kube_dns.clone().or_else(|| by_default.exists().then(|| by_default.into()));
        Node {
            sources: Sources::new(SourcePaths { base: files.base.clone(), kube_dns }, values),
            corefile: files.corefile.clone(),
            neighbours: options
                .reload_after_write
                .then(|| Neighbours::new(&files.base, &files.corefile)),
            is_first_look: true,
            metrics: common.metrics.clone(),
            log,
        }
    }

    /// Looks at the inputs and writes the Corefile when it became another. True when it is to be
    /// loaded at once.
    fn look(&mut self) -> bool {
        let is_first_look = std::mem::take(&mut self.is_first_look);
        let has_moved = self.neighbours.as_mut().is_some_and(Neighbours::have_changed);
        let seen = look(self.sources.paths());
        let has_moved = has_moved && seen.base.is_ok();
        let news = self.sources.take(seen, &Machine);
        let errors = self.metrics.counter(&names::SETUP_ERRORS, &["configmap"]);
        errors.add(news.errors);
        for (level, text) in &news.lines {
            self.log.line(*level, format_args!("{text}"));
        }
        let Some(corefile) = news.corefile else {
            return has_moved && self.is_to_be_loaded();
        };
        match write_if_changed(&self.corefile, &corefile.text) {
            Ok(is_other) => {
                self.log.line(Level::Info, format_args!("{}", corefile.summary));
                self.log.line(Level::Info, format_args!("Using config file:\n{}", corefile.text));
                self.neighbours.is_some()
                    && (is_other || is_first_look || has_moved)
                    && self.is_to_be_loaded()
            }
            Err(why) => {
                errors.increment();
                let path = self.corefile.display();
                self.log.line(
                    Level::Error,
                    format_args!("Failed to write config file {path} - err {why}"),
                );
                self.sources.was_not_written();
                false
            }
        }
    }

    /// True, and a line says so.
    fn is_to_be_loaded(&self) -> bool {
        let id = std::process::id();
        self.log.line(Level::Info, format_args!("Sending reload signal to PID {id}"));
        true
    }
}

/// The endpoint of `-metrics-listen-address`; its failure is not fatal.
struct MetricsEndpoint {
    address: String,
    /// What it is to serve, until it was opened.
    endpoints: Option<Endpoints>,
    site: Option<Site>,
    log: Log,
}

impl MetricsEndpoint {
    /// Not open yet.
    fn new(options: &Options, metrics: &Registry, log: &Log) -> MetricsEndpoint {
        let address = options.endpoints.metrics.clone();
        let mut endpoint =
            MetricsEndpoint { address, endpoints: None, site: None, log: log.clone() };
        let tls = options.endpoints.tls.as_ref().map(|tls| server_config(&settings(tls)?));
        match tls.transpose() {
            Ok(tls) => {
                let (metrics, tls) = (Some(metrics.clone()), tls.map(Arc::new));
                endpoint.endpoints = Some(Endpoints { metrics, tls, ..Endpoints::default() });
            }
            Err(why) => endpoint.failed(&why),
        }
        endpoint
    }

    /// Opens it, on a socket that came from elsewhere if there is one. Doing it again changes nothing.
    fn open(&mut self, handed: Option<TcpListener>) {
        let Some(endpoints) = self.endpoints.take() else { return };
        let address = &self.address;
        let opened = match handed {
            Some(socket) => Site::on(socket, endpoints)
                .map_err(|error| format!("listen tcp {address}: {error}")),
            None => Site::open(address, endpoints),
        };
        match opened {
            Ok(site) => self.site = Some(site),
            Err(why) => self.failed(&why),
        }
    }

    fn failed(&self, why: &str) {
        self.log.line(Level::Error, format_args!("Failed to start metrics handler: {why}"));
    }
}

fn settings(tls: &MetricsTls) -> Result<ServerTls, String> {
    let read = |path: &Path| {
        Machine
            .read(path)
            .map_err(|error| format!("open {}: {}", path.display(), system_error_text(&error)))
    };
    Ok(ServerTls {
        certificate: read(&tls.certificate)?,
        key: read(&tls.key)?,
        clients: match tls.client_auth {
            ClientAuth::None => ClientCertificates::No,
            ClientAuth::Request => ClientCertificates::Asked,
            ClientAuth::RequireAny => ClientCertificates::Required,
            ClientAuth::VerifyIfGiven => ClientCertificates::VerifiedIfGiven,
            ClientAuth::RequireAndVerify => ClientCertificates::RequiredAndVerified,
        },
        authorities: tls.client_ca.as_deref().map(read).transpose()?.unwrap_or_default(),
        only_tls13: tls.only_tls13,
    })
}
