//! What is done with each command of the documentation. What cannot be run is in [`NOT_RUN`], with the
//! reason, and is looked at instead: the paths, targets and names in it are there.

use super::commands::Example;
use super::repository::root;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// What is done with a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It serves until it is stopped.
    Server,
    /// It ends, with 0.
    Ends,
    /// It is looked at: the check of this row.
    LookedAt(usize),
}

/// A program whose commands are looked at instead of run.
struct NotRun {
    program: &'static str,
    /// Why.
    #[allow(dead_code)] // It is for people.
    reason: &'static str,
    /// Whether what the words name is there; the error says what is not.
    look: fn(&[&str]) -> Result<(), String>,
}

#[rustfmt::skip] // A table.
const NOT_RUN: &[NotRun] = &[
    NotRun { program: "kubectl", reason: "needs a cluster; the manifests are validated by tests/deploy/check.py", look: kubectl },
    NotRun { program: "helm", reason: "needs a cluster; the chart is rendered and linted by tests/deploy/check.py", look: helm },
    NotRun { program: "docker", reason: "needs Docker's engine; the image is built by tests/deploy/image.py", look: paths },
    NotRun { program: "dpkg", reason: "would change this machine; tests/deploy/package.py installs the package in one of its own", look: |_| Ok(()) },
    NotRun { program: "deploy/debian/build.sh", reason: "makes a release build; .ci/run package runs it", look: |_| Ok(()) },
    NotRun { program: "deploy/image/build.sh", reason: "makes a release build; .ci/run image runs it", look: |_| Ok(()) },
    NotRun { program: "cargo", reason: "cannot run within cargo; .ci/run runs the same targets", look: cargo },
    NotRun { program: ".ci/run", reason: "runs this test", look: ci },
    NotRun { program: "benches/", reason: "measures for minutes; .ci/run bench runs it, and here it must know its options", look: bench },
    NotRun { program: "tests/deploy/", reason: "needs packages of PyPI; .ci/run runs it", look: |_| Ok(()) },
    NotRun { program: "perf", reason: "watches until it is stopped, and not every kernel lets it", look: |_| Ok(()) },
    NotRun { program: "go", reason: "Go's tool is no part of the tests, which read profiles themselves", look: |_| Ok(()) },
    NotRun { program: "strace", reason: "watches until it is stopped", look: |_| Ok(()) },
    NotRun { program: "mv", reason: "puts another program in the place of the built one", look: |_| Ok(()) },
    NotRun { program: "printf", reason: "as `mv`, of which it is the second half", look: |_| Ok(()) },
    NotRun { program: "python3", reason: "the side-by-side bench is not part of this repository", look: |_| Ok(()) },
];

/// The words of a command without what stands before the program (variables, another namespace) and
/// without its comment; `cargo run` is the program that it runs.
pub(crate) fn words(text: &str) -> Vec<&str> {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(" # ").next().unwrap_or_default();
    let line = line.split("    #").next().unwrap_or_default();
    let is_variable = |word: &&str| {
        word.split('=').next().is_some_and(|name| {
            name.len() < word.len() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
        })
    };
    let mut words: Vec<&str> = line.split_whitespace().skip_while(is_variable).collect();
    if words.len() > 4 && words[..3] == ["ip", "netns", "exec"] {
        words.drain(..4);
    }
    if words.starts_with(&["cargo", "run"]) {
        let own = words.iter().position(|word| *word == "--").map_or(words.len(), |at| at + 1);
        words.drain(..own);
        words.insert(0, "nodens");
    }
    words
}

pub(crate) fn kind(text: &str) -> Kind {
    let words = words(text);
    let Some((program, arguments)) = words.split_first() else { return Kind::Ends };
    let is_row = |row: &NotRun| {
        row.program == *program || (row.program.ends_with('/') && program.starts_with(row.program))
    };
    if let Some(row) = NOT_RUN.iter().position(is_row) {
        return Kind::LookedAt(row);
    }
    // What it starts serves as soon as somebody asks.
    if *program == "systemd-socket-activate" {
        return Kind::Server;
    }
    let is_nodens = ["nodens", "node-cache"].contains(program) || program.ends_with("/nodens");
    let is_told = |word: &&str| ["--help", "-help", "-h", "-version", "-plugins"].contains(word);
    let serves = match arguments.first() {
        None => true,
        Some(first) => {
            (*first == "run" || first.starts_with('-')) && !arguments.iter().any(is_told)
        }
    };
    match is_nodens && serves {
        true => Kind::Server,
        false => Kind::Ends,
    }
}

/// Commands whose programs are among those that are run or looked at: what stands in the page is a
/// command at all.
pub(crate) fn look(example: &Example) -> Result<(), String> {
    let Kind::LookedAt(row) = kind(&example.text) else { return Ok(()) };
    let words = words(&example.text);
    // A path is one of the repository's, and a program of it can be run.
    if words[0].contains('/') {
        let about = fs::metadata(root().join(words[0]));
        let is_program = about.is_ok_and(|about| about.permissions().mode() & 0o111 != 0);
        if !is_program {
            return Err(format!("{}: {} is no program", example.place, words[0]));
        }
    }
    (NOT_RUN[row].look)(&words).map_err(|why| format!("{}: {why}", example.place))
}

fn is_there(path: &str) -> Result<(), String> {
    match root().join(path).exists() {
        true => Ok(()),
        false => Err(format!("{path} is not there")),
    }
}

/// The value behind an option.
fn values<'w>(words: &[&'w str], options: &[&str]) -> Vec<&'w str> {
    let behind = words.windows(2).filter(|pair| options.contains(&pair[0]));
    behind.map(|pair| pair[1]).collect()
}

fn paths(words: &[&str]) -> Result<(), String> {
    values(words, &["--file", "-f"]).into_iter().try_for_each(is_there)
}

fn kubectl(words: &[&str]) -> Result<(), String> {
    let own = fs::read_to_string(root().join("deploy/kubernetes/node-local-dns.yaml")).unwrap();
    for path in values(words, &["-f", "-k"]) {
        // Without a folder it is one that the page has just made.
        if path.contains('/') {
            is_there(path)?;
        }
        if words.contains(&"-k") {
            is_there(&format!("{path}/kustomization.yaml"))?;
        }
    }
    let named = words.iter().filter_map(|word| word.strip_prefix("daemonset/"));
    for name in named.chain(values(words, &["configmap"])) {
        if !own.contains(&format!("name: {name}\n")) {
            return Err(format!("the manifest has nothing that is called {name}"));
        }
    }
    Ok(())
}

fn helm(words: &[&str]) -> Result<(), String> {
    let chart = words.iter().find(|word| word.starts_with("deploy/")).ok_or("no chart")?;
    is_there(&format!("{chart}/Chart.yaml"))?;
    let known = fs::read_to_string(root().join(chart).join("values.yaml")).unwrap();
    for set in values(words, &["--set"]) {
        let key = set.split('=').next().unwrap_or_default();
        for part in key.split('.') {
            if !known.lines().any(|line| line.trim_start().starts_with(&format!("{part}:"))) {
                return Err(format!("the chart has no value {key}"));
            }
        }
    }
    Ok(())
}

fn cargo(words: &[&str]) -> Result<(), String> {
    const VERBS: [&str; 9] =
        ["build", "test", "bench", "check", "doc", "clippy", "fmt", "fuzz", "package"];
    let verb = words.get(1).copied().unwrap_or_default();
    if !VERBS.contains(&verb) {
        return Err(format!("cargo {verb}?"));
    }
    for target in values(words, &["--test"]) {
        is_there(&format!("tests/{target}.rs"))?;
    }
    for target in values(words, &["--bench"]) {
        is_there(&format!("benches/{target}.rs"))?;
    }
    if words.starts_with(&["cargo", "fuzz", "run"]) {
        is_there(&format!("fuzz/fuzz_targets/{}.rs", words.get(3).copied().unwrap_or_default()))?;
    }
    if let Some(filter) = values(words, &["--lib"]).first() {
        let path = filter.replace("::", "/");
        return is_there(&format!("src/{path}")).or_else(|_| is_there(&format!("src/{path}.rs")));
    }
    Ok(())
}

fn ci(words: &[&str]) -> Result<(), String> {
    let script = fs::read_to_string(root().join(".ci/run")).unwrap();
    match words[1..].iter().find(|step| !script.contains(&format!("step_{step}()"))) {
        Some(step) => Err(format!(".ci/run has no step {step}")),
        None => Ok(()),
    }
}

/// A bench knows the options of its line.
fn bench(words: &[&str]) -> Result<(), String> {
    let path = root().join(words[0]);
    if path.extension().is_none_or(|ending| ending != "py") {
        return Ok(());
    }
    let told = Command::new("python3").arg(&path).arg("--help").output();
    let Ok(told) = told else { return Ok(()) };
    let help = String::from_utf8_lossy(&told.stdout);
    if !told.status.success() {
        return Err(format!("{} --help fails", words[0]));
    }
    match words.iter().find(|word| word.starts_with("--") && !help.contains(**word)) {
        Some(option) => Err(format!("{} has no {option}", words[0])),
        None => Ok(()),
    }
}

/// Commands in the text itself, between single backquotes, name what is there.
pub(crate) fn look_at_inline(page: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut is_fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        }
        if is_fenced || line.starts_with("```") {
            continue;
        }
        for code in line.split('`').skip(1).step_by(2) {
            let starts =
                ["cargo ", ".ci/run", "benches/", "tests/deploy/", "deploy/", "kubectl ", "helm "];
            if !starts.iter().any(|start| code.starts_with(start)) || code.contains(['*', '{']) {
                continue;
            }
            let place = format!("{page}:{}", number + 1);
            let example = Example { place: place.clone(), text: code.to_owned() };
            let first = words(code)[0].to_owned();
            // A path that is no command: it is there.
            let told = match kind(code) {
                Kind::LookedAt(_) if first.contains('/') && !code.contains(' ') => {
                    is_there(&first).map_err(|why| format!("{place}: {why}"))
                }
                Kind::LookedAt(_) => look(&example),
                _ if first.contains('/') => {
                    is_there(&first).map_err(|why| format!("{place}: {why}"))
                }
                _ => Ok(()),
            };
            wrong.extend(told.err());
        }
    }
    wrong
}

#[test]
fn commands_are_told_apart() {
    for (text, wanted) in [
        ("cargo run --release     # serves", Kind::Server),
        ("cargo run -- -localip 127.0.0.1", Kind::Server),
        ("cargo run --release -- --help", Kind::Ends),
        ("ip netns exec x target/release/nodens -localip ::1", Kind::Server),
        ("ip netns exec x dig @::1 a", Kind::Ends),
        ("nodens run my.Corefile", Kind::Server),
        ("systemd-socket-activate --listen ::1:53 nodens run my.Corefile", Kind::Server),
        ("nodens query a", Kind::Ends),
        ("nodens version", Kind::Ends),
    ] {
        assert_eq!(kind(text), wanted, "{text}");
    }
    for text in [
        "cargo test",
        "NODENS_TEST_ALL=1 cargo test --test x",
        "kubectl apply -f x",
        "benches/x.py",
    ] {
        assert!(matches!(kind(text), Kind::LookedAt(_)), "{text}");
    }
}

#[test]
fn what_a_command_names_must_be_there() {
    let wrong = |text: &str| {
        let example = Example { place: "p:1".to_owned(), text: text.to_owned() };
        look(&example).unwrap_err()
    };
    assert_eq!(wrong("cargo test --test nothing"), "p:1: tests/nothing.rs is not there");
    assert_eq!(
        wrong("kubectl apply -f deploy/nothing.yaml"),
        "p:1: deploy/nothing.yaml is not there"
    );
    assert_eq!(wrong(".ci/run nothing"), "p:1: .ci/run has no step nothing");
    assert_eq!(wrong("benches/nothing.sh"), "p:1: benches/nothing.sh is no program");
    let chart = "helm install x deploy/helm/nodens --set config.nothing=1";
    assert_eq!(wrong(chart), "p:1: the chart has no value config.nothing");
    assert_eq!(
        look_at_inline("p", "run `benches/nothing.sh` or `.ci/run nothing`\n"),
        ["p:1: benches/nothing.sh is not there", "p:1: .ci/run has no step nothing"]
    );
}
