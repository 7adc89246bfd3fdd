//! dnstap records as a real collector reads them: the program `dnstap` (Debian's
//! golang-github-dnstap-golang-dnstap-cli). Says so and passes where it is missing, unless
//! `NODENS_TEST_ALL=1`.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod ports;

use ports::free_port;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

const QUERY: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01";

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The collector; `None` where the program is missing.
fn collector(from: &[&str], output: &Path) -> Option<Running> {
    let spawned = Command::new("dnstap")
        .args(from)
        .args(["-y", "-w"])
        .arg(output)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match spawned {
        Ok(child) => Some(Running(child)),
        Err(why) => {
            missing::say_missing(&format!("the program dnstap: {why}"));
            None
        }
    }
}

/// An upstream that answers everything with 192.0.2.1.
fn upstream() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            let mut response = query[..length].to_vec();
            response[2..4].copy_from_slice(&[0x81, 0x80]);
            response[7] = 1;
            response.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01");
            if socket.send_to(&response, client).is_err() {
                return;
            }
        }
    });
    port
}

/// Starts nodens with a `dnstap` to `endpoint`, asks it once and stops it with `signal`.
fn serve_one_query(folder: &Path, endpoint: &str, signal: &str) {
    let port = free_port();
    let corefile = format!(
        ".:{port} {{\n bind 127.0.0.1\n dnstap {endpoint} full {{\n  identity node-7\n  version v9\n  \
         extra \"{{name}} {{proto}}\"\n }}\n forward . 127.0.0.1:{}\n}}\n",
        upstream()
    );
    std::fs::write(folder.join("base"), corefile).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_nodens"))
        .args(["-localip=127.0.0.1", "-setupinterface=false", "-setupiptables=false"])
        // A system call that the filter does not list must not pass unseen.
        .arg("-seccomp=kill")
        .arg("-metrics-listen-address=127.0.0.1:0")
        .arg(format!("-runtime-dir={}", folder.join("run").display()))
        .arg(format!("-basecorefile={}", folder.join("base").display()))
        .arg(format!("-conf={}", folder.join("Corefile").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut nodens = Running(child);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    let mut response = [0; 512];
    until("it answers", || client.send(QUERY).is_ok() && client.recv(&mut response).is_ok());
    // At once: what waits is sent before the end.
    let pid = nodens.0.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    until("it ends", || nodens.0.try_wait().unwrap().is_some());
}

fn check(text: &str) {
    let documents: Vec<&str> = text.split("---\n").filter(|part| part.contains("type:")).collect();
    for (kind, wanted) in [
        ("CLIENT_QUERY", &["socket_protocol: UDP", "query_address: 127.0.0.1", "query_message"]),
        ("CLIENT_RESPONSE", &["response_time: ", "id: 4660", "192.0.2.1"]),
        ("FORWARDER_QUERY", &["response_address: 127.0.0.1", "a.test.", "socket_family: INET"]),
        ("FORWARDER_RESPONSE", &["response_time: ", "id: 4660", "192.0.2.1"]),
    ] {
        let found = documents.iter().find(|part| part.contains(&format!("type: {kind}\n")));
        let Some(document) = found else { panic!("no {kind}:\n{text}") };
        for part in ["identity: \"node-7\"", "version: \"v9\""] {
            assert!(document.contains(part), "{part} is missing:\n{document}");
        }
        for part in wanted {
            assert!(document.contains(part), "{part} is missing:\n{document}");
        }
    }
}

/// Waits for the last record, whole, and looks at all of them.
fn check_the_last(output: &Path) {
    let text = || std::fs::read_to_string(output).unwrap_or_default();
    until("the last record", || {
        text().rsplit_once("type: CLIENT_RESPONSE").is_some_and(|(_, rest)| rest.contains("\n---"))
    });
    check(&text());
}

/// Whether the records of a query just before the end reach a collector on a Unix socket.
fn the_last_records_arrive(signal: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (socket, output) = (folder.path().join("tap.sock"), folder.path().join("records"));
    let Some(_collector) = collector(&["-u", socket.to_str().unwrap()], &output) else { return };
    until("the collector listens", || socket.exists());
    serve_one_query(folder.path(), socket.to_str().unwrap(), signal);
    check_the_last(&output);
}

#[test]
fn a_real_collector_reads_the_records_from_a_unix_socket() {
    the_last_records_arrive("-TERM");
}

#[test]
fn the_last_records_are_sent_when_sigint_ends_it() {
    the_last_records_arrive("-INT");
}

#[test]
fn a_real_collector_reads_the_records_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let output = folder.path().join("records");
    let Some(_collector) = collector(&["-l", &address], &output) else { return };
    until("the collector listens", || std::net::TcpStream::connect(&address).is_ok());
    serve_one_query(folder.path(), &format!("tcp://{address}"), "-TERM");
    check_the_last(&output);
}
