//! Passes of a query that waits, is asked again, or goes on without its client.

use super::*;

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
