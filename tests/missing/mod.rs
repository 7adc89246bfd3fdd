//! What this machine lacks for a test: it is said, and a failure where `NODENS_TEST_ALL=1` asks for all
//! tests.

#![allow(dead_code)] // Not every test file uses all of it.

use std::path::PathBuf;

/// Says that a test does not run for lack of this.
pub(crate) fn say_missing(what: &str) {
    assert!(std::env::var("NODENS_TEST_ALL").as_deref() != Ok("1"), "missing: {what}");
    println!("not run, missing: {what}");
}

/// Whether all these programs are here; says which one is not.
pub(crate) fn are_here(programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&paths).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).collect();
    let is_here = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    let missing = programs.iter().find(|program| !is_here(program));
    if let Some(program) = missing {
        say_missing(&format!("the program {program}"));
    }
    missing.is_none()
}
