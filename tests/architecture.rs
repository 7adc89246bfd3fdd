//! The layers and invariants of ARCHITECTURE.md, held by a scan of the sources.
#![allow(clippy::unwrap_used)] // A test may panic, and so may what it calls.

mod repository;

use repository::{files_ending, root};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The folders of `src/`, bottom first: each names only those before it.
const LAYERS: &[&str] = &[
    "dns", "corefile", "metrics", "sys", "plugin", "engine", "net", "node", "admin", "app", "cli",
];

/// The folders that get time, randomness and bytes as arguments.
const PURE: &[&str] = &["dns", "corefile", "plugin", "engine"];

/// What a pure folder may not name: sockets, files, threads, clocks, runtimes.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime::now",
    "tokio::",
    "socket2::",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "rand::rng()",
    "std::env",
];

/// The crates that nodens is made of: each of them has work in the program.
const MADE_OF: &[&str] =
    &["hickory-server", "hickory-resolver", "tokio", "moka", "socket2", "prometheus", "clap"];

/// The most lines of a source file before its tests.
const MOST_LINES: usize = 600;

struct Source {
    path: PathBuf,
    layer: String,
    /// The text before the file's unit tests.
    code: String,
    /// The whole text.
    text: String,
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    files_ending(&src, "rs")
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let first = path.strip_prefix(&src).unwrap().components().next().unwrap();
            let layer = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let own_tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
            let is_tests = path.file_name().is_some_and(|name| name == "tests.rs")
                || path
                    .components()
                    .any(|part| ["tests", "testing"].iter().any(|name| part.as_os_str() == *name));
            let code = if is_tests { String::new() } else { text[..own_tests].to_owned() };
            Source { path, layer, code, text }
        })
        .collect()
}

/// The lines of code without comments.
fn code_lines(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("")))
        .filter(|(_, line)| !line.trim().is_empty())
}

fn assert_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn a_folder_names_only_folders_below_it() {
    let mut offenders = Vec::new();
    for source in sources() {
        let Some(height) = LAYERS.iter().position(|layer| *layer == source.layer) else { continue };
        for (number, line) in code_lines(&source.text) {
            for (place, _) in line.match_indices("crate::") {
                let word: String = line[place + 7..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                if LAYERS
                    .iter()
                    .position(|layer| *layer == word)
                    .is_some_and(|other| other > height)
                {
                    offenders.push(format!("{}:{number}: {}", source.path.display(), line.trim()));
                }
            }
        }
    }
    assert_none("a folder of src names a folder above it", &offenders);
}

#[test]
fn every_folder_of_src_is_a_layer() {
    let offenders: Vec<String> = sources()
        .iter()
        .filter(|source| !LAYERS.contains(&source.layer.as_str()))
        .filter(|source| !["lib", "main"].contains(&source.layer.as_str()))
        .map(|source| source.path.display().to_string())
        .collect();
    assert_none("not in a layer of ARCHITECTURE.md", &offenders);
}

#[test]
fn unsafe_stands_in_sys_alone_and_says_why() {
    let mut offenders = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let names_unsafe = code
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .any(|word| word == "unsafe");
            if !names_unsafe {
                continue;
            }
            let says_why = lines[index.saturating_sub(12)..=index]
                .iter()
                .any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            if source.layer != "sys" || !says_why {
                offenders.push(format!("{}:{}: {}", source.path.display(), index + 1, line.trim()));
            }
        }
    }
    assert_none("unsafe outside src/sys, or without its SAFETY line", &offenders);
}

#[test]
fn pure_folders_name_no_socket_file_thread_or_clock() {
    let mut offenders = Vec::new();
    for source in sources().iter().filter(|source| PURE.contains(&source.layer.as_str())) {
        for (number, line) in code_lines(&source.code) {
            if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                offenders.push(format!("{}:{number}: {word}", source.path.display()));
            }
        }
    }
    assert_none("I/O, time or threads below net", &offenders);
}

#[test]
fn no_file_outgrows_one_sitting() {
    let offenders: Vec<String> = sources()
        .iter()
        .map(|source| (source, source.code.lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(source, lines)| format!("{}: {lines} lines", source.path.display()))
        .collect();
    assert_none("more lines before the tests than one sitting reads", &offenders);
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let offenders: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path.display().to_string())
        .collect();
    assert_none("no opening comment", &offenders);
}

#[test]
fn no_file_is_a_drawer_for_everything() {
    let drawers =
        ["utils.rs", "util.rs", "common.rs", "helpers.rs", "types.rs", "manager.rs", "misc.rs"];
    let offenders: Vec<String> = sources()
        .iter()
        .filter(|source| drawers.iter().any(|name| source.path.ends_with(name)))
        .map(|source| source.path.display().to_string())
        .collect();
    assert_none("a file whose name says nothing", &offenders);
}

#[test]
fn every_directive_has_its_page() {
    let sections = ["## Name", "## Description", "## Syntax", "## Examples", "## Differences"];
    let mut offenders = Vec::new();
    for row in nodens::plugin::TABLE.iter().filter(|row| row.setup.is_ok()) {
        let page = root().join("docs/plugins").join(format!("{}.md", row.word));
        match fs::read_to_string(&page) {
            Err(_) => offenders.push(format!("{} is missing", page.display())),
            Ok(text) => offenders.extend(
                sections
                    .iter()
                    .filter(|section| !text.contains(**section))
                    .map(|section| format!("{}: no section {section}", page.display())),
            ),
        }
    }
    assert_none("a directive without its page", &offenders);
}

#[test]
fn every_dependency_says_what_for() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut offenders = Vec::new();
    let mut in_dependencies = false;
    let mut line_before = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies
            && line.contains('=')
            && line.starts_with(|c: char| c.is_ascii_lowercase())
            && !line_before.starts_with('#')
        {
            offenders.push(line.to_owned());
        }
        line_before = line;
    }
    assert_none("a dependency without its reason", &offenders);
}

#[test]
fn what_nodens_is_made_of_works_in_the_program_and_not_in_tests_alone() {
    let sources = sources();
    let is_used = |name: &&&str| {
        let crate_name = name.replace('-', "_");
        let used = format!("{crate_name}::");
        sources.iter().any(|source| source.code.contains(&used))
    };
    let unused: Vec<String> =
        MADE_OF.iter().filter(|name| !is_used(name)).map(ToString::to_string).collect();
    assert_none("a crate that nodens is made of is used by no layer", &unused);
}

#[test]
fn directives_keep_corednss_order() {
    let order: BTreeMap<&str, usize> =
        nodens::plugin::TABLE.iter().enumerate().map(|(index, row)| (row.word, index)).collect();
    let expected = [
        "metadata",
        "cancel",
        "tls",
        "timeouts",
        "multisocket",
        "reload",
        "nsid",
        "bufsize",
        "bind",
        "debug",
        "trace",
        "ready",
        "health",
        "pprof",
        "prometheus",
        "errors",
        "log",
        "dnstap",
        "local",
        "dns64",
        "acl",
        "any",
        "chaos",
        "loadbalance",
        "cache",
        "rewrite",
        "header",
        "minimal",
        "template",
        "hosts",
        "loop",
        "forward",
        "whoami",
    ];
    for pair in expected.windows(2) {
        assert!(order[pair[0]] < order[pair[1]], "{} stands after {}", pair[0], pair[1]);
    }
    assert_eq!(order.len(), nodens::plugin::TABLE.len(), "a word stands twice");
}

/// The parts of a text between single backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether `path` (`net::sockets::adopt`) is a module below `src/`, or a name that its module's file has.
fn is_in_the_source(path: &str) -> bool {
    let mut module = root().join("src");
    for word in path.split("::") {
        let inner = module.join(word);
        if inner.is_dir() || inner.with_extension("rs").is_file() {
            module = inner;
            continue;
        }
        let files = [module.join("mod.rs"), module.with_extension("rs")];
        let mut texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        return texts.any(|text| {
            text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|part| part == word)
        });
    }
    true
}

#[test]
fn what_the_map_names_is_there_and_every_layer_has_its_row() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows: Vec<&str> = map
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("/` |"))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase()))
        .collect();
    assert_eq!(rows, LAYERS);
    let paths = quoted(&map).filter(|path| {
        path.split_once("::").is_some_and(|(first, _)| LAYERS.contains(&first))
            && path.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    });
    let all: Vec<&str> = paths.collect();
    assert!(all.len() > 20, "only {all:?}");
    let offenders: Vec<String> =
        all.into_iter().filter(|path| !is_in_the_source(path)).map(str::to_owned).collect();
    assert_none("ARCHITECTURE.md names what is not there", &offenders);
}
