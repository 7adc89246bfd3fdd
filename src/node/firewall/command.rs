//! Running a program to its end, within a time: what hangs is killed with all that it started.
//!
//! Owns the bounds on time and output. Knows no firewall.

use crate::sys::inherited;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The most octets that are kept of one output. A node's `filter` table with its thousands of
/// kube-proxy rules is below 4 MiB.
const MOST_OUTPUT: u64 = 32 << 20;

/// How often a program that closed its outputs is asked whether it has ended.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// The greatest length in octets of a program's words in a line of ours.
const LONGEST_WORDS: usize = 400;

/// The end of the time that an operation may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// A time from now.
    pub(super) fn within(time: Duration) -> Deadline {
        Deadline(Instant::now() + time)
    }

    /// What is left; zero when it is over.
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// The exit code of the iptables programs for words that they do not know.
const UNKNOWN_WORD: i32 = 2;

/// Why a program gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// There is no such program.
    Missing {
        /// Its name.
        program: String,
    },
    /// It could not be started, or its output not be read.
    Broken {
        /// Its name.
        program: String,
        /// The system's words.
        why: String,
    },
    /// It did not end in time and was killed.
    Killed {
        /// Its name.
        program: String,
        /// Since its start.
        after: Duration,
    },
    /// It was not started: programs before it took all the time.
    Late {
        /// Its name.
        program: String,
    },
    /// It ended with another code than 0.
    Exit {
        /// Its name.
        program: String,
        /// Its code; `None` when a signal ended it.
        code: Option<i32>,
        /// As Go has it: `exit status 4`, `signal: 9`.
        status: String,
        /// What it said, cut.
        words: String,
    },
}

impl Failure {
    /// Whether the program does not know a word that it was given: a version without `-w`.
    pub(super) fn is_unknown_word(&self) -> bool {
        matches!(self, Failure::Exit { code: Some(UNKNOWN_WORD), .. })
    }

    /// Whether somebody else held the lock of the tables for all the time.
    pub fn is_lock(&self) -> bool {
        matches!(self, Failure::Exit { words, .. } if words.contains("holding the xtables lock"))
    }

    /// Whether a privilege is missing.
    pub fn is_permission(&self) -> bool {
        let text = self.to_string();
        ["ermission denied", "you must be root", "not permitted"]
            .iter()
            .any(|words| text.contains(words))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Missing { program } => {
                write!(f, "exec: \"{program}\": executable file not found in $PATH")
            }
            Failure::Broken { program, why } => write!(f, "{program}: {why}"),
            Failure::Killed { program, after } => {
                write!(
                    f,
                    "{program}: did not end within {:.1}s and was killed",
                    after.as_secs_f64()
                )
            }
            Failure::Late { program } => write!(f, "{program}: no time was left to start it"),
            Failure::Exit { program, status, words, .. } => {
                write!(f, "{program}: {status}: {words}")
            }
        }
    }
}

/// Where a program is, by the environment's `PATH`.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| can_run(path))
}

fn can_run(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Runs `program` with `input`; gives what it wrote to standard output. Its lines on standard
/// error stand in the [`Failure`].
pub(super) fn run(
    program: &str,
    arguments: &[&str],
    input: &str,
    deadline: Deadline,
) -> Result<String, Failure> {
    run_at(Path::new(program), program, arguments, input, deadline)
}

/// The same for a program that belongs to `first`, the path of another one: that of the same folder. Elsewhere
/// on `PATH` it may be for other tables, or for none.
pub(super) fn run_beside(
    first: Option<&Path>,
    program: &str,
    arguments: &[&str],
    input: &str,
    deadline: Deadline,
) -> Result<String, Failure> {
    let path = match first.map(|first| first.with_file_name(program)) {
        Some(path) if can_run(&path) => path,
        Some(_) => return Err(Failure::Missing { program: program.to_owned() }),
        None => PathBuf::from(program),
    };
    run_at(&path, program, arguments, input, deadline)
}

fn run_at(
    path: &Path,
    program: &str,
    arguments: &[&str],
    input: &str,
    deadline: Deadline,
) -> Result<String, Failure> {
    let start = Instant::now();
    let broken =
        |error: &io::Error| Failure::Broken { program: program.to_owned(), why: error.to_string() };
    let killed = || Failure::Killed { program: program.to_owned(), after: start.elapsed() };
    if deadline.left().is_zero() {
        return Err(Failure::Late { program: program.to_owned() });
    }
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in inherited::VARIABLES {
        command.env_remove(name);
    }
    // A group of its own, so that a script's children can be ended with it.
    command.process_group(0);
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Missing { program: program.to_owned() },
        _ => broken(&error),
    })?;
    let mut group = Group(Some(child));
    let Some(child) = group.0.as_mut() else { return Err(killed()) };
    let told = child.stdin.take();
    let (output, errors) = (read(child.stdout.take()), read(child.stderr.take()));
    // A program that does not read must not hold us up.
    let text = input.to_owned();
    let writer = thread::Builder::new().name("firewall-input".to_owned());
    let written = writer.spawn(move || {
        // One that ends without reading says why by its code.
        let _ = told.map(|mut pipe| pipe.write_all(text.as_bytes()));
    });
    written.map_err(|error| broken(&error))?;
    let (Ok(output), Ok(errors)) = (output, errors) else {
        return Err(broken(&io::Error::other("no thread for its output")));
    };
    let output = output.recv_timeout(deadline.left()).map_err(|_| killed())?;
    let errors = errors.recv_timeout(deadline.left()).map_err(|_| killed())?;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if deadline.left().is_zero() => return Err(killed()),
            Ok(None) => thread::sleep(ASK_EVERY),
            Err(error) => return Err(broken(&error)),
        }
    };
    group.0 = None;
    if status.success() {
        return Ok(output);
    }
    let words = if errors.trim().is_empty() { output } else { errors };
    Err(Failure::Exit {
        program: program.to_owned(),
        code: status.code(),
        status: shown(status),
        words: cut(&words),
    })
}

/// A running program that is killed, with its children, unless it was seen to end.
struct Group(Option<Child>);

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if let Ok(id) = i32::try_from(child.id()) {
            // Fails only when all of them are gone.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Reads a pipe to its end on a thread of its own. The thread outlives the call when somebody
/// keeps the pipe open; it holds nothing but the pipe.
fn read(pipe: Option<impl Read + Send + 'static>) -> io::Result<Receiver<String>> {
    let (sender, receiver) = sync_channel(1);
    thread::Builder::new().name("firewall-output".to_owned()).spawn(move || {
        let mut octets = Vec::new();
        if let Some(pipe) = pipe {
            // What came before an error is still worth showing.
            let _ = pipe.take(MOST_OUTPUT).read_to_end(&mut octets);
        }
        // Nobody waits any more: nothing to tell.
        let _ = sender.send(String::from_utf8_lossy(&octets).into_owned());
    })?;
    Ok(receiver)
}

fn shown(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => status.to_string(),
    }
}

/// One line of what a program said.
fn cut(words: &str) -> String {
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = line.floor_char_boundary(LONGEST_WORDS);
    line[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Nothing but a mistake takes as long.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn bash(script: &str, input: &str, within: Duration) -> Result<String, Failure> {
        run("bash", &["-c", script], input, Deadline::within(within))
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        let much = "x".repeat(1 << 20);
        assert_eq!(bash("cat", &much, LONG).unwrap(), much);
        assert_eq!(bash("echo a; echo b >&2", "unread", LONG).unwrap(), "a\n");
    }

    #[test]
    fn a_code_comes_with_what_was_said() {
        let failure = bash("echo '  Another app is'; exit 4", "", LONG).unwrap_err();
        assert_eq!(failure.to_string(), "bash: exit status 4: Another app is");
        assert!(!failure.is_lock() && !failure.is_unknown_word());
        assert!(bash("exit 2", "", LONG).unwrap_err().is_unknown_word());
        let failure = bash("echo a; echo 'holding the xtables lock' >&2; exit 4", "", LONG);
        assert!(failure.unwrap_err().is_lock());
        let failure = bash("kill -9 $$", "", LONG).unwrap_err();
        assert_eq!(failure.to_string(), "bash: signal: 9: ");
    }

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        let failure = run("no-such-program", &[], "", Deadline::within(LONG)).unwrap_err();
        assert_eq!(failure, Failure::Missing { program: "no-such-program".to_owned() });
        let text = failure.to_string();
        assert_eq!(text, "exec: \"no-such-program\": executable file not found in $PATH");
    }

    #[test]
    fn programs_are_looked_for_on_the_path() {
        assert!(find("sh").is_some_and(|path| path.ends_with("sh")));
        assert_eq!(find("no-such-program"), None);
    }

    #[test]
    fn a_program_that_belongs_to_another_is_that_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("first");
        let beside = |first: Option<&Path>| {
            run_beside(first, "sh", &["-c", "echo a"], "", Deadline::within(LONG))
        };
        let missing = Failure::Missing { program: "sh".to_owned() };
        assert_eq!(beside(Some(&first)), Err(missing.clone()));
        assert_eq!(beside(None).unwrap(), "a\n");
        let own = folder.path().join("sh");
        // What cannot be run is none: a file without the mode for it, a folder.
        fs::write(&own, "#!/bin/sh\n").unwrap();
        assert_eq!(beside(Some(&first)), Err(missing.clone()));
        fs::remove_file(&own).unwrap();
        fs::create_dir(&own).unwrap();
        assert_eq!(beside(Some(&first)), Err(missing));
        fs::remove_dir(&own).unwrap();
        std::os::unix::fs::symlink(find("sh").unwrap(), &own).unwrap();
        assert_eq!(beside(Some(&first)).unwrap(), "a\n");
    }

    #[test]
    fn what_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let ids = folder.path().join("ids");
        // The pipes stay open in the child; the second script closes them and hangs all the same.
        for script in
            ["sleep 1000 & echo $! $$ >$0; wait", "exec >&- 2>&-; echo $$ >$0; sleep 1000"]
        {
            let start = Instant::now();
            let path = ids.to_str().unwrap();
            let arguments = ["-c", script, path];
            // A busy machine may take longer than the first time to begin with it.
            let text = [1, 5, 30].into_iter().find_map(|seconds| {
                let within = Deadline::within(Duration::from_secs(seconds));
                let failure = run("bash", &arguments, "", within);
                assert!(matches!(failure, Err(Failure::Killed { .. })), "{failure:?}");
                let text = failure.unwrap_err().to_string();
                assert!(text.starts_with("bash: did not end within "), "{text}");
                assert!(text.ends_with("s and was killed"), "{text}");
                std::fs::read_to_string(&ids).ok().filter(|text| text.ends_with('\n'))
            });
            std::fs::remove_file(&ids).unwrap();
            assert!(start.elapsed() < PATIENCE);
            for id in text.unwrap().split_whitespace() {
                let id = Pid::from_raw(id.parse().unwrap());
                let end = Instant::now() + PATIENCE;
                // The child of a killed script is reaped by whoever inherits it.
                while nix::sys::signal::kill(id, None).is_ok() && !is_zombie(id) {
                    assert!(Instant::now() < end, "{id} still runs");
                    thread::yield_now();
                }
            }
        }
    }

    fn is_zombie(id: Pid) -> bool {
        std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }

    #[test]
    fn nothing_is_started_when_the_time_is_over() {
        let failure = run("bash", &["-c", "exit 1"], "", Deadline::within(Duration::ZERO));
        assert_eq!(failure.unwrap_err().to_string(), "bash: no time was left to start it");
    }
}
