//! Firewall rules in a table of one's own, over netlink, in network namespaces; looked at with
//! Debian's `nft`. Needs root, iproute2 and nftables; says so where they are missing.

// A namespace that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod namespace;

use namespace::{in_namespaces, sh, try_sh};
use nodens::node::Trouble;
use nodens::node::firewall::{Firewall, Life, Nftables, Plan, Report, Rewrite, Within};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PROGRAMS: &[&str] = &["nft"];

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn nftables(addresses: &[&str], life: Life) -> Nftables {
    let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
    Nftables::new(Plan { addresses, dns_port: 53, health_port: 8080 }, life)
}

fn good(report: &Report) {
    assert_eq!(report.errors, [], "{report:?}");
}

/// The rules of a chain as `nft` shows them.
fn rules(table: &str, chain: &str) -> Vec<String> {
    let text = sh(&format!("nft list chain inet {table} {chain}"));
    let lines = text.lines().map(str::trim).filter(|line| line.contains("notrack"));
    lines.map(|line| line.split(" notrack").next().unwrap().to_owned()).collect()
}

fn tables() -> String {
    sh("nft list tables").lines().collect::<Vec<_>>().join(", ")
}

/// Waits until there is no table. A program that another test starts at this moment has our sockets
/// until it runs, and owned tables with them.
fn until_none_is_left() {
    let end = Instant::now() + PATIENCE;
    while !tables().is_empty() {
        assert!(Instant::now() < end, "{}", tables());
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_table_has_a_rule_for_each_way_that_must_not_be_tracked() {
    in_namespaces(PROGRAMS, || {
        let mut kept = nftables(&["169.254.20.10", "fd00::a"], Life::Process);
        let report = kept.ensure();
        good(&report);
        assert_eq!(report.added, 16);
        assert_eq!(
            report.lines[0].1,
            "Added firewall rules - nftables table inet nodens, 16 rules: it goes with this process"
        );
        assert_eq!(
            rules("nodens", "prerouting"),
            [
                "ip daddr 169.254.20.10 tcp dport 53",
                "ip daddr 169.254.20.10 udp dport 53",
                "ip6 daddr fd00::a tcp dport 53",
                "ip6 daddr fd00::a udp dport 53",
            ]
        );
        let both = |address: &str, family: &str| {
            [
                ("saddr", "tcp sport 53"),
                ("saddr", "udp sport 53"),
                ("daddr", "tcp dport 53"),
                ("daddr", "udp dport 53"),
                ("daddr", "tcp dport 8080"),
                ("saddr", "tcp sport 8080"),
            ]
            .map(|(side, port)| format!("{family} {side} {address} {port}"))
        };
        let expected = [both("169.254.20.10", "ip"), both("fd00::a", "ip6")].concat();
        assert_eq!(rules("nodens", "output"), expected);
        let text = sh("nft list table inet nodens");
        assert!(text.contains("flags owner"), "{text}");
        assert!(text.contains("comment \"NodeLocal DNS Cache: skip conntrack\""), "{text}");
        for hook in ["prerouting", "output"] {
            let line = format!("type filter hook {hook} priority raw; policy accept;");
            assert!(text.contains(&line), "{text}");
        }
        // Nothing is changed when nothing is missing, and others cannot change it.
        assert_eq!(kept.ensure(), Report::default());
        assert!(!try_sh("nft delete table inet nodens").status.success());
        sh("nft flush ruleset");
        assert_eq!(kept.ensure(), Report::default());
        assert_eq!(tables(), "table inet nodens");

        let report = kept.remove();
        good(&report);
        assert_eq!((report.removed, tables()), (16, String::new()));
        assert_eq!(kept.remove(), Report::default());
        good(&kept.ensure());
        assert!(kept.ends_with_process());
        // As the end of the process does.
        drop(kept);
        until_none_is_left();
    });
}

#[test]
fn the_rules_of_a_hundred_addresses_go_in_together() {
    in_namespaces(PROGRAMS, || {
        let all: Vec<String> = (1..=100).map(|last| format!("169.254.20.{last}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut kept = nftables(&all, Life::Process);
        let report = kept.ensure();
        good(&report);
        assert_eq!((report.added, rules("nodens", "output").len()), (800, 600));
        assert_eq!(kept.ensure(), Report::default());
        good(&kept.let_queries_go());
        good(&kept.remove());
        assert_eq!(tables(), "");
    });
}

#[test]
fn addresses_of_services_are_exchanged_for_local_ones_and_back() {
    in_namespaces(PROGRAMS, || {
        let addresses = ["169.254.20.11", "fd00::b"];
        let local = addresses.map(|one| one.parse().unwrap());
        let pairs = "10.96.0.10=169.254.20.11,fd00:96::a=fd00::b";
        let mut kept = nftables(&addresses, Life::Process)
            .rewriting(Rewrite::parse_all(pairs, &local).unwrap());
        let report = kept.ensure();
        good(&report);
        assert_eq!(report.added, 24);
        assert_eq!(report.lines[1].1, "Pods' queries for 10.96.0.10 are answered on 169.254.20.11");
        let text = sh("nft list table inet nodens");
        for (way, family, from, to) in [
            ("d", "ip", "10.96.0.10", "169.254.20.11"),
            ("s", "ip", "169.254.20.11", "10.96.0.10"),
            ("d", "ip6", "fd00:96::a", "fd00::b"),
            ("s", "ip6", "fd00::b", "fd00:96::a"),
        ] {
            for protocol in ["tcp", "udp"] {
                let link = if way == "d" { "iif" } else { "oif" };
                let line = format!(
                    "{link} != \"lo\" {family} {way}addr {from} {protocol} {way}port 53 notrack \
                     {family} {way}addr set {to} comment \"NodeLocal DNS Cache: answer for the \
                     Service\"\n"
                );
                assert!(text.contains(&line), "{line}{text}");
            }
        }
        assert_eq!(kept.ensure(), Report::default());
        assert_eq!(kept.remove().removed, 24);
        assert_eq!(tables(), "");
    });
}

#[test]
fn when_queries_go_what_late_replies_need_stays_until_the_end() {
    in_namespaces(PROGRAMS, || {
        let local = ["169.254.20.11".parse().unwrap()];
        let rewrites = Rewrite::parse_all("10.96.0.10=169.254.20.11", &local).unwrap();
        for life in [Life::Process, Life::Node] {
            let mut kept = nftables(&["169.254.20.11"], life).rewriting(rewrites.clone());
            assert_eq!(kept.let_queries_go(), Report::default());
            good(&kept.ensure());
            let report = kept.let_queries_go();
            good(&report);
            assert_eq!(report.removed, 7);
            assert_eq!(rules("nodens", "prerouting"), [""; 0]);
            assert_eq!(
                rules("nodens", "output"),
                [
                    "ip saddr 169.254.20.11 udp sport 53",
                    "ip daddr 169.254.20.11 tcp dport 8080",
                    "ip saddr 169.254.20.11 tcp sport 8080",
                    "oif != \"lo\" ip saddr 169.254.20.11 tcp sport 53",
                    "oif != \"lo\" ip saddr 169.254.20.11 udp sport 53",
                ]
            );
            assert_eq!(kept.ends_with_process(), life == Life::Process);
            let report = kept.remove();
            good(&report);
            assert_eq!((report.removed, tables()), (5, String::new()));
        }
    });
}

#[test]
fn a_successor_has_a_table_of_its_own() {
    in_namespaces(PROGRAMS, || {
        let mut all: Vec<_> = (0..5).map(|_| nftables(&["169.254.20.10"], Life::Process)).collect();
        for kept in &mut all[..4] {
            good(&kept.ensure());
        }
        let expected = "table inet nodens, table inet nodens-b, table inet nodens-c, table inet \
                        nodens-d";
        assert_eq!(tables(), expected);
        let report = all[4].ensure();
        assert_eq!(report.errors, [("nftables", 8)], "{report:?}");
        // The next look finds room.
        good(&all[1].remove());
        good(&all[4].ensure());
        assert_eq!(all[4].table().as_deref(), Some("inet nodens-b"));
        assert_eq!(rules("nodens-b", "output").len(), 6);
        drop(all);
        until_none_is_left();
    });
}

#[test]
fn a_table_that_stays_is_repaired_and_taken_over() {
    in_namespaces(PROGRAMS, || {
        let mut kept = nftables(&["169.254.20.10"], Life::Node);
        let report = kept.ensure();
        good(&report);
        assert!(report.lines[0].1.ends_with("8 rules: it stays until it is removed"), "{report:?}");
        assert!(!kept.ends_with_process());
        for harm in [
            "nft flush chain inet nodens output",
            "nft delete table inet nodens",
            "nft insert rule inet nodens prerouting accept",
            "nft flush ruleset",
        ] {
            assert_eq!(kept.ensure(), Report::default());
            sh(harm);
            let report = kept.ensure();
            good(&report);
            assert_eq!(report.added, 8, "{harm}");
            assert!(report.lines.last().unwrap().1.starts_with("Added back"), "{report:?}");
            let name = kept.table().unwrap();
            let name = name.strip_prefix("inet ").unwrap();
            assert_eq!((rules(name, "prerouting").len(), rules(name, "output").len()), (2, 6));
            sh("nft delete table inet nodens-b 2>/dev/null; true");
            sh("nft delete table inet nodens 2>/dev/null; true");
            good(&kept.ensure());
        }
        drop(kept);
        assert_eq!(tables(), "table inet nodens");
        // The next one takes its place in one step, and cleanup knows of it.
        let mut cleaner = nftables(&[], Life::Process);
        assert_eq!(cleaner.left_behind().unwrap(), ["inet nodens"]);
        let mut next = nftables(&["10.0.0.10"], Life::Process);
        good(&next.ensure());
        assert_eq!(rules("nodens", "prerouting")[0], "ip daddr 10.0.0.10 tcp dport 53");
        assert_eq!(tables(), "table inet nodens");
        assert_eq!(cleaner.left_behind().unwrap(), [""; 0]);
        good(&next.remove());

        let mut kept = nftables(&["169.254.20.10"], Life::Node);
        good(&kept.ensure());
        good(&cleaner.remove_left_behind());
        assert_eq!(tables(), "");
        assert_eq!(cleaner.remove_left_behind(), Report::default());
    });
}

#[test]
fn a_table_of_somebody_else_is_left_alone_and_told_of() {
    in_namespaces(PROGRAMS, || {
        sh("nft add table inet nodens && nft add chain inet nodens mine \
            && nft add rule inet nodens mine udp dport 1 accept");
        let mut kept = nftables(&["169.254.20.10"], Life::Process);
        let report = kept.ensure();
        good(&report);
        assert_eq!(report.troubles, [Trouble::TableOfOthers]);
        assert!(report.lines[0].1.contains("table inet nodens is not of nodens"), "{report:?}");
        assert_eq!(kept.table().as_deref(), Some("inet nodens-b"));
        let text = sh("nft list table inet nodens");
        assert!(text.contains("udp dport 1 accept") && !text.contains("notrack"), "{text}");
    });
}

#[test]
fn a_policy_that_drops_is_told_of_once() {
    in_namespaces(PROGRAMS, || {
        sh("nft add table ip filter");
        sh("nft 'add chain ip filter INPUT { type filter hook input priority 0; policy drop; }'");
        let mut kept = nftables(&["169.254.20.10"], Life::Process);
        let report = kept.ensure();
        good(&report);
        assert_eq!(report.troubles, [Trouble::PolicyDrops]);
        let (_, line) = report.lines.last().unwrap();
        assert!(
            line.starts_with("The chain INPUT of the nftables table ip filter drops"),
            "{line}"
        );
    });
}

/// Set in the process that runs without the capability.
const WITHOUT: &str = "NODENS_TEST_WITHOUT_NET_ADMIN";

#[test]
fn without_the_capability_it_says_what_to_do() {
    if std::env::var_os(WITHOUT).is_none() {
        return in_namespaces(&["nft", "setpriv"], || {
            let program = std::env::current_exe().unwrap();
            sh(&format!(
                "{WITHOUT}=1 setpriv --inh-caps=-net_admin --bounding-set=-net_admin {} --exact \
                 without_the_capability_it_says_what_to_do",
                program.display()
            ));
        });
    }
    let mut firewall = Firewall::Nftables(nftables(&["169.254.20.10"], Life::Process));
    let report = firewall.apply();
    assert_eq!(report.errors, [("nftables", 8)]);
    assert_eq!(report.troubles, [Trouble::NoPermission]);
    assert!(report.lines[1].1.contains("NET_ADMIN"), "{report:?}");
    assert_eq!(firewall.remove(Within::REMOVING), Report::default());
}
