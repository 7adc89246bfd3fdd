//! From the octets of a message to its reply, and the queries that wait in between.
//!
//! Owns admission: what is answered before any block, which block
//! serves the rest, and that a panic costs one query only. A hit is done within [`arrive`],
//! without allocating; what must wait leaves as a [`Parked`] that owns all it needs.

use super::life::{Course, KeptLife, Life, Means, OwnLife, Place, Refresh, Step};
use super::snapshot::{Block, Server, Snapshot};
use crate::dns::{Class, Query, Rcode, Received, Response, badvers_reply, reject_reply};
use crate::plugin::forward::Exchanged;
use crate::plugin::prometheus::Observation;
use crate::plugin::{Client, DropReason, Level};
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
    stage: Stage,
}

/// Where a parked query is. Thousands may wait: what they can do without is made again.
#[allow(clippy::large_enum_variant)] // A parked query is boxed itself.
enum Stage {
    /// It waits. The response is the asking handler's when a further question is asked, and nothing
    /// is in it, or of use, when an exchange is waited for.
    Waiting(KeptLife, Option<Box<Response>>),
    /// Nothing is waited for.
    Over(Box<(OwnLife, Response)>),
    /// A pass is under way.
    Passing,
}

impl Stage {
    /// Behind a pass that ended with `step`.
    fn after(step: &Step, life: OwnLife, mut response: Response) -> Stage {
        match step {
            Step::Done | Step::Drop(_) => Stage::Over(Box::new((life, response))),
            Step::Exchange(..) | Step::Ask(_) => {
                Stage::Waiting(life.keep(), left(&mut response, step))
            }
        }
    }

    /// For the next pass.
    fn wake(self) -> Option<(OwnLife, Response)> {
        match self {
            Stage::Waiting(life, response) => {
                Some((life.wake(), response.map_or_else(Response::new, |response| *response)))
            }
            Stage::Over(both) => Some(*both),
            Stage::Passing => None,
        }
    }
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parked = f.debug_struct("Parked");
        match &self.stage {
            Stage::Waiting(life, _) => parked.field("life", life),
            Stage::Over(both) => parked.field("life", &both.0),
            Stage::Passing => &mut parked,
        };
        parked.finish_non_exhaustive()
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
    // It stays where it is: a query is too large to be moved about for every hit.
    let mut received = Query::receive(bytes);
    let query = match &mut received {
        Received::Query(query) => {
            if let Some(codes) = &snapshot.reflected {
                query.reflect_options(codes);
            }
            query
        }
        Received::Ignore => return Arrival::Silence(Silence::NotAQuery),
        Received::Reject(reject) => {
            reject_reply(bytes, reject, &mut response.wire);
            if reject.rcode == Rcode::SERVFAIL {
                let sizes = (bytes.len(), response.wire.len());
                count_dropped(listener, &client, None, sizes, reject.rcode);
            }
            return Arrival::Reply;
        }
    };
    let block = match admit(snapshot, listener, query) {
        Admission::Serve(block) => block,
        Admission::Refuse => {
            response.fail(Rcode::REFUSED, None);
            snapshot.finish(query, response, client.transport);
            let sizes = (query.received_size(), response.wire.len());
            count_dropped(listener, &client, Some(&*query), sizes, Rcode::REFUSED);
            return Arrival::Reply;
        }
        Admission::BadVersion => {
            badvers_reply(query, &mut response.wire);
            return Arrival::Reply;
        }
    };
    let place = Place { server: listener, block };
    let mut course = Course::new(client, means.received);
    let step = guarded(listener, response, means, |response, means| {
        let step = Life::of(query, &mut course).start(place, response, means);
        if matches!(step, Step::Done) {
            snapshot.finish(query, response, client.transport);
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
                stage: Stage::Waiting(KeptLife::new(query, course), left(response, &step)),
            }),
            step,
        ),
        Err(Panicked) => {
            response.fail(Rcode::SERVFAIL, None);
            snapshot.finish(query, response, client.transport);
            Arrival::Reply
        }
    }
}

impl Parked {
    /// A refresh, without a client, as a handler wished for it; with what it waits for.
    pub fn refreshing(
        snapshot: &Arc<Snapshot>,
        refresh: Refresh,
        means: &mut Means<'_>,
    ) -> (Box<Parked>, Step) {
        let (server, block) = (refresh.server, refresh.block.clone());
        let life = OwnLife::refreshing(refresh, means.now);
        Parked::start(snapshot.clone(), server, block, life, means)
    }

    /// The first pass of a query that has no place of its own yet.
    fn start(
        snapshot: Arc<Snapshot>,
        server: usize,
        block: Arc<Block>,
        life: OwnLife,
        means: &mut Means<'_>,
    ) -> (Box<Parked>, Step) {
        let stage = Stage::Over(Box::new((life, Response::new())));
        let mut parked = Box::new(Parked { snapshot, server, block, stage });
        let step =
            parked.pass(means, |life, place, response, means| life.start(place, response, means));
        (parked, step)
    }

    /// The snapshot it began with.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What it keeps while it waits; `None` once nothing is waited for.
    pub fn waiting(&self) -> Option<&KeptLife> {
        match &self.stage {
            Stage::Waiting(life, _) => Some(life),
            Stage::Over(_) | Stage::Passing => None,
        }
    }

    /// Octets of the response that waits for the answer to a further question.
    pub fn response_octets(&self) -> usize {
        match &self.stage {
            Stage::Waiting(_, Some(response)) => response.wire.capacity(),
            _ => 0,
        }
    }

    /// The response; the reply after [`Parked::finish`].
    pub fn into_response(self) -> Response {
        match self.stage {
            Stage::Over(both) => both.1,
            Stage::Waiting(..) | Stage::Passing => Response::new(),
        }
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
        let Stage::Waiting(life, _) = &mut self.stage else { return None };
        Some(Parked {
            stage: Stage::Waiting(life.leave_behind()?, None),
            snapshot: self.snapshot.clone(),
            server: self.server,
            block: self.block.clone(),
        })
    }

    /// Asks one further question through the whole server.
    pub fn further(&self, question: Query<'static>, means: &mut Means<'_>) -> Further {
        let listener = &self.snapshot.servers[self.server];
        let Some(asker) = self.waiting() else { return Further::Answered(Response::new()) };
        match admit(&self.snapshot, listener, &question) {
            Admission::Serve(block) => {
                let life = OwnLife::new(question, *asker.client(), means.now).within(asker);
                let (snapshot, block) = (self.snapshot.clone(), block.clone());
                match Parked::start(snapshot, self.server, block, life, means) {
                    (parked, Step::Done | Step::Drop(_)) => {
                        Further::Answered(parked.into_response())
                    }
                    (parked, step) => Further::Wait(parked, step),
                }
            }
            Admission::Refuse | Admission::BadVersion => {
                let mut response = Response::new();
                response.fail(Rcode::REFUSED, None);
                Further::Answered(response)
            }
        }
    }

    /// Makes the reply for the client out of the response.
    pub fn finish(&mut self, means: &mut Means<'_>) {
        let listener = &self.snapshot.servers[self.server];
        let Stage::Over(both) = &mut self.stage else { return };
        let (life, response) = &mut **both;
        let snapshot = &self.snapshot;
        let done = guarded(listener, response, means, |response, _| {
            finish(snapshot, life, response);
        });
        if done.is_err() {
            response.fail(Rcode::SERVFAIL, None);
            finish(snapshot, life, response);
        }
    }

    /// Ends it here: SERVFAIL, whatever the handlers still wanted.
    pub fn give_up(&mut self) {
        if let Some((life, mut response)) = self.take() {
            response.fail(Rcode::SERVFAIL, None);
            self.stage = Stage::Over(Box::new((life, response)));
        }
    }

    fn take(&mut self) -> Option<(OwnLife, Response)> {
        std::mem::replace(&mut self.stage, Stage::Passing).wake()
    }

    fn pass(
        &mut self,
        means: &mut Means<'_>,
        pass: impl FnOnce(&mut Life<'_, 'static>, Place<'_>, &mut Response, &mut Means<'_>) -> Step,
    ) -> Step {
        let Some((mut life, mut response)) = self.take() else {
            debug_assert!(false, "no pass leaves a query without its life");
            return Step::Done;
        };
        let listener = &self.snapshot.servers[self.server];
        let place = Place { server: listener, block: &self.block };
        let step = guarded(listener, &mut response, means, |response, means| {
            pass(&mut life.lend(), place, response, means)
        });
        let step = step.unwrap_or_else(|Panicked| {
            response.fail(Rcode::SERVFAIL, None);
            Step::Done
        });
        self.stage = Stage::after(&step, life, response);
        step
    }
}

/// What a query that waits for `step` keeps of its response.
fn left(response: &mut Response, step: &Step) -> Option<Box<Response>> {
    match step {
        Step::Ask(_) => Some(Box::new(response.leave_buffer())),
        Step::Exchange(..) | Step::Done | Step::Drop(_) => None,
    }
}

/// Where a query goes.
enum Admission<'s> {
    Serve(&'s Arc<Block>),
    Refuse,
    BadVersion,
}

/// Class, EDNS version, zone, in CoreDNS's order.
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

fn finish(snapshot: &Snapshot, life: &OwnLife, response: &mut Response) {
    snapshot.finish(life.query(), response, life.client().transport);
}

/// Counts a query that no chain sees, under the zone `dropped`. The sizes
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

/// Runs a pass so that a panic in it ends one query, not the worker. With
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
