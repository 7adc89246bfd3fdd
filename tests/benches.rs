//! The scripts of benches/ that judge or draw: on small inputs, without measuring anything; and the names
//! in all scripts of the repository. They need python3 and pyflakes; where one is missing the tests say so,
//! and fail with `NODENS_TEST_ALL=1`. `benches/rehearse.py` runs those that measure.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod repository;

use missing::say_missing;
use repository::{files_ending, root};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs a script of benches/; `None` where there is no python3.
fn script(name: &str, arguments: &[&str]) -> Option<Output> {
    let done =
        Command::new("python3").arg(root().join("benches").join(name)).args(arguments).output();
    match done {
        Ok(done) => Some(done),
        Err(_) => {
            say_missing("python3");
            None
        }
    }
}

/// Whether these scripts are right, and what is said of them; `None` where that cannot be told.
fn names(scripts: &[PathBuf]) -> Option<(bool, String)> {
    // Debian's pyflakes is Debian's Python's, which need not be the first that is found.
    for python in ["python3", "/usr/bin/python3"] {
        let script = root().join("tests/benches/names.py");
        let done = Command::new(python).arg(script).args(scripts).output();
        let Ok(done) = done else { continue };
        if done.status.code() != Some(69) {
            let said = [done.stdout, done.stderr].concat();
            return Some((done.status.success(), String::from_utf8_lossy(&said).into_owned()));
        }
    }
    say_missing("python3-pyflakes");
    None
}

#[test]
fn every_name_in_a_script_is_one() {
    let all: Vec<PathBuf> = ["benches", "deploy", "tests"]
        .iter()
        .flat_map(|name| files_ending(&root().join(name), "py"))
        .collect();
    assert!(all.len() > 15, "{all:?}");
    let Some((are_right, said)) = names(&all) else { return };
    assert!(are_right, "{said}");
}

#[test]
fn a_name_that_is_none_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own.py");
    fs::write(&own, "def rate():\n    return 1\n").unwrap();
    for (text, complaint) in [
        ("import own\nown.rates()\n", "2: there is no own.rates"),
        ("from own import rates\nrates()\n", "1: there is no own.rates"),
        ("print(rate)\n", "1: undefined name 'rate'"),
        ("import os\n", "1: 'os' imported but unused"),
        ("def rate(:\n", "1: invalid syntax"),
    ] {
        let script = directory.path().join("script.py");
        fs::write(&script, text).unwrap();
        let Some((are_right, said)) = names(&[own.clone(), script]) else { return };
        assert!(!are_right && said.contains(&format!("script.py:{complaint}")), "{text}: {said}");
    }
}

/// What the gate says of three counted cases beside `baseline`: whether it passes, and its words.
fn gate(baseline: &str) -> Option<(bool, String)> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("baseline");
    fs::write(&file, baseline).unwrap();
    let counted = root().join("tests/benches/counted.json");
    let arguments = ["--counted", counted.to_str().unwrap(), "--baseline", file.to_str().unwrap()];
    let done = script("instructions.py", &arguments)?;
    Some((done.status.success(), String::from_utf8(done.stdout).unwrap()))
}

#[test]
fn instruction_counts_up_to_five_percent_above_their_baseline_pass() {
    let baseline = "# why\nhit.udp 3661\nhit.edns 3935\nhit.tcp 9999\n";
    let Some((passes, said)) = gate(baseline) else { return };
    assert!(passes, "{said}");
    assert!(said.contains("hit.edns") && said.contains("+4.98 %"), "{said}");
}

#[test]
fn instruction_counts_more_than_five_percent_above_their_baseline_fail() {
    let Some((passes, said)) = gate("hit.udp 3480\nhit.edns 4131\nhit.tcp 3658\n") else { return };
    assert!(!passes, "{said}");
    assert!(said.contains("hit.udp needs 5.2 % more"), "{said}");
}

#[test]
fn a_case_without_a_baseline_or_a_count_fails() {
    let Some((passes, said)) = gate("hit.udp 3661\nhit.tcp 3658\nhit.gone 1\n") else { return };
    assert!(!passes, "{said}");
    assert!(said.contains("hit.edns has no baseline"), "{said}");
    assert!(said.contains("hit.gone is in the baseline and was not counted"), "{said}");
}

#[test]
fn tables_and_picture_come_from_a_file_of_results() {
    let directory = tempfile::tempdir().unwrap();
    let svg = directory.path().join("picture.svg");
    let brief = directory.path().join("brief.svg");
    let page = directory.path().join("page.md");
    let marks = "<!-- figures: made by benches/picture.py -->\nold\n<!-- end of figures -->\n";
    fs::write(&page, format!("before\n{marks}after\n")).unwrap();
    let results = root().join("tests/benches/results.jsonl");
    let arguments = [
        results.to_str().unwrap(),
        "--svg",
        svg.to_str().unwrap(),
        "--brief",
        brief.to_str().unwrap(),
        "--into",
        page.to_str().unwrap(),
    ];
    let Some(done) = script("picture.py", &arguments) else { return };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let page = fs::read_to_string(page).unwrap();
    // The median of three repetitions.
    assert!(page.contains("| nodens | 268 |") && page.contains("| nodens | 3.66 |"), "{page}");
    assert!(page.starts_with("before") && page.ends_with("after\n"), "{page}");
    assert!(!page.contains("old"), "{page}");
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.contains("class=\"own\"") && svg.contains("class=\"limit\""), "{svg}");
    assert!(svg.contains("prefers-color-scheme:dark") && svg.ends_with("</svg>\n"), "{svg}");
    // What needs a word of explanation is not in the README's.
    let brief = fs::read_to_string(brief).unwrap();
    assert!(brief.contains("class=\"own\"") && !brief.contains("class=\"limit\""), "{brief}");
}
