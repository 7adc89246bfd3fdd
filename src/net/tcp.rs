//! Connections in: framing, pipelining, and what a client may do to us.
//!
//! One task per connection. Queries that hit are answered as they are read, those that wait are
//! tasks whose replies join the connection's unsent octets in whatever order they come (RFC 7766
//! §6.2.1.1). Nothing is read while too much is unsent or waits: a client that does not read
//! holds up itself alone.

use super::handed::bequeath;
use super::https;
use super::stream::Stream;
use super::worker::{Listener, Worker};
use crate::corefile::KeyTransport;
use crate::dns::{Response, Transport};
use crate::engine::{Arrival, Parked, Silence, Step, arrive};
use crate::metrics::Counter;
use crate::plugin::{Budget, Client, Now, Timeouts};
use crate::sys::errors::is_exhausted;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Poll, Waker};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{consume_budget, spawn_local, yield_now};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Octets read by one system call, at most.
pub(super) const READ_OCTETS: usize = 16 * 1024;

/// The most connections of one worker; one beyond takes the place of the one that has been idle for
/// the longest, and is closed at once when none is idle.
pub const CONNECTIONS_PER_WORKER_MOST: usize = 2_048;

/// The most queries of one connection that wait; beyond, nothing is read until one is answered.
pub const WAITING_PER_CONNECTION_MOST: usize = 64;

/// Unsent octets of one connection beyond which nothing is read.
pub const UNSENT_MOST: usize = 64 * 1024;

/// Buffers of a connection are given back when they are empty and larger than this.
const KEPT_OCTETS: usize = 4 * 1024;

/// The pause after running out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// How often a connection that waits for upstreams alone looks at itself.
const LOOK: Duration = Duration::from_secs(30);

/// What a connection's task and those of its waiting queries share.
pub(super) struct Connection {
    unsent: RefCell<Vec<u8>>,
    waiting: Cell<usize>,
    /// When the last message came or the last reply was sent.
    active: Cell<Instant>,
    /// Another one gets its place.
    evicted: Cell<bool>,
    /// Something changed since the task looked.
    woken: Cell<bool>,
    budget: Arc<Budget>,
    /// Counts connections that are closed for want of memory.
    starved: Counter,
    /// Octets taken of the budget.
    counted: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    fn new(worker: &Worker) -> Connection {
        Connection {
            budget: worker.equipment.budget.clone(),
            starved: worker.counters.starved.clone(),
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
    pub(super) fn waits(&self) {
        self.waiting.set(self.waiting.get() + 1);
    }

    /// A query waits no more.
    pub(super) fn waits_no_more(&self) {
        self.waiting.set(self.waiting.get() - 1);
    }

    /// Something came or went.
    pub(super) fn is_active_at(&self, now: Instant) {
        self.active.set(now);
    }

    /// True once it must end for another one's sake.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.get()
    }

    /// Nothing waits and nothing is unsent.
    fn is_idle(&self) -> bool {
        self.waiting.get() == 0 && !self.evicted.get() && self.unsent.borrow().is_empty()
    }

    /// Has the connection's task look again.
    pub(super) fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Ready once after each [`Connection::wake`].
    pub(super) fn poll_woken(&self, task: &mut task::Context<'_>) -> Poll<()> {
        if self.woken.replace(false) {
            return Poll::Ready(());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(task.waker())) {
            *waker = Some(task.waker().clone());
        }
        Poll::Pending
    }

    fn push(&self, reply: &[u8]) {
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
    fn count(&self, partial: usize) {
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
        if held > before && buffers.is_over() && !self.evicted.replace(true) {
            self.starved.increment();
            self.wake();
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.get() >= WAITING_PER_CONNECTION_MOST
            || self.unsent.borrow().len() >= UNSENT_MOST
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.budget.buffers.give(self.counted.get());
    }
}

/// Accepts until its task is aborted; no error ends it.
pub(super) async fn accept(worker: Rc<Worker>, listener: Rc<Listener>, socket: TcpListener) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                if !has_place(&worker).await {
                    continue;
                }
                // Counted here and not by its task, which has not run when the next one is accepted.
                let open = Open::new(&worker, &listener);
                let (worker, listener) = (worker.clone(), listener.clone());
                let transport = listener
                    .with_serving(|serving| serving.snapshot.servers[serving.server].transport);
                match transport {
                    Some(KeyTransport::Https) => {
                        spawn_local(https::connection(worker, listener, open, stream, peer));
                    }
                    _ => {
                        spawn_local(connection(worker, listener, open, stream, peer, Vec::new()));
                    }
                }
            }
            Err(error) => {
                worker.counters.accept_errors.increment();
                match is_exhausted(&error) {
                    true => sleep(EXHAUSTED_PAUSE).await,
                    false => yield_now().await,
                }
            }
        }
        consume_budget().await;
    }
}

/// Whether there is a place for one more connection, made if need be.
pub(super) async fn has_place(worker: &Worker) -> bool {
    if worker.open.borrow().len() < CONNECTIONS_PER_WORKER_MOST {
        return true;
    }
    if !evict(worker) {
        worker.counters.refused.increment();
        return false;
    }
    // Its task ends it.
    yield_now().await;
    true
}

/// Ends the connection that has been idle for the longest. False when none is idle.
fn evict(worker: &Worker) -> bool {
    let mut open = worker.open.borrow_mut();
    let idle = open.iter().filter(|(_, connection)| connection.is_idle());
    let oldest = idle.min_by_key(|(_, connection)| connection.active.get());
    let Some(place) = oldest.map(|(place, _)| *place) else { return false };
    if let Some(oldest) = open.remove(&place) {
        oldest.evicted.set(true);
        oldest.wake();
        worker.counters.evicted.increment();
    }
    true
}

/// A connection while it is open: counted, and known to its listener.
pub(super) struct Open {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    shared: Rc<Connection>,
}

impl Open {
    pub(super) fn new(worker: &Rc<Worker>, listener: &Rc<Listener>) -> Open {
        let shared = Rc::new(Connection::new(worker));
        worker.open.borrow_mut().insert(Rc::as_ptr(&shared), shared.clone());
        worker.node.connections.fetch_add(1, Ordering::Relaxed);
        listener.connections.borrow_mut().insert(Rc::as_ptr(&shared), shared.clone());
        Open { worker: worker.clone(), listener: listener.clone(), shared }
    }

    /// What is woken when the listener changes.
    pub(super) fn shared(&self) -> &Rc<Connection> {
        &self.shared
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.open.borrow_mut().remove(&Rc::as_ptr(&self.shared));
        self.worker.node.connections.fetch_sub(1, Ordering::Relaxed);
        self.listener.connections.borrow_mut().remove(&Rc::as_ptr(&self.shared));
    }
}

/// Who asks over `stream`; `None` when it is gone already.
pub(super) fn client_of(
    stream: &TcpStream,
    peer: SocketAddr,
    transport: Transport,
) -> Option<Client> {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let local = stream.local_addr().ok()?;
    Some(Client { address: canonical(peer), local: canonical(local), transport })
}

/// Serves a connection until it ends; `octets` were read of it before.
pub(super) async fn connection(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    open: Open,
    stream: TcpStream,
    peer: SocketAddr,
    octets: Vec<u8>,
) {
    let shared = &open.shared;
    // Replies are small and complete; without this they wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let tls = listener.with_serving(|serving| {
        let server = &serving.snapshot.servers[serving.server];
        // Without `tls` it is plain TCP on another port, as in CoreDNS.
        server.tls.clone().filter(|_| server.transport == KeyTransport::Tls)
    });
    let tls = tls.flatten();
    let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
    let Some(client) = client_of(&stream, peer, transport) else { return };
    let Ok(mut stream) = Stream::new(stream, tls) else { return };
    let timeouts = listener
        .with_serving(|serving| serving.snapshot.servers[serving.server].timeouts)
        .unwrap_or_default();
    let mut reader = Reader {
        worker: &worker,
        listener: &listener,
        client,
        partial: octets,
        left: timeouts.queries,
        moment: Instant::now(),
    };
    let mut clock = Patience::new(timeouts);
    let mut alarm = pin!(sleep_until(clock.deadline(shared, false)));
    let (mut more_to_read, mut has_ended) = (true, false);
    loop {
        if !matches!(send(&mut stream, shared, reader.moment), Ok(())) || shared.is_evicted() {
            return;
        }
        if !shared.is_full() && !listener.is_closed() && reader.has_frame() {
            // Held back while the connection was full.
            reader.serve_frames(shared, &mut clock);
            continue;
        }
        more_to_read &= !listener.is_closed() && reader.left > 0;
        let unsent = !shared.unsent.borrow().is_empty() || stream.has_unsent();
        if !more_to_read && !unsent && shared.waiting.get() == 0 {
            // One that its client closed has nothing to be asked any more.
            if !has_ended && reader.left > 0 {
                bequeath(&listener, &stream, &mut reader.partial);
            }
            return;
        }
        let wanted = Wanted { reading: more_to_read && !shared.is_full(), writing: unsent };
        match wait(&stream, shared, wanted, alarm.as_mut()).await {
            Ok(Wake::Readable) => {
                let read = |task: &mut task::Context<'_>| {
                    Poll::Ready(reader.read(task, &mut stream, shared, &mut clock))
                };
                let Ok(more) = poll_fn(read).await else { return };
                more_to_read = more;
                has_ended = !more;
            }
            Ok(Wake::Look) => reader.moment = Instant::now(),
            Ok(Wake::Alarm) => {
                reader.moment = Instant::now();
                let deadline = clock.deadline(shared, unsent);
                if deadline <= reader.moment {
                    if unsent {
                        worker.counters.slow_readers.increment();
                    }
                    return;
                }
                alarm.as_mut().reset(deadline);
            }
            Err(_) => return,
        }
        let deadline = clock.deadline(shared, stream.has_unsent());
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
    }
}

/// What a connection's socket is waited for.
#[derive(Clone, Copy)]
struct Wanted {
    reading: bool,
    writing: bool,
}

/// What ended a wait.
enum Wake {
    /// There is something to read.
    Readable,
    /// A reply came up, there is room to write, or the listener changed.
    Look,
    /// The alarm.
    Alarm,
}

/// Waits for whatever comes first. By hand, since this runs once for every turn of a connection.
async fn wait(
    stream: &Stream,
    connection: &Connection,
    wanted: Wanted,
    mut alarm: Pin<&mut Sleep>,
) -> io::Result<Wake> {
    poll_fn(|task| {
        if connection.poll_woken(task).is_ready() {
            return Poll::Ready(Ok(Wake::Look));
        }
        if wanted.reading
            && let Poll::Ready(ready) = stream.poll_read_ready(task)
        {
            return Poll::Ready(ready.map(|()| Wake::Readable));
        }
        if wanted.writing
            && let Poll::Ready(ready) = stream.poll_write_ready(task)
        {
            return Poll::Ready(ready.map(|()| Wake::Look));
        }
        alarm.as_mut().poll(task).map(|()| Ok(Wake::Alarm))
    })
    .await
}

/// When a connection has lasted too long.
struct Patience {
    timeouts: Timeouts,
    /// Whether a whole message has come, a query or not.
    spoken: bool,
}

impl Patience {
    fn new(timeouts: Timeouts) -> Patience {
        Patience { timeouts, spoken: false }
    }

    /// While replies are unsent (by the stream: `sealed`), the time that the client has to take
    /// some; while queries wait, none; else until the next query must be complete.
    fn deadline(&self, connection: &Connection, sealed: bool) -> Instant {
        let lasts = if sealed || !connection.unsent.borrow().is_empty() {
            self.timeouts.write
        } else if connection.waiting.get() > 0 {
            return Instant::now() + LOOK;
        } else if self.spoken {
            self.timeouts.idle
        } else {
            self.timeouts.read
        };
        connection.active.get() + lasts
    }
}

/// Sends what the client takes now, which is about `moment`.
fn send(stream: &mut Stream, connection: &Connection, moment: Instant) -> io::Result<()> {
    stream.flush()?;
    let mut unsent = connection.unsent.borrow_mut();
    let mut sent = 0;
    while sent < unsent.len() {
        match stream.try_write(&unsent[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    if sent > 0 {
        connection.is_active_at(moment);
    }
    match sent == unsent.len() {
        true if unsent.capacity() > KEPT_OCTETS => *unsent = Vec::new(),
        true => unsent.clear(),
        false => drop(unsent.drain(..sent)),
    }
    Ok(())
}

/// Octets into messages.
struct Reader<'w> {
    worker: &'w Rc<Worker>,
    listener: &'w Rc<Listener>,
    client: Client,
    /// What was read and not yet served: part of a message, or messages held back.
    partial: Vec<u8>,
    /// How many more messages are served (`maxtcpqueries`).
    left: u64,
    /// When the connection's task last looked at its clock: once a turn.
    moment: Instant,
}

impl Reader<'_> {
    /// Reads once and serves the messages that are complete; false at the end of the stream.
    fn read(
        &mut self,
        task: &mut task::Context<'_>,
        stream: &mut Stream,
        connection: &Rc<Connection>,
        clock: &mut Patience,
    ) -> io::Result<bool> {
        let mut scratch = self.worker.scratch.borrow_mut();
        let (received, moment) = self.worker.reading();
        self.moment = moment;
        let count = match stream.try_read(task, &mut scratch) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        if self.partial.is_empty() {
            let served = self.serve(&scratch[..count], received, connection, clock);
            self.partial.extend_from_slice(&scratch[served..count]);
        } else {
            self.partial.extend_from_slice(&scratch[..count]);
            drop(scratch);
            self.serve_partial(received, connection, clock);
        }
        connection.count(self.partial.capacity());
        Ok(true)
    }

    fn has_frame(&self) -> bool {
        self.left > 0 && first_frame(&self.partial).is_some()
    }

    /// Serves what was held back.
    fn serve_frames(&mut self, connection: &Rc<Connection>, clock: &mut Patience) {
        let (received, moment) = self.worker.reading();
        self.moment = moment;
        self.serve_partial(received, connection, clock);
    }

    fn serve_partial(&mut self, received: Now, connection: &Rc<Connection>, clock: &mut Patience) {
        let mut octets = std::mem::take(&mut self.partial);
        let served = self.serve(&octets, received, connection, clock);
        octets.drain(..served);
        if !octets.is_empty() || octets.capacity() <= KEPT_OCTETS {
            self.partial = octets;
        }
    }

    /// Serves complete messages while there is room for their replies; how many octets that took.
    fn serve(
        &mut self,
        octets: &[u8],
        received: Now,
        connection: &Rc<Connection>,
        clock: &mut Patience,
    ) -> usize {
        let mut served = 0;
        let Some(serving) = self.listener.serving() else { return octets.len() };
        let mut response = self.worker.response.borrow_mut();
        self.worker.with_means(&serving.snapshot, |means| {
            means.received = received;
            while let Some(message) = first_frame(&octets[served..]) {
                if connection.is_full() || self.left == 0 {
                    break;
                }
                self.left -= 1;
                served += 2 + message.len();
                let (snapshot, server) = (&serving.snapshot, serving.server);
                match arrive(snapshot, server, message, self.client, &mut response, means) {
                    Arrival::Reply => connection.push(&response.wire),
                    Arrival::Silence(Silence::NotAQuery) => {
                        self.worker.counters.ignored.increment();
                    }
                    Arrival::Silence(Silence::Dropped(_)) => {}
                    Arrival::Wait(parked, step) => self.park(connection, parked, step),
                }
            }
        });
        if served > 0 {
            clock.spoken = true;
            connection.is_active_at(self.moment);
        }
        if response.wire.capacity() > KEPT_OCTETS {
            *response = Response::new();
        }
        served
    }

    fn park(&self, connection: &Rc<Connection>, parked: Box<Parked>, step: Step) {
        connection.waits();
        // Given back however the task ends: a connection must not wait for what is lost.
        let slot = Slot(connection.clone());
        match self.worker.hold(&parked) {
            Some(held) => {
                spawn_local(self.worker.answer(parked, step, move |_, reply| {
                    drop(held);
                    slot.take(reply);
                }));
            }
            None => {
                let worker = self.worker.clone();
                spawn_local(async move { slot.take(worker.shed(parked, step)) });
            }
        }
    }
}

/// A query's place on its connection.
struct Slot(Rc<Connection>);

impl Slot {
    fn take(self, reply: Option<Response>) {
        if let Some(reply) = reply {
            self.0.push(&reply.wire);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.waits_no_more();
        self.0.wake();
    }
}

/// The first complete message behind its length (RFC 1035 §4.2.2).
fn first_frame(octets: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([*octets.first()?, *octets.get(1)?]));
    octets.get(2..2 + length)
}
