//! Octets into messages, and each message through the engine.
//!
//! Owns what was read and not yet served. Never writes a socket: replies join the connection's unsent
//! octets.

use super::open::{Connection, KEPT_OCTETS};
use super::patience::Patience;
use crate::dns::Response;
use crate::engine::{Arrival, Parked, Silence, Step, arrive};
use crate::net::listener::Listener;
use crate::net::stream::Stream;
use crate::net::worker::Worker;
use crate::plugin::{Client, Now};
use std::io;
use std::rc::Rc;
use std::task;
use tokio::task::spawn_local;
use tokio::time::Instant;

/// Octets into messages.
pub(super) struct Reader<'w> {
    pub(super) worker: &'w Rc<Worker>,
    pub(super) listener: &'w Rc<Listener>,
    pub(super) client: Client,
    /// What was read and not yet served: part of a message, or messages held back.
    pub(super) partial: Vec<u8>,
    /// How many more messages are served (`maxtcpqueries`).
    pub(super) left: u64,
    /// When the connection's task last looked at its clock: once a turn.
    pub(super) moment: Instant,
}

impl Reader<'_> {
    /// Reads once and serves the messages that are complete; false at the end of the stream.
    pub(super) fn read(
        &mut self,
        task: &mut task::Context<'_>,
        stream: &mut Stream,
        connection: &Rc<Connection>,
        patience: &mut Patience,
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
            let served = self.serve(&scratch[..count], received, connection, patience);
            self.partial.extend_from_slice(&scratch[served..count]);
        } else {
            self.partial.extend_from_slice(&scratch[..count]);
            drop(scratch);
            self.serve_partial(received, connection, patience);
        }
        connection.count(self.partial.capacity());
        Ok(true)
    }

    /// Whether a whole message was held back.
    pub(super) fn has_frame(&self) -> bool {
        self.left > 0 && first_frame(&self.partial).is_some()
    }

    /// Serves what was held back.
    pub(super) fn serve_frames(&mut self, connection: &Rc<Connection>, patience: &mut Patience) {
        let (received, moment) = self.worker.reading();
        self.moment = moment;
        self.serve_partial(received, connection, patience);
    }

    fn serve_partial(
        &mut self,
        received: Now,
        connection: &Rc<Connection>,
        patience: &mut Patience,
    ) {
        let mut octets = std::mem::take(&mut self.partial);
        let served = self.serve(&octets, received, connection, patience);
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
        patience: &mut Patience,
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
            patience.spoken = true;
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
