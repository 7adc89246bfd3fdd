//! Firewall rules by the real iptables programs, both kinds, in network namespaces. Needs root,
//! iproute2 and iptables; says so where they are missing.

// A namespace that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod namespace;

use namespace::{in_namespaces, sh, stand_in, try_sh, write_program};
use nodens::node::firewall::{Iptables, Plan, Report, Variant, Within};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest that what has seconds may take: what is waited for in vain would last for minutes.
const PATIENCE: Duration = Duration::from_secs(60);

/// For what must be done: a busy machine may take much longer than the program has.
const AMPLE: Within = Within(PATIENCE);

const PROGRAMS: &[&str] = &["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"];

fn plan(addresses: &[&str]) -> Plan {
    let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
    Plan { addresses, dns_port: 53, health_port: 8080 }
}

fn iptables(variant: Variant, addresses: &[&str]) -> Iptables {
    Iptables::new(plan(addresses), variant)
}

/// The rules of both tables, in order.
fn saved(program: &str) -> Vec<String> {
    let mut rules = Vec::new();
    for table in ["raw", "filter"] {
        let text = sh(&format!("{program}-save -t {table}"));
        let lines = text.lines().filter(|line| line.starts_with("-A"));
        rules
            .extend(lines.map(|line| format!("{table} {line}").replace("CT --notrack", "NOTRACK")));
    }
    rules
}

/// What node-cache's prepending leaves for one address, in the order of the chains.
fn expected(address: &str) -> Vec<String> {
    let skip = "-m comment --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK";
    let allow = "-m comment --comment \"NodeLocal DNS Cache: allow DNS traffic\" -j ACCEPT";
    let rule = |chain: &str, side: &str, protocol: &str, port: u16, end: &str| {
        let ports = if side == "s" { "sport" } else { "dport" };
        format!("{chain} -{side} {address} -p {protocol} -m {protocol} --{ports} {port} {end}")
    };
    vec![
        rule("raw -A PREROUTING", "d", "udp", 53, skip),
        rule("raw -A PREROUTING", "d", "tcp", 53, skip),
        rule("raw -A OUTPUT", "s", "tcp", 8080, skip),
        rule("raw -A OUTPUT", "d", "tcp", 8080, skip),
        rule("raw -A OUTPUT", "d", "udp", 53, skip),
        rule("raw -A OUTPUT", "d", "tcp", 53, skip),
        rule("raw -A OUTPUT", "s", "udp", 53, skip),
        rule("raw -A OUTPUT", "s", "tcp", 53, skip),
        rule("filter -A INPUT", "d", "udp", 53, allow),
        rule("filter -A INPUT", "d", "tcp", 53, allow),
        rule("filter -A OUTPUT", "s", "udp", 53, allow),
        rule("filter -A OUTPUT", "s", "tcp", 53, allow),
    ]
}

fn good(report: &Report) {
    assert_eq!(report.errors, [], "{report:?}");
}

fn rules_come_are_repaired_and_go(variant: Variant, ending: &str) {
    let (v4, v6) = (format!("iptables-{ending}"), format!("ip6tables-{ending}"));
    let mut iptables = iptables(variant, &["169.254.20.10", "fd00::a"]);
    // The node's own rules.
    sh(&format!("{v4} -A INPUT -p udp -d 169.254.20.10 --dport 53 -i eth7 -j DROP"));

    let report = iptables.ensure(AMPLE);
    good(&report);
    assert_eq!(report.added, 24);
    assert_eq!(
        report.lines[0].1,
        "Added back nodelocaldns rule - {raw PREROUTING [-p tcp -d 169.254.20.10 --dport 53 -j \
         NOTRACK -m comment --comment NodeLocal DNS Cache: skip conntrack]}"
    );
    let mut all_v4 = expected("169.254.20.10/32");
    let node = "filter -A INPUT -d 169.254.20.10/32 -i eth7 -p udp -m udp --dport 53 -j DROP";
    all_v4.insert(10, node.to_owned());
    assert_eq!(saved(&v4), all_v4);
    assert_eq!(saved(&v6), expected("fd00::a/128"));

    let report = iptables.ensure(AMPLE);
    good(&report);
    assert_eq!((report.added, report.removed), (0, 0));

    // Somebody flushes a chain; an older version left rules without comment, a crash left copies.
    sh(&format!("{v4} -t raw -F OUTPUT"));
    sh(&format!("{v4} -t raw -I PREROUTING -p udp -d 169.254.20.10 --dport 53 -j NOTRACK"));
    let comment = "-m comment --comment 'NodeLocal DNS Cache: allow DNS traffic'";
    for _ in 0..2 {
        sh(&format!("{v6} -A INPUT -p udp -d fd00::a --dport 53 {comment} -j ACCEPT"));
    }
    let report = iptables.ensure(AMPLE);
    good(&report);
    assert_eq!((report.added, report.removed), (6, 3));
    assert_eq!(saved(&v4), all_v4);
    // Which of several copies stays is the kernel's matter.
    let sorted = |mut rules: Vec<String>| {
        rules.sort();
        rules
    };
    assert_eq!(sorted(saved(&v6)), sorted(expected("fd00::a/128")));

    sh(&format!("{v4} -A OUTPUT -p tcp -s 169.254.20.10 --sport 53 -j ACCEPT"));
    let report = iptables.remove(AMPLE);
    good(&report);
    assert_eq!(report.removed, 25);
    assert_eq!(saved(&v4), [node]);
    assert_eq!(saved(&v6), [""; 0]);
    let report = iptables.remove(AMPLE);
    good(&report);
    assert_eq!(report, Report::default());
}

#[test]
fn rules_come_are_repaired_and_go_with_iptables_nft() {
    in_namespaces(PROGRAMS, || rules_come_are_repaired_and_go(Variant::Nft, "nft"));
}

#[test]
fn rules_come_are_repaired_and_go_with_iptables_legacy() {
    in_namespaces(PROGRAMS, || rules_come_are_repaired_and_go(Variant::Legacy, "legacy"));
}

#[test]
fn when_queries_go_what_late_replies_need_and_accepts_stay() {
    in_namespaces(PROGRAMS, || {
        let mut iptables = iptables(Variant::Nft, &["169.254.20.10"]);
        let nothing = iptables.let_queries_go(AMPLE);
        assert_eq!(nothing, Report::default());
        good(&iptables.ensure(AMPLE));
        let report = iptables.let_queries_go(AMPLE);
        good(&report);
        assert_eq!(report.removed, 5);
        let (left, all) = (saved("iptables-nft"), expected("169.254.20.10/32"));
        assert_eq!(left.len(), 7, "{left:#?}");
        assert!(left.iter().all(|rule| all.contains(rule)), "{left:#?}");
        let raw: Vec<&String> = left.iter().filter(|rule| rule.starts_with("raw")).collect();
        let late = "raw -A OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53";
        assert!(raw.iter().any(|rule| rule.starts_with(late)), "{raw:#?}");
        assert!(
            raw.iter().all(|rule| rule.starts_with(late) || rule.contains(" 8080 ")),
            "{raw:#?}"
        );
        // A start that comes now has all of them again; the end has none.
        let report = iptables.ensure(AMPLE);
        good(&report);
        assert_eq!(report.added, 5);
        // Copies go, too, and those without comment.
        sh("iptables-nft -t raw -A PREROUTING -p udp -d 169.254.20.10 --dport 53 -j NOTRACK");
        assert_eq!(iptables.let_queries_go(AMPLE).removed, 6);
        assert_eq!(saved("iptables-nft").len(), 7);
        assert_eq!(iptables.remove(AMPLE).removed, 7);
        assert_eq!(saved("iptables-nft"), [""; 0]);
    });
}

#[test]
fn queries_go_with_the_first_program_that_runs() {
    in_namespaces(PROGRAMS, || {
        let mut iptables = iptables(Variant::Nft, &["169.254.20.10"]);
        good(&iptables.ensure(AMPLE));
        // One more program runs; all behind it fail.
        let folder = tempfile::tempdir().unwrap();
        let ran = folder.path().join("ran");
        let script = format!("mkdir {} && exec -a \"$0\" $REAL \"$@\"", ran.display());
        stand_in(folder.path(), &script);
        let report = iptables.let_queries_go(AMPLE);
        assert_eq!((report.removed, report.errors.len()), (5, 1), "{report:?}");
        assert!(ran.exists());
        fs::remove_dir(ran).unwrap();
        assert_eq!(sh("iptables-nft-save -t raw | grep -c -- '^-A'").trim(), "3");
    });
}

#[test]
fn a_lock_that_is_held_is_waited_for_and_counted_apart() {
    in_namespaces(PROGRAMS, || {
        let lock = File::create("/run/xtables.lock").unwrap();
        lock.lock().unwrap();
        let mut iptables = Iptables::new(plan(&["169.254.20.10"]), Variant::Legacy);
        let start = Instant::now();
        let report = iptables.ensure(Within(Duration::from_secs(3)));
        // The lock is held for as long as this test likes.
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        assert_eq!(report.errors, [("iptables_lock", 12)], "{report:?}");
        assert!(report.lines[0].1.contains("holding the xtables lock"), "{report:?}");
        assert_eq!(saved("iptables-legacy"), [""; 0]);
        lock.unlock().unwrap();
        good(&iptables.ensure(AMPLE));
        assert_eq!(saved("iptables-legacy"), expected("169.254.20.10/32"));
    });
}

#[test]
fn programs_that_hang_are_killed_in_time() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        stand_in(folder.path(), "sleep 1000");
        let mut iptables = Iptables::new(plan(&["169.254.20.10"]), Variant::Nft);
        let start = Instant::now();
        let report = iptables.ensure(Within(Duration::from_secs(1)));
        assert_eq!(report.errors, [("iptables", 12)], "{report:?}");
        assert!(report.lines[0].1.contains("was killed"), "{report:?}");
        let report = iptables.remove(Within(Duration::from_secs(1)));
        assert_eq!(report.errors, [("iptables", 12)], "{report:?}");
        // The one that took the time is named before those that got none.
        let report = iptables.let_queries_go(Within(Duration::from_secs(1)));
        let lines: Vec<&str> = report.lines.iter().map(|(_, text)| text.as_str()).collect();
        let [hung, late] = lines[..] else { panic!("{lines:?}") };
        assert!(hung.ends_with("s and was killed") && hung.contains("-restore: "), "{hung}");
        assert!(late.ends_with("-save: no time was left to start it"), "{late}");
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    });
}

#[test]
fn single_commands_do_where_iptables_restore_does_not_know_our_words() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        stand_in(
            folder.path(),
            "case $0 in *-restore) exit 2;; *) exec -a \"$0\" $REAL \"$@\";; esac",
        );
        let mut iptables = iptables(Variant::Nft, &["169.254.20.10"]);
        let report = iptables.ensure(AMPLE);
        good(&report);
        assert_eq!(report.added, 12);
        assert_eq!(saved("iptables-nft"), expected("169.254.20.10/32"));
        sh("iptables-nft -t raw -A OUTPUT -p udp -s 169.254.20.10 --sport 53 -j NOTRACK");
        let report = iptables.remove(AMPLE);
        good(&report);
        assert_eq!(report.removed, 13);
        assert_eq!(saved("iptables-nft"), [""; 0]);
    });
}

#[test]
fn programs_of_another_folder_are_not_those_of_the_one_that_comes_first() {
    in_namespaces(PROGRAMS, || {
        // Another `iptables-nft` comes first on the path, alone in its folder.
        let folder = tempfile::tempdir().unwrap();
        let ran = folder.path().join("ran");
        let real = sh("command -v iptables-nft");
        let script = format!("echo \"$3\" >> {}; exec {} \"$@\"", ran.display(), real.trim());
        write_program(&folder.path().join("iptables-nft"), &format!("#!/bin/bash\n{script}\n"));
        let paths = std::env::var_os("PATH").unwrap();
        let is_free = |path: &PathBuf| path.is_dir() && !path.join("iptables-nft").exists();
        let first = std::env::split_paths(&paths).take_while(is_free).next().unwrap();
        sh(&format!("mount --bind {} {}", folder.path().display(), first.display()));
        let mut iptables = iptables(Variant::Nft, &["169.254.20.10"]);
        good(&iptables.ensure(AMPLE));
        let verbs = fs::read_to_string(&ran).unwrap();
        assert_eq!(verbs.lines().filter(|verb| *verb == "-I").count(), 12, "{verbs}");
        good(&iptables.remove(AMPLE));
        sh(&format!("umount {}", first.display()));
        assert_eq!(saved("iptables-nft"), [""; 0]);
    });
}

#[test]
fn what_iptables_refuses_is_said_and_counted_for_each_rule() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        stand_in(folder.path(), "echo 'iptables v1: no such table' >&2; exit 3");
        let report = iptables(Variant::Nft, &["169.254.20.10", "fd00::a"]).ensure(AMPLE);
        assert_eq!(report.errors, [("iptables", 12), ("iptables", 12)]);
        assert_eq!(
            report.lines[1].1,
            "Error checking/adding iptables rule {raw PREROUTING [-p tcp -d fd00::a --dport 53 -j \
             NOTRACK -m comment --comment NodeLocal DNS Cache: skip conntrack]} and 11 others, \
             error - ip6tables-nft-save: exit status 3: iptables v1: no such table"
        );
        assert!(!try_sh("iptables-nft -L").status.success());
    });
}
