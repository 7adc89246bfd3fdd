//! The worker threads: started once, given each new snapshot, drained at the end.
//!
//! Owns the threads and which addresses are bound. Everything here blocks, briefly: it is for the
//! thread that loads Corefiles and takes signals, never for a worker's own.

use super::Clock;
use super::between;
use super::handed::{HandedConnection, Heir};
use super::hands::{Hand, Heartbeat, Spares, not_done};
use super::listener::SocketsAfter;
use super::rest::{Meter, Rests};
use super::sockets::{
    Address, Bound, HandedSockets, ListenError, adopt, bind, duplicates, receive_buffers,
};
use super::upstream::Shared;
use super::worker::{Command, Node, Worker, run};
use crate::engine::Snapshot;
use crate::metrics::{self, Gauge, Registry, names};
use crate::plugin::forward::Upstreams;
use crate::plugin::{Budget, Journal, Level};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

/// The most workers: beyond, a node-local server gains nothing and buffers add up.
pub const WORKERS_MOST: usize = 16;

/// How many tasks of connections to upstreams have their turns before sockets are looked at. When an
/// upstream is silent, all of its connections end and begin together, each turn with several system calls.
const TASKS_A_LOOK: u32 = 8;

/// How often a drain looks.
const DRAIN_LOOK: Duration = Duration::from_millis(2);

/// The longest wait until all workers have done what they were told. It takes them microseconds; one that hangs
/// keeps neither a changed Corefile nor the end of the process from the others.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What the workers use for their whole life.
#[derive(Clone)]
pub struct Equipment {
    /// How many threads, from 1: [`default_workers`], and the number that the registry was made
    /// for.
    pub workers: usize,
    /// The clock; upkeep must use the same one.
    pub clock: Clock,
    /// The registry.
    pub metrics: Registry,
    /// Lines for the operator.
    pub journal: Arc<dyn Journal>,
    /// The memory that queries and connections share with the caches.
    pub budget: Arc<Budget>,
    /// What tells the CPU time that is used and may be used: [`super::OwnMeter`].
    pub meter: Arc<dyn Meter>,
}

/// The threads that serve queries.
pub struct Workers {
    node: Arc<Node>,
    upstreams: Arc<Shared>,
    /// Of a worker that hangs no more waits there than one command that all are given, a beat for each pulse, what
    /// it was asked for of its memory, and its part of the connections that a predecessor had.
    hands: Vec<Hand>,
    threads: Vec<JoinHandle<()>>,
    /// The addresses that are bound.
    bound: Mutex<Vec<Known>>,
    /// Who gets the next connection of a predecessor.
    turn: AtomicUsize,
    /// Octets that the kernel may keep for the UDP sockets.
    receive_buffers: Gauge,
    journal: Arc<dyn Journal>,
}

/// Workers that read nothing yet, with a predecessor's sockets, which it goes on reading.
pub struct WaitingWorkers {
    workers: Workers,
    snapshot: Arc<Snapshot>,
    handed: HashMap<Address, HandedSockets>,
}

impl WaitingWorkers {
    /// A predecessor reads the sockets too, until [`Workers::own_sockets`].
    pub fn shared(self) -> WaitingWorkers {
        self.workers.node.sharers.store(1, Ordering::Release);
        self
    }

    /// The free memory that their threads keep.
    pub fn spares(&self) -> Spares {
        self.workers.spares()
    }

    /// Binds the addresses that are left, then serves. After an error nothing was read.
    pub fn serve(self) -> Result<Workers, ListenError> {
        let WaitingWorkers { workers, snapshot, handed } = self;
        let sockets = workers.bind_missing(&snapshot, workers.hands.len(), handed)?;
        workers.hand_out(&snapshot, sockets);
        Ok(workers)
    }
}

/// An address that is bound: what port 0 became, and second descriptors for a successor.
type Known = (SocketAddr, HandedSockets);

fn by_address(handed: Vec<HandedSockets>) -> HashMap<Address, HandedSockets> {
    handed.into_iter().map(|sockets| (sockets.address(), sockets)).collect()
}

/// The number of workers when nobody says another: the cores this process may use, at most
/// [`WORKERS_MOST`].
pub fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MOST)
}

/// Whether `host` (`None`: all addresses) and `port` can be listened on by UDP and TCP now.
///
/// # Errors
///
/// An invalid port, or why an address cannot be bound, as CoreDNS words it.
pub fn can_listen(host: Option<&str>, port: &str) -> Result<(), ListenError> {
    let port = port.parse().map_err(|_| ListenError(format!("address {port}: invalid port")))?;
    let transport = crate::corefile::KeyTransport::Dns;
    bind(&Address { transport, host: host.map(str::to_owned), port, h3: None }, 1).map(drop)
}

impl Workers {
    /// Binds every address of `snapshot`, then starts the threads and serves.
    ///
    /// # Errors
    ///
    /// Why an address cannot be bound or a thread not be started; nothing is served then.
    pub fn start(equipment: &Equipment, snapshot: &Arc<Snapshot>) -> Result<Workers, ListenError> {
        Workers::start_with(equipment, snapshot, Vec::new())
    }

    /// As [`Workers::start`], with a predecessor's sockets where they are of an address of
    /// `snapshot`; the others are closed. Until [`Workers::own_sockets`] the predecessor may read
    /// them, too.
    ///
    /// # Errors
    ///
    /// As for [`Workers::start`].
    pub fn start_with(
        equipment: &Equipment,
        snapshot: &Arc<Snapshot>,
        handed: Vec<HandedSockets>,
    ) -> Result<Workers, ListenError> {
        let is_shared = !handed.is_empty();
        let waiting = Workers::prepare(equipment, snapshot, handed)?;
        if is_shared { waiting.shared() } else { waiting }.serve()
    }

    /// With sockets that came from elsewhere, where they are of an address of `snapshot`. Nothing is bound
    /// or read before [`WaitingWorkers::serve`].
    ///
    /// # Errors
    ///
    /// A thread that cannot be started.
    pub fn prepare(
        equipment: &Equipment,
        snapshot: &Arc<Snapshot>,
        handed: Vec<HandedSockets>,
    ) -> Result<WaitingWorkers, ListenError> {
        let count = equipment.workers.max(1);
        let node = Arc::new(Node::new(equipment.workers));
        let upstreams = Shared::new(&equipment.metrics, count);
        let mut workers = Workers {
            node: node.clone(),
            upstreams: upstreams.clone(),
            hands: Vec::with_capacity(count),
            threads: Vec::with_capacity(count),
            bound: Mutex::default(),
            turn: AtomicUsize::new(0),
            receive_buffers: equipment.metrics.gauge(&names::UDP_RECEIVE_BUFFERS, &[]),
            journal: equipment.journal.clone(),
        };
        for number in 0..count {
            let system = |error: std::io::Error| ListenError(format!("worker {number}: {error}"));
            let mut runtime = runtime::Builder::new_current_thread();
            let rests = Arc::new(Rests::new(equipment.meter.clone()));
            let (before, after) = (rests.clone(), rests.clone());
            runtime.enable_all();
            runtime.event_interval(TASKS_A_LOOK);
            runtime.on_thread_park(move || before.before_waiting());
            runtime.on_thread_unpark(move || after.after_waiting());
            let runtime = runtime.build().map_err(system)?;
            let (hand, commands) = mpsc::unbounded_channel();
            let (equipment, node) = (equipment.clone(), node.clone());
            let upstreams = upstreams.clone();
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                metrics::enter_worker(number + 1);
                let tasks = Rc::new(LocalSet::new());
                let known = Rc::downgrade(&tasks);
                tasks.block_on(&runtime, async move {
                    let worker = Worker::new(equipment, node, upstreams, number, rests);
                    let worker = Rc::new(worker);
                    between::works_here(&known, &worker);
                    run(worker, commands).await;
                });
            });
            workers.hands.push(hand);
            workers.threads.push(thread.map_err(system)?);
        }
        Ok(WaitingWorkers { workers, snapshot: snapshot.clone(), handed: by_address(handed) })
    }

    /// Binds the addresses that `snapshot` adds, then serves by it. Returns when every worker
    /// does; addresses that are gone are closed after what they had received is answered. After an
    /// error nothing has changed.
    pub fn publish(&self, snapshot: &Arc<Snapshot>) -> Result<(), ListenError> {
        self.publish_with(snapshot, Vec::new())
    }

    /// As [`Workers::publish`], with sockets that were given away and came back.
    ///
    /// # Errors
    ///
    /// Why an address that is new cannot be bound; nothing has changed then.
    pub fn publish_with(
        &self,
        snapshot: &Arc<Snapshot>,
        handed: Vec<HandedSockets>,
    ) -> Result<(), ListenError> {
        let sockets = self.bind_missing(snapshot, self.hands.len(), by_address(handed))?;
        self.hand_out(snapshot, sockets);
        Ok(())
    }

    /// Answers or parks what has been received and closes the listening sockets. Connections end
    /// when their replies are out. Sockets that are shared with a successor go on receiving.
    pub fn stop_reading(&self) {
        self.lock().clear();
        self.tell(|_, done| Command::StopReading { after: SocketsAfter::Closed, done });
    }

    /// As [`Workers::stop_reading`], of sockets that somebody keeps open: what has not been read, and what
    /// arrives from now on, waits in them for whoever reads them next.
    pub fn leave_sockets(&self) {
        self.lock().clear();
        self.tell(|_, done| Command::StopReading { after: SocketsAfter::Kept, done });
    }

    /// As [`Workers::stop_reading`] once a successor reads: plain TCP connections go to `heir`, each
    /// as soon as what was read of it has been answered. [`Workers::drain`] waits for that.
    pub fn bequeath(&self, heir: &Heir) {
        self.lock().clear();
        self.tell(|_, done| Command::Bequeath { heir: heir.clone(), done });
    }

    /// Serves on a predecessor's connection; one to an address that is not served is closed.
    pub fn adopt(&self, connection: HandedConnection) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // A worker that is gone closes it.
        let _ = self.hands[turn % self.hands.len()].send(Command::Adopt(connection));
    }

    /// Shares the sockets, and gives second descriptors of them.
    #[cfg(test)]
    pub(super) fn share_sockets(&self) -> std::io::Result<Vec<HandedSockets>> {
        self.share();
        self.second_sockets()
    }

    /// A successor may read our listening sockets, too, from now on: until one of the two stops reading,
    /// or [`Workers::own_sockets`] says that the other is gone.
    pub fn share(&self) {
        self.node.sharers.fetch_add(1, Ordering::AcqRel);
    }

    /// Second descriptors of all listening sockets but QUIC's.
    ///
    /// # Errors
    ///
    /// The kernel's: the process has no descriptor left.
    pub fn second_sockets(&self) -> std::io::Result<Vec<HandedSockets>> {
        let known = self.lock();
        let handed = known.iter().filter(|(_, sockets)| !sockets.streams.is_empty());
        handed.map(|(_, sockets)| sockets.try_clone()).collect()
    }

    /// One of the other processes that had our listening sockets is gone or reads them no more.
    pub fn own_sockets(&self) {
        let one_less = |sharers: usize| Some(sharers.saturating_sub(1));
        // Never fails: there is always a next value.
        let _ = self.node.sharers.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    }

    /// Waits until no query is parked and no connection open, `longest` at most; true when all are
    /// gone. For after [`Workers::stop_reading`].
    pub fn drain(&self, longest: Duration) -> bool {
        let end = Instant::now() + longest;
        loop {
            let parked = self.node.places.taken();
            let open = self.node.connections.load(Ordering::Relaxed);
            if parked == 0 && open == 0 {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(DRAIN_LOOK);
        }
    }

    /// Ends the threads; one that hangs is left to the end of the process.
    pub fn join(self) {
        let hang = self.tell(|_, done| Command::Stop { done });
        for (worker, thread) in self.threads.into_iter().enumerate() {
            if !hang.contains(&worker) {
                let _ = thread.join();
            }
        }
    }

    /// Queries that wait for upstreams now.
    pub fn parked(&self) -> usize {
        self.node.places.taken()
    }

    /// Client connections that are open now.
    pub fn connections(&self) -> usize {
        self.node.connections.load(Ordering::Relaxed)
    }

    /// Whether one of these upstreams has answered and is not down. Those that never did are asked
    /// from the current runtime, each by one probe at a time: call it again to hear of it.
    pub fn answers(&self, upstreams: &Upstreams) -> bool {
        self.upstreams.answers(upstreams)
    }

    /// The pulse of all workers. Ask for one beat at a time: the commands of a worker that hangs pile
    /// up.
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat::of(&self.hands)
    }

    /// The free memory that their threads keep.
    pub(super) fn spares(&self) -> Spares {
        Spares::of(&self.hands)
    }

    /// The addresses being listened on, in the order they were bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.lock().iter().map(|(local, _)| *local).collect()
    }

    /// Sockets for the addresses that are not bound yet, those of `handed` first: for each worker
    /// one set.
    fn bind_missing(
        &self,
        snapshot: &Snapshot,
        copies: usize,
        mut handed: HashMap<Address, HandedSockets>,
    ) -> Result<Vec<Vec<Bound>>, ListenError> {
        let known: HashSet<Address> =
            self.lock().iter().map(|(_, sockets)| sockets.address()).collect();
        let mut sets: Vec<Vec<Bound>> = (0..copies).map(|_| Vec::new()).collect();
        for server in &snapshot.servers {
            let address = Address::of(server);
            if known.contains(&address) {
                continue;
            }
            // What cannot be adopted is bound beside it.
            let adopted = handed.remove(&address).and_then(|one| adopt(one, copies).ok());
            let bound = adopted.map_or_else(|| bind(&address, copies), Ok)?;
            for (set, bound) in sets.iter_mut().zip(bound) {
                set.push(bound);
            }
        }
        Ok(sets)
    }

    fn hand_out(&self, snapshot: &Arc<Snapshot>, mut sockets: Vec<Vec<Bound>>) {
        let wanted: HashSet<Address> = snapshot.servers.iter().map(Address::of).collect();
        let mut known = self.lock();
        known.retain(|(_, sockets)| wanted.contains(&sockets.address()));
        known.extend(duplicates(&sockets));
        let octets = known.iter().map(|(_, sockets)| receive_buffers(&sockets.datagrams));
        self.receive_buffers.set(octets.sum::<usize>() as f64);
        drop(known);
        self.tell(|worker, done| Command::Publish {
            snapshot: snapshot.clone(),
            bound: std::mem::take(&mut sockets[worker]),
            done,
        });
    }

    /// Gives every worker its command and waits until all have done it, [`TOLD_WITHIN`] at most. Those that
    /// hang, of which the operator hears; should one go on, it does what it was told.
    fn tell(&self, command: impl FnMut(usize, Sender<()>) -> Command) -> Vec<usize> {
        let hang = not_done(&self.hands, TOLD_WITHIN, command);
        for worker in &hang {
            self.journal.line(
                Level::Error,
                format_args!(
                    "worker {worker} has not done what it was told within {} s: it hangs and answers nothing; \
                     start this process anew, and please report it",
                    TOLD_WITHIN.as_secs()
                ),
            );
        }
        hang
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Known>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
