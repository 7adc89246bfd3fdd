//! `https3://` server blocks, asked by hickory's HTTP/3 client.

use super::tls::client;
use super::*;
use crate::metrics::names;
use hickory_net::NetError;
use hickory_net::h3::H3ClientStream;
use hickory_net::xfer::{DnsRequestSender, FirstAnswer};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message as Decoded};
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
        assert!(crate::plugin::tls::quic_connections() >= 1);
        let refused = connect(&server, "other.test").await;
        assert!(refused.is_err(), "another name than the certificate's");
    });
    let family = names::HTTPS3_RESPONSES.name;
    let line = format!("{family}{{server=\"https3://127.0.0.1:0\",status=\"200\"}} 21\n");
    let metrics = server.equipment.metrics.text();
    assert!(metrics.contains(&line), "{metrics}");
    server.stop();
}

#[test]
fn another_certificate_is_another_endpoint_that_answers_at_once() {
    let server = Running::start(&answering("https3://.:0", 9, CERTIFICATE), 1);
    let runtime = runtime();
    let asked = |last| {
        runtime.block_on(async {
            let mut stream = connect(&server, "up.test").await.unwrap();
            assert_eq!(ask(&mut stream, "a.test.").await.unwrap(), Some(last));
        });
    };
    asked(9);
    let port = server.address().port();
    server.publish(&answering("https3://.:0", 8, CERTIFICATE)).unwrap();
    assert_ne!(server.address().port(), port, "port 0 is another one for another endpoint");
    asked(8);
    server.stop();
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
