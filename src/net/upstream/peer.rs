//! One upstream as all workers share it: its health, its connections, one try to ask it.
//!
//! Owns the pools. Knows nothing of policy: which upstream is asked, and what a failure means for
//! the question, is the exchange's matter.

use super::carry::carry;
use super::connection::{Connection, Failure, Reply, Ticket};
use super::dial::{Dialer, SystemRoots, words};
use super::health::Health;
use super::limits::{DATAGRAMS, MESSENGERS, MOST_STALE, STREAMS};
use super::pool::{Place, Pool};
use crate::dns::{Rcode, Transport};
use crate::metrics::{Histogram, Registry, names};
use crate::plugin::forward::{Keeping, Options, Probe, Upstream};
use rand::rngs::StdRng;
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// What makes two upstreams of two directives the same: address, TLS settings, how it is probed
/// and how its connections are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PeerKey {
    upstream: Upstream,
    probe: Probe,
    probed_over: Transport,
    keeping: Keeping,
}

impl PeerKey {
    /// The key of an upstream in a directive with these options.
    pub(super) fn new(upstream: &Upstream, options: &Options) -> PeerKey {
        let probed_over = match &upstream.tls {
            Some(tls) => tls.over,
            None if options.force_tcp => Transport::Tcp,
            None => Transport::Udp,
        };
        PeerKey {
            upstream: upstream.clone(),
            probe: options.probe.clone(),
            probed_over,
            keeping: options.keeping.clone(),
        }
    }
}

/// One upstream.
#[derive(Debug)]
pub(super) struct Peer {
    health: Arc<Health>,
    dialer: Arc<Dialer>,
    roots: Arc<SystemRoots>,
    tcp: Arc<Pool>,
    /// The only pool of an upstream that is asked encrypted.
    sealed: Option<Arc<Pool>>,
    /// One for each worker.
    udp: Box<[Arc<Pool>]>,
    metrics: Registry,
    durations: Mutex<HashMap<Rcode, Histogram>>,
}

/// One try to ask an upstream.
#[derive(Debug)]
pub(super) struct Try<'t> {
    /// The worker that asks.
    pub(super) worker: usize,
    /// The query as it goes out, but for its id.
    pub(super) wire: &'t [u8],
    /// Its question section.
    pub(super) question: &'t [u8],
    /// UDP or TCP, if the upstream is not asked encrypted.
    pub(super) transport: Transport,
    /// The greatest datagram that is passed on.
    pub(super) udp_limit: u16,
    /// When it ends.
    pub(super) deadline: tokio::time::Instant,
    /// Chance.
    pub(super) random: &'t Mutex<StdRng>,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    /// Go's words.
    pub(super) text: Box<str>,
    /// It was our own bound and says nothing about the upstream.
    pub(super) is_ours: bool,
    /// The response to give when no other try brings one.
    pub(super) instead: Option<Reply>,
}

impl Peer {
    /// An upstream that nobody has asked yet.
    pub(super) fn new(
        key: &PeerKey,
        workers: usize,
        roots: Arc<SystemRoots>,
        metrics: &Registry,
    ) -> Peer {
        let to = key.upstream.text.as_str();
        let failures = metrics.lazy_counter(&names::PROXY_HEALTHCHECK_FAILURES, &["forward", to]);
        let pool = |transport, limits| {
            Arc::new(Pool::new(to, transport, limits, key.keeping.clone(), metrics))
        };
        Peer {
            health: Arc::new(Health::new(key.probe.clone(), key.probed_over, failures)),
            dialer: Arc::new(Dialer::new(&key.upstream, &key.keeping)),
            roots,
            tcp: pool(Transport::Tcp, STREAMS),
            sealed: key.upstream.tls.as_ref().map(|tls| match tls.over {
                Transport::Https | Transport::Quic => pool(tls.over, MESSENGERS),
                _ => pool(Transport::Tls, STREAMS),
            }),
            udp: (0..workers.max(1)).map(|_| pool(Transport::Udp, DATAGRAMS)).collect(),
            metrics: metrics.clone(),
            durations: Mutex::default(),
        }
    }

    /// Whether it is down for a directive with this `max_fails`. One that is down is being probed.
    pub(super) fn is_down(&self, max_fails: u32, in_use: &Arc<dyn Any + Send + Sync>) -> bool {
        let is_down = self.health.is_down(max_fails);
        if is_down {
            self.check(in_use);
        }
        is_down
    }

    /// Starts to probe it, unless that is going on.
    pub(super) fn check(&self, in_use: &Arc<dyn Any + Send + Sync>) {
        let in_use: Weak<dyn Any + Send + Sync> = Arc::downgrade(in_use);
        self.health.check(&self.dialer, &self.roots, in_use);
    }

    /// Whether it has answered and is not down for a directive with this `max_fails`. One that never
    /// answered is greeted.
    pub(super) fn answers(&self, max_fails: u32) -> bool {
        if !self.health.has_answered() {
            self.health.greet(&self.dialer, &self.roots);
            return false;
        }
        !self.health.is_down(max_fails)
    }

    /// Its address, when it can be told.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.dialer.address("udp").ok()
    }

    /// How a query goes to it that is asked over `transport`.
    pub(super) fn transport(&self, transport: Transport) -> Transport {
        self.sealed.as_ref().map_or(transport, |sealed| sealed.transport)
    }

    /// Counts a successful try.
    pub(super) fn observe(&self, rcode: Rcode, took: Duration) {
        self.health.answered();
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = durations.entry(rcode).or_insert_with(|| {
            let word = match rcode.word() {
                Some(word) => word.to_owned(),
                None => rcode.0.to_string(),
            };
            let labels = ["forward", self.dialer.text(), word.as_str()];
            self.metrics.histogram(&names::PROXY_REQUEST_DURATION, &labels)
        });
        histogram.observe(took.as_secs_f64());
    }

    fn pool(&self, transport: Transport, worker: usize) -> &Arc<Pool> {
        match (&self.sealed, transport) {
            (Some(sealed), _) => sealed,
            (None, Transport::Udp) => &self.udp[worker % self.udp.len()],
            (None, _) => &self.tcp,
        }
    }

    /// Asks it once. A kept connection that turns out dead is no failure: the query goes on to a
    /// newer one.
    pub(super) async fn ask(&self, this: &Try<'_>) -> Result<Reply, Failed> {
        let pool = self.pool(this.transport, this.worker);
        let udp_limit = (pool.transport == Transport::Udp).then_some(this.udp_limit);
        let (mut newer_than, mut stale) = (0, 0);
        loop {
            let place = match pool.try_place(newer_than, this.random) {
                Some(place) => Some(place),
                // Boxed, as is all that few queries wait for: each query in flight pays for its
                // size.
                None => {
                    let place = Box::pin(pool.place(newer_than, this.random));
                    tokio::time::timeout_at(this.deadline, place).await.ok().and_then(Result::ok)
                }
            };
            let connection = match place {
                None => {
                    let text = format!("too many queries in flight to {}", pool.remote);
                    return Err(Failed { text: text.into(), is_ours: true, instead: None });
                }
                Some(Place::There(connection)) => connection,
                Some(Place::New(connection)) => {
                    carry(
                        connection.clone(),
                        pool.clone(),
                        self.dialer.clone(),
                        self.roots.clone(),
                    );
                    connection
                }
            };
            let parked = {
                let mut random = this.random.lock().unwrap_or_else(PoisonError::into_inner);
                connection.park(
                    this.wire,
                    this.question,
                    udp_limit,
                    &mut random,
                    Instant::now(),
                    this.deadline.into_std(),
                )
            };
            let mut held = match parked {
                Ok(ticket) => Held { ticket, pool },
                Err(ended) => match ended.text {
                    // It could not be opened.
                    text if !connection.was_established() => return Err(Failed::theirs(text)),
                    // It ended between the choice and now, and has left the pool.
                    _ => {
                        newer_than = newer_than.max(connection.serial);
                        continue;
                    }
                },
            };
            if let Some(socket) = connection.socket.get()
                && let Err(error) = send_now(socket, &connection, this.wire, held.ticket.id)
            {
                // Boxed: hardly any socket is full.
                let sent = match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        Box::pin(send(socket, this, held.ticket.id)).await.map_err(|_| error)
                    }
                    _ => Err(error),
                };
                if let Err(error) = sent {
                    let text = connection.words(&format!("write: {}", words(&error)));
                    return Err(Failed::theirs(text.replacen("read", "write", 1).into()));
                }
            }
            let result = held.ticket.wait().await;
            // Served others: that it ended says nothing about this query.
            let is_reused = held.ticket.is_reused || connection.has_spoken();
            drop(held);
            match result {
                Ok(reply) => return Ok(reply),
                Err(Failure::Closed(_)) if is_reused && stale < MOST_STALE => {
                    stale += 1;
                    newer_than = pool.last_serial();
                }
                Err(Failure::Misled(text, reply)) => {
                    return Err(Failed { instead: Some(reply), ..Failed::theirs(text) });
                }
                Err(Failure::Closed(text) | Failure::Response(text)) => {
                    return Err(Failed::theirs(text));
                }
            }
        }
    }
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

/// Sends a datagram once the socket takes it, or fails when the try is over.
async fn send(socket: &UdpSocket, this: &Try<'_>, id: u16) -> io::Result<()> {
    let sending = async {
        loop {
            socket.writable().await?;
            match with_id(this.wire, id, |datagram| socket.try_send(datagram)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return sent.map(drop),
            }
        }
    };
    tokio::time::timeout_at(this.deadline, sending).await?
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

impl Failed {
    fn theirs(text: Box<str>) -> Failed {
        Failed { text, is_ours: false, instead: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;
    use rand::SeedableRng;

    #[tokio::test]
    async fn a_query_that_is_given_up_lets_the_next_one_in() {
        let limits = Limits { connections: 1, hard_depth: 1, queued: 1, ..STREAMS };
        let (keeping, metrics) = (Keeping::default(), Registry::new(1));
        let pool = Pool::new("192.0.2.1:53", Transport::Tcp, limits, keeping, &metrics);
        let random = Mutex::new(StdRng::seed_from_u64(1));
        let Some(Place::New(connection)) = pool.try_place(0, &random) else { panic!("no place") };
        let (mut chance, now) = (StdRng::seed_from_u64(2), Instant::now());
        let ticket = connection.park(&[0; 17], &[0; 5], None, &mut chance, now, now);
        let held = Held { ticket: ticket.unwrap(), pool: &pool };
        let next = pool.place(0, &random);
        tokio::pin!(next);
        let soon = Duration::from_millis(10);
        assert!(tokio::time::timeout(soon, &mut next).await.is_err());
        assert!(pool.place(0, &random).await.is_err(), "one waits at most");
        drop(held);
        assert!(matches!(tokio::time::timeout(soon, next).await, Ok(Ok(Place::There(_)))));
    }
}
