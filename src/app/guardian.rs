//! `-guardian`: a small parent that outlives the server. When the server is killed, or ends in
//! failure, the parent removes the firewall rules, so that queries for the cluster DNS Service go to
//! the Service again.
//!
//! Owns the server's process. Starts no thread and no runtime while it waits: it is to hold next to
//! no memory. The interface stays: a closed port on it answers at once that nobody is there, and
//! kube-proxy takes queries for the Service before they come to it.

use super::flags::{self, Outcome};
use super::inherited::Given;
use super::log::Log;
use super::options::Options;
use super::privileges::Privileges;
use crate::metrics::Registry;
use crate::node::firewall::{Choice, Life, Plan, Wanted, Within};
use crate::node::{Claim, is_claimed};
use crate::plugin::{Journal, Level};
use nix::errno::Errno;
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Tells the server who its guardian is: the guardian's process id.
const GUARDIAN: &str = "NODENS_GUARDIAN";

/// This program, whatever stands at its path by now.
const PROGRAM: &str = "/proc/self/exe";

/// What the guardian hands on to the server.
const HANDED_ON: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// How long the guardian waits for programs that the server had started, so that none of them sets
/// a rule behind its back.
const ORPHANS_TIME: Duration = Duration::from_millis(500);

/// How often it asks whether they have ended.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// How the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By itself, with a code.
    Code(u8),
    /// By a signal.
    Killed(Signal),
}

impl End {
    /// The guardian's own exit code: the server's, or 128 and the signal's number, as shells have it.
    fn code(self) -> u8 {
        match self {
            End::Code(code) => code,
            End::Killed(signal) => 128 + signal as u8,
        }
    }
}

/// Serves as the guardian when the command line asks for one, until the server has ended: gives the
/// exit code. `None` when this process is to serve itself.
pub(super) fn guard(arguments: &[String], given: &mut Given) -> Option<u8> {
    if !arguments.iter().any(|argument| argument.trim_start_matches('-').starts_with("guardian")) {
        return None;
    }
    let Outcome::Run(options) = flags::parse(arguments) else { return None };
    if !options.network.has_guardian || is_guarded() {
        return None;
    }
    match watch(arguments, &options, std::mem::take(given)) {
        Ok(end) => {
            clean_up(&options, end);
            Some(end.code())
        }
        Err(why) => {
            log(&options).last_word(&format!("the guardian cannot start the server: {why}"));
            Some(1)
        }
    }
}

/// Whether a process with this number is our guardian: what it was given is for us.
pub(super) fn is(process: &str) -> bool {
    let guardian = std::env::var(GUARDIAN).ok();
    guardian.is_some_and(|id| id == process && id == getppid().to_string())
}

/// Whether this process is a guardian's server; if so it ends, cleanly, with its guardian.
fn is_guarded() -> bool {
    let guardian = std::env::var(GUARDIAN).unwrap_or_default();
    let has_guardian = || is(&guardian);
    if !has_guardian() {
        return false;
    }
    // Refused by no kernel; a server without a guardian still serves.
    let _ = set_pdeathsig(Signal::SIGTERM);
    // What the guardian waits for was held back from its start on.
    let _ = waited_for().thread_unblock();
    // It may have died before the kernel was to tell of it.
    has_guardian()
}

/// Starts the server, hands signals on and waits for its end. Reaps what else comes to it, as the
/// first process of a container has to.
fn watch(arguments: &[String], options: &Options, given: Given) -> Result<End, String> {
    let waited_for = waited_for();
    // Before the start: no signal may come in between.
    waited_for.thread_block().map_err(|error| error.to_string())?;
    let mut command = Command::new(PROGRAM);
    command.args(arguments.get(1..).unwrap_or_default());
    if let Some(name) = arguments.first() {
        command.arg0(name);
    }
    // Refused by no kernel; programs that outlive the server are then not waited for.
    let _ = set_child_subreaper(true);
    // A group of its own: what a terminal sends comes to the guardian alone, and from it once.
    command.env(GUARDIAN, std::process::id().to_string()).process_group(0);
    given.pass_on();
    let child = command.spawn().map_err(|error| error.to_string())?;
    // Here nobody reads them.
    drop(given);
    let server = Pid::from_raw(i32::try_from(child.id()).map_err(|error| error.to_string())?);
    // The server needs more for its start; from here on rules are removed, at most.
    let network = &options.network;
    let backend = Choice::make(network.firewall).backend;
    let privileges = Privileges::of_guardian(network, backend);
    privileges.hand_on();
    privileges.give_up_silently();
    loop {
        match waited_for.wait() {
            Ok(Signal::SIGCHLD) => {
                if let (Some(end), _) = reap(server) {
                    return Ok(end);
                }
            }
            Ok(signal) => {
                // Fails only when it has ended: the next signal says so.
                let _ = kill(server, signal);
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn waited_for() -> SigSet {
    let mut all = SigSet::from_iter(HANDED_ON);
    all.add(Signal::SIGCHLD);
    all
}

/// Takes note of all that has ended: the server's end when it is among them, and whether others are
/// left.
fn reap(server: Pid) -> (Option<End>, bool) {
    let mut end = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(id, code)) if id == server => {
                end = Some(End::Code(u8::try_from(code).unwrap_or(1)));
            }
            Ok(WaitStatus::Signaled(id, signal, _)) if id == server => {
                end = Some(End::Killed(signal));
            }
            Ok(WaitStatus::StillAlive) => return (end, true),
            Err(_) => return (end, false),
            Ok(_) => {}
        }
    }
}

/// Waits for programs that the server had started.
fn wait_for_orphans() {
    let until = Instant::now() + ORPHANS_TIME;
    while reap(Pid::from_raw(0)).1 && Instant::now() < until {
        sleep(ASK_EVERY);
    }
}

/// Removes what a server leaves that could not do it itself.
fn clean_up(options: &Options, end: End) {
    let network = &options.network;
    if end == End::Code(0) || !network.teardown || network.firewall == Wanted::None {
        return;
    }
    wait_for_orphans();
    let log = log(options);
    let how = match end {
        End::Code(code) => format!("ended with code {code}"),
        End::Killed(signal) => format!("was ended by {signal}"),
    };
    log.line(Level::Warning, format_args!("The server {how}: its firewall rules are removed"));
    let is_free =
        |address: &std::net::IpAddr| !is_claimed(&Claim::Rules(*address, options.dns_port));
    let all = &options.local.addresses;
    let addresses: Vec<_> = all.iter().copied().filter(is_free).collect();
    let is_whole = addresses.len() == all.len();
    let plan = Plan { addresses, dns_port: options.dns_port, health_port: network.health_port };
    let mut keeper = Choice::make(network.firewall).backend.keeper(plan, Life::Process);
    // First, for until then nobody answers.
    keeper.let_queries_go(Within::CLEARING).tell(&log, &Registry::new(0));
    let report = if is_whole {
        keeper.remove_all_left_behind(Within::CLEARING)
    } else {
        log.line(Level::Info, format_args!("Another nodens serves with the rules: they stay"));
        keeper.remove_plan_left_behind(Within::CLEARING)
    };
    report.tell(&log, &Registry::new(0));
    log.flush();
}

fn log(options: &Options) -> Log {
    let log = Log::new(&Registry::new(0));
    log.write_as(options.log_format);
    log.start();
    log
}
