//! One connection to an upstream: whether it takes queries, how it ends, and what it owes.
//!
//! Owns its [`ParkedQueries`] and, for streams, the octets that wait to be written. The task that reads
//! the socket delivers; whoever asks holds a [`Ticket`]. Knows ids and framing alone.

use super::Asked;
use super::hearing::Hearing;
use super::lifetime::{Lifetime, Upkeep};
use super::limits::{Fitness, Seen};
use super::pace::{Effect, Pace};
use super::parked::{Failure, Meant, Parked, ParkedQueries, Times};
use super::ticket::Ticket;
use crate::dns::Transport;
use crate::net::rest::stood_still_since;
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::Notify;

/// The longest between two looks for queries whose time is over.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct State {
    parked: ParkedQueries,
    /// Framed queries for the stream's writer.
    outgoing: Vec<u8>,
    lifetime: Lifetime,
    hearing: Hearing,
    is_established: bool,
    /// A query's time ended, or it was given up: its response may still come, under an id that is
    /// another query's by then.
    has_given_up: bool,
    /// Ended, with Go's words for why.
    closed: Option<Box<str>>,
    local: Option<SocketAddr>,
    /// When its task looks for queries whose time is over.
    next_look: Instant,
}

/// One connection to an upstream.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its number within the pool, from 1.
    pub(super) serial: u64,
    /// The connected socket, for UDP.
    pub(super) socket: OnceLock<UdpSocket>,
    transport: Transport,
    remote: Box<str>,
    load: AtomicU32,
    pace: Arc<Pace>,
    state: Mutex<State>,
    wake: Notify,
    hurry: Notify,
    end: Notify,
}

/// A connection that has ended takes no queries.
#[derive(Debug)]
pub(super) struct Ended {
    /// Why it ended, in Go's words.
    pub(super) text: Box<str>,
}

impl Connection {
    /// A connection that is being established from `now` on. It takes queries at once.
    pub(super) fn new(
        serial: u64,
        transport: Transport,
        remote: &str,
        pace: Arc<Pace>,
        lifetime: Lifetime,
        now: Instant,
    ) -> Connection {
        Connection {
            serial,
            socket: OnceLock::new(),
            transport,
            remote: remote.into(),
            load: AtomicU32::new(0),
            pace,
            state: Mutex::new(State {
                parked: ParkedQueries::default(),
                outgoing: Vec::new(),
                lifetime,
                hearing: Hearing::new(now),
                is_established: false,
                has_given_up: false,
                closed: None,
                local: None,
                next_look: now,
            }),
            wake: Notify::new(),
            hurry: Notify::new(),
            end: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queries in flight.
    pub(super) fn load(&self) -> u32 {
        self.load.load(Ordering::SeqCst)
    }

    /// What a choice among connections sees of it at `now`.
    pub(super) fn seen(&self, now: Instant) -> Seen {
        let state = self.state();
        let waited = match self.load() {
            0 => Duration::ZERO,
            _ => now.saturating_duration_since(state.hearing.waits_since()),
        };
        let fitness = self.fitness_in(&state, now);
        Seen { load: self.load(), waited, serial: self.serial, fitness }
    }

    /// Whether it takes queries at `now`.
    pub(super) fn fitness(&self, now: Instant) -> Fitness {
        self.fitness_in(&self.state(), now)
    }

    fn fitness_in(&self, state: &State, now: Instant) -> Fitness {
        match state.closed {
            Some(_) => Fitness::Unfit,
            None => state.lifetime.fitness(self.load(), now),
        }
    }

    /// Puts a query in flight under a new random id. On a stream it is written; on UDP the caller
    /// sends it ([`Ticket::id`]).
    pub(super) fn park(
        self: &Arc<Self>,
        query: &Asked,
        udp_limit: Option<u16>,
        random: &mut StdRng,
        times: Times,
    ) -> Result<Ticket, Ended> {
        let mut state = self.state();
        if let Some(text) = &state.closed {
            return Err(Ended { text: text.clone() });
        }
        let number = state.lifetime.take(times.asked);
        let (parked, receiver) = Parked::new(number, query, udp_limit, times);
        let id = state.parked.park(parked, random);
        if self.load.fetch_add(1, Ordering::Relaxed) == 0 {
            state.hearing.is_busy_from(times.asked);
        }
        if self.transport != Transport::Udp {
            let wire = query.wire();
            // A query is a message of at most 65535 octets: its length fits.
            let length = wire.len().min(usize::from(u16::MAX)) as u16;
            state.outgoing.extend_from_slice(&length.to_be_bytes());
            state.outgoing.extend_from_slice(&id.to_be_bytes());
            state.outgoing.extend_from_slice(&wire[2..usize::from(length)]);
        }
        let is_reused = state.is_established;
        let is_hurried = times.deadline < state.next_look;
        drop(state);
        if is_hurried {
            self.hurry.notify_one();
        }
        if self.transport != Transport::Udp {
            self.wake.notify_one();
        }
        Ok(Ticket { connection: self.clone(), id, number, is_reused, receiver })
    }

    /// The octets to be written, or `None` when the connection has ended.
    pub(super) fn take_outgoing(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        state.closed.is_none().then(|| std::mem::take(&mut state.outgoing))
    }

    /// Waits until there is something to write, or to look at.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Waits until a query's time ends before the next look. For its task alone.
    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// The peer does not even acknowledge what was sent.
    pub(super) fn died_in_silence(&self) {
        self.state().hearing.died();
    }

    /// When it died in silence: since when a query had waited.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.state().hearing.silent_since()
    }

    /// Whether anything came over it after `moment`, or it was opened after it.
    pub(super) fn is_heard_since(&self, moment: Instant) -> bool {
        self.state().hearing.is_heard_since(moment)
    }

    /// Waits until it is closed. For its task alone.
    pub(super) async fn closed(&self) {
        self.end.notified().await;
    }

    /// It is established, from this address.
    pub(super) fn established(&self, local: Option<SocketAddr>) {
        let mut state = self.state();
        state.is_established = true;
        state.local = local;
    }

    /// Whether it ever was.
    pub(super) fn was_established(&self) -> bool {
        self.state().is_established
    }

    /// Whether anything ever came over it.
    pub(super) fn has_spoken(&self) -> bool {
        self.state().hearing.has_spoken()
    }

    /// Hands a message to whoever asked for it. False when nobody did.
    pub(super) fn deliver(&self, message: &[u8], now: Instant) -> bool {
        let Some(&[high, low]) = message.first_chunk::<2>() else { return false };
        let id = u16::from_be_bytes([high, low]);
        let mut state = self.state();
        state.hearing.hear(now);
        // Nobody forges into a stream: there, an answer to another question is the upstream's own.
        let meant = match self.transport != Transport::Udp && !state.has_given_up {
            true => Meant::Surely,
            false => Meant::Perhaps,
        };
        let Some((parked, result)) = state.parked.receive(id, message, meant) else { return false };
        self.less(&mut state, now);
        self.pace.answered(parked.asked, now, |slow| match stood_still_since(parked.asked) {
            true => Effect::Unknown,
            false => state.parked.effect(&parked, now, slow),
        });
        drop(state);
        parked.tell(result);
        true
    }

    /// One query less in flight.
    fn less(&self, state: &mut State, now: Instant) {
        state.lifetime.left(now);
        let is_last = self.load.fetch_sub(1, Ordering::SeqCst) == 1;
        if is_last && state.lifetime.ends_with_its_last() {
            self.wake.notify_one();
        }
    }

    /// Fails all queries in flight but `spared`; the connection lives on.
    pub(super) fn fail(&self, text: &str, spared: Option<u16>) {
        let mut state = self.state();
        let now = state.lifetime.last_used();
        for parked in state.parked.take_all_but(spared) {
            self.less(&mut state, now);
            parked.tell(Err(Failure::Refused(text.into())));
        }
    }

    /// Fails one query in flight.
    pub(super) fn fail_one(&self, id: u16, text: &str) {
        let mut state = self.state();
        let now = state.lifetime.last_used();
        if let Some(parked) = state.parked.take(id) {
            self.less(&mut state, now);
            parked.tell(Err(Failure::Response(text.into())));
        }
    }

    /// Takes no more queries; ends with the last one.
    pub(super) fn retire(&self) {
        self.state().lifetime.retire();
        self.wake.notify_one();
    }

    /// Ends it now: queries in flight fail with `text`, and the task that reads it is woken.
    pub(super) fn close(&self, text: &str) {
        self.end_with(text, Failure::Closed);
    }

    /// As [`Connection::close`], for one that nobody took: also who waits behind others knows that.
    pub(super) fn refuse(&self, text: &str) {
        self.end_with(text, Failure::Refused);
    }

    fn end_with(&self, text: &str, failure: fn(Box<str>) -> Failure) {
        let mut state = self.state();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(text.into());
        state.outgoing = Vec::new();
        let mut parked = std::mem::take(&mut state.parked);
        self.load.store(0, Ordering::Relaxed);
        drop(state);
        for parked in parked.take_all_but(None) {
            parked.tell(Err(failure(text.into())));
        }
        self.wake.notify_one();
        self.end.notify_one();
    }

    /// Fails the queries whose time is over at `now`; gives the time of the next look. When nothing
    /// at all has come since one of them was asked that waited for long enough, the connection is silent, and
    /// no further query shall wait for it. A stream over which nothing ever came ends with the last of them.
    pub(super) fn expire(&self, now: Instant) -> Instant {
        let mut state = self.state();
        let (over, next) = state.parked.take_over(now, LOOK);
        state.next_look = next;
        if over.is_empty() {
            return next;
        }
        state.has_given_up = true;
        let mut is_silent = false;
        let last_used = state.lifetime.last_used();
        for parked in &over {
            self.less(&mut state, last_used);
            is_silent |= parked.is_telling
                && state.is_established
                && state.hearing.has_died_since(parked.asked);
        }
        if self.load() == 0 && self.transport != Transport::Udp && !state.hearing.has_spoken() {
            // Nothing ever came: it is worth no more than a new one.
            state.lifetime.retire();
            self.wake.notify_one();
        }
        drop(state);
        let words = self.words("i/o timeout");
        for parked in over {
            parked.tell_timeout(&words);
        }
        match self.transport {
            _ if !is_silent => {}
            Transport::Udp => self.retire(),
            _ => self.close(&words),
        }
        next
    }

    /// Whether it is over at `now`: closed, idle for too long, or retiring and done.
    pub(super) fn upkeep(&self, now: Instant) -> Upkeep {
        let state = self.state();
        if state.closed.is_some() {
            return Upkeep::End;
        }
        state.lifetime.upkeep(self.load(), now)
    }

    /// Gives up the query with this id and number, if it is not answered yet.
    pub(super) fn leave(&self, id: u16, number: u64) {
        let mut state = self.state();
        if state.parked.take_numbered(id, number).is_some() {
            state.has_given_up = true;
            let now = state.lifetime.last_used();
            self.less(&mut state, now);
        }
    }

    /// `read tcp LOCAL->REMOTE: WHAT`, or `dial tcp REMOTE: WHAT` before it is established.
    pub(super) fn words(&self, what: &str) -> String {
        let state = self.state();
        let network = self.transport.client_word();
        match (state.is_established, state.local) {
            (true, Some(local)) => format!("read {network} {local}->{}: {what}", self.remote),
            _ => format!("dial {network} {}: {what}", self.remote),
        }
    }
}

#[cfg(test)]
mod tests;
