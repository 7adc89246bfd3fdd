//! A guardian as whoever started it sees it: signals, exit codes, its own size. Needs no namespace.

use super::ports::free_port;
use super::{pid, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

/// A number of `/proc/ID/status` in KiB.
fn kibibytes(id: Pid, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Starts nodens with a guardian and without rules.
fn guarded(folder: &tempfile::TempDir, port: u16) -> Child {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let address = "127.0.0.1";
    let corefile = format!(".:{port} {{\n bind {address}\n whoami\n}}\n");
    fs::write(path("Corefile"), corefile).unwrap();
    let log = File::create(path("log")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_nodens"))
        .args(["-guardian", "-setupinterface=false", "-setupiptables=false", "-seccomp=kill"])
        .arg(format!("-localip={address}"))
        .arg(format!("-conf={}", path("Corefile")))
        .arg(format!("-basecorefile={}", path("none")))
        .arg(format!("-pidfile={}", path("pid")))
        .arg(format!("-runtime-dir={}", path("run")))
        .arg(format!("-metrics-listen-address={address}:0"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    until("the server", || fs::read_to_string(path("pid")).is_ok_and(|text| text.ends_with('\n')));
    child
}

#[test]
fn a_guardian_hands_signals_on_and_ends_as_its_server_does() {
    let folder = tempfile::tempdir().unwrap();
    let log = || fs::read_to_string(folder.path().join("log")).unwrap();
    let port = free_port();
    let of = |child: &Child| Pid::from_raw(child.id().try_into().unwrap());
    let mut child = guarded(&folder, port);
    let (guardian, server) = (of(&child), pid(folder.path()));
    assert_ne!(guardian, server);
    kill(guardian, Signal::SIGHUP).unwrap();
    kill(guardian, Signal::SIGUSR1).unwrap();
    until("a reload", || log().contains("SIGUSR1: Reloading"));
    println!(
        "the guardian has {} KiB of its own, {} KiB with the program's pages",
        kibibytes(guardian, "RssAnon"),
        kibibytes(guardian, "VmRSS")
    );
    kill(guardian, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", log());
    assert!(log().contains("SIGTERM: Shutting down"), "{}", log());

    // Killed: as shells tell it. Nothing is removed, for there are no rules.
    fs::remove_file(folder.path().join("pid")).unwrap_or_default();
    let mut child = guarded(&folder, port);
    kill(pid(folder.path()), Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9), "{}", log());
    assert!(!log().contains("are removed"), "{}", log());

    // A guardian that is killed takes its server with it, which ends cleanly.
    fs::remove_file(folder.path().join("pid")).unwrap();
    let mut child = guarded(&folder, port);
    child.kill().unwrap();
    child.wait().unwrap();
    until("the server's end", || !folder.path().join("pid").exists());
    // Nobody waits for this process: its lines may be on their way.
    until("its last words", || log().contains("SIGTERM: Shutting down"));
}
