//! A stand-in for the service manager: hears what a service tells, keeps the sockets that come with it as
//! systemd does, and starts the next process with them.

use super::scene::{Process, Scene, until};
use nodens::net::socket_number;
use nodens::sys::inherited::pass_on;
use nodens::sys::unix::{self, Received};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What a child inherits is, for a moment, open to all that are started then: one start at a time.
static ONE_START: Mutex<()> = Mutex::new(());

/// Puts descriptors where sd_listen_fds(3) has them, and its own number into `LISTEN_PID`. Its
/// arguments are a number above all of them, the descriptors, `--`, and the program with its own.
const PUT: &str = "\
number=$1; first=$1; shift
while [ \"$1\" != -- ]; do eval \"exec $number<&$1 $1<&-\"; number=$((number + 1)); shift; done
shift
for ((one = first; one < number; one++)); do eval \"exec $((one - first + 3))<&$one $one<&-\"; done
export LISTEN_PID=${LISTEN_PID:-$$}
exec \"$@\"";

/// A socket that is kept.
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) socket: OwnedFd,
}

#[derive(Default)]
struct Heard {
    kept: Vec<Kept>,
    told: Vec<String>,
}

/// The manager of one service.
pub(crate) struct Manager {
    notify: PathBuf,
    heard: Arc<Mutex<Heard>>,
    /// What it says of its store.
    pub(crate) most: String,
    /// What is put before the program.
    pub(crate) by: Vec<String>,
    /// More of its environment.
    pub(crate) variables: Vec<(String, String)>,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Manager {
    pub(crate) fn new(scene: &Scene) -> Manager {
        let notify = scene.path("notify");
        let socket = UnixDatagram::bind(&notify).unwrap();
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let hears = heard.clone();
        // Ends with the test's process.
        thread::spawn(move || while hear(&socket, &hears).is_ok() {});
        let (by, variables) = (Vec::new(), Vec::new());
        Manager { notify, heard, most: "64".to_owned(), by, variables }
    }

    /// The names of all that is kept, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            lock(&self.heard).kept.iter().map(|kept| kept.name.clone()).collect();
        names.sort();
        names
    }

    /// What was told, the first line of each.
    pub(crate) fn told(&self) -> Vec<String> {
        lock(&self.heard).told.clone()
    }

    /// Has something of its own in its store.
    pub(crate) fn put(&self, name: &str, socket: impl Into<OwnedFd>) {
        lock(&self.heard).kept.push(Kept { name: name.to_owned(), socket: socket.into() });
    }

    /// Takes all out.
    pub(crate) fn take_all(&self) -> Vec<Kept> {
        std::mem::take(&mut lock(&self.heard).kept)
    }

    /// Lets all go, as when the unit is stopped.
    pub(crate) fn drop_all(&self) {
        lock(&self.heard).kept.clear();
    }

    /// Starts the program with all that is kept; does not wait for anything.
    pub(crate) fn spawn(&self, scene: &mut Scene, flags: &[&str]) -> Process {
        let program = scene.command(flags);
        // Until the copies below are closed: they outlive the start.
        let _one = lock(&ONE_START);
        let all: Vec<Kept> = lock(&self.heard)
            .kept
            .iter()
            .map(|kept| Kept { name: kept.name.clone(), socket: kept.socket.try_clone().unwrap() })
            .collect();
        let mut command = Command::new("bash");
        command.args(["-c", PUT, "manager"]);
        let numbers: Vec<i32> = all.iter().map(|kept| kept.socket.as_raw_fd()).collect();
        // The shell has 255 for itself.
        let above = numbers.iter().fold(300, |above, number| above.max(number + 1));
        command.arg(above.to_string());
        command.args(numbers.iter().map(i32::to_string)).arg("--");
        command.args(&self.by).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let names: Vec<&str> = all.iter().map(|kept| kept.name.as_str()).collect();
        command.env("NOTIFY_SOCKET", &self.notify).env("FDSTORE", &self.most);
        if !all.is_empty() {
            command.env("LISTEN_FDS", all.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        for kept in &all {
            pass_on(&kept.socket).unwrap();
        }
        scene.spawn(&mut command)
    }

    /// As [`Manager::spawn`], and waits until it is told that the process serves.
    pub(crate) fn start(&self, scene: &mut Scene, flags: &[&str]) -> Process {
        let before = self.count("READY=1");
        let mut process = self.spawn(scene, flags);
        until("it says that it is ready", &mut process, |process| {
            assert!(process.is_alive(), "{}", process.log());
            self.count("READY=1") > before
        });
        process
    }

    /// How often something was told.
    pub(crate) fn count(&self, first_line: &str) -> usize {
        self.told().iter().filter(|told| *told == first_line).count()
    }
}

/// One message, taken as systemd takes it.
fn hear(socket: &UnixDatagram, heard: &Mutex<Heard>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let Received { length, descriptors } = unix::receive(socket.as_fd(), &mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let has = |line: &str| text.lines().any(|one| one == line);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
    let mut heard = lock(heard);
    heard.told.push(text.lines().next().unwrap_or_default().to_owned());
    if has("FDSTOREREMOVE=1") {
        let name = name.expect("what is to go has a name");
        heard.kept.retain(|kept| kept.name != name);
    } else if has("FDSTORE=1") {
        let name = name.unwrap_or("stored").to_owned();
        let is_allowed = |octet: u8| (b' '..=b'~').contains(&octet) && octet != b':';
        assert!(name.bytes().all(is_allowed) && name.len() <= 255, "{name}");
        for socket in descriptors {
            let number = socket_number(socket.as_fd());
            let is_known = |kept: &Kept| socket_number(kept.socket.as_fd()) == number;
            if !heard.kept.iter().any(is_known) {
                heard.kept.push(Kept { name: name.clone(), socket });
            }
        }
    }
    // What else came along is closed here: a barrier.
    Ok(())
}

/// The descriptors of a process that are sockets.
pub(crate) fn sockets_of(process: u32) -> usize {
    let all = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let is_socket = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    };
    all.filter_map(Result::ok).filter(is_socket).count()
}
