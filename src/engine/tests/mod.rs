//! The life of queries with scripted handlers and a clock that the test moves.

mod arriving;
mod building;
mod waiting;

use super::*;
use crate::corefile::{KeyTransport, MemorySurroundings};
use crate::dns::{Class, Name, Query, Rcode, RecordType, Response, Transport};
use crate::metrics::{Registry, names};
use crate::plugin::forward::{BUDGET, Exchange, Exchanged, Options, Order, Policy, Upstreams};
use crate::plugin::prometheus::{DROPPED, Tally};
use crate::plugin::testing::FakeJournal;
use crate::plugin::{
    Carried, Client, Context, DropReason, Flow, Handler, Now, ServerIdentity, Timeouts, Turn,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

type Down = Box<dyn Fn(&mut Query<'_>, &mut Response, &mut Context<'_>) -> Flow + Send + Sync>;
type Up = Box<dyn Fn(&mut Query<'_>, &mut Response, &mut Context<'_>) -> Turn + Send + Sync>;
type Answered = Box<dyn Fn(&mut Response, &Response) -> Turn + Send + Sync>;

/// A handler that does what the test says and notes its passes.
struct Scripted {
    word: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
    down: Down,
    up: Up,
    answered: Answered,
}

impl Handler for Scripted {
    fn word(&self) -> &'static str {
        self.word
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        self.seen.lock().unwrap().push(format!("{} down", self.word));
        (self.down)(query, response, context)
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let late = if context.late { " late" } else { "" };
        let rcode = response.rcode;
        self.seen.lock().unwrap().push(format!("{} up {rcode}{late}", self.word));
        (self.up)(query, response, context)
    }

    fn answered(
        &self,
        _: &mut Query<'_>,
        response: &mut Response,
        further: &Response,
        _: &mut Context<'_>,
    ) -> Turn {
        self.seen.lock().unwrap().push(format!("{} answered {}", self.word, further.rcode));
        (self.answered)(response, further)
    }
}

/// A world of one listener.
struct Scene {
    seen: Arc<Mutex<Vec<String>>>,
    blocks: Vec<Arc<Block>>,
    zones: Zones,
    any_class: bool,
    metrics: Registry,
    journal: FakeJournal,
    random: StdRng,
    now: Now,
    refreshes: Vec<Refresh>,
    response: Response,
}

impl Scene {
    fn new() -> Scene {
        Scene {
            seen: Arc::default(),
            blocks: Vec::new(),
            zones: Zones::default(),
            any_class: false,
            metrics: Registry::new(1),
            journal: FakeJournal::default(),
            random: StdRng::seed_from_u64(1),
            now: Now {
                monotonic: Duration::from_secs(9),
                unix: Duration::from_secs(1_700_000_000),
            },
            refreshes: Vec::new(),
            response: Response::new(),
        }
    }

    fn handler(&self, word: &'static str) -> Scripted {
        Scripted {
            word,
            seen: self.seen.clone(),
            down: Box::new(|_, _, _| Flow::Next),
            up: Box::new(|_, _, _| Turn::Up),
            answered: Box::new(|_, _| Turn::Up),
        }
    }

    /// Writes an empty NOERROR response.
    fn answering(&self, word: &'static str) -> Scripted {
        let down: Down = Box::new(move |query, response, _| {
            response.start(query, Rcode::NOERROR, 0, "test");
            Flow::Answer
        });
        Scripted { down, ..self.handler(word) }
    }

    fn forwarding(&self, word: &'static str) -> Scripted {
        Scripted { down: Box::new(|_, _, _| Flow::Forward(exchange())), ..self.handler(word) }
    }

    fn block(&mut self, zone: &str, chain: Vec<Scripted>) {
        self.zones.insert(&zone.parse().unwrap(), self.blocks.len());
        self.blocks.push(Arc::new(Block {
            keys: Vec::new(),
            chain: chain.into_iter().map(|handler| Arc::new(handler) as Arc<dyn Handler>).collect(),
            metadata: false,
        }));
    }

    fn snapshot(&mut self) -> Arc<Snapshot> {
        let label: Arc<str> = "dns://127.0.0.1:53".into();
        let server = Server {
            dropped: Tally::new(&self.metrics, &label, DROPPED),
            panics: self.metrics.counter(&names::PANICS, &[]),
            identity: ServerIdentity { label, index: 0 },
            transport: KeyTransport::Dns,
            host: None,
            port: 53,
            zones: std::mem::take(&mut self.zones),
            timeouts: Timeouts::default(),
            tls: None,
            any_class: self.any_class,
            debug: false,
            stacktrace: false,
        };
        Arc::new(Snapshot {
            blocks: std::mem::take(&mut self.blocks),
            servers: vec![server],
            reflected: None,
            fitted: FittedReplies::new(&Registry::new(1)),
            services: Vec::new(),
            carried: Carried::default(),
        })
    }

    fn arrive(&mut self, snapshot: &Arc<Snapshot>, bytes: &[u8]) -> Arrival {
        let client = Client {
            address: "192.0.2.1:4000".parse().unwrap(),
            local: "127.0.0.1:53".parse().unwrap(),
            transport: Transport::Udp,
        };
        let mut means = Means {
            now: self.now,
            received: self.now,
            random: &mut self.random,
            journal: &self.journal,
            refreshes: &mut self.refreshes,
        };
        arrive(snapshot, 0, bytes, client, &mut self.response, &mut means)
    }

    fn with_means<T>(&mut self, run: impl FnOnce(&mut Means<'_>) -> T) -> T {
        run(&mut Means {
            now: self.now,
            received: self.now,
            random: &mut self.random,
            journal: &self.journal,
            refreshes: &mut self.refreshes,
        })
    }

    /// The reply's rcode, or `None` without one.
    fn rcode(&mut self, snapshot: &Arc<Snapshot>, bytes: &[u8]) -> Option<Rcode> {
        match self.arrive(snapshot, bytes) {
            Arrival::Reply => Some(Rcode(self.response.flags() & 15)),
            _ => None,
        }
    }

    /// One query that must wait.
    fn parked(&mut self, snapshot: &Arc<Snapshot>, bytes: &[u8]) -> (Box<Parked>, Step) {
        match self.arrive(snapshot, bytes) {
            Arrival::Wait(parked, step) => (parked, step),
            other => panic!("{other:?}"),
        }
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn query(text: &str) -> Vec<u8> {
    asked(text, RecordType::A, Class::IN).wire().to_vec()
}

fn asked(text: &str, qtype: RecordType, qclass: Class) -> Query<'static> {
    let mut query = Query::new(&name(text), qtype, qclass);
    query.set_id(0x1234);
    query
}

/// The name of a query that waits.
fn kept_name(parked: &Parked) -> Name {
    parked.waiting().unwrap().query().clone().wake().name().clone()
}

/// Whether `name` is asked for in a query that waits no more.
fn asks_at_last(parked: &Parked, name: &str) -> bool {
    parked.waiting().is_none() && format!("{parked:?}").contains(&format!("{:?}", self::name(name)))
}

fn exchange() -> Exchange {
    let options = Options::default();
    Exchange {
        order: Order::new(Policy::Sequential, 0, 1, &mut StdRng::seed_from_u64(1)),
        upstreams: Arc::new(Upstreams { all: Vec::new(), options, attached: OnceLock::new() }),
        transport: Transport::Udp,
        udp_limit: Some(512),
        budget: BUDGET,
        keeps_tries: false,
        is_hasty: false,
    }
}

/// An upstream's empty response with this rcode to `text`.
fn exchanged(text: &str, rcode: Rcode) -> Exchanged {
    let mut response = Response::new();
    response.start(&asked(text, RecordType::A, Class::IN), rcode, 0, "upstream");
    Exchanged {
        outcome: Ok(response.wire.into()),
        upstream: None,
        took: Duration::ZERO,
        tried: Vec::new(),
    }
}
