//! One try to ask an upstream: a place on a connection, the query on it, its response.
//!
//! Owns the query's place while it waits. A future by hand: thousands may wait, and one that the
//! compiler makes holds much of what it has passed on.

use super::carry::carry;
use super::connection::Connection;
use super::dial::words;
use super::limits::{MOST_STALE, TELLING};
use super::parked::{Failure, Reply, Times};
use super::peer::{Failed, Peer};
use super::pool::{Place, Pool};
use super::ticket::Ticket;
use super::{Asked, Dispatcher};
use crate::dns::Transport;
use crate::plugin::forward::Exchange;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// What the tries of an exchange have in common.
pub(super) struct Errand<'t> {
    /// The worker that asks.
    pub(super) dispatcher: &'t Dispatcher,
    /// The query.
    pub(super) query: &'t Asked,
    /// How it is asked.
    pub(super) exchange: &'t Exchange,
}

/// One try.
pub(super) struct Try<'t> {
    errand: &'t Errand<'t>,
    /// The upstream.
    pub(super) peer: &'t Peer,
    /// The upstream's place among the directive's.
    pub(super) place: usize,
    /// How it asks: TCP after a truncated response, with `prefer_udp`.
    pub(super) transport: Transport,
    began: Instant,
    deadline: Instant,
    /// Only connections with a greater serial count.
    newer_than: u64,
    stale: u32,
    /// What came over UDP before it went on over TCP: better than nothing for a client that asked over
    /// UDP and reads TC, unlike one that asked over TCP.
    truncated: Option<Box<Reply>>,
    stage: Stage<'t>,
}

/// A future that hardly any query waits for.
type Seldom<'t, T> = Pin<Box<dyn Future<Output = T> + Send + 't>>;

/// What a try waits for.
enum Stage<'t> {
    /// Nothing: it looks for a place.
    Placeless,
    /// A place; `None` when there is none in time.
    Queued(Seldom<'t, Option<Place>>),
    /// Room in the socket.
    Sending(Box<(Held<'t>, Seldom<'t, io::Result<()>>)>),
    /// The response.
    Asked(Held<'t>),
}

impl<'t> Try<'t> {
    /// A try of `peer`, the directive's upstream at `place`, that begins with its first poll and
    /// ends at `deadline`.
    pub(super) fn new(
        errand: &'t Errand<'t>,
        peer: &'t Peer,
        place: usize,
        deadline: Instant,
    ) -> Try<'t> {
        Try {
            errand,
            peer,
            place,
            transport: errand.exchange.transport,
            began: Instant::now(),
            deadline,
            newer_than: 0,
            stale: 0,
            truncated: None,
            stage: Stage::Placeless,
        }
    }

    /// How long it has asked the way that it asks now.
    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Its end. With `prefer_udp` a truncated response is asked for again over TCP.
    pub(super) fn poll(&mut self, task: &mut Context<'_>) -> Poll<Result<Reply, Failed>> {
        let result = ready!(self.poll_asked(task));
        let Ok((_, meaning)) = &result else {
            return Poll::Ready(result.map_err(|failed| {
                let truncated = self.truncated.take().map(|reply| *reply);
                Failed { instead: truncated.or(failed.instead), ..failed }
            }));
        };
        self.peer.observe(meaning.rcode, self.began.elapsed());
        let prefers_udp = self.errand.exchange.upstreams.options.prefer_udp;
        if !prefers_udp || self.transport != Transport::Udp || !meaning.truncated {
            return Poll::Ready(result);
        }
        let reads_tc = self.errand.exchange.udp_limit.is_some();
        self.truncated = result.ok().filter(|_| reads_tc).map(Box::new);
        self.transport = Transport::Tcp;
        (self.newer_than, self.stale, self.began) = (0, 0, Instant::now());
        self.poll(task)
    }

    /// Asks once. A kept connection that turns out dead is no failure: the query goes on to a newer
    /// one.
    fn poll_asked(&mut self, task: &mut Context<'_>) -> Poll<Result<Reply, Failed>> {
        loop {
            let entered = match &mut self.stage {
                Stage::Placeless => self.enter(),
                Stage::Queued(queued) => match ready!(queued.as_mut().poll(task)) {
                    Some(place) => self.take(place),
                    None => {
                        self.stage = Stage::Placeless;
                        let text = format!("too many queries in flight to {}", self.pool().remote);
                        let text = text.into();
                        return Poll::Ready(Err(Failed { is_ours: true, ..Failed::theirs(text) }));
                    }
                },
                Stage::Sending(waiting) => {
                    let (held, sending) = &mut **waiting;
                    let sent = ready!(sending.as_mut().poll(task));
                    let connection = &held.ticket.connection;
                    let failed = sent.err().map(|error| unsent(connection, &error));
                    match (failed, std::mem::replace(&mut self.stage, Stage::Placeless)) {
                        (None, Stage::Sending(sent)) => self.stage = Stage::Asked(sent.0),
                        (None, _) => {}
                        (Some(failed), _) => return Poll::Ready(Err(failed)),
                    }
                    Ok(())
                }
                Stage::Asked(held) => {
                    let result = ready!(held.ticket.poll(task));
                    // Encrypted, it may have been there and not the one that it should be.
                    let is_plain = matches!(held.pool.transport, Transport::Udp | Transport::Tcp);
                    // Served others, or was being opened for another: that it ended says nothing about
                    // this query.
                    let is_reused = held.ticket.is_reused
                        || held.ticket.is_behind()
                        || held.ticket.connection.has_spoken();
                    self.stage = Stage::Placeless;
                    match result {
                        Ok(reply) => return Poll::Ready(Ok(reply)),
                        Err(Failure::Closed(_)) if is_reused && self.stale < MOST_STALE => {
                            self.stale += 1;
                            self.newer_than = self.pool().last_serial();
                            Ok(())
                        }
                        Err(Failure::Misled(text, reply)) => {
                            let failed = Failed { instead: Some(reply), ..Failed::theirs(text) };
                            return Poll::Ready(Err(failed));
                        }
                        // Whoever closes without a word may be restarting, as one that refuses.
                        Err(Failure::Closed(text)) if is_plain => {
                            return Poll::Ready(Err(Failed::away(text)));
                        }
                        Err(Failure::Refused(text)) => {
                            return Poll::Ready(Err(Failed::away(text)));
                        }
                        Err(Failure::Closed(text) | Failure::Response(text)) => {
                            return Poll::Ready(Err(Failed::theirs(text)));
                        }
                    }
                }
            };
            if let Err(failed) = entered {
                return Poll::Ready(Err(failed));
            }
        }
    }

    fn pool(&self) -> &'t std::sync::Arc<Pool> {
        self.peer.pool(self.transport, self.errand.dispatcher.worker)
    }

    /// Takes a place, or enters the queue for one.
    fn enter(&mut self) -> Result<(), Failed> {
        let (pool, random) = (self.pool(), &self.errand.dispatcher.random);
        let (newer_than, deadline) = (self.newer_than, self.deadline);
        // Another upstream may answer sooner than this one is dialled again.
        if self.errand.exchange.order.count() > 1
            && let Some(text) = pool.refusal(std::time::Instant::now())
        {
            return Err(Failed::away(text));
        }
        match pool.try_place(newer_than, random) {
            Some(place) => self.take(place),
            None => {
                self.stage = Stage::Queued(Box::pin(async move {
                    let placed = timeout_at(deadline, pool.place(newer_than, random)).await;
                    placed.ok().and_then(Result::ok)
                }));
                Ok(())
            }
        }
    }

    /// Puts the query on a connection.
    fn take(&mut self, place: Place) -> Result<(), Failed> {
        self.stage = Stage::Placeless;
        let pool = self.pool();
        let connection = match place {
            Place::There(connection) => connection,
            Place::New(connection) => {
                let (dialer, roots) = self.peer.means();
                carry(connection.clone(), pool.clone(), dialer, roots);
                connection
            }
        };
        let exchange = self.errand.exchange;
        let udp_limit =
            (pool.transport == Transport::Udp).then(|| exchange.udp_limit.unwrap_or(u16::MAX));
        let parked = {
            let random = &self.errand.dispatcher.random;
            let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
            let times = Times {
                asked: std::time::Instant::now(),
                deadline: self.deadline.into_std(),
                telling: (self.errand.options().read_timeout / 2).min(TELLING),
            };
            connection.park(self.errand.query, udp_limit, &mut random, times)
        };
        let held = match parked {
            Ok(ticket) => Held { ticket, pool },
            // It could not be opened.
            Err(ended) if !connection.was_established() => return Err(Failed::away(ended.text)),
            Err(_) => {
                // It ended between the choice and now, and has left the pool.
                self.newer_than = self.newer_than.max(connection.serial);
                return Ok(());
            }
        };
        let (id, query) = (held.ticket.id, self.errand.query);
        let sent = match connection.socket.get() {
            None => Ok(()),
            Some(socket) => send_now(socket, &connection, query.wire(), id),
        };
        self.stage = match sent {
            Ok(()) => Stage::Asked(held),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let deadline = self.deadline;
                let sending: Seldom<'t, io::Result<()>> = Box::pin(async move {
                    let sending = send(&connection, query.wire(), id);
                    timeout_at(deadline, sending).await?
                });
                Stage::Sending(Box::new((held, sending)))
            }
            Err(error) => return Err(unsent(&connection, &error)),
        };
        Ok(())
    }
}

/// The failure of a datagram that could not be sent. Another one would not either, from an address that
/// the node has no more: the next goes out from a new socket.
fn unsent(connection: &Connection, error: &io::Error) -> Failed {
    connection.retire();
    let text = connection.words(&format!("write: {}", words(error)));
    Failed::away(text.replacen("read", "write", 1).into())
}

thread_local! {
    /// A query with its id: sent without waiting.
    static DATAGRAM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// `wire` under `id`, as the socket takes it.
fn with_id<T>(wire: &[u8], id: u16, send: impl FnOnce(&[u8]) -> T) -> T {
    DATAGRAM.with_borrow_mut(|datagram| {
        datagram.clear();
        datagram.extend_from_slice(&id.to_be_bytes());
        datagram.extend_from_slice(wire.get(2..).unwrap_or_default());
        send(datagram)
    })
}

/// Sends a datagram without waiting.
fn send_now(socket: &UdpSocket, connection: &Connection, wire: &[u8], id: u16) -> io::Result<()> {
    with_id(wire, id, |datagram| match socket.try_send(datagram) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // What an earlier datagram met; it hides behind the next call.
            let text = connection.words(&format!("read: {}", words(&error)));
            connection.fail(&text, Some(id));
            socket.try_send(datagram).map(drop)
        }
        sent => sent.map(drop),
    })
}

/// Sends a datagram once the socket takes it.
async fn send(connection: &Connection, wire: &[u8], id: u16) -> io::Result<()> {
    let Some(socket) = connection.socket.get() else { return Ok(()) };
    loop {
        socket.writable().await?;
        match with_id(wire, id, |datagram| socket.try_send(datagram)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent.map(drop),
        }
    }
}

/// A query's place on a connection of a pool, which hears when it is given up: also by a query that
/// no longer waits.
struct Held<'p> {
    ticket: Ticket,
    pool: &'p Pool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.ticket.leave();
        self.pool.left(&self.ticket.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{Limits, STREAMS};
    use super::*;
    use crate::metrics::Registry;
    use crate::plugin::forward::Keeping;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::sync::Mutex;
    use std::time::Duration;
    use std::time::Instant;

    #[tokio::test]
    async fn a_query_that_is_given_up_lets_the_next_one_in() {
        let limits = Limits { connections: 1, strained: 1, hard_depth: 1, queued: 1, ..STREAMS };
        let (keeping, metrics) = (Keeping::default(), Registry::new(1));
        let pool = Pool::new("192.0.2.1:53", Transport::Tcp, limits, keeping, &metrics);
        let random = Mutex::new(StdRng::seed_from_u64(1));
        let Some(Place::New(connection)) = pool.try_place(0, &random) else { panic!("no place") };
        let (mut chance, now) = (StdRng::seed_from_u64(2), Instant::now());
        let query = Asked::new([0; 17].into(), 17);
        let times = Times { asked: now, deadline: now, telling: Duration::ZERO };
        let ticket = connection.park(&query, None, &mut chance, times);
        let held = Held { ticket: ticket.unwrap(), pool: &pool };
        let next = pool.place(0, &random);
        tokio::pin!(next);
        let soon = Duration::from_millis(10);
        assert!(tokio::time::timeout(soon, &mut next).await.is_err());
        assert!(pool.place(0, &random).await.is_err(), "one waits at most");
        let line = "nodens_upstream_overload_total{proto=\"tcp\",to=\"192.0.2.1:53\"} 1";
        assert!(metrics.text().contains(line), "{}", metrics.text());
        drop(held);
        assert!(matches!(tokio::time::timeout(soon, &mut next).await, Ok(Ok(Place::There(_)))));
        assert!(pool.place(0, &random).await.is_ok(), "none waits any more");
    }
}
