//! One address of one worker: its sockets, and the tasks that serve them.
//!
//! Owns how an address is opened, what it serves by, and how it is given up: what was received is
//! answered, connections are told. What a query or a connection means is others' to know.

use super::handed::Heir;
use super::sockets::{Address, Bound, Keeper};
use super::tcp::{self, Connection};
use super::udp::{self, Port};
use super::worker::Worker;
use super::{h3, quic};
use crate::corefile::KeyTransport;
use crate::engine::Snapshot;
use crate::metrics::Desc;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::{JoinHandle, spawn_local};

/// What a listener serves by.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) snapshot: Arc<Snapshot>,
    /// The number of the server in it.
    pub(super) server: usize,
}

/// What becomes of the sockets that a worker reads no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketsAfter {
    /// They are closed: what has arrived is taken in before.
    Closed,
    /// Somebody has them, and what arrives waits in them.
    Kept,
}

/// The tasks of a listener that was given up. They have its sockets until they have had one more turn.
#[must_use]
pub(super) struct Ending(Vec<JoinHandle<()>>);

impl Ending {
    /// Waits until the sockets that the tasks had are closed.
    pub(super) async fn ended(self) {
        for task in self.0 {
            // They were told to end: that is no error.
            let _ = task.await;
        }
    }
}

/// One address of one worker.
pub(super) struct Listener {
    /// `None` once the address is gone.
    serving: RefCell<Option<Serving>>,
    /// Its open connections, to be woken when `serving` changes.
    pub(super) connections: RefCell<HashMap<*const Connection, Rc<Connection>>>,
    /// Its address, and who takes its connections, once that is not this process any more.
    heir: RefCell<Option<(Address, Heir)>>,
    ports: Vec<Rc<Port>>,
    keeper: Keeper,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl Listener {
    /// Serves the address from now on.
    ///
    /// # Errors
    ///
    /// The worker's runtime takes one of the sockets not, or HTTP/3's endpoint cannot be made.
    pub(super) fn open(
        worker: &Rc<Worker>,
        bound: Bound,
        serving: Serving,
    ) -> io::Result<Rc<Listener>> {
        let h3 = h3::Settings::of(&serving.snapshot.servers[serving.server]);
        let (datagrams, quic, h3) = match (bound.address.transport, h3) {
            (KeyTransport::Quic, _) => (Vec::new(), bound.udp, None),
            (_, Some(settings)) => (Vec::new(), Vec::new(), Some((bound.udp, settings))),
            (_, None) => (bound.udp, Vec::new(), None),
        };
        let port = |socket| Port::new(socket, bound.local).map(Rc::new);
        let ports = datagrams.into_iter().map(port).collect::<io::Result<_>>()?;
        let listener = Rc::new(Listener {
            serving: RefCell::new(Some(serving)),
            connections: RefCell::default(),
            heir: RefCell::default(),
            ports,
            keeper: bound.keeper,
            tasks: RefCell::default(),
        });
        let mut tasks = listener.tasks.borrow_mut();
        for socket in bound.tcp {
            let socket = tokio::net::TcpListener::from_std(socket)?;
            tasks.push(spawn_local(tcp::accept(worker.clone(), listener.clone(), socket)));
        }
        for socket in quic {
            let endpoint = quic::open(socket, &listener)?;
            tasks.push(spawn_local(quic::serve(worker.clone(), listener.clone(), endpoint)));
        }
        if let Some((sockets, settings)) = h3 {
            // It ends by itself: what is under way there would be lost.
            for socket in sockets {
                h3::open(socket, &settings, worker, &listener)?;
            }
        }
        for port in &listener.ports {
            worker.doors.borrow_mut().push((listener.clone(), port.clone()));
            tasks.push(spawn_local(udp::serve(worker.clone(), listener.clone(), port.clone())));
        }
        drop(tasks);
        Ok(listener)
    }

    /// What it serves by now.
    pub(super) fn serving(&self) -> Option<Serving> {
        self.serving.borrow().clone()
    }

    /// Runs `use_it` with what it serves by now, without counting a reference.
    pub(super) fn with_serving<T>(&self, use_it: impl FnOnce(&Serving) -> T) -> Option<T> {
        self.serving.borrow().as_ref().map(use_it)
    }

    /// Counts a response of an encrypted transport in `family`, by server and the transport's own status.
    pub(super) fn count_response(&self, worker: &Worker, family: &'static Desc, status: &str) {
        self.with_serving(|serving| {
            let label = &serving.snapshot.servers[serving.server].identity.label;
            worker.equipment.metrics.counter(family, &[label, status]).increment();
        });
    }

    /// Its address and who takes its connections, if somebody does.
    pub(super) fn heir(&self) -> Option<(Address, Heir)> {
        self.heir.borrow().clone()
    }

    /// True once the address is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.serving.borrow().is_none()
    }

    /// Serves by another snapshot from now on.
    pub(super) fn serve_by(&self, serving: Serving) {
        *self.serving.borrow_mut() = Some(serving);
    }

    /// What becomes of its sockets when the worker stops reading: those that the service manager keeps
    /// stay open in any case.
    pub(super) fn sockets_after(&self, after: SocketsAfter) -> SocketsAfter {
        match self.keeper {
            Keeper::Manager => SocketsAfter::Kept,
            Keeper::Nobody => after,
        }
    }

    /// Gives the address up; somebody else has its sockets and takes its connections.
    pub(super) fn bequeath(
        self: &Rc<Listener>,
        worker: &Rc<Worker>,
        address: Address,
        heir: Heir,
    ) -> Ending {
        *self.heir.borrow_mut() = Some((address, heir));
        self.close(worker, SocketsAfter::Kept)
    }

    /// Takes in what the address has received, unless somebody else has the sockets then, and gives it up.
    /// Parked queries still get their replies; connections end once theirs are out.
    pub(super) fn close(self: &Rc<Listener>, worker: &Rc<Worker>, after: SocketsAfter) -> Ending {
        let tasks = self.tasks.take();
        tasks.iter().for_each(JoinHandle::abort);
        worker.doors.borrow_mut().retain(|(known, _)| !Rc::ptr_eq(known, self));
        // A socket that another process reads too must go on receiving, and loses nothing.
        let is_shared = worker.node.sharers.load(Ordering::Acquire) > 0;
        let is_to_wait = is_shared || after == SocketsAfter::Kept;
        for port in self.ports.iter().filter(|_| !is_to_wait) {
            udp::drain(worker, self, port);
            if self.keeper == Keeper::Nobody {
                port.leave();
                udp::drain(worker, self, port);
            }
        }
        *self.serving.borrow_mut() = None;
        for connection in self.connections.borrow().values() {
            connection.wake();
        }
        Ending(tasks)
    }
}
