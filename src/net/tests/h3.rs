//! `https3://` server blocks, asked by hickory's HTTP/3 client, by h3's, and by one that has no manners.

use super::tls::client;
use super::*;
use crate::metrics::names;
use crate::net::tcp::{OCTETS_LEAST, QUIC_OCTETS};
use hickory_net::NetError;
use hickory_net::h3::H3ClientStream;
use hickory_net::xfer::{DnsRequestSender, FirstAnswer};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message as Decoded};
use hyper::body::Buf;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError, Endpoint, VarInt, WriteError};
use std::future::poll_fn;
use tokio::runtime::{Builder, Runtime};

const CERTIFICATE: &str = "tls /up.pem /up.key";

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A connection to the server, whose certificate must have `name`.
async fn connect(server: &Running, name: &str) -> Result<H3ClientStream, NetError> {
    let builder = H3ClientStream::builder().crypto_config(client(None));
    builder.build(server.address(), name.into(), "/dns-query".into()).await
}

/// The last octet of the reply to a query for `name`'s address.
async fn ask(stream: &mut H3ClientStream, name: &str) -> Result<Option<u8>, NetError> {
    let message = Decoded::from_vec(&query(name, 0)).unwrap();
    let answer = stream.send_message(DnsRequest::new(message, DnsRequestOptions::default()));
    let reply = tokio::time::timeout(PATIENCE, answer.first_answer()).await;
    reply.map_err(|_| NetError::Timeout)?.map(|reply| last_octet(&reply.into_buffer()))
}

#[test]
fn queries_over_http3_are_answered_many_on_one_connection() {
    let server = Running::start(&answering("https3://.:0", 9, CERTIFICATE), 1);
    runtime().block_on(async {
        let mut stream = connect(&server, "up.test").await.unwrap();
        let asked: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = stream.clone();
                tokio::spawn(async move { ask(&mut stream, "a.test.").await })
            })
            .collect();
        for reply in asked {
            assert_eq!(reply.await.unwrap().unwrap(), Some(9));
        }
        // Nobody answers for it: SERVFAIL has the question alone.
        let failed = ask(&mut stream, "c.test.").await.unwrap();
        assert_ne!(failed, Some(9));
        let refused = connect(&server, "other.test").await;
        assert!(refused.is_err(), "another name than the certificate's");
    });
    server.stop();
}

#[test]
fn a_reload_keeps_connections_over_http3_also_with_another_certificate() {
    let server = Running::start(&answering("https3://.:0", 9, CERTIFICATE), 1);
    runtime().block_on(async {
        let mut stream = connect(&server, "up.test").await.unwrap();
        assert_eq!(ask(&mut stream, "a.test.").await.unwrap(), Some(9));
        server.publish(&answering("https3://.:0", 8, CERTIFICATE)).unwrap();
        assert_eq!(ask(&mut stream, "a.test.").await.unwrap(), Some(8));
        let mut another = connect(&server, "up.test").await.unwrap();
        assert_eq!(ask(&mut another, "a.test.").await.unwrap(), Some(8));
    });
    server.stop();
}

/// A connection from 127.0.0.1 that speaks no HTTP by itself.
async fn carrier(server: &Running) -> quinn::Connection {
    let mut tls = client(None);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicClientConfig::try_from(Arc::new(tls)).unwrap();
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
    endpoint.connect(server.address(), "up.test").unwrap().await.unwrap()
}

/// Waits for something that the server is to do.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it does not come")
}

#[test]
fn requests_over_http3_are_answered_as_those_over_https() {
    let server = Running::start(&answering("https3://.:0", 9, CERTIFICATE), 1);
    let label = snapshot_label(&server);
    runtime().block_on(async {
        let connection = h3_quinn::Connection::new(carrier(&server).await);
        let (mut driver, mut asking) = ::h3::client::new(connection).await.unwrap();
        let driven =
            tokio::spawn(async move { drop(poll_fn(|task| driver.poll_close(task)).await) });
        let dns = data_encoding::BASE64URL_NOPAD.encode(&query("a.test.", 0));
        for (method, target, status, length) in [
            ("GET", format!("/dns-query?dns={dns}"), 200, None),
            ("HEAD", format!("/dns-query?dns={dns}"), 400, Some(0)),
            ("GET", "/elsewhere".to_owned(), 404, None),
            ("GET", "/dns-query".to_owned(), 400, None),
            ("PUT", "/dns-query".to_owned(), 400, None),
        ] {
            let request = hyper::Request::builder()
                .method(method)
                .uri(format!("https://up.test{target}"))
                .body(())
                .unwrap();
            let mut stream = asking.send_request(request).await.unwrap();
            stream.finish().await.unwrap();
            let response = soon(stream.recv_response()).await.unwrap();
            assert_eq!(response.status(), status, "{method} {target}");
            assert!(response.headers().contains_key("date"));
            let announced = response.headers()["content-length"].to_str().unwrap().to_owned();
            let mut body = Vec::new();
            while let Some(data) = soon(stream.recv_data()).await.unwrap() {
                body.extend_from_slice(data.chunk());
            }
            match length {
                None => assert_eq!(announced, body.len().to_string()),
                Some(length) => assert_eq!(body.len(), length),
            }
            if status == 200 {
                assert_eq!(response.headers()["cache-control"], "max-age=3600");
                assert_eq!(last_octet(&body), Some(9));
            }
        }
        driven.abort();
    });
    let metrics = server.equipment.metrics.text();
    for (status, count) in [("200", 1), ("400", 3), ("404", 1)] {
        let line = format!(
            "coredns_dns_https3_responses_total{{server=\"{label}\",status=\"{status}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    server.stop();
}

/// How the server's one address is called in metrics.
fn snapshot_label(server: &Running) -> String {
    format!("https3://{}:0", server.address().ip())
}

#[test]
fn a_frame_over_http3_that_is_longer_than_any_request_ends_its_stream() {
    let server = Running::start(&answering("https3://.:0", 9, CERTIFICATE), 1);
    let buffers = server.equipment.budget.clone();
    runtime().block_on(async {
        let connection = carrier(&server).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        // HEADERS (RFC 9114 §7.2.2), and GREASE (§7.2.8), of 2^31 octets.
        for kind in [1, 0x21] {
            let mut frame = vec![kind, 0xc0, 0, 0, 0, 0x80, 0, 0, 0];
            frame.resize(1 << 20, 0);
            let stopped = soon(send.write_all(&frame)).await;
            // H3_EXCESSIVE_LOAD.
            let excessive = VarInt::from_u32(0x107);
            assert!(matches!(&stopped, Err(WriteError::Stopped(code)) if *code == excessive));
            send = connection.open_bi().await.unwrap().0;
        }
        // A control stream (§6.2.1) must not end: the connection does.
        let mut control = connection.open_uni().await.unwrap();
        let mut frames = vec![0, 4, 0, 0x21, 0xc0, 0, 0, 0, 0x80, 0, 0, 0];
        frames.resize(1 << 20, 0);
        assert!(soon(control.write_all(&frames)).await.is_err());
        let mut other = connect(&server, "up.test").await.unwrap();
        assert_eq!(ask(&mut other, "a.test.").await.unwrap(), Some(9));
        drop(connection);
    });
    server.stop();
    assert_eq!(buffers.buffers.used(), 0);
}

#[test]
fn requests_and_responses_over_http3_count_as_memory_and_make_room() {
    let addresses: Vec<String> = (1..=100).map(|last| format!("192.0.2.{last} a.test\n")).collect();
    let corefile = format!(
        "https3://.:0 {{\nbind 127.0.0.1\n{CERTIFICATE}\nhosts {{\n{}}}\n}}\n",
        addresses.concat()
    );
    let budget = Arc::new(Budget::new(Some(0)));
    let server = Running::start_within(&corefile, 1, budget.clone());
    runtime().block_on(async {
        let mut stream = connect(&server, "up.test").await.unwrap();
        // There is no memory for its response: the connection ends, with it or before.
        let _ = ask(&mut stream, "a.test.").await;
        let line = format!("\n{} 1\n", names::CONNECTIONS_STARVED.name);
        while !server.equipment.metrics.text().contains(&line) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Those beyond the memory of connections make the oldest one go.
        let mut open = Vec::new();
        for _ in 0..OCTETS_LEAST / QUIC_OCTETS + 1 {
            open.push(carrier(&server).await);
        }
        match soon(open[0].closed()).await {
            ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code, VarInt::from_u32(0x107));
            }
            other => panic!("{other}"),
        }
    });
    server.stop();
    assert_eq!((budget.buffers.used(), budget.connections.used()), (0, 0));
}

#[test]
fn what_waits_when_reading_stops_still_gets_its_reply_over_http3() {
    let mut upstream = Held::start();
    let port = upstream.port();
    let corefile =
        format!("https3://.:0 {{\nbind 127.0.0.1\n{CERTIFICATE}\nforward . 127.0.0.1:{port}\n}}\n");
    let server = Running::start(&corefile, 1);
    let runtime = runtime();
    let mut stream = runtime.block_on(connect(&server, "up.test")).unwrap();
    let waiting = runtime.spawn(async move { ask(&mut stream, "a.test.").await });
    wait_until_parked(&server, 1);
    upstream.until_asked();
    server.workers.stop_reading();
    upstream.answer();
    assert!(server.workers.drain(PATIENCE));
    assert!(runtime.block_on(waiting).unwrap().is_ok());
    server.workers.join();
}
