//! For how long a connection takes queries, and when it ends: by its age, its rest and its number of queries.
//!
//! Owns these three, and that it retires. Does not know what is in flight.

use super::limits::Fitness;
use std::time::{Duration, Instant};

/// While queries are in flight, its task looks after a connection no more often than this.
const LEAST_EXPIRE: Duration = Duration::from_secs(1);

/// What the task of a connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upkeep {
    /// Look again then, or when woken.
    At(Instant),
    /// End it.
    End,
}

/// For how long one connection takes queries.
#[derive(Debug)]
pub(super) struct Lifetime {
    most_uses: u64,
    expire: Duration,
    dies_at: Instant,
    /// Queries so far.
    uses: u64,
    last_used: Instant,
    /// Takes no more queries; ends when the last one is answered.
    is_retiring: bool,
}

impl Lifetime {
    /// Of a connection that is opened at `now`: it takes `most_uses` queries, is kept idle for `expire`,
    /// and takes queries for `age` at all.
    pub(super) fn new(most_uses: u64, expire: Duration, age: Duration, now: Instant) -> Lifetime {
        Lifetime {
            most_uses,
            expire,
            dies_at: now + age,
            uses: 0,
            last_used: now,
            is_retiring: false,
        }
    }

    /// Takes a query at `now`; gives its number, from 1.
    pub(super) fn take(&mut self, now: Instant) -> u64 {
        self.uses += 1;
        self.last_used = now;
        self.uses
    }

    /// A query has left it at `now`.
    pub(super) fn left(&mut self, now: Instant) {
        self.last_used = now;
    }

    /// When a query last came or left.
    pub(super) fn last_used(&self) -> Instant {
        self.last_used
    }

    /// Takes no more queries.
    pub(super) fn retire(&mut self) {
        self.is_retiring = true;
    }

    /// Whether it takes queries at `now`, with `load` in flight.
    pub(super) fn fitness(&self, load: u32, now: Instant) -> Fitness {
        let is_over = self.is_retiring
            || now >= self.dies_at
            || load == 0 && now.duration_since(self.last_used) >= self.expire;
        match is_over {
            true => Fitness::Unfit,
            false if self.uses >= self.most_uses => Fitness::Worn,
            false => Fitness::Fit,
        }
    }

    /// What its task does at `now`, with `load` queries in flight, unless it is closed.
    pub(super) fn upkeep(&self, load: u32, now: Instant) -> Upkeep {
        if load > 0 {
            return Upkeep::At(now + self.expire.max(LEAST_EXPIRE));
        }
        let idle_until = self.last_used + self.expire;
        match self.is_retiring || self.is_spent(now) || now >= idle_until {
            true => Upkeep::End,
            false => Upkeep::At(idle_until.min(self.dies_at)),
        }
    }

    /// Whether it ends with its last query, or too soon behind it for its task to see that by itself.
    pub(super) fn ends_with_its_last(&self) -> bool {
        self.is_retiring || self.expire < LEAST_EXPIRE || self.is_spent(Instant::now())
    }

    fn is_spent(&self, now: Instant) -> bool {
        self.uses >= self.most_uses || now >= self.dies_at
    }
}
