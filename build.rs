//! Tells the program which compiler and which commit it was built from, for `-version` and
//! `coredns_build_info`.

use std::process::Command;

fn line_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    if !output.status.success() {
        return None;
    }
    Some(String::from_utf8(output.stdout).ok()?.lines().next()?.trim().to_owned())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=NODENS_REVISION");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    // `rustc 1.95.0 (59807616e 2026-04-14)`: the version without the commit is what people read.
    let version = line_of(&rustc, &["--version"]).unwrap_or_else(|| "rustc".to_owned());
    let version = version.split(" (").next().unwrap_or_default();
    println!("cargo::rustc-env=NODENS_RUSTC={version}");
    // Given by whoever builds a release; a working copy has none, as node-cache's own builds do.
    let revision = std::env::var("NODENS_REVISION").unwrap_or_default();
    println!("cargo::rustc-env=NODENS_REVISION={revision}");
}
