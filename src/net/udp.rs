//! Datagrams in, replies out, a batch at a time.
//!
//! A query that hits is answered in place: no allocation, no task, no await. One that must wait
//! leaves as a task; its reply goes out with those that are ready at the same moment.

use super::listener::Listener;
use super::worker::Worker;
use crate::dns::{Response, Transport};
use crate::engine::{Arrival, Parked, Silence, Step, arrive};
use crate::plugin::Client;
use crate::sys::readiness;
use crate::sys::udp::{Destinations, Inbox, Outbox, Route, take_trains};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::task::{spawn_local, yield_now};

/// Datagrams or trains of them taken in by one system call, at most.
const BATCH: usize = 64;

/// Replies sent by one system call, at most: what came in trains is more than a batch.
const REPLIES: usize = 128;

/// Octets of a query that are looked at; what is longer is cut.
const QUERY_OCTETS: usize = 4096;

/// Batches taken in when an address is given up: what its socket can hold, and an end.
const LAST_BATCHES: usize = 1024;

/// A reply's buffer is kept for the next batch up to this many octets.
const KEPT_OCTETS: usize = 4096;

/// Trains of replies to queries that waited that leave by one system call, at most: each takes several
/// microseconds, and behind them datagrams are looked at, if it is time.
const LATE_TRAINS: usize = 2;

/// Buffers for batches, shared by all sockets of a worker.
pub(super) struct Batch {
    buffers: RefCell<Buffers>,
    /// For replies of queries that waited: batches are taken in while they leave.
    late: RefCell<Outbox>,
}

struct Buffers {
    inbox: Inbox,
    outbox: Outbox,
    responses: Vec<Response>,
    /// Whose reply stands in the response of the same place.
    routes: Vec<Route>,
}

impl Batch {
    pub(super) fn new() -> Batch {
        let buffers = Buffers {
            inbox: Inbox::new(BATCH, QUERY_OCTETS),
            outbox: Outbox::new(REPLIES),
            responses: (0..REPLIES).map(|_| Response::new()).collect(),
            routes: Vec::with_capacity(REPLIES),
        };
        Batch { buffers: RefCell::new(buffers), late: RefCell::new(Outbox::new(BATCH)) }
    }
}

/// A UDP socket of one worker.
pub(super) struct Port {
    socket: AsyncFd<UdpSocket>,
    local: SocketAddr,
    destinations: Destinations,
    /// Replies of queries that waited, to be sent together.
    outgoing: RefCell<Vec<(Vec<u8>, Route)>>,
}

impl Port {
    /// For a socket bound to `local`.
    pub(super) fn new(socket: UdpSocket, local: SocketAddr) -> io::Result<Port> {
        take_trains(socket.as_fd());
        Ok(Port {
            socket: readiness::readable(socket)?,
            local,
            destinations: match local.ip().is_unspecified() {
                true => Destinations::Told,
                false => Destinations::Bound,
            },
            outgoing: RefCell::default(),
        })
    }

    /// Has the kernel give new datagrams to other sockets of this address (another worker's, a
    /// successor's), while replies can still be sent: a connected socket takes its peer's only,
    /// and nothing is sent from port 1 here.
    pub(super) fn leave(&self) {
        let nobody = match (self.destinations, self.local.ip()) {
            (Destinations::Bound, ip) => ip,
            (Destinations::Told, IpAddr::V4(_)) => IpAddr::from([127, 0, 0, 1]),
            (Destinations::Told, IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        // When it fails, what still arrives is lost with the socket, as it would be anyway.
        let _ = self.socket.get_ref().connect(SocketAddr::new(nobody, 1));
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    fn client(&self, route: &Route) -> Client {
        let local = match route.local() {
            Some(ip) => SocketAddr::new(ip, self.local.port()),
            None => self.local,
        };
        Client { address: route.peer(), local, transport: Transport::Udp }
    }

    /// Sends a reply together with those that come up before this worker's next turn.
    fn reply(self: &Rc<Port>, worker: &Rc<Worker>, reply: Vec<u8>, route: Route) {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.push((reply, route));
        match outgoing.len() {
            1 => {
                let (port, worker) = (self.clone(), worker.clone());
                spawn_local(async move { port.flush(&worker) });
            }
            BATCH.. => {
                drop(outgoing);
                self.flush(worker);
            }
            _ => {}
        }
    }

    fn flush(&self, worker: &Rc<Worker>) {
        let mut outgoing = self.outgoing.take();
        let message = |place: usize| {
            let (reply, route): &(Vec<u8>, Route) = &outgoing[place];
            (reply.as_slice(), route)
        };
        let between = || worker.look_if_time();
        if outgoing.len() > 1 {
            between();
        }
        let mut outbox = worker.batch.late.borrow_mut();
        let sent = outbox.send_in_parts(self.fd(), outgoing.len(), message, LATE_TRAINS, between);
        worker.counters.lost.add(sent.failed as u64);
        outgoing.clear();
        // Its room is kept, unless further replies have come up.
        let mut next = self.outgoing.borrow_mut();
        if next.is_empty() {
            *next = outgoing;
        }
    }
}

/// Serves a socket until its task is aborted.
pub(super) async fn serve(worker: Rc<Worker>, listener: Rc<Listener>, port: Rc<Port>) {
    let mut unread = None;
    loop {
        // Not `readable`, which keeps a list of who waits: here waits one task alone.
        let Ok(mut ready) = poll_fn(|task| port.socket.poll_read_ready(task)).await else { return };
        worker.thrift.begin_batch();
        match receive(&worker, &listener, &port) {
            // Emptied: a datagram from now on wakes us again, so nothing is asked in vain.
            Ok(true) => {
                ready.clear_ready();
                unread = None;
            }
            Ok(false) => {
                drop(ready);
                worker.thrift.look();
                unread.get_or_insert_with(|| worker.thrift.unread());
                yield_now().await;
            }
            Err(error) => {
                ready.clear_ready();
                unread = None;
                if error.kind() != io::ErrorKind::WouldBlock {
                    yield_now().await;
                }
            }
        }
    }
}

/// Takes in a batch if there is one, without waiting. What goes wrong is met again by who serves.
pub(super) fn look(worker: &Rc<Worker>, listener: &Rc<Listener>, port: &Rc<Port>) {
    let _ = receive(worker, listener, port);
}

/// Takes in what the socket holds, without waiting.
pub(super) fn drain(worker: &Rc<Worker>, listener: &Rc<Listener>, port: &Rc<Port>) {
    for _ in 0..LAST_BATCHES {
        if !matches!(receive(worker, listener, port), Ok(false)) {
            return;
        }
    }
}

/// One batch: received, answered or parked, replied. True when the socket is empty.
fn receive(worker: &Rc<Worker>, listener: &Listener, port: &Rc<Port>) -> io::Result<bool> {
    let mut buffers = worker.batch.buffers.borrow_mut();
    let received = worker.batch_begins();
    let Buffers { inbox, outbox, responses, routes } = &mut *buffers;
    let emptied = inbox.receive(port.fd(), port.destinations)?;
    let Some(serving) = listener.serving() else { return Ok(emptied) };
    worker.with_means(&serving.snapshot, |means| {
        means.received = received;
        for place in 0..inbox.count() {
            let datagram = inbox.datagram(place);
            let client = port.client(&datagram.route);
            let response = &mut responses[routes.len()];
            let (snapshot, server) = (&serving.snapshot, serving.server);
            match arrive(snapshot, server, datagram.bytes, client, response, means) {
                Arrival::Reply => routes.push(datagram.route),
                Arrival::Silence(Silence::NotAQuery) => worker.counters.ignored.increment(),
                Arrival::Silence(Silence::Dropped(_)) => {}
                Arrival::Wait(parked, step) => park(worker, port, datagram.route, parked, step),
            }
            if routes.len() == responses.len() {
                send(worker, port, outbox, responses, routes);
            }
        }
    });
    send(worker, port, outbox, responses, routes);
    Ok(emptied)
}

/// Sends the replies that are ready, and makes place for others.
fn send(
    worker: &Worker,
    port: &Port,
    outbox: &mut Outbox,
    responses: &mut [Response],
    routes: &mut Vec<Route>,
) {
    let sent = outbox
        .send(port.fd(), routes.len(), |place| (responses[place].wire.as_slice(), &routes[place]));
    worker.counters.lost.add(sent.failed as u64);
    for response in &mut responses[..routes.len()] {
        if response.wire.capacity() > KEPT_OCTETS {
            response.wire = Vec::new();
        }
    }
    routes.clear();
}

fn park(worker: &Rc<Worker>, port: &Rc<Port>, route: Route, parked: Box<Parked>, step: Step) {
    if !worker.thrift.has_place(&worker.counters) {
        // Its client asks again after some seconds. SERVFAIL would be asked again at once, and cost as
        // much as a hit.
        return;
    }
    let port = port.clone();
    match worker.hold(&parked) {
        Some(held) => {
            spawn_local(worker.answer(parked, step, move |worker, reply| {
                drop(held);
                if let Some(reply) = reply {
                    port.reply(worker, reply.wire, route);
                }
            }));
        }
        None => {
            let worker = worker.clone();
            spawn_local(async move {
                if let Some(reply) = worker.shed(parked, step) {
                    port.reply(&worker, reply.wire, route);
                }
            });
        }
    }
}
