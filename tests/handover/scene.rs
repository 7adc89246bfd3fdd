//! Several processes of the program under test, one after the other or beside each other, on the same
//! ports of 127.0.0.1 and in the same runtime directory.
#![allow(dead_code)] // Not every test file uses all of it.

#[path = "../messages/mod.rs"]
mod messages;
#[path = "../ports/mod.rs"]
mod ports;

pub(crate) use self::ports::free_port;
use super::upstream::{ANSWER, Upstream};
use nodens::dns::RecordType;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The longest that anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The ports, the files and the upstream of all processes.
pub(crate) struct Scene {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) dns: u16,
    /// The `prometheus` address, the `health` address, `-metrics-listen-address`.
    pub(crate) http: [u16; 3],
    pub(crate) upstream: Upstream,
    started: u32,
}

/// One process.
pub(crate) struct Process {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let http = [free_port(), free_port(), free_port()];
        let upstream = Upstream::start(free_port());
        let scene = Scene { folder, dns: free_port(), http, upstream, started: 0 };
        let [prometheus, health, _] = http;
        let corefile = format!(
            ".:{} {{\n bind 127.0.0.1\n errors\n timeouts {{\n  read 1h\n  idle 1h\n }}\n cache 3600\n prometheus 127.0.0.1:{prometheus}\n \
             health 127.0.0.1:{health} {{\n  lameduck 60s\n }}\n forward . {} {{\n  max_fails 0\n }}\n}}\n",
            scene.dns, scene.upstream.address
        );
        fs::write(scene.path("base"), corefile).unwrap();
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has the template say another port from now on.
    pub(crate) fn move_to_another_port(&mut self) {
        let base = fs::read_to_string(self.path("base")).unwrap();
        let old = format!(".:{} ", self.dns);
        self.dns = free_port();
        fs::write(self.path("base"), base.replace(&old, &format!(".:{} ", self.dns))).unwrap();
    }

    /// The socket file of whoever serves.
    pub(crate) fn door(&self) -> PathBuf {
        self.path(&format!("run/handover-dns-127.0.0.1-{}", self.dns))
    }

    /// The program with its flags, and those of the test.
    pub(crate) fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodens"));
        command
            .args(["-localip=127.0.0.1", "-setupinterface=false", "-setupiptables=false"])
            .arg("-seccomp=kill")
            .arg(format!("-metrics-listen-address=127.0.0.1:{}", self.http[2]))
            .arg(format!("-basecorefile={}", self.path("base").display()))
            .arg(format!("-conf={}", self.path("Corefile").display()))
            .arg(format!("-runtime-dir={}", self.path("run").display()))
            .arg(format!("-pidfile={}", self.path("pid").display()))
            .args(flags)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("FDSTORE")
            .stdin(Stdio::null());
        command
    }

    /// Starts a command; does not wait for anything.
    pub(crate) fn spawn(&mut self, command: &mut Command) -> Process {
        self.started += 1;
        let log = self.path(&format!("log-{}", self.started));
        let out = File::create(&log).unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(out);
        // A group of its own: what a test kills is this process and no other.
        Process { child: command.process_group(0).spawn().unwrap(), log }
    }

    /// Starts the program and waits until it serves: then its last line is out.
    pub(crate) fn start(&mut self, flags: &[&str]) -> Process {
        let mut command = self.command(flags);
        self.start_command(&mut command)
    }

    /// As [`Scene::start`], with a command that was made before.
    pub(crate) fn start_command(&mut self, command: &mut Command) -> Process {
        let mut process = self.spawn(command);
        until("it serves", &mut process, |process| process.log().contains("linux/amd64, nodens"));
        // Behind that it waits for successors.
        let door = self.door();
        until("its door", &mut process, |_| door.exists());
        process
    }

    pub(crate) fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(("127.0.0.1", self.dns)).unwrap();
        client
    }

    /// Whether a query is answered as upstream would.
    pub(crate) fn answers(&self, name: &str) -> bool {
        ask(&self.client(), name)
    }

    pub(crate) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.dns)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Status and body of a GET, of one of the three ports.
    pub(crate) fn get(&self, port: usize, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http[port]))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// A metric of whoever serves now; 0 when it is not there.
    pub(crate) fn metric(&self, line_start: &str) -> f64 {
        let text = self.get(0, "/metrics").unwrap();
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
    }

    /// How many handovers the one that serves has counted.
    pub(crate) fn handovers(&self, role: &str, result: &str) -> f64 {
        self.metric(&format!("nodens_handover_total{{result=\"{result}\",role=\"{role}\"}}"))
    }
}

impl Process {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a part of its output: a thread of its own writes that, behind what is told of.
    pub(crate) fn says(&mut self, part: &str) {
        until(part, self, |process| process.log().contains(part));
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("bash").args(["-c", "kill -s $0 $1", name, &id]).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its exit code; it must end by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        until("it ends", self, |process| !process.is_alive());
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
pub(crate) fn until(
    what: &str,
    process: &mut Process,
    mut holds: impl FnMut(&mut Process) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    while !holds(process) {
        assert!(Instant::now() < end, "not in time: {what}\n{}", process.log());
        sleep(Duration::from_millis(5));
    }
}

/// A query for an A record.
pub(crate) fn query(name: &str, id: u16) -> Vec<u8> {
    messages::query(name, RecordType::A, id)
}

/// Whether a client gets the answer.
pub(crate) fn ask(client: &UdpSocket, name: &str) -> bool {
    let id = rand::random();
    client.send(&query(name, id)).is_ok() && is_answer(client, id)
}

fn is_answer(client: &UdpSocket, id: u16) -> bool {
    let mut response = [0; 512];
    loop {
        match client.recv(&mut response) {
            Ok(length) if response[..2] == id.to_be_bytes() => {
                return response[..length].ends_with(&ANSWER.octets());
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// A query for TCP.
pub(crate) fn framed(name: &str, id: u16) -> Vec<u8> {
    let query = query(name, id);
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend(query);
    framed
}

/// Whether the next message of a connection is the answer.
pub(crate) fn is_answered(stream: &mut TcpStream) -> bool {
    let mut length = [0; 2];
    if stream.read_exact(&mut length).is_err() {
        return false;
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).is_ok() && message.ends_with(&ANSWER.octets())
}
