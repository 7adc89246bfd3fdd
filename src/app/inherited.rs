//! The sockets that this process was given at its start, by a service manager that had kept them for it or
//! opened them for it (`LISTEN_FDS`, sd_listen_fds(3)).
//!
//! Owns them until somebody wants them, and the lines about those that nobody can use. Takes none by
//! its name: what a socket is decides. Asked for before this process opens anything.

use super::handover::{SITES_MOST, SOCKETS_MOST};
use super::log::Log;
use crate::admin;
use crate::engine::Snapshot;
use crate::metrics::{Registry, names};
use crate::net::{Found, FoundSocket, HandedSockets, take_wanted};
use crate::plugin::{Journal, Level};
use crate::sys::inherited::{FIRST, pass_on, take};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

/// The most descriptors that are looked at: what can be handed over.
const LOOKED_AT_MOST: usize = SOCKETS_MOST + SITES_MOST;

/// The most descriptors that are closed beyond those.
const CLOSED_MOST: usize = 1 << 16;

/// What was given, as it came.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Descriptors, with their names and what is wrong with those that are none.
    descriptors: Vec<(String, io::Result<OwnedFd>)>,
    /// What else is wrong.
    trouble: Vec<String>,
}

impl Given {
    /// As `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID` say; `is_ours` knows the number of this process
    /// and of one that gives all it was given to this one.
    pub(super) fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        is_ours: impl Fn(&str) -> bool,
    ) -> Given {
        let mut given = Given::default();
        let Some(text) = variable("LISTEN_FDS") else { return given };
        let Ok(count) = text.parse::<usize>() else {
            given.trouble.push(format!("LISTEN_FDS={text} is no number: no socket is taken"));
            return given;
        };
        let owner = variable("LISTEN_PID").unwrap_or_default();
        if !is_ours(&owner) {
            let told = format!("LISTEN_PID={owner} is not this process: no socket is taken");
            given.trouble.push(told);
            return given;
        }
        if count > LOOKED_AT_MOST {
            given.trouble.push(format!(
                "LISTEN_FDS={count} is more than {LOOKED_AT_MOST}: the others are closed"
            ));
        }
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let mut all = take(count.min(CLOSED_MOST));
        // What nobody reads must not be open: the kernel would go on giving it queries.
        all.truncate(LOOKED_AT_MOST);
        given.descriptors = names.zip(all).collect();
        given
    }

    /// Has a program that is started while this is there inherit all of it.
    pub(super) fn pass_on(&self) {
        for descriptor in self.descriptors.iter().filter_map(|(_, one)| one.as_ref().ok()) {
            // One that is not passed on is opened there.
            let _ = pass_on(descriptor);
        }
    }

    /// Looks at what each one is, and tells of those that are of no use.
    pub(super) fn recognize(self, log: &Log, metrics: &Registry) -> Inherited {
        let Given { descriptors, trouble } = self;
        for line in trouble {
            log.line(Level::Warning, format_args!("Inherited sockets: {line}"));
        }
        let mut inherited = Inherited {
            sockets: Vec::new(),
            names: BTreeSet::new(),
            kept: BTreeMap::new(),
            log: log.clone(),
            metrics: metrics.clone(),
        };
        for (number, (name, descriptor)) in (FIRST..).zip(descriptors) {
            let shown = if name.is_empty() { String::new() } else { format!(" ({name})") };
            let found = descriptor
                .map_err(|_| "it is not open")
                .and_then(|descriptor| Found::recognize(name.clone(), descriptor));
            match found {
                Ok(found) => inherited.sockets.push(found),
                Err(why) => {
                    inherited.tell("unusable", 1);
                    inherited.names.insert(name);
                    log.line(
                        Level::Warning,
                        format_args!(
                            "Inherited sockets: descriptor {number}{shown} is not taken: {why}"
                        ),
                    );
                }
            }
        }
        for found in &inherited.sockets {
            inherited.kept.entry(found.name.clone()).or_default().extend(found.number());
        }
        inherited
    }
}

/// Sockets that wait for somebody to want them.
pub(super) struct Inherited {
    sockets: Vec<Found>,
    /// The names of those that are of no use.
    names: BTreeSet<String>,
    /// All that serve, as the manager has them: their kernel's numbers by their names.
    kept: BTreeMap<String, BTreeSet<u64>>,
    log: Log,
    metrics: Registry,
}

impl Inherited {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Whether there is one that is bound to `address`.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        self.sockets.iter().any(|found| found.local == address)
    }

    /// Takes out those that `snapshot` listens at.
    pub(super) fn take_wanted(&mut self, snapshot: &Snapshot) -> Vec<HandedSockets> {
        let before = self.sockets.len();
        let wanted = take_wanted(&mut self.sockets, snapshot);
        self.tell("used", before - self.sockets.len());
        wanted
    }

    /// Takes out the one for an HTTP address.
    pub(super) fn take_site(&mut self, address: &str) -> Option<TcpListener> {
        let is_it = |found: &mut Found| {
            matches!(found.socket, FoundSocket::Stream(_)) && admin::is_at(address, found.local)
        };
        let found = self.sockets.extract_if(.., is_it).next()?;
        self.tell("used", 1);
        match found.socket {
            FoundSocket::Stream(socket) => Some(socket),
            FoundSocket::Datagrams(_) => None,
        }
    }

    /// Closes what is left, and tells of it. Gives the names of all that is not used: whoever keeps them
    /// is to keep them no longer.
    pub(super) fn close_rest(&mut self) -> BTreeSet<String> {
        let mut names = std::mem::take(&mut self.names);
        let rest = std::mem::take(&mut self.sockets);
        self.tell("unwanted", rest.len());
        for found in rest {
            self.log.line(
                Level::Info,
                format_args!(
                    "Inherited sockets: {} ({}) is closed: the Corefile does not listen there",
                    found.shown(),
                    found.name
                ),
            );
            names.insert(found.name);
        }
        names
    }

    /// What the manager has, by the names that it was given as.
    pub(super) fn kept(&self) -> &BTreeMap<String, BTreeSet<u64>> {
        &self.kept
    }

    fn tell(&self, result: &str, count: usize) {
        if count > 0 {
            self.metrics.counter(&names::SOCKETS_INHERITED, &[result]).add(count as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            variables.iter().find(|(own, _)| *own == name).map(|(_, text)| (*text).to_owned())
        };
        let given = Given::from_variables(variable, |process| process == "7");
        assert!(given.descriptors.iter().all(|(_, one)| one.is_err()), "nothing of ours is taken");
        given.trouble
    }

    #[test]
    fn variables_that_are_wrong_or_for_somebody_else_are_told_once() {
        assert_eq!(trouble(&[]), [""; 0]);
        assert_eq!(trouble(&[("LISTEN_PID", "7")]), [""; 0]);
        for wrong in ["", "two", "-1", "99999999999999999999999"] {
            let told = format!("LISTEN_FDS={wrong} is no number: no socket is taken");
            assert_eq!(trouble(&[("LISTEN_FDS", wrong), ("LISTEN_PID", "7")]), [told]);
        }
        for owner in ["", "8", "seven"] {
            let told = format!("LISTEN_PID={owner} is not this process: no socket is taken");
            assert_eq!(trouble(&[("LISTEN_FDS", "1"), ("LISTEN_PID", owner)]), [told]);
        }
    }
}
