//! The first hour of somebody new, on a machine of its own (a network namespace): nodens without any
//! argument, a Corefile of one's own, an edit, a mistake, the metrics. Needs root, iproute2 and dig;
//! says so and passes where they are missing, unless `NODENS_TEST_ALL=1`.

// A test may panic, and why it did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod namespace;

use namespace::{copy_program, in_namespaces, replace, sh, try_sh};
use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

const NODENS: &str = env!("CARGO_BIN_EXE_nodens");

/// nodens at work; it ends with this.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn start(folder: &Path, name: &str, arguments: &[&str]) -> Server {
        let log = folder.join(name);
        let out = File::create(&log).unwrap();
        let mut command = Command::new(NODENS);
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        command.stdout(out.try_clone().unwrap()).stderr(out);
        Server { child: command.spawn().unwrap(), log }
    }

    fn lines(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "{what}:\n{}", self.lines());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks it to end, and gives the exit code.
    fn end(mut self) -> Option<i32> {
        sh(&format!("kill -TERM {}", self.child.id()));
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Edits a file in one step: whoever looks at it just then finds the old one or the new one.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

/// The first answer of dig.
fn dig(words: &str) -> String {
    let output = try_sh(&format!("dig +short +tries=1 +time=15 {words}"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The machine's DNS server: it knows one name.
fn upstream(folder: &Path) -> Server {
    let corefile =
        "example.com {\n    bind 127.0.0.2\n    hosts {\n        192.0.2.1 example.com\n    }\n}\n";
    fs::write(folder.join("upstream"), corefile).unwrap();
    let server = Server::start(folder, "upstream.log", &["run", "upstream"]);
    server.until("the upstream answers", || dig("@127.0.0.2 example.com") == "192.0.2.1");
    fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.2\n").unwrap();
    replace("/etc/resolv.conf", &folder.join("resolv.conf"));
    server
}

#[test]
fn without_arguments_it_serves_this_machine_and_says_how_to_try_it() {
    in_namespaces(&["dig"], || {
        let folder = tempfile::tempdir().unwrap();
        let _upstream = upstream(folder.path());
        let server = Server::start(folder.path(), "log", &[]);
        server.until("it answers", || dig("@127.0.0.1 -p 1053 example.com") == "192.0.2.1");
        assert_eq!(dig("@::1 -p 1053 +tcp example.com"), "192.0.2.1");
        server.until("its lines", || {
            server.lines().contains("try: dig @127.0.0.1 -p 1053 example.com\n")
        });
        let lines = server.lines();
        assert!(lines.contains("serving DNS on 127.0.0.1:1053, [::1]:1053 (UDP and TCP), from 127.0.0.2 (/etc/resolv.conf)"), "{lines}");
        assert!(
            lines.contains("see http://127.0.0.1:9253/metrics and http://127.0.0.1:8080/health"),
            "{lines}"
        );
        // What it tells to try works.
        let (_, line) = lines.split_once("try: ").unwrap();
        let told = try_sh(line.lines().next().unwrap());
        assert!(String::from_utf8_lossy(&told.stdout).contains("192.0.2.1"), "{told:?}");
        assert_eq!(server.end(), Some(0));
    });
}

#[test]
fn started_without_a_network_it_resolves_once_resolv_conf_names_a_server() {
    in_namespaces(&["dig"], || {
        let folder = tempfile::tempdir().unwrap();
        let _upstream = upstream(folder.path());
        let resolv_conf = folder.path().join("resolv.conf");
        fs::write(&resolv_conf, "# no network yet\n").unwrap();
        let server = Server::start(folder.path(), "log", &[]);
        server.until("it serves", || server.lines().contains("try: dig"));
        assert!(server.lines().contains("until it names one"), "{}", server.lines());
        assert_eq!(dig("@127.0.0.1 -p 1053 example.com"), "", "nobody to ask");
        // In place: the file is mounted.
        fs::write(&resolv_conf, "nameserver 127.0.0.2\n").unwrap();
        server.until("it answers", || dig("@127.0.0.1 -p 1053 example.com") == "192.0.2.1");
        // The network goes again: whom it asked it asks on, and it does not begin anew.
        fs::write(&resolv_conf, "").unwrap();
        server.until("its line", || server.lines().contains("cannot be used"));
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(dig("@127.0.0.1 -p 1053 example.com"), "192.0.2.1");
        assert_eq!(server.lines().matches("Reloading complete").count(), 1, "{}", server.lines());
        assert_eq!(server.end(), Some(0));
    });
}

#[test]
fn a_corefile_of_ones_own_is_served_edits_are_taken_and_mistakes_are_survived() {
    in_namespaces(&["dig"], || {
        let folder = tempfile::tempdir().unwrap();
        let _upstream = upstream(folder.path());
        // As the README has it: a copy of the one that is served without arguments.
        let own = folder.path().join("my.Corefile");
        let original = include_str!("../config/dev.Corefile");
        fs::write(&own, original).unwrap();
        let server = Server::start(folder.path(), "log", &["run", "my.Corefile"]);
        server.until("it answers", || dig("@127.0.0.1 -p 1053 example.com") == "192.0.2.1");
        server.until("its line", || server.lines().contains("serving .:1053 by my.Corefile\n"));
        // A name more.
        let edited = original.replace("hosts {", "hosts {\n        192.0.2.7 laptop.test");
        put(&own, &edited);
        server.until("the edit", || dig("@127.0.0.1 -p 1053 laptop.test") == "192.0.2.7");
        // A mistake: told with file and line, counted, and the one before serves on.
        put(&own, &edited.replace("cache 30", "cahce 30"));
        let mistake = "my.Corefile:6 - Error during parsing: Unknown directive 'cahce'";
        server.until("the mistake is told", || server.lines().contains(mistake));
        assert_eq!(dig("@127.0.0.1 -p 1053 laptop.test"), "192.0.2.7");
        // `check` finds it before, with a hint.
        let checked =
            try_sh(&format!("cd {} && {NODENS} check my.Corefile", folder.path().display()));
        assert_eq!(checked.status.code(), Some(65), "{checked:?}");
        let told = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(told.contains("my.Corefile:6:5") && told.contains("cache"), "{told}");
        // At a start it is the end, with the same line.
        let again = try_sh(&format!("cd {} && {NODENS} run my.Corefile", folder.path().display()));
        assert_eq!(again.status.code(), Some(1), "{again:?}");
        assert!(String::from_utf8_lossy(&again.stderr).contains(mistake), "{again:?}");
        fs::write(&own, &edited).unwrap();
        assert_eq!(server.end(), Some(0));
        // Nothing was written beside it.
        assert_eq!(fs::read_to_string(&own).unwrap(), edited);
    });
}

#[test]
fn a_port_that_is_taken_is_told_and_the_rest_serves() {
    in_namespaces(&["dig"], || {
        let folder = tempfile::tempdir().unwrap();
        let _upstream = upstream(folder.path());
        let _taken = UdpSocket::bind("[::1]:1053").unwrap();
        let _too = std::net::TcpListener::bind("127.0.0.1:9253").unwrap();
        let server = Server::start(folder.path(), "log", &[]);
        server.until("it answers", || dig("@127.0.0.1 -p 1053 example.com") == "192.0.2.1");
        for line in ["not serving on [::1]:1053", "no /metrics on 127.0.0.1:9253"] {
            server.until(line, || server.lines().contains(line));
        }
    });
}

#[test]
fn a_port_that_needs_root_is_told_with_what_to_do() {
    in_namespaces(&[], || {
        // Within reach of another user, wherever this was built.
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        copy_program(NODENS, &folder.path().join("nodens"));
        fs::write(folder.path().join("low"), ".:53 {\n    bind 127.0.0.1\n    whoami\n}\n")
            .unwrap();
        let mut command = Command::new("timeout");
        command.args(["60", "./nodens", "run", "low"]).current_dir(folder.path());
        let told = command.uid(65534).gid(65534).output().unwrap();
        assert_eq!(told.status.code(), Some(1), "{told:?}");
        assert_eq!(
            String::from_utf8_lossy(&told.stderr),
            "Listen: listen tcp 127.0.0.1:53: bind: permission denied (ports below 1024 need the \
             capability NET_BIND_SERVICE; .:1053 does not)\n"
        );
    });
}
