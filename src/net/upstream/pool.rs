//! The connections to one upstream over one transport, shared by all who ask there.
//!
//! Owns the list of connections and the queue of queries that wait for a place. Opens nothing
//! itself: it says when a connection must be opened.

use super::connection::Connection;
use super::lifetime::Lifetime;
use super::limits::{Choice, Fitness, Limits, REFUSAL_LASTS, REFUSED, REFUSED_MOST, Wish, choose};
use super::pace::Pace;
use crate::dns::Transport;
use crate::metrics::{Counter, LazyCounter, Registry, names};
use crate::plugin::forward::Keeping;
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The connections to one upstream over one transport.
#[derive(Debug)]
pub(super) struct Pool {
    /// Towards metrics and error texts: `IP:port`.
    pub(super) remote: Box<str>,
    /// Over what.
    pub(super) transport: Transport,
    /// Messages that nobody asked for, or that answer another question.
    pub(super) ignored: Counter,
    limits: Limits,
    pace: Arc<Pace>,
    keeping: Keeping,
    inner: Mutex<Inner>,
    queued: AtomicUsize,
    freed: Notify,
    hits: LazyCounter,
    misses: LazyCounter,
    overload: Counter,
}

#[derive(Debug, Default)]
struct Inner {
    connections: Vec<Arc<Connection>>,
    last_serial: u64,
    refused: Option<Refusal>,
}

/// Nobody took the last connection.
#[derive(Debug)]
struct Refusal {
    at: Instant,
    /// How long nobody is dialled.
    pause: Duration,
    /// Go's words for it.
    text: Box<str>,
}

impl Refusal {
    /// When the next dial may begin.
    fn over(&self) -> Instant {
        self.at + self.pause
    }
}

impl Inner {
    /// Whether connections are refused, as far as is known at `now`.
    fn is_refused(&self, now: Instant) -> bool {
        self.refused.as_ref().is_some_and(|refusal| now < refusal.at + REFUSAL_LASTS)
    }
}

/// A connection for a query.
#[derive(Debug)]
pub(super) enum Place {
    /// One that is there, or being established.
    There(Arc<Connection>),
    /// A new one, which the caller must open.
    New(Arc<Connection>),
}

/// All bounds are reached: the query fails at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overload;

impl Pool {
    /// Without connections.
    pub(super) fn new(
        remote: &str,
        transport: Transport,
        limits: Limits,
        keeping: Keeping,
        metrics: &Registry,
    ) -> Pool {
        let word = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tcp-tls",
            Transport::Https => "https",
            Transport::Quic => "quic",
        };
        let labels = ["forward", remote, word];
        Pool {
            remote: remote.into(),
            transport,
            ignored: metrics.counter(&names::UPSTREAM_IGNORED, &[remote, word]),
            limits,
            pace: Arc::new(Pace::new(limits.least_depth, limits.most_depth)),
            keeping,
            inner: Mutex::default(),
            queued: AtomicUsize::new(0),
            freed: Notify::new(),
            hits: metrics.lazy_counter(&names::PROXY_CONN_CACHE_HITS, &labels),
            misses: metrics.lazy_counter(&names::PROXY_CONN_CACHE_MISSES, &labels),
            overload: metrics.counter(&names::UPSTREAM_OVERLOAD, &[remote, word]),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the newest connection.
    pub(super) fn last_serial(&self) -> u64 {
        self.inner().last_serial
    }

    /// A connection with a free place, newer than the one with serial `newer_than`, after waiting
    /// in the queue for one. Drop the future when the deadline is over.
    pub(super) async fn place(
        &self,
        newer_than: u64,
        random: &Mutex<StdRng>,
    ) -> Result<Place, Overload> {
        let queued = Queued::enter(self)?;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(place) = self.try_place(newer_than, random) {
                drop(queued);
                // What was freed may have been more than one place.
                self.freed();
                return Ok(place);
            }
            freed.await;
        }
    }

    /// A connection with a free place, if there is one now.
    pub(super) fn try_place(&self, newer_than: u64, random: &Mutex<StdRng>) -> Option<Place> {
        self.try_place_at(Instant::now(), newer_than, random)
    }

    fn try_place_at(&self, now: Instant, newer_than: u64, random: &Mutex<StdRng>) -> Option<Place> {
        let mut inner = self.inner();
        let seen = inner.connections.iter().map(|connection| connection.seen(now));
        // Where nobody is, a dial tells all who wait as much as each its own, however long it is paused.
        let (depth, patience) = match inner.is_refused(now) {
            true => (self.limits.hard_depth, self.pace.patience().max(2 * REFUSED_MOST)),
            false => (self.pace.depth(), self.pace.patience()),
        };
        let wish = Wish { newer_than, depth, patience };
        match choose(seen, wish, &self.limits) {
            Choice::Take(place) => {
                self.hits.increment();
                inner.connections.get(place).cloned().map(Place::There)
            }
            Choice::Open => {
                self.misses.increment();
                inner.last_serial += 1;
                let mut age = self.keeping.max_age.unwrap_or(self.limits.age);
                if self.keeping.max_age.is_none() {
                    // Connections made together shall not end together.
                    let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
                    age = age.mul_f64(random.random_range(0.75..=1.0));
                }
                let lifetime = Lifetime::new(self.limits.uses, self.keeping.expire, age, now);
                let connection = Arc::new(Connection::new(
                    inner.last_serial,
                    self.transport,
                    &self.remote,
                    self.pace.clone(),
                    lifetime,
                    now,
                ));
                inner.connections.push(connection.clone());
                Some(Place::New(connection))
            }
            Choice::Full => None,
        }
    }

    /// Nobody took a connection at `now`; Go's words for it.
    pub(super) fn refused(&self, now: Instant, text: &str) {
        let mut inner = self.inner();
        let before = inner.refused.take().filter(|refusal| now < refusal.at + REFUSAL_LASTS);
        let pause = match before {
            // Of dials that were under way together.
            Some(refusal) if now < refusal.over() => refusal.pause,
            Some(refusal) => (2 * refusal.pause).min(REFUSED_MOST),
            None => REFUSED,
        };
        inner.refused = Some(Refusal { at: now, pause, text: text.into() });
    }

    /// A connection was taken.
    pub(super) fn taken(&self) {
        self.inner().refused = None;
    }

    /// How long to wait before the next dial: a while after one was refused.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        let inner = self.inner();
        let next = inner.refused.as_ref().map(Refusal::over);
        next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// Go's words for the refusal of just now, when there is no connection.
    pub(super) fn refusal(&self, now: Instant) -> Option<Box<str>> {
        let inner = self.inner();
        let refusal = inner.refused.as_ref()?;
        (inner.connections.is_empty() && now < refusal.over()).then(|| refusal.text.clone())
    }

    /// Forgets a connection that has ended. When it died in silence, so may those over which nothing
    /// came since: whatever forgot it has forgotten them, too. They take no more queries.
    pub(super) fn remove(&self, ended: &Connection) {
        let mut inner = self.inner();
        inner.connections.retain(|connection| connection.serial != ended.serial);
        // A datagram that is lost tells nothing of other sockets.
        let silent = ended.silent_since().filter(|_| self.transport != Transport::Udp);
        if let Some(since) = silent {
            let unheard = inner.connections.iter().filter(|other| !other.is_heard_since(since));
            unheard.for_each(|other| other.retire());
        }
        drop(inner);
        self.freed();
    }

    /// A query has left its connection: whoever waits may have the place. Keeps no more idle
    /// connections than `max_idle_conns`.
    pub(super) fn left(&self, connection: &Connection) {
        self.freed();
        let most = self.keeping.max_idle;
        if most == 0 || connection.load() > 0 {
            return;
        }
        let now = Instant::now();
        let idle = self
            .inner()
            .connections
            .iter()
            .filter(|other| other.load() == 0 && other.fitness(now) == Fitness::Fit)
            .count();
        if idle > most {
            connection.retire();
        }
    }

    fn freed(&self) {
        // Pairs with the queue: whoever enters it looks at the loads after it has counted itself.
        if self.queued.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }
}

/// A place in the queue.
struct Queued<'p>(&'p Pool);

impl<'p> Queued<'p> {
    fn enter(pool: &'p Pool) -> Result<Queued<'p>, Overload> {
        let queued = Queued(pool);
        if pool.queued.fetch_add(1, Ordering::SeqCst) >= pool.limits.queued {
            pool.overload.increment();
            return Err(Overload);
        }
        Ok(queued)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::STREAMS;
    use super::super::parked::Times;
    use super::super::ticket::Ticket;
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn after_a_refusal_queries_share_one_dial_after_a_while() {
        let metrics = Registry::new(1);
        let pool = Pool::new("192.0.2.1:53", Transport::Tcp, STREAMS, Keeping::default(), &metrics);
        let random = Mutex::new(StdRng::seed_from_u64(1));
        let (mut chance, now) = (StdRng::seed_from_u64(2), Instant::now());
        let later = now + REFUSED;
        assert_eq!((pool.refusal(now), pool.pause(now)), (None, Duration::ZERO));
        pool.refused(now, "dial tcp: refused");
        assert_eq!(pool.refusal(now).as_deref(), Some("dial tcp: refused"));
        assert_eq!((pool.pause(now), pool.pause(later)), (REFUSED, Duration::ZERO));
        assert_eq!(pool.refusal(later), None);

        let Some(Place::New(dialled)) = pool.try_place(0, &random) else { panic!("no dial") };
        assert_eq!(pool.refusal(now), None, "somebody may be there");
        let mut park = |connection: &Arc<Connection>| {
            let query = super::super::Asked::new([0; 17].into(), 17);
            let deadline = now + Duration::from_secs(2);
            let times = Times { asked: Instant::now(), deadline, telling: Duration::ZERO };
            connection.park(&query, None, &mut chance, times).unwrap()
        };
        let _first = park(&dialled);
        let Some(Place::There(shared)) = pool.try_place(0, &random) else { panic!("two dials") };
        assert_eq!(shared.serial, dialled.serial);
        pool.taken();
        assert!(matches!(pool.try_place(0, &random), Some(Place::New(_))), "a depth of one again");
    }

    #[test]
    fn while_connections_are_refused_one_after_the_other_dials_come_less_and_less_often() {
        let metrics = Registry::new(1);
        let pool = Pool::new("192.0.2.1:53", Transport::Tcp, STREAMS, Keeping::default(), &metrics);
        let mut now = Instant::now();
        let mut pause_after = |time: Duration| {
            now += time;
            pool.refused(now, "dial tcp: refused");
            pool.pause(now)
        };
        let mut pauses = vec![pause_after(Duration::ZERO)];
        for _ in 0..4 {
            pauses.push(pause_after(pauses[pauses.len() - 1]));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 8].map(|times| times * REFUSED));
        let at_once = Duration::from_micros(50);
        assert_eq!(pause_after(at_once), 8 * REFUSED, "of dials that were under way together");
        assert_eq!(pause_after(REFUSAL_LASTS), REFUSED, "after a while it is new");
        assert_eq!(pause_after(at_once), REFUSED);
        pool.taken();
        assert_eq!(pool.pause(now + at_once), Duration::ZERO);
    }

    #[test]
    fn a_dial_that_is_paused_after_a_refusal_is_shared_however_long_it_is_paused() {
        let metrics = Registry::new(1);
        let pool = Pool::new("192.0.2.1:53", Transport::Tcp, STREAMS, Keeping::default(), &metrics);
        let random = Mutex::new(StdRng::seed_from_u64(1));
        let asked = Instant::now();
        pool.refused(asked, "dial tcp: refused");
        let Some(Place::New(dialled)) = pool.try_place_at(asked, 0, &random) else {
            panic!("none")
        };
        let query = super::super::Asked::new([0; 17].into(), 17);
        let deadline = asked + Duration::from_secs(2);
        let times = Times { asked, deadline, telling: Duration::ZERO };
        let mut chance = StdRng::seed_from_u64(2);
        let _first = dialled.park(&query, None, &mut chance, times).unwrap();
        let later = asked + REFUSED_MOST;
        assert!(dialled.seen(later).waited > pool.pace.patience());
        assert!(matches!(pool.try_place_at(later, 0, &random), Some(Place::There(_))));
    }

    fn pool_of(limits: Limits, keeping: Keeping, metrics: &Registry) -> Pool {
        Pool::new("192.0.2.1:53", Transport::Tcp, limits, keeping, metrics)
    }

    /// A connection that is not there yet.
    fn another(pool: &Pool, now: Instant, random: &Mutex<StdRng>) -> Arc<Connection> {
        match pool.try_place_at(now, pool.last_serial(), random) {
            Some(Place::New(connection)) => connection,
            other => panic!("{other:?}"),
        }
    }

    fn put(connection: &Arc<Connection>, now: Instant) -> Ticket {
        let query = super::super::Asked::new([0; 17].into(), 17);
        let deadline = now + Duration::from_secs(2);
        let times = Times { asked: now, deadline, telling: Duration::ZERO };
        connection.park(&query, None, &mut StdRng::seed_from_u64(2), times).unwrap()
    }

    #[test]
    fn a_connection_that_has_ended_is_forgotten_and_the_others_are_used() {
        let metrics = Registry::new(1);
        let pool = pool_of(STREAMS, Keeping::default(), &metrics);
        let (random, now) = (Mutex::new(StdRng::seed_from_u64(1)), Instant::now());
        let [first, second] = [(); 2].map(|()| another(&pool, now, &random));
        pool.remove(&first);
        let used = pool.try_place_at(now, 0, &random);
        assert!(matches!(used, Some(Place::There(used)) if used.serial == second.serial));
        pool.remove(&second);
        pool.refused(now, "dial tcp: refused");
        assert!(pool.refusal(now).is_some(), "there is no connection");
        let text = metrics.text();
        for (name, count) in [("hits", 1), ("misses", 2)] {
            let name = format!("coredns_proxy_conn_cache_{name}_total{{");
            let line = text.lines().find(|line| line.starts_with(&name)).unwrap();
            assert!(line.ends_with(&format!(" {count}")), "{line}");
        }
    }

    #[test]
    fn no_more_idle_connections_are_kept_than_max_idle_conns_says() {
        let keeping = Keeping { max_idle: 1, ..Keeping::default() };
        let pool = pool_of(STREAMS, keeping, &Registry::new(1));
        let (random, now) = (Mutex::new(StdRng::seed_from_u64(1)), Instant::now());
        let connections = [(); 3].map(|()| another(&pool, now, &random));
        let tickets = connections.each_ref().map(|connection| put(connection, now));
        let kept: Vec<bool> = std::iter::zip(&connections, &tickets)
            .map(|(connection, ticket)| {
                ticket.leave();
                pool.left(connection);
                connection.fitness(now) == Fitness::Fit
            })
            .collect();
        assert_eq!(kept, [true, false, false]);
    }

    #[test]
    fn connections_end_at_max_age_or_else_one_after_the_other() {
        let (random, now) = (Mutex::new(StdRng::seed_from_u64(1)), Instant::now());
        // How many of twenty still take queries after so many seconds.
        let fit_after = |max_age: Option<u64>, seconds: u64| {
            let expire = Duration::from_secs(3600);
            let max_age = max_age.map(Duration::from_secs);
            let keeping = Keeping { expire, max_age, ..Keeping::default() };
            let pool = pool_of(STREAMS, keeping, &Registry::new(1));
            let then = now + Duration::from_secs(seconds);
            let connections = (0..20).map(|_| another(&pool, now, &random));
            connections.filter(|connection| connection.fitness(then) == Fitness::Fit).count()
        };
        assert_eq!([49, 50].map(|seconds| fit_after(Some(50), seconds)), [20, 0]);
        assert_eq!([44, 60].map(|seconds| fit_after(None, seconds)), [20, 0]);
        assert!((1..20).contains(&fit_after(None, 52)));
    }

    #[tokio::test]
    async fn all_who_wait_go_on_when_places_for_all_become_free_at_once() {
        let limits = Limits { connections: 1, strained: 1, hard_depth: 2, queued: 2, ..STREAMS };
        let pool = pool_of(limits, Keeping::default(), &Registry::new(1));
        let (random, now) = (Mutex::new(StdRng::seed_from_u64(1)), Instant::now());
        let full = another(&pool, now, &random);
        let _tickets = [(); 2].map(|()| put(&full, now));
        let ending = async {
            full.close("EOF");
            pool.remove(&full);
        };
        let all = async { tokio::join!(pool.place(0, &random), pool.place(0, &random), ending) };
        let (one, other, ()) = tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        assert!(matches!(one, Ok(Place::New(_))));
        assert!(matches!(other, Ok(Place::There(_))));
    }
}
