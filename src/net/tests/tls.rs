//! `tls://` server blocks, asked by rustls' own client.

use super::bounds::over_quic;
use super::https::request;
use super::*;
use crate::net::tcp::READ_OCTETS;
use crate::plugin::Service;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A client that trusts the test's authority; `with_certificate`: and can show a certificate.
pub(super) fn client(with_certificate: Option<(&[u8], &[u8])>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = include_bytes!("../upstream/testdata/ca.pem");
    roots.add(CertificateDer::from_pem_slice(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match with_certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// A connection inside TLS; the handshake goes on with the first read.
fn connect(server: &Running, config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("up.test").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), server.tcp())
}

fn read_frame(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

#[test]
fn queries_inside_tls_are_answered_inside_it() {
    let server = Running::start(&answering("tls://.:0", 9, "tls /up.pem /up.key"), 1);
    let mut stream = connect(&server, client(None));
    let mut queries = Vec::new();
    for id in 0..200 {
        queries.extend(framed(&query("a.test.", id)));
    }
    stream.write_all(&queries).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let reply = read_frame(&mut stream).unwrap();
        assert_eq!(last_octet(&reply), Some(9));
        seen.insert(id(&reply));
    }
    assert_eq!(seen.len(), 200);
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap(), 0, "a goodbye for a goodbye");
    server.stop();
}

#[test]
fn more_queries_inside_tls_than_one_read_takes_are_all_answered() {
    const QUERIES: u16 = 2_000;
    let server = Running::start(&answering("tls://.:0", 9, "tls /up.pem /up.key"), 1);
    let mut stream = connect(&server, client(None));
    let queries: Vec<u8> = (0..QUERIES).flat_map(|id| framed(&query("a.test.", id))).collect();
    stream.write_all(&queries).unwrap();
    for expected in 0..QUERIES {
        assert_eq!(id(&read_frame(&mut stream).unwrap()), expected);
    }
    drop(stream);
    server.stop();
}

#[test]
fn a_query_behind_a_record_that_fills_a_read_is_answered() {
    let server = Running::start(&answering("tls://.:0", 9, "tls /up.pem /up.key"), 1);
    let mut stream = connect(&server, client(None));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    // A response, which is not answered, as long as a record; the query has one of its own.
    let mut response = vec![0; READ_OCTETS - 2];
    response[2] |= 0x80;
    for message in [response, query("a.test.", 1)] {
        stream.conn.writer().write_all(&framed(&message)).unwrap();
    }
    let mut records = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut records).unwrap();
    }
    stream.sock.write_all(&records).unwrap();
    assert_eq!(last_octet(&read_frame(&mut stream).unwrap()), Some(9));
    drop(stream);
    server.stop();
}

#[test]
fn replies_inside_tls_that_the_kernel_does_not_take_at_once_come_whole() {
    const QUERIES: u16 = 1_000;
    let address = |number| format!("10.0.{}.{} a.test\n", number / 250, number % 250);
    let addresses: String = (0..1_000).map(address).collect();
    let server = Running::start(
        &format!(
            "tls://.:0 {{\nbind 127.0.0.1\ntls /up.pem /up.key\ntimeouts {{\nread {NEVER}\n\
             write {NEVER}\nidle {NEVER}\n}}\nhosts {{\n{addresses}}}\n}}\n"
        ),
        1,
    );
    // 16 MB of replies.
    let mut stream = connect(&server, client(None));
    let queries: Vec<u8> = (0..QUERIES).flat_map(|id| framed(&query("a.test.", id))).collect();
    stream.write_all(&queries).unwrap();
    for expected in 0..QUERIES {
        let reply = read_frame(&mut stream).unwrap();
        assert_eq!(id(&reply), expected);
        assert_eq!(Message::parse(&reply).unwrap().count(Section::Answer), 1_000);
    }
    drop(stream);
    server.stop();
}

#[test]
fn plain_queries_at_a_tls_port_are_not_answered() {
    let server = Running::start(&answering("tls://.:0", 9, "tls /up.pem /up.key"), 1);
    let mut stream = server.tcp();
    stream.write_all(&framed(&query("a.test.", 1))).unwrap();
    let rest = octets_to_its_end(&mut stream);
    assert!(rest.first().is_none_or(|first| *first == 21), "an alert at most: {rest:?}");
    server.stop();
}

#[test]
fn without_the_directive_a_tls_block_is_plain_tcp() {
    let server = Running::start(&answering("tls://.:0", 9, ""), 1);
    let mut stream = server.tcp();
    stream.write_all(&framed(&query("a.test.", 1))).unwrap();
    assert_eq!(last_octet(&read_frame(&mut stream).unwrap()), Some(9));
    server.stop();
}

#[test]
fn a_client_that_never_shakes_hands_is_cut_off() {
    let more = "tls /up.pem /up.key\ntimeouts {\nread 1s\n}";
    let server = Running::start(&answering("tls://.:0", 9, more), 1);
    let mut stream = server.tcp();
    stream.write_all(&[22, 3, 1]).unwrap();
    octets_to_its_end(&mut stream);
    server.stop();
}

#[test]
fn a_client_must_show_the_certificate_that_the_block_asks_for() {
    let more = "tls /up.pem /up.key /ca.pem {\nclient_auth require_and_verify\n}";
    let server = Running::start(&answering("tls://.:0", 9, more), 1);
    let ask = |config| {
        let mut stream = connect(&server, config);
        stream.write_all(&framed(&query("a.test.", 1)))?;
        read_frame(&mut stream)
    };
    let own = (
        include_bytes!("../upstream/testdata/up.pem").as_slice(),
        include_bytes!("../upstream/testdata/up.key").as_slice(),
    );
    assert_eq!(last_octet(&ask(client(Some(own))).unwrap()), Some(9));
    assert!(ask(client(None)).is_err());
    server.stop();
}

#[test]
fn a_reload_changes_certificates_for_new_connections_and_keeps_the_old_ones() {
    let sealed = answering("tls://.:0", 9, "tls /up.pem /up.key");
    let server = Running::start(&sealed, 1);
    let mut old = connect(&server, client(None));
    old.write_all(&framed(&query("a.test.", 1))).unwrap();
    assert_eq!(last_octet(&read_frame(&mut old).unwrap()), Some(9));
    server.publish(&answering("tls://.:0", 8, "")).unwrap();
    old.write_all(&framed(&query("a.test.", 2))).unwrap();
    assert_eq!(last_octet(&read_frame(&mut old).unwrap()), Some(8));
    let mut plain = server.tcp();
    plain.write_all(&framed(&query("a.test.", 3))).unwrap();
    assert_eq!(last_octet(&read_frame(&mut plain).unwrap()), Some(8));
    drop((old, plain));
    server.stop();
}

#[test]
fn dnstap_tells_what_a_query_came_over() {
    let asked = query("a.test.", 0);
    let over_tls = |server: &Running| {
        let mut stream = connect(server, client(None));
        stream.write_all(&framed(&query("a.test.", 1))).unwrap();
        read_frame(&mut stream).unwrap();
    };
    let over_https = |server: &Running| drop(request(server, "POST /dns-query", &asked));
    let over_tcp = |server: &Running| {
        let mut stream = server.tcp();
        stream.write_all(&framed(&query("a.test.", 1))).unwrap();
        read_frame(&mut stream).unwrap();
    };
    let ask_over_quic = |server: &Running| {
        let between = Running::start(&over_quic(server.address().port()), 1);
        assert_eq!(between.ask("a.test."), Some(9));
        between.stop();
    };
    let over_udp = |server: &Running| assert_eq!(server.ask("a.test."), Some(9));
    // The numbers of dnstap.proto's SocketProtocol.
    for (key, number, ask) in [
        (".:0", 1, &over_udp as &dyn Fn(&Running)),
        (".:0", 2, &over_tcp),
        ("tls://.:0", 3, &over_tls),
        ("https://.:0", 4, &over_https),
        ("quic://.:0", 7, &ask_over_quic),
    ] {
        let more = if key == ".:0" { "" } else { "tls /up.pem /up.key\n" };
        let corefile = answering(key, 9, &format!("{more}dnstap /nowhere"));
        let server = Running::start(&corefile, 1);
        let snapshot = snapshot(&corefile, &server.equipment.metrics);
        server.workers.publish(&snapshot).unwrap();
        ask(&server);
        let [Service::Dnstap(tap)] = &snapshot.services[..] else { panic!("{key}: no tap") };
        let mut frames = Vec::new();
        tap.take(&mut frames);
        // CLIENT_QUERY, INET, and the protocol.
        let begin = [8, 5, 16, 1, 24, number];
        assert!(frames.windows(6).any(|six| six == begin), "{key} {number}: {frames:?}");
        server.stop();
    }
}
