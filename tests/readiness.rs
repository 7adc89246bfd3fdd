//! /ready, and a /health that is strict, turn with listeners, interface, rules and upstreams; and the
//! order of the end: rules first, interface last. Real sockets; the tests of interface and rules in
//! namespaces, which need root, iproute2 and iptables and say so where they are missing.

// A namespace that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod missing;
mod namespace;
#[path = "process/node.rs"]
mod node;

use namespace::program::{Process, answers, until};
use namespace::{in_namespaces, sh, stand_in};
use node::{Node, free_port};
use std::fs;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

/// An upstream that gives every query back as its response, until it is dropped.
struct Upstream {
    port: u16,
    asked: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    fn start(port: u16) -> Upstream {
        let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (asked, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (asked.clone(), is_over.clone());
        let thread = spawn(move || {
            let mut message = [0; 512];
            while !end.load(Ordering::Acquire) {
                let Ok((length, client)) = socket.recv_from(&mut message) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                message[2] |= 0x80;
                let _ = socket.send_to(&message[..length], client);
            }
        });
        Upstream { port, asked, is_over, thread: Some(thread) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Forwards to an upstream, quick to see that it is gone, in front of `rest`.
fn forwarding(port: u16, rest: &str) -> String {
    format!(
        "    forward . 127.0.0.1:{port} {{\n        health_check 100ms\n        max_fails 1\n    }}\n{rest}"
    )
}

fn ready(node: &Node) -> Option<(u16, String)> {
    node.get("/ready")
}

fn is_ready(node: &Node) -> bool {
    ready(node) == Some((200, "OK".to_owned()))
}

fn misses(node: &Node, what: &str) -> bool {
    ready(node) == Some((503, what.to_owned()))
}

#[test]
fn it_is_ready_once_an_upstream_answered_without_any_query() {
    let mut node = Node::new();
    let (port, nobody) = (free_port(), free_port());
    // Who never answers is another block's upstream: one that does is enough.
    let mut blocks = "    whoami\n    ready HTTP\n    prometheus HTTP".to_owned();
    for (zone, port) in [("one.test", port), ("two.test", nobody)] {
        let (own, forward) = (node.dns, forwarding(port, ""));
        blocks += &format!("\n}}\n{zone}:{own} {{\n    bind 127.0.0.1\n{forward}");
    }
    node.start(&blocks, &[]);
    node.until("it says what is missing", |node| misses(node, "upstreams"));
    assert_eq!(node.metric("nodens_ready{part=\"upstreams\"}").as_deref(), Some("0"));
    let upstream = Upstream::start(port);
    node.until("it is ready", is_ready);
    assert!(upstream.asked.load(Ordering::Relaxed) > 0);
    node.until("the metric", |node| {
        node.metric("nodens_ready{part=\"upstreams\"}").as_deref() == Some("1")
    });
    // Greeting is no health check: nothing had failed.
    assert_eq!(node.metric("coredns_proxy_healthcheck_failures_total"), None);
    // Once is enough, as in CoreDNS.
    drop(upstream);
    node.ask("a.one.test");
    sleep(Duration::from_millis(1500));
    assert!(is_ready(&node));
}

#[test]
fn monitored_continuously_it_turns_with_the_upstreams() {
    let mut node = Node::new();
    let upstream = Upstream::start(free_port());
    let port = upstream.port;
    let rest = "    ready HTTP {\n        monitor continuously\n    }";
    node.start(&forwarding(port, rest), &[]);
    node.until("it is ready", is_ready);
    drop(upstream);
    // A query that fails makes it be looked at.
    let mut number = 0;
    node.until("it is unready", |node| {
        number += 1;
        node.ask(&format!("n{number}.test"));
        misses(node, "upstreams")
    });
    let _upstream = Upstream::start(port);
    node.until("it is ready again", is_ready);
}

#[test]
fn without_upstreams_in_the_corefile_none_has_to_answer() {
    let mut node = Node::new();
    node.start("    whoami\n    ready HTTP", &[]);
    node.until("it is ready", is_ready);
}

#[test]
fn a_reload_may_ask_for_it_and_changes_what_is_asked() {
    let mut node = Node::new();
    let (upstream, nobody) = (Upstream::start(free_port()), free_port());
    node.start("    whoami\n    prometheus HTTP", &[]);
    let continuously = "    ready HTTP {\n        monitor continuously\n    }";
    let reload = |node: &Node, text: &str| {
        fs::write(node.path("Corefile"), node.corefile(text)).unwrap();
        node.signal("USR1");
    };
    reload(&node, &forwarding(nobody, continuously));
    node.until("upstreams are missing", |node| misses(node, "upstreams"));
    reload(&node, &forwarding(upstream.port, continuously));
    node.until("it is ready", is_ready);
    let with_metrics = format!("{continuously}\n    prometheus HTTP");
    reload(&node, &forwarding(nobody, &with_metrics));
    node.until("upstreams are missing", |node| misses(node, "upstreams"));
    assert!(node.metric("nodens_ready").is_some());
    // What nobody asks for any more is not shown as it was.
    reload(&node, "    whoami\n    prometheus HTTP");
    node.until("not asked any more", |node| node.metric("nodens_ready").is_none());
    assert_eq!(ready(&node).unwrap().0, 404);
}

#[test]
fn while_it_ends_it_is_not_ready_but_well() {
    let mut node = Node::new();
    let more = "    whoami\n    ready HTTP\n    health HTTP {\n        lameduck 60s\n    }";
    node.start(more, &[]);
    node.until("it is ready", is_ready);
    node.signal("TERM");
    node.until("lameduck", |node| misses(node, "Shutting down"));
    assert!(node.answers());
    assert_eq!(node.get("/health"), Some((200, "OK".to_owned())));
    node.signal("INT");
    node.says("SIGINT: Shutting down");
    node.signal("INT");
    assert_eq!(node.exit_code(), Some(2));
}

#[test]
fn further_signals_while_it_ends_are_told_as_by_node_cache() {
    let down = "[INFO] Tearing down";
    for (signals, lines, code) in [
        (&["INT", "INT"][..], &["SIGINT: Shutting down", down, "SIGINT: Force quit", down][..], 2),
        (
            &["INT", "TERM", "TERM", "INT"],
            &[
                "SIGINT: Shutting down",
                down,
                "SIGTERM: Shutting down servers then terminating",
                "SIGINT: Force quit",
                down,
            ],
            2,
        ),
        (
            &["TERM", "TERM", "INT", "INT"],
            &[
                "SIGTERM: Shutting down servers then terminating",
                down,
                "SIGINT: Shutting down",
                down,
                "SIGINT: Force quit",
                down,
            ],
            2,
        ),
        (
            &["INT", "QUIT"],
            &["SIGINT: Shutting down", down, "SIGQUIT: Quitting process immediately", down],
            0,
        ),
    ] {
        let mut node = Node::new();
        node.start("    whoami\n    health HTTP {\n        lameduck 60s\n    }", &[]);
        let mut before = "";
        for (at, signal) in signals.iter().enumerate() {
            node.signal(signal);
            match at {
                0 => node.says("Going into lameduck mode"),
                // The second of its kind is not told: the next one is looked at all the same.
                _ if *signal == "TERM" && before == "TERM" => {}
                _ if at + 1 < signals.len() => node.says(&format!("SIG{signal}: ")),
                _ => {}
            }
            before = signal;
        }
        assert_eq!(node.exit_code(), Some(code), "{signals:?}");
        let log = node.lines();
        let told = log.lines().filter(|line| line.contains("SIG") || line.contains(down));
        let told: Vec<&str> = told.map(|line| line.trim_start_matches("[INFO] SIG")).collect();
        let expected: Vec<&str> = lines.iter().map(|line| line.trim_start_matches("SIG")).collect();
        assert_eq!(told, expected, "{signals:?}");
    }
}

#[test]
fn a_strict_health_turns_with_what_it_is_strict_about() {
    let mut node = Node::new();
    let port = free_port();
    let rest = "    health HTTP {\n        strict upstreams listeners\n    }";
    node.start(&forwarding(port, rest), &[]);
    node.until("unwell", |node| node.get("/health") == Some((503, "upstreams".to_owned())));
    let upstream = Upstream::start(port);
    node.until("well", |node| node.get("/health") == Some((200, "OK".to_owned())));
    drop(upstream);
    let mut number = 0;
    node.until("unwell again", |node| {
        number += 1;
        node.ask(&format!("n{number}.test"));
        node.get("/health") == Some((503, "upstreams".to_owned()))
    });
}

#[test]
fn a_health_that_is_not_strict_is_as_in_node_cache() {
    let mut node = Node::new();
    let nobody = free_port();
    node.start(&forwarding(nobody, "    health HTTP"), &[]);
    assert_eq!(node.get("/health"), Some((200, "OK".to_owned())));
}

/// A worker that does not read its sockets is missed within seconds. (A stopped process answers
/// nobody; here one thread is stopped by a debugger's way, and the others go on.)
#[test]
fn a_worker_that_hangs_is_missed() {
    let mut node = Node::new();
    node.start("    whoami\n    ready HTTP {\n        monitor continuously\n    }", &[]);
    node.until("it is ready", is_ready);
    // Behind that no thread is asked for anything.
    node.says("Privileges reduced to");
    let process = node.child.as_ref().unwrap().id();
    let worker = fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            name.starts_with("worker-")
        });
    let worker: i32 = worker.unwrap().file_name().to_str().unwrap().parse().unwrap();
    let worker = nix::unistd::Pid::from_raw(worker);
    if let Err(why) = nix::sys::ptrace::seize(worker, nix::sys::ptrace::Options::empty()) {
        return missing::say_missing(&format!("ptrace: {why}"));
    }
    nix::sys::ptrace::interrupt(worker).unwrap();
    node.until("the listeners are missed", |node| misses(node, "listeners"));
    // It goes on when nobody traces it any more.
    let flags = nix::sys::wait::WaitPidFlag::__WALL;
    nix::sys::wait::waitpid(worker, Some(flags)).unwrap();
    nix::sys::ptrace::detach(worker, None).unwrap();
    node.until("it is ready again", is_ready);
}

const PROGRAMS: &[&str] = &["iptables", "ip6tables"];

const TEMPLATE: &str = ".:53 {\n bind __PILLAR__LOCAL__DNS__\n whoami\n \
                        ready 127.0.0.1:8181 {\n  monitor continuously\n }\n \
                        health 127.0.0.1:8080 {\n  lameduck 15s\n  strict rules\n }\n}\n";

const FLAGS: &[&str] =
    &["-localip=169.254.20.10", "-interfacename=lo", "-syncinterval=1s", "-firewall=iptables"];

/// Status and body of a path on a loopback port; empty when nobody is there.
fn get(port: u16, path: &str) -> String {
    sh(&format!(
        "(exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && \
         cat <&3 | tr -d '\\r' | sed -n '1s/HTTP[^ ]* //p;$p') 2>/dev/null || true"
    ))
}

fn rules() -> usize {
    sh("iptables-save").lines().filter(|line| line.contains("NodeLocal DNS Cache")).count()
}

#[test]
fn rules_that_cannot_be_set_are_missed_until_they_are() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken");
        fs::write(&broken, "").unwrap();
        let script = format!(
            "[ -e {} ] && {{ echo no such table >&2; exit 3; }}; exec -a \"$0\" $REAL \"$@\"",
            broken.display()
        );
        stand_in(folder.path(), &script);
        let process = Process::start_from(&[], folder.path(), 1, TEMPLATE, FLAGS);
        until("it serves", &process, || answers("169.254.20.10"));
        until("rules are missed", &process, || get(8181, "/ready").contains("\nrules"));
        assert!(get(8181, "/ready").starts_with("503"), "{}", get(8181, "/ready"));
        until("it is unwell", &process, || get(8080, "/health").starts_with("503 "));
        fs::remove_file(&broken).unwrap();
        until("it is ready", &process, || get(8181, "/ready").starts_with("200"));
        until("it is well", &process, || get(8080, "/health").starts_with("200"));
        fs::write(&broken, "").unwrap();
        until("rules are missed", &process, || get(8181, "/ready").contains("\nrules"));
    });
}

#[test]
fn an_interface_that_cannot_be_had_is_missed() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        sh("ip addr add 169.254.20.10/32 dev lo");
        // A name that no link can have; the address is there all the same.
        let flags = [FLAGS, &["-interfacename=a/b"]].concat();
        let process = Process::start_from(&[], folder.path(), 1, TEMPLATE, &flags);
        until("it serves", &process, || answers("169.254.20.10"));
        until("the interface is missed", &process, || get(8181, "/ready").contains("\ninterface"));
    });
}

#[test]
fn rules_that_keep_queries_go_before_lameduck_and_the_others_behind_the_interface() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start_from(&[], folder.path(), 1, TEMPLATE, FLAGS);
        until("rules", &process, || rules() == 12);
        until("it is ready", &process, || get(8181, "/ready").starts_with("200"));
        process.signal("TERM");
        process.says("lameduck mode for 15s");
        // The Service's queries go to the cluster DNS; those to the address itself are answered.
        let kept = sh("iptables-save -t raw");
        assert!(!kept.contains("--dport 53"), "{kept}");
        assert_eq!(rules(), 7, "{kept}");
        assert!(answers("169.254.20.10"), "{}", process.log());
        assert!(get(8181, "/ready").contains("Shutting down"), "{}", get(8181, "/ready"));
        assert!(sh("ip -o addr show dev lo").contains("169.254.20.10/32"));
        assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        assert!(!sh("ip -o addr show dev lo").contains("169.254.20.10/32"));
        assert_eq!(rules(), 0, "{}", process.log());
    });
}

#[test]
fn programs_that_hang_hold_up_neither_answers_nor_the_end() {
    in_namespaces(PROGRAMS, || {
        let folder = tempfile::tempdir().unwrap();
        let hangs = folder.path().join("hangs");
        let script =
            format!("[ -e {} ] && sleep 1000; exec -a \"$0\" $REAL \"$@\"", hangs.display());
        stand_in(folder.path(), &script);
        let mut process = Process::start_from(&[], folder.path(), 1, TEMPLATE, FLAGS);
        until("rules", &process, || rules() == 12);
        fs::write(&hangs, "").unwrap();
        // A check is under way or begins: answers do not wait for it.
        sleep(Duration::from_millis(1200));
        assert!(answers("169.254.20.10"), "{}", process.log());
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        assert!(process.log().contains("did not end within"), "{}", process.log());
        assert!(!sh("ip -o addr show dev lo").contains("169.254.20.10/32"));
    });
}
