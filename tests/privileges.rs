//! What the program keeps of its privileges once it serves, in every thread, and that it goes on with
//! them: repairs rules, reloads, ends. In namespaces, with the real kernel and programs. Needs root,
//! iproute2, iptables, nftables and util-linux; says so where they are missing.

// A namespace that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod namespace;

use namespace::program::{Process, answers, until};
use namespace::{in_namespaces, sh, stand_in};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nodens::sys::seccomp::{Programs, Unlisted, install};
use seccompiler::{SeccompAction, SeccompFilter, apply_filter};
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::thread;

const PROGRAMS: &[&str] = &["iptables", "ip6tables", "nft", "unshare", "setpriv"];

const LOCAL: &[&str] = &["-localip=169.254.20.10", "-interfacename=lo", "-syncinterval=1s"];

/// The capabilities by their bits.
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;

/// A line of the kernel about a thread.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn capabilities(status: &str, name: &str) -> u64 {
    u64::from_str_radix(&field(status, name), 16).unwrap()
}

/// What the kernel says of every thread of a process.
fn threads(id: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    entries
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("status")).ok())
        .collect()
}

/// Waits for the line of what is left, and holds every thread to it.
fn is_reduced_to(process: &Process, wanted: u64) {
    process.says("[INFO] Privileges reduced to");
    let all = threads(process.child.id());
    assert!(all.len() > 3, "{all:?}");
    for status in all {
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(capabilities(&status, set), wanted, "{set}\n{status}");
        }
        assert_eq!(capabilities(&status, "CapInh") & !wanted, 0, "{status}");
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{status}");
        assert_eq!(field(&status, "Seccomp"), "2", "{status}");
    }
}

fn rules() -> usize {
    sh("iptables-save").lines().filter(|line| line.contains("NodeLocal DNS Cache")).count()
}

#[test]
fn every_thread_keeps_only_what_interface_rules_and_reloads_need() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::read_to_string("/proc/thread-self/status").unwrap();
        let before = capabilities(&own, "CapPrm");
        for (number, flags, wanted) in [
            (1, &["-firewall=iptables"][..], NET_BIND_SERVICE | NET_ADMIN | NET_RAW),
            (2, &["-firewall=nftables"], NET_BIND_SERVICE | NET_ADMIN),
            (3, &["-firewall=none"], NET_BIND_SERVICE | NET_ADMIN),
        ] {
            let mut process = Process::start(&folder, number, &[LOCAL, flags].concat());
            is_reduced_to(&process, wanted);
            assert_ne!(before & !wanted, 0, "nothing was there to be given up");
            assert!(answers("169.254.20.10"));
            process.signal("TERM");
            assert_eq!(process.exit_code(), Some(0), "{}", process.log());
            assert!(!sh("ip -o addr show dev lo").contains("169.254"), "{}", process.log());
        }
        // Without interface and rules there is nothing to administer.
        sh("ip addr add 169.254.20.10/32 dev lo");
        let flags = &[LOCAL, &["-setupinterface=false", "-firewall=none"]].concat();
        let process = Process::start(&folder, 4, flags);
        is_reduced_to(&process, NET_BIND_SERVICE);
        assert!(answers("169.254.20.10"));
    });
}

#[test]
fn both_can_be_turned_off() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::read_to_string("/proc/thread-self/status").unwrap();
        let flags = &[LOCAL, &["-drop-capabilities=false", "-seccomp=off"]].concat();
        let process = Process::start(&folder, 1, flags);
        until("rules", &process, || rules() == 12);
        for status in threads(process.child.id()) {
            for line in ["CapPrm", "CapEff", "NoNewPrivs", "Seccomp"] {
                assert_eq!(field(&status, line), field(&own, line), "{line}");
            }
        }
        assert!(!process.log().contains("Privileges"), "{}", process.log());
    });
}

/// Lets the programs of iptables be those of one kind, in this namespace alone.
fn use_kind(kind: &str) {
    sh(&format!(
        "mount --bind $(readlink -f $(command -v iptables-{kind})) $(readlink -f $(command -v iptables))"
    ));
}

fn rules_are_repaired_and_removed(kind: &'static str) {
    in_namespaces(&[PROGRAMS, &["iptables-legacy", "iptables-nft"]].concat(), move || {
        use_kind(kind);
        let folder = tempfile::tempdir().unwrap();
        let flags = &[LOCAL, &["-firewall=iptables"]].concat();
        let mut process = Process::start(&folder, 1, flags);
        is_reduced_to(&process, NET_BIND_SERVICE | NET_ADMIN | NET_RAW);
        assert_eq!(rules(), 12, "{}", process.log());
        sh("iptables -t raw -F OUTPUT");
        // It may have been quicker than anybody who looks.
        until("rules are back", &process, || rules() == 12);
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        assert_eq!(rules(), 0, "{}", process.log());
        assert!(!process.log().contains("[ERROR]") || !process.log().contains("tables"));
    });
}

#[test]
fn rules_are_repaired_and_removed_by_iptables_nft() {
    rules_are_repaired_and_removed("nft");
}

#[test]
fn rules_are_repaired_and_removed_by_iptables_legacy() {
    rules_are_repaired_and_removed("legacy");
}

#[test]
fn a_program_that_it_starts_has_no_more_than_it_has_itself() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("told");
        // Each run writes what it is and what it can do.
        stand_in(
            folder.path(),
            &format!(
                "{{ grep -E 'CapPrm|Seccomp:|NoNewPrivs' /proc/$$/status; \
                 unshare -m true && echo unshare=1 || echo unshare=0; \
                 mount -t tmpfs x /mnt && umount /mnt && echo mount=1 || echo mount=0; \
                 echo .; }} >>{} 2>&1\nexec -a \"$0\" $REAL \"$@\"",
                told.display()
            ),
        );
        let process =
            Process::start(&folder, 1, &[LOCAL, &["-firewall=iptables", "-seccomp=on"]].concat());
        is_reduced_to(&process, NET_BIND_SERVICE | NET_ADMIN | NET_RAW);
        let text = || fs::read_to_string(&told).unwrap();
        // The first ones ran in the set-up: the machine lets them.
        assert!(text().contains("unshare=1") && text().contains("mount=1"), "{}", text());
        // One may have begun before. Behind that each begins and ends alone.
        let runs = || text().matches("\n.\n").count();
        let before = runs();
        until("later runs", &process, || runs() > before + 2);
        let text = text();
        let after = text.split_inclusive("\n.\n").nth(before + 2).unwrap();
        assert!(!after.contains("unshare=1") && !after.contains("mount=1"), "{after}");
        assert!(after.contains("unshare=0") && after.contains("mount=0"), "{after}");
        assert!(after.contains("NoNewPrivs:\t1") && after.contains("Seccomp:\t2"), "{after}");
        let capabilities = capabilities(after, "CapPrm");
        assert_eq!(capabilities, NET_BIND_SERVICE | NET_ADMIN | NET_RAW, "{after}");
        assert_eq!(rules(), 12);
    });
}

/// A user that is nobody here.
const USER: u32 = 65532;

/// Becomes that user with some capabilities in every set, also for what it starts, as systemd's
/// `AmbientCapabilities=` and OCI runtimes do.
fn as_user(capabilities: &str) -> Vec<String> {
    [
        "setpriv",
        &format!("--reuid={USER}"),
        &format!("--regid={USER}"),
        "--clear-groups",
        &format!("--inh-caps={capabilities}"),
        &format!("--ambient-caps={capabilities}"),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn serves_as_another_user(capabilities: &'static str, backend: &'static str, wanted: u64) {
    in_namespaces(PROGRAMS, move || {
        let folder = tempfile::tempdir().unwrap();
        chown(folder.path(), Some(USER), Some(USER)).unwrap();
        let (starter, backend_flag) = (as_user(capabilities), format!("-firewall={backend}"));
        let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
        let runtime = format!("-runtime-dir={}", folder.path().join("run").display());
        let flags = [LOCAL, &[backend_flag.as_str(), runtime.as_str()]].concat();
        let template = ".:53 {\n bind __PILLAR__LOCAL__DNS__\n whoami\n}\n";
        let mut process = Process::start_from(&starter, folder.path(), 1, template, &flags);
        is_reduced_to(&process, wanted);
        for status in threads(process.child.id()) {
            assert!(field(&status, "Uid").starts_with(&USER.to_string()), "{status}");
        }
        assert!(answers("169.254.20.10"), "{}", process.log());
        assert!(sh("ip -o addr show dev lo").contains("169.254.20.10/32"));
        let is_set = || match backend {
            "nftables" => sh("nft list tables") == "table inet nodens\n",
            _ => rules() == 12,
        };
        assert!(is_set(), "{}", process.log());
        if backend == "iptables" {
            sh("iptables -t raw -F OUTPUT");
            until("rules are back", &process, is_set);
        }
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        assert!(!is_set() && !sh("ip -o addr show dev lo").contains("169.254"));
    });
}

#[test]
fn it_serves_with_nftables_as_another_user_where_capabilities_are_ambient() {
    let capabilities = "-all,+net_admin,+net_bind_service";
    serves_as_another_user(capabilities, "nftables", NET_ADMIN | NET_BIND_SERVICE);
}

#[test]
fn it_serves_with_iptables_as_another_user_where_capabilities_are_ambient() {
    let capabilities = "-all,+net_admin,+net_raw,+net_bind_service";
    serves_as_another_user(capabilities, "iptables", NET_ADMIN | NET_RAW | NET_BIND_SERVICE);
}

#[test]
fn it_serves_on_a_root_file_system_that_nobody_can_write() {
    in_namespaces(PROGRAMS, || {
        // What a pod mounts: the Corefile's directory, the template, the runtime directory (which is
        // a file system of its own here already).
        let folder = Path::new("/run/pod");
        fs::create_dir(folder).unwrap();
        sh("mount -t tmpfs pod /run/pod && mount -o remount,bind,ro /");
        assert!(fs::write("/read-only", "x").is_err());
        let template = ".:53 {\n bind __PILLAR__LOCAL__DNS__\n whoami\n reload 2s 1s\n}\n";
        let mut process = Process::start_from(
            &[],
            folder,
            1,
            template,
            &[LOCAL, &["-firewall=nftables"]].concat(),
        );
        is_reduced_to(&process, NET_ADMIN | NET_BIND_SERVICE);
        assert!(answers("169.254.20.10"), "{}", process.log());
        // A change of the template is written and taken.
        fs::write(folder.join("base1"), template.replace("whoami", "whoami\n log")).unwrap();
        process.says("[INFO] Reloading complete");
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        assert!(!process.log().contains("Read-only"), "{}", process.log());
    });
}

#[test]
fn a_reload_may_add_an_address() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder, 1, &[LOCAL, &["-firewall=none"]].concat());
        is_reduced_to(&process, NET_ADMIN | NET_BIND_SERVICE);
        sh("ip addr add 10.0.0.99/32 dev lo");
        assert!(!answers("10.0.0.99"));
        fs::write(
            folder.path().join("Corefile1"),
            ".:53 {\n bind 169.254.20.10 10.0.0.99\n whoami\n}\n",
        )
        .unwrap();
        process.signal("USR1");
        until("the new address", &process, || answers("10.0.0.99"));
        assert!(answers("169.254.20.10"), "{}", process.log());
    });
}

#[test]
fn what_the_kernel_refuses_is_said_and_served_without() {
    in_namespaces(PROGRAMS, || {
        // A container's own filter may refuse both; it holds for this thread and what it starts.
        let calls = [libc::SYS_seccomp, libc::SYS_capset].map(|call| (call, Vec::new()));
        let refused = SeccompAction::Errno(libc::EPERM as u32);
        let processor = std::env::consts::ARCH.try_into().unwrap();
        let filter =
            SeccompFilter::new(calls.into(), SeccompAction::Allow, refused, processor).unwrap();
        let program: seccompiler::BpfProgram = filter.try_into().unwrap();
        apply_filter(&program).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let template =
            ".:53 {\n bind __PILLAR__LOCAL__DNS__\n whoami\n prometheus 127.0.0.1:9253\n}\n";
        let flags = [LOCAL, &["-firewall=none"]].concat();
        let process = Process::start_from(&[], folder.path(), 1, template, &flags);
        for line in [
            "[WARNING] Capabilities could not be given up in all threads, serving on: ",
            "[WARNING] System calls could not be filtered, serving on: the kernel refuses it",
        ] {
            process.says(line);
            assert_eq!(process.log().matches(line).count(), 1);
        }
        assert!(answers("169.254.20.10"));
        let metrics = sh(
            "exec 3<>/dev/tcp/127.0.0.1/9253 && printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3",
        );
        for what in ["capabilities", "system_calls"] {
            let line = format!("nodens_privileges_reduced{{what=\"{what}\"}} 0");
            assert!(metrics.contains(&line), "{metrics}");
        }
    });
}

#[test]
fn a_guardian_keeps_only_what_removes_rules() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let pidfile = format!("-pidfile={}", pid.display());
        let flags = [LOCAL, &["-firewall=iptables", "-guardian", &pidfile]].concat();
        let mut process = Process::start(&folder, 1, &flags);
        let server = || fs::read_to_string(&pid).unwrap_or_default();
        until("rules", &process, || rules() == 12 && server().ends_with('\n'));
        // It gives up its own beside the server's start: capabilities first.
        let status = format!("/proc/{}/status", process.child.id());
        let guardian = || fs::read_to_string(&status).unwrap();
        until("reduced", &process, || field(&guardian(), "Seccomp") == "2");
        assert_eq!(capabilities(&guardian(), "CapPrm"), NET_ADMIN | NET_RAW, "{}", guardian());
        sh(&format!("kill -s KILL {}", server().trim()));
        assert_eq!(process.exit_code(), Some(128 + 9), "{}", process.log());
        assert_eq!(rules(), 0, "{}", process.log());
    });
}

/// Says to the test's own program, started again, which filter to set.
const FILTERED: &str = "NODENS_TEST_FILTERED";

#[test]
fn a_call_that_is_not_listed_fails_as_if_the_kernel_had_none() {
    // A filter holds for the whole process and for good: it is set in one of our own.
    let name = "a_call_that_is_not_listed_fails_as_if_the_kernel_had_none";
    let Ok(kind) = std::env::var(FILTERED) else {
        let itself = std::env::current_exe().unwrap();
        for (kind, signal) in [("none", None), ("programs", None), ("kill", Some(libc::SIGSYS))] {
            let mut child = Command::new(&itself);
            let output = child.args(["--exact", name]).env(FILTERED, kind).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.signal(), signal, "{kind}: {text}");
            assert!(output.status.success() || signal.is_some(), "{kind}: {text}");
        }
        return;
    };
    let (programs, unlisted) = match kind.as_str() {
        "programs" => (Programs::Firewall, Unlisted::Refused),
        "kill" => (Programs::None, Unlisted::Deadly),
        _ => (Programs::None, Unlisted::Refused),
    };
    assert!(install(programs, unlisted).unwrap() > 80);
    // Threads that were there have it, and so do new ones.
    for status in threads(std::process::id()) {
        assert_eq!(field(&status, "Seccomp"), "2", "{status}");
    }
    let of_a_new_thread = thread::spawn(|| fs::read_to_string("/proc/thread-self/status").unwrap());
    assert_eq!(field(&of_a_new_thread.join().unwrap(), "Seccomp"), "2");
    assert_eq!(unshare(CloneFlags::CLONE_NEWUTS), Err(Errno::ENOSYS));
    let packets = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None);
    assert_eq!(packets.unwrap_err(), Errno::ENOSYS);
    assert!(socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::empty(), None).is_ok());
    let started = Command::new("true").status();
    match programs {
        Programs::Firewall => assert!(started.unwrap().success()),
        Programs::None => assert_eq!(started.unwrap_err().raw_os_error(), Some(libc::ENOSYS)),
    }
}
