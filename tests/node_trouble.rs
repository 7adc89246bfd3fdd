//! What may be wrong with a node: each trouble has its line and its counter, and queries are answered
//! wherever they can be. The real program, kernel and firewall programs in namespaces; a kernel without
//! nf_tables and the dummy driver is in tests/kernel. Needs root, iproute2, iptables, nftables and setpriv;
//! says so where they are missing.

// A namespace that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod namespace;

use namespace::program::{Process, answers, metric, until};
use namespace::{in_namespaces, replace, sh, try_sh};
use std::fs::{self, File};
use std::path::Path;

const FLAGS: &[&str] = &["-localip=169.254.20.10,10.0.0.10", "-interfacename=lo"];

/// What is counted of a trouble.
fn troubles(reason: &str) -> u64 {
    metric(&format!("nodens_node_trouble_total{{reason=\"{reason}\"}}")).unwrap_or(0)
}

/// What is counted as node-cache does.
fn setup_errors(kind: &str) -> u64 {
    metric(&format!("coredns_nodecache_setup_errors_total{{errortype=\"{kind}\"}}")).unwrap_or(0)
}

fn rules() -> usize {
    sh("iptables-save").lines().filter(|line| line.contains("NodeLocal DNS Cache")).count()
}

/// Waits until a line is told and a trouble counted, with queries answered.
fn until_told(process: &Process, line: &str, reason: &str) {
    process.says(line);
    until(reason, process, || troubles(reason) > 0);
    until("an answer", process, || answers("10.0.0.10"));
}

#[test]
fn without_net_admin_it_serves_and_says_what_it_cannot_do() {
    in_namespaces(&["iptables", "nft", "setpriv"], || {
        let folder = tempfile::tempdir().unwrap();
        let without = ["setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"];
        // As another manager made them.
        sh("ip addr add 169.254.20.10/32 dev lo && ip addr add 10.0.0.10/32 dev lo");
        for (number, backend, errors) in [(1, "iptables", 24), (2, "nftables", 16)] {
            let firewall = format!("-firewall={backend}");
            let flags = [FLAGS, &[&firewall]].concat();
            let process = Process::start_by(&without, &folder, number, &flags);
            until_told(
                &process,
                "The capability NET_ADMIN is missing: give it to nodens, or set the firewall rules \
                 yourself and give -firewall=none",
                "no_permission",
            );
            assert_eq!(setup_errors(backend), errors, "{}", process.log());
        }
        let flags = [FLAGS, &["-interfacename=nodelocaldns", "-firewall=none"]].concat();
        let process = Process::start_by(&without, &folder, 3, &flags);
        until_told(
            &process,
            "The capability NET_ADMIN is missing: give it to nodens, or make the interface \
             nodelocaldns yourself and give -setupinterface=false",
            "no_permission",
        );
        assert_eq!((setup_errors("interface_add"), setup_errors("interface_check")), (1, 1));
    });
}

#[test]
fn while_somebody_holds_the_lock_it_serves_and_rules_come_afterwards() {
    in_namespaces(&["iptables-legacy"], || {
        let folder = tempfile::tempdir().unwrap();
        replace("/usr/sbin/xtables-nft-multi", Path::new("/usr/sbin/xtables-legacy-multi"));
        let lock = File::create("/run/xtables.lock").unwrap();
        lock.lock().unwrap();
        let process = Process::start(
            &folder,
            1,
            &[FLAGS, &["-firewall=iptables", "-syncinterval=1s"]].concat(),
        );
        until("an answer", &process, || answers("10.0.0.10"));
        until("the counter", &process, || setup_errors("iptables_lock") > 0);
        process.says("holding the xtables lock");
        assert_eq!((rules(), setup_errors("iptables")), (0, 0), "{}", process.log());
        lock.unlock().unwrap();
        until("rules", &process, || rules() == 24);
        assert!(answers("10.0.0.10"));
    });
}

#[test]
fn a_table_of_somebody_else_stays_and_another_name_is_used() {
    in_namespaces(&["nft"], || {
        let folder = tempfile::tempdir().unwrap();
        sh("nft add table inet nodens && nft add chain inet nodens mine \
            && nft add rule inet nodens mine udp dport 1 accept");
        let theirs = sh("nft list table inet nodens");
        let process = Process::start(&folder, 1, &[FLAGS, &["-firewall=nftables"]].concat());
        until_told(
            &process,
            "The nftables table inet nodens is not of nodens: it is left alone, and another name is used",
            "table_of_others",
        );
        assert!(sh("nft list table inet nodens-b").contains("notrack"));
        process.signal("TERM");
        until("the end", &process, || !sh("nft list tables").contains("nodens-b"));
        assert_eq!(sh("nft list table inet nodens"), theirs);
    });
}

#[test]
fn an_address_that_another_link_has_too_is_answered_and_told_of() {
    in_namespaces(&[], || {
        let folder = tempfile::tempdir().unwrap();
        sh("ip link add v0 type veth peer name v1 && ip addr add 10.0.0.10/32 dev v0");
        let mut process = Process::start(&folder, 1, &[FLAGS, &["-firewall=none"]].concat());
        until_told(
            &process,
            "On another interface than lo, too: 10.0.0.10; queries come to nodens all the same",
            "address_elsewhere",
        );
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0));
        assert!(sh("ip addr show dev v0").contains("10.0.0.10/32"), "{}", process.log());
    });
}

#[test]
fn an_interface_that_is_deleted_while_it_runs_is_counted_and_is_back_as_soon_as_it_can_be() {
    in_namespaces(&[], || {
        let folder = tempfile::tempdir().unwrap();
        let make =
            "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up";
        sh(make);
        sh("ip addr add 10.0.0.10/32 dev lo");
        let has_dummies = try_sh("ip link add d0 type dummy").status.success();
        // The first address is on lo, too, as one that is left when a link goes.
        let flags = &["-localip=10.0.0.10,169.254.20.10", "-interfacename=v0", "-firewall=none"];
        let process = Process::start(&folder, 1, flags);
        until("an answer", &process, || answers("169.254.20.10"));
        sh("ip link del v0");
        if !has_dummies {
            until_told(
                &process,
                "This kernel has no dummy interfaces: load the module `dummy`, or name an interface \
                 that is there",
                "no_driver",
            );
            assert!(setup_errors("interface_add") > 0 && setup_errors("interface_check") > 0);
            sh(make);
        }
        until("the address", &process, || {
            try_sh("ip addr show dev v0 | grep -q 169.254.20.10/32").status.success()
        });
        until("an answer", &process, || answers("169.254.20.10"));
        until("the counter", &process, || metric("nodens_node_repaired_total").unwrap_or(0) > 0);
    });
}

#[test]
fn with_a_full_runtime_directory_it_serves_and_says_what_it_cannot_remember() {
    in_namespaces(&["nft"], || {
        let folder = tempfile::tempdir().unwrap();
        let full = folder.path().join("full");
        fs::create_dir(&full).unwrap();
        let place = full.display();
        // The namespace's own mount goes with it.
        sh(&format!(
            "mount -t tmpfs -o size=4k full {place} && head -c 4096 /dev/zero >{place}/all"
        ));
        let runtime = format!("-runtime-dir={place}");
        let flags = [FLAGS, &["-firewall=nftables", &runtime]].concat();
        let mut process = Process::start(&folder, 1, &flags);
        until_told(
            &process,
            "Cannot remember in the runtime directory what was made: no space left on device; after \
             a crash addresses may stay",
            "runtime_directory",
        );
        until("rules", &process, || sh("nft list tables").contains("nodens"));
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        assert!(!sh("ip addr show dev lo").contains("10.0.0.10"), "{}", process.log());
    });
}
