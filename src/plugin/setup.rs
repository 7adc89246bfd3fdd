//! What a directive's setup sees and changes.

use super::dnstap::Point;
use super::{Budget, Chain, Handler, Journal, ServerIdentity, Service};
use crate::corefile::{Directive, Dispenser, ServerKey, Surroundings};
use crate::dns::Name;
use crate::metrics::Registry;
use rand::rngs::StdRng;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// TCP timeouts of a server (`timeouts`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the first query of a connection is complete.
    pub read: Duration,
    /// While a client takes none of its replies.
    pub write: Duration,
    /// Between later queries.
    pub idle: Duration,
    /// The most messages of one connection; `u64::MAX`: no limit.
    pub queries: u64,
}

impl Default for Timeouts {
    /// CoreDNS's: 3 s, 5 s, 10 s.
    fn default() -> Self {
        Timeouts {
            read: Duration::from_secs(3),
            write: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            queries: u64::MAX,
        }
    }
}

/// What a block's `timeouts` say; what they do not is another block's of the listener, or default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenTimeouts {
    /// [`Timeouts::read`].
    pub read: Option<Duration>,
    /// [`Timeouts::write`].
    pub write: Option<Duration>,
    /// [`Timeouts::idle`].
    pub idle: Option<Duration>,
    /// [`Timeouts::queries`].
    pub queries: Option<u64>,
}

impl GivenTimeouts {
    /// These, and `others` where nothing is given.
    pub fn over(self, others: Timeouts) -> Timeouts {
        Timeouts {
            read: self.read.unwrap_or(others.read),
            write: self.write.unwrap_or(others.write),
            idle: self.idle.unwrap_or(others.idle),
            queries: self.queries.unwrap_or(others.queries),
        }
    }
}

/// A server block while its directives are set up.
#[derive(Default, Clone)]
pub struct BlockDraft {
    /// All keys of the block, CIDR keys expanded.
    pub keys: Vec<ServerKey>,
    /// The addresses to listen on (`bind`); empty means all.
    pub hosts: Vec<String>,
    /// `debug` stands in the block.
    pub debug: bool,
    /// `errors { stacktrace }` stands in the block.
    pub stacktrace: bool,
    /// `metadata` stands in the block.
    pub metadata: bool,
    /// `timeouts`.
    pub timeouts: GivenTimeouts,
    /// `tls`.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// EDNS options, by their codes, that replies may carry back to clients (`rewrite edns0 local`).
    pub reflected: Vec<u16>,
    /// The `dnstap` directives: `forward` tells them what it does.
    pub taps: Vec<Arc<Point>>,
    /// The handlers so far, outermost first.
    pub chain: Chain,
}

impl BlockDraft {
    /// The zones of the keys, in order.
    pub fn zones(&self) -> impl Iterator<Item = &Name> {
        self.keys.iter().map(|key| &key.zone)
    }

    /// Appends a handler at the inner end of the chain.
    pub fn add(&mut self, handler: impl Handler + 'static) {
        self.chain.push(Arc::new(handler));
    }
}

/// State that outlives a reload when the directive that owns it did not change: cache stores.
#[derive(Default, Clone)]
pub struct Carried {
    kept: HashMap<String, Arc<dyn Any + Send + Sync>>,
    previous: HashMap<String, Arc<dyn Any + Send + Sync>>,
    budget: Arc<Budget>,
}

impl Carried {
    /// Nothing yet, and the memory that all snapshots share.
    pub fn within(budget: Arc<Budget>) -> Carried {
        Carried { budget, ..Carried::default() }
    }

    /// The memory that all snapshots share.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// For the next snapshot: what this one kept is what the next one may take over.
    pub fn next(&self) -> Carried {
        Carried { kept: HashMap::new(), previous: self.kept.clone(), budget: self.budget.clone() }
    }

    /// Every state of one type that this snapshot keeps, with its key, in the order of keys.
    pub fn of_type<T: Any + Send + Sync>(&self) -> Vec<(String, Arc<T>)> {
        let typed = |(key, any): (&String, &Arc<dyn Any + Send + Sync>)| {
            Some((key.clone(), any.clone().downcast::<T>().ok()?))
        };
        let mut found: Vec<(String, Arc<T>)> = self.kept.iter().filter_map(typed).collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    }

    /// The state under `key` (directive word, zones, listeners and tokens), taken over from the
    /// previous snapshot or made anew.
    pub fn take_or_make<T: Any + Send + Sync>(
        &mut self,
        key: String,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let found = self.kept.get(&key).or_else(|| self.previous.get(&key)).cloned();
        let state =
            found.and_then(|any| any.downcast::<T>().ok()).unwrap_or_else(|| Arc::new(make()));
        self.kept.insert(key, state.clone());
        state
    }
}

/// All that a directive's setup sees and changes.
pub struct Setup<'a> {
    /// The directive's tokens in this block.
    pub dispenser: Dispenser<'a>,
    /// The block under construction.
    pub block: &'a mut BlockDraft,
    /// All directives of the block as written.
    pub directives: &'a [Directive],
    /// Files, environment, interfaces.
    pub surroundings: &'a dyn Surroundings,
    /// The registry, for handles.
    pub metrics: &'a Registry,
    /// State kept over reloads.
    pub carried: &'a mut Carried,
    /// What the app shall run.
    pub services: &'a mut Vec<Service>,
    /// Chance.
    pub random: &'a mut StdRng,
    /// Lines for the operator (warnings at setup).
    pub journal: &'a dyn Journal,
}

/// One value per server (listener), made at first use: metric handles with their `server` label.
#[derive(Debug)]
pub struct PerServer<T> {
    places: Box<[OnceLock<T>]>,
}

impl<T> PerServer<T> {
    /// The greatest number of servers of one snapshot whose handles are kept apart; servers
    /// beyond share the last place.
    pub const MOST: usize = 64;

    /// Nothing made yet.
    pub fn new() -> PerServer<T> {
        PerServer { places: (0..Self::MOST).map(|_| OnceLock::new()).collect() }
    }

    /// The value for `server`.
    pub fn get(&self, server: &ServerIdentity, make: impl FnOnce(&str) -> T) -> &T {
        self.places[server.index.min(Self::MOST - 1)].get_or_init(|| make(&server.label))
    }
}

impl<T> Default for PerServer<T> {
    fn default() -> Self {
        PerServer::new()
    }
}
