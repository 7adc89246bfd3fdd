//! The program under test: a directory, ports, its flags and output, and what an operator does to
//! it.
#![allow(dead_code)] // Not every test file uses all of it.

#[path = "../messages/mod.rs"]
mod messages;
#[path = "../ports/mod.rs"]
mod ports;

use nodens::dns::RecordType;
pub(crate) use ports::free_port;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory, ports and the running program.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) dns: u16,
    pub(crate) http: u16,
    pub(crate) child: Option<Child>,
}

impl Node {
    pub(crate) fn new() -> Node {
        let folder = tempfile::tempdir().unwrap();
        Node { folder, dns: free_port(), http: free_port(), child: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a pipe in the place of the file `name`: whoever reads it waits without end.
    pub(crate) fn put_pipe(&self, name: &str) {
        let beside = self.path("pipe");
        assert!(Command::new("mkfifo").arg(&beside).status().unwrap().success());
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    /// A Corefile with `directives` for the node's ports; `HTTP` stands for the HTTP address.
    pub(crate) fn corefile(&self, directives: &str) -> String {
        let directives = directives.replace("HTTP", &format!("127.0.0.1:{}", self.http));
        format!(".:{} {{\n    bind 127.0.0.1\n    errors\n{directives}\n}}\n", self.dns)
    }

    pub(crate) fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodens"));
        command
            .args(["-localip=127.0.0.1", "-setupinterface=false", "-setupiptables=false"])
            // A system call that the filter does not list must not pass unseen.
            .arg("-seccomp=kill")
            .arg("-metrics-listen-address=127.0.0.1:0")
            .arg(format!("-basecorefile={}", self.path("base").display()))
            .arg(format!("-conf={}", self.path("Corefile").display()))
            .arg(format!("-runtime-dir={}", self.path("run").display()))
            .args(flags)
            .stdin(Stdio::null());
        command
    }

    /// Starts with a template and waits until it answers.
    pub(crate) fn start(&mut self, directives: &str, flags: &[&str]) {
        std::fs::write(self.path("base"), self.corefile(directives)).unwrap();
        let output = |name| std::fs::File::create(self.path(name)).unwrap();
        let mut command = self.command(flags);
        let child = command.stdout(output("stdout")).stderr(output("stderr")).spawn().unwrap();
        self.child = Some(child);
        self.until("it answers", |node| node.answers());
    }

    pub(crate) fn lines(&self) -> String {
        std::fs::read_to_string(self.path("stdout")).unwrap()
    }

    /// Waits for a part of its output: a thread of its own writes that, behind what is told of.
    pub(crate) fn says(&self, part: &str) {
        self.until(part, |node| node.lines().contains(part));
    }

    /// Puts a file in place in one step: whoever looks at it just then finds the old one or the new one.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let beside = self.path(&format!("{name}.new"));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    pub(crate) fn answers(&self) -> bool {
        self.exchange("a.test").is_some()
    }

    /// The address at the end of the response to a question for an A record.
    pub(crate) fn ask(&self, name: &str) -> Option<Ipv4Addr> {
        let response = self.exchange(name)?;
        let address: [u8; 4] = *response.last_chunk()?;
        (response[7] > 0).then(|| address.into())
    }

    pub(crate) fn exchange(&self, name: &str) -> Option<Vec<u8>> {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Where nobody listens that is told at once: this is for a machine that is busy.
        client.set_read_timeout(Some(PATIENCE / 4)).unwrap();
        client.connect(("127.0.0.1", self.dns)).unwrap();
        let query = messages::query(name, RecordType::A, 0x1234);
        let mut response = vec![0; 512];
        client.send(&query).ok()?;
        let length = client.recv(&mut response).ok()?;
        response.truncate(length);
        (length > 12 && response[..2] == query[..2]).then_some(response)
    }

    /// Status and body.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub(crate) fn metric(&self, line_start: &str) -> Option<String> {
        let (_, body) = self.get("/metrics")?;
        let line = body.lines().find(|line| line.starts_with(line_start))?;
        line.rsplit(' ').next().map(str::to_owned)
    }

    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Node) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let stderr = std::fs::read_to_string(self.path("stderr")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "not in time: {what}\n{}{stderr}", self.lines());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("sh").args(["-c", "kill -$0 $1", name, &pid]).status().unwrap().success()
        );
    }

    /// The exit code after the program ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if start.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("it does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn refused(node: &Node, corefile: &str, flags: &[&str]) -> (Option<i32>, String) {
    std::fs::write(node.path("base"), corefile).unwrap();
    let Output { status, stderr, .. } = node.command(flags).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    (status.code(), text.trim_end().lines().last().unwrap_or_default().to_owned())
}
