//! What the listeners count.

use crate::metrics::{Counter, Gauge, Registry, names};

/// The handles, found once.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    /// Queries failed at once because too many waited.
    pub(super) shed_parked: Counter,
    /// Queries failed at once because their share of the memory was used up.
    pub(super) shed_memory: Counter,
    /// Connections closed because their share of the memory was used up.
    pub(super) starved: Counter,
    /// Refreshes given up because too many were under way.
    pub(super) shed_refresh: Counter,
    /// Queries failed or dropped because CPU time is scarce and too many waited for it, or for too long.
    pub(super) shed_cpu: Counter,
    /// Questions that waited for CPU time.
    pub(super) held_back: Counter,
    /// Queries that wait for an upstream.
    pub(super) in_flight: Gauge,
    /// Queries that joined a question in flight.
    pub(super) joined: Counter,
    /// Messages that are no queries.
    pub(super) ignored: Counter,
    /// UDP replies that the kernel did not take.
    pub(super) lost: Counter,
    /// Connections closed at once.
    pub(super) refused: Counter,
    /// Idle connections closed for another one's sake.
    pub(super) evicted: Counter,
    /// Failed accepts.
    pub(super) accept_errors: Counter,
    /// Connections whose client did not read.
    pub(super) slow_readers: Counter,
}

impl Counters {
    pub(super) fn new(metrics: &Registry) -> Counters {
        Counters {
            shed_parked: metrics.counter(&names::QUERIES_SHED, &["parked"]),
            shed_memory: metrics.counter(&names::QUERIES_SHED, &["memory"]),
            starved: metrics.counter(&names::CONNECTIONS_STARVED, &[]),
            shed_refresh: metrics.counter(&names::QUERIES_SHED, &["refresh"]),
            shed_cpu: metrics.counter(&names::QUERIES_SHED, &["cpu"]),
            held_back: metrics.counter(&names::QUERIES_HELD_BACK, &[]),
            in_flight: metrics.gauge(&names::QUERIES_IN_FLIGHT, &[]),
            joined: metrics.counter(&names::QUERIES_JOINED, &[]),
            ignored: metrics.counter(&names::MESSAGES_IGNORED, &[]),
            lost: metrics.counter(&names::REPLIES_LOST, &[]),
            refused: metrics.counter(&names::CONNECTIONS_REFUSED, &[]),
            evicted: metrics.counter(&names::CONNECTIONS_EVICTED, &[]),
            accept_errors: metrics.counter(&names::ACCEPT_ERRORS, &[]),
            slow_readers: metrics.counter(&names::SLOW_READERS, &[]),
        }
    }
}
