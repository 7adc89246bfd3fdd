//! A thread with a network and a mount namespace of its own: what a test changes there (rules,
//! links, `/run`) nobody else sees, and it goes with the thread and its children.

#[allow(dead_code)] // Not every test file that uses this one.
pub(crate) mod program;

use super::missing::{are_here, say_missing};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::os::unix::fs::PermissionsExt;
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
#[allow(dead_code)] // Not every test file that uses this one.
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
#[allow(dead_code)] // Not every test file that uses this one.
pub(crate) fn stand_in(folder: &Path, script: &str) {
    let (real, path) = (folder.join("real"), folder.join("script"));
    fs::copy("/usr/sbin/xtables-nft-multi", &real).unwrap();
    let text = format!("#!/bin/bash\nREAL={}\n{script}\n", real.display());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    replace("/usr/sbin/xtables-nft-multi", &path);
}
