//! What a process gives back of its memory, measured on this one: alone in a program, for what other
//! tests take meanwhile would be measured with it.
#![allow(clippy::unwrap_used)] // A test may panic, and so may what it calls.

use nodens::sys::memory::{Spare, forget_the_start, give_back, resident};
use std::sync::Mutex;

/// One measures at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// KiB of files that are mapped and resident.
fn of_files() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn the_pages_of_the_start_go_and_the_program_goes_on() {
    let _alone = ALONE.lock();
    let before = of_files();
    forget_the_start();
    let after = of_files();
    assert!(after < before, "{before} to {after}");
    let parsed: Result<std::net::IpAddr, _> = "2001:db8::1".parse();
    assert_eq!(format!("{parsed:?}"), "Ok(2001:db8::1)");
}

#[test]
fn what_is_freed_goes_back() {
    let _alone = ALONE.lock();
    let before = resident().unwrap();
    // Small ones, so that they stand in the heap, with a last one above that keeps it from
    // shrinking by itself.
    let mut many: Vec<Vec<u8>> = (0..64 * 1024).map(|_| vec![1; 1024]).collect();
    let last = many.pop();
    let most = resident().unwrap();
    assert!(most > before + (48 << 20), "{before} to {most}");
    drop(many);
    give_back(Vec::new());
    let after = resident().unwrap();
    assert!(after + (32 << 20) < most, "{most} to {after}");
    drop(last);
}

#[test]
#[cfg(target_env = "gnu")]
fn what_a_thread_keeps_of_what_it_freed_keeps_no_page() {
    let _alone = ALONE.lock();
    // Pieces of all lengths of which a thread keeps some, each among many of other lengths.
    let mut pieces: Vec<Vec<u8>> =
        (0..20_000).map(|number| vec![1; 24 + 16 * (number % 64)]).collect();
    // It keeps those that are freed first.
    let far_apart: Vec<Vec<u8>> = pieces.iter_mut().step_by(37).map(std::mem::take).collect();
    drop(far_apart);
    drop(pieces);
    give_back(Vec::new());
    let kept = resident().unwrap();
    give_back(vec![Spare::of_this_thread()]);
    let left = resident().unwrap();
    assert!(left + (1 << 20) < kept, "{kept} to {left}");
}
