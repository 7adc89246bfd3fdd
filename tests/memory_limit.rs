//! `-memory-limit` in a process: a flood of random names with large answers stays within it.
#![allow(clippy::unwrap_used)] // A test may panic, and so may what it calls.

mod messages;
mod ports;

use nodens::dns::RecordType;
use ports::free_port;
use std::fs;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(300);

const LIMIT: u64 = 64 << 20;

/// Half as much again as the limit, if all answers were kept.
const NAMES: usize = 24_000;

/// Queries at a time.
const WINDOW: usize = 8;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A query for a name's TXT records, with room for 4,096 octets.
fn query(number: usize) -> Vec<u8> {
    let mut query =
        messages::query(&format!("n{number}.flood.test"), RecordType::TXT, number as u16);
    query[11] = 1;
    query.extend(b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00");
    query
}

/// An upstream that answers everything with 15 strings of 255 octets.
fn upstream() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut octets = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut octets) {
            let name = octets[12..length].iter().position(|octet| *octet == 0).unwrap_or(0);
            let mut answer = octets[..12 + name + 5].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend(b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x0e\x10\x0f\x00");
            for _ in 0..15 {
                answer.push(255);
                answer.extend([b'x'; 255]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    port
}

/// Resident octets of a process.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_flood_of_large_answers_stays_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let corefile = format!(
        "flood.test:{port} {{\nbind 127.0.0.1\ncache {{\nsuccess 100000\n}}\n\
         forward . 127.0.0.1:{}\n}}\n",
        upstream()
    );
    let base = folder.path().join("base");
    fs::write(&base, corefile).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let server = Command::new(env!("CARGO_BIN_EXE_nodens"))
        .args(["-localip", "127.0.0.1", "-setupinterface=false", "-setupiptables=false"])
        .args(["-metrics-listen-address", "127.0.0.1:0", "-memory-limit", "64Mi"])
        // A system call that the filter does not list must not pass unseen.
        .arg("-seccomp=kill")
        .arg("-runtime-dir")
        .arg(folder.path())
        .arg("-basecorefile")
        .arg(base)
        .arg("-conf")
        .arg(folder.path().join("Corefile"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let server = Running(server);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let start = Instant::now();
    let mut octets = [0; 4096];
    let said = || fs::read_to_string(folder.path().join("log")).unwrap();
    // Until it listens.
    loop {
        client.send_to(&query(0), ("127.0.0.1", port)).unwrap();
        if client.recv(&mut octets).is_ok() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{}", said());
    }
    // A late answer is no lost one.
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let (mut most, mut answered) = (0, 0);
    for first in (1..=NAMES).step_by(WINDOW) {
        for number in first..first + WINDOW {
            client.send_to(&query(number), ("127.0.0.1", port)).unwrap();
        }
        for _ in 0..WINDOW {
            match client.recv(&mut octets) {
                Ok(length) => answered += usize::from(length > 3_800),
                Err(_) => break,
            }
        }
        most = most.max(resident(server.0.id()));
        assert!(start.elapsed() < PATIENCE, "{answered} answered: {}", said());
    }
    assert!(answered > NAMES * 9 / 10, "{answered} of {NAMES} answered");
    assert!(most <= LIMIT, "{most} octets resident");
    // The limit is used: the flood did fill the caches.
    assert!(most > LIMIT / 2, "{most} octets resident");
}
