//! What becomes of a message that arrives, when nothing has to be waited for.

use super::*;

/// A query with an OPT record of this version.
fn query_with_edns(version: u8) -> Vec<u8> {
    let mut message = query("a.test.");
    message[11] = 1;
    message.extend_from_slice(&[0, 0, 41, 4, 208, 0, version, 0, 0, 0, 0]);
    message
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
    let message = query_with_edns(0);
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
    let message = query_with_edns(1);
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
