//! The program in a test's namespaces: its files, flags and output, whether it answers, what it
//! counts.

use super::sh;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where it shows its metrics.
const METRICS: &str = "127.0.0.1:9353";

/// A nodens with its files; dropping it kills it.
pub(crate) struct Process {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts one that answers itself on all local addresses.
    pub(crate) fn start(folder: &tempfile::TempDir, number: u32, flags: &[&str]) -> Process {
        Process::start_by(&[], folder, number, flags)
    }

    /// The same by another program: its words stand before nodens's own.
    pub(crate) fn start_by(
        before: &[&str],
        folder: &tempfile::TempDir,
        number: u32,
        flags: &[&str],
    ) -> Process {
        let template = ".:53 {\n bind __PILLAR__LOCAL__DNS__\n whoami\n}\n";
        Process::start_from(before, folder.path(), number, template, flags)
    }

    /// The same from a template of the test's own.
    pub(crate) fn start_from(
        before: &[&str],
        folder: &Path,
        number: u32,
        template: &str,
        flags: &[&str],
    ) -> Process {
        let path = |name: &str| folder.join(format!("{name}{number}"));
        fs::write(path("base"), template).unwrap();
        let log = path("log");
        let out = File::create(&log).unwrap();
        let words = [before, &[env!("CARGO_BIN_EXE_nodens")]].concat();
        let child = Command::new(words[0])
            .args(&words[1..])
            .arg(format!("-basecorefile={}", path("base").display()))
            .arg(format!("-conf={}", path("Corefile").display()))
            .arg(format!("-metrics-listen-address={METRICS}"))
            // A system call that the filter does not list must not pass unseen.
            .arg("-seccomp=kill")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Process { child, log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        sh(&format!("kill -s {name} {}", self.child.id()));
    }

    /// Waits for a part of its output: a thread of its own writes that, behind what is told of.
    pub(crate) fn says(&self, part: &str) {
        until(part, self, || self.log().contains(part));
    }

    /// Its exit code; it must end by itself, or was told to.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it does not end: {}", self.log());
            sleep(Duration::from_millis(5));
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only fails when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, process: &Process, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}: {}", process.log());
        sleep(Duration::from_millis(5));
    }
}

/// Whether a query to port 53 of an address gets an answer.
pub(crate) fn answers(address: &str) -> bool {
    let wildcard = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(wildcard).unwrap();
    // Where nobody listens that is told at once: this is for a machine that is busy.
    socket.set_read_timeout(Some(PATIENCE / 4)).unwrap();
    let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
    let address: IpAddr = address.parse().unwrap();
    socket.connect((address, 53)).is_ok()
        && socket.send(query).is_ok()
        && socket.recv(&mut [0; 512]).is_ok()
}

/// What it counts now; nothing while nobody tells.
pub(crate) fn metric(series: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(METRICS).ok()?;
    stream.set_read_timeout(Some(PATIENCE / 4)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text
        .lines()
        .find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}
