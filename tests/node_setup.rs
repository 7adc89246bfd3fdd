//! The program on a node: interface and rules as it makes, keeps and removes them, with the real
//! kernel, with the iptables programs and with nftables, in namespaces. Needs root, iproute2, iptables
//! and nftables; says so where they are missing.

// A namespace that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod namespace;

use namespace::program::{Process, answers, until};
use namespace::{in_namespaces, sh, try_sh};
use socket2::{Domain, Socket, Type};

const PROGRAMS: &[&str] = &["iptables", "ip6tables"];

fn addresses() -> String {
    sh("ip -o addr show dev lo")
}

/// How many rules of ours there are in both families.
fn rules() -> usize {
    let text = sh("iptables-save; ip6tables-save");
    text.lines().filter(|line| line.contains("NodeLocal DNS Cache")).count()
}

const FLAGS: &[&str] =
    &["-localip=169.254.20.10,10.0.0.10,fd00::a", "-dual-stack", "-interfacename=lo"];

#[test]
fn rules_come_with_the_listeners_and_all_goes_on_sigterm() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let before = addresses();
        let mut process = Process::start(&folder, 1, FLAGS);
        until("listeners", &process, || answers("10.0.0.10"));
        // The interval is a minute; the rules do not wait for it.
        until("rules", &process, || rules() == 36);
        for address in ["169.254.20.10", "10.0.0.10", "fd00::a"] {
            assert!(answers(address), "{address}: {}", process.log());
        }
        // Neither does what another manager takes away.
        for harm in ["10.0.0.10/32", "fd00::a/128"] {
            sh(&format!("ip addr del {harm} dev lo"));
            until("back", &process, || addresses().contains(harm));
        }
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        assert_eq!(rules(), 0, "{}", process.log());
        assert_eq!(addresses(), before, "{}", process.log());
        assert!(process.log().contains("[INFO] Tearing down"), "{}", process.log());
    });
}

#[test]
fn a_successors_rules_and_addresses_stay() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let before = addresses();
        let flags = &[FLAGS, &["-handover=false"]].concat();
        let mut old = Process::start(&folder, 1, flags);
        until("rules", &old, || rules() == 36);
        let mut new = Process::start(&folder, 2, flags);
        // Its claim is what the first one looks for.
        until("claims", &new, || {
            sh("cat /proc/self/net/unix").matches("@nodens/link/lo/").count() == 2
        });
        old.signal("TERM");
        assert_eq!(old.exit_code(), Some(0), "{}", old.log());
        assert!(old.log().contains("Another nodens serves"), "{}", old.log());
        assert_eq!(rules(), 36);
        assert!(answers("10.0.0.10"));
        new.signal("TERM");
        assert_eq!(new.exit_code(), Some(0));
        assert_eq!(rules(), 0, "{}", new.log());
        assert_eq!(addresses(), before, "{}", new.log());
    });
}

/// One that had its rules and was killed: they are still there.
fn killed(folder: &tempfile::TempDir) {
    let killed = Process::start(folder, 1, FLAGS);
    until("rules", &killed, || rules() == 36);
    drop(killed);
    assert_eq!(rules(), 36);
}

#[test]
fn what_a_killed_one_left_goes_with_the_next() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let before = addresses();
        killed(&folder);
        let mut next = Process::start(&folder, 2, FLAGS);
        until("listeners", &next, || answers("10.0.0.10"));
        next.signal("INT");
        assert_eq!(next.exit_code(), Some(0), "{}", next.log());
        assert_eq!((rules(), addresses()), (0, before), "{}", next.log());
    });
}

#[test]
fn what_a_killed_one_left_goes_with_the_next_also_when_that_cannot_start() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let before = addresses();
        killed(&folder);
        let _taken = std::net::TcpListener::bind("0.0.0.0:53").unwrap();
        let mut refused = Process::start(&folder, 2, FLAGS);
        assert_eq!(refused.exit_code(), Some(1), "{}", refused.log());
        assert_eq!((rules(), addresses()), (0, before), "{}", refused.log());
    });
}

/// Serves on 10.0.0.10 as node-cache does beside another one: on the port that both have.
fn somebody_else() -> std::net::UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&std::net::SocketAddr::from(([10, 0, 0, 10], 53)).into()).unwrap();
    socket.into()
}

#[test]
fn what_somebody_else_serves_with_stays() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let mut leaving = Process::start(&folder, 1, FLAGS);
        until("rules", &leaving, || rules() == 36);
        let of_address = || sh("iptables-save").matches("10.0.0.10/32").count();
        let all = of_address();
        assert!(all > 0);
        let serves = somebody_else();
        leaving.signal("TERM");
        assert_eq!(leaving.exit_code(), Some(0), "{}", leaving.log());
        assert!(leaving.log().contains("Somebody else serves on 10.0.0.10"), "{}", leaving.log());
        assert_eq!(of_address(), all, "{}", leaving.log());
        assert!(addresses().contains("10.0.0.10/32"), "{}", leaving.log());
        // And so it does when a start fails.
        let _taken = std::net::TcpListener::bind("0.0.0.0:53").unwrap();
        let mut refused = Process::start(&folder, 2, FLAGS);
        assert_eq!(refused.exit_code(), Some(1), "{}", refused.log());
        assert_eq!(of_address(), all, "{}", refused.log());
        assert!(addresses().contains("10.0.0.10/32"), "{}", refused.log());
        drop(serves);
        let mut refused = Process::start(&folder, 3, FLAGS);
        assert_eq!(refused.exit_code(), Some(1));
        assert_eq!(rules(), 0, "{}", refused.log());
        assert!(!addresses().contains("10.0.0.10/32"), "{}", refused.log());
    });
}

#[test]
fn skipteardown_leaves_all_and_a_start_that_fails_leaves_nothing() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let before = addresses();
        let taken = std::net::TcpListener::bind("0.0.0.0:53").unwrap();
        let mut refused = Process::start(&folder, 1, FLAGS);
        assert_eq!(refused.exit_code(), Some(1), "{}", refused.log());
        assert_eq!((rules(), addresses()), (0, before), "{}", refused.log());
        drop(taken);
        let mut kept = Process::start(&folder, 2, &[FLAGS, &["-skipteardown"]].concat());
        until("rules", &kept, || rules() == 36);
        kept.signal("TERM");
        assert_eq!(kept.exit_code(), Some(0));
        assert_eq!(rules(), 36);
        assert!(addresses().contains("10.0.0.10/32"));
        assert!(try_sh("test -s /run/nodens/interface-lo").status.success());
    });
}

/// The tables of nftables, but for the tests' own.
fn tables() -> String {
    let text = sh("nft list tables");
    text.lines().filter(|line| !line.contains("tests")).collect::<Vec<_>>().join(", ")
}

/// Has the kernel track what comes in and goes out, as on a node with kube-proxy.
fn track_connections() {
    for hook in ["input", "output"] {
        sh(&format!(
            "nft add table inet tests && nft 'add chain inet tests {hook} \
             {{ type filter hook {hook} priority 0; }}' && nft add rule inet tests {hook} ct state new"
        ));
    }
}

/// Whether the kernel has tracked a query.
fn is_tracked() -> bool {
    sh("cat /proc/net/nf_conntrack").contains("dport=53 ")
}

#[test]
fn with_nftables_queries_are_not_tracked_and_the_rules_end_with_the_process() {
    in_namespaces(&["nft"], || {
        track_connections();
        let folder = tempfile::tempdir().unwrap();
        let flags = &[FLAGS, &["-firewall=nftables"]].concat();
        let mut process = Process::start(&folder, 1, flags);
        until("rules", &process, || tables() == "table inet nodens");
        for address in ["169.254.20.10", "10.0.0.10", "fd00::a"] {
            assert!(answers(address), "{address}: {}", process.log());
        }
        assert!(!is_tracked());
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        assert_eq!(tables(), "", "{}", process.log());
        assert_eq!(process.log().matches("nftables table inet nodens").count(), 1);

        let mut killed = Process::start(&folder, 2, flags);
        until("rules", &killed, || tables() == "table inet nodens");
        killed.child.kill().unwrap();
        until("end", &killed, || tables().is_empty());
        // What follows is tracked, and so may go to the cluster DNS.
        assert!(!is_tracked() && !answers("10.0.0.10") && is_tracked());
        assert_eq!(killed.exit_code(), None);
    });
}

#[test]
fn a_successor_has_rules_in_nftables_before_the_first_ones_go() {
    in_namespaces(&["nft"], || {
        track_connections();
        let folder = tempfile::tempdir().unwrap();
        let flags = &[FLAGS, &["-firewall=nftables", "-handover=false"]].concat();
        let mut old = Process::start(&folder, 1, flags);
        until("rules", &old, || tables() == "table inet nodens");
        let mut new = Process::start(&folder, 2, flags);
        until("rules", &new, || tables() == "table inet nodens, table inet nodens-b");
        old.signal("TERM");
        assert_eq!(old.exit_code(), Some(0), "{}", old.log());
        assert_eq!(tables(), "table inet nodens-b", "{}", old.log());
        assert!(answers("10.0.0.10") && !is_tracked());
        new.signal("TERM");
        assert_eq!((new.exit_code(), tables().as_str()), (Some(0), ""), "{}", new.log());
    });
}

#[test]
fn the_choice_of_the_backend_follows_the_node() {
    in_namespaces(&["nft", "iptables"], || {
        let folder = tempfile::tempdir().unwrap();
        let chosen = |number: u32, flags: &[&str], line: &str| {
            let process = Process::start(&folder, number, &[FLAGS, flags].concat());
            process.says(line);
        };
        chosen(1, &[], "by iptables: the program is here and kube-proxy does not use nftables");
        sh("nft add table ip kube-proxy");
        chosen(2, &[], "in nftables: kube-proxy uses nftables");
        sh("nft add table ip nat && nft add chain ip nat KUBE-SERVICES");
        chosen(
            3,
            &[],
            "by iptables: kube-proxy's tables are in nftables, but iptables is in use too",
        );
        sh("nft delete table ip nat && nft add table ip filter && \
            nft 'add chain ip filter INPUT { type filter hook input priority 0; policy drop; }'");
        chosen(4, &[], "by iptables: a chain drops what comes in");
    });
}
