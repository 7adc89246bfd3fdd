//! The commands beside serving, as scripts and people run them: arguments in; output, one line and
//! an exit code out.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// What a run of nodens gave.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

fn told(output: Output) -> Told {
    let text = |octets| String::from_utf8(octets).unwrap();
    Told { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn nodens(arguments: &[&str]) -> Told {
    told(Command::new(env!("CARGO_BIN_EXE_nodens")).args(arguments).output().unwrap())
}

/// Runs a program of the system with `input`; `None`, said, where it is missing and not asked for.
fn system(program: &str, arguments: &[&str], input: &str) -> Option<Told> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(_) => {
            missing::say_missing(program);
            return None;
        }
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(told(child.wait_with_output().unwrap()))
}

/// Arguments, exit code, the one line.
const REFUSED: &[(&str, i32, &str)] = &[
    ("chekc", 64, "nodens: unrecognized subcommand 'chekc'"),
    ("version please", 64, "nodens: unexpected argument 'please' found"),
    ("version --long", 64, "nodens: unexpected argument '--long' found"),
    ("man nothing", 64, "nodens man: there is no command 'nothing'"),
    ("completions", 64, "nodens: the following required arguments were not provided: <SHELL>"),
    ("completions tcsh", 64, "nodens: invalid value 'tcsh' for '<SHELL>'"),
];

#[test]
fn what_is_wrong_is_said_in_one_line_with_its_exit_code() {
    for (line, code, start) in REFUSED {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let told = nodens(&arguments);
        assert_eq!((told.code, told.out.as_str()), (Some(*code), ""), "{line}: {told:?}");
        assert_eq!(told.err.lines().count(), 1, "{line}: {}", told.err);
        assert!(told.err.starts_with(start), "{line}: {}", told.err);
    }
}

#[test]
fn help_goes_to_standard_output_with_0() {
    for line in [
        "help",
        "help run",
        "run --help",
        "version --help",
        "man -h",
        "query -h",
        "query @x --help",
    ] {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let told = nodens(&arguments);
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{line}");
        assert!(told.out.contains("Usage: nodens"), "{line}: {}", told.out);
    }
}

#[test]
fn flags_are_node_caches_with_its_exit_codes() {
    assert_eq!(nodens(&["-nosuchflag"]).code, Some(2));
    assert_eq!(nodens(&["run", "-nosuchflag"]).code, Some(2));
    let version = nodens(&["-localip=127.0.0.1", "-version"]);
    assert_eq!(version.code, Some(0));
    assert_eq!(nodens(&["version"]).out, version.out);
    let extra = nodens(&["extra", "-localip=127.0.0.1"]);
    assert_eq!(extra.code, Some(1));
    assert!(extra.err.ends_with("invalid localip specified - \"\", Exiting\n"), "{extra:?}");
    let extra = nodens(&["-localip=127.0.0.1", "extra", "-quiet"]);
    assert_eq!(extra.code, Some(1));
    // Behind a time stamp, as every line before the start.
    assert!(extra.err.ends_with(" extra command line arguments: [extra -quiet]\n"), "{extra:?}");
}

#[test]
fn bash_loads_its_completions_and_completes() {
    let script = nodens(&["completions", "bash"]).out;
    let complete = |words: &str| {
        let last = words.split(' ').count() - 1;
        let run = format!(
            "{script}\nset -eu\nCOMP_WORDS=({words}); COMP_CWORD={last}\n\
             set +e; _nodens nodens \"${{COMP_WORDS[COMP_CWORD]-}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             echo \"${{COMPREPLY[@]}}\"\n"
        );
        system("bash", &["--norc", "-s"], &run)
    };
    for (words, found) in
        [("nodens vers", "version"), ("nodens completions f", "fish"), ("nodens ma", "man")]
    {
        let Some(told) = complete(words) else { return };
        assert_eq!((told.out.trim(), told.err.as_str()), (found, ""), "{words}");
    }
}

#[test]
fn zsh_and_fish_have_their_scripts() {
    assert!(nodens(&["completions", "zsh"]).out.starts_with("#compdef nodens"));
    assert!(nodens(&["completions", "fish"]).out.contains("complete -c nodens"));
}

#[test]
fn groff_takes_the_manual_pages_without_a_warning() {
    let mut pages = vec![nodens(&["man"])];
    for word in ["check", "cleanup", "completions", "man", "query", "run", "version"] {
        pages.push(nodens(&["man", word]));
    }
    for page in pages {
        assert_eq!(page.code, Some(0));
        let Some(shown) = system("groff", &["-man", "-ww", "-z"], &page.out) else { return };
        assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""), "{}", page.out);
    }
    let page = nodens(&["man"]).out;
    let Some(shown) = system("groff", &["-man", "-Tascii", "-P-bcou"], &page) else { return };
    for words in ["-localip", "EXIT STATUS", "NO_COLOR", "version"] {
        assert!(shown.out.contains(words), "{words} is not in\n{}", shown.out);
    }
}
