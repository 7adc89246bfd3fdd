//! The endpoints of `-metrics-listen-address` and `prometheus` over TLS, asked by a real TLS client.

use crate::node::{Node, free_port};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A file of the certificates that the unit tests use: `up.pem` is for `up.test`, and `ca.pem` has
/// signed it.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/net/upstream/testdata").join(name)
}

/// A client that speaks `versions`, with a certificate or without.
fn client(versions: &[&'static rustls::SupportedProtocolVersion], has_own: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    if !has_own {
        return builder.with_no_client_auth();
    }
    let chain = vec![CertificateDer::from_pem_file(file("up.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("up.key")).unwrap();
    builder.with_client_auth_cert(chain, key).unwrap()
}

/// What `/metrics` says, or why it cannot be had.
fn metrics(port: u16, client: &ClientConfig) -> std::io::Result<String> {
    let name = ServerName::try_from("up.test").unwrap();
    let connection = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: up.test\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    // A server that closes without a farewell has said all that it had to say.
    match stream.read_to_string(&mut text) {
        Err(_) if text.contains("\r\n\r\n") => Ok(text),
        result => result.map(|_| text),
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];
const OLD: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

fn start(flags: &[&str]) -> (Node, u16) {
    let (mut node, port) = (Node::new(), free_port());
    let address = format!("-metrics-listen-address=127.0.0.1:{port}");
    let certificate = format!("-tls-cert-file={}", file("up.pem").display());
    let key = format!("--tls-private-key-file={}", file("up.key").display());
    let mut all = vec![address.as_str(), "-tls-enabled", &certificate, &key];
    all.extend(flags);
    node.start("    whoami", &all);
    (node, port)
}

#[test]
fn the_metrics_endpoint_speaks_tls_and_only_its_versions() {
    let (node, port) = start(&[]);
    let text = metrics(port, &client(BOTH, false)).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("coredns_nodecache_setup_errors_total{errortype=\"configmap\"} 0\n"));
    assert!(metrics(port, &client(OLD, false)).is_err());
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let _ = plain.read_to_end(&mut seen);
    assert!(!seen.starts_with(b"HTTP"), "{seen:?}");
    assert!(node.answers());

    let (_node, port) = start(&["-tls-min-version=TLS12"]);
    assert!(metrics(port, &client(OLD, false)).unwrap().contains(" 200 OK\r\n"));
}

#[test]
fn clients_without_a_good_certificate_are_refused_when_it_is_required() {
    let authority = format!("-tls-client-ca-file={}", file("ca.pem").display());
    let required = "-tls-client-auth-type=RequireAndVerifyClientCert";
    let (_node, port) = start(&[required, &authority]);
    assert!(metrics(port, &client(BOTH, false)).is_err());
    assert!(metrics(port, &client(BOTH, true)).unwrap().contains(" 200 OK\r\n"));

    // Without an authority every certificate is a stranger's, and one must only be there.
    let (_node, port) = start(&["-tls-client-auth-type=RequireAnyClientCert"]);
    assert!(metrics(port, &client(BOTH, false)).is_err());
    assert!(metrics(port, &client(BOTH, true)).unwrap().contains(" 200 OK\r\n"));
}

#[test]
fn the_endpoint_of_prometheus_speaks_tls_by_its_web_configuration() {
    let mut node = Node::new();
    let web = |more: &str| {
        let (certificate, key) = (file("up.pem"), file("up.key"));
        format!(
            "tls_server_config:\n  cert_file: {}\n  key_file: {}\n{more}",
            certificate.display(),
            key.display()
        )
    };
    fs::write(node.path("web.yml"), web("")).unwrap();
    let path = node.path("web.yml").display().to_string();
    let directives = format!("    whoami\n    prometheus HTTP {{\n        tls {path}\n    }}");
    node.start(&directives, &[]);
    let port = node.http;
    assert!(metrics(port, &client(OLD, false)).unwrap().contains(" 200 OK\r\n"));

    fs::write(node.path("web.yml"), web("  min_version: TLS13\n")).unwrap();
    node.signal("USR1");
    node.until("TLS 1.2 is refused", |_| metrics(port, &client(OLD, false)).is_err());
    assert!(metrics(port, &client(BOTH, false)).unwrap().contains("\ncoredns_build_info{"));
}

#[test]
fn a_certificate_that_cannot_be_read_is_said_and_dns_is_served() {
    let mut node = Node::new();
    node.start("    whoami", &["-tls-enabled", "-tls-cert-file=/nonexistent/tls.crt"]);
    let stderr = fs::read_to_string(node.path("stderr")).unwrap();
    let line = "[ERROR] Failed to start metrics handler: open /nonexistent/tls.crt: no such file or \
                directory\n";
    assert!(stderr.contains(line), "{stderr}");
}
