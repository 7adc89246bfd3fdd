//! From the octets of a message to its reply, and the queries that wait in between.
//!
//! Owns admission (spec/coredns.md §5.2, §5.3): what is answered before any block, which block
//! serves the rest, and that a panic costs one query only. A hit is done within [`arrive`],
//! without allocating; what must wait leaves as a [`Parked`] that owns all it needs.

use super::life::{Life, Means, Place, Refresh, Step};
use super::snapshot::{Block, Server, Snapshot};
use crate::dns::{Class, Query, Rcode, Received, Response, badvers_reply, reject_reply};
use crate::plugin::forward::Exchanged;
use crate::plugin::prometheus::Observation;
use crate::plugin::{Client, DropReason, Level, Now};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What became of a message at once.
#[derive(Debug)]
pub enum Arrival {
    /// The reply stands in the response's `wire`.
    Reply,
    /// There is no reply.
    Silence(Silence),
    /// It waits for what the step says.
    Wait(Box<Parked>, Step),
}

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The message is no query, or too short to be one.
    NotAQuery,
    /// A handler wants none.
    Dropped(DropReason),
}

/// What a parked query waited for.
#[derive(Debug)]
pub enum Event<'e> {
    /// The exchange ended.
    Exchanged(&'e Exchanged),
    /// The handler's patience ended first.
    Late,
    /// The further question was answered.
    Answered(&'e Response),
}

/// What comes of a further question at once.
#[derive(Debug)]
pub enum Further {
    /// It was answered; the response is not finished for any client.
    Answered(Response),
    /// It waits itself.
    Wait(Box<Parked>, Step),
}

/// A query that waits. Keeps the snapshot that it began with.
pub struct Parked {
    snapshot: Arc<Snapshot>,
    server: usize,
    block: Arc<Block>,
    life: Life<'static>,
    response: Response,
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("life", &self.life).finish_non_exhaustive()
    }
}

/// Receives one message on the listener `server` of `snapshot`. `response` is the caller's to
/// reuse. Refreshes that handlers wished for are left in `means`.
pub fn arrive(
    snapshot: &Arc<Snapshot>,
    server: usize,
    bytes: &[u8],
    client: Client,
    response: &mut Response,
    means: &mut Means<'_>,
) -> Arrival {
    let listener = &snapshot.servers[server];
    // Not one message may end a worker, whatever it finds in us: handlers are guarded inside, so
    // that their query gets its SERVFAIL; what fails before or behind them gets no reply.
    guarded(listener, response, means, |response, means| {
        read(snapshot, server, bytes, client, response, means)
    })
    .unwrap_or_else(|Panicked| {
        response.clear();
        Arrival::Silence(Silence::NotAQuery)
    })
}

/// Reads one message and takes it through its block, if it has one.
fn read(
    snapshot: &Arc<Snapshot>,
    server: usize,
    bytes: &[u8],
    client: Client,
    response: &mut Response,
    means: &mut Means<'_>,
) -> Arrival {
    let listener = &snapshot.servers[server];
    response.clear();
    let query = match Query::receive(bytes) {
        Received::Query(mut query) => {
            if let Some(codes) = &snapshot.reflected {
                query.reflect_options(codes);
            }
            query
        }
        Received::Ignore => return Arrival::Silence(Silence::NotAQuery),
        Received::Reject(reject) => {
            reject_reply(bytes, &reject, &mut response.wire);
            if reject.rcode == Rcode::SERVFAIL {
                let sizes = (bytes.len(), response.wire.len());
                count_dropped(listener, &client, None, sizes, reject.rcode);
            }
            return Arrival::Reply;
        }
    };
    let block = match admit(snapshot, listener, &query) {
        Admission::Serve(block) => block,
        Admission::Refuse => {
            response.fail(Rcode::REFUSED, None);
            snapshot.finish(&query, response, client.transport);
            let sizes = (query.received_size(), response.wire.len());
            count_dropped(listener, &client, Some(&query), sizes, Rcode::REFUSED);
            return Arrival::Reply;
        }
        Admission::BadVersion => {
            badvers_reply(&query, &mut response.wire);
            return Arrival::Reply;
        }
    };
    let place = Place { server: listener, block };
    let mut life = Life::new(query, client, means.received);
    let step = guarded(listener, response, means, |response, means| {
        let step = life.start(place, response, means);
        if matches!(step, Step::Done) {
            finish(snapshot, &life, response);
        }
        step
    });
    match step {
        Ok(Step::Done) => Arrival::Reply,
        Ok(Step::Drop(reason)) => Arrival::Silence(Silence::Dropped(reason)),
        Ok(step) => Arrival::Wait(
            Box::new(Parked {
                snapshot: snapshot.clone(),
                server,
                block: block.clone(),
                life: life.into_owned(),
                response: response.leave_buffer(),
            }),
            step,
        ),
        Err(Panicked) => {
            response.fail(Rcode::SERVFAIL, None);
            finish(snapshot, &life, response);
            Arrival::Reply
        }
    }
}

impl Parked {
    /// A refresh, without a client, as a handler wished for it.
    pub fn refreshing(snapshot: &Arc<Snapshot>, refresh: Refresh, now: Now) -> Parked {
        Parked {
            snapshot: snapshot.clone(),
            server: refresh.server,
            block: refresh.block.clone(),
            response: Response::new(),
            life: Life::refreshing(refresh, now),
        }
    }

    /// The snapshot it began with.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The monotonic moment at which it ends waiting for upstreams, if there is one.
    pub fn deadline(&self) -> Option<Duration> {
        self.life.deadline()
    }

    /// The query as the handlers left it.
    pub fn query(&self) -> &Query<'static> {
        self.life.query()
    }

    /// Who asked.
    pub fn client(&self) -> &Client {
        self.life.client()
    }

    /// The response; the reply after [`Parked::finish`].
    pub fn into_response(self) -> Response {
        self.response
    }

    /// The first pass of a refresh.
    pub fn start(&mut self, means: &mut Means<'_>) -> Step {
        self.pass(means, |life, place, response, means| life.start(place, response, means))
    }

    /// On with the query after what it waited for.
    pub fn resume(&mut self, means: &mut Means<'_>, event: &Event<'_>) -> Step {
        self.pass(means, |life, place, response, means| match event {
            Event::Exchanged(exchanged) => life.exchanged(place, response, means, exchanged),
            Event::Late => life.late(place, response, means),
            Event::Answered(further) => life.answered(place, response, means, further),
        })
    }

    /// Splits off, before [`Event::Late`], what goes on without the client: the exchange's result
    /// is for that one. `None` when nobody's patience is running.
    pub fn leave_behind(&mut self) -> Option<Parked> {
        Some(Parked {
            snapshot: self.snapshot.clone(),
            server: self.server,
            block: self.block.clone(),
            life: self.life.leave_behind()?,
            response: Response::new(),
        })
    }

    /// Asks one further question through the whole server.
    pub fn further(&self, question: Query<'static>, means: &mut Means<'_>) -> Further {
        let listener = &self.snapshot.servers[self.server];
        let client = *self.life.client();
        let mut response = Response::new();
        match admit(&self.snapshot, listener, &question) {
            Admission::Serve(block) => {
                let mut parked = Parked {
                    snapshot: self.snapshot.clone(),
                    server: self.server,
                    block: block.clone(),
                    life: Life::new(question, client, means.now).within(&self.life),
                    response,
                };
                match parked.start(means) {
                    Step::Done | Step::Drop(_) => Further::Answered(parked.response),
                    step => Further::Wait(Box::new(parked), step),
                }
            }
            Admission::Refuse | Admission::BadVersion => {
                response.fail(Rcode::REFUSED, None);
                Further::Answered(response)
            }
        }
    }

    /// Makes the reply for the client out of the response.
    pub fn finish(&mut self, means: &mut Means<'_>) {
        let listener = &self.snapshot.servers[self.server];
        let (snapshot, life) = (&self.snapshot, &self.life);
        let done = guarded(listener, &mut self.response, means, |response, _| {
            finish(snapshot, life, response);
        });
        if done.is_err() {
            self.response.fail(Rcode::SERVFAIL, None);
            finish(snapshot, life, &mut self.response);
        }
    }

    /// Ends it here: SERVFAIL, whatever the handlers still wanted.
    pub fn give_up(&mut self) {
        self.response.fail(Rcode::SERVFAIL, None);
    }

    fn pass(
        &mut self,
        means: &mut Means<'_>,
        pass: impl FnOnce(&mut Life<'static>, Place<'_>, &mut Response, &mut Means<'_>) -> Step,
    ) -> Step {
        let listener = &self.snapshot.servers[self.server];
        let place = Place { server: listener, block: &self.block };
        let life = &mut self.life;
        let step = guarded(listener, &mut self.response, means, |response, means| {
            pass(life, place, response, means)
        });
        step.unwrap_or_else(|Panicked| {
            self.response.fail(Rcode::SERVFAIL, None);
            Step::Done
        })
    }
}

/// Where a query goes.
enum Admission<'s> {
    Serve(&'s Arc<Block>),
    Refuse,
    BadVersion,
}

/// Class, EDNS version, zone, in CoreDNS's order (spec/coredns.md §5.3).
fn admit<'s>(snapshot: &'s Snapshot, server: &Server, query: &Query<'_>) -> Admission<'s> {
    if query.qclass() != Class::IN && !server.any_class {
        return Admission::Refuse;
    }
    if query.edns().is_some_and(|edns| edns.version != 0) {
        return Admission::BadVersion;
    }
    let found = server.zones.find(query.name(), query.qtype());
    match found.and_then(|block| snapshot.blocks.get(block)) {
        Some(block) if !block.chain.is_empty() => Admission::Serve(block),
        _ => Admission::Refuse,
    }
}

fn finish(snapshot: &Snapshot, life: &Life<'_>, response: &mut Response) {
    snapshot.finish(life.query(), response, life.client().transport);
}

/// Counts a query that no chain sees, under the zone `dropped` (spec/coredns.md §4.7). The sizes
/// are the query's and the reply's, which here counts with the reflected OPT.
fn count_dropped(
    server: &Server,
    client: &Client,
    query: Option<&Query<'_>>,
    (query_size, response_size): (usize, usize),
    rcode: Rcode,
) {
    server.dropped.count(&Observation {
        transport: client.transport,
        client: client.address.ip(),
        qtype: query.map(Query::qtype),
        wants_dnssec: query.is_some_and(Query::wants_dnssec),
        query_size,
        response_size,
        took: Duration::ZERO,
        rcode,
        plugin: "",
    });
}

/// A handler panicked; it is counted and logged already.
struct Panicked;

/// Runs a pass so that a panic in it ends one query, not the worker (spec/coredns.md §5.3). With
/// `debug` CoreDNS would crash here; we do not.
fn guarded<T>(
    server: &Server,
    response: &mut Response,
    means: &mut Means<'_>,
    pass: impl FnOnce(&mut Response, &mut Means<'_>) -> T,
) -> Result<T, Panicked> {
    // What a pass can leave half done is the query's own and is thrown away below; handlers' shared
    // state stands behind their own locks.
    let result = catch_unwind(AssertUnwindSafe(|| pass(response, means)));
    result.map_err(|panic| {
        server.panics.increment();
        let label = &server.identity.label;
        let said = message(&*panic);
        means
            .journal
            .line(Level::Error, format_args!("Recovered from panic in server: {label:?} {said}"));
        Panicked
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "",
    }
}
