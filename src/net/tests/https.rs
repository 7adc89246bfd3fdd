//! `https://` server blocks, and `https://` and `quic://` upstreams, each end against the other or
//! against hickory's.

use super::tls::client;
use super::*;
use crate::dns::options;
use crate::metrics::names;
use hickory_net::quic::QuicServer;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

const CERTIFICATE: &str = "tls /up.pem /up.key";

/// One HTTP/1.1 request inside TLS: the status line, the headers and the body.
pub(super) fn request(server: &Running, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let name = ServerName::try_from("up.test").unwrap();
    let session = ClientConnection::new(Arc::new(client(None)), name).unwrap();
    let mut stream = StreamOwned::new(session, server.tcp());
    let length = body.len();
    let head = format!(
        "{head} HTTP/1.1\r\nHost: up.test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&all[..end]).to_lowercase(), all[end + 4..].to_vec())
}

#[test]
fn get_and_post_are_answered_with_the_message_and_its_lifetime() {
    let server = Running::start(&answering("https://.:0", 9, CERTIFICATE), 1);
    let asked = query("a.test.", 0);
    let in_uri = data_encoding::BASE64URL_NOPAD.encode(&asked);
    for (head, body) in [
        (format!("GET /dns-query?dns={in_uri}"), &[][..]),
        ("POST /dns-query".to_owned(), asked.as_slice()),
    ] {
        let (head, reply) = request(&server, &head, body);
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("content-type: application/dns-message"), "{head}");
        assert!(head.contains("cache-control: max-age=3600"), "{head}");
        assert_eq!(last_octet(&reply), Some(9));
    }
    server.stop();
}

#[test]
fn what_is_no_query_is_refused_with_a_status() {
    let server = Running::start(&answering("https://.:0", 9, CERTIFICATE), 1);
    for (head, body, status) in [
        ("GET /", &b""[..], "404"),
        ("GET /dns-query", b"", "400"),
        ("GET /dns-query?dns=AAAA&dns=AAAA", b"", "400"),
        ("GET /dns-query?dns=*", b"", "400"),
        ("POST /dns-query", b"short", "400"),
        ("POST /dns-query", &[0; 70_000], "400"),
        ("PUT /dns-query", b"", "400"),
    ] {
        let (told, _) = request(&server, head, body);
        assert!(told.starts_with(&format!("http/1.1 {status}")), "{head}: {told}");
    }
    // A message that is a response gets no reply.
    let mut response = query("a.test.", 0);
    response[2] |= 0x80;
    assert!(request(&server, "POST /dns-query", &response).0.starts_with("http/1.1 500"));
    let label = server.equipment.metrics.text();
    assert!(label.contains("\nnodens_messages_ignored_total 1\n"), "{label}");
    let family = names::HTTPS_RESPONSES.name;
    assert!(
        label.contains(&format!("{family}{{server=\"https://127.0.0.1:0\",status=\"404\"}} 1"))
    );
    server.stop();
}

#[tokio::test]
async fn a_head_request_over_http2_is_answered_without_a_body() {
    let server = Running::start(&answering("https://.:0", 9, CERTIFICATE), 1);
    let mut config = client(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = server.tcp().peer_addr().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from("up.test").unwrap(), stream).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::head("https://up.test/").body(Full::<Bytes>::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.headers()["content-length"], "1");
    let body = response.into_body().collect().await.unwrap();
    assert!(body.to_bytes().is_empty());
    drop(sender);
    connection.await.unwrap().unwrap();
    server.stop();
}

#[test]
fn without_the_directive_an_https_block_is_plain_http() {
    let server = Running::start(&answering("https://.:0", 9, ""), 1);
    let mut stream = server.tcp();
    let asked = query("a.test.", 0);
    let head =
        format!("POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n", asked.len());
    stream.write_all(&[head.as_bytes(), b"Connection: close\r\n\r\n", &asked].concat()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all.starts_with(b"HTTP/1.1 200"));
    assert_eq!(all.last(), Some(&9));
    server.stop();
}

#[test]
fn a_client_that_goes_does_not_end_what_others_wait_for() {
    let mut held = Held::start();
    let port = held.port();
    let forward = format!(
        "forward . 127.0.0.1:{port} {{\nprefer_udp\nmax_fails 0\nmax_connect_attempts 1\n}}\n"
    );
    let server = Running::start(&format!("https://.:0 {{\nbind 127.0.0.1\n{forward}}}\n"), 1);
    let ask = |id| {
        let asked = query("c.test.", id);
        let head = format!(
            "POST /dns-query HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            asked.len()
        );
        let mut stream = server.tcp();
        stream.write_all(&[head.as_bytes(), &asked].concat()).unwrap();
        stream
    };
    let first = ask(1);
    held.until_asked();
    let mut second = ask(2);
    wait_until_parked(&server, 2);
    drop(first);
    let end = Instant::now() + PATIENCE;
    while server.workers.connections() > 1 {
        assert!(Instant::now() < end, "the first is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
    held.answer();
    let all = octets_to_its_end(&mut second);
    // Its header's second flag octet: NOERROR.
    let body = all.len() - query("c.test.", 2).len();
    assert_eq!((id(&all[body..]), all[body + 3] & 15), (2, 0));
    server.stop();
}

#[test]
fn a_silent_https_client_is_cut_off() {
    let more = format!("{CERTIFICATE}\ntimeouts {{\nread 1s\n}}");
    let server = Running::start(&answering("https://.:0", 9, &more), 1);
    let mut stream = server.tcp();
    octets_to_its_end(&mut stream);
    server.stop();
}

#[test]
fn queries_are_forwarded_over_https_many_on_one_connection() {
    let upstream = Running::start(&answering("https://.:0", 7, CERTIFICATE), 1);
    let port = upstream.address().port();
    let forwarding = |name: &str| {
        format!(
            ".:0 {{\nbind 127.0.0.1\nforward . https://127.0.0.1:{port} {{\ntls /ca.pem\n\
             tls_servername {name}\nmax_fails 0\n}}\n}}\n"
        )
    };
    let server = Running::start(&forwarding("up.test"), 1);
    let socket = server.udp();
    for id in 0..20 {
        socket.send(&query("a.test.", id)).unwrap();
        socket.send(&query("b.test.", 100 + id)).unwrap();
    }
    let mut buffer = [0; 512];
    for _ in 0..40 {
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(last_octet(&buffer[..length]), Some(7));
    }
    let text = server.equipment.metrics.text();
    let opened = format!("to=\"127.0.0.1:{port}\",proto=\"https\"}} 1\n");
    let misses = text.lines().find(|line| line.starts_with("coredns_proxy_conn_cache_misses"));
    assert!(text.contains("proto=\"https\""), "{opened} {misses:?}");
    assert!(misses.is_some_and(|line| line.ends_with(" 1")), "{misses:?}");
    server.stop();
    let server = Running::start(&forwarding("other.test"), 1);
    assert_eq!(server.ask("a.test."), None, "SERVFAIL: the certificate has another name");
    server.stop();
    upstream.stop();
}

/// A resolver over HTTPS that takes GET alone, and says 192.0.2.6 to everything; its port.
async fn only_get(tell: std::sync::mpsc::Sender<u16>) {
    let acceptor = tokio_rustls::TlsAcceptor::from(sealing(&["h2"]));
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    tell.send(socket.local_addr().unwrap().port()).unwrap();
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
        let told = request.uri().query().and_then(|query| query.strip_prefix("dns="));
        let builder = hyper::Response::builder();
        match (request.method(), told) {
            (&hyper::Method::GET, Some(text)) => {
                let mut reply = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
                assert_eq!(reply[..2], [0, 0], "RFC 8484 §4.1");
                reply[2] |= 0x80;
                reply[7] = 1;
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 6]);
                builder
                    .header("content-type", "application/dns-message")
                    .body(Full::new(Bytes::from(reply)))
            }
            _ => builder.status(405).body(Full::new(Bytes::new())),
        }
    });
    while let Ok((stream, _)) = socket.accept().await {
        let stream = acceptor.accept(stream).await.unwrap();
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

#[test]
fn doh_method_says_how_queries_go_over_https() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(only_get(tell));
    });
    let port = told.recv().unwrap();
    for (method, last) in [("GET", Some(6)), ("POST", None)] {
        let corefile = format!(
            ".:0 {{\nbind 127.0.0.1\nforward . https://127.0.0.1:{port} {{\ntls /ca.pem\n\
             tls_servername up.test\ndoh_method {method}\nmax_fails 0\n}}\n}}\n"
        );
        let server = Running::start(&corefile, 1);
        for name in ["a.test.", "b.test."] {
            let answered = server.ask(name);
            assert_eq!(answered.filter(|octet| Some(*octet) == last), last, "{method} {name}");
        }
        server.stop();
    }
}

#[test]
fn queries_are_forwarded_over_quic() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            tell.send(socket.local_addr().unwrap().port()).unwrap();
            let mut server =
                QuicServer::with_socket_and_tls_config(socket, sealing(&["doq"])).unwrap();
            while let Ok(Some((mut streams, _))) = server.next().await {
                tokio::spawn(async move {
                    while let Some(Ok(mut stream)) = streams.next().await {
                        let mut reply = stream.receive_bytes().await.unwrap().to_vec();
                        assert_eq!(reply[..2], [0, 0], "RFC 9250 §4.2.1");
                        if let Some(edns) = Message::parse(&reply).unwrap().edns() {
                            let codes = edns.each_option(&reply).map(|(code, _)| code);
                            assert_eq!(codes.collect::<Vec<_>>(), [options::COOKIE]);
                        }
                        reply.truncate(query("a.test.", 0).len());
                        reply[2] |= 0x80;
                        reply[7] = 1;
                        reply[11] = 0;
                        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 6]);
                        stream.send_bytes(reply.into()).await.unwrap();
                        stream.finish().await.unwrap();
                    }
                });
            }
        });
    });
    let port = told.recv().unwrap();
    let corefile = format!(
        ".:0 {{\nbind 127.0.0.1\nforward . quic://127.0.0.1:{port} {{\ntls /ca.pem\n\
         tls_servername up.test\n}}\n}}\n"
    );
    let server = Running::start(&corefile, 1);
    assert_eq!(server.ask("a.test."), Some(6));
    assert_eq!(server.ask("b.test."), Some(6));
    // TCP_KEEPALIVE would end the connection, with all that is in flight on it (RFC 9250 §5.5.2).
    let mut asked = query("c.test.", 1);
    asked[11] = 1;
    asked.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x10\0\x0b\0\0\0\x0a\0\x08abcdefgh");
    let socket = server.udp();
    socket.send(&asked).unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).unwrap();
    assert_eq!(last_octet(&reply[..length]), Some(6));
    server.stop();
}

#[test]
fn quic_blocks_are_asked_over_quic_and_end_with_their_address() {
    let sealed = answering("quic://.:0", 5, CERTIFICATE);
    let upstream = Running::start(&sealed, 1);
    let port = upstream.address().port();
    let corefile = format!(
        ".:0 {{\nbind 127.0.0.1\nforward . quic://127.0.0.1:{port} {{\ntls /ca.pem\n\
         tls_servername up.test\n}}\n}}\n"
    );
    let server = Running::start(&corefile, 1);
    let socket = server.udp();
    for id in 0..40 {
        socket.send(&query("a.test.", id)).unwrap();
        socket.send(&query("b.test.", 100 + id)).unwrap();
    }
    let mut buffer = [0; 512];
    for _ in 0..80 {
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(last_octet(&buffer[..length]), Some(5));
    }
    // A reload keeps the connection; new answers come over it.
    upstream.publish(&answering("quic://.:0", 4, CERTIFICATE)).unwrap();
    assert_eq!(server.ask("a.test."), Some(4));
    upstream.stop();
    server.stop();
}
