//! `nodens check` as people and scripts run it: a Corefile in; findings and an exit code out. Every
//! example of its page is run, and everything that ships passes.
#![allow(clippy::unwrap_used)] // A test may panic, and so may what it calls.

mod ports;
mod repository;

use nodens::cli::check::CODES;
use ports::free_port;
use repository::{files_below, files_ending, root};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// What a run gave.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

fn check_in(directory: &Path, arguments: &[&str], input: &str) -> Told {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nodens"))
        .arg("check")
        .args(arguments)
        .current_dir(directory)
        .env_remove("NO_COLOR")
        .env_remove("NODENS_EXAMPLE")
        .env("NODE_IP", "192.0.2.7")
        .env("MY_HOST_IP", "192.0.2.7")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read its input ends before it is written.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Told { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn check(arguments: &[&str], input: &str) -> Told {
    check_in(root(), arguments, input)
}

/// The findings in JSON.
fn findings(told: &Told) -> Vec<Value> {
    let all: Value = serde_json::from_str(&told.out).unwrap_or_else(|_| panic!("{told:?}"));
    all["findings"].as_array().unwrap().clone()
}

/// `LINE:COLUMN CODE` of each error.
fn errors(told: &Told) -> Vec<String> {
    let errors = findings(told).into_iter().filter(|one| one["severity"] == "error");
    errors
        .map(|one| format!("{}:{} {}", one["line"], one["column"], one["code"].as_str().unwrap()))
        .collect()
}

fn codes(told: &Told, severity: &str) -> BTreeSet<String> {
    let those = findings(told).into_iter().filter(|one| one["severity"] == severity);
    those.map(|one| one["code"].as_str().unwrap().to_owned()).collect()
}

const GOOD: &str = ".:53 {\n    errors\n    reload\n    bind 127.0.0.1\n    whoami\n}\n";
const SUSPICIOUS: &str = ".:53 {\n    cache 30s\n    whoami\n}\n";
const WRONG: &str = ".:53 {\n    kache 30\n    whoami\n}\n";

#[test]
fn the_exit_code_says_whether_nodens_starts_with_it() {
    let folder = tempfile::tempdir().unwrap();
    for (text, arguments, code) in [
        (GOOD, &[][..], 0),
        (GOOD, &["--strict"], 0),
        (SUSPICIOUS, &[], 0),
        (SUSPICIOUS, &["--strict"], 65),
        (WRONG, &[], 65),
        (WRONG, &["-o", "json"], 65),
    ] {
        fs::write(folder.path().join("Corefile"), text).unwrap();
        let told = check_in(folder.path(), &[arguments, &["Corefile"]].concat(), "");
        assert_eq!((told.code, told.err.as_str()), (Some(code), ""), "{arguments:?} {text}");
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "it changes nothing");
    assert_eq!(fs::read_to_string(folder.path().join("Corefile")).unwrap(), WRONG);
}

#[test]
fn what_cannot_be_read_is_one_line_with_its_exit_code() {
    for (arguments, code, start) in [
        (
            &["/nowhere/Corefile"][..],
            66,
            "nodens check: cannot read /nowhere/Corefile: no such file",
        ),
        (&["src"], 66, "nodens check: cannot read src: is a directory"),
        (&[], 64, "nodens: the following required arguments were not provided: <COREFILE>"),
        (&["-", "--localip", "x"], 64, "nodens: invalid value 'x' for '--localip <ADDRESSES>'"),
        (&["-", "-o", "yaml"], 64, "nodens: invalid value 'yaml' for '--output <FORMAT>'"),
        (&["-", "--fix"], 64, "nodens: unexpected argument '--fix' found"),
    ] {
        let told = check(arguments, "");
        assert_eq!((told.code, told.out.as_str()), (Some(code), ""), "{arguments:?}");
        assert!(told.err.starts_with(start) && told.err.lines().count() == 1, "{told:?}");
    }
}

#[test]
fn colours_are_for_those_who_ask() {
    let is_coloured = |arguments: &[&str]| check(arguments, WRONG).out.contains('\u{1b}');
    assert!(!is_coloured(&["-"]), "standard output is no terminal");
    assert!(is_coloured(&["-", "--color", "always"]));
    assert!(!is_coloured(&["-", "--color=never"]));
    assert!(!is_coloured(&["-", "--color=always", "-o", "json"]));
}

#[test]
fn no_word_of_a_corefile_reaches_the_terminal_as_a_command() {
    let told = check(&["-"], ".:53 {\n    ca\u{1b}[31mche\u{7}\n    bind \"\u{1b}]0;x\u{7}\"\n}\n");
    assert_eq!(told.code, Some(65));
    assert!(!told.out.contains(['\u{1b}', '\u{7}']), "{:?}", told.out);
}

#[test]
fn programs_are_told_all_fields() {
    let told = check(&["-o", "json", "-"], WRONG);
    let all: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(
        all,
        serde_json::json!({
            "file": "<stdin>",
            "errors": 1,
            "warnings": 0,
            "notes": 0,
            "findings": [{
                "file": "<stdin>",
                "line": 2,
                "column": 5,
                "length": 5,
                "severity": "error",
                "code": "unknown-directive",
                "message": "Unknown directive 'kache'",
                "hint": "did you mean `cache`?",
            }],
        })
    );
    let empty = findings(&check(&["-o", "json", "-"], ""));
    assert_eq!((&empty[0]["line"], &empty[0]["file"]), (&Value::Null, &"<stdin>".into()));
}

/// Cases of `tests/check/refused`: a name, the errors in the order of the file, the Corefile.
fn refused() -> Vec<(String, Vec<String>, String)> {
    let text = fs::read_to_string(root().join("tests/check/refused")).unwrap();
    let cases = text.split("=== ").skip(1).map(|case| {
        let (name, rest) = case.split_once('\n').unwrap();
        let (wanted, corefile) = rest.split_once("---\n").unwrap();
        (name.to_owned(), wanted.lines().map(str::to_owned).collect(), corefile.to_owned())
    });
    cases.collect()
}

#[test]
fn what_coredns_refuses_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let cases = refused();
    assert!(cases.len() > 120, "{}", cases.len());
    let mut differing = Vec::new();
    for (name, wanted, corefile) in cases {
        let told = check_in(folder.path(), &["-o", "json", "-"], &corefile);
        let found = errors(&told);
        let has_hints = findings(&told).iter().all(|one| one["hint"] != "");
        if found != wanted || told.code != Some(65) || !has_hints {
            differing.push(format!("{name}: {found:?}, wanted {wanted:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Every `NAME.Corefile` of tests/check has its `NAME.told`; arguments stand behind `# nodens check`
/// in its first line. With `NODENS_WRITE_DOCS=1` they are written instead of compared.
#[test]
fn corefiles_are_told_as_written_down() {
    let folder = root().join("tests/check");
    let mut compared = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "Corefile") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let first = text.lines().next().unwrap();
        let arguments = first.strip_prefix("# nodens check").unwrap_or_default();
        let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
        arguments.push(&name);
        let mut told = check_in(&folder, &arguments, "");
        told.out = told.out.replace(folder.to_str().unwrap(), "FOLDER");
        let written = path.with_extension("told");
        if std::env::var_os("NODENS_WRITE_DOCS").is_some() {
            fs::write(&written, &told.out).unwrap();
        }
        assert_eq!(told.out, fs::read_to_string(written).unwrap(), "{name}");
        compared += 1;
    }
    assert!(compared > 2);
}

/// One example of docs/check.md.
struct Example<'p> {
    code: &'p str,
    corefile: &'p str,
    told: &'p str,
    is_note: bool,
}

fn examples(page: &str) -> Vec<Example<'_>> {
    let mut found = Vec::new();
    for chapter in page.split("\n## ") {
        for section in chapter.split("\n### ").skip(1) {
            let code = section.lines().next().unwrap();
            let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
            let [corefile, told] = blocks[..] else { panic!("{code} has not two fenced blocks") };
            found.push(Example {
                code,
                corefile: corefile.split_once('\n').unwrap().1,
                told: told.split_once('\n').unwrap().1,
                is_note: chapter.starts_with("Notes"),
            });
        }
    }
    found
}

/// With `NODENS_WRITE_DOCS=1` what is told is written instead of compared.
#[test]
fn every_code_has_an_example_on_the_page_which_is_told_as_shown() {
    let path = root().join("docs/check.md");
    let page = fs::read_to_string(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // As long as the real one, so that it is underlined alike.
    let resolvers =
        tempfile::Builder::new().prefix("resolv").rand_bytes(5).tempfile_in("/tmp").unwrap();
    let own = resolvers.path().to_str().unwrap();
    assert_eq!(own.len(), "/etc/resolv.conf".len());
    let mut written = page.clone();
    let mut shown = BTreeSet::new();
    for Example { code, corefile, told, is_note } in examples(&page) {
        let resolver = if code == "resolv-conf-loopback" { "127.0.0.53" } else { "192.0.2.53" };
        fs::write(resolvers.path(), format!("nameserver {resolver}\n")).unwrap();
        fs::write(folder.path().join("Corefile"), corefile.replace("/etc/resolv.conf", own))
            .unwrap();
        let arguments: &[&str] = if is_note { &["--notes", "Corefile"] } else { &["Corefile"] };
        let found = check_in(folder.path(), arguments, "").out.replace(own, "/etc/resolv.conf");
        assert!(found.contains(&format!("[{code}]")), "the example does not show {code}: {found}");
        if std::env::var_os("NODENS_WRITE_DOCS").is_some() {
            let fenced = |text: &str| format!("```text\n{text}```");
            written = written.replacen(&fenced(told), &fenced(&found), 1);
        } else {
            assert_eq!(found, told, "{code}");
        }
        shown.insert(code);
    }
    if written != page {
        fs::write(path, written).unwrap();
    }
    for code in CODES {
        let is_probes = ["upstream-silent", "upstream-without-tcp", "upstream-without-udp"];
        match is_probes.contains(code) {
            true => assert!(page.contains(&format!("* `{code}`: ")), "{code}"),
            false => assert!(shown.contains(code), "docs/check.md has no example of {code}"),
        }
    }
}

/// The Corefiles in a YAML manifest's ConfigMap, or in a patch of one: the lines below `Corefile: |` or
/// `value: |`, without indentation.
fn corefiles_of_yaml(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if !["Corefile: |", "value: |"].contains(&line.trim()) {
            continue;
        }
        let indentation = |line: &str| line.len() - line.trim_start().len();
        let own = indentation(line);
        let mut corefile = String::new();
        while let Some(line) =
            lines.next_if(|line| line.trim().is_empty() || indentation(line) > own)
        {
            corefile += line.get(own + 2..).unwrap_or_default();
            corefile.push('\n');
        }
        found.push(corefile);
    }
    found
}

/// Checks a text that ships; gives the codes of its warnings.
fn warnings_of(shown: &str, directory: &Path, arguments: &[&str], text: &str) -> BTreeSet<String> {
    let arguments = [&["-o", "json", "--elsewhere"], arguments, &["-"]].concat();
    let told = check_in(directory, &arguments, text);
    assert_eq!(told.code, Some(0), "{shown}: {}", told.out);
    codes(&told, "warning")
}

#[test]
fn what_ships_has_no_mistake_and_no_warning() {
    let mut looked_at = 0;
    let mut none = |shown: &str, text: &str| {
        let warnings = warnings_of(shown, root(), &[], text);
        assert!(warnings.is_empty(), "{shown}: {warnings:?}");
        looked_at += 1;
    };
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        none(&path.display().to_string(), &fs::read_to_string(&path).unwrap());
    }
    let package = root().join("deploy/debian/Corefile");
    none("deploy/debian/Corefile", &fs::read_to_string(package).unwrap());
    let folders = ["deploy/kubernetes", "deploy/kustomize"].map(|name| root().join(name));
    for path in folders.iter().flat_map(|folder| files_ending(folder, "yaml")) {
        for corefile in corefiles_of_yaml(&fs::read_to_string(&path).unwrap()) {
            none(&path.display().to_string(), &corefile);
        }
    }
    assert!(looked_at >= 9, "only {looked_at} Corefiles found");
}

/// The deployments that people run, and what `check` tells of them: each is so, and known.
const KNOWN: &[(&str, &[&str])] = &[
    // Its documentation has the duration; Azure's resolver speaks TCP; and its hosts file is not on the
    // machine that tests.
    ("aks-localdns", &["cache-zone-is-duration", "force-tcp-to-resolv-conf", "said-at-start"]),
    // The patterns of its imports match in the pod, where another ConfigMap is mounted.
    ("gardener", &["said-at-start"]),
];

#[test]
fn what_people_run_has_no_mistake_and_no_unknown_warning() {
    let mut looked_at = 0;
    let folders = ["tests/deployments", "tests/corefiles"].map(|name| root().join(name));
    for path in folders.iter().flat_map(|folder| files_below(folder)) {
        let name = path.file_name().unwrap().to_str().unwrap().to_lowercase();
        if !name.contains("corefile") && !path.starts_with(root().join("tests/corefiles")) {
            continue;
        }
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        let found =
            warnings_of(&shown, path.parent().unwrap(), &[], &fs::read_to_string(&path).unwrap());
        let known =
            KNOWN.iter().find(|(part, _)| shown.contains(part)).map_or(&[][..], |(_, of)| *of);
        let known: BTreeSet<String> = known.iter().map(|&code| code.to_owned()).collect();
        assert!(found.is_subset(&known), "{shown}: {found:?}");
        looked_at += 1;
    }
    assert!(looked_at > 15, "only {looked_at} Corefiles found");
}

#[test]
fn the_documentation_has_no_mistake() {
    let mut pages = vec![root().join("README.md")];
    pages.extend(files_ending(&root().join("docs"), "md"));
    let mut looked_at = 0;
    for path in &pages {
        let page = fs::read_to_string(path).unwrap();
        for (number, rest) in page.split("```corefile\n").skip(1).enumerate() {
            let shown = format!("{}, example {}", path.display(), number + 1);
            let found = warnings_of(&shown, root(), &[], rest.split("```").next().unwrap());
            let is_own = path.ends_with("check.md");
            let known: &[&str] =
                &["not-on-this-machine", "said-at-start", "force-tcp-to-resolv-conf"];
            let unknown: Vec<_> =
                found.iter().filter(|code| !known.contains(&code.as_str())).collect();
            assert!(is_own || unknown.is_empty(), "{shown}: {unknown:?}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 30, "only {looked_at} examples found");
}

#[test]
fn a_template_is_told_in_its_own_lines_and_columns() {
    let template = "cluster.local:53 {\n    bind __PILLAR__LOCAL__DNS__ nodelocaldns9x\n    \
                    forward . __PILLAR__CLUSTER__DNS__ __PILLAR__LOCAL__DNS__\n    cash\n}\n";
    let told = check(&["-o", "json", "-", "--localip", "169.254.20.11,10.0.0.10"], template);
    let places: Vec<String> = findings(&told)
        .iter()
        .map(|one| format!("{}:{}+{} {}", one["line"], one["column"], one["length"], one["code"]))
        .collect();
    assert_eq!(places, ["2:33+14 \"not-on-this-machine\"", "4:5+4 \"unknown-directive\"",]);
    let told = check(
        &["-o", "json", "-", "--cluster-dns=169.254.20.10"],
        "a.test:53 {\n    bind __PILLAR__LOCAL__DNS__\n    forward . __PILLAR__CLUSTER__DNS__\n}\n",
    );
    let found = findings(&told);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["code"], &found[0]["column"]), (&"forward-loop".into(), &15.into()));
}

/// Answers every datagram with itself, as a response.
fn answer_over_udp(socket: UdpSocket) {
    thread::spawn(move || {
        let mut octets = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut octets) {
            octets[2] |= 0x80;
            let _ = socket.send_to(&octets[..length], peer);
        }
    });
}

/// Answers every connection's first message with itself, as a response.
fn answer_over_tcp(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut octets = [0; 19];
            if stream.read_exact(&mut octets).is_ok() {
                octets[4] |= 0x80;
                let _ = stream.write_all(&octets);
            }
        }
    });
}

#[test]
fn a_probe_tells_who_answers_over_what() {
    let [only_udp, only_tcp, nobody] =
        [free_port(), free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    answer_over_udp(UdpSocket::bind(&only_udp).unwrap());
    answer_over_tcp(TcpListener::bind(&only_tcp).unwrap());
    let corefile = format!(
        "a.test {{\n  forward . {only_udp} {only_tcp} {nobody}\n}}\n\
         b.test {{\n  forward . {only_udp} {only_tcp} {{\n    force_tcp\n  }}\n}}\n"
    );
    let told = check(&["-o", "json", "--probe", "-"], &corefile);
    let found: Vec<String> = findings(&told)
        .iter()
        .map(|one| format!("{} {}", one["line"], one["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            "2 upstream-without-tcp",
            "2 upstream-without-udp",
            "2 upstream-silent",
            "5 upstream-without-tcp",
        ]
    );
    assert_eq!(told.code, Some(0));
    assert!(findings(&check(&["-o", "json", "-"], &corefile)).is_empty(), "nobody is asked");
}

#[test]
fn sockets_are_named_by_the_probe_alone() {
    let files = files_below(&root().join("src/cli/check"));
    assert!(files.len() > 10);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let names =
            ["UdpSocket", "TcpStream", "TcpListener"].iter().any(|name| text.contains(name));
        assert_eq!(names, path.ends_with("probe.rs"), "{}", path.display());
    }
}
