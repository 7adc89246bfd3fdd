//! Connections while they are open: how many there may be, who goes for another one's sake, and what a
//! connection's task shares with its waiting queries.
//!
//! Owns the bounds and the octets that are counted against the process's budget. Never reads or writes a
//! socket: streams inside TLS, HTTPS and QUIC are counted here, too.

use super::held::HeldBack;
use crate::metrics::Counter;
use crate::net::listener::Listener;
use crate::net::worker::Worker;
use crate::plugin::Budget;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Poll, Waker};
use tokio::task::yield_now;
use tokio::time::Instant;

/// The most connections of one worker, fewer where descriptors are few; one beyond takes the place of the one
/// that has been idle for the longest. When none is idle it takes that of the client with most connections, and
/// is closed at once where that would not be fair.
pub const CONNECTIONS_PER_WORKER_MOST: usize = 2_048;

/// Client connections have one of so many parts of the descriptors: upstreams are asked, files read and
/// sockets handed over with the others.
const PARTS_OF_DESCRIPTORS: u64 = 3;

/// The most connections of each of `workers` where the process may have `descriptors` open.
pub(in crate::net) fn connections_most(descriptors: u64, workers: usize) -> usize {
    let part = descriptors / PARTS_OF_DESCRIPTORS / workers.max(1) as u64;
    usize::try_from(part).unwrap_or(usize::MAX).clamp(1, CONNECTIONS_PER_WORKER_MOST)
}

/// The most queries of one connection that wait; beyond, nothing is read until one is answered.
pub const WAITING_PER_CONNECTION_MOST: usize = 64;

/// Octets that a connection takes while it is idle, by its kind: its task, its session, and what hyper or
/// quinn keeps for it.
pub(in crate::net) const TCP_OCTETS: u64 = 2 * 1024;
pub(in crate::net) const TLS_OCTETS: u64 = 9 * 1024;
pub(in crate::net) const HTTPS_OCTETS: u64 = 32 * 1024;
pub(in crate::net) const QUIC_OCTETS: u64 = 33 * 1024;

/// Octets of connections that each worker may have however small the memory is.
pub(in crate::net) const OCTETS_LEAST: u64 = 2 * QUIC_OCTETS;

/// Unsent octets of one connection beyond which nothing is read.
pub const UNSENT_MOST: usize = 64 * 1024;

/// Buffers of a connection are given back when they are empty and larger than this.
pub(super) const KEPT_OCTETS: usize = 4 * 1024;

/// What a connection's task and those of its waiting queries share.
pub(in crate::net) struct Connection {
    pub(super) unsent: RefCell<Vec<u8>>,
    pub(super) waiting: Cell<usize>,
    /// When the last message came or the last reply was sent.
    pub(super) active: Cell<Instant>,
    /// Whose it is; `None` when it is not one client's.
    client: Option<IpAddr>,
    /// Another one gets its place.
    evicted: Cell<bool>,
    /// Something changed since the task looked.
    woken: Cell<bool>,
    budget: Arc<Budget>,
    /// Counts connections that are closed for want of memory.
    starved: Counter,
    /// Octets taken of the budget.
    counted: Cell<u64>,
    /// Octets that it takes itself.
    own: u64,
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    fn new(budget: Arc<Budget>, starved: Counter, client: Option<IpAddr>, own: u64) -> Connection {
        budget.connections.add(own);
        Connection {
            budget,
            client,
            starved,
            own,
            counted: Cell::new(0),
            unsent: RefCell::default(),
            waiting: Cell::new(0),
            active: Cell::new(Instant::now()),
            evicted: Cell::new(false),
            woken: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// A query begins to wait. Paired with [`Connection::waits_no_more`].
    pub(in crate::net) fn waits(&self) {
        self.waiting.set(self.waiting.get() + 1);
    }

    /// A query waits no more.
    pub(in crate::net) fn waits_no_more(&self) {
        self.waiting.set(self.waiting.get() - 1);
    }

    /// Something came or went.
    pub(in crate::net) fn is_active_at(&self, now: Instant) {
        self.active.set(now);
    }

    /// True once it must end for another one's sake.
    pub(in crate::net) fn is_evicted(&self) -> bool {
        self.evicted.get()
    }

    /// Nothing waits and nothing is unsent.
    fn is_idle(&self) -> bool {
        self.waiting.get() == 0 && !self.evicted.get() && self.unsent.borrow().is_empty()
    }

    /// Has the connection's task look again.
    pub(in crate::net) fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Returns once another one is to have its place.
    pub(in crate::net) async fn until_evicted(&self) {
        while !self.is_evicted() {
            poll_fn(|task| self.poll_woken(task)).await;
        }
    }

    /// Ready once after each [`Connection::wake`].
    pub(in crate::net) fn poll_woken(&self, task: &mut task::Context<'_>) -> Poll<()> {
        if self.woken.replace(false) {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(task.waker())) {
            *waker = Some(task.waker().clone());
        }
        Poll::Pending
    }

    /// Adds a reply to what is to be sent, behind its length.
    pub(super) fn push(&self, reply: &[u8]) {
        let mut unsent = self.unsent.borrow_mut();
        // A reply is at most 65535 octets (ReplyLimits::stream).
        let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
        unsent.extend_from_slice(&length.to_be_bytes());
        unsent.extend_from_slice(&reply[..usize::from(length)]);
        drop(unsent);
        self.count(0);
    }

    /// Takes of the budget what the connection holds back by now, `partial` octets of queries that
    /// are not whole among it. When there is not so much it ends.
    pub(super) fn count(&self, partial: usize) {
        let held = (self.unsent.borrow().capacity() + partial) as u64;
        let before = self.counted.get();
        // Every other reply grows nothing: the counters of all workers stay untouched.
        if held < before + KEPT_OCTETS as u64 && held + KEPT_OCTETS as u64 > before {
            return;
        }
        self.counted.set(held);
        let buffers = &self.budget.buffers;
        buffers.add(held);
        buffers.give(before);
        if held > before {
            self.end_when_over();
        }
    }

    /// Octets that others keep for the connection, counted until they are gone. When there is no memory for them
    /// it ends.
    pub(in crate::net) fn hold_back(&self, octets: Vec<u8>) -> HeldBack {
        let mut held = HeldBack::new(octets, self.budget.clone());
        self.hold_more(&mut held, &[]);
        held
    }

    /// Adds to such octets.
    pub(in crate::net) fn hold_more(&self, held: &mut HeldBack, octets: &[u8]) {
        held.octets.extend_from_slice(octets);
        if held.count() {
            self.end_when_over();
        }
    }

    fn end_when_over(&self) {
        if self.budget.buffers.is_over() && !self.evicted.replace(true) {
            self.starved.increment();
            self.wake();
        }
    }

    /// Whether nothing more is read for now.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.get() >= WAITING_PER_CONNECTION_MOST
            || self.unsent.borrow().len() >= UNSENT_MOST
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.budget.buffers.give(self.counted.get());
        self.budget.connections.give(self.own);
    }
}

/// Whether there is a place for one more connection of `client`, which takes `octets`; made if need be. What
/// there is none for counts as refused.
pub(in crate::net) async fn has_place(worker: &Worker, client: IpAddr, octets: u64) -> bool {
    if has_room(worker, octets) {
        return true;
    }
    // Of those that must end already the octets are still taken.
    while worker.open.borrow().len() >= worker.node.connections_most
        || stays(worker) + octets > octets_most(worker)
    {
        if !evict(worker, client) {
            worker.counters.refused.increment();
            return false;
        }
    }
    // Their tasks end them.
    yield_now().await;
    let has_room = has_room(worker, octets);
    if !has_room {
        worker.counters.refused.increment();
    }
    has_room
}

/// Whether there is a place for one more connection, which takes `octets`, as it is.
pub(in crate::net) fn has_room(worker: &Worker, octets: u64) -> bool {
    worker.open.borrow().len() < worker.node.connections_most
        && worker.connection_octets.get() + octets <= octets_most(worker)
}

/// The most octets of a worker's connections. None takes the others' part: it could not evict theirs.
fn octets_most(worker: &Worker) -> u64 {
    let workers = worker.equipment.workers.max(1) as u64;
    (worker.equipment.budget.connections.most() / workers).max(OCTETS_LEAST)
}

/// Octets of the connections that need not end.
fn stays(worker: &Worker) -> u64 {
    worker.open.borrow().values().map(|connection| connection.own).sum()
}

/// Ends a connection for the sake of one of `client`: that which has been idle for the longest, or where none is
/// idle one of whoever has most. False when there is none to end.
fn evict(worker: &Worker, client: IpAddr) -> bool {
    let mut open = worker.open.borrow_mut();
    let idle = open.iter().filter(|(_, connection)| connection.is_idle());
    let oldest = idle.min_by_key(|(_, connection)| connection.active.get());
    let place = oldest.map(|(place, _)| *place).or_else(|| of_greediest(&open, client));
    let Some(gone) = place.and_then(|place| open.remove(&place)) else { return false };
    gone.evicted.set(true);
    gone.wake();
    worker.counters.evicted.increment();
    true
}

/// The connection that has been silent for the longest of the client that has most, if it still has as many as
/// `newcomer` when `newcomer` has one more: nobody keeps all others out by being busy on every connection.
fn of_greediest(
    open: &HashMap<*const Connection, Rc<Connection>>,
    newcomer: IpAddr,
) -> Option<*const Connection> {
    let mut of_clients: HashMap<IpAddr, usize> = HashMap::new();
    for client in open.values().filter_map(|connection| connection.client) {
        *of_clients.entry(client).or_default() += 1;
    }
    let own = of_clients.get(&newcomer).copied().unwrap_or(0);
    let (greediest, most) = of_clients.into_iter().max_by_key(|(_, count)| *count)?;
    let theirs = open.iter().filter(|(_, connection)| connection.client == Some(greediest));
    let oldest = theirs.min_by_key(|(_, connection)| connection.active.get());
    oldest.map(|(place, _)| *place).filter(|_| most > own + 1)
}

/// A connection while it is open: counted, and known to its listener.
pub(in crate::net) struct Open {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    shared: Rc<Connection>,
}

impl Open {
    /// A connection of `client` that has just come and takes `octets`, known to its worker and its listener.
    pub(in crate::net) fn new(
        worker: &Rc<Worker>,
        listener: &Rc<Listener>,
        client: Option<IpAddr>,
        octets: u64,
    ) -> Open {
        let shared = Rc::new(Connection::new(
            worker.equipment.budget.clone(),
            worker.counters.starved.clone(),
            client,
            octets,
        ));
        worker.connection_octets.set(worker.connection_octets.get() + octets);
        worker.open.borrow_mut().insert(Rc::as_ptr(&shared), shared.clone());
        worker.node.connections.fetch_add(1, Ordering::Relaxed);
        listener.connections.borrow_mut().insert(Rc::as_ptr(&shared), shared.clone());
        Open { worker: worker.clone(), listener: listener.clone(), shared }
    }

    /// What is woken when the listener changes.
    pub(in crate::net) fn shared(&self) -> &Rc<Connection> {
        &self.shared
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.open.borrow_mut().remove(&Rc::as_ptr(&self.shared));
        let octets = self.worker.connection_octets.get() - self.shared.own;
        self.worker.connection_octets.set(octets);
        self.worker.node.connections.fetch_sub(1, Ordering::Relaxed);
        self.listener.connections.borrow_mut().remove(&Rc::as_ptr(&self.shared));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Registry, names};
    use std::time::Duration;

    fn connection() -> Connection {
        connection_of(None)
    }

    fn connection_of(client: Option<IpAddr>) -> Connection {
        let starved = Registry::new(1).counter(&names::CONNECTIONS_STARVED, &[]);
        Connection::new(Arc::default(), starved, client, TCP_OCTETS)
    }

    #[test]
    fn where_descriptors_are_few_connections_leave_most_of_them() {
        for (descriptors, workers, most) in [
            (1 << 20, 16, CONNECTIONS_PER_WORKER_MOST),
            (u64::MAX, 1, CONNECTIONS_PER_WORKER_MOST),
            (4096, 2, 682),
            (64, 2, 10),
            (16, 16, 1),
        ] {
            assert_eq!(connections_most(descriptors, workers), most, "{descriptors}");
        }
    }

    #[test]
    fn who_has_most_makes_room_unless_the_newcomer_has_as_many() {
        let client = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut open = HashMap::new();
        let mut ages = Vec::new();
        for last in [0, 0, 0, 0, 1, 1, 1, 2] {
            let connection = Rc::new(connection_of(Some(client(last))));
            connection.active.set(Instant::now() + Duration::from_secs(ages.len() as u64));
            ages.push(Rc::as_ptr(&connection));
            open.insert(Rc::as_ptr(&connection), connection);
        }
        let nobodys = Rc::new(connection());
        open.insert(Rc::as_ptr(&nobodys), nobodys);
        for (newcomer, gone) in [(3, Some(ages[0])), (2, Some(ages[0])), (1, None), (0, None)] {
            assert_eq!(of_greediest(&open, client(newcomer)), gone, "{newcomer}");
        }
    }

    #[test]
    fn nothing_is_read_while_too_many_queries_wait() {
        let connection = connection();
        for _ in 0..WAITING_PER_CONNECTION_MOST {
            assert!(!connection.is_full());
            connection.waits();
        }
        assert!(connection.is_full());
        connection.waits_no_more();
        assert!(!connection.is_full());
    }

    #[test]
    fn nothing_is_read_while_too_much_is_unsent() {
        let connection = connection();
        connection.push(&[0; UNSENT_MOST - 3]);
        assert!(!connection.is_full() && !connection.is_idle());
        connection.push(&[]);
        assert!(connection.is_full());
    }
}
