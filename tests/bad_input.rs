//! Every command with wrong arguments, missing files and no permission: one clear line, the exit code
//! that fits, nothing changed.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The least user of the system, to whom nothing here belongs.
const NOBODY: u32 = 65534;

/// What a run gave.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

fn told(command: &mut Command) -> Told {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    Told { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_nodens"))
}

/// All files of a folder with their octets.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap_or_default()))
        .collect();
    all.sort();
    all
}

/// A folder with a good file, a wrong one, and one that nobody may read.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    // Everybody may come in; what is in it is another matter.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("good"), ".:0 {\n    whoami\n}\n").unwrap();
    fs::write(folder.path().join("wrong"), ". {\n    kache 30\n}\n").unwrap();
    fs::write(folder.path().join("secret"), ". {\n}\n").unwrap();
    fs::set_permissions(folder.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

/// Arguments, exit code, and how the one line begins.
const LINES: &[(&str, i32, &str)] = &[
    // No command.
    ("serve", 64, "nodens: unrecognized subcommand 'serve'"),
    ("QUERY", 64, "nodens: unrecognized subcommand 'QUERY'"),
    // run
    ("run missing", 66, "nodens run: cannot read missing: no such file or directory"),
    ("run .", 66, "nodens run: cannot read .: is a directory"),
    ("run good more", 64, "nodens run: unexpected argument 'more' behind the Corefile"),
    ("run good -quiet", 64, "nodens run: unexpected argument '-quiet' behind the Corefile"),
    ("run wrong", 1, "wrong:2 - Error during parsing: Unknown directive 'kache'"),
    ("run missing more", 64, "nodens run: unexpected argument 'more' behind the Corefile"),
    ("good", 64, "nodens: 'good' is no command; to serve by it: nodens run good"),
    // check
    ("check", 64, "nodens: the following required arguments were not provided: <COREFILE>"),
    ("check missing", 66, "nodens check: cannot read missing: no such file or directory"),
    ("check .", 66, "nodens check: cannot read .: is a directory"),
    ("check good wrong", 64, "nodens: unexpected argument 'wrong' found"),
    ("check -o xml good", 64, "nodens: invalid value 'xml' for '--output"),
    ("check --localip nonsense good", 64, "nodens: invalid value 'nonsense' for '--localip"),
    ("check --sctrict good", 64, "nodens: unexpected argument '--sctrict' found"),
    // query
    (
        "query +tls +tls-ca=missing a",
        66,
        "nodens query: +tls-ca: cannot read missing: no such file",
    ),
    ("query +tls +tls-ca=wrong a", 65, "nodens query: +tls-ca: wrong: it has no certificate"),
    ("query -p 99999 a", 64, "nodens query: -p: '99999' is not from 1 to 65535"),
    ("query -o xml a", 64, "nodens query: -o takes text or json, not 'xml'"),
    // cleanup
    ("cleanup now", 64, "nodens: unexpected argument 'now' found"),
    ("cleanup --localip nonsense", 64, "nodens: invalid value 'nonsense' for '--localip"),
    ("cleanup --dns-port 70000", 64, "nodens: invalid value '70000' for '--dns-port"),
    ("cleanup -o yaml", 64, "nodens: invalid value 'yaml' for '--output"),
    ("cleanup --yse", 64, "nodens: unexpected argument '--yse' found"),
    // completions, man, version
    ("completions", 64, "nodens: the following required arguments were not provided: <SHELL>"),
    ("completions ksh", 64, "nodens: invalid value 'ksh' for '<SHELL>'"),
    ("completions bash zsh", 64, "nodens: unexpected argument 'zsh' found"),
    ("man nothing", 64, "nodens man: there is no command 'nothing'"),
    ("man query version", 64, "nodens: unexpected argument 'version' found"),
    ("version --json", 64, "nodens: unexpected argument '--json' found"),
    ("help nothing", 64, "nodens: unrecognized subcommand 'nothing'"),
];

#[test]
fn every_command_says_in_one_line_what_is_wrong_and_changes_nothing() {
    let folder = folder();
    let before = files(folder.path());
    for (line, code, start) in LINES {
        let told = told(program().args(line.split(' ')).current_dir(folder.path()));
        assert_eq!((told.code, told.out.as_str()), (Some(*code), ""), "{line}: {told:?}");
        assert_eq!(told.err.lines().count(), 1, "{line}: {}", told.err);
        assert!(told.err.starts_with(start), "{line}: {}", told.err);
    }
    assert_eq!(files(folder.path()), before);
}

/// As a user without rights, where the test has the rights to become one.
#[test]
fn what_may_not_be_done_is_told_with_77() {
    let folder = folder();
    // Within reach of that user, wherever this was built.
    let reachable = tempfile::tempdir().unwrap();
    fs::set_permissions(reachable.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = reachable.path().join("nodens");
    // By a program: what this process has open for writing, the children of other tests might have, too.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_nodens")).arg(&copy).status();
    assert!(copied.unwrap().success());
    let unprivileged = |line: &str| {
        let mut command = Command::new(&copy);
        command.args(line.split(' ')).current_dir(folder.path()).uid(NOBODY).gid(NOBODY);
        command
    };
    match unprivileged("version").output() {
        Ok(output) if output.status.success() => {}
        other => return missing::say_missing(&format!("another user to run as: {other:?}")),
    }
    let before = files(folder.path());
    for (line, start) in [
        ("run secret", "nodens run: cannot read secret: permission denied"),
        ("check secret", "nodens check: cannot read secret: permission denied"),
        (
            "query +tls +tls-ca=secret a",
            "nodens query: +tls-ca: cannot read secret: permission denied",
        ),
    ] {
        let told = told(&mut unprivileged(line));
        assert_eq!((told.code, told.out.as_str()), (Some(77), ""), "{line}: {told:?}");
        assert_eq!(told.err.lines().count(), 1, "{line}: {}", told.err);
        assert!(told.err.starts_with(start), "{line}: {}", told.err);
    }
    // The node's rules are root's to see.
    let told = told(&mut unprivileged("cleanup"));
    assert_eq!(told.code, Some(77), "{told:?}");
    assert!(told.err.lines().all(|line| line.starts_with("nodens cleanup: ")), "{told:?}");
    assert_eq!(files(folder.path()), before);
}

#[test]
fn output_that_cannot_be_written_is_told_with_74() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for line in ["version", "man", "completions bash", "help", "query --help"] {
        let told = told(program().args(line.split(' ')).stdout(full()));
        assert_eq!(told.code, Some(74), "{line}: {told:?}");
        let why = "cannot write the output: No space left on device";
        assert!(told.err.contains(why), "{line}: {told:?}");
        assert_eq!(told.err.lines().count(), 1, "{line}: {told:?}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    for line in ["man", "completions bash", "query --help"] {
        let mut command = program();
        command.args(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(output.stderr.is_empty(), "{line}: {output:?}");
    }
}
