//! One connection to an upstream: whether it takes queries, how it ends, and what it owes.
//!
//! Owns its [`ParkedQueries`] and, for streams, the octets that wait to be written. The task that reads
//! the socket delivers; whoever asks holds a [`Ticket`]. Knows ids and framing alone.

use super::Asked;
use super::limits::{Fitness, Limits, Seen};
use super::pace::{Effect, Pace};
use super::parked::{Failure, Meant, Parked, ParkedQueries};
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

/// While queries are in flight, its task looks after a connection no more often than this.
const LEAST_EXPIRE: Duration = Duration::from_secs(1);

/// The longest between two looks for queries whose time is over.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct State {
    parked: ParkedQueries,
    /// Framed queries for the stream's writer.
    outgoing: Vec<u8>,
    /// Queries so far.
    uses: u64,
    is_established: bool,
    /// Something came.
    has_spoken: bool,
    /// A query's time ended, or it was given up: its response may still come, under an id that is
    /// another query's by then.
    has_given_up: bool,
    /// Takes no more queries; ends when the last one is answered.
    is_retiring: bool,
    /// Ended, with Go's words for why.
    closed: Option<Box<str>>,
    local: Option<SocketAddr>,
    last_heard: Instant,
    last_used: Instant,
    /// When queries were first in flight again after there were none.
    busy_since: Instant,
    /// It died in silence: since when a query had waited.
    silent_since: Option<Instant>,
    /// When its task looks for queries whose time is over.
    next_look: Instant,
}

impl State {
    /// Since when nothing came although queries were in flight, while there are any.
    fn waits_since(&self) -> Instant {
        self.last_heard.max(self.busy_since)
    }
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
    most_uses: u64,
    expire: Duration,
    dies_at: Instant,
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

/// What the task of a connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upkeep {
    /// Look again then, or when woken.
    At(Instant),
    /// End it.
    End,
}

impl Connection {
    /// A connection that is being established. It takes queries at once. `expire` is how long it
    /// is kept idle, `age` how long it takes queries at all.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        serial: u64,
        transport: Transport,
        remote: &str,
        limits: &Limits,
        pace: Arc<Pace>,
        expire: Duration,
        age: Duration,
        now: Instant,
    ) -> Connection {
        Connection {
            serial,
            socket: OnceLock::new(),
            transport,
            remote: remote.into(),
            load: AtomicU32::new(0),
            most_uses: limits.uses,
            expire,
            dies_at: now + age,
            pace,
            state: Mutex::new(State {
                parked: ParkedQueries::default(),
                outgoing: Vec::new(),
                uses: 0,
                is_established: false,
                has_spoken: false,
                has_given_up: false,
                is_retiring: false,
                closed: None,
                local: None,
                last_heard: now,
                last_used: now,
                busy_since: now,
                silent_since: None,
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
            _ => now.saturating_duration_since(state.waits_since()),
        };
        let fitness = self.fitness_in(&state, now);
        Seen { load: self.load(), waited, serial: self.serial, fitness }
    }

    /// Whether it takes queries at `now`.
    pub(super) fn fitness(&self, now: Instant) -> Fitness {
        self.fitness_in(&self.state(), now)
    }

    fn fitness_in(&self, state: &State, now: Instant) -> Fitness {
        let is_fit = state.closed.is_none()
            && !state.is_retiring
            && now < self.dies_at
            && (self.load() > 0 || now.duration_since(state.last_used) < self.expire);
        match is_fit {
            false => Fitness::Unfit,
            true if state.uses >= self.most_uses => Fitness::Worn,
            true => Fitness::Fit,
        }
    }

    /// Puts a query in flight under a new random id. On a stream it is written; on UDP the caller
    /// sends it ([`Ticket::id`]). It fails at `deadline`, and shows that the connection is silent if it then
    /// waited for `telling`.
    pub(super) fn park(
        self: &Arc<Self>,
        query: &Asked,
        udp_limit: Option<u16>,
        random: &mut StdRng,
        now: Instant,
        (deadline, telling): (Instant, Duration),
    ) -> Result<Ticket, Ended> {
        let mut state = self.state();
        if let Some(text) = &state.closed {
            return Err(Ended { text: text.clone() });
        }
        state.uses += 1;
        let number = state.uses;
        let (mut parked, receiver) = Parked::new(number, query, udp_limit, now, deadline);
        parked.is_telling = deadline.saturating_duration_since(now) >= telling;
        let id = state.parked.park(parked, random);
        if self.load.fetch_add(1, Ordering::Relaxed) == 0 {
            state.busy_since = now;
        }
        state.last_used = now;
        if self.transport != Transport::Udp {
            let wire = query.wire();
            // A query is a message of at most 65535 octets: its length fits.
            let length = wire.len().min(usize::from(u16::MAX)) as u16;
            state.outgoing.extend_from_slice(&length.to_be_bytes());
            state.outgoing.extend_from_slice(&id.to_be_bytes());
            state.outgoing.extend_from_slice(&wire[2..usize::from(length)]);
        }
        let is_reused = state.is_established;
        let is_hurried = deadline < state.next_look;
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
        let mut state = self.state();
        state.silent_since = Some(state.waits_since());
    }

    /// When it died in silence: since when a query had waited.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.state().silent_since
    }

    /// Whether anything came over it after `moment`, or it was opened after it.
    pub(super) fn is_heard_since(&self, moment: Instant) -> bool {
        self.state().last_heard > moment
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
        self.state().has_spoken
    }

    /// Hands a message to whoever asked for it. False when nobody did.
    pub(super) fn deliver(&self, message: &[u8], now: Instant) -> bool {
        let Some(&[high, low]) = message.first_chunk::<2>() else { return false };
        let id = u16::from_be_bytes([high, low]);
        let mut state = self.state();
        state.last_heard = now;
        state.has_spoken = true;
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
        state.last_used = now;
        let is_last = self.load.fetch_sub(1, Ordering::SeqCst) == 1;
        let is_done =
            || state.is_retiring || state.uses >= self.most_uses || Instant::now() >= self.dies_at;
        if is_last && (self.expire < LEAST_EXPIRE || is_done()) {
            self.wake.notify_one();
        }
    }

    /// Fails all queries in flight but `spared`; the connection lives on.
    pub(super) fn fail(&self, text: &str, spared: Option<u16>) {
        let mut state = self.state();
        let now = state.last_used;
        for parked in state.parked.take_all_but(spared) {
            self.less(&mut state, now);
            parked.tell(Err(Failure::Refused(text.into())));
        }
    }

    /// Fails one query in flight.
    pub(super) fn fail_one(&self, id: u16, text: &str) {
        let mut state = self.state();
        let now = state.last_used;
        if let Some(parked) = state.parked.take(id) {
            self.less(&mut state, now);
            parked.tell(Err(Failure::Response(text.into())));
        }
    }

    /// Takes no more queries; ends with the last one.
    pub(super) fn retire(&self) {
        self.state().is_retiring = true;
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
    /// no further query shall wait for it.
    pub(super) fn expire(&self, now: Instant) -> Instant {
        let mut state = self.state();
        let (over, next) = state.parked.take_over(now, LOOK);
        state.next_look = next;
        if over.is_empty() {
            return next;
        }
        state.has_given_up = true;
        let mut is_silent = false;
        let last_used = state.last_used;
        for parked in &over {
            self.less(&mut state, last_used);
            if parked.is_telling && state.is_established && state.last_heard <= parked.asked {
                is_silent = true;
                let asked = state.silent_since.map_or(parked.asked, |at| at.min(parked.asked));
                state.silent_since = Some(asked);
            }
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
        let is_spent = now >= self.dies_at || state.uses >= self.most_uses;
        if !state.parked.is_empty() {
            return Upkeep::At(now + self.expire.max(LEAST_EXPIRE));
        }
        let idle_until = state.last_used + self.expire;
        if state.is_retiring || is_spent || now >= idle_until {
            Upkeep::End
        } else {
            Upkeep::At(idle_until.min(self.dies_at))
        }
    }

    /// Gives up the query with this id and number, if it is not answered yet.
    pub(super) fn leave(&self, id: u16, number: u64) {
        let mut state = self.state();
        if state.parked.take_numbered(id, number).is_some() {
            state.has_given_up = true;
            let now = state.last_used;
            self.less(&mut state, now);
        }
    }

    /// `read tcp LOCAL->REMOTE: WHAT`, or `dial tcp REMOTE: WHAT` before it is established.
    pub(super) fn words(&self, what: &str) -> String {
        let state = self.state();
        let network = self.network();
        match (state.is_established, state.local) {
            (true, Some(local)) => format!("read {network} {local}->{}: {what}", self.remote),
            _ => format!("dial {network} {}: {what}", self.remote),
        }
    }

    /// `udp` or `tcp`.
    fn network(&self) -> &'static str {
        self.transport.client_word()
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::STREAMS;
    use super::*;
    use rand::SeedableRng;

    const EXPIRE: Duration = Duration::from_secs(10);
    const AGE: Duration = Duration::from_secs(60);
    const TIME: Duration = Duration::from_secs(2);

    /// A connection that takes two queries, and one of them at a time in flight.
    fn connection(transport: Transport, now: Instant) -> Arc<Connection> {
        let limits = Limits { uses: 2, ..STREAMS };
        let pace = Arc::new(Pace::new(1, 1));
        Arc::new(Connection::new(1, transport, "192.0.2.1:53", &limits, pace, EXPIRE, AGE, now))
    }

    fn park(connection: &Arc<Connection>, now: Instant) -> Ticket {
        let wire = *b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
        let query = Asked::new(wire.into(), wire.len());
        let mut random = StdRng::seed_from_u64(1);
        connection.park(&query, None, &mut random, now, (now + TIME, TIME)).unwrap()
    }

    /// An empty response to the query of a ticket, whose name begins with this letter.
    fn response(ticket: &Ticket, letter: u8) -> Vec<u8> {
        let mut message = b"\0\0\x81\x80\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01".to_vec();
        message[..2].copy_from_slice(&ticket.id.to_be_bytes());
        message[13] = letter;
        message
    }

    #[test]
    fn a_message_to_another_question_ends_a_query_only_where_it_is_surely_meant_for_it() {
        for (transport, gives_up, ends) in [
            (Transport::Udp, false, false),
            (Transport::Tcp, false, true),
            // It may be the late answer to the query that was given up, whose id was the same.
            (Transport::Tcp, true, false),
        ] {
            let now = Instant::now();
            let connection = connection(transport, now);
            if gives_up {
                park(&connection, now).leave();
            }
            let mut ticket = park(&connection, now);
            assert_eq!(connection.deliver(&response(&ticket, b'b'), now), ends, "{transport:?}");
            assert_eq!(ticket.receiver.try_recv().is_ok(), ends, "{transport:?}");
            assert_eq!(connection.deliver(&response(&ticket, b'a'), now), !ends);
            assert_eq!(connection.load(), 0);
        }
    }

    #[test]
    fn it_ends_when_nothing_is_in_flight_and_it_is_idle_old_worn_or_retiring() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let tcp = || connection(Transport::Tcp, start);
        assert_eq!(tcp().upkeep(after(9)), Upkeep::At(after(10)));
        assert_eq!(tcp().upkeep(after(10)), Upkeep::End, "idle");
        assert_eq!(tcp().fitness(after(9)), Fitness::Fit);
        assert_eq!(tcp().fitness(after(10)), Fitness::Unfit);

        let in_use = tcp();
        let ticket = park(&in_use, after(55));
        assert_eq!(in_use.fitness(after(59)), Fitness::Fit);
        assert_eq!(in_use.fitness(after(60)), Fitness::Unfit, "old");
        assert_eq!(in_use.upkeep(after(60)), Upkeep::At(after(70)), "with a query in flight");
        ticket.leave();
        assert_eq!(in_use.upkeep(after(59)), Upkeep::At(after(60)));
        assert_eq!(in_use.upkeep(after(60)), Upkeep::End);

        let worn = tcp();
        for _ in 0..2 {
            assert_eq!(worn.fitness(start), Fitness::Fit);
            park(&worn, start).leave();
        }
        assert_eq!((worn.fitness(start), worn.upkeep(start)), (Fitness::Worn, Upkeep::End));

        let retiring = tcp();
        let ticket = park(&retiring, start);
        retiring.retire();
        assert_eq!(retiring.fitness(start), Fitness::Unfit);
        assert_eq!(retiring.upkeep(start), Upkeep::At(after(10)));
        ticket.leave();
        assert_eq!(retiring.upkeep(start), Upkeep::End);
    }

    #[test]
    fn it_waits_since_a_query_was_first_in_flight_or_something_came() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let waited = |connection: &Connection, seconds| connection.seen(after(seconds)).waited;
        let connection = connection(Transport::Tcp, start);
        assert_eq!(waited(&connection, 4), Duration::ZERO);
        let first = park(&connection, after(5));
        let _second = park(&connection, after(6));
        assert_eq!(waited(&connection, 8), Duration::from_secs(3));
        assert!(connection.deliver(&response(&first, b'a'), after(9)));
        assert_eq!(waited(&connection, 11), Duration::from_secs(2));
        assert_eq!(
            (connection.is_heard_since(after(8)), connection.is_heard_since(after(9))),
            (true, false)
        );
    }

    #[test]
    fn its_task_is_woken_when_nothing_is_in_flight_and_it_takes_no_more() {
        let now = Instant::now();
        let is_woken = |connection: &Connection| {
            let woken = std::pin::pin!(connection.woken());
            woken.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        let connection = connection(Transport::Udp, now);
        let first = park(&connection, now);
        first.leave();
        assert!(!is_woken(&connection), "it takes another one");
        let second = park(&connection, now);
        assert!(!is_woken(&connection));
        second.leave();
        assert!(is_woken(&connection), "it has carried two");
    }

    #[test]
    fn its_words_are_gos_before_and_after_it_is_established() {
        let connection = connection(Transport::Tcp, Instant::now());
        assert_eq!(connection.words("x"), "dial tcp 192.0.2.1:53: x");
        connection.established(Some("10.0.0.1:4000".parse().unwrap()));
        assert_eq!(connection.words("x"), "read tcp 10.0.0.1:4000->192.0.2.1:53: x");
    }

    #[test]
    fn a_query_that_was_put_on_it_with_little_time_left_does_not_show_that_it_is_silent() {
        let start = Instant::now();
        for (telling, upkeep) in
            [(TIME + Duration::from_millis(1), Upkeep::At(start + EXPIRE)), (TIME, Upkeep::End)]
        {
            let connection = connection(Transport::Tcp, start);
            connection.established(None);
            let wire = *b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
            let (query, mut chance) =
                (Asked::new(wire.into(), wire.len()), StdRng::seed_from_u64(1));
            let time = (start + TIME, telling);
            let mut ticket = connection.park(&query, None, &mut chance, start, time).unwrap();
            connection.expire(start + TIME);
            assert!(matches!(ticket.receiver.try_recv(), Ok(Err(Failure::Response(_)))));
            assert_eq!(connection.upkeep(start + TIME), upkeep, "{telling:?}");
        }
    }

    #[test]
    fn one_over_which_nothing_came_since_a_query_whose_time_is_over_takes_no_more() {
        let start = Instant::now();
        let later = start + Duration::from_millis(1);
        for (transport, has_come, upkeep, fitness) in [
            (Transport::Tcp, false, Upkeep::End, Fitness::Unfit),
            (Transport::Udp, false, Upkeep::End, Fitness::Unfit),
            (Transport::Tcp, true, Upkeep::At(later + EXPIRE), Fitness::Fit),
        ] {
            let connection = connection(transport, start);
            connection.established(None);
            let mut ticket = park(&connection, later);
            if has_come {
                connection.deliver(&[0; 12], later + Duration::from_millis(1));
            }
            let before = later + TIME - Duration::from_millis(1);
            assert_eq!(connection.expire(before), later + TIME, "the next look");
            assert!(ticket.receiver.try_recv().is_err());
            connection.expire(later + TIME);
            assert!(matches!(ticket.receiver.try_recv(), Ok(Err(Failure::Response(_)))));
            assert_eq!(connection.silent_since().is_some(), !has_come);
            assert_eq!(connection.upkeep(later + TIME), upkeep, "{transport:?}");
            assert_eq!(connection.fitness(later + TIME), fitness, "{transport:?}");
        }
    }
}
