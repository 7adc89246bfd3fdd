//! The process: flags, start, reload, signals, log lines, shutdown.
//!
//! Owns the main thread: its own small runtime for signals, timers and HTTP, beside the workers.
//! Two modes: *drop-in*, which is node-cache with its flags, and *development*, which serves this
//! machine without any.

mod announce;
mod cache_stream;
mod dev;
mod dropin;
mod ebb;
mod flags;
mod guardian;
mod handover;
mod inherited;
mod limit;
mod load;
mod log;
mod node;
mod notify;
mod options;
mod panics;
mod privileges;
mod probe;
mod readiness;
mod resolve;
mod resting;
mod run;
mod services;
mod serving;
mod signals;
mod snapshot_file;
mod starting;
mod store;
mod surroundings;
mod upkeep;
mod version;

use crate::metrics::Registry;
use crate::net::default_workers;
use crate::plugin::{Budget, Journal, Level};
use handover::{AfterHandover, Handover};
use inherited::{Given, Inherited};
use load::{Loader, Source};
use log::Log;
use notify::Notify;
use privileges::Privileges;
use readiness::Readiness;
use run::Run;
use signals::Signals;
use starting::{Parts, Started, Starting};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::Store;

pub use flags::{FlagText, flag_texts};
pub use surroundings::Machine;
pub use version::banner;

/// What modes have in common.
struct Common {
    workers: usize,
    metrics: Registry,
    log: Log,
    readiness: Readiness,
    given: Given,
}

impl Common {
    /// What this process was given, once there are lines to say so.
    fn inherited(&mut self) -> Inherited {
        std::mem::take(&mut self.given).recognize(&self.log, &self.metrics)
    }

    fn handover(&self, directory: Option<PathBuf>) -> Handover {
        Handover { directory, log: self.log.clone(), metrics: self.metrics.clone() }
    }

    fn loader(&self, source: Source, default_port: u16, budget: Budget) -> Loader {
        let (metrics, log) = (self.metrics.clone(), self.log.clone());
        Loader { source, default_port, metrics, log, budget: Arc::new(budget) }
    }

    /// What a server is started with that keeps no cache over a restart.
    fn parts(&self, loader: Loader, handover: Handover, sockets: (Inherited, Store)) -> Parts {
        let (inherited, store) = sockets;
        Parts {
            loader,
            workers: self.workers,
            kept_cache: None,
            handover,
            readiness: self.readiness.clone(),
            inherited,
            store,
        }
    }
}

/// Serves, or guards a process that does: with node-cache's flags, or in development mode without any.
/// `arguments` start with the program's name. Gives the exit code. Call
/// [`crate::sys::signals::ignore_until_handled`] before.
pub fn main(arguments: &[String]) -> u8 {
    let mut given = given();
    if let Some(code) = guardian::guard(arguments, &mut given) {
        return code;
    }
    in_runtime(given, |common| async {
        match arguments {
            [] | [_] if !is_called_node_cache(arguments) => develop(common, dev::plan).await,
            _ => dropin::serve(arguments, common).await,
        }
    })
}

/// Serves by a Corefile of one's own, as it is: no template, no interface, no rules. Gives the exit
/// code. Call [`crate::sys::signals::ignore_until_handled`] before.
pub fn serve_corefile(path: &Path) -> u8 {
    in_runtime(given(), |common| develop(common, |_, _| dev::plan_of(path)))
}

/// What this process was given at its start; before it opens anything itself.
fn given() -> Given {
    let is_ours =
        |process: &str| process == std::process::id().to_string() || guardian::is(process);
    Given::from_variables(|name| std::env::var(name).ok(), is_ours)
}

fn in_runtime<F: Future<Output = u8>>(given: Given, serve: impl FnOnce(Common) -> F) -> u8 {
    let workers = default_workers();
    let metrics = Registry::new(workers);
    let log = Log::new(&metrics);
    panics::are_told_in(log.clone());
    let common = Common { workers, metrics, log: log.clone(), readiness: Readiness::new(), given };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fatal(&log, &format!("cannot start: {error}")),
    };
    let code = runtime.block_on(serve(common));
    log.flush();
    code
}

fn is_called_node_cache(arguments: &[String]) -> bool {
    let program = arguments.first().map(Path::new).and_then(Path::file_name);
    program.is_some_and(|name| name == "node-cache")
}

/// Development mode: prints what it serves, serves until a signal.
async fn develop(
    mut common: Common,
    plan: impl FnOnce(Option<&Path>, &Inherited) -> Result<dev::Plan, String>,
) -> u8 {
    let log = common.log.clone();
    log.start();
    let inherited = common.inherited();
    let (notify, store) = manager(&inherited, &log, &common.metrics);
    let directory = dev::runtime_directory(|name| std::env::var(name).ok());
    let plan = match plan(directory.as_deref(), &inherited) {
        Ok(plan) => plan,
        Err(why) => return fatal(&log, &why),
    };
    for line in &plan.missing {
        log.line(Level::Warning, format_args!("{line}"));
    }
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fatal(&log, &format!("cannot listen for signals: {error}")),
    };
    let loader = common.loader(plan.source, plan.default_port, Budget::default());
    let handover = common.handover(directory);
    let parts = common.parts(loader, handover, (inherited, store.clone()));
    let started = async { Starting::load(parts).await?.prepare(None).await?.serve().await };
    match started.await {
        Err(why) => fatal(&log, &dev::with_advice(&why)),
        Ok(Started { serving, verdict, giver }) => {
            for line in &plan.lines {
                log.plain(line);
            }
            let network = node::NodeNetwork::default();
            let run = Run {
                serving,
                signals,
                verdict,
                look: None,
                pidfile: None,
                log,
                network,
                notify,
                privileges: Some((Privileges::of_development(), common.metrics)),
                metrics_site: None,
                giver,
                store,
                after_handover: AfterHandover::Prove,
                reload_every: None,
            };
            run.until_the_end().await
        }
    }
}

/// The service manager that started us, if one did, and its store of sockets.
fn manager(inherited: &Inherited, log: &Log, metrics: &Registry) -> (Notify, Store) {
    let variable = |name: &str| std::env::var(name).ok();
    let notify = notify(log);
    (notify.clone(), Store::from_variable(variable, notify, inherited, (log, metrics)))
}

fn notify(log: &Log) -> Notify {
    Notify::from_variables(|name| std::env::var(name).ok(), std::process::id()).unwrap_or_else(
        |why| {
            log.line(Level::Error, format_args!("the service manager cannot be told: {why}"));
            Notify::default()
        },
    )
}

/// Says why it cannot start, on standard error; exit code 1.
fn fatal(log: &Log, why: &str) -> u8 {
    log.last_word(why);
    1
}
