//! A thread with a network and a mount namespace of its own: what a test changes there (rules,
//! links, `/run`) nobody else sees, and it goes with the thread and its children.
#![allow(dead_code)] // Not every test file uses all of it.

pub(crate) mod program;

use super::missing::{are_here, say_missing};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

/// Runs a test in namespaces of its own, with `lo` up and an empty `/run`. Where they or one of
/// the programs are missing it says so, and fails when `NODENS_TEST_ALL=1` asks for all tests.
pub(crate) fn in_namespaces(programs: &[&str], test: impl FnOnce() + Send + 'static) {
    if !are_here(&["ip", "mount", "timeout"]) || !are_here(programs) {
        return;
    }
    let thread = thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
            return say_missing(&format!("namespaces: {error}"));
        }
        // What is mounted here stays here.
        let here = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, here, None::<&str>).unwrap();
        mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        sh("ip link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Lets one file stand in place of another, in this namespace alone.
pub(crate) fn replace(path: &str, by: &Path) {
    mount(Some(by), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// Runs a line of shell for at most a minute.
pub(crate) fn try_sh(line: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "60", "bash", "-c", line]).stdin(Stdio::null());
    command.output().unwrap()
}

/// Runs a line of shell and gives what it wrote; it must not fail.
pub(crate) fn sh(line: &str) -> String {
    let output = try_sh(line);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Lets a script stand for all programs of `iptables-nft`, in this namespace alone; `$REAL` in it is
/// the real one.
pub(crate) fn stand_in(folder: &Path, script: &str) {
    let (real, path) = (folder.join("real"), folder.join("script"));
    copy_program("/usr/sbin/xtables-nft-multi", &real);
    write_program(&path, &format!("#!/bin/bash\nREAL={}\n{script}\n", real.display()));
    replace("/usr/sbin/xtables-nft-multi", &path);
}

/// Copies a program that is to be run. By another program: what this process has open for writing, the
/// programs that other tests start have, too, until they run, and what somebody writes cannot be run.
pub(crate) fn copy_program(from: &str, to: &Path) {
    sh(&format!("install -m 755 {from} {}", to.display()));
}

/// Writes a script that is to be run, as [`copy_program`] copies.
pub(crate) fn write_program(path: &Path, text: &str) {
    let beside = path.with_extension("text");
    fs::write(&beside, text).unwrap();
    copy_program(&beside.display().to_string(), path);
}
