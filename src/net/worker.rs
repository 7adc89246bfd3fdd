//! One worker: what its tasks share, and the commands that change what it serves.
//!
//! Owns the thread's buffers, which addresses it serves, and the bounds on what may wait. A worker is
//! one thread with a runtime of its own; nothing here is shared with other workers but [`Node`].

use super::clock::FrequentClock;
use super::counters::Counters;
use super::handed::{HandedConnection, Heir, adopt};
use super::listener::{Ending, Listener, Serving, SocketsAfter};
use super::places::{Place, Places, may_have_more};
use super::rest::{Rests, go_on, turn_began};
use super::sockets::{Address, Bound};
use super::tcp::{self, Connection, connections_most};
use super::thrift::{self, Credit, SharedCredit, Thrift};
use super::udp::{self, Port};
use super::upstream::{Dispatcher, Shared};
use super::workers::Equipment;
use crate::dns::Response;
use crate::engine::{Flights, Means, Parked, Refresh, Snapshot};
use crate::plugin::Now;
use crate::plugin::forward::Exchanged;
use crate::sys::descriptors;
use crate::sys::memory::Spare;
use rand::rngs::StdRng;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{spawn_local, yield_now};
use tokio::time::Instant;

/// The most queries that wait at once on the whole node; beyond, a query that would have to wait
/// fails at once.
pub const PARKED_MOST: usize = 10_000;

/// What a query that waits takes, in octets, beside copies of its message: its task, its way to the
/// upstream, its place there, and its part of the connection (`tests/waiting_octets.rs`).
pub const WAITING_OCTETS: u64 = 1_900;

/// The most refreshes under way at once on the whole node.
pub const REFRESHES_MOST: usize = 1_000;

/// What all workers share.
pub(super) struct Node {
    pub(super) flights: Flights<oneshot::Sender<Exchanged>>,
    /// Those of the queries that wait, refreshes not counted.
    pub(super) places: Places,
    pub(super) refreshes: Arc<AtomicUsize>,
    /// The most client connections of each worker.
    pub(super) connections_most: usize,
    /// Open client connections.
    pub(super) connections: AtomicUsize,
    /// How many other processes have our listening sockets too: what is done to them is done to those.
    pub(super) sharers: AtomicUsize,
    /// CPU time that is left for misses.
    pub(super) credit: SharedCredit,
}

impl Node {
    /// Of so many workers, in this process.
    pub(super) fn new(workers: usize) -> Node {
        let descriptors = descriptors::limit().unwrap_or(u64::MAX);
        Node {
            connections_most: connections_most(descriptors, workers),
            flights: Flights::new(),
            places: Places::new(PARKED_MOST),
            refreshes: Arc::default(),
            connections: AtomicUsize::new(0),
            sharers: AtomicUsize::new(0),
            credit: Arc::new(Mutex::new(Credit::new(std::time::Instant::now()))),
        }
    }
}

/// One of a bounded number of places; given back when dropped.
pub(super) struct Permit(Arc<AtomicUsize>);

impl Permit {
    /// Takes one of `most` places; `None` when there is none.
    pub(super) fn take(places: &Arc<AtomicUsize>, most: usize) -> Option<Permit> {
        let permit = Permit(places.clone());
        // One too many gives its place back.
        (places.fetch_add(1, Ordering::Relaxed) < most).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A query's place among those that wait, and the memory it takes; given back when dropped.
pub(super) struct Held {
    place: Place,
    memory: Counted,
}

impl Drop for Held {
    fn drop(&mut self) {
        let worker = &self.memory.worker;
        worker.counters.in_flight.add(-1.0);
        worker.node.places.give(&self.place);
    }
}

/// Octets of the memory for queries that wait; given back when dropped.
pub(super) struct Counted {
    worker: Rc<Worker>,
    octets: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.equipment.budget.waiting.give(self.octets);
    }
}

/// What the handle tells a worker; `done` is answered when it is so.
pub(super) enum Command {
    /// Serve by this snapshot; `bound` holds the sockets of addresses that are new.
    Publish { snapshot: Arc<Snapshot>, bound: Vec<Bound>, done: Sender<()> },
    /// Read no more.
    StopReading { after: SocketsAfter, done: Sender<()> },
    /// As `StopReading`, and let connections go to a successor.
    Bequeath { heir: Heir, done: Sender<()> },
    /// Serve on a predecessor's connection, if its address is served.
    Adopt(HandedConnection),
    /// Answer: the worker works.
    Beat { done: oneshot::Sender<()> },
    /// Give what free memory the thread keeps.
    Spare { done: Sender<Spare> },
    /// End.
    Stop { done: Sender<()> },
}

/// What the tasks of one worker share.
pub(super) struct Worker {
    pub(super) equipment: Equipment,
    pub(super) node: Arc<Node>,
    pub(super) counters: Counters,
    pub(super) dispatcher: Rc<Dispatcher>,
    pub(super) batch: udp::Batch,
    pub(super) thrift: Rc<Thrift>,
    /// Where TCP connections read into: none keeps a buffer of its own while it is idle.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// Where a connection's replies are made.
    pub(super) response: RefCell<Response>,
    /// Open client connections of this worker.
    pub(super) open: RefCell<HashMap<*const Connection, Rc<Connection>>>,
    /// Octets that this worker's connections take themselves, those among them that must end.
    pub(super) connection_octets: Cell<u64>,
    /// The UDP sockets that are served.
    pub(super) doors: RefCell<Vec<(Rc<Listener>, Rc<Port>)>>,
    /// When datagrams were last taken in, and how many queries had their turn since the last look.
    pub(super) received: Cell<Duration>,
    pub(super) turns: Cell<u8>,
    pub(super) clock: FrequentClock,
    random: RefCell<StdRng>,
    refreshes: RefCell<Vec<Refresh>>,
}

impl Worker {
    pub(super) fn new(
        equipment: Equipment,
        node: Arc<Node>,
        upstreams: Arc<Shared>,
        number: usize,
        rests: Arc<Rests>,
    ) -> Worker {
        Worker {
            counters: Counters::new(&equipment.metrics),
            dispatcher: Rc::new(Dispatcher::new(upstreams, number)),
            batch: udp::Batch::new(),
            thrift: Rc::new(Thrift::new(rests, node.credit.clone())),
            scratch: RefCell::new(vec![0; tcp::READ_OCTETS].into_boxed_slice()),
            response: RefCell::default(),
            open: RefCell::default(),
            connection_octets: Cell::default(),
            doors: RefCell::default(),
            received: Cell::default(),
            turns: Cell::default(),
            clock: FrequentClock::new(equipment.clock),
            random: RefCell::new(rand::make_rng()),
            refreshes: RefCell::default(),
            equipment,
            node,
        }
    }

    /// A clock reading.
    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    /// What a connection's turn begins with: a clock reading, and the same as a moment of the runtime's.
    /// Among many connections there may be no rest for a long time, so nobody waits for one further.
    pub(super) fn reading(&self) -> (Now, Instant) {
        go_on();
        let (now, moment) = self.clock.reading();
        turn_began(moment);
        (now, Instant::from_std(moment))
    }

    /// What a batch begins with: a clock reading.
    pub(super) fn batch_begins(&self) -> Now {
        let (now, moment) = self.clock.reading();
        turn_began(moment);
        self.received.set(now.monotonic);
        now
    }

    /// A place for a query that must wait; `None`, counted, when there is none for its client.
    pub(super) fn hold(self: &Rc<Worker>, parked: &Parked) -> Option<Held> {
        let life = parked.waiting()?;
        let Some(place) = self.node.places.take(life.client().address.ip()) else {
            self.counters.shed_parked.increment();
            return None;
        };
        let octets = WAITING_OCTETS + 4 * life.query().wire().len() as u64;
        let free = self.equipment.budget.waiting.free();
        let fit = usize::try_from(free / octets).unwrap_or(usize::MAX);
        let memory = if may_have_more(self.node.places.others_of(&place), fit) {
            self.count(octets)
        } else {
            self.counters.shed_memory.increment();
            None
        };
        let Some(memory) = memory else {
            self.node.places.give(&place);
            return None;
        };
        self.counters.in_flight.add(1.0);
        Some(Held { place, memory })
    }

    /// Counts octets of queries that wait: those that [`Worker::hold`] reckons with, and what one has beside. `None`,
    /// counted, when there is no memory left for them.
    pub(super) fn count(self: &Rc<Worker>, octets: u64) -> Option<Counted> {
        if !self.equipment.budget.waiting.take(octets) {
            self.counters.shed_memory.increment();
            return None;
        }
        Some(Counted { worker: self.clone(), octets })
    }

    /// A place among the refreshes; `None`, counted, when there is none.
    pub(super) fn permit(&self) -> Option<Permit> {
        let permit = Permit::take(&self.node.refreshes, REFRESHES_MOST);
        if permit.is_none() {
            self.counters.shed_refresh.increment();
        }
        permit
    }

    /// Runs passes with this moment's means, then starts the refreshes that they wished for.
    pub(super) fn with_means<T>(
        self: &Rc<Worker>,
        snapshot: &Arc<Snapshot>,
        run: impl FnOnce(&mut Means<'_>) -> T,
    ) -> T {
        let mut random = self.random.borrow_mut();
        let mut refreshes = self.refreshes.borrow_mut();
        let now = self.now();
        let result = run(&mut Means {
            now,
            received: now,
            random: &mut random,
            journal: &*self.equipment.journal,
            refreshes: &mut refreshes,
        });
        if refreshes.is_empty() {
            return result;
        }
        drop(random);
        let wished = std::mem::take(&mut *refreshes);
        drop(refreshes);
        for refresh in wished {
            self.refresh(snapshot, refresh);
        }
        result
    }

    fn refresh(self: &Rc<Worker>, snapshot: &Arc<Snapshot>, refresh: Refresh) {
        let permit = self.permit();
        let (parked, step) =
            self.with_means(snapshot, |means| Parked::refreshing(snapshot, refresh, means));
        match permit {
            Some(permit) => {
                spawn_local(self.drive(parked, step, 0, move |_, _| drop(permit)));
            }
            // The handler that wished for it must hear that nothing came.
            None => drop(self.shed(parked, step)),
        }
    }
}

/// A worker's life: commands until the last one.
pub(super) async fn run(worker: Rc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut listeners: HashMap<Address, Rc<Listener>> = HashMap::new();
    // It ends with the runtime.
    spawn_local(thrift::give_turns(worker.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Publish { snapshot, bound, done } => {
                end_all(publish(&worker, &mut listeners, &snapshot, bound)).await;
                // Nobody listens any more only when the process is ending.
                let _ = done.send(());
            }
            Command::StopReading { after, done } => {
                let close =
                    |listener: Rc<Listener>| listener.close(&worker, listener.sockets_after(after));
                end_all(listeners.drain().map(|(_, listener)| close(listener)).collect()).await;
                let _ = done.send(());
            }
            Command::Bequeath { heir, done } => {
                let bequeath = |(address, listener): (Address, Rc<Listener>)| {
                    listener.bequeath(&worker, address, heir.clone())
                };
                end_all(listeners.drain().map(bequeath).collect()).await;
                let _ = done.send(());
            }
            Command::Adopt(connection) => {
                if let Some(listener) = listeners.get(&connection.address()) {
                    spawn_local(adopt(worker.clone(), listener.clone(), connection));
                }
            }
            Command::Beat { done } => {
                // Who asked may have lost patience.
                let _ = done.send(());
            }
            Command::Spare { done } => {
                // As for a beat.
                let _ = done.send(Spare::of_this_thread());
            }
            Command::Stop { done } => {
                // What was handed over for sending in this turn still goes out.
                yield_now().await;
                let _ = done.send(());
                return;
            }
        }
    }
}

async fn end_all(endings: Vec<Ending>) {
    for ending in endings {
        ending.ended().await;
    }
}

/// Serves by `snapshot`; gives what ends of addresses that are gone.
fn publish(
    worker: &Rc<Worker>,
    listeners: &mut HashMap<Address, Rc<Listener>>,
    snapshot: &Arc<Snapshot>,
    bound: Vec<Bound>,
) -> Vec<Ending> {
    let mut bound: HashMap<Address, Bound> =
        bound.into_iter().map(|bound| (bound.address.clone(), bound)).collect();
    let mut kept = HashMap::new();
    for (server, definition) in snapshot.servers.iter().enumerate() {
        let address = Address::of(definition);
        let serving = Serving { snapshot: snapshot.clone(), server };
        if let Some(listener) = listeners.remove(&address) {
            listener.serve_by(serving);
            kept.insert(address, listener);
        } else if let Some(bound) = bound.remove(&address) {
            match Listener::open(worker, bound, serving) {
                Ok(listener) => {
                    kept.insert(address, listener);
                }
                Err(error) => worker.equipment.journal.line(
                    crate::plugin::Level::Error,
                    format_args!("Failed to serve {}: {error}", definition.identity.label),
                ),
            }
        }
    }
    let gone = std::mem::replace(listeners, kept);
    gone.values().map(|gone| gone.close(worker, SocketsAfter::Closed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let places = Arc::new(AtomicUsize::new(0));
        let (first, second) = (Permit::take(&places, 2), Permit::take(&places, 2));
        assert!(first.is_some() && second.is_some());
        assert!(Permit::take(&places, 2).is_none());
        drop(first);
        assert!(Permit::take(&places, 2).is_some());
    }
}
