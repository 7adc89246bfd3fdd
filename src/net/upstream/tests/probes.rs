//! Probes: who is down, who is asked again, and for how long.

use super::*;
use std::sync::atomic::AtomicBool;
use tokio::runtime::Handle;

/// An upstream that ends each stream without a word until it is well, and who asks it.
async fn unwell() -> (Scripted, Arc<AtomicBool>, Asking) {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = is_well.clone();
    let up = Scripted::start(move |_, query, _| match well.load(Ordering::Relaxed) {
        true => Act::Send(vec![answer(query, 1)]),
        false => Act::Close,
    })
    .await;
    let mut options = Options { force_tcp: true, max_fails: 1, ..patient() };
    options.probe.interval = Duration::from_millis(10);
    let asking = Asking::new(vec![up.upstream()], options);
    (up, is_well, asking)
}

#[tokio::test]
async fn failed_probes_make_an_upstream_down_and_an_answered_one_up() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = is_well.clone();
    let up = Scripted::start(move |_, query, _| {
        if well.load(Ordering::Relaxed) {
            // Any header will do as an answer to a probe.
            Act::Send(vec![if name_of(query).is_root() {
                reply(query, 0x8105)
            } else {
                answer(query, 1)
            }])
        } else {
            Act::Silence
        }
    })
    .await;
    let other = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 2)])).await;
    let mut options = impatient();
    options.max_fails = 1;
    options.probe.interval = Duration::from_millis(100);
    let asking = Asking::new(vec![up.upstream(), other.upstream()], options);
    assert_eq!(asking.udp("a.test.").await, Ok(2), "after a try of the first");
    let before = up.names().len();
    until(|| up.probes.load(Ordering::Relaxed) >= 3, "that it is probed").await;
    let exchanged = asking.ask_over("a.test.", Transport::Udp).await;
    assert_eq!(outcome(&exchanged), Ok(2));
    assert_eq!(up.names().len(), before, "one that is down is not asked");
    is_well.store(true, Ordering::Relaxed);
    // It is up once the answer to a probe is taken.
    let end = Instant::now() + PATIENCE;
    while asking.udp("a.test.").await != Ok(1) {
        assert!(Instant::now() < end, "it stays down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_that_came_back_is_probed_again_when_it_fails_anew() {
    let (up, is_well, asking) = unwell().await;
    let counted = |name: &str| {
        let text = asking.metrics.text();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    for round in 1..=2 {
        is_well.store(false, Ordering::Relaxed);
        let probed = up.probes.load(Ordering::Relaxed);
        assert!(asking.tcp("a.test.").await.is_err());
        until(|| up.probes.load(Ordering::Relaxed) >= probed + 3, "that it is probed").await;
        // All are down: one is tried by chance.
        let broken = counted("coredns_forward_healthcheck_broken_total");
        assert!(asking.tcp("a.test.").await.is_err());
        assert_eq!(counted("coredns_forward_healthcheck_broken_total"), broken + 1);
        assert!(counted("coredns_proxy_healthcheck_failures_total") >= 2 * round);
        is_well.store(true, Ordering::Relaxed);
        let answers = || asking.dispatcher.shared.answers(&asking.upstreams);
        until(answers, "that it is up").await;
        assert_eq!(asking.tcp("a.test.").await, Ok(1));
    }
}

#[tokio::test]
async fn one_that_did_not_answer_when_it_was_first_greeted_is_greeted_again() {
    let (up, is_well, asking) = unwell().await;
    let answers = || asking.dispatcher.shared.answers(&asking.upstreams);
    assert!(!answers());
    until(|| up.probes.load(Ordering::Relaxed) > 0, "that it is greeted").await;
    is_well.store(true, Ordering::Relaxed);
    until(answers, "that it is heard").await;
}

#[tokio::test]
async fn nobody_is_probed_for_a_corefile_that_is_gone() {
    let mut options = Options { force_tcp: true, max_fails: 1, ..patient() };
    options.probe.interval = Duration::from_millis(10);
    let asking = Asking::new(vec![closed_port().await], options).within(Duration::from_millis(50));
    assert!(asking.tcp("a.test.").await.is_err());
    let Asking { dispatcher, upstreams, .. } = asking;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    assert!(tasks() > 0, "it is probed");
    drop(upstreams);
    until(|| tasks() == 0, "that nobody probes").await;
    drop(dispatcher);
}
