//! A node whose nodens comes, goes and is killed while a pod asks the cluster DNS Service without
//! pause: who answers, and for how long nobody does, measured by the queries themselves. Needs root,
//! iproute2, nftables, iptables and Knot DNS; says so where they are missing.

// A lab that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

// What other tests use of it is not used here.
#[allow(dead_code)] // Shared with others: each takes its part.
mod lab;
mod messages;
mod missing;
mod ports;

use lab::{CLUSTER, EXTERNAL, LOCAL, Lab, Running, SERVICE, has_all_it_needs, wait_for};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodens::dns::RecordType;
use ports::free_port;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// How many numbers queries can have.
const IDS: usize = 1 << 16;

/// The time between two queries of the stream.
const EVERY: Duration = Duration::from_millis(2);

/// The client's ports; each is used again after 32 ms.
const PORTS: usize = 16;

/// How long the stream waits for answers at its end, where some do not come.
const LAST_ANSWERS: Duration = Duration::from_secs(6);

/// The longest that a query waits until the server reads it, on a busy machine.
const UNREAD: Duration = Duration::from_secs(3);

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many answers of somebody show that it is he who answers now.
const SOME: usize = 60;

/// What nodens answers; the cluster DNS answers 10.0.1.7.
const OF_NODENS: [u8; 4] = [192, 0, 2, 1];

/// Has nodens answer so.
const TEMPLATE: &str = "template IN A {\n  answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n }";

/// A name of the cluster DNS.
const NAME: &str = "web.default.svc.cluster.local";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nodens,
    Cluster,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    answered_by: Option<Who>,
}

/// A pod that asks the Service without pause.
struct Stream {
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<Asked>>,
}

/// What it has been answered so far, and that it is to end.
#[derive(Default)]
struct Shared {
    by_nodens: AtomicUsize,
    by_cluster: AtomicUsize,
    is_over: AtomicBool,
}

impl Shared {
    fn by(&self, who: Who) -> &AtomicUsize {
        match who {
            Who::Nodens => &self.by_nodens,
            Who::Cluster => &self.by_cluster,
        }
    }
}

impl Stream {
    fn start(lab: &Lab) -> Stream {
        let space = File::open(format!("/run/netns/{}", lab.space("pod"))).unwrap();
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = spawn(move || {
            setns(space, CloneFlags::CLONE_NEWNET).unwrap();
            ask_on(&own)
        });
        Stream { shared, thread }
    }

    /// Waits until somebody has answered some more queries.
    fn is_answered_by(&self, who: Who) {
        let answers = || self.shared.by(who).load(Ordering::Acquire);
        let wanted = answers() + SOME;
        until(&format!("answers of {who:?}"), || answers() >= wanted);
    }

    fn end(self) -> Vec<Asked> {
        self.shared.is_over.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

fn ask_on(shared: &Shared) -> Vec<Asked> {
    let sockets: Vec<UdpSocket> = (0..PORTS)
        .map(|_| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let mut asked: Vec<Asked> = Vec::new();
    let take = |asked: &mut Vec<Asked>| {
        let mut reply = [0; 512];
        for socket in &sockets {
            while let Ok(length) = socket.recv(&mut reply) {
                // The last one with that number.
                let (id, last) = (u16::from_be_bytes([reply[0], reply[1]]), asked.len() - 1);
                let id = last - (last - usize::from(id)) % IDS;
                let is_nodens = reply[..length].windows(4).any(|part| part == OF_NODENS);
                let who = if is_nodens { Who::Nodens } else { Who::Cluster };
                // An rcode is no answer.
                if reply[3] & 15 == 0 {
                    asked[id].answered_by.get_or_insert(who);
                    shared.by(who).fetch_add(1, Ordering::AcqRel);
                }
            }
        }
    };
    while !shared.is_over.load(Ordering::Acquire) {
        let id = asked.len();
        let query = messages::query(NAME, RecordType::A, (id % IDS) as u16);
        asked.push(Asked { at: Instant::now(), answered_by: None });
        // Nobody there is an answer of its own kind: the stream goes on.
        let _ = sockets[id % PORTS].send_to(&query, (SERVICE, 53));
        take(&mut asked);
        // What a busy machine holds up is not caught up with: that would keep it busy.
        sleep(EVERY);
    }
    let end = Instant::now() + LAST_ANSWERS;
    while Instant::now() < end && asked.iter().any(|one| one.answered_by.is_none()) {
        take(&mut asked);
        sleep(EVERY);
    }
    asked
}

/// From `at` on: the time to the first query behind the last that nobody answered, and how many
/// nobody answered.
fn gap(asked: &[Asked], at: Instant) -> (Duration, usize) {
    let after = asked.iter().filter(|one| one.at >= at);
    let lost: Vec<&Asked> = after.filter(|one| one.answered_by.is_none()).collect();
    let end = lost.last().map_or(at, |one| one.at + EVERY);
    (end - at, lost.len())
}

fn count(asked: &[Asked], who: Option<Who>) -> usize {
    asked.iter().filter(|one| one.answered_by == who).count()
}

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

/// A UDP socket of a namespace of the lab.
fn socket_in(lab: &Lab, place: &str, bound: &str) -> UdpSocket {
    let space = File::open(format!("/run/netns/{}", lab.space(place))).unwrap();
    let bound = bound.to_owned();
    let opened = spawn(move || {
        setns(space, CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind(bound).unwrap()
    });
    let socket = opened.join().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

/// An upstream that keeps what it is asked until it may answer.
struct Upstream {
    asked: Arc<AtomicUsize>,
    may_answer: Arc<AtomicBool>,
}

impl Upstream {
    fn start(lab: &Lab) -> Upstream {
        let socket = socket_in(lab, "dns", &format!("{EXTERNAL}:53"));
        let upstream = Upstream { asked: Arc::default(), may_answer: Arc::default() };
        let (asked, may_answer) = (upstream.asked.clone(), upstream.may_answer.clone());
        // It ends with the test.
        spawn(move || {
            let mut kept = Vec::new();
            let mut query = [0; 512];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut query) {
                    kept.push((query[..length].to_vec(), from));
                    asked.fetch_add(1, Ordering::AcqRel);
                }
                if may_answer.load(Ordering::Acquire) {
                    for (query, from) in kept.drain(..) {
                        let _ = socket.send_to(&answered(&query), from);
                    }
                }
            }
        });
        upstream
    }
}

/// The answer to a query: [`OF_NODENS`].
fn answered(query: &[u8]) -> Vec<u8> {
    let question = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
    let mut reply = query[..question].to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    reply.extend(OF_NODENS);
    reply
}

/// Asks on a socket that takes replies of the Service alone, until one comes; `None` when that takes
/// [`PATIENCE`].
fn asks(socket: &UdpSocket, id: u16) -> Option<Who> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        socket.send(&messages::query(NAME, RecordType::A, id)).unwrap();
        if let Some(who) = hears(socket, id) {
            return Some(who);
        }
    }
    None
}

/// Takes what comes until a reply of this number, or nothing more.
fn hears(socket: &UdpSocket, id: u16) -> Option<Who> {
    let mut reply = [0; 512];
    while let Ok(length) = socket.recv(&mut reply) {
        if reply[..2] == id.to_be_bytes() {
            let is_nodens = reply[..length].windows(4).any(|part| part == OF_NODENS);
            return Some(if is_nodens { Who::Nodens } else { Who::Cluster });
        }
    }
    None
}

/// Replies that leave when queries go to the cluster DNS already: each comes from the Service's address and
/// port, and the next query of the same client goes to the cluster DNS, too, and not where a flow would
/// lead that began with the reply.
fn late_replies_arrive(addresses: [&str; 2], flags: &[&str]) {
    let mut node = Node::new();
    let upstream = Upstream::start(&node.lab);
    let client = || {
        let socket = socket_in(&node.lab, "pod", "0.0.0.0:0");
        socket.connect((SERVICE, 53)).unwrap();
        socket
    };
    let (known, unknown) = (client(), client());
    let others: Vec<UdpSocket> = (0..64).map(|_| client()).collect();
    assert_eq!(asks(&known, 1), Some(Who::Cluster));
    let forward = format!("forward . {EXTERNAL}");
    let (mut running, _) = node.nodens_with(addresses, &forward, flags);
    for (number, socket) in [&known, &unknown].into_iter().enumerate() {
        let name = format!("late{number}.example.org");
        socket.send(&messages::query(&name, RecordType::A, 2)).unwrap();
        until("a query at the upstream", || upstream.asked.load(Ordering::Acquire) > number);
    }
    running.signal("TERM");
    let mut others = others.iter().cycle();
    let mut number = 2;
    until("an answer of the cluster DNS", || {
        let socket = others.next().unwrap();
        number += 1;
        socket.send(&messages::query(NAME, RecordType::A, number)).unwrap();
        hears(socket, number) == Some(Who::Cluster)
    });
    upstream.may_answer.store(true, Ordering::Release);
    // On a slow machine that it took too long may be the answer.
    for socket in [&known, &unknown] {
        until("the late reply", || hears(socket, 2).is_some());
    }
    for socket in [&known, &unknown] {
        assert_eq!(asks(socket, 3), Some(Who::Cluster), "{}", running.log());
    }
    assert_eq!(running.ended_within(PATIENCE), Some(0), "{}", running.log());
    for socket in [&known, &unknown] {
        assert_eq!(asks(socket, 4), Some(Who::Cluster), "{}", running.log());
    }
    // All rules are gone.
    let left = node.sh("iptables-save; nft list tables");
    assert!(!left.contains("NodeLocal") && !left.contains("nodens"), "{left}");
}

#[test]
fn late_replies_arrive_and_take_no_further_query_along_with_nftables() {
    if can_run() {
        late_replies_arrive([LOCAL, SERVICE], &["-firewall=nftables"]);
    }
}

#[test]
fn late_replies_arrive_and_take_no_further_query_along_with_iptables() {
    if can_run() {
        late_replies_arrive([LOCAL, SERVICE], &["-firewall=iptables"]);
    }
}

#[test]
fn late_replies_arrive_with_the_services_address_rewritten() {
    if can_run() {
        let inner = "169.254.20.11";
        let rewrite = format!("-service-rewrite={SERVICE}={inner}");
        late_replies_arrive([LOCAL, inner], &[&rewrite]);
    }
}

/// A number of `/proc/ID/status` in KiB.
fn kibibytes(id: Pid, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Starts nodens with a guardian and without rules.
fn guarded(folder: &tempfile::TempDir, port: u16) -> Child {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let address = "127.0.0.1";
    let corefile = format!(".:{port} {{\n bind {address}\n whoami\n}}\n");
    fs::write(path("Corefile"), corefile).unwrap();
    let log = File::create(path("log")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_nodens"))
        .args(["-guardian", "-setupinterface=false", "-setupiptables=false", "-seccomp=kill"])
        .arg(format!("-localip={address}"))
        .arg(format!("-conf={}", path("Corefile")))
        .arg(format!("-basecorefile={}", path("none")))
        .arg(format!("-pidfile={}", path("pid")))
        .arg(format!("-runtime-dir={}", path("run")))
        .arg(format!("-metrics-listen-address={address}:0"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    until("the server", || fs::read_to_string(path("pid")).is_ok_and(|text| text.ends_with('\n')));
    child
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_guardian_hands_signals_on_and_ends_as_its_server_does() {
    let folder = tempfile::tempdir().unwrap();
    let log = || fs::read_to_string(folder.path().join("log")).unwrap();
    let port = free_port();
    let of = |child: &Child| Pid::from_raw(child.id().try_into().unwrap());
    let mut child = guarded(&folder, port);
    let (guardian, server) = (of(&child), pid(folder.path()));
    assert_ne!(guardian, server);
    kill(guardian, Signal::SIGHUP).unwrap();
    kill(guardian, Signal::SIGUSR1).unwrap();
    until("a reload", || log().contains("SIGUSR1: Reloading"));
    println!(
        "the guardian has {} KiB of its own, {} KiB with the program's pages",
        kibibytes(guardian, "RssAnon"),
        kibibytes(guardian, "VmRSS")
    );
    kill(guardian, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", log());
    assert!(log().contains("SIGTERM: Shutting down"), "{}", log());

    // Killed: as shells tell it. Nothing is removed, for there are no rules.
    fs::remove_file(folder.path().join("pid")).unwrap_or_default();
    let mut child = guarded(&folder, port);
    kill(pid(folder.path()), Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9), "{}", log());
    assert!(!log().contains("are removed"), "{}", log());

    // A guardian that is killed takes its server with it, which ends cleanly.
    fs::remove_file(folder.path().join("pid")).unwrap();
    let mut child = guarded(&folder, port);
    child.kill().unwrap();
    child.wait().unwrap();
    until("the server's end", || !folder.path().join("pid").exists());
    // Nobody waits for this process: its lines may be on their way.
    until("its last words", || log().contains("SIGTERM: Shutting down"));
}
