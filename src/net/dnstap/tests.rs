//! Senders against a collector of our own.

use super::*;
use crate::metrics::{Registry, names};
use crate::plugin::dnstap::{Endpoint, OCTETS_MOST};
use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;

/// Nothing but a mistake takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Journal for Lines {
    fn line(&self, level: Level, text: fmt::Arguments<'_>) {
        self.0.lock().unwrap().push(format!("[{}] {text}", level.word()));
    }
}

impl Lines {
    /// Waits for a line that contains `part`.
    fn wait_for(&self, part: &str) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(line) = self.0.lock().unwrap().iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no line with {part:?}: {:?}", self.0.lock().unwrap());
    }
}

fn tap(endpoint: Endpoint) -> Arc<Tap> {
    let dropped = Registry::new(1).counter(&names::DNSTAP_DROPPED, &["x"]);
    Arc::new(Tap::new(endpoint, 1, 1, dropped, Arc::default()))
}

fn unix(folder: &tempfile::TempDir) -> (Endpoint, String) {
    let path = folder.path().join("tap").to_str().unwrap().to_owned();
    (Endpoint::Unix(path.clone()), path)
}

const CONTENT: &[u8] = b"\0\0\0\x01\0\0\0\x16protobuf:dnstap.Dnstap";

fn frame(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

/// The collector's side of the handshake.
fn accept(stream: &mut (impl Read + Write)) {
    assert_eq!(frame(stream).unwrap(), b"");
    assert_eq!(frame(stream).unwrap(), [b"\0\0\0\x04", CONTENT].concat());
    stream.write_all(&[b"\0\0\0\0\0\0\0\x22\0\0\0\x01", CONTENT].concat()).unwrap();
    assert_eq!(frame(stream).unwrap(), b"");
    assert_eq!(frame(stream).unwrap(), [b"\0\0\0\x02", CONTENT].concat());
}

/// Data frames until STOP, which is answered.
fn collect(stream: &mut (impl Read + Write)) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    loop {
        let record = frame(stream).unwrap();
        if record.is_empty() {
            assert_eq!(frame(stream).unwrap(), b"\0\0\0\x03");
            stream.write_all(b"\0\0\0\0\0\0\0\x04\0\0\0\x05").unwrap();
            return records;
        }
        records.push(record);
    }
}

#[test]
fn records_reach_a_collector_on_a_unix_socket_and_the_end_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, path) = unix(&folder);
    let listener = UnixListener::bind(path).unwrap();
    let collector = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        accept(&mut stream);
        collect(&mut stream)
    });
    let lines = Arc::new(Lines::default());
    let mut senders = Senders::new(lines.clone());
    let tap = tap(endpoint);
    senders.replace([&tap]);
    tap.push(b"one");
    tap.push(b"two");
    std::thread::sleep(GATHER * 2);
    tap.push(b"three");
    senders.stop();
    assert_eq!(collector.join().unwrap(), [b"one".as_slice(), b"two", b"three"]);
    assert!(lines.0.lock().unwrap().is_empty());
    assert_eq!(tap.dropped.value(), 0);
}

#[test]
fn an_endpoint_without_an_address_is_told() {
    for (endpoint, why) in [
        (Endpoint::Unix(String::new()), "dial unix: missing address"),
        (Endpoint::Tcp(String::new()), "dial tcp: missing address"),
        (
            Endpoint::Tcp("127.0.0.1".to_owned()),
            "dial tcp: address 127.0.0.1: missing port in address",
        ),
    ] {
        let lines = Arc::new(Lines::default());
        let mut senders = Senders::new(lines.clone());
        let tap = tap(endpoint);
        senders.replace([&tap]);
        assert!(lines.wait_for("No connection").ends_with(&format!(" endpoint: {why}")));
        tap.push(b"x");
        senders.stop();
        let end = Instant::now() + PATIENCE;
        while tap.dropped.value() != 1 {
            assert!(Instant::now() < end, "what nobody took is counted");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn records_wait_for_a_collector_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, path) = unix(&folder);
    let lines = Arc::new(Lines::default());
    let mut senders = Senders::new(lines.clone());
    let tap = tap(endpoint);
    let begun = Instant::now();
    senders.replace([&tap]);
    let why = format!("dial unix {path}: connect: no such file or directory");
    assert_eq!(
        lines.wait_for("No connection"),
        format!("[ERROR] plugin/dnstap: No connection to dnstap endpoint: {why}")
    );
    tap.push(b"early");
    tap.push(&vec![0; OCTETS_MOST]);
    let dropped = lines.wait_for("Dropped");
    assert_eq!(dropped, "[WARNING] plugin/dnstap: Dropped dnstap messages: 1");
    let listener = UnixListener::bind(&path).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    assert!(begun.elapsed() >= RETRY, "it is not tried all the time");
    accept(&mut stream);
    assert_eq!(frame(&mut stream).unwrap(), b"early");
    lines.wait_for("[INFO] plugin/dnstap: Connected to dnstap endpoint");

    // It goes while nothing is sent: the next record takes the next connection.
    // Shut, not closed alone: a program that another test starts has the socket, too, until it runs.
    stream.shutdown(Shutdown::Both).unwrap();
    tap.push(b"late");
    let (mut stream, _) = listener.accept().unwrap();
    accept(&mut stream);
    assert_eq!(frame(&mut stream).unwrap(), b"late");
    assert_eq!(tap.dropped.value(), 1);
    let lines = lines.0.lock().unwrap();
    assert_eq!(lines.len(), 3, "each once: {lines:?}");
}

#[test]
fn records_that_cannot_be_written_are_told_and_counted_and_long_ones_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, path) = unix(&folder);
    let listener = UnixListener::bind(path).unwrap();
    let lines = Arc::new(Lines::default());
    let mut senders = Senders::new(lines.clone());
    let tap = tap(endpoint);
    // More than its socket takes at once.
    let long = vec![7; OCTETS_MOST / 2];
    tap.push(&long);
    senders.replace([&tap]);
    let (mut stream, _) = listener.accept().unwrap();
    accept(&mut stream);
    assert!(frame(&mut stream).unwrap() == long);
    // The collector is there, and takes nothing more.
    stream.shutdown(Shutdown::Read).unwrap();
    tap.push(b"lost");
    assert_eq!(
        lines.wait_for("write"),
        "[WARNING] plugin/dnstap: Could not write to dnstap endpoint: broken pipe"
    );
    assert_eq!(tap.dropped.value(), 1);
}

#[test]
fn a_collector_that_takes_other_content_gets_no_records() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, path) = unix(&folder);
    let listener = UnixListener::bind(&path).unwrap();
    let lines = Arc::new(Lines::default());
    let mut senders = Senders::new(lines.clone());
    let tap = tap(endpoint);
    tap.push(b"x");
    senders.replace([&tap]);
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"\0\0\0\0\0\0\0\x0d\0\0\0\x01\0\0\0\x01\0\0\0\x01x").unwrap();
    let why = format!("dial unix {path}: frame stream: the collector takes other content");
    assert!(lines.wait_for("No connection").ends_with(&format!(" endpoint: {why}")));
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, [b"\0\0\0\0\0\0\0\x22\0\0\0\x04", CONTENT].concat(), "READY alone");
}

#[test]
fn a_collector_that_takes_nothing_costs_records_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, path) = unix(&folder);
    let _listener = UnixListener::bind(path).unwrap();
    let lines = Arc::new(Lines::default());
    let mut senders = Senders::new(lines);
    let tap = tap(endpoint);
    senders.replace([&tap]);
    let began = Instant::now();
    for _ in 0..2 * crate::plugin::dnstap::RECORDS_MOST {
        tap.push(b"x");
    }
    assert!(tap.dropped.value() > 0);
    // The thread is in its handshake: the end does not wait for it.
    senders.stop();
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn a_sender_that_stays_keeps_its_connection_and_one_that_goes_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut senders = Senders::new(Arc::new(Lines::default()));
    let tap = tap(Endpoint::Tcp(address));
    senders.replace([&tap]);
    let (mut stream, _) = listener.accept().unwrap();
    accept(&mut stream);
    senders.replace([&tap]);
    tap.push(b"kept");
    assert_eq!(frame(&mut stream).unwrap(), b"kept");
    senders.replace([]);
    assert!(collect(&mut stream).is_empty(), "nothing wakes it but its end");
    senders.stop();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "one connection was enough");
}

#[test]
fn over_tls_an_unknown_certificate_is_refused_unless_it_shall_not_be_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args([
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=tap",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args([std::ffi::OsStr::new("-keyout"), path("key").as_os_str()])
        .args([std::ffi::OsStr::new("-out"), path("cert").as_os_str()])
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var("NODENS_TEST_ALL").as_deref() != Ok("1"), "missing: openssl");
        return println!("not run, missing: openssl");
    }
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(path("cert")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(path("key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    // One for each: the first sender may try again before it hears of its end.
    let (first, second) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let to = |listener: &TcpListener, is_verified| {
        let address = listener.local_addr().unwrap().to_string();
        tap(Endpoint::Tls { address, is_verified })
    };
    let greet = |listener: &TcpListener| {
        let (socket, _) = listener.accept().unwrap();
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        rustls::StreamOwned::new(connection, socket)
    };

    let lines = Arc::new(Lines::default());
    let mut senders = Senders::new(lines.clone());
    senders.replace([&to(&first, true)]);
    assert!(greet(&first).read(&mut [0]).is_err());
    let line = lines.wait_for("No connection");
    assert!(line.contains("tls: failed to verify certificate of 127.0.0.1: x509: "), "{line}");

    let unverified = to(&second, false);
    senders.replace([&unverified]);
    let mut stream = greet(&second);
    accept(&mut stream);
    unverified.push(b"secret");
    assert_eq!(frame(&mut stream).unwrap(), b"secret");
    // It says goodbye while nothing is sent: the next record takes the next connection.
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(Shutdown::Both).unwrap();
    unverified.push(b"late");
    let mut stream = greet(&second);
    accept(&mut stream);
    senders.replace([]);
    assert_eq!(collect(&mut stream), [b"late"]);
    assert_eq!(unverified.dropped.value(), 0);
}
