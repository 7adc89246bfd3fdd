//! The service manager's store: it keeps our listening sockets over a restart, whatever ends us, and gives
//! them to the next process ([`super::inherited`]). What comes in between waits in them.
//!
//! Owns what the manager has by now. All or nothing: where there is no room for every socket, none is kept.

use super::handover::{SITES_MOST, SOCKETS_MOST};
use super::inherited::Inherited;
use super::log::Log;
use super::notify::Notify;
use crate::metrics::{Gauge, Registry, names};
use crate::net::{HandedSockets, Keeper, socket_number};
use crate::plugin::{Journal, Level};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the manager says of its store: how many sockets it keeps. systemd 254 and later set it.
const VARIABLE: &str = "FDSTORE";

/// The longest name that systemd takes.
const NAME_MOST: usize = 255;

/// All that this process listens at, for a successor or the service manager.
pub(super) struct Listening {
    /// Of DNS.
    pub(super) sockets: Vec<HandedSockets>,
    /// Of HTTP, by their addresses.
    pub(super) sites: Vec<(String, TcpListener)>,
}

/// The manager's store; clones share it.
#[derive(Clone)]
pub(super) struct Store {
    /// How many sockets it takes; none without a store.
    most: usize,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    notify: Notify,
    /// The kernel's numbers of the sockets that it has, by their names.
    kept: BTreeMap<String, BTreeSet<u64>>,
    keeper: Keeper,
    has_told: bool,
    log: Log,
    gauge: Gauge,
}

impl Store {
    /// As `FDSTORE` says, with what the manager gave us of it.
    pub(super) fn from_variable(
        variable: impl Fn(&str) -> Option<String>,
        notify: Notify,
        inherited: &Inherited,
        (log, metrics): (&Log, &Registry),
    ) -> Store {
        let text = variable(VARIABLE).unwrap_or_default();
        let most = text.parse().unwrap_or_else(|_| {
            if !text.is_empty() {
                let line = format_args!("{VARIABLE}={text} is no number: no socket is kept");
                log.line(Level::Warning, line);
            }
            0
        });
        let most = if notify.is_heard() { most.min(SOCKETS_MOST + SITES_MOST) } else { 0 };
        let inner = Inner {
            notify,
            kept: inherited.kept().clone(),
            keeper: Keeper::Nobody,
            has_told: false,
            log: log.clone(),
            gauge: metrics.gauge(&names::SOCKETS_KEPT, &[]),
        };
        Store { most, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.most > 0
    }

    /// The manager, when it has every socket that this process reads.
    pub(super) fn keeper(&self) -> Keeper {
        self.lock().keeper
    }

    /// Has the manager close what is called so, and waits until it has: the kernel would go on giving
    /// queries to a socket that nobody reads. Blocks, within a bound of time.
    pub(super) fn forget(&self, names: BTreeSet<String>) {
        let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        if !self.is_there() || names.is_empty() {
            return;
        }
        let mut inner = self.lock();
        for name in names {
            inner.forget(&name);
        }
        inner.notify.wait_until_heard();
    }

    /// Has the manager keep these sockets and no others. Blocks, within a bound of time.
    pub(super) fn keep(&self, listening: &Listening) {
        if self.is_there() {
            self.lock().keep(by_name(listening), self.most);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn keep(&mut self, mut wanted: BTreeMap<String, Vec<BorrowedFd<'_>>>, most: usize) {
        let count: usize = wanted.values().map(Vec::len).sum();
        if count > most {
            self.tell_once(&format!(
                "the service manager keeps {most} at most (FileDescriptorStoreMax=) and there are \
                 {count}: none is kept, and a restart loses the queries that come meanwhile"
            ));
            wanted.clear();
        }
        let wanted: Vec<(String, Vec<BorrowedFd<'_>>, BTreeSet<u64>)> = wanted
            .into_iter()
            .map(|(name, sockets)| {
                let numbers = sockets.iter().filter_map(|one| socket_number(*one)).collect();
                (name, sockets, numbers)
            })
            .collect();
        let mut gone = self.kept.clone();
        gone.retain(|kept, theirs| {
            !wanted.iter().any(|(name, _, numbers)| name == kept && theirs.is_subset(numbers))
        });
        for name in gone.keys() {
            self.forget(name);
        }
        let missing =
            |kept: &BTreeMap<String, BTreeSet<u64>>, name: &str, numbers: &BTreeSet<u64>| {
                numbers.is_empty() || kept.get(name).is_none_or(|theirs| theirs != numbers)
            };
        let mut result = Ok(());
        for (name, sockets, numbers) in wanted {
            if result.is_ok() && missing(&self.kept, &name, &numbers) {
                result = self.notify.keep(&name, &sockets);
                if result.is_ok() {
                    self.kept.insert(name, numbers);
                }
            }
        }
        if let Err(error) = &result {
            self.tell_once(&format!("the service manager cannot be given the sockets: {error}"));
        }
        let keeps_all = result.is_ok() && count > 0 && count <= most;
        self.keeper = if keeps_all { Keeper::Manager } else { Keeper::Nobody };
        self.gauge.set(if keeps_all { count as f64 } else { 0.0 });
    }

    fn forget(&mut self, name: &str) {
        self.kept.remove(name);
        self.notify.forget(name);
    }

    fn tell_once(&mut self, text: &str) {
        if !std::mem::replace(&mut self.has_told, true) {
            self.log.line(Level::Warning, format_args!("Kept sockets: {text}"));
        }
    }
}

/// All sockets by the names that the manager knows them by. Where the kernel chose the port, the next
/// process would not find it.
fn by_name(listening: &Listening) -> BTreeMap<String, Vec<BorrowedFd<'_>>> {
    let mut all: BTreeMap<String, Vec<BorrowedFd<'_>>> = BTreeMap::new();
    for one in listening.sockets.iter().filter(|one| one.port != 0) {
        let host = one.host.as_deref().unwrap_or("all");
        let named =
            all.entry(name(one.transport.word(), &format!("{host}:{}", one.port))).or_default();
        named.extend(one.streams.iter().map(AsFd::as_fd));
        named.extend(one.datagrams.iter().map(AsFd::as_fd));
    }
    for (address, socket) in listening.sites.iter().filter(|(address, _)| !address.ends_with(":0"))
    {
        all.entry(name("http", address)).or_default().push(socket.as_fd());
    }
    all
}

/// A name that systemd takes: printable, without colons.
fn name(kind: &str, address: &str) -> String {
    let allowed = |letter: char| match letter {
        ':' => ',',
        ' '..='~' => letter,
        _ => '_',
    };
    format!("{kind} {address}").chars().map(allowed).take(NAME_MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::KeyTransport;
    use std::net::UdpSocket;

    #[test]
    fn names_are_what_systemd_takes_and_a_port_that_the_kernel_chose_is_not_kept() {
        let socket = |port| HandedSockets {
            transport: KeyTransport::Dns,
            host: Some("fe80::1%eth0".to_owned()),
            port,
            streams: Vec::new(),
            datagrams: vec![UdpSocket::bind("127.0.0.1:0").unwrap()],
            keeper: Keeper::Nobody,
        };
        let site = || TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = Listening {
            sockets: vec![socket(53), socket(0)],
            sites: [":9253", "127.0.0.1:0", "h\u{f6}st:1"]
                .map(|address| (address.to_owned(), site()))
                .into(),
        };
        let names: Vec<String> = by_name(&listening).into_keys().collect();
        assert_eq!(names, ["dns fe80,,1%eth0,53", "http ,9253", "http h_st,1"]);
        assert_eq!(name("http", &"x".repeat(300)).len(), NAME_MOST);
    }
}
