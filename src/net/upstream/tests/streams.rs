//! Kept connections: reuse, death, age, bounds.

use super::super::pace::SLOW_ANYWHERE;
use super::*;

/// Answers every query but that for `s.test.`
async fn silent_to_one() -> Scripted {
    Scripted::start(|name, query, _| match name.to_string().as_str() {
        "s.test." => Act::Silence,
        _ => Act::Send(vec![answer(query, 1)]),
    })
    .await
}

#[tokio::test]
async fn a_kept_stream_serves_query_after_query() {
    let up = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 1)])).await;
    let asking = Asking::new(vec![up.upstream()], patient());
    for _ in 0..6 {
        assert_eq!(asking.tcp("a.test.").await, Ok(1));
    }
    assert_eq!(up.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_dead_kept_stream_costs_the_query_no_failure() {
    let up = Scripted::start(|_, query, _| Act::SendAndClose(answer(query, 1))).await;
    let asking = Asking::new(vec![up.upstream()], patient());
    for _ in 0..5 {
        // Whether the end of the stream was noticed before or is met by the query.
        assert_eq!(asking.tcp("a.test.").await, Ok(1));
    }
    let up = Scripted::start({
        let seen = AtomicUsize::new(0);
        move |name, query, _| match name.to_string().as_str() {
            "c.test." if seen.fetch_add(1, Ordering::Relaxed) == 0 => Act::Close,
            _ => Act::Send(vec![answer(query, 1)]),
        }
    })
    .await;
    let options = Options { max_connect_attempts: 1, ..patient() };
    let asking = Asking::new(vec![up.upstream()], options);
    assert_eq!(asking.tcp("warm.test.").await, Ok(1));
    assert_eq!(asking.tcp("c.test.").await, Ok(1));
    assert_eq!(up.probes.load(Ordering::Relaxed), 0, "a dead kept stream is no failure");
}

#[tokio::test]
async fn queries_behind_one_another_survive_the_end_of_their_stream() {
    // Every stream ends after its first response.
    let up = Scripted::start(|_, query, _| Act::SendAndClose(answer(query, 1))).await;
    let options = Options { max_fails: 0, ..patient() };
    let asking = Arc::new(Asking::new(vec![up.upstream()], options));
    let count = limits::STREAMS.connections * 3 / 2;
    assert_eq!(flood(&asking, count, Transport::Tcp).await, count);
}

#[tokio::test]
async fn a_stream_s_answer_to_another_question_is_formerr_at_once() {
    let up = Scripted::start(|name, query, _| {
        let mut wrong_id = answer(query, 66);
        wrong_id[0] ^= 0x55;
        let mut other = match name.to_string().as_str() {
            "query.test." => query.to_vec(),
            _ => answer(query, 67),
        };
        if other != query {
            other[13] ^= 1;
        }
        Act::Send(vec![wrong_id, other])
    })
    .await;
    let asking = Asking::new(vec![up.upstream()], patient());
    for name in ["a.test.", "query.test."] {
        let exchanged = asking.ask_over(name, Transport::Tcp).await;
        let response = exchanged.outcome.unwrap();
        assert_eq!(response[2..4], [0x81, Rcode::FORMERR.0 as u8]);
        assert_eq!(name_of(&response).to_string(), name);
        assert!(exchanged.took < PATIENCE, "{:?}", exchanged.took);
    }
    assert_eq!(up.accepted.load(Ordering::Relaxed), 1, "the stream is kept");
    let (text, to) = (asking.metrics.text(), up.address);
    let line =
        format!("duration_seconds_count{{proxy_name=\"forward\",rcode=\"NOERROR\",to=\"{to}\"}} 2");
    assert!(text.contains(&line), "counted by what the upstream said: {text}");
}

#[tokio::test]
async fn behind_a_query_that_was_given_up_other_questions_are_waited_over() {
    let up = Scripted::start(|name, query, _| match name.to_string().as_str() {
        // Nobody's id: not silent, but no answer.
        "s.test." => {
            let mut strange = answer(query, 66);
            strange[0] ^= 0x55;
            Act::Send(vec![strange])
        }
        _ => {
            let mut other = answer(query, 67);
            other[13] ^= 1;
            Act::Send(vec![other, answer(query, 1)])
        }
    })
    .await;
    let options = Options { max_connect_attempts: 1, max_fails: 0, ..impatient() };
    let asking = Asking::new(vec![up.upstream()], options);
    assert!(asking.tcp("s.test.").await.is_err());
    assert_eq!(asking.tcp("a.test.").await, Ok(1));
    assert_eq!(up.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_message_without_a_header_ends_its_stream() {
    let up = Scripted::start(|name, query, _| match name.to_string().as_str() {
        "short.test." => Act::Send(vec![query[..11].to_vec()]),
        _ => Act::Send(vec![answer(query, 1)]),
    })
    .await;
    let options = Options { max_connect_attempts: 1, max_fails: 0, ..patient() };
    let asking = Asking::new(vec![up.upstream()], options);
    assert_eq!(asking.tcp("short.test.").await.unwrap_err(), "dns: short read");
    assert_eq!(asking.tcp("a.test.").await, Ok(1));
}

#[tokio::test]
async fn a_silent_stream_is_replaced() {
    let up = silent_to_one().await;
    let options = Options { max_connect_attempts: 1, max_fails: 0, ..impatient() };
    let asking = Asking::new(vec![up.upstream()], options);
    assert_eq!(asking.tcp("a.test.").await, Ok(1));
    assert!(asking.tcp("s.test.").await.is_err());
    assert_eq!(asking.tcp("a.test.").await, Ok(1));
    assert_eq!(up.accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_stream_that_never_said_anything_is_replaced_too() {
    let up = silent_to_one().await;
    let options = Options { max_connect_attempts: 1, max_fails: 0, ..impatient() };
    let asking = Asking::new(vec![up.upstream()], options);
    assert!(asking.tcp("s.test.").await.is_err());
    assert_eq!(asking.tcp("a.test.").await, Ok(1));
    assert_eq!(up.accepted.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_slow_query_keeps_its_stream_while_others_are_answered() {
    let up = Scripted::start(|_, query, _| Act::Held(answer(query, 1))).await;
    let asking = Arc::new(Asking::new(vec![up.upstream()], patient()));
    // Twice as many as there are connections, so that some are one behind another.
    let count = 2 * limits::STREAMS.connections;
    let answered = tokio::spawn({
        let asking = asking.clone();
        async move { flood(&asking, count, Transport::Tcp).await }
    });
    asking.until_under_way(count).await;
    // What each connection brings first is there; the others are behind.
    up.until_asked(limits::STREAMS.connections).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    up.let_go();
    assert_eq!(answered.await.unwrap(), count);
    assert_eq!(up.left.load(Ordering::Relaxed), 0, "none was given up");
    let opened = up.accepted.load(Ordering::Relaxed);
    // More than usual where the machine was so slow that half of them seemed to be stuck.
    assert!((limits::STREAMS.connections..=limits::STREAMS.strained).contains(&opened), "{opened}");
}

#[tokio::test]
async fn idle_connections_expire_and_none_outlives_its_age() {
    let up = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 1)])).await;
    let mut options = patient();
    options.keeping.expire = Duration::from_millis(50);
    let asking = Asking::new(vec![up.upstream()], options);
    assert_eq!(asking.tcp("a.test.").await, Ok(1));
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(asking.tcp("a.test.").await, Ok(1));
    assert_eq!(up.accepted.load(Ordering::Relaxed), 2);

    let mut options = patient();
    let age = Duration::from_millis(100);
    options.keeping.max_age = Some(age);
    let asking = Asking::new(vec![up.upstream()], options);
    let before = up.accepted.load(Ordering::Relaxed);
    let began = Instant::now();
    for _ in 0..15 {
        assert_eq!(asking.tcp("a.test.").await, Ok(1));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let opened = up.accepted.load(Ordering::Relaxed) - before;
    let most = began.elapsed().as_millis() / age.as_millis() + 2;
    assert!((2..=most).contains(&(opened as u128)), "{opened} of {most}");
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_the_directive_says() {
    let up = Scripted::start(|_, query, _| Act::Held(answer(query, 1))).await;
    for (most, kept) in [(0, limits::STREAMS.connections), (3, 3)] {
        let before = up.accepted.load(Ordering::Relaxed);
        let mut options = patient();
        options.keeping.max_idle = most;
        let asking = Arc::new(Asking::new(vec![up.upstream()], options));
        let count = limits::STREAMS.connections;
        // As many at once again: what was kept serves, the rest is opened anew.
        for _ in 0..2 {
            up.hold();
            let answered = tokio::spawn({
                let asking = asking.clone();
                async move { flood(&asking, count, Transport::Tcp).await }
            });
            asking.until_under_way(count).await;
            up.let_go();
            assert_eq!(answered.await.unwrap(), count);
        }
        let opened = up.accepted.load(Ordering::Relaxed) - before;
        assert_eq!(opened, 2 * count - kept, "of {most}");
    }
}

#[tokio::test]
async fn a_silent_upstream_under_a_flood_holds_a_bounded_number_of_sockets() {
    let up = Scripted::start(|_, _, _| Act::Silence).await;
    // Long enough for all of them to be asked at a time.
    let read_timeout = Duration::from_secs(2);
    let options =
        Options { max_connect_attempts: 1, max_fails: 0, read_timeout, ..Options::default() };
    let asking = Arc::new(Asking::new(vec![up.upstream()], options));
    let mut all = tokio::task::JoinSet::new();
    for number in 0..20_000 {
        let asking = asking.clone();
        all.spawn(async move { asking.udp(&format!("q{number}.test.")).await.unwrap_err() });
    }
    let errors = all.join_all().await;
    assert_eq!(errors.len(), 20_000);
    let ports: std::collections::HashSet<u16> =
        up.asked.lock().unwrap().iter().map(|(_, _, from)| from.port()).collect();
    assert!(ports.len() <= 4 * limits::DATAGRAMS.connections, "{}", ports.len());
}

#[tokio::test]
async fn queries_over_tcp_do_not_wait_for_one_another() {
    let up = Scripted::start(|_, query, _| Act::Held(answer(query, 1))).await;
    let asking = Arc::new(Asking::new(vec![up.upstream()], patient()));
    let answered = tokio::spawn(async move { flood(&asking, 30, Transport::Tcp).await });
    // None has an answer, and the upstream has read them all.
    up.until_asked(30).await;
    up.let_go();
    assert_eq!(answered.await.unwrap(), 30);
}

#[tokio::test]
async fn thousands_of_queries_in_flight_share_a_bounded_number_of_connections() {
    let up = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 1)])).await;
    let asking = Arc::new(Asking::new(vec![up.upstream()], patient()));
    assert_eq!(flood(&asking, 5000, Transport::Tcp).await, 5000);
    // On a machine that is too busy to read them, answers may seem to be slow.
    let accepted = up.accepted.load(Ordering::Relaxed);
    assert!(accepted <= limits::STREAMS.strained, "{accepted}");
}

/// Asks for these names; how each ended.
async fn ask_each(
    asking: &Arc<Asking>,
    names: impl Iterator<Item = String>,
) -> Vec<Result<u8, String>> {
    let mut all = tokio::task::JoinSet::new();
    for name in names {
        let asking = asking.clone();
        all.spawn(async move { asking.tcp(&name).await });
    }
    all.join_all().await
}

#[tokio::test]
async fn an_upstream_that_becomes_slow_keeps_no_query_waiting_for_others() {
    const SLOW: usize = 12;
    let up = Scripted::start(|name, query, _| match name.to_string().starts_with('s') {
        true => Act::Held(answer(query, 2)),
        false => Act::Send(vec![answer(query, 1)]),
    })
    .await;
    let asking = Arc::new(Asking::new(vec![up.upstream()], Options { max_fails: 0, ..patient() }));
    // It is always fast: queries begin to share connections.
    for _ in 0..3300 {
        assert_eq!(asking.tcp("a.test.").await, Ok(1));
    }
    let before = up.names().len();
    let mut all = tokio::task::JoinSet::new();
    for number in 0..SLOW {
        let asking = asking.clone();
        all.spawn(async move { asking.tcp(&format!("s{number}.test.")).await });
        // After the longest time that is taken for fast, wherever the upstream is.
        tokio::time::sleep(SLOW_ANYWHERE + Duration::from_millis(10)).await;
    }
    // None has an answer, and the upstream has read them all.
    up.until_asked(before + SLOW).await;
    up.let_go();
    assert_eq!(all.join_all().await, vec![Ok(2); SLOW]);
}

#[tokio::test]
async fn where_every_answer_takes_long_there_are_more_connections() {
    let up = Scripted::start(|_, query, _| Act::Held(answer(query, 1))).await;
    let asking = Arc::new(Asking::new(vec![up.upstream()], Options { max_fails: 0, ..patient() }));
    let usual = limits::STREAMS.connections;
    let many = |count| {
        let asking = asking.clone();
        tokio::spawn(async move { flood(&asking, count, Transport::Tcp).await })
    };
    let first = many(usual);
    asking.until_under_way(usual).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = many(30);
    // None has an answer, and the upstream has read them all.
    up.until_asked(usual + 30).await;
    up.let_go();
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (usual, 30));
    assert_eq!(up.accepted.load(Ordering::Relaxed), usual + 30);
}

#[tokio::test]
async fn an_upstream_that_is_away_for_a_moment_answers_whoever_waited() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let asking = Arc::new(Asking::new(vec![upstream(address)], impatient()));
        let waiting = tokio::spawn({
            let asking = asking.clone();
            async move { outcome(&asking.ask_over("a.test.", transport).await) }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!waiting.is_finished());
        let script = |_: &Name, query: &[u8], _| Act::Send(vec![answer(query, 1)]);
        let _up = Scripted::start_at(address, script).await;
        assert_eq!(waiting.await.unwrap(), Ok(1));
    }
}

#[tokio::test]
async fn an_upstream_behind_tls_that_is_away_for_a_moment_answers_whoever_waited() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let upstream = upstream_over(Transport::Tls, "up.test", address);
    let asking = Arc::new(Asking::new(vec![upstream], impatient()));
    let waiting = tokio::spawn({
        let asking = asking.clone();
        async move { asking.udp("a.test.").await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    sealed_at(address, Arc::new(|_, query, _| Act::Send(vec![answer(query, 1)]))).await;
    assert_eq!(waiting.await.unwrap(), Ok(1));
}

#[tokio::test]
async fn an_upstream_that_hangs_up_for_a_moment_answers_whoever_waited() {
    let asked = AtomicUsize::new(0);
    let up = Scripted::start(move |_, query, _| match asked.fetch_add(1, Ordering::Relaxed) {
        0..3 => Act::Close,
        _ => Act::Send(vec![answer(query, 1)]),
    })
    .await;
    let asking = Asking::new(vec![up.upstream()], Options { max_fails: 0, ..impatient() });
    assert_eq!(asking.tcp("a.test.").await, Ok(1));
    assert_eq!(up.accepted.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn who_waits_for_an_upstream_that_refuses_shares_its_dials() {
    let (queries, tries) = (200, 4);
    let options = Options { max_connect_attempts: tries, max_fails: 0, ..Options::default() };
    let asking = Arc::new(Asking::new(vec![closed_port().await], options));
    let names = (0..queries).map(|number| format!("q{number}.test."));
    let all = ask_each(&asking, names).await;
    assert_eq!(all.len(), queries);
    for outcome in &all {
        assert!(outcome.as_ref().unwrap_err().ends_with("connect: connection refused"), "{all:?}");
    }
    let text = asking.metrics.text();
    let dials =
        text.lines().filter(|line| line.starts_with("coredns_proxy_conn_cache_misses_total{"));
    let dials: f64 = dials.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    // Of a first try each may have one, before anybody knows.
    assert!(dials >= 4.0 && dials < 2.0 * queries as f64, "{dials} dials\n{text}");
}

#[tokio::test]
async fn a_stream_that_dies_in_silence_takes_those_along_that_were_idle_meanwhile() {
    let up = Scripted::start(|name, query, _| match name.to_string().as_str() {
        "s.test." => Act::Silence,
        _ => Act::Held(answer(query, 1)),
    })
    .await;
    let options = Options { max_connect_attempts: 1, max_fails: 0, ..impatient() };
    let asking = Arc::new(Asking::new(vec![up.upstream()], options));
    let answered = tokio::spawn({
        let asking = asking.clone();
        async move { flood(&asking, 3, Transport::Tcp).await }
    });
    up.until_asked(3).await;
    up.let_go();
    assert_eq!(answered.await.unwrap(), 3);
    assert_eq!(up.accepted.load(Ordering::Relaxed), 3);
    assert!(asking.tcp("s.test.").await.is_err());
    assert_eq!(asking.tcp("a.test.").await, Ok(1));
    assert_eq!(up.accepted.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_stream_that_was_opened_for_another_query_is_no_failure_of_those_behind() {
    let usual = limits::STREAMS.connections;
    let number = |name: &Name| -> usize {
        name.to_string().trim_matches(|other: char| !other.is_ascii_digit()).parse().unwrap_or(0)
    };
    let up = Scripted::start(move |name, query, _| match number(name) < usual {
        true => Act::Close,
        false => Act::Send(vec![answer(query, 1)]),
    })
    .await;
    let options = Options { max_connect_attempts: 1, max_fails: 0, ..patient() };
    let asking = Arc::new(Asking::new(vec![up.upstream()], options));
    let names = (0..usual + 8).map(|number| format!("q{number}.test."));
    let all = ask_each(&asking, names).await;
    assert_eq!(all.iter().filter(|outcome| **outcome == Ok(1)).count(), 8, "{all:?}");
}

/// Asks many at once; the number of answers.
async fn flood(asking: &Arc<Asking>, count: usize, transport: Transport) -> usize {
    let mut all = tokio::task::JoinSet::new();
    for number in 0..count {
        let asking = asking.clone();
        all.spawn(async move {
            let exchanged = asking.ask_over(&format!("q{number}.test."), transport).await;
            if let Err(failure) = &exchanged.outcome {
                panic!("{}", failure.text);
            }
        });
    }
    all.join_all().await.len()
}
