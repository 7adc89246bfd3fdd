//! What is made on the node and when: the interface before the listeners, the rules as soon as they
//! answer; at the end the rules first, the interface last.
//!
//! Owns the interface, the rules and this process's claims to them. Never fatal, and bounded in time:
//! the programs that set rules run beside the main loop, one at a time.

use super::log::Log;
use super::options::Options;
use super::readiness::Readiness;
use crate::metrics::{Registry, names};
use crate::node::firewall::{
    Backend, Choice, Firewall, Life, Plan, Report, Rewrite, Wanted, Within,
};
use crate::node::{
    Claim, Claims, Interface, InterfaceReport, Watch, Wish, is_claimed, read_news, served_by_others,
};
use crate::plugin::{Journal, Level, Part};
use crate::sys::beside::beside;
use crate::sys::netlink::Netlink;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

/// The shortest time between two looks for what was removed: a manager that takes an address away
/// again and again cannot keep us busy.
const REPAIR_PAUSE: Duration = Duration::from_millis(200);

/// What the end waits for rules beyond the time that their programs have.
const SLACK: Duration = Duration::from_secs(1);

/// What is to be looked at.
enum Due {
    /// Links or addresses changed.
    Interface,
    /// The interval is over.
    All,
    /// Setting rules has ended.
    Rules(Option<Box<(Firewall, Report)>>),
}

/// Interface and rules of this process; nothing in development mode.
#[derive(Default)]
pub(super) struct NodeNetwork {
    interface: Option<Interface>,
    watch: Option<AsyncFd<Netlink>>,
    /// No look for changes before.
    quiet_until: Option<Instant>,
    /// The local addresses and ports, which rules are kept for where there is a backend.
    plan: Option<Plan>,
    backend: Option<Backend>,
    rewrites: Vec<Rewrite>,
    /// The rules, while no program works on them.
    firewall: Option<Firewall>,
    job: Option<oneshot::Receiver<(Firewall, Report)>>,
    claims: Claims,
    every: Option<Duration>,
    next: Option<Instant>,
    tears_down: bool,
    /// The local addresses that somebody else serves on, who is no nodens; `None` until the end begins.
    served: Option<Vec<IpAddr>>,
    /// The first look at the rules is over, or there are none.
    is_settled: bool,
    world: Option<(Registry, Log)>,
    readiness: Option<Readiness>,
}

impl NodeNetwork {
    /// Makes the interface: listeners are to bind its addresses.
    pub(super) fn make(
        options: &Options,
        metrics: &Registry,
        log: &Log,
        readiness: &Readiness,
    ) -> NodeNetwork {
        let (network, addresses) = (&options.network, &options.local.addresses);
        let interface = network.interface.as_ref().map(|name| {
            let wish = Wish { name: name.clone(), addresses: addresses.clone() };
            Interface::new(wish, &network.runtime_directory)
        });
        let choice = Choice::make(network.firewall);
        if network.firewall == Wanted::Auto {
            log.line(Level::Info, format_args!("{choice}"));
        }
        let mut node = NodeNetwork {
            plan: Some(Plan {
                addresses: addresses.clone(),
                dns_port: options.dns_port,
                health_port: network.health_port,
            }),
            backend: Some(choice.backend),
            rewrites: network.rewrites.clone(),
            every: Some(network.sync_interval),
            tears_down: network.teardown,
            world: Some((metrics.clone(), log.clone())),
            readiness: Some(readiness.clone()),
            ..NodeNetwork::default()
        };
        node.firewall = node.rules().map(|plan| node.keeper(plan.clone()));
        if interface.is_some() {
            let watch = Watch::open().and_then(Watch::register);
            if let Err(why) = &watch {
                log.line(
                    Level::Warning,
                    format_args!("Cannot hear of changes to interfaces ({why}): they are repaired every interval"),
                );
            }
            node.watch = watch.ok();
        }
        node.interface = interface;
        if node.rules().is_some() {
            readiness.lacks(Part::Rules);
        }
        node.ensure_interface();
        node
    }

    /// The listeners answer: from now on this process needs what it made, and rules may send it
    /// queries. Said again it changes nothing.
    pub(super) fn listeners_answer(&mut self) {
        if self.next.is_some() {
            return;
        }
        let mut wanted: Vec<Claim> = self.interface.iter().flat_map(Interface::claims).collect();
        wanted.extend(self.rule_claims());
        for claim in wanted {
            if let Err(why) = self.claims.take(&claim) {
                self.line(Level::Warning, &format!("Others do not see that nodens serves: {why}"));
                break;
            }
        }
        // The interface was made a moment ago, and its changes are heard of.
        self.look_at_rules();
        self.is_settled = self.job.is_none();
    }

    /// Waits until the rules that are being set are set, or time is over.
    pub(super) async fn settle(&mut self) {
        if let Some(job) = &mut self.job
            && let Ok(done) = timeout(Within::SETTING.0 + SLACK, job).await
        {
            self.job = None;
            self.take_back(done.ok().map(Box::new));
        }
    }

    /// Waits until something on the node is to be looked at, and looks. Never ends in development
    /// mode. May be cancelled at any time.
    pub(super) async fn keep(&mut self) {
        match self.due().await {
            Due::Interface => {
                self.quiet_until = Some(Instant::now() + REPAIR_PAUSE);
                self.ensure_interface();
            }
            Due::All => self.look(),
            Due::Rules(done) => {
                self.job = None;
                self.take_back(done);
            }
        }
    }

    /// The end has begun: the cluster DNS Service is to get the queries to its address again. Removes the
    /// rules that keep them here and nobody else needs; what was received may still be answered.
    pub(super) async fn let_queries_go(&mut self) {
        if !self.says_its_end() {
            return;
        }
        self.look_who_serves();
        let Some(plan) = self.rules().cloned() else {
            self.claims.release();
            return;
        };
        self.lacks(Part::Rules);
        self.end_setting().await;
        self.claims.release();
        let firewall = self.nobody_elses(&plan, Level::Info);
        self.firewall = self.removing(firewall, Within::REMOVING, Firewall::let_queries_go).await;
    }

    /// The start has failed, and nobody answers: as at the end, but without a word of it.
    pub(super) async fn give_up(&mut self) {
        self.end_setting().await;
        self.leave().await;
    }

    /// Waits until no program sets rules.
    async fn end_setting(&mut self) {
        if let Some(job) = self.job.take() {
            match timeout(Within::SETTING.0 + SLACK, job).await {
                Ok(done) => self.take_back(done.ok().map(Box::new)),
                Err(_) => self.line(Level::Error, "Setting firewall rules does not end"),
            }
        }
    }

    /// Looks who else serves on the local addresses, once: while the sockets that are ours can be told.
    fn look_who_serves(&mut self) {
        if let Some(Plan { addresses, dns_port, .. }) = &self.plan
            && self.tears_down
        {
            self.served.get_or_insert_with(|| served_by_others(addresses, *dns_port));
        }
    }

    /// Says that the node's network is taken down, where it is; tells whether it is.
    pub(super) fn says_its_end(&self) -> bool {
        let is_taken_down = self.tears_down && self.world.is_some();
        if is_taken_down {
            self.line(Level::Info, "Tearing down");
        }
        is_taken_down
    }

    /// The last reply has left: removes what was made of the interface and what is left of the rules, as
    /// far as nobody else needs them.
    pub(super) async fn leave(&mut self) {
        self.look_who_serves();
        // First, so that nothing can leave from there any more.
        self.remove_interface();
        if self.tears_down
            && let Some(plan) = self.rules().cloned()
        {
            let firewall = self.nobody_elses(&plan, Level::Debug);
            // What was owned goes with it now at the latest.
            let _ = self.removing(firewall, Within::TIDYING, Firewall::remove).await;
        }
    }

    /// Nobody answers any more: both at once.
    pub(super) async fn leave_at_once(&mut self) {
        self.let_queries_go().await;
        self.leave().await;
    }

    /// Removes rules, beside the main loop; gives who keeps them when that ended in time.
    async fn removing(
        &mut self,
        firewall: Option<Firewall>,
        within: Within,
        remove: fn(&mut Firewall, Within) -> Report,
    ) -> Option<Firewall> {
        let mut firewall = firewall?;
        let work = beside(move || {
            let report = remove(&mut firewall, within);
            (firewall, report)
        });
        match timeout(within.0 + SLACK, work).await {
            Ok(Ok((firewall, report))) => {
                self.tell(&report);
                Some(firewall)
            }
            _ => {
                self.line(
                    Level::Error,
                    "Firewall rules were not removed in time: they may still be there",
                );
                None
            }
        }
    }

    /// The rules that nobody else needs; that somebody does is a line of this level. Call it when this
    /// process claims none any more.
    fn nobody_elses(&mut self, plan: &Plan, level: Level) -> Option<Firewall> {
        let kept = self.firewall.take();
        if kept.as_ref().is_some_and(Firewall::ends_with_process) {
            // Nobody else's, whoever serves.
            return kept;
        }
        let port = plan.dns_port;
        let served = self.served.clone().unwrap_or_default();
        let (claimed, mut addresses): (Vec<_>, Vec<_>) =
            plan.addresses.iter().partition(|address| is_claimed(&Claim::Rules(**address, port)));
        addresses.retain(|address| !served.contains(address));
        let is_whole = addresses.len() == plan.addresses.len();
        if !claimed.is_empty() {
            self.line(level, "Another nodens serves with the rules: they stay");
        } else if let Some(address) = served.first() {
            self.line(level, &format!("Somebody else serves on {address}: its rules stay"));
        }
        match self.backend {
            // A table goes whole or not at all.
            Some(Backend::Nftables) => kept.filter(|_| is_whole),
            _ if addresses.is_empty() => None,
            _ => Some(self.keeper(Plan { addresses, ..*plan })),
        }
    }

    /// Removes what was made of the interface and nobody else needs.
    fn remove_interface(&mut self) {
        self.claims.release();
        self.watch = None;
        if self.tears_down
            && let Some(mut interface) = self.interface.take()
        {
            let served = self.served.as_deref().unwrap_or_default();
            let report = interface.remove(served);
            self.tell_interface(&report);
        }
    }

    async fn due(&mut self) -> Due {
        let next = self.next;
        let at = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let quiet_until = self.quiet_until;
        let watch = &mut self.watch;
        let changed = async {
            if let Some(until) = quiet_until {
                sleep_until(until).await;
            }
            match watch {
                Some(watch) => changed(watch).await,
                None => std::future::pending().await,
            }
        };
        let job = &mut self.job;
        let done = async {
            match job {
                Some(job) => job.await.ok().map(Box::new),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = done => Due::Rules(done),
            () = changed => Due::Interface,
            () = at => Due::All,
        }
    }

    /// Makes what is missing.
    fn look(&mut self) {
        self.ensure_interface();
        self.look_at_rules();
    }

    /// Sets rules that are missing, and says when to look again.
    fn look_at_rules(&mut self) {
        self.next = self.every.map(|every| Instant::now() + every);
        if let Some(mut firewall) = self.firewall.take() {
            self.job = Some(beside(move || {
                let report = firewall.check_and_repair();
                (firewall, report)
            }));
        }
    }

    /// Who keeps the rules.
    pub(super) fn backend(&self) -> Backend {
        self.backend.unwrap_or(Backend::None)
    }

    /// Whether all was made, or tried, that there is to make.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled || self.world.is_none()
    }

    fn take_back(&mut self, done: Option<Box<(Firewall, Report)>>) {
        self.is_settled = true;
        self.firewall = match done {
            Some(done) => {
                self.tell(&done.1);
                match done.1.is_good() {
                    true => self.has(Part::Rules),
                    false => self.lacks(Part::Rules),
                }
                Some(done.0)
            }
            // It panicked: start anew at the next look.
            None => self.rules().map(|plan| self.keeper(plan.clone())),
        };
    }

    fn ensure_interface(&mut self) {
        if let Some(mut interface) = self.interface.take() {
            let report = interface.ensure();
            self.tell_interface(&report);
            match report.is_good() {
                true => self.has(Part::Interface),
                false => self.lacks(Part::Interface),
            }
            self.interface = Some(interface);
        }
    }

    /// What rules are kept for, where any are.
    fn rules(&self) -> Option<&Plan> {
        self.plan.as_ref().filter(|_| self.backend() != Backend::None)
    }

    /// Who keeps the rules of a plan.
    fn keeper(&self, plan: Plan) -> Firewall {
        let life = if self.tears_down { Life::Process } else { Life::Node };
        self.backend().keeper(plan, life).rewriting(self.rewrites.clone())
    }

    fn rule_claims(&self) -> Vec<Claim> {
        let plan = self.rules().into_iter();
        plan.flat_map(|plan| {
            plan.addresses.iter().map(|address| Claim::Rules(*address, plan.dns_port))
        })
        .collect()
    }

    fn line(&self, level: Level, text: &str) {
        if let Some((_, log)) = &self.world {
            log.line(level, format_args!("{text}"));
        }
    }

    /// /ready may count on a part.
    fn has(&self, part: Part) {
        if let Some(readiness) = &self.readiness {
            readiness.has(part);
        }
    }

    /// /ready may not, or no more.
    fn lacks(&self, part: Part) {
        if let Some(readiness) = &self.readiness {
            readiness.lacks(part);
        }
    }

    fn tell(&self, report: &Report) {
        if let Some((metrics, log)) = &self.world {
            report.tell(log, metrics);
        }
    }

    fn tell_interface(&self, report: &InterfaceReport) {
        let Some((metrics, log)) = &self.world else { return };
        for (kind, count) in
            [("interface_add", report.add_errors), ("interface_check", report.check_errors)]
        {
            metrics.counter(&names::SETUP_ERRORS, &[kind]).add(count);
        }
        for trouble in &report.troubles {
            metrics.counter(&names::NODE_TROUBLE, &[trouble.label()]).increment();
        }
        if report.repaired > 0 {
            metrics.counter(&names::NODE_REPAIRED, &[]).add(report.repaired);
        }
        for (level, text) in &report.lines {
            log.line(*level, format_args!("{text}"));
        }
    }
}

/// Waits until links or addresses changed in a way that may be ours.
async fn changed(watch: &mut AsyncFd<Netlink>) {
    loop {
        let Ok(mut guard) = watch.readable_mut().await else {
            return std::future::pending().await;
        };
        match guard.try_io(|watch| read_news(watch.get_mut())) {
            Ok(Ok(true)) => return,
            // Nothing of ours, or nothing any more.
            Ok(Ok(false)) | Err(_) => {}
            // The socket is broken: the interval is left.
            Ok(Err(_)) => return std::future::pending().await,
        }
    }
}
