//! The life of queries with scripted handlers and a clock that the test moves.

mod building;

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
        udp_limit: 512,
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

#[test]
fn a_hit_is_answered_at_once_with_its_own_id() {
    let mut scene = Scene::new();
    scene.block(".", vec![scene.handler("outer"), scene.answering("inner")]);
    let snapshot = scene.snapshot();
    assert_eq!(scene.rcode(&snapshot, &query("a.test.")), Some(Rcode::NOERROR));
    assert_eq!(scene.response.wire[..2], [0x12, 0x34]);
    assert_eq!(scene.seen(), ["outer down", "inner down", "outer up NOERROR"]);
}

#[test]
fn what_is_no_query_gets_no_reply_and_what_is_wrong_gets_one_without_a_chain() {
    let mut scene = Scene::new();
    scene.block(".", vec![scene.answering("inner")]);
    let snapshot = scene.snapshot();
    let silent = scene.arrive(&snapshot, &[0; 5]);
    assert!(matches!(silent, Arrival::Silence(Silence::NotAQuery)));
    let mut update = query("a.test.");
    update[2] = 0x28;
    assert_eq!(scene.rcode(&snapshot, &update), Some(Rcode::NOTIMP));
    let mut two = query("a.test.");
    two[5] = 2;
    assert_eq!(scene.rcode(&snapshot, &two), Some(Rcode::FORMERR));
    assert!(scene.seen().is_empty());
}

#[test]
fn a_name_in_no_zone_is_refused_and_counted_as_dropped() {
    let mut scene = Scene::new();
    scene.block("example.org.", vec![scene.answering("inner")]);
    let snapshot = scene.snapshot();
    assert_eq!(scene.rcode(&snapshot, &query("a.test.")), Some(Rcode::REFUSED));
    let text = scene.metrics.text();
    for counted in [
        r#"coredns_dns_responses_total{plugin="",rcode="REFUSED",server="dns://127.0.0.1:53",view="",zone="dropped"} 1"#,
        r#"coredns_dns_response_size_bytes_sum{proto="udp",server="dns://127.0.0.1:53",view="",zone="dropped"} 24"#,
    ] {
        assert!(text.contains(counted), "{text}");
    }
}

#[test]
fn dropped_queries_count_with_the_size_of_their_reply() {
    let mut scene = Scene::new();
    scene.block("example.org.", vec![scene.answering("inner")]);
    let snapshot = scene.snapshot();
    let mut message = query("a.test.");
    message[11] = 1;
    message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let mut replied = 0;
    for message in [&message[..], &query("a.test.")[..12]] {
        assert!(matches!(scene.arrive(&snapshot, message), Arrival::Reply));
        replied += scene.response.wire.len();
    }
    let text = scene.metrics.text();
    let sum = format!(
        r#"coredns_dns_response_size_bytes_sum{{proto="udp",server="dns://127.0.0.1:53",view="",zone="dropped"}} {replied}"#
    );
    assert_eq!(replied, 24 + 11 + 12);
    assert!(text.contains(&sum), "{text}");
}

#[test]
fn a_block_without_handlers_refuses() {
    let mut scene = Scene::new();
    scene.block(".", Vec::new());
    let snapshot = scene.snapshot();
    assert_eq!(scene.rcode(&snapshot, &query("a.test.")), Some(Rcode::REFUSED));
}

#[test]
fn other_classes_pass_only_where_a_handler_takes_them() {
    let chaos = asked("version.bind.", RecordType::TXT, Class::CH);
    for (any_class, rcode) in [(false, Rcode::REFUSED), (true, Rcode::NOERROR)] {
        let mut scene = Scene::new();
        scene.any_class = any_class;
        scene.block(".", vec![scene.answering("inner")]);
        let snapshot = scene.snapshot();
        assert_eq!(scene.rcode(&snapshot, chaos.wire()), Some(rcode));
    }
}

#[test]
fn an_unknown_edns_version_is_told_so() {
    let mut scene = Scene::new();
    scene.block(".", vec![scene.answering("inner")]);
    let snapshot = scene.snapshot();
    let mut message = query("a.test.");
    message[11] = 1;
    message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0]);
    assert!(matches!(scene.arrive(&snapshot, &message), Arrival::Reply));
    let edns = scene.response.message().unwrap().edns().unwrap();
    assert_eq!((edns.extended_rcode, edns.version), (1, 0));
    assert!(scene.seen().is_empty());
}

#[test]
fn the_end_of_a_chain_is_a_failure_with_coredns_s_text() {
    let mut scene = Scene::new();
    let text = Arc::new(Mutex::new(None));
    let kept = text.clone();
    let up: Up = Box::new(move |_, response, _| {
        *kept.lock().unwrap() = response.error.take();
        Turn::Up
    });
    let outer = Scripted { up, ..scene.handler("errors") };
    scene.block(".", vec![outer, scene.handler("cache")]);
    let snapshot = scene.snapshot();
    assert_eq!(scene.rcode(&snapshot, &query("a.test.")), Some(Rcode::SERVFAIL));
    assert_eq!(text.lock().unwrap().as_deref(), Some("plugin/cache: no next plugin found"));
}

#[test]
fn a_dropped_query_has_no_reply() {
    let mut scene = Scene::new();
    let down: Down = Box::new(|_, _, _| Flow::Drop(DropReason::Policy));
    scene.block(".", vec![Scripted { down, ..scene.handler("acl") }]);
    let snapshot = scene.snapshot();
    let silent = scene.arrive(&snapshot, &query("a.test."));
    assert!(matches!(silent, Arrival::Silence(Silence::Dropped(DropReason::Policy))));
}

#[test]
fn a_forwarded_query_waits_and_its_response_passes_all_handlers_from_forward_up() {
    let mut scene = Scene::new();
    scene.block(".", vec![scene.handler("cache"), scene.forwarding("forward")]);
    let snapshot = scene.snapshot();
    let (mut parked, step) = scene.parked(&snapshot, &query("a.test."));
    assert!(matches!(step, Step::Exchange(_, None)));
    let result = exchanged("a.test.", Rcode::NXDOMAIN);
    let step = scene.with_means(|means| parked.resume(means, &Event::Exchanged(&result)));
    assert!(matches!(step, Step::Done));
    scene.with_means(|means| parked.finish(means));
    let reply = parked.into_response();
    assert_eq!(reply.wire[..2], [0x12, 0x34]);
    assert_eq!(reply.rcode, Rcode::NXDOMAIN);
    assert_eq!(
        scene.seen(),
        ["cache down", "forward down", "forward up NXDOMAIN", "cache up NXDOMAIN"]
    );
}

#[test]
fn a_handler_may_send_the_query_down_again() {
    let mut scene = Scene::new();
    let first = std::sync::atomic::AtomicBool::new(true);
    let up: Up =
        Box::new(move |_, _, _| match first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            true => Turn::Down,
            false => Turn::Up,
        });
    let retrying = Scripted { up, ..scene.handler("retry") };
    scene.block(".", vec![retrying, scene.answering("inner")]);
    let snapshot = scene.snapshot();
    assert_eq!(scene.rcode(&snapshot, &query("a.test.")), Some(Rcode::NOERROR));
    let passes = ["retry down", "inner down", "retry up NOERROR", "inner down", "retry up NOERROR"];
    assert_eq!(scene.seen(), passes);
}

#[test]
fn a_further_question_passes_the_whole_server() {
    let mut scene = Scene::new();
    let up: Up = Box::new(|query, _, _| match query.name() == &name("a.test.") {
        true => Turn::Ask(Box::new(asked("b.test.", RecordType::A, Class::IN))),
        false => Turn::Up,
    });
    let answered: Answered = Box::new(|response, further| {
        response.rcode = further.rcode;
        Turn::Up
    });
    let asking = Scripted { up, answered, ..scene.handler("dns64") };
    let down: Down = Box::new(|query, response, _| {
        let rcode = match query.name() == &name("b.test.") {
            true => Rcode::NXDOMAIN,
            false => Rcode::NOERROR,
        };
        response.start(query, rcode, 0, "test");
        Flow::Answer
    });
    let inner = Scripted { down, ..scene.handler("inner") };
    scene.block(".", vec![scene.handler("log"), asking, inner]);
    let snapshot = scene.snapshot();
    let (mut parked, step) = scene.parked(&snapshot, &query("a.test."));
    let Step::Ask(question) = step else { panic!("{step:?}") };
    let answer = scene.with_means(|means| parked.further(*question, means));
    let Further::Answered(answer) = answer else { panic!("{answer:?}") };
    let step = scene.with_means(|means| parked.resume(means, &Event::Answered(&answer)));
    assert!(matches!(step, Step::Done));
    assert_eq!(
        scene.seen(),
        [
            "log down",
            "dns64 down",
            "inner down",
            "dns64 up NOERROR",
            "log down",
            "dns64 down",
            "inner down",
            "dns64 up NXDOMAIN",
            "log up NXDOMAIN",
            "dns64 answered NXDOMAIN",
            "log up NXDOMAIN",
        ]
    );
}

#[test]
fn a_further_question_is_waited_for_no_longer_than_its_asker_waits() {
    let mut scene = Scene::new();
    let end = Some(Duration::from_secs(30));
    let down: Down = Box::new(move |query, response, context| {
        if query.name() == &name("b.test.") {
            return Flow::Forward(exchange());
        }
        *context.deadline = end;
        response.start(query, Rcode::NOERROR, 0, "test");
        Flow::Answer
    });
    let up: Up =
        Box::new(|_, _, _| Turn::Ask(Box::new(asked("b.test.", RecordType::A, Class::IN))));
    let asking = Scripted { up, ..scene.handler("dns64") };
    let inner = Scripted { down, ..scene.handler("inner") };
    scene.block(".", vec![asking, inner]);
    let snapshot = scene.snapshot();
    let (parked, step) = scene.parked(&snapshot, &query("a.test."));
    let Step::Ask(question) = step else { panic!("{step:?}") };
    let further = scene.with_means(|means| parked.further(*question, means));
    let Further::Wait(further, Step::Exchange(..)) = further else { panic!("{further:?}") };
    assert_eq!(further.waiting().unwrap().deadline(), end);
}

#[test]
fn a_refresh_runs_below_the_handler_that_wished_for_it_and_ends_there() {
    let mut scene = Scene::new();
    let down: Down = Box::new(|query, response, context| {
        if context.clientless {
            return Flow::Next;
        }
        context.refresh = true;
        response.start(query, Rcode::NOERROR, 0, "cache");
        Flow::Answer
    });
    let cache = Scripted { down, ..scene.handler("cache") };
    let clients = Arc::new(Mutex::new(Vec::new()));
    let noted = clients.clone();
    let down: Down = Box::new(move |_, _, context| {
        noted.lock().unwrap().push((context.clientless, context.client.transport));
        Flow::Forward(exchange())
    });
    let forward = Scripted { down, ..scene.handler("forward") };
    scene.block(".", vec![scene.handler("log"), cache, forward]);
    let snapshot = scene.snapshot();
    assert_eq!(scene.rcode(&snapshot, &query("a.test.")), Some(Rcode::NOERROR));
    assert_eq!(scene.seen(), ["log down", "cache down", "log up NOERROR"]);

    let refresh = scene.refreshes.pop().unwrap();
    let (mut parked, step) =
        scene.with_means(|means| Parked::refreshing(&snapshot, refresh, means));
    assert!(matches!(step, Step::Exchange(..)));
    let result = exchanged("a.test.", Rcode::NOERROR);
    let step = scene.with_means(|means| parked.resume(means, &Event::Exchanged(&result)));
    assert!(matches!(step, Step::Done));
    assert_eq!(scene.seen(), ["forward down", "forward up NOERROR", "cache up NOERROR"]);
    assert_eq!(*clients.lock().unwrap(), [(true, Transport::Tcp)]);
}

#[test]
fn when_patience_ends_the_client_is_answered_and_the_exchange_goes_on_without_it() {
    let mut scene = Scene::new();
    let down: Down = Box::new(|_, _, context| {
        context.patience = Some(Duration::from_millis(20));
        *context.deadline = Some(Duration::from_secs(60));
        Flow::Next
    });
    let up: Up = Box::new(|query, response, context| {
        if context.late {
            response.start(query, Rcode::NOERROR, 0, "cache");
        }
        Turn::Up
    });
    let cache = Scripted { down, up, ..scene.handler("cache") };
    // A handler between changes the query, and takes it back on the way up by its note.
    let down: Down = Box::new(|query, _, context| {
        context.note = Some(Box::new(query.spelled_name().to_vec()));
        let other = name("b.test.");
        query.set_question(other.as_bytes(), RecordType::A, Class::IN);
        Flow::Next
    });
    let up: Up = Box::new(|query, _, context| {
        let note = context.note.take().unwrap().downcast::<Vec<u8>>().unwrap();
        query.set_question(&note, RecordType::A, Class::IN);
        Turn::Up
    });
    let rewrite = Scripted { down, up, ..scene.handler("rewrite") };
    scene.block(".", vec![scene.handler("log"), cache, rewrite, scene.forwarding("forward")]);
    let snapshot = scene.snapshot();
    let (mut parked, step) = scene.parked(&snapshot, &query("a.test."));
    assert!(matches!(step, Step::Exchange(_, Some(patience)) if patience.as_millis() == 20));
    scene.seen();

    assert!(parked.waiting().unwrap().deadline().is_some());
    let mut rest = parked.leave_behind().unwrap();
    assert_eq!(rest.waiting().unwrap().deadline(), None, "nobody waits for it");
    let step = scene.with_means(|means| parked.resume(means, &Event::Late));
    assert!(matches!(step, Step::Done));
    assert!(asks_at_last(&parked, "a.test."), "{parked:?}");
    assert_eq!(scene.seen(), ["cache up SERVFAIL late", "log up NOERROR"]);

    assert_eq!(kept_name(&rest), name("b.test."));
    let result = exchanged("b.test.", Rcode::NXDOMAIN);
    let step = scene.with_means(|means| rest.resume(means, &Event::Exchanged(&result)));
    assert!(matches!(step, Step::Done));
    assert!(asks_at_last(&rest, "a.test."), "{rest:?}");
    assert_eq!(scene.seen(), ["forward up NXDOMAIN", "rewrite up NXDOMAIN", "cache up NXDOMAIN"]);
}

#[test]
fn a_panic_costs_one_query_and_is_told() {
    let mut scene = Scene::new();
    let down: Down = Box::new(|query, _, _| match query.name() == &name("bad.test.") {
        true => panic!("the test says so"),
        false => Flow::Next,
    });
    let panicking = Scripted { down, ..scene.handler("broken") };
    scene.block(".", vec![panicking, scene.answering("inner")]);
    let snapshot = scene.snapshot();
    assert_eq!(scene.rcode(&snapshot, &query("bad.test.")), Some(Rcode::SERVFAIL));
    assert_eq!(scene.response.wire[..2], [0x12, 0x34]);
    assert_eq!(
        scene.journal.take(),
        [r#"[ERROR] Recovered from panic in server: "dns://127.0.0.1:53" the test says so"#]
    );
    assert!(scene.metrics.text().contains("coredns_panics_total 1\n"));
    assert_eq!(scene.rcode(&snapshot, &query("good.test.")), Some(Rcode::NOERROR));
}
