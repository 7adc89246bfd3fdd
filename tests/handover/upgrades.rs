//! Upgrades on a node: a pod asks without pause, a real DNS server stands behind, rules and addresses
//! are set, and one process follows the other.

use super::POD;
use super::lab::{EXTERNAL, Knot, LOCAL, Lab, NAMES, Running, has_all_it_needs, wait_for};
use super::missing::are_here;
use super::scene::query;
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// Queries per second of the stream: the first of these that the machine holds without any upgrade of
/// this node (other tests have their streams beside it), unless `NODENS_UPGRADE_QPS` says another number.
const RATES: [u32; 5] = [20_000, 10_000, 5_000, 2_000, 1_000];

/// Upgrades in a row.
const UPGRADES: u32 = 20;

/// Of so many processes that are replaced, one ends by itself: that takes a while.
const ENDS_BY_ITSELF: u32 = 10;

/// When a stream ends by itself, at the latest.
const STREAM_SECONDS: u64 = 600;

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one process serves before the next one starts.
const BETWEEN: Duration = Duration::from_millis(300);

/// A node with one nodens after the other.
struct Node {
    lab: Lab,
    upstream: Knot,
    corefile: PathBuf,
    flags: Vec<String>,
    pods: bool,
    names: String,
    started: u32,
}

impl Node {
    fn new(flags: &[&str]) -> Option<Node> {
        if !has_all_it_needs() || !are_here(&["nft"]) {
            return None;
        }
        let mut lab = Lab::new(&[]);
        let upstream = lab.knot(EXTERNAL);
        let corefile = format!(
            ".:53 {{\n bind {LOCAL}\n errors\n cache 3600\n prometheus :9253\n health {LOCAL}:8080\n \
             forward . {EXTERNAL}\n}}\n"
        );
        let corefile = lab.write("Corefile", &corefile);
        let names: String = (0..NAMES).map(|number| format!("n{number}.example.org A\n")).collect();
        let names = lab.write("names", &names).display().to_string();
        let run = lab.new_folder("run").display().to_string();
        let mut all = vec![
            format!("-localip={LOCAL}"),
            format!("-conf={}", corefile.display()),
            "-basecorefile=/nowhere".to_owned(),
            format!("-runtime-dir={run}"),
            "-firewall=nftables".to_owned(),
            "-seccomp=kill".to_owned(),
        ];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Some(Node { lab, upstream, corefile, flags: all, pods: false, names, started: 0 })
    }

    /// From now on processes are a DaemonSet's pods, with a probe of readiness. To be ready each asks
    /// its upstream once.
    fn is_a_daemon_set(&mut self) {
        self.pods = true;
        let corefile = fs::read_to_string(&self.corefile).unwrap();
        let corefile = corefile.replace(" errors\n", &format!(" errors\n ready {LOCAL}:8181\n"));
        fs::write(&self.corefile, corefile).unwrap();
    }

    /// The questions that all processes after the first one asked to be ready.
    fn probes(&self) -> u64 {
        if self.pods { u64::from(self.started - 1) } else { 0 }
    }

    /// Starts the next process; returns once it serves, with its rules.
    fn start(&mut self) -> Running {
        self.started += 1;
        let mut command = self.lab.command("node", env!("CARGO_BIN_EXE_nodens"));
        command.args(&self.flags).env_remove(POD.0);
        if self.pods {
            command.env(POD.0, POD.1);
        }
        let running = self.lab.start(&mut command);
        wait_for("nodens", || {
            let log = running.log();
            match log.contains("linux/amd64, nodens") && log.contains("Added firewall rules") {
                true => Ok(()),
                false => Err(log),
            }
        });
        running
    }

    /// Asks for every name once.
    fn fill(&self) {
        let output = self.dnsperf(&["-n", "1", "-q", "20"]);
        assert_eq!(told(&output, "Queries lost:"), 0, "{}", text(&output));
        assert_eq!(told(&output, "Queries completed:"), NAMES as u64, "{}", text(&output));
    }

    fn dnsperf(&self, more: &[&str]) -> Output {
        self.lab.run("pod", "dnsperf", &[&self.asking()[..], more].concat())
    }

    /// How dnsperf asks. It has 100 queries in flight at most, for which any socket has room: one that is
    /// late on a busy machine is not lost.
    fn asking(&self) -> [&str; 10] {
        ["-s", LOCAL, "-d", &self.names, "-c", "10", "-T", "1", "-t", "15"]
    }

    /// A stream of queries that goes on until it is told to end.
    fn stream(&mut self, rate: u32, more: &[&str]) -> Running {
        let mut command = self.lab.command("pod", "dnsperf");
        let (rate, seconds) = (rate.to_string(), STREAM_SECONDS.to_string());
        command.args(self.asking()).args(["-Q", &rate, "-l", &seconds]).args(more);
        self.lab.start(&mut command)
    }

    /// What the machine holds while this node has no upgrade.
    fn rate(&self, more: &[&str]) -> u32 {
        if let Ok(rate) = std::env::var("NODENS_UPGRADE_QPS") {
            return rate.parse().unwrap();
        }
        let holds = |rate: &u32| {
            let text = rate.to_string();
            let output = self.dnsperf(&[&["-l", "2", "-Q", &text], more].concat());
            told(&output, "Queries lost:") == 0
                && told(&output, "Queries completed:") > u64::from(*rate) * 19 / 10
        };
        let held = RATES.into_iter().find(holds);
        held.unwrap_or(RATES[RATES.len() - 1])
    }

    /// How many queries the upstream has had. It reads several sockets, each in its own time: what is still in
    /// one is waited for.
    fn asked(&self) -> u64 {
        let read = || self.upstream.queries("udp4");
        let mut asked = read();
        loop {
            sleep(BETWEEN);
            let now = read();
            if now == asked {
                return asked;
            }
            asked = now;
        }
    }

    fn sh(&self, line: &str) -> String {
        String::from_utf8_lossy(&self.lab.run("node", "bash", &["-c", line]).stdout).into_owned()
    }

    fn metric(&self, family: &str) -> f64 {
        let text = self.lab.get("10.244.1.1", 9253, "/metrics");
        text.lines()
            .filter(|line| {
                line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A number of dnsperf's summary.
fn told(output: &Output, what: &str) -> u64 {
    number(&text(output), what)
}

fn number(text: &str, what: &str) -> u64 {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(what));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {what} in {text}"))
}

/// Asks for /health every few milliseconds until it is ended: how often, and what failed.
struct Probes {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Vec<String>)>,
}

impl Probes {
    fn start(lab: &Lab) -> Probes {
        use std::io::{Read, Write};
        let space = File::open(format!("/run/netns/{}", lab.space("node"))).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = is_over.clone();
        let thread = spawn(move || {
            setns(space, CloneFlags::CLONE_NEWNET).unwrap();
            let probe = || -> std::io::Result<String> {
                let mut stream = std::net::TcpStream::connect((LOCAL, 8080))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
                    .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                Ok(text)
            };
            let (mut count, mut failed) = (0, Vec::new());
            while !flag.load(Ordering::Acquire) {
                count += 1;
                match probe() {
                    Ok(text) if text.ends_with("OK") => {}
                    other => failed.push(format!("{other:?}")),
                }
                sleep(Duration::from_millis(10));
            }
            (count, failed)
        });
        Probes { is_over, thread }
    }

    fn end(self) -> (u32, Vec<String>) {
        self.is_over.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// Twenty upgrades under a stream of queries; `upgrade` starts the next process and ends the one
/// before.
fn twenty_upgrades(
    mut node: Node,
    more: &[&str],
    mut upgrade: impl FnMut(&mut Node, Running) -> Running,
) {
    let mut serving = node.start();
    node.fill();
    let asked = node.asked();
    assert!(asked >= NAMES as u64);
    let rate = node.rate(more);
    let probes = Probes::start(&node.lab);
    let began = Instant::now();
    let mut stream = node.stream(rate, more);
    sleep(BETWEEN);
    let mut logs = String::new();
    for _ in 0..UPGRADES {
        serving = upgrade(&mut node, serving);
        logs = format!("{logs}\n{}", serving.log());
        assert!(serving.log().contains("Handover: took over from"), "{}", serving.log());
        sleep(BETWEEN);
        // Rules and addresses were there at any moment: now they are the new process's.
        let tables = node.sh("nft list tables");
        assert!(tables.contains("table inet nodens"), "{tables}\n{logs}");
        assert!(node.sh("ip -o addr show").contains(LOCAL), "{logs}");
    }
    let took = began.elapsed();
    stream.signal("INT");
    stream.ended_within(PATIENCE);
    let summary = stream.log();
    let (probed, failed) = probes.end();
    let (sent, lost) = (number(&summary, "Queries sent:"), number(&summary, "Queries lost:"));
    println!(
        "{UPGRADES} upgrades in {took:.1?} under {rate} queries/s {more:?}: {lost} of {sent} queries \
         lost, {} asked upstream again, {} of {probed} probes failed",
        node.asked() - asked - node.probes(),
        failed.len()
    );
    assert!(sent > u64::from(rate), "{summary}");
    assert_eq!(lost, 0, "{summary}\n{logs}");
    assert!(summary.contains("NOERROR") && !summary.contains("SERVFAIL"), "{summary}");
    assert_eq!(node.asked(), asked + node.probes(), "the cache came over every time: {logs}");
    assert!(node.metric("coredns_cache_hits_total") > 0.0);
    assert_eq!(node.metric("coredns_cache_misses_total"), 0.0, "{logs}");
    assert_eq!(failed, [""; 0], "{logs}");
    // The last one ends as ever: nothing is left.
    serving.signal("TERM");
    assert_eq!(serving.ended_within(PATIENCE), Some(0), "{}", serving.log());
    assert_eq!(node.sh("nft list tables"), "", "{}", serving.log());
    assert!(!node.sh("ip -o addr show").contains(LOCAL), "{}", serving.log());
}

/// On a machine of one's own: the first process ends by itself, or, as most here, when it is told to.
fn replace(node: &mut Node, mut serving: Running) -> Running {
    let next = node.start();
    if !node.started.is_multiple_of(ENDS_BY_ITSELF) {
        serving.signal("TERM");
    }
    let code = serving.ended_within(PATIENCE);
    assert_eq!(code, Some(0), "{}", serving.log());
    next
}

/// In a DaemonSet with maxSurge 1: the old pod is told to end once the new one is ready.
fn surge(node: &mut Node, mut serving: Running) -> Running {
    let next = node.start();
    wait_for("readiness", || {
        let ready = node.lab.get_from("node", LOCAL, 8181, "/ready");
        if ready.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(ready) }
    });
    assert!(serving.is_alive(), "{}", serving.log());
    serving.signal("TERM");
    let code = serving.ended_within(PATIENCE);
    assert_eq!(code, Some(0), "{}", serving.log());
    next
}

#[test]
fn twenty_upgrades_lose_no_query() {
    let Some(node) = Node::new(&[]) else { return };
    twenty_upgrades(node, &[], replace);
}

#[test]
fn twenty_upgrades_lose_no_query_over_tcp() {
    let Some(node) = Node::new(&[]) else { return };
    twenty_upgrades(node, &["-m", "tcp"], replace);
}

#[test]
fn twenty_rollouts_of_a_daemon_set_with_surge_lose_no_query() {
    let Some(mut node) = Node::new(&[]) else { return };
    node.is_a_daemon_set();
    twenty_upgrades(node, &[], surge);
}

/// A query of a stream.
struct Asked {
    /// Before it was sent, and behind that: a busy machine may stop us in between.
    from: Instant,
    to: Instant,
    is_answered: bool,
}

/// How many queries are answered before the next thing happens.
const SOME: usize = 60;

/// What the stream has been answered so far, and that it is to end.
#[derive(Default)]
struct Stream {
    answered: AtomicUsize,
    is_over: AtomicBool,
}

impl Stream {
    /// Waits until some more queries are answered.
    fn goes_on(&self, log: impl Fn() -> String) {
        let wanted = self.answered.load(Ordering::Acquire) + SOME;
        wait_for("answers", || match self.answered.load(Ordering::Acquire) >= wanted {
            true => Ok(()),
            false => Err(log()),
        });
    }
}

/// One query every five milliseconds: there are numbers for five minutes.
fn ask_on(lab: &Lab, stream: &Arc<Stream>) -> JoinHandle<Vec<Asked>> {
    let space = File::open(format!("/run/netns/{}", lab.space("pod"))).unwrap();
    let stream = stream.clone();
    spawn(move || {
        setns(space, CloneFlags::CLONE_NEWNET).unwrap();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut asked: Vec<Asked> = Vec::new();
        let take = |asked: &mut Vec<Asked>| {
            let mut reply = [0; 512];
            while let Ok(length) = socket.recv(&mut reply) {
                let address: [u8; 4] = *reply[..length].last_chunk().unwrap();
                let is_answer = reply[3] & 15 == 0 && Ipv4Addr::from(address).octets()[0] == 198;
                asked[usize::from(u16::from_be_bytes([reply[0], reply[1]]))].is_answered |=
                    is_answer;
                stream.answered.fetch_add(usize::from(is_answer), Ordering::AcqRel);
            }
        };
        let pause = || sleep(Duration::from_millis(5));
        while !stream.is_over.load(Ordering::Acquire) {
            let id = asked.len();
            let name = format!("n{}.example.org", id % NAMES);
            let query = query(&name, u16::try_from(id).unwrap());
            let from = Instant::now();
            // Nobody there is an answer of its own kind: the stream goes on.
            let _ = socket.send_to(&query, (LOCAL, 53));
            asked.push(Asked { from, to: Instant::now(), is_answered: false });
            take(&mut asked);
            pause();
        }
        // With the last one those before it are answered, or a little later.
        let end = Instant::now() + PATIENCE;
        while asked.last().is_some_and(|last| !last.is_answered) && Instant::now() < end {
            take(&mut asked);
            pause();
        }
        for _ in 0..200 {
            take(&mut asked);
            pause();
        }
        asked
    })
}

/// SIGTERM, and a start with the kept snapshot when the process has ended: nobody listens in between, so
/// the queries of that time are lost, and no others; the cache is as before.
#[test]
fn sigterm_and_a_start_with_the_kept_cache_lose_the_queries_in_between_alone() {
    let Some(mut node) = Node::new(&[]) else { return };
    let kept = node.lab.new_folder("kept").join("cache");
    node.flags.push(format!("-cache-snapshot={}", kept.display()));
    let mut serving = node.start();
    node.fill();
    let asked = node.asked();
    let stream = Arc::new(Stream::default());
    let asking = ask_on(&node.lab, &stream);
    let mut gaps = Vec::new();
    for _ in 0..5 {
        stream.goes_on(|| serving.log());
        let told = Instant::now();
        serving.signal("TERM");
        assert_eq!(serving.ended_within(PATIENCE), Some(0), "{}", serving.log());
        serving = node.start();
        gaps.push((told, Instant::now()));
        assert!(serving.log().contains("entries in"), "{}", serving.log());
    }
    stream.goes_on(|| serving.log());
    stream.is_over.store(true, Ordering::Release);
    let all = asking.join().unwrap();
    let is_between =
        |one: &Asked| gaps.iter().any(|(told, serves)| one.to >= *told && one.from <= *serves);
    let lost: Vec<&Asked> = all.iter().filter(|one| !one.is_answered).collect();
    let of_gaps: Duration = gaps.iter().map(|(from, to)| *to - *from).sum();
    println!(
        "5 restarts: {} of {} queries lost, all of them within the {of_gaps:.1?} from SIGTERM to the \
         next start; {} asked upstream again",
        lost.len(),
        all.len(),
        node.asked() - asked
    );
    assert!(lost.iter().all(|one| is_between(one)), "{}", serving.log());
    assert_eq!(node.asked(), asked, "the cache came over every time: {}", serving.log());
    // The same order with an overlap, as a rollout with surge has it, loses none:
    // `twenty_rollouts_of_a_daemon_set_with_surge_lose_no_query`.
    assert!(fs::metadata(&kept).unwrap().len() > 0);
}
