//! The main loop: signals, the reload tick, the node's files, until something ends it.

use super::handover::{AfterHandover, Giver};
use super::log::Log;
use super::node::NodeNetwork;
use super::notify::Notify;
use super::privileges::Privileges;
use super::serving::Serving;
use super::signals::{Asked, Signals};
use super::store::{Listening, Store};
use crate::admin::Site;
use crate::corefile::{format_duration, system_error_text};
use crate::metrics::Registry;
use crate::node::LOOK_EVERY;
use crate::plugin::{Journal, Level};
use crate::sys::beside::beside;
use crate::sys::memory;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

/// How long a signal that ends the process waits for a reload or a look at files under way: what reads from a
/// mount that hangs has no end.
const RELOAD_MOST: Duration = Duration::from_secs(1);

/// Looks at what the Corefile is made from; true when it was written anew and a reload is wanted
/// at once.
pub(super) type Look = Box<dyn FnMut() -> bool + Send>;

/// What the main loop works on.
pub(super) struct Run {
    /// The running server.
    pub(super) serving: Serving,
    /// The signals.
    pub(super) signals: Signals,
    /// A `loop`'s verdict.
    pub(super) verdict: Receiver<String>,
    /// The node's files, in drop-in mode.
    pub(super) look: Option<Look>,
    /// Removed at the end, but for fatal ones.
    pub(super) pidfile: Option<PathBuf>,
    /// Lines for the operator.
    pub(super) log: Log,
    /// Interface and rules.
    pub(super) network: NodeNetwork,
    /// The service manager.
    pub(super) notify: Notify,
    /// What is given up once all is made, and where it is counted.
    pub(super) privileges: Option<(Privileges, Registry)>,
    /// The endpoint of `-metrics-listen-address`, with its address.
    pub(super) metrics_site: Option<(String, Site)>,
    /// Where successors are waited for.
    pub(super) giver: Giver,
    /// Where the sockets are kept for the next start.
    pub(super) store: Store,
    /// What follows once one has taken over.
    pub(super) after_handover: AfterHandover,
    /// The interval and jitter of the last `reload` that a Corefile had.
    pub(super) reload_every: Option<(Duration, Duration)>,
}

impl Run {
    /// Serves until a signal or a verdict; gives the exit code.
    pub(super) async fn until_the_end(mut self) -> u8 {
        let mut node = interval(LOOK_EVERY);
        node.set_missed_tick_behavior(MissedTickBehavior::Delay);
        node.tick().await;
        let mut reload_at = self.next_reload();
        // Until the end of this function: a drain that hangs is ended by the manager, too.
        let _watch = self.notify.watch(self.serving.heartbeat());
        self.keep_sockets().await;
        self.notify.ready();
        memory::forget_the_start();
        loop {
            if self.network.is_settled()
                && let Some((privileges, metrics)) = self.privileges.take()
            {
                let log = self.log.clone();
                // Beside the loop, which signals and probes wait for; nobody waits for its end.
                drop(beside(move || privileges.give_up(&log, &metrics)));
            }
            let reload = async {
                match reload_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                asked = self.signals.next() => match asked {
                    Asked::Terminate => match self.wait_for_heir().await {
                        None => return self.terminate().await,
                        Some(heir) => match self.hand_over(heir, AfterHandover::End).await {
                            ControlFlow::Break(code) => return code,
                            ControlFlow::Continue(run) => self = run,
                        },
                    },
                    Asked::Interrupt => return self.interrupt().await,
                    Asked::Quit => return self.quit().await,
                    Asked::Reload => reload_at = self.reload_now().await,
                },
                Some(verdict) = self.verdict.recv() => {
                    self.log.fatal(format_args!("{verdict}"));
                    // Nobody answers any more: the node's queries go to the cluster DNS Service.
                    self.network.leave_at_once().await;
                    return 1;
                }
                event = self.giver.next() => if let Some(heir) = self.answer(event) {
                    let after = self.after_handover;
                    match self.hand_over(heir, after).await {
                        ControlFlow::Break(code) => return code,
                        ControlFlow::Continue(run) => self = run,
                    }
                },
                () = self.network.keep() => {}
                () = reload => {
                    self.signals.beside(RELOAD_MOST, self.serving.look_for_change()).await;
                    self.keep_sockets().await;
                    self.giver.open(self.serving.snapshot());
                    reload_at = self.next_reload();
                }
                _ = node.tick() => {
                    if self.look_at_files().await {
                        reload_at = self.reload_now().await;
                    }
                }
            }
        }
    }

    /// Looks at the node's files, on a thread of its own: it may have no end. True when a reload is wanted.
    async fn look_at_files(&mut self) -> bool {
        let Some(mut look) = self.look.take() else { return false };
        let looking = beside(move || (look(), look));
        match self.signals.beside(RELOAD_MOST, looking).await {
            Some(Ok((is_wanted, look))) => {
                self.look = Some(look);
                is_wanted
            }
            Some(Err(_)) => {
                self.log.line(
                    Level::Error,
                    format_args!(
                        "internal error: the template and the ConfigMap are not looked at any more; start nodens \
                         anew, and please report it"
                    ),
                );
                false
            }
            None => false,
        }
    }

    /// Takes the Corefile as it is now; gives the time of the next look at it.
    async fn reload_now(&mut self) -> Option<Instant> {
        self.notify.reloading();
        self.signals.beside(RELOAD_MOST, self.serving.reload_now()).await;
        self.keep_sockets().await;
        // After an error, too: the old Corefile serves.
        self.notify.ready();
        self.giver.open(self.serving.snapshot());
        self.next_reload()
    }

    /// Further descriptors of all sockets that are listened at.
    pub(super) fn listening(&self) -> io::Result<Listening> {
        let mut listening = self.serving.listening()?;
        if let Some((address, site)) = &self.metrics_site {
            listening.sites.push((address.clone(), site.share()?));
        }
        Ok(listening)
    }

    /// Has the service manager keep what is listened at now, where it keeps sockets.
    pub(super) async fn keep_sockets(&self) {
        if !self.store.is_there() {
            return;
        }
        match self.listening() {
            Ok(listening) => {
                let store = self.store.clone();
                // Beside the loop, which probes wait for.
                let _ = beside(move || store.keep(&listening)).await;
            }
            Err(error) => self.log.line(
                Level::Warning,
                format_args!("Kept sockets: there are no descriptors left: {error}"),
            ),
        }
    }

    /// INTERVAL give or take half of JITTER, which counts for no more than half of INTERVAL.
    /// A Corefile without `reload` is looked at as the last one with it said, as by CoreDNS.
    fn next_reload(&mut self) -> Option<Instant> {
        self.reload_every = self.serving.reload_every().or(self.reload_every);
        let (every, jitter) = self.reload_every?;
        let jitter = jitter.min(every / 2);
        let shift = jitter.mul_f64(rand::random::<f64>());
        Some(Instant::now() + (every + shift).saturating_sub(jitter / 2))
    }

    pub(super) async fn terminate(mut self) -> u8 {
        self.notify.stopping();
        self.serving.ends();
        self.giver.end();
        self.log.line(Level::Info, format_args!("SIGTERM: Shutting down servers then terminating"));
        self.serving.flush_handlers();
        // From now on queries to the Service go to the cluster DNS; those that came are answered,
        // and those to the link-local address for as long as lameduck lasts.
        self.network.let_queries_go().await;
        let mut ending = Ending { interrupts: 0, is_terminating: true };
        if let Some(code) = self.lameduck(&mut ending).await {
            self.network.leave().await;
            return code;
        }
        self.remove_pidfile();
        self.serving.give_back();
        let Run { serving, mut signals, log, mut network, store, .. } = self;
        let mut stop = std::pin::pin!(serving.stop(store.keeper()));
        loop {
            tokio::select! {
                _ = &mut stop => {
                    network.leave().await;
                    return 0;
                }
                asked = signals.next() => {
                    if let Some(code) = ending.hurry(asked, &log, &network) {
                        network.leave().await;
                        return code;
                    }
                }
            }
        }
    }

    async fn interrupt(mut self) -> u8 {
        self.notify.stopping();
        self.serving.ends();
        self.log.line(Level::Info, format_args!("SIGINT: Shutting down"));
        self.remove_pidfile();
        self.giver.end();
        self.serving.flush_handlers();
        self.network.let_queries_go().await;
        let mut ending = Ending { interrupts: 1, is_terminating: false };
        let code = self.lameduck(&mut ending).await;
        self.serving.give_back();
        self.serving.save().await;
        self.network.leave().await;
        code.unwrap_or(0)
    }

    async fn quit(&mut self) -> u8 {
        self.notify.stopping();
        self.serving.ends();
        self.log.line(Level::Info, format_args!("SIGQUIT: Quitting process immediately"));
        self.remove_pidfile();
        self.giver.end();
        self.serving.give_back();
        self.network.leave_at_once().await;
        0
    }

    /// Serves on for the lameduck times; the exit code when a signal cuts them short.
    async fn lameduck(&mut self, ending: &mut Ending) -> Option<u8> {
        for time in self.serving.lameducks() {
            self.log.line(
                Level::Info,
                format_args!(
                    "plugin/health: Going into lameduck mode for {}",
                    format_duration(time)
                ),
            );
            let mut end = std::pin::pin!(sleep(time));
            loop {
                tokio::select! {
                    () = &mut end => break,
                    asked = self.signals.next() => {
                        if let Some(code) = ending.hurry(asked, &self.log, &self.network) {
                            self.remove_pidfile();
                            return Some(code);
                        }
                    }
                }
            }
        }
        None
    }

    fn remove_pidfile(&self) {
        // One that says another number is a successor's.
        let is_ours = |text: String| text.trim() == std::process::id().to_string();
        if let Some(path) = &self.pidfile
            && fs::read_to_string(path).is_ok_and(is_ours)
        {
            // Gone already is as good.
            let _ = fs::remove_file(path);
        }
    }
}

/// Writes the process id where `-pidfile` says.
pub(super) fn write_pidfile(path: &Path, log: &Log) {
    if let Err(error) = fs::write(path, format!("{}\n", std::process::id())) {
        let why = system_error_text(&error);
        log.line(
            Level::Error,
            format_args!("Could not write pidfile: open {}: {why}", path.display()),
        );
    }
}

/// Which signals ended the process so far.
struct Ending {
    /// How many SIGINT there were.
    interrupts: u32,
    /// Whether there was a SIGTERM.
    is_terminating: bool,
}

impl Ending {
    /// A further signal: the exit code when it means "now". The lines are node-cache's, which takes its
    /// network down again at each that ends it.
    fn hurry(&mut self, asked: Asked, log: &Log, network: &NodeNetwork) -> Option<u8> {
        let say = |text: &str| log.line(Level::Info, format_args!("{text}"));
        let code = match asked {
            Asked::Quit => {
                say("SIGQUIT: Quitting process immediately");
                Some(0)
            }
            Asked::Interrupt => {
                self.interrupts += 1;
                let is_first = self.interrupts == 1;
                say(if is_first { "SIGINT: Shutting down" } else { "SIGINT: Force quit" });
                (!is_first).then_some(2)
            }
            Asked::Terminate => {
                if !std::mem::replace(&mut self.is_terminating, true) {
                    say("SIGTERM: Shutting down servers then terminating");
                }
                return None;
            }
            Asked::Reload => return None,
        };
        network.says_its_end();
        code
    }
}
