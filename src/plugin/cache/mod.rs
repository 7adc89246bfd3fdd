//! `cache`: keeps responses and answers from them (docs/plugins/cache.md).
//!
//! Owns what is kept, for how long, and what a client sees of it. Asks nobody: a refresh is a wish
//! to the engine, and identical questions in flight are the engine's matter too.

mod classify;
pub mod codec;
mod entry;
mod export;
mod flatten;
mod ghost;
mod meters;
mod options;
mod said;
mod shard;
mod store;
#[cfg(test)]
mod tests;

use super::kind::Kind;
use super::{Context, Flow, Handler, Journal, Now, PerServer, Setup, TABLE, Turn};
use crate::corefile::{CorefileError, Surroundings};
use crate::dns::{Class, Name, Query, Rcode, RecordType, Response, Written, flags};
use crate::metrics::Registry;
use classify::{Survey, is_whole, survey};
use entry::{Entry, QueryBits, Terms, is_for_one_network, matches, milliseconds, wants_authentic};
pub use export::{Cursor, Kept, KeptAs, stores};
use flatten::flatten;
use meters::Meters;
use options::{Limits, Options, Refresh};
use rand::RngExt;
pub use said::{Keeps, Said, read};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
pub use store::Store;
use store::{Found, Origin, Side, effective_capacity};

/// How often expired entries are swept out.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Reads the directive.
///
/// # Errors
///
/// `this plugin can only be used once per Server Block`; `Wrong argument count or unexpected line
/// ending after '…'`; what is wrong with a number or duration, in Go's words; `cache TTL can not be
/// zero or negative: …`, `cache min TTL can not be negative: …`, `prefetch amount should be positive:
/// …`, `percentage should fall in range [10, 90]: …`, `invalid value for serve_stale refresh mode: …`,
/// `cache type for disable must be "success" or "denial"`, `caching SERVFAIL responses over 5 minutes
/// is not permitted`, and their like for the options of docs/plugins/cache.md.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let carried = carried_key(setup);
    let zones: Vec<Name> = setup.block.zones().cloned().collect();
    let options = Options::parse(&mut setup.dispenser, &zones)?;
    let seed = setup.random.random();
    let budget = setup.carried.budget().clone();
    let store = setup.carried.take_or_make(carried, || {
        Store::new(
            effective_capacity(options.success.capacity),
            effective_capacity(options.denial.capacity),
            options.stale_window,
            seed,
            budget.clone(),
        )
    });
    budget.enrol(&store);
    setup.block.add(CacheHandler {
        zones_label: options.zones_label(),
        options,
        store,
        metrics: setup.metrics.clone(),
        meters: PerServer::new(),
    });
    Ok(())
}

/// What must be the same for a store to outlive a reload: the directive, the block's keys, where
/// it listens, and what answers below the cache. After a change of an upstream or a rewrite nobody
/// wants to see what they used to say.
fn carried_key(setup: &Setup<'_>) -> String {
    let mut key = String::from("cache");
    for server_key in &setup.block.keys {
        let _ = write!(
            key,
            "\0{}://{}:{}",
            server_key.transport.word(),
            server_key.zone,
            server_key.port
        );
    }
    for host in &setup.block.hosts {
        let _ = write!(key, "\0@{host}");
    }
    let from_here = TABLE.iter().skip_while(|row| row.word != "cache");
    for row in from_here.filter(|row| row.word != "loop") {
        for directive in setup.directives.iter().filter(|one| one.word == row.word) {
            for token in &directive.tokens {
                let _ = write!(key, "\0{}", token.text);
            }
        }
    }
    key
}

/// The handler of one `cache` directive.
struct CacheHandler {
    options: Options,
    zones_label: String,
    store: Arc<Store>,
    metrics: Registry,
    meters: PerServer<Meters>,
}

impl Handler for CacheHandler {
    fn word(&self) -> &'static str {
        "cache"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        if !self.options.covers(query.name()) {
            return Flow::Next;
        }
        let meters = self.meters(context);
        meters.requests().increment();
        let now = context.now.monotonic;
        let found = self.store.find(self.store.key(query), query, now, |found| {
            (found.entry.side(), self.answer(found, query, response, context))
        });
        match found {
            Some((side, flow)) => {
                meters.hits(side).increment();
                flow
            }
            None => {
                meters.misses().increment();
                if !query.wants_recursion() {
                    context.note = Some(Box::new(AsksForLess));
                }
                Flow::Next
            }
        }
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let note = context.note.take();
        let asks_for_less = note.as_ref().is_some_and(|note| note.is::<AsksForLess>());
        let stale = note.and_then(|note| note.downcast::<Verifying>().ok());
        if let Some(stale) = &stale
            && !is_verified(response)
        {
            stale.restore(query);
            if self.instead(query, response, context) {
                return Turn::Up;
            }
        }
        if !self.options.covers(query.name()) {
            return Turn::Up;
        }
        let keeping = match context.clientless || stale.is_some() {
            _ if asks_for_less => Keeping::Whole,
            true => Keeping::Everything,
            false => Keeping::Enabled,
        };
        response.pass_through("cache");
        if response.written == Written::Message {
            self.take(query, response, context, keeping);
        }
        if context.clientless {
            let now = context.now.monotonic;
            self.store.each(self.store.key(query), query, |entry| {
                entry.end_refresh();
                if entry.remaining(now) < 0 {
                    entry.refresh_failed(now);
                }
            });
        }
        Turn::Up
    }

    fn upkeep_every(&self) -> Option<Duration> {
        Some(SWEEP_EVERY)
    }

    fn upkeep(&self, now: Now, _surroundings: &dyn Surroundings, _journal: &dyn Journal) {
        self.store.sweep(now.monotonic);
    }
}

impl CacheHandler {
    fn meters(&self, context: &Context<'_>) -> &Meters {
        self.meters
            .get(context.server, |server| Meters::new(&self.metrics, server, &self.zones_label))
    }

    /// What an entry makes of the query. Its shard is locked: nothing here may wait or look into
    /// the store.
    fn answer(
        &self,
        found: Found<'_>,
        query: &Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let now = context.now.monotonic;
        let Found { entry, is_failing } = found;
        let left = entry.remaining(now);
        if left >= 0 {
            if let Some(prefetch) = &self.options.prefetch
                && entry.hit(prefetch, now)
                && !is_failing
                && query.wants_recursion()
            {
                self.refresh(entry, context);
            }
            entry.write(query, response, self.shown_ttl(entry, left));
            return Flow::Answer;
        }
        // Without RD a client asks for what is here.
        let is_held = !query.wants_recursion() || entry.is_held(now, self.options.recheck);
        if let Refresh::Verify(patience) = self.options.refresh
            && !is_held
        {
            context.note = Some(Box::new(Verifying { question: query.question().into() }));
            context.patience = patience;
            context.falls_back = true;
            return Flow::Next;
        }
        // None while upstream's failure to answer this very question is being cached.
        if !is_held && !is_failing {
            self.refresh(entry, context);
        }
        self.meters(context).served_stale().increment();
        entry.write(query, response, self.stale_ttl(entry));
        Flow::Answer
    }

    /// Wishes for a refresh, unless one is under way.
    fn refresh(&self, entry: &mut Entry, context: &mut Context<'_>) {
        if entry.begin_refresh(context.now.monotonic) {
            self.meters(context).prefetches().increment();
            context.refresh = true;
        }
    }

    /// The TTL in seconds of a hit with `left` seconds to live.
    fn shown_ttl(&self, entry: &Entry, left: i64) -> u32 {
        if self.options.keep_ttl { entry.ttl() } else { u32::try_from(left).unwrap_or(0) }
    }

    /// The TTL in seconds of an expired entry.
    fn stale_ttl(&self, entry: &Entry) -> u32 {
        if self.options.keep_ttl { entry.ttl() } else { self.options.stale_ttl }
    }

    /// `serve_stale verify` got nothing usable: what is kept in its place, expired or, by another's refresh,
    /// fresh again. False when it is gone meanwhile.
    fn instead(
        &self,
        query: &Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> bool {
        let now = context.now.monotonic;
        let is_late = context.late;
        let refreshes = self.store.find(self.store.key(query), query, now, |found| {
            let entry = found.entry;
            let left = entry.remaining(now);
            if left >= 0 {
                entry.write(query, response, self.shown_ttl(entry, left));
                return false;
            }
            self.meters(context).served_stale().increment();
            entry.write(query, response, self.stale_ttl(entry));
            if !is_late {
                entry.refresh_failed(now);
            }
            is_late && entry.begin_refresh(now)
        });
        context.refresh |= refreshes.unwrap_or(false);
        refreshes.is_some()
    }

    /// A response on its way up: TTLs flattened, OPT out, kept if it may be, AD as the client
    /// wants it.
    fn take(
        &self,
        query: &Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
        keeping: Keeping,
    ) {
        let Ok(message) = response.message() else {
            return;
        };
        let found = survey(&message, response.rcode, context.now.unix);
        let kind = found.kind;
        let ttl = self.ttl(&found);
        let may_be_kept = ttl > 0
            && (keeping != Keeping::Whole || is_whole(&message, query, kind))
            && message.flags() & flags::TC == 0
            && !is_for_one_network(&message, query);
        let side = kept_in(kind).filter(|_| may_be_kept);
        let is_match = matches(&message, query);
        let ttl_places = flatten(response, found, ttl);
        // Before it is kept, as node-cache does: who asks first decides whether later clients see
        // AD (recorded behaviour; see docs/differences.md on what it costs).
        if !wants_authentic(query) {
            response.set_flags(response.flags() & !flags::AD);
        }
        match (side, ttl_places) {
            (Some(side), Some(ttl_places)) if is_match => {
                if keeping == Keeping::Everything || !self.limits(side).excludes(query.name()) {
                    response.known_size = response.uncompressed_size();
                    let terms = Terms {
                        key: self.store.key(query),
                        side,
                        ttl,
                        stored: milliseconds(context.now.monotonic),
                        is_failure: kind == Kind::ServerError,
                        rcode: response.rcode,
                        bits: QueryBits::of(query),
                        uncompressed_size: response.known_size,
                    };
                    let entry = Entry::answering(query, response, &ttl_places, terms);
                    let origin = if context.clientless { Origin::Refresh } else { Origin::Client };
                    self.store.put(entry, context.now.monotonic, origin);
                }
                self.gauge(context);
            }
            (Some(_), _) => self.meters(context).drops().increment(),
            (None, _) => {}
        }
    }

    fn limits(&self, side: Side) -> &Limits {
        match side {
            Side::Success => &self.options.success,
            Side::Denial => &self.options.denial,
        }
    }

    /// The TTL in seconds that all records get.
    fn ttl(&self, found: &Survey) -> u32 {
        match found.kind {
            Kind::NoData | Kind::NameError => self.options.denial.clamp(found.ttl),
            Kind::ServerError => self.options.servfail,
            Kind::NoError | Kind::Delegation | Kind::Meta | Kind::Other => {
                self.options.success.clamp(found.ttl)
            }
        }
    }

    /// Shows how many entries there are, and how many had to go.
    fn gauge(&self, context: &Context<'_>) {
        let meters = self.meters(context);
        for side in [Side::Success, Side::Denial] {
            meters.entries(side).set(self.store.count(side) as f64);
            let evicted = self.store.take_evicted(side);
            if evicted > 0 {
                meters.evictions(side).add(evicted);
            }
        }
    }
}

/// Which responses are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// As `Enabled`, if nobody would get more than they have: those to a query without RD.
    Whole,
    /// All but those of names that `disable` excludes.
    Enabled,
    /// Those of a refresh, all: `disable` would keep the expired entry alive.
    Everything,
}

/// The handler's note of a query without RD: the response may be a referral, or a part of the answer, which
/// is not for those who want all of it.
struct AsksForLess;

/// An expired entry is there, and upstream is asked first; the handler's note. The entry is looked for again
/// when it is needed: as many may wait as ask for one name, and a copy for each would be memory without bound.
struct Verifying {
    /// The question as it came: a response that is late passes by the handlers that would undo
    /// what they did to it.
    question: Box<[u8]>,
}

impl Verifying {
    fn restore(&self, query: &mut Query<'_>) {
        if query.question() != &*self.question
            && let Some((name, &[a, b, c, d])) = self.question.split_last_chunk::<4>()
        {
            let qtype = RecordType(u16::from_be_bytes([a, b]));
            query.set_question(name, qtype, Class(u16::from_be_bytes([c, d])));
        }
    }
}

/// Whether upstream's word replaces an expired entry: NOERROR or NXDOMAIN.
fn is_verified(response: &Response) -> bool {
    response.written == Written::Message
        && matches!(response.rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
}

/// Where a kind is kept.
fn kept_in(kind: Kind) -> Option<Side> {
    match kind {
        Kind::NoError | Kind::Delegation => Some(Side::Success),
        Kind::NoData | Kind::NameError | Kind::ServerError => Some(Side::Denial),
        Kind::Meta | Kind::Other => None,
    }
}
