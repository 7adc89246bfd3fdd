//! The commands of the documentation, run: each page on a machine of its own (network and mount
//! namespaces), its commands in order, in a folder that looks like the repository.
//!
//! A command that serves goes on in the background until the page serves anew or ends. `kinds` says which
//! do, and what is not run here.

use super::kinds::{Kind, kind, words};
use super::namespace::{in_namespaces, replace, sh, try_sh};
use super::repository::root;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NODENS: &str = env!("CARGO_BIN_EXE_nodens");

/// The longest that a server may take to start, and a command to succeed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs that pages run.
const TOOLS: &[&str] = &["curl", "dig", "dnsperf", "nft", "promtool", "systemd-socket-activate"];

/// A command and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Example {
    /// `docs/install.md:12`.
    pub(crate) place: String,
    /// One line, or more with a here document.
    pub(crate) text: String,
}

/// The commands of the blocks fenced as `sh`.
pub(crate) fn examples(page: &str, text: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| *line != "```sh");
    while let Some((_, fence)) = lines.next() {
        if fence != "```sh" {
            continue;
        }
        // A here document's end, while inside of one; whether the line before goes on.
        let (mut until, mut goes_on) = (None, false);
        for (number, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
            let is_more = goes_on || until.is_some();
            if until.as_deref() == Some(line) {
                until = None;
            } else if until.is_none() {
                until = line
                    .split_once("<<'")
                    .and_then(|(_, rest)| rest.split_once('\''))
                    .map(|(end, _)| end.to_owned());
            }
            goes_on = line.ends_with('\\');
            match found.last_mut() {
                Some(last) if is_more => last.text += &format!("\n{line}"),
                _ if line.trim().is_empty() || line.starts_with('#') => {}
                _ => found.push(Example {
                    place: format!("{page}:{}", number + 1),
                    text: line.to_owned(),
                }),
            }
        }
    }
    found
}

/// A page's machine.
struct Machine {
    folder: tempfile::TempDir,
    server: Option<Child>,
    upstream: Option<Child>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in [self.server.take(), self.upstream.take()].into_iter().flatten() {
            stop(child);
        }
    }
}

fn stop(mut child: Child) {
    // It takes away what it made.
    let _ = try_sh(&format!("kill -TERM {}", child.id()));
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What the machine's DNS servers know: the names that pages ask for. On 127.0.0.55 as the Debian
/// package, on 169.254.20.10 as a node's, on 127.0.0.2 for resolv.conf.
const UPSTREAM: &str = "\
(names) {
    hosts {
        192.0.2.1 example.com example.org kubernetes.default.svc.cluster.local
        2001:db8::1 example.com
        192.0.2.7 printer.example.com
        fallthrough
    }
    template ANY MX example.com example.org {
        answer \"{{ .Name }} 60 IN MX 10 mail.example.com.\"
    }
    template ANY TXT example.com example.org {
        answer \"{{ .Name }} 60 IN TXT text\"
    }
    template ANY ANY default default.default.svc.cluster.local {
        rcode NXDOMAIN
    }
}
. {
    bind 127.0.0.2 127.0.0.55
    import names
}
";

/// The same where a node's cache would be, for pages that start none.
const NODE: &str = "\
.:53 .:1053 {
    bind 127.0.0.1 169.254.20.10
    import names
    cache
    prometheus 169.254.20.10:9253
    health 169.254.20.10:8080
}
";

impl Machine {
    fn new(starts_its_own: Serves) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        // The repository, in which the page may write without writing into it.
        for entry in fs::read_dir(root()).unwrap() {
            let entry = entry.unwrap();
            if !["target", ".git"].iter().any(|name| entry.file_name() == *name) {
                symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
        }
        let programs =
            ["target/release/nodens", "target/debug/nodens", "bin/nodens", "bin/node-cache"];
        for program in programs {
            let path = folder.path().join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(NODENS, path).unwrap();
        }
        // What a page takes from a cluster.
        let template = root().join("config/node-local-dns.Corefile");
        fs::copy(template, folder.path().join("Corefile.base")).unwrap();
        let mut corefile = UPSTREAM.to_owned();
        if starts_its_own == Serves::Nothing {
            sh("ip addr add 169.254.20.10/32 dev lo");
            corefile += NODE;
        }
        fs::write(folder.path().join("upstream.Corefile"), corefile).unwrap();
        let conf = "nameserver 127.0.0.2\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n";
        fs::write(folder.path().join("resolv.conf"), conf).unwrap();
        replace("/etc/resolv.conf", &folder.path().join("resolv.conf"));
        let mut machine = Machine { folder, server: None, upstream: None };
        let upstream = "target/release/nodens run upstream.Corefile";
        machine.upstream = Some(machine.serve("the machine's DNS", upstream));
        machine
    }

    fn shell(&self, text: &str) -> String {
        let text = text.replacen("cargo run --release -- ", "target/release/nodens ", 1);
        let text = text.replacen("cargo run -- ", "target/release/nodens ", 1);
        let text = text.replacen("cargo run --release", "target/release/nodens", 1);
        let folder = self.folder.path().display();
        format!("set -euo pipefail; cd {folder}; export PATH={folder}/bin:$PATH; {text}\n")
    }

    /// Starts it and waits until it says that it serves.
    fn serve(&self, place: &str, text: &str) -> Child {
        let log: PathBuf = self.folder.path().join(format!("log-{}", place.replace('/', "-")));
        let out = fs::File::create(&log).unwrap();
        // The shell becomes the program, so that the child's id is the program's.
        let text = text.split("    #").next().unwrap_or_default();
        let line = self.shell(&format!("exec {}", text.trim_start()));
        let line = line.replace("exec cargo run --release", "exec target/release/nodens");
        let mut command = Command::new("bash");
        command.args(["-c", &line]).stdin(Stdio::null());
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let mut child = command.spawn().unwrap();
        let began = Instant::now();
        loop {
            let told = fs::read_to_string(&log).unwrap();
            if ["CoreDNS-", "serving ", "Listening on "].iter().any(|said| told.contains(said)) {
                return child;
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{place}: `{text}` ended with {ended:?}:\n{told}");
            assert!(began.elapsed() < PATIENCE, "{place}: `{text}` does not serve:\n{told}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs it until it succeeds: servers take an edit, and the first answer, in their own time.
    fn run(&self, example: &Example) {
        let words = words(&example.text);
        let asks = ["dig", "curl"].contains(&words[0]) || words.contains(&"query");
        let began = Instant::now();
        loop {
            let output = try_sh(&self.shell(&example.text));
            let text = String::from_utf8_lossy(&output.stdout);
            let code = output.status.code();
            let is_well = match words[..] {
                ["dig", ..] => code == Some(0) && text.contains("status: NOERROR"),
                // 1 is "something is there".
                [_, "cleanup", ..] => matches!(code, Some(0 | 1)),
                _ => code == Some(0),
            };
            if is_well {
                return;
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            let is_over = !asks || began.elapsed() > PATIENCE;
            assert!(
                !is_over,
                "{}: `{}` ends with {code:?}:\n{text}{errors}",
                example.place, example.text
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Whether a page starts a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    Itself,
    Nothing,
}

/// Runs a page's commands, in order, on a machine of its own.
pub(crate) fn run(examples: Vec<Example>) {
    if examples.iter().all(|example| matches!(kind(&example.text), Kind::LookedAt(_))) {
        return;
    }
    let serves = match examples.iter().any(|example| kind(&example.text) == Kind::Server) {
        true => Serves::Itself,
        false => Serves::Nothing,
    };
    in_namespaces(TOOLS, move || {
        let mut machine = Machine::new(serves);
        for example in &examples {
            match kind(&example.text) {
                Kind::LookedAt(_) => {}
                Kind::Ends => machine.run(example),
                Kind::Server => {
                    if let Some(before) = machine.server.take() {
                        stop(before);
                    }
                    machine.server = Some(machine.serve(&example.place, &example.text));
                }
            }
        }
    });
}

#[test]
fn an_example_is_a_line_or_more_with_a_here_document() {
    let page = "a\n```sh\none \\\n  two\n# not this\nthree <<'END'\n  x\n\nEND\nfour\n```\n";
    let found: Vec<String> = examples("p", page).into_iter().map(|one| one.text).collect();
    assert_eq!(found, ["one \\\n  two", "three <<'END'\n  x\n\nEND", "four"]);
}
