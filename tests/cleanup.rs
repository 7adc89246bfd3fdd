//! `nodens cleanup` on what nodens and node-cache of every age leave behind, made by the real
//! programs in namespaces. Needs root, iproute2 and iptables; says so where they are missing.

// A namespace that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod namespace;

use namespace::{in_namespaces, sh, try_sh};
use nodens::node::firewall::{Life, Nftables, Plan};
use nodens::node::{Claim, Claims};
use serde_json::Value;
use std::fs;
use std::net::UdpSocket;

const PROGRAMS: &[&str] = &["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"];

/// Output, the lines beside it, the exit code.
fn cleanup(arguments: &str) -> (String, String, Option<i32>) {
    let output = try_sh(&format!("{} cleanup {arguments}", env!("CARGO_BIN_EXE_nodens")));
    let text = |octets| String::from_utf8(octets).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

/// All that cleanup could change.
fn state() -> String {
    let mut state = sh("ip -o addr show dev lo; ip -o link; ls -R /run");
    for program in PROGRAMS {
        let saved = sh(&format!("{program}-save"));
        state += &saved.lines().filter(|line| line.starts_with("-A")).collect::<String>();
    }
    state
}

/// node-cache's rules of an address; without comments as versions before 1.22.19 made them.
fn make_rules(program: &str, address: &str, is_commented: bool) {
    let end = |target: &str, words: &str| match is_commented {
        true => format!("-j {target} -m comment --comment 'NodeLocal DNS Cache: {words}'"),
        false => format!("-j {target}"),
    };
    let (skip, allow) = (end("NOTRACK", "skip conntrack"), end("ACCEPT", "allow DNS traffic"));
    let mut lines = Vec::new();
    for protocol in ["tcp", "udp"] {
        lines.push(format!("raw -I PREROUTING -p {protocol} -d {address} --dport 53 {skip}"));
        lines.push(format!("filter -I INPUT -p {protocol} -d {address} --dport 53 {allow}"));
        lines.push(format!("raw -I OUTPUT -p {protocol} -s {address} --sport 53 {skip}"));
        lines.push(format!("filter -I OUTPUT -p {protocol} -s {address} --sport 53 {allow}"));
        lines.push(format!("raw -I OUTPUT -p {protocol} -d {address} --dport 53 {skip}"));
    }
    lines.push(format!("raw -I OUTPUT -p tcp -d {address} --dport 8080 {skip}"));
    lines.push(format!("raw -I OUTPUT -p tcp -s {address} --sport 8080 {skip}"));
    let all = lines.iter().map(|line| format!("{program} -w -t {line}"));
    sh(&all.collect::<Vec<String>>().join(" && "));
}

/// What is said to be left or removed of a kind.
fn count(told: &Value, what: &str, kind: &str) -> usize {
    let things = told[what].as_array().unwrap();
    things.iter().filter(|thing| thing["kind"] == kind).count()
}

#[test]
fn rules_of_all_ages_kinds_and_families_go() {
    in_namespaces(PROGRAMS, || {
        let (out, err, code) = cleanup("");
        assert_eq!((out.as_str(), code), ("nothing is left of nodens or node-cache\n", Some(0)));
        assert_eq!(err, "");
        // The node's own, which look alike.
        sh("iptables-nft -A INPUT -p udp -d 169.254.20.10 --dport 53 -i eth7 -j ACCEPT");
        sh("iptables-nft -A INPUT -p tcp -d 169.254.20.10 --dport 22 -j ACCEPT");
        sh("iptables-legacy -A INPUT -p udp -d 192.0.2.1 --dport 53 -j ACCEPT");
        for program in PROGRAMS {
            sh(&format!("{program} -t raw -L && {program} -L"));
        }
        let before = state();
        for kind in ["nft", "legacy"] {
            make_rules(&format!("iptables-{kind}"), "169.254.20.10", true);
            make_rules(&format!("iptables-{kind}"), "169.254.20.10", true);
            make_rules(&format!("iptables-{kind}"), "169.254.20.10", false);
            make_rules(&format!("ip6tables-{kind}"), "fd00::a", true);
        }
        make_rules("iptables-nft", "10.0.0.10", true);
        let made = state();

        let (out, err, code) = cleanup("--localip 169.254.20.10,fd00::a");
        assert_eq!(code, Some(1), "{out}{err}");
        assert_eq!(out.lines().count(), 96, "{out}");
        assert!(
            out.starts_with("rule iptables-nft: raw -A PREROUTING -d 169.254.20.10/32 "),
            "{out}"
        );
        assert_eq!(err, "nodens cleanup: nothing was changed: --yes removes it\n");
        assert_eq!(state(), made);

        let (out, err, code) = cleanup("--localip 169.254.20.10,fd00::a --yes -o json");
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((count(&told, "removed", "rule"), count(&told, "left", "rule")), (96, 0));

        // The other address's, by their comments.
        let (out, err, code) = cleanup("-y");
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert_eq!(out.lines().count(), 12, "{out}");
        assert!(
            out.starts_with("removed rule iptables-nft: raw -A PREROUTING -d 10.0.0.10"),
            "{out}"
        );
        assert_eq!(state(), before);
        assert_eq!(cleanup("-y --localip 169.254.20.10").2, Some(0));
        assert_eq!(state(), before);
    });
}

#[test]
fn what_a_killed_nodens_leaves_goes_once_nobody_serves_with_it() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("base"), ".:53 {\n bind __PILLAR__LOCAL__DNS__\n whoami\n}\n").unwrap();
        let mut nodens = std::process::Command::new(env!("CARGO_BIN_EXE_nodens"))
            .args(["-localip=169.254.20.10,fd00::a", "-dual-stack", "-interfacename=lo"])
            .arg(format!("-basecorefile={}", path("base")))
            .arg(format!("-conf={}", path("Corefile")))
            .arg("-metrics-listen-address=127.0.0.1:0")
            .stdin(std::process::Stdio::null())
            .stdout(fs::File::create(path("log")).unwrap())
            .stderr(fs::File::create(path("errors")).unwrap())
            .spawn()
            .unwrap();
        let begun = std::time::Instant::now();
        let rules = || sh("iptables-save; ip6tables-save").matches("NodeLocal").count();
        let has_rules = || rules() > 0;
        // Those of each family come in two steps.
        while rules() < 24 {
            assert!(begun.elapsed().as_secs() < 60, "{}", fs::read_to_string(path("log")).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }

        let (_, err, code) = cleanup("");
        assert_eq!(code, Some(1), "{err}");
        assert!(
            err.ends_with("nothing was changed: --yes removes it once that has ended\n"),
            "{err}"
        );
        let (out, err, code) = cleanup("--interface lo --yes");
        assert_eq!(code, Some(75), "{out}{err}");
        for line in [
            "nodens cleanup: a living nodens serves with the interface lo\n",
            "nodens cleanup: a living nodens serves on 169.254.20.10\n",
            "nodens cleanup: a living nodens serves on fd00::a\n",
            "nodens cleanup: nothing was changed: end it first, or give --force\n",
        ] {
            assert!(err.contains(line), "{err}");
        }
        assert!(has_rules() && sh("ip addr show dev lo").contains("169.254.20.10/32"));

        nodens.kill().unwrap();
        nodens.wait().unwrap();
        assert!(has_rules() && sh("ip addr show dev lo").contains("169.254.20.10/32"));
        // The runtime directory remembers which interface it was.
        let (out, err, code) = cleanup("-o json");
        assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (count(&told, "left", "rule"), count(&told, "left", "address")),
            (24, 2),
            "{out}"
        );
        assert_eq!(told["users"].as_array().unwrap().len(), 0);
        let (out, err, code) = cleanup("--yes");
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.ends_with(
            "removed address 169.254.20.10 of the interface lo\n\
             removed address fd00::a of the interface lo\n"
        ));
        assert!(!has_rules());
        assert!(!sh("ip -o addr show dev lo").contains("169.254"));
        assert_eq!(cleanup("--interface lo --yes").2, Some(0));
    });
}

#[test]
fn tables_of_nftables_go_unless_they_are_anothers_or_somebody_serves_with_them() {
    in_namespaces(&["nft", "iptables-nft"], || {
        let plan = |addresses: &[&str]| Plan {
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            dns_port: 53,
            health_port: 8080,
        };
        let tables = || sh("nft list tables").replace("table ", "").replace('\n', " ");
        sh("nft add table inet nodens-c && nft add chain inet nodens-c mine \
            && nft add rule inet nodens-c mine accept");
        // Of a living one, and of one that ended with -skipteardown.
        let mut living = Nftables::new(plan(&["10.0.0.10"]), Life::Process);
        assert!(living.ensure().is_good());
        assert_eq!(cleanup("").2, Some(0));
        let mut left = Nftables::new(plan(&["169.254.20.10"]), Life::Node);
        assert!(left.ensure().is_good());
        drop(left);
        let (out, err, code) = cleanup("-o json");
        assert_eq!(code, Some(1), "{err}");
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(told["left"][0]["kind"], "table");
        assert_eq!(told["left"][0]["name"], "inet nodens-b");

        let mut claims = Claims::default();
        claims.take(&Claim::Rules("169.254.20.10".parse().unwrap(), 53)).unwrap();
        let (_, err, code) = cleanup("--yes");
        assert_eq!(code, Some(75), "{err}");
        assert!(err.contains("a living nodens serves with firewall rules\n"), "{err}");
        claims.release();
        // A program that another test starts has them, too, until it runs.
        let begun = std::time::Instant::now();
        while sh("cat /proc/self/net/unix").contains("@nodens/rules") {
            assert!(begun.elapsed().as_secs() < 60, "they stay claimed");
        }
        let (out, err, code) = cleanup("--yes");
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert_eq!(out, "removed nftables table inet nodens-b\n");
        assert_eq!(tables(), "inet nodens-c inet nodens ");
    });
}

#[test]
fn a_socket_on_the_address_of_rules_is_seen_whoever_has_it() {
    in_namespaces(PROGRAMS, || {
        sh("ip addr add 169.254.20.10/32 dev lo");
        make_rules("iptables-nft", "169.254.20.10", true);
        let socket = UdpSocket::bind("169.254.20.10:53").unwrap();
        let (out, err, code) = cleanup("--yes");
        assert_eq!(code, Some(75), "{out}{err}");
        assert!(err.contains("somebody serves on 169.254.20.10 port 53\n"), "{err}");
        drop(socket);
        let mut claims = Claims::default();
        claims.take(&Claim::Rules("169.254.20.10".parse().unwrap(), 53)).unwrap();
        assert_eq!(cleanup("--yes").2, Some(75));
        let (out, err, code) = cleanup("--yes --force");
        assert_eq!(code, Some(0), "{out}{err}");
        assert!(!sh("iptables-nft-save -t raw").contains("NodeLocal"));
        // Nobody told that the address is ours.
        assert!(sh("ip addr show dev lo").contains("169.254.20.10/32"));
    });
}

#[test]
fn without_the_privilege_it_says_so_and_ends_with_77() {
    in_namespaces(&["iptables-nft", "setpriv"], || {
        make_rules("iptables-nft", "169.254.20.10", true);
        let before = sh("iptables-nft-save");
        // A directory that only root may enter must not be in the way.
        sh(&format!("cp {} /run/nodens-copy", env!("CARGO_BIN_EXE_nodens")));
        let output = try_sh(
            "setpriv --reuid 65532 --regid 65532 --clear-groups /run/nodens-copy cleanup --yes",
        );
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(77), "{err}");
        assert!(err.contains("nodens cleanup: iptables-nft-save: exit status 4: "), "{err}");
        assert_eq!(output.stdout, b"");
        let rules = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(rules(&sh("iptables-nft-save")), rules(&before));
    });
}

#[test]
fn without_iptables_programs_the_rest_is_done_and_it_is_said() {
    in_namespaces(&[], || {
        let output =
            try_sh(&format!("PATH=/nowhere {} cleanup --yes", env!("CARGO_BIN_EXE_nodens")));
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "nodens cleanup: no iptables programs are here: their rules were not looked for\n"
        );
    });
}
