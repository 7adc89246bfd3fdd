//! `quic://` server blocks, asked by quinn: who goes when there are more connections than may be, and what
//! becomes of queries when all go.

use super::tls::client;
use super::*;
use crate::metrics::names;
use crate::net::tcp::{OCTETS_LEAST, QUIC_OCTETS};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use tokio::runtime::{Builder, Runtime};

const CERTIFICATE: &str = "tls /up.pem /up.key";

/// As many connections as the least memory has room for.
const MOST: usize = (OCTETS_LEAST / QUIC_OCTETS) as usize;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A server that has room for [`MOST`] connections, and for some queries that wait.
fn scarce(corefile: &str) -> (Running, Arc<Budget>) {
    let budget = Arc::new(Budget::new(Some(1 << 18)));
    assert!(budget.connections.most() < OCTETS_LEAST);
    (Running::start_within(corefile, 1, budget.clone()), budget)
}

/// A client's socket at an address.
fn endpoint(host: &str) -> Endpoint {
    let mut tls = client(None);
    tls.alpn_protocols = vec![b"doq".to_vec()];
    let tls = QuicClientConfig::try_from(Arc::new(tls)).unwrap();
    let mut endpoint = Endpoint::client(format!("{host}:0").parse().unwrap()).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
    endpoint
}

/// A connection from an address.
async fn connect(server: &Running, host: &str) -> Result<Connection, ConnectionError> {
    let connecting = endpoint(host).connect(server.address(), "up.test").unwrap();
    tokio::time::timeout(PATIENCE, connecting).await.unwrap()
}

/// Asks over a stream of its own; the end of the reply is still to be read.
async fn begin(connection: &Connection, name: &str) -> quinn::RecvStream {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send.write_all(&framed(&query(name, 0))).await.unwrap();
    send.finish().unwrap();
    receive
}

/// The last octet of the reply to a question for a.test's address. That it has come, the server hears at once:
/// with a stream that is given up, and not up to 25 ms later (RFC 9000 §13.2.1), until when the connection is busy.
async fn ask(connection: &Connection) -> Option<u8> {
    let reply = begin(connection, "a.test.").await.read_to_end(1 << 16).await.unwrap();
    let (mut given_up, _) = connection.open_bi().await.unwrap();
    given_up.reset(0_u32.into()).unwrap();
    last_octet(&reply[2..])
}

/// Waits for the end that the server gives a connection; the code that it gives it with.
async fn code_of_end(connection: &Connection) -> u64 {
    match tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[test]
fn of_quic_connections_the_one_idle_for_longest_makes_room() {
    let (server, budget) = scarce(&answering("quic://.:0", 9, CERTIFICATE));
    runtime().block_on(async {
        let mut open = Vec::new();
        for number in 0..MOST + 2 {
            open.push(connect(&server, "127.0.0.1").await.unwrap());
            assert_eq!(ask(&open[number]).await, Some(9));
        }
        // DOQ_EXCESSIVE_LOAD (RFC 9250 §4.3).
        assert_eq!(code_of_end(&open[0]).await, 4);
        assert_eq!(code_of_end(&open[1]).await, 4);
        for stays in &open[2..] {
            assert_eq!(ask(stays).await, Some(9));
        }
        assert_eq!(budget.connections.used(), MOST as u64 * QUIC_OCTETS);
    });
    let metrics = server.equipment.metrics.text();
    assert!(metrics.contains("\nnodens_tcp_connections_evicted_total 2\n"));
    assert!(metrics.contains("\nnodens_tcp_connections_refused_total 0\n"));
    server.stop();
    assert_eq!(budget.connections.used(), 0);
}

#[test]
fn busy_quic_connections_are_those_of_whoever_has_most_before_another_client_is_refused() {
    let mut upstream = Held::start();
    let port = upstream.port();
    let (server, _) = scarce(&format!(
        "quic://.:0 {{\nbind 127.0.0.1\n{CERTIFICATE}\nforward . 127.0.0.1:{port}\n}}\n"
    ));
    runtime().block_on(async {
        let (mut open, mut waiting) = (Vec::new(), Vec::new());
        for number in 0..MOST {
            open.push(connect(&server, "127.0.0.1").await.unwrap());
            waiting.push(begin(&open[number], "a.test.").await);
        }
        wait_until_parked(&server, MOST);
        upstream.until_asked();
        let refused = connect(&server, "127.0.0.1").await;
        assert!(refused.is_err(), "it has all of them already");
        let other = connect(&server, "127.0.0.2").await.unwrap();
        assert_eq!(code_of_end(&open[0]).await, 4);
        assert!(open[1].close_reason().is_none() && other.close_reason().is_none());
    });
    upstream.answer();
    server.stop();
}

#[test]
fn who_does_not_show_that_its_address_is_its_own_takes_no_place_of_another() {
    let (server, _) = scarce(&answering("quic://.:0", 9, CERTIFICATE));
    let address = server.address();
    runtime().block_on(async {
        let mut open = Vec::new();
        for _ in 0..MOST {
            open.push(connect(&server, "127.0.0.1").await.unwrap());
        }
        // Its first packets go on their way, and it takes no part in what follows.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        let relay = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        relay.set_read_timeout(Some(PATIENCE)).unwrap();
        let own = endpoint("127.0.0.1");
        let connecting = own.connect(relay.local_addr().unwrap(), "up.test").unwrap();
        let mut packet = [0; 2048];
        let (packet, length) = tokio::task::spawn_blocking(move || {
            let length = relay.recv(&mut packet).unwrap();
            (packet, length)
        })
        .await
        .unwrap();
        silent.send_to(&packet[..length], address).unwrap();
        let mut answer = [0; 2048];
        silent.recv(&mut answer).unwrap();
        // A Retry packet of QUIC version 1 (RFC 9000 §17.2.5).
        assert_eq!(answer[0] & 0xf0, 0xf0);
        assert_eq!(answer[1..5], [0, 0, 0, 1]);
        drop(connecting);
        for stays in &open {
            assert_eq!(ask(stays).await, Some(9));
        }
    });
    server.stop();
}

#[test]
fn a_query_over_quic_may_be_as_long_as_a_message_can() {
    let server = Running::start(&answering("quic://.:0", 9, CERTIFICATE), 1);
    let mut long = query("a.test.", 0);
    // An OPT with as much padding (RFC 7830) as there is room for.
    long[11] = 1;
    let padding = u16::MAX - (long.len() + 15) as u16;
    long.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    long.extend((padding + 4).to_be_bytes());
    long.extend([0, 12]);
    long.extend(padding.to_be_bytes());
    long.resize(usize::from(u16::MAX), 0);
    runtime().block_on(async {
        let connection = connect(&server, "127.0.0.1").await.unwrap();
        let asked: Vec<_> = (0..4)
            .map(|_| {
                let (connection, octets) = (connection.clone(), framed(&long));
                tokio::spawn(async move {
                    let (mut send, mut receive) = connection.open_bi().await.unwrap();
                    send.write_all(&octets).await.unwrap();
                    send.finish().unwrap();
                    receive.read_to_end(1 << 17).await.unwrap()
                })
            })
            .collect();
        for reply in asked {
            let reply = tokio::time::timeout(PATIENCE, reply).await.unwrap().unwrap();
            assert_eq!(reply[5] & 15, 0, "NOERROR");
        }
    });
    server.stop();
}

#[test]
fn responses_over_quic_are_counted_by_their_code() {
    let server = Running::start(&answering("quic://.:0", 9, CERTIFICATE), 1);
    runtime().block_on(async {
        let connection = connect(&server, "127.0.0.1").await.unwrap();
        assert_eq!(ask(&connection).await, Some(9));
        // A response: nobody answers it.
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let mut response = query("a.test.", 0);
        response[2] |= 0x80;
        send.write_all(&framed(&response)).await.unwrap();
        send.finish().unwrap();
        receive.read_to_end(1 << 16).await.unwrap_err();
        // An id (RFC 9250 §4.2.1).
        let (mut send, _) = connection.open_bi().await.unwrap();
        send.write_all(&framed(&query("a.test.", 7))).await.unwrap();
        send.finish().unwrap();
        // DOQ_PROTOCOL_ERROR.
        assert_eq!(code_of_end(&connection).await, 2);
    });
    let metrics = server.equipment.metrics.text();
    for status in ["0x0", "0x1", "0x2"] {
        let line = format!(
            "{}{{server=\"quic://127.0.0.1:0\",status=\"{status}\"}} 1\n",
            names::QUIC_RESPONSES.name
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    server.stop();
}

#[test]
fn what_waits_when_reading_stops_still_gets_its_reply_over_quic() {
    let mut upstream = Held::start();
    let corefile = format!(
        "quic://.:0 {{\nbind 127.0.0.1\n{CERTIFICATE}\n{}}}\n",
        asking_once(upstream.port()).replace("max_fails 0", "max_fails 0\nprefer_udp")
    );
    let server = Running::start(&corefile, 1);
    runtime().block_on(async {
        let connection = connect(&server, "127.0.0.1").await.unwrap();
        let mut waiting = begin(&connection, "a.test.").await;
        upstream.until_asked();
        server.workers.stop_reading();
        upstream.answer();
        let reply = waiting.read_to_end(1 << 16).await.unwrap();
        assert_eq!(reply[5] & 15, 0, "NOERROR");
        // DOQ_NO_ERROR.
        assert_eq!(code_of_end(&connection).await, 0);
    });
    assert!(server.workers.drain(PATIENCE));
    server.workers.join();
}
