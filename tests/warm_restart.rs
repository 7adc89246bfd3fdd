//! The cache over a restart, with the real program: what was answered before SIGTERM is answered
//! after the next start though no upstream is there any more.
#![allow(clippy::unwrap_used)] // A test may panic, and so may what it calls.

// What other tests use of it is not used here.
#[path = "process/node.rs"]
mod node;
#[path = "process/upstream.rs"]
mod upstream;

use node::{Node, free_port};
use std::fs;
use upstream::{ANSWER, Upstream};

/// Names asked for.
const NAMES: usize = 2000;

fn answered(node: &Node) -> usize {
    (0..NAMES).filter(|number| node.ask(&format!("n{number}.test")) == Some(ANSWER)).count()
}

/// A node that answered all names, was told to end and ended; its upstream is gone. Its directives.
fn filled(node: &mut Node, flag: &str) -> String {
    let upstream = Upstream::start(free_port());
    let directives = format!(
        "    cache 3600\n    prometheus HTTP\n    forward . {} {{\n        max_fails 0\n    }}",
        upstream.address
    );
    node.start(&directives, &[flag]);
    assert_eq!(answered(node), NAMES);
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
    upstream.end();
    directives
}

#[test]
fn after_a_restart_the_same_queries_hit_though_no_upstream_is_there() {
    let mut node = Node::new();
    let path = node.path("cache");
    let flag = format!("--cache-snapshot={}", path.display());
    let directives = filled(&mut node, &flag);
    node.start(&directives, &[&flag]);
    assert_eq!(answered(&node), NAMES);
    let metric = |name: &str| node.metric(name).unwrap().parse::<f64>().unwrap();
    assert!(metric("nodens_cache_snapshot_entries_loaded_total") >= NAMES as f64);
    assert!(metric("coredns_cache_hits_total") >= NAMES as f64);
    let line = format!("[INFO] Kept cache {}: ", path.display());
    node.says(&line);
    assert_eq!(node.lines().matches(&line).count(), 1, "{}", node.lines());
    // Without the flag, and for a block that says something else, it is not there.
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
    let other = directives.replace("cache 3600", "cache 3599");
    for (directives, flags) in [(&directives, &[][..]), (&other, &[&*flag])] {
        node.start(directives, flags);
        assert_eq!(node.ask("n1.test"), None, "{directives} {flags:?}");
        node.signal("QUIT");
        assert_eq!(node.exit_code(), Some(0));
    }
}

#[test]
fn a_file_that_is_not_right_is_ignored_with_one_line() {
    let mut node = Node::new();
    let path = node.path("cache");
    let flag = format!("--cache-snapshot={}", path.display());
    let directives = filled(&mut node, &flag);
    let whole = fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 0x40;
    let mut later = whole.clone();
    later[15] = 9;
    for (file, reason, word) in [
        (&whole[..whole.len() - 7], "torn or changed", "torn"),
        (&changed, "torn or changed", "torn"),
        (&later, "version 9, this is version 1", "version"),
        (b"", "not a cache of nodens", "foreign"),
        (b"something else altogether\n", "not a cache of nodens", "foreign"),
    ] {
        fs::write(&path, file).unwrap();
        node.start(&directives, &[&flag]);
        let line = format!("[WARNING] Kept cache {} is ignored: {reason}\n", path.display());
        node.says(&line);
        assert_eq!(node.lines().matches(&line).count(), 1, "{word}: {}", node.lines());
        let counter = format!("nodens_cache_snapshot_ignored_total{{reason=\"{word}\"}}");
        assert_eq!(node.metric(&counter).as_deref(), Some("1"));
        assert_eq!(node.ask("n1.test"), None, "{word}");
        node.signal("QUIT");
        assert_eq!(node.exit_code(), Some(0));
        assert_eq!(fs::read(&path).unwrap(), file, "SIGQUIT writes nothing");
    }
}
