//! `forward`: which upstreams a query goes to, and what their responses mean (docs/plugins/forward.md).
//!
//! Owns the directive's options and decisions: matching, policy, verdict on a response, what is
//! tried next. The connections, timers and health state are `net::upstream`'s.

mod exchange;
mod options;
mod parse;
mod policy;
mod sources;
mod target;
mod tls;
mod tries;
mod verdict;

pub use exchange::{Exchange, ExchangeFailure, Exchanged, Tried, Upstreams};
pub use options::{Keeping, Options, Probe, Upstream};
pub use policy::{MOST_UPSTREAMS, Order, Policy};
pub use tls::{DohMethod, TlsFiles, TlsSettings};
pub use tries::{BUDGET, Fault, Move, Tries};
pub use verdict::{Meaning, Verdict, judge, rcode_of};

use super::dnstap::Point;
use super::{BlockDraft, Context, Flow, Handler, Journal, Level, Now, Setup, SilentJournal, Turn};
use crate::corefile::{CorefileError, Dispenser, Surroundings, Token};
use crate::dns::{Name, Query, Rcode, Response, Section, Transport, Written, sizes};
use crate::metrics::{Counter, Registry, names};
use arc_swap::ArcSwap;
use sources::{LOOK_EVERY, Sight, Source, Watch};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// One `forward` directive's handler.
struct Forward {
    from: Name,
    options: Options,
    /// Replaced whole when a file that names upstreams changes.
    upstreams: ArcSwap<Upstreams>,
    /// The files that name upstreams, if there are any; only upkeep looks at it.
    watch: Option<Mutex<Watch>>,
    metrics: Registry,
    /// Another `forward` follows in the block: `next` has somewhere to go.
    has_next: bool,
    /// Queries so far, for round robin.
    turn: AtomicU32,
    /// Queries in flight, counted with `max_concurrent`.
    in_flight: Arc<AtomicU64>,
    rejects: Counter,
    /// Queries for which there was no upstream at all.
    broken: Counter,
    /// Who is told of each try.
    taps: Vec<Arc<Point>>,
}

/// A query's place among the `max_concurrent`, given back when the query's life ends; also the
/// mark that this handler forwarded it.
struct Place(Option<Arc<AtomicU64>>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.0 {
            in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Forward {
    /// Whether a name is this directive's: below FROM and not excepted; FROM itself always is.
    fn takes(&self, name: &Name) -> bool {
        name.is_in(&self.from)
            && (*name == self.from || !self.options.except.iter().any(|zone| name.is_in(zone)))
    }

    /// A place among the `max_concurrent`; `None` when all are taken.
    fn enter(&self) -> Option<Place> {
        let most = self.options.max_concurrent;
        if most == 0 {
            return Some(Place(None));
        }
        let place = Place(Some(self.in_flight.clone()));
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        (before < most).then_some(place)
    }

    /// The transport towards upstreams that are not `tls://`.
    fn transport(&self, context: &Context<'_>) -> Transport {
        let options = &self.options;
        if options.force_tcp {
            Transport::Tcp
        } else if options.prefer_udp {
            Transport::Udp
        } else if context.clientless || context.client.transport != Transport::Udp {
            Transport::Tcp
        } else {
            Transport::Udp
        }
    }

    /// Acts on what a look at the files found.
    fn take(&self, sight: Sight, journal: &dyn Journal) {
        match sight {
            Sight::Upstreams(all) => {
                journal.line(
                    Level::Info,
                    format_args!("plugin/forward: upstreams changed: asking {} now", shown(&all)),
                );
                self.upstreams.store(Arc::new(Upstreams {
                    all,
                    options: self.options.clone(),
                    attached: OnceLock::new(),
                }));
            }
            Sight::Unusable(path, why) => {
                let file = path.to_string_lossy();
                self.metrics.counter(&names::FORWARD_FILE_FAILURES, &[&file]).increment();
                journal.line(
                    Level::Warning,
                    format_args!(
                        "plugin/forward: {file} changed and cannot be used, asking {} as before: \
                         {why}",
                        shown(&self.upstreams.load().all)
                    ),
                );
            }
            Sight::Ignored(line) => {
                journal.line(Level::Warning, format_args!("plugin/forward: {line}"));
            }
        }
    }

    /// Whether `next` or `next_on_nodata` sends this response to the `forward` below.
    fn hands_on(&self, response: &Response) -> bool {
        let options = &self.options;
        self.has_next
            && response.written == Written::Message
            && (options.next.contains(&response.rcode)
                || (options.next_on_nodata
                    && response.rcode == Rcode::NOERROR
                    && response.message().is_ok_and(|message| message.count(Section::Answer) == 0)))
    }
}

impl Handler for Forward {
    fn word(&self) -> &'static str {
        "forward"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        if !self.takes(query.name()) {
            return Flow::Next;
        }
        let upstreams = self.upstreams.load_full();
        if upstreams.all.is_empty() {
            self.broken.increment();
            response.fail(Rcode::SERVFAIL, Some("no nameserver is an IP address".into()));
            return Flow::Answer;
        }
        let Some(place) = self.enter() else {
            self.rejects.increment();
            let most = self.options.max_concurrent;
            let error = format!("concurrent queries exceeded maximum {most}");
            response.fail(Rcode::REFUSED, Some(error.into()));
            return Flow::Answer;
        };
        // The mark alone takes no memory: thousands may wait.
        context.note = Some(match place.0 {
            None => Box::new(()),
            Some(_) => Box::new(place),
        });
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let policy = self.options.policy;
        let from_udp = !context.clientless && context.client.transport == Transport::Udp;
        let udp_limit = from_udp.then(|| {
            query.edns().map_or(sizes::UDP_LEAST, |edns| edns.udp_size.max(sizes::UDP_LEAST))
        });
        let spent = context.now.monotonic.saturating_sub(context.received.monotonic);
        Flow::Forward(Exchange {
            order: Order::new(policy, upstreams.all.len(), turn, context.random),
            upstreams,
            transport: self.transport(context),
            udp_limit,
            // A `forward` above may have used some of it, and handed the query on.
            budget: BUDGET.saturating_sub(spent),
            keeps_tries: !self.taps.is_empty(),
            is_hasty: context.falls_back,
        })
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        // Without a note the response is another handler's.
        if context.note.take().is_none() {
            return Turn::Up;
        }
        if let Some(upstream) = context.exchanged.and_then(|exchanged| exchanged.upstream) {
            context.labels.set("forward/upstream", || upstream.to_string());
        }
        if let Some(exchanged) = context.exchanged {
            for (tried, tap) in exchanged
                .tried
                .iter()
                .flat_map(|tried| self.taps.iter().map(move |tap| (tried, tap)))
            {
                tap.forwarded(tried, exchanged, query, context);
            }
        }
        if self.hands_on(response) { Turn::Down } else { Turn::Up }
    }

    fn takes_any_class(&self) -> bool {
        true
    }

    fn upstreams(&self) -> Option<Arc<Upstreams>> {
        Some(self.upstreams.load_full())
    }

    fn upkeep_every(&self) -> Option<Duration> {
        self.watch.as_ref().map(|_| LOOK_EVERY)
    }

    fn upkeep(&self, _now: Now, surroundings: &dyn Surroundings, journal: &dyn Journal) {
        let Some(watch) = &self.watch else { return };
        // Only upkeep locks it, and a look that panicked left each source whole.
        let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
        for sight in watch.look(surroundings) {
            self.take(sight, journal);
        }
    }
}

/// What one `forward` line says, for those who judge a Corefile without serving it.
#[derive(Debug)]
pub struct Said {
    /// FROM.
    pub from: Name,
    /// The upstreams in the order of the TOs, each with the file that names it, if one does.
    pub upstreams: Vec<(Upstream, Option<PathBuf>)>,
    /// The options.
    pub options: Options,
}

/// What the `forward` lines of a block say: `tokens` are those of all of them.
///
/// # Errors
///
/// As for [`setup`].
pub fn read(tokens: &[Token], surroundings: &dyn Surroundings) -> Result<Vec<Said>, CorefileError> {
    let stanzas =
        parse::stanzas(&mut Dispenser::new("forward", tokens), surroundings, &SilentJournal)?;
    let said = stanzas.into_iter().map(|stanza| {
        let upstreams = stanza.sources.into_iter().flat_map(|source| match source {
            Source::Address(upstream) => vec![(upstream, None)],
            Source::File(path, upstreams) => {
                upstreams.into_iter().map(|one| (one, Some(path.clone()))).collect()
            }
        });
        let upstreams = upstreams.collect();
        Said { from: stanza.from, upstreams, options: stanza.upstreams.options }
    });
    Ok(said.collect())
}

/// Reads the block's `forward` directives.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'`; `unable to normalize '…'`; `not an IP
/// address or file: "…"`, `no nameservers found` and their like for the upstreams; `more than … TOs
/// configured: …`; `unknown property '…'`, `unknown policy '…'`; and for each option what
/// docs/plugins/forward.md says of its value, durations and numbers in Go's words.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let stanzas = parse::stanzas(&mut setup.dispenser, setup.surroundings, setup.journal)?;
    let rejects = setup.metrics.counter(&names::MAX_CONCURRENT_REJECTS, &[]);
    let broken = setup.metrics.counter(&names::HEALTHCHECK_BROKEN, &[]);
    let last = stanzas.len().saturating_sub(1);
    for (at, stanza) in stanzas.into_iter().enumerate() {
        let own = own_addresses(setup.block);
        setup.block.add(Forward {
            from: stanza.from,
            options: stanza.upstreams.options.clone(),
            upstreams: ArcSwap::from_pointee(stanza.upstreams),
            watch: Watch::new(stanza.sources, own).map(Mutex::new),
            metrics: setup.metrics.clone(),
            has_next: at < last,
            turn: AtomicU32::new(0),
            in_flight: Arc::new(AtomicU64::new(0)),
            rejects: rejects.clone(),
            broken: broken.clone(),
            taps: setup.block.taps.clone(),
        });
    }
    Ok(())
}

/// Where the block listens, as far as `bind` says.
fn own_addresses(block: &BlockDraft) -> Vec<SocketAddr> {
    let hosts = block.hosts.iter().filter_map(|host| {
        let address = host.split('%').next().unwrap_or_default();
        Some(address.parse::<IpAddr>().ok()?.to_canonical())
    });
    let ports: Vec<u16> = block.keys.iter().filter_map(|key| key.port.parse().ok()).collect();
    hosts.flat_map(|ip| ports.iter().map(move |&port| SocketAddr::new(ip, port))).collect()
}

fn shown(upstreams: &[Upstream]) -> String {
    upstreams.iter().map(|upstream| upstream.text.as_str()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
