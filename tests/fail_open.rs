//! A node whose nodens comes, goes and is killed while a pod asks the cluster DNS Service without
//! pause: who answers, and for how long nobody does, measured by the queries themselves. Needs root,
//! iproute2, nftables, iptables and Knot DNS; says so where they are missing.

// A lab that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

// What other tests use of it is not used here.
#[path = "fail_open/guardian.rs"]
mod guardian;
mod lab;
#[path = "fail_open/late.rs"]
mod late;
mod messages;
mod missing;
mod ports;
#[path = "fail_open/stream.rs"]
mod stream;

use lab::{CLUSTER, LOCAL, Lab, Running, SERVICE, has_all_it_needs, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use stream::{Asked, SOME, Stream, Who, count, gap};

/// The longest that a query waits until the server reads it, on a busy machine.
const UNREAD: Duration = Duration::from_secs(3);

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What nodens answers; the cluster DNS answers 10.0.1.7.
const OF_NODENS: [u8; 4] = [192, 0, 2, 1];

/// Has nodens answer so.
const TEMPLATE: &str = "template IN A {\n  answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n }";

/// A name of the cluster DNS.
const NAME: &str = "web.default.svc.cluster.local";

/// Whether a lab with firewall programs can be made here.
fn can_run() -> bool {
    missing::are_here(&["nft", "iptables"]) && has_all_it_needs()
}

/// A node with a cluster DNS behind the Service's address, as kube-proxy has it: the Service's queries
/// are sent on before they are routed.
struct Node {
    lab: Lab,
    _cluster: lab::Knot,
}

impl Node {
    fn new() -> Node {
        let mut lab = Lab::new(&[]);
        let cluster = lab.knot(CLUSTER);
        let node = Node { lab, _cluster: cluster };
        node.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/kube-proxy.nft");
        node.sh(&format!("nft -D SERVICE={SERVICE} -D CLUSTER={CLUSTER} -f {rules}"));
        node
    }

    fn sh(&self, line: &str) -> String {
        let output = self.lab.run("node", "bash", &["-c", line]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts nodens on the Service's address, too; gives it with its folder once its rules are set and
    /// it has a pid file.
    fn nodens(&mut self, flags: &[&str]) -> (Running, PathBuf) {
        self.nodens_on([LOCAL, SERVICE], flags)
    }

    /// The same on two addresses.
    fn nodens_on(&mut self, addresses: [&str; 2], flags: &[&str]) -> (Running, PathBuf) {
        self.nodens_with(addresses, TEMPLATE, flags)
    }

    /// The same with the directives that answer.
    fn nodens_with(
        &mut self,
        addresses: [&str; 2],
        directives: &str,
        flags: &[&str],
    ) -> (Running, PathBuf) {
        let [first, second] = addresses;
        let folder = self.lab.new_folder("nodens");
        let path = |name: &str| folder.join(name).display().to_string();
        let corefile = format!(".:53 {{\n bind {first} {second}\n {directives}\n}}\n");
        fs::write(folder.join("Corefile"), corefile).unwrap();
        let mut command = self.lab.command("node", env!("CARGO_BIN_EXE_nodens"));
        command
            .arg(format!("-localip={first},{second}"))
            .arg(format!("-conf={}", path("Corefile")))
            .arg(format!("-basecorefile={}", path("none")))
            .arg(format!("-pidfile={}", path("pid")))
            .arg(format!("-runtime-dir={}", path("run")))
            // A system call that the filter does not list must not pass unseen.
            .arg("-seccomp=kill")
            .args(flags);
        let running = self.lab.start(&mut command);
        wait_for("rules", || {
            match running.log().contains("firewall rules - nftables")
                || running.log().matches("Added back nodelocaldns rule").count() == 24
            {
                true => Ok(()),
                false => Err(running.log()),
            }
        });
        (running, folder)
    }
}

fn pid(folder: &std::path::Path) -> Pid {
    let text = fs::read_to_string(folder.join("pid")).unwrap();
    Pid::from_raw(text.trim().parse().unwrap())
}

/// Kills a server: the Service answers again, after how long is told. Gives what the server said.
fn the_service_answers_after_a_kill(addresses: [&str; 2], flags: &[&str]) -> String {
    let mut node = Node::new();
    let stream = Stream::start(&node.lab);
    stream.is_answered_by(Who::Cluster);
    let (mut running, folder) = node.nodens_on(addresses, flags);
    stream.is_answered_by(Who::Nodens);
    sleep(UNREAD);
    stream.is_answered_by(Who::Nodens);
    let killed = Instant::now();
    kill(pid(&folder), Signal::SIGKILL).unwrap();
    stream.is_answered_by(Who::Cluster);
    let asked = stream.end();
    // A guardian tells what it did before it ends, too.
    running.ended_within(PATIENCE);
    let log = running.log();

    // The start lost nothing: the Service answered until nodens did. What came just before the kill may
    // have died with the server unread.
    let before = killed - UNREAD;
    let before: Vec<Asked> = asked.iter().copied().filter(|one| one.at < before).collect();
    let (lost, by_nodens) = (count(&before, None), count(&before, Some(Who::Nodens)));
    assert!(lost == 0 && by_nodens >= SOME, "{lost} lost, {by_nodens} by nodens\n{log}");
    assert_eq!(before[0].answered_by, Some(Who::Cluster), "{log}");
    let (gap, lost) = gap(&asked, killed);
    assert_eq!(asked.last().unwrap().answered_by, Some(Who::Cluster), "{log}");
    println!("{flags:?}: the Service answers {gap:?} after SIGKILL; {lost} queries lost");
    log
}

#[test]
fn with_nftables_the_service_answers_a_moment_after_a_kill() {
    if !can_run() {
        return;
    }
    // There is nobody who could remove the rules: they have gone with the process.
    let log = the_service_answers_after_a_kill([LOCAL, SERVICE], &["-firewall=nftables"]);
    assert!(!log.contains("are removed"), "{log}");
}

#[test]
fn with_the_services_address_rewritten_it_is_the_same() {
    if !can_run() {
        return;
    }
    let inner = "169.254.20.11";
    let rewrite = format!("-service-rewrite={SERVICE}={inner}");
    let log = the_service_answers_after_a_kill([LOCAL, inner], &[&rewrite]);
    assert!(!log.contains("are removed"), "{log}");
}

#[test]
fn with_a_guardian_the_service_answers_soon_after_a_kill() {
    if !can_run() {
        return;
    }
    let flags = ["-firewall=iptables", "-guardian"];
    let log = the_service_answers_after_a_kill([LOCAL, SERVICE], &flags);
    assert!(
        log.contains("[WARNING] The server was ended by SIGKILL: its firewall rules are removed")
            && log.contains("Removed 10 nodelocaldns rules")
            && log.contains("Removed 14 nodelocaldns rules"),
        "{log}"
    );
}

#[test]
fn without_either_the_service_does_not_answer_after_a_kill() {
    if !can_run() {
        return;
    }
    let mut node = Node::new();
    let (_running, folder) = node.nodens(&["-firewall=iptables"]);
    let stream = Stream::start(&node.lab);
    stream.is_answered_by(Who::Nodens);
    kill(pid(&folder), Signal::SIGKILL).unwrap();
    // Longer than the guardian takes that is not there.
    sleep(Duration::from_secs(2));
    let asked = stream.end();
    assert_eq!(count(&asked, Some(Who::Cluster)), 0);
    assert_eq!(asked.last().unwrap().answered_by, None);
}

#[test]
fn a_clean_end_and_the_next_start_lose_no_query() {
    if !can_run() {
        return;
    }
    for flags in [&["-firewall=nftables"][..], &["-firewall=iptables", "-guardian"]] {
        let mut node = Node::new();
        let stream = Stream::start(&node.lab);
        let mut told = Vec::new();
        for _ in 0..3 {
            stream.is_answered_by(Who::Cluster);
            told.push((Instant::now(), "a start"));
            let (mut running, _) = node.nodens(flags);
            stream.is_answered_by(Who::Nodens);
            told.push((Instant::now(), "SIGTERM"));
            running.signal("TERM");
            let code = running.ended_within(PATIENCE);
            told.push((Instant::now(), "its end"));
            assert_eq!(code, Some(0), "{}", running.log());
        }
        stream.is_answered_by(Who::Cluster);
        let asked = stream.end();
        let lost = count(&asked, None);
        // On a starved machine the cluster DNS may leave unread what its socket cannot hold.
        let by_others: usize =
            ["dns", "pod"].iter().map(|place| overflowed(&node.lab, place)).sum();
        println!(
            "{flags:?}: {lost} of {} lost in three starts and ends; {by_others} by full sockets of \
             others, {} by nodens's",
            asked.len(),
            overflowed(&node.lab, "node")
        );
        for one in asked.iter().filter(|one| one.answered_by.is_none()) {
            let (at, what) = told.iter().rev().find(|(at, _)| *at <= one.at).unwrap_or(&told[0]);
            println!("lost {:?} behind {what}", one.at.saturating_duration_since(*at));
        }
        assert!(lost <= by_others, "{lost} lost");
    }
}

/// How many datagrams sockets of a namespace could not hold.
fn overflowed(lab: &Lab, place: &str) -> usize {
    let output = lab.run(place, "cat", &["/proc/net/snmp"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let mut both = names.split(' ').zip(numbers.split(' '));
    both.find(|(name, _)| *name == "RcvbufErrors").unwrap().1.parse().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(5));
    }
}
