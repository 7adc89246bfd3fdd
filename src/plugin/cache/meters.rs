//! The cache's metrics for one listener (docs/metrics.md).
//!
//! Owns the handles. Each series appears at its first use, never as a zero.

use super::store::Side;
use crate::metrics::{Counter, Desc, Gauge, Registry, names};
use std::sync::OnceLock;

/// Handles with their `server` and `zones` labels.
#[derive(Debug)]
pub(super) struct Meters {
    registry: Registry,
    server: String,
    zones: String,
    requests: OnceLock<Counter>,
    misses: OnceLock<Counter>,
    hits: [OnceLock<Counter>; 2],
    prefetches: OnceLock<Counter>,
    drops: OnceLock<Counter>,
    served_stale: OnceLock<Counter>,
    evictions: [OnceLock<Counter>; 2],
    entries: [OnceLock<Gauge>; 2],
}

impl Meters {
    /// Handles for the listener `server` and the cache of `zones`.
    pub(super) fn new(registry: &Registry, server: &str, zones: &str) -> Meters {
        Meters {
            registry: registry.clone(),
            server: server.to_owned(),
            zones: zones.to_owned(),
            requests: OnceLock::new(),
            misses: OnceLock::new(),
            hits: Default::default(),
            prefetches: OnceLock::new(),
            drops: OnceLock::new(),
            served_stale: OnceLock::new(),
            evictions: Default::default(),
            entries: Default::default(),
        }
    }

    /// Queries that reached the cache.
    pub(super) fn requests(&self) -> &Counter {
        self.plain(&self.requests, &names::CACHE_REQUESTS)
    }

    /// Queries that went below it.
    pub(super) fn misses(&self) -> &Counter {
        self.plain(&self.misses, &names::CACHE_MISSES)
    }

    /// Queries answered from a store.
    pub(super) fn hits(&self, side: Side) -> &Counter {
        self.typed(&self.hits[side as usize], &names::CACHE_HITS, side)
    }

    /// Refreshes begun.
    pub(super) fn prefetches(&self) -> &Counter {
        self.plain(&self.prefetches, &names::CACHE_PREFETCH)
    }

    /// Responses that answer another question.
    pub(super) fn drops(&self) -> &Counter {
        self.plain(&self.drops, &names::CACHE_DROPS)
    }

    /// Queries answered with an expired entry.
    pub(super) fn served_stale(&self) -> &Counter {
        self.plain(&self.served_stale, &names::CACHE_SERVED_STALE)
    }

    /// Entries that made room.
    pub(super) fn evictions(&self, side: Side) -> &Counter {
        self.typed(&self.evictions[side as usize], &names::CACHE_EVICTIONS, side)
    }

    /// Entries in a store.
    pub(super) fn entries(&self, side: Side) -> &Gauge {
        self.entries[side as usize].get_or_init(|| {
            let labels = [self.server.as_str(), side.word(), self.zones.as_str(), ""];
            self.registry.gauge(&names::CACHE_ENTRIES, &labels)
        })
    }

    fn plain<'c>(&self, cell: &'c OnceLock<Counter>, desc: &'static Desc) -> &'c Counter {
        cell.get_or_init(|| self.registry.counter(desc, &[&self.server, &self.zones, ""]))
    }

    fn typed<'c>(
        &self,
        cell: &'c OnceLock<Counter>,
        desc: &'static Desc,
        side: Side,
    ) -> &'c Counter {
        cell.get_or_init(|| {
            self.registry.counter(desc, &[&self.server, side.word(), &self.zones, ""])
        })
    }
}
