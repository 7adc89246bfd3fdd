//! Exchanges against a scripted upstream on the loopback, in one runtime with it.
//!
//! The scripts answer the names they know: `a.test.` at once, others as each test says.

mod https;
mod probes;
mod scripted;
mod streams;

use self::scripted::*;
use super::*;
use crate::dns::{Class, Name, Query, Rcode, RecordType, Transport};
use crate::net::tests::ports::free_port;
use crate::net::tests::sealing;
use crate::plugin::forward::{
    BUDGET, DohMethod, ExchangeFailure, Keeping, Options, Order, Policy, TlsFiles, TlsSettings,
    Upstream,
};
use rand::SeedableRng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::time::Instant;

/// Nothing but a mistake takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time that a query and each of its tries have where no time shall end one: more than
/// [`PATIENCE`], so that a mistake shows as what it is.
const AGES: Duration = Duration::from_secs(600);

/// One worker's way to upstreams with some options.
struct Asking {
    dispatcher: Dispatcher,
    upstreams: Arc<Upstreams>,
    metrics: Registry,
    /// The time of all tries of a query.
    budget: Duration,
    /// What its client takes, in octets, when it asks over UDP.
    udp_limit: Option<u16>,
}

impl Asking {
    fn new(all: Vec<Upstream>, options: Options) -> Asking {
        let metrics = Registry::new(1);
        Asking {
            dispatcher: Dispatcher::new(Shared::new(&metrics, 1), 0),
            upstreams: Arc::new(Upstreams { all, options, attached: OnceLock::new() }),
            metrics,
            budget: AGES,
            udp_limit: Some(512),
        }
    }

    /// Its queries have so much time.
    fn within(self, budget: Duration) -> Asking {
        Asking { budget, ..self }
    }

    /// Its client asks over TCP.
    fn for_tcp(self) -> Asking {
        Asking { udp_limit: None, ..self }
    }

    /// Waits until so many queries have been put on their way and have no answer.
    async fn until_under_way(&self, count: usize) {
        let under_way = || self.dispatcher.under_way.load(Ordering::Relaxed) == count;
        until(under_way, "that all are under way").await;
    }

    async fn ask_over(&self, name: &str, transport: Transport) -> Exchanged {
        let query = Query::new(&name.parse().unwrap(), RecordType::A, Class::IN);
        let options = &self.upstreams.options;
        let order =
            Order::new(options.policy, self.upstreams.all.len(), 1, &mut StdRng::seed_from_u64(1));
        let upstreams = self.upstreams.clone();
        let exchange = Exchange {
            upstreams,
            order,
            transport,
            udp_limit: self.udp_limit,
            budget: self.budget,
            keeps_tries: true,
            is_hasty: false,
        };
        let asked = super::Asked::new(query.wire().into(), 12 + query.question().len());
        self.dispatcher.exchange(&asked, &exchange).await
    }

    async fn udp(&self, name: &str) -> Result<u8, String> {
        outcome(&self.ask_over(name, Transport::Udp).await)
    }

    async fn tcp(&self, name: &str) -> Result<u8, String> {
        outcome(&self.ask_over(name, Transport::Tcp).await)
    }
}

/// The last octet of the answer, or the error.
fn outcome(exchanged: &Exchanged) -> Result<u8, String> {
    match &exchanged.outcome {
        Ok(message) => Ok(*message.last().unwrap()),
        Err(ExchangeFailure { text, .. }) => Err(text.to_string()),
    }
}

/// Sequential, and no try ends for want of time.
fn patient() -> Options {
    Options { policy: Policy::Sequential, read_timeout: AGES, ..Options::default() }
}

/// Sequential: a try ends without an answer, but not before one is read that is there.
fn impatient() -> Options {
    Options { read_timeout: Duration::from_secs(2), ..patient() }
}

/// A port of the loopback where nobody listens. It stays so: sockets have it, a datagram socket that
/// hears another one alone and one for streams that does not listen.
async fn closed_port() -> Upstream {
    let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let socket = UdpSocket::bind(address).await.unwrap();
    socket.connect(nobody.local_addr().unwrap()).await.unwrap();
    let stream = tokio::net::TcpSocket::new_v4().unwrap();
    stream.bind(address).unwrap();
    std::mem::forget((socket, stream));
    upstream(address)
}

#[tokio::test]
async fn source_address_is_where_queries_come_from() {
    let up = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 7)])).await;
    let source = Some(IpAddr::from([127, 0, 0, 7]));
    let options = Options { keeping: Keeping { source, ..Keeping::default() }, ..patient() };
    let asking = Asking::new(vec![up.upstream()], options);
    assert_eq!((asking.udp("a.test.").await, asking.tcp("b.test.").await), (Ok(7), Ok(7)));
    let asked = up.asked.lock().unwrap();
    let from: Vec<_> = asked.iter().map(|(_, _, from)| Some(from.ip())).collect();
    assert_eq!(from, [source, source]);
}

#[tokio::test]
async fn a_query_goes_out_as_it_is_under_new_ids_and_from_kept_sockets() {
    let up = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 7)])).await;
    let asking = Asking::new(vec![up.upstream()], patient());
    for _ in 0..20 {
        assert_eq!(asking.udp("a.test.").await, Ok(7));
    }
    let asked = up.asked.lock().unwrap();
    let expected = Query::new(&"a.test.".parse().unwrap(), RecordType::A, Class::IN);
    assert!(asked.iter().all(|(query, _, _)| query[2..] == expected.wire()[2..]));
    let ids: std::collections::HashSet<_> = asked.iter().map(|(query, _, _)| &query[..2]).collect();
    assert!(ids.len() >= 19, "{ids:?}");
    let ports: std::collections::HashSet<_> =
        asked.iter().map(|(_, _, from)| from.port()).collect();
    assert_eq!(ports.len(), 1);
}

#[tokio::test]
async fn a_socket_that_can_send_no_more_is_not_used_again() {
    let up = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 7)])).await;
    let asking = Asking::new(vec![up.upstream()], impatient());
    assert_eq!(asking.udp("a.test.").await, Ok(7));
    let peer = asking.dispatcher.shared.peers.lock().unwrap().values().next().unwrap().clone();
    let kept = peer.pool(Transport::Udp, 0).try_place(0, &asking.dispatcher.random);
    let Some(pool::Place::There(connection)) = kept else { panic!("no socket was kept") };
    // As one whose address the node has no more: each write fails.
    let socket = socket2::SockRef::from(connection.socket.get().unwrap());
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    for name in ["b.test.", "c.test."] {
        assert_eq!(asking.udp(name).await, Ok(7));
    }
    let from: Vec<_> = up.asked.lock().unwrap().iter().map(|(_, _, from)| from.port()).collect();
    assert!(from.len() == 3 && from[0] != from[1] && from[1] == from[2], "{from:?}");
}

#[tokio::test]
async fn a_response_with_a_wrong_id_or_question_is_waited_over() {
    let up = Scripted::start(|_, query, _| {
        let mut wrong_id = answer(query, 66);
        wrong_id[0] ^= 0x55;
        let mut wrong_name = answer(query, 67);
        wrong_name[13] ^= 1;
        let no_response = query.to_vec();
        Act::Send(vec![wrong_id, wrong_name, no_response, answer(query, 1)])
    })
    .await;
    let asking = Asking::new(vec![up.upstream()], patient());
    assert_eq!(asking.udp("a.test.").await, Ok(1));
    let line =
        format!("nodens_upstream_ignored_responses_total{{proto=\"udp\",to=\"{}\"}} 3", up.address);
    assert!(asking.metrics.text().contains(&line), "{}", asking.metrics.text());
}

#[tokio::test]
async fn messages_to_other_questions_alone_end_in_formerr() {
    let up = Scripted::start(|_, query, _| {
        let mut wrong_name = answer(query, 67);
        wrong_name[13] ^= 1;
        // Flags and opcode of such a message are worth as little as its question.
        wrong_name[2..4].copy_from_slice(&[0xe6, 0xbf]);
        Act::Send(vec![wrong_name])
    })
    .await;
    let asking = Asking::new(vec![up.upstream()], impatient()).within(BUDGET);
    for transport in [Transport::Udp, Transport::Tcp] {
        let exchanged = asking.ask_over("a.test.", transport).await;
        let response = exchanged.outcome.unwrap();
        assert_eq!(response[2..4], [0x81, Rcode::FORMERR.0 as u8]);
        assert_eq!(name_of(&response).to_string(), "a.test.");
    }
}

#[tokio::test]
async fn a_refused_port_makes_the_next_upstream_answer_at_once() {
    let up = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 2)])).await;
    let asking = Asking::new(vec![closed_port().await, up.upstream()], patient());
    for transport in [Transport::Udp, Transport::Tcp] {
        let exchanged = asking.ask_over("a.test.", transport).await;
        assert_eq!(outcome(&exchanged), Ok(2));
        assert_eq!(exchanged.upstream, Some(up.address));
        assert!(exchanged.took < PATIENCE, "{:?}", exchanged.took);
    }
}

#[tokio::test]
async fn while_thousands_wait_nobody_else_waits_for_an_upstream_to_come_back() {
    let asking = Asking::new(vec![closed_port().await], patient());
    asking.dispatcher.under_way.store(PATIENT_MOST, Ordering::Relaxed);
    let exchanged = asking.ask_over("a.test.", Transport::Tcp).await;
    assert!(outcome(&exchanged).unwrap_err().ends_with("connection refused"));
    assert!(exchanged.took < PATIENCE, "{:?}", exchanged.took);
    assert_eq!(asking.dispatcher.under_way.load(Ordering::Relaxed), PATIENT_MOST);
    // The first failure finds one less.
    asking.dispatcher.under_way.store(PATIENT_MOST - 1, Ordering::Relaxed);
    let asking = asking.within(BUDGET);
    let exchanged = asking.ask_over("b.test.", Transport::Tcp).await;
    // On a busy machine a pass may be so late that the next one would be behind its second.
    assert!(exchanged.took >= Duration::from_millis(700), "{:?}", exchanged.took);
}

#[tokio::test]
async fn errors_read_as_in_go() {
    let closed = closed_port().await;
    let to = closed.text.clone();
    let asking = Asking::new(vec![closed], patient());
    // Nobody waits for it to come back.
    asking.dispatcher.under_way.store(PATIENT_MOST, Ordering::Relaxed);
    let error = asking.udp("a.test.").await.unwrap_err();
    assert!(error.starts_with("read udp 127.0.0.1:"), "{error}");
    assert!(error.ends_with(&format!("->{to}: read: connection refused")), "{error}");
    let error = asking.tcp("a.test.").await.unwrap_err();
    assert_eq!(error, format!("dial tcp {to}: connect: connection refused"));

    let up = Scripted::start(|_, _, _| Act::Silence).await;
    let asking = Asking::new(vec![up.upstream()], impatient()).within(BUDGET);
    let behind_tls = sealed(Arc::new(|_, _, _| Act::Silence)).await;
    let sealed_off = upstream_over(Transport::Tls, "up.test", behind_tls);
    let over_tls = Asking::new(vec![sealed_off], impatient()).within(BUDGET);
    let (udp, tcp, tls) =
        tokio::join!(asking.udp("a.test."), asking.tcp("a.test."), over_tls.udp("a.test."));
    for (network, address, error) in
        [("udp", up.address, udp), ("tcp", up.address, tcp), ("tcp", behind_tls, tls)]
    {
        let error = error.unwrap_err();
        assert!(error.starts_with(&format!("read {network} 127.0.0.1:")), "{error}");
        assert!(error.ends_with(&format!("->{address}: i/o timeout")), "{error}");
    }
}

#[tokio::test]
async fn an_upstream_towards_which_no_socket_can_be_opened_is_told_at_once() {
    let nowhere = Upstream {
        text: "127.0.0.1:abc".to_owned(),
        port: Err("abc".to_owned()),
        ..upstream((Ipv4Addr::LOCALHOST, 0).into())
    };
    let asking = Asking::new(vec![nowhere], patient());
    // Nobody waits for it to come back.
    asking.dispatcher.under_way.store(PATIENT_MOST, Ordering::Relaxed);
    for (network, transport) in [("udp", Transport::Udp), ("tcp", Transport::Tcp)] {
        let asked = tokio::time::timeout(PATIENCE, asking.ask_over("a.test.", transport));
        let error = outcome(&asked.await.unwrap());
        assert_eq!(error, Err(format!("dial {network}: lookup {network}/abc: unknown port")));
    }
}

#[tokio::test]
async fn an_upstream_with_an_ipv6_address_is_asked_over_udp_and_tcp() {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, free_port()));
    let up = Scripted::start_at(address, |_, query, _| Act::Send(vec![answer(query, 6)])).await;
    let asking = Asking::new(vec![up.upstream()], Options { max_fails: 0, ..patient() });
    assert_eq!((asking.udp("a.test.").await, asking.tcp("a.test.").await), (Ok(6), Ok(6)));
}

#[tokio::test]
async fn a_silent_upstream_is_asked_twice_under_two_ids() {
    let up = Scripted::start(|_, _, _| Act::Silence).await;
    // Far less than a try takes that is not counted.
    let read_timeout = Duration::from_millis(150);
    let options = Options { max_fails: 0, read_timeout, ..patient() };
    let asking = Asking::new(vec![up.upstream()], options);
    let exchanged = asking.ask_over("a.test.", Transport::Udp).await;
    assert!(exchanged.outcome.is_err());
    assert!(exchanged.took >= 2 * read_timeout, "{:?}", exchanged.took);
    let asked = up.asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].0[..2], asked[1].0[..2]);
    assert_eq!(up.probes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_malformed_response_is_no_reason_for_a_storm() {
    let up = Scripted::start(|_, query, _| {
        let mut message = reply(query, 0x8180);
        message[7] = 1;
        message.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x14\0\x02\xc0\xff");
        Act::Send(vec![message])
    })
    .await;
    let asking = Asking::new(vec![up.upstream()], Options { max_fails: 0, ..patient() });
    assert!(asking.udp("a.test.").await.unwrap_err().starts_with("dns: "));
    assert_eq!(up.names().len(), 2);
}

#[tokio::test]
async fn prefer_udp_asks_again_over_tcp_when_truncated() {
    let up = Scripted::start(|_, query, transport| match transport {
        Transport::Udp => Act::Send(vec![reply(query, 0x8380)]),
        _ => Act::Send(vec![answer(query, 9)]),
    })
    .await;
    let asking = Asking::new(vec![up.upstream()], Options { prefer_udp: true, ..patient() });
    let exchanged = asking.ask_over("tc.test.", Transport::Udp).await;
    assert_eq!(outcome(&exchanged), Ok(9));
    // Who wants to know learns how the response came.
    let told: Vec<_> = exchanged.tried.iter().map(|tried| tried.transport).collect();
    assert_eq!(told, [Transport::Tcp]);
    let asked: Vec<_> = up.names().into_iter().map(|(_, transport)| transport).collect();
    assert_eq!(asked, [Transport::Udp, Transport::Tcp]);
    let (text, to) = (asking.metrics.text(), up.address);
    let line =
        format!("duration_seconds_count{{proxy_name=\"forward\",rcode=\"NOERROR\",to=\"{to}\"}} 2");
    assert!(text.contains(&line), "each is a request of its own: {text}");
}

#[tokio::test]
async fn prefer_udp_asks_over_tcp_once_and_only_behind_a_truncated_response() {
    for (flags, over) in [
        (0x8180, &[Transport::Udp][..]),
        // An upstream that truncates over TCP, too: there is no other way to ask it.
        (0x8380, &[Transport::Udp, Transport::Tcp]),
    ] {
        let up = Scripted::start(move |_, query, _| Act::Send(vec![reply(query, flags)])).await;
        let asking = Asking::new(vec![up.upstream()], Options { prefer_udp: true, ..patient() });
        let asked = tokio::time::timeout(PATIENCE, asking.ask_over("a.test.", Transport::Udp));
        let response = asked.await.unwrap().outcome.unwrap();
        assert_eq!(response[2..4], flags.to_be_bytes());
        let asked: Vec<_> = up.names().into_iter().map(|(_, transport)| transport).collect();
        assert_eq!(asked, over);
    }
}

#[tokio::test]
async fn when_tcp_fails_behind_prefer_udp_other_upstreams_are_asked_and_then_tc_is_told_over_udp() {
    let options = || Options { prefer_udp: true, max_fails: 0, ..patient() };
    let cutting = Scripted::start(|_, query, transport| match transport {
        Transport::Udp => Act::Send(vec![reply(query, 0x8380)]),
        _ => Act::Close,
    })
    .await;
    let whole = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 9)])).await;
    let both = Asking::new(vec![cutting.upstream(), whole.upstream()], options());
    assert_eq!(both.udp("a.test.").await, Ok(9));
    for udp_limit in [512, u16::MAX].map(Some) {
        let asking = Asking { udp_limit, ..Asking::new(vec![cutting.upstream()], options()) };
        let told = asking.ask_over("a.test.", Transport::Udp).await.outcome.unwrap();
        assert_eq!(told[2..4], [0x83, 0x80]);
    }
    let asking = Asking::new(vec![cutting.upstream()], options()).for_tcp();
    assert_eq!(asking.udp("a.test.").await, Err("EOF".into()));
}

#[tokio::test]
async fn an_oversized_datagram_becomes_an_empty_truncated_response() {
    let up = Scripted::start(|_, query, _| {
        let mut message = answer(query, 1);
        for _ in 0..40 {
            message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x14\0\x04\xc0\0\x02\x01");
        }
        message[7] = 41;
        Act::Send(vec![message])
    })
    .await;
    let asking = Asking::new(vec![up.upstream()], patient());
    let message = asking.ask_over("a.test.", Transport::Udp).await.outcome.unwrap();
    assert_eq!(message[2..12], [0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(name_of(&message).to_string(), "a.test.");
}

#[tokio::test]
async fn a_try_ends_with_the_time_of_its_query() {
    let silent = Scripted::start(|_, _, _| Act::Silence).await;
    let asking = Asking::new(vec![silent.upstream()], patient()).within(Duration::from_millis(50));
    let asked = tokio::time::timeout(PATIENCE, asking.udp("a.test."));
    assert!(asked.await.expect("it has no time of its own").is_err());
}

#[tokio::test]
async fn no_more_upstreams_are_remembered_than_have_room_but_none_that_is_in_use_is_forgotten() {
    let asking = Asking::new(vec![upstream(SocketAddr::from(([192, 0, 2, 1], 53)))], patient());
    let shared = &asking.dispatcher.shared;
    let first = |attached: &Arc<dyn Any + Send + Sync>| peers(attached)[0].clone();
    let in_use = shared.attach(&asking.upstreams);
    for port in 1000..1000 + 2 * REMEMBERED as u16 {
        let all = vec![upstream(SocketAddr::from(([192, 0, 2, 1], port)))];
        shared.attach(&Upstreams { all, options: patient(), attached: OnceLock::new() });
    }
    assert!(shared.peers.lock().unwrap().len() <= REMEMBERED);
    let again = shared.attach(&asking.upstreams);
    assert!(Arc::ptr_eq(&first(&in_use), &first(&again)), "its health and connections are there");
}

#[tokio::test]
async fn with_three_upstreams_two_silent_ones_leave_time_for_the_third() {
    let silent = Scripted::start(|_, _, _| Act::Silence).await;
    let mute = Scripted::start(|_, _, _| Act::Silence).await;
    let up = Scripted::start(|_, query, _| Act::Send(vec![answer(query, 3)])).await;
    let all = vec![silent.upstream(), mute.upstream(), up.upstream()];
    // A third for each: the last has time enough.
    let budget = 3 * BUDGET;
    let asking = Asking::new(all, patient()).within(budget);
    let exchanged = asking.ask_over("a.test.", Transport::Udp).await;
    assert_eq!(outcome(&exchanged), Ok(3));
    assert!(exchanged.took < budget);
    for one in [&silent, &mute] {
        let is_probed = || one.probes.load(Ordering::Relaxed) > 0;
        until(is_probed, "that a try which was given up is a failure").await;
    }
}

#[tokio::test]
async fn failover_takes_the_last_response_when_all_say_the_same() {
    let first = Scripted::start(|_, query, _| Act::Send(vec![reply(query, 0x8182)])).await;
    let second = Scripted::start(|_, query, _| Act::Send(vec![reply(query, 0x8182)])).await;
    let options = Options { failover: vec![Rcode::SERVFAIL], ..patient() };
    let asking = Asking::new(vec![first.upstream(), second.upstream()], options);
    let message = asking.ask_over("a.test.", Transport::Udp).await.outcome.unwrap();
    assert_eq!(message[3], 0x82);
    assert_eq!((first.names().len(), second.names().len()), (1, 1));
}

/// An upstream behind TLS, for up.test, that does what the script says.
async fn sealed(script: Script) -> SocketAddr {
    sealed_at((Ipv4Addr::LOCALHOST, 0).into(), script).await
}

/// The same at an address of one's own.
async fn sealed_at(address: SocketAddr, script: Script) -> SocketAddr {
    let acceptor = tokio_rustls::TlsAcceptor::from(sealing(&[]));
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, from)) = listener.accept().await {
            let (acceptor, script) = (acceptor.clone(), script.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let (_, going) = watch::channel(true);
                serve(stream, from, script, Arc::default(), Arc::default(), going).await;
            });
        }
    });
    address
}

/// The upstream at `address`, which is asked for under this name inside TLS.
fn upstream_over(over: Transport, name: &str, address: SocketAddr) -> Upstream {
    let files = |_: &str| Ok(include_bytes!("../testdata/ca.pem").to_vec());
    let settings = TlsSettings {
        over,
        server_name: Some(name.to_owned()),
        method: DohMethod::default(),
        files: Arc::new(TlsFiles::read(&["/ca.pem"], files).unwrap()),
    };
    Upstream { tls: Some(Arc::new(settings)), ..upstream(address) }
}

#[tokio::test]
async fn tls_checks_the_name_that_the_directive_gives() {
    let address = sealed(Arc::new(|_, query, _| Act::Send(vec![answer(query, 5)]))).await;
    for (name, expected) in [("up.test", Ok(5)), ("other.test", Err(()))] {
        let upstream = upstream_over(Transport::Tls, name, address);
        let asking = Asking::new(vec![upstream], Options { max_fails: 0, ..patient() });
        let exchanged = asking.ask_over("a.test.", Transport::Udp).await;
        assert!(exchanged.tried.iter().all(|tried| tried.transport == Transport::Tls));
        let result = outcome(&exchanged);
        assert_eq!(result.clone().map_err(|_| ()), expected);
        if let Err(error) = result {
            assert!(
                error.contains("x509: certificate is valid for up.test, not other.test"),
                "{error}"
            );
        }
    }
    let upstream = upstream_over(Transport::Https, "other.test", address);
    let asking = Asking::new(vec![upstream], Options { max_fails: 0, ..patient() });
    let error = asking.udp("a.test.").await.unwrap_err();
    assert!(error.contains("valid for up.test, not other.test"), "{error}");
}
