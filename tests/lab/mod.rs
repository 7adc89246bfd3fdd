//! A node in network namespaces: a pod, the node itself, and the network where DNS servers are.
//! Tests of the node and of deployments stand on it; each uses its part.
//!
//! Owns everything it starts: namespaces, Knot DNS servers, the nodens under test. All of it goes
//! when the [`Lab`] is dropped, and every command has a time limit.
#![allow(dead_code)] // Not every test file uses all of it.

use super::missing::{are_here, say_missing};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The node-local address and the cluster DNS service's, both on the node.
pub(crate) const LOCAL: &str = "169.254.20.10";
pub(crate) const SERVICE: &str = "10.0.0.10";

/// Where the servers are: the cluster's DNS, an external one, and a second external one.
pub(crate) const CLUSTER: &str = "10.0.0.2";
pub(crate) const EXTERNAL: &str = "10.0.0.3";
pub(crate) const SECOND: &str = "10.0.0.4";

/// How many names `n0.example.org` … the external zone holds.
pub(crate) const NAMES: usize = 1_000;

/// The longest that any one command may take, in seconds.
const COMMAND_SECONDS: u32 = 40;

/// The longest to wait for a server to come up, or to take up an edit: it looks every ten seconds.
const START: Duration = Duration::from_secs(60);

/// The programs that a lab needs.
const TOOLS: &[&str] =
    &["ip", "knotd", "knotc", "dig", "dnsperf", "timeout", "bash", "mount", "unshare", "chroot"];

/// Tells apart the labs of one process.
static LABS: AtomicU32 = AtomicU32::new(0);

/// A lab, or `None` where one cannot be: then it says what is missing, and fails if
/// `NODENS_TEST_ALL=1` asks for all tests.
pub(crate) fn lab() -> Option<Lab> {
    has_all_it_needs().then(|| Lab::new(&[LOCAL, SERVICE]))
}

/// Whether labs can be made here; if not it says what is missing, and fails when all tests are
/// asked for.
pub(crate) fn has_all_it_needs() -> bool {
    if !are_here(TOOLS) {
        return false;
    }
    let what = not_allowed();
    if let Some(what) = &what {
        say_missing(what);
    }
    what.is_none()
}

/// What this user may not do.
fn not_allowed() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !status
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    {
        return Some("root".to_owned());
    }
    let number = LABS.fetch_add(1, Ordering::Relaxed);
    let name = format!("nodens-{}-{number}-probe", std::process::id());
    let made = run("ip", &["netns", "add", &name]);
    let gone = run("ip", &["netns", "del", &name]);
    (!made.status.success() || !gone.status.success())
        .then(|| format!("network namespaces: {}", String::from_utf8_lossy(&made.stderr).trim()))
}

/// Runs a command to its end.
fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new("timeout")
        .args(["-k", "2", &COMMAND_SECONDS.to_string(), program])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs `ip` and fails the test if it does.
fn ip(arguments: &str) {
    let output = run("ip", &arguments.split_whitespace().collect::<Vec<_>>());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
}

/// A program that runs until it is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Sends a signal by its name: `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = run("bash", &["-c", "kill -s $0 $1", name, &id]);
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its exit code once it ended by itself within some time, `None` if it did not or a signal
    /// ended it: which of the two, and where its threads were, is told.
    pub(crate) fn ended_within(&mut self, time: Duration) -> Option<i32> {
        let end = Instant::now() + time;
        while self.is_alive() {
            if Instant::now() > end {
                println!("not ended within {time:?}:\n{}", threads_below(self.child.id()));
                return None;
            }
            sleep(Duration::from_millis(20));
        }
        let status = self.child.wait().unwrap();
        if status.code().is_none() {
            println!("ended by a signal: {status}");
        }
        status.code()
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The threads of a process and of those that it started: name, state and where in the kernel it waits.
fn threads_below(id: u32) -> String {
    let script = "for id in $0 $(cat /proc/$0/task/*/children); do for task in /proc/$id/task/*; do \
                  echo $task $(cat $task/comm; grep State $task/status; cat $task/wchan); done; done";
    let output = run("bash", &["-c", script, &id.to_string()]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only fails when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Knot DNS server; dropping it kills it.
pub(crate) struct Knot {
    running: Running,
    control: PathBuf,
}

impl Knot {
    /// How many queries came over a transport: `tcp4` or `udp4`.
    pub(crate) fn queries(&self, transport: &str) -> u64 {
        let control = self.control.to_str().unwrap();
        let output = run("knotc", &["-s", control, "stats", "mod-stats.request-protocol"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", self.running.log());
        let line = text.lines().find(|line| line.contains(&format!("[{transport}]")));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
    }
}

/// What `dig` was told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// `NOERROR`, `NXDOMAIN` …; `none` when there was no reply.
    pub(crate) status: String,
    /// The answer section: type and data, sorted.
    pub(crate) answers: Vec<String>,
}

/// Namespaces with what runs in them.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    prefix: String,
    started: u32,
}

impl Lab {
    /// A lab whose node carries the addresses that nodens listens on. With an IPv6 one among them
    /// the networks have IPv6 too.
    pub(crate) fn new(local: &[&str]) -> Lab {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("nodens-{}-{number}", std::process::id());
        let lab = Lab { folder: tempfile::tempdir().unwrap(), prefix, started: 0 };
        for place in ["pod", "node", "dns"] {
            ip(&format!("netns add {}", lab.space(place)));
            ip(&format!("-n {} link set lo up", lab.space(place)));
        }
        let (pod, node, dns) = (lab.space("pod"), lab.space("node"), lab.space("dns"));
        for (name, other, left, right) in [
            ("eth0", &pod, "10.244.1.1/24", &["10.244.1.2/24"][..]),
            ("eth1", &dns, "10.0.0.1/24", &["10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24"][..]),
        ] {
            ip(&format!("link add {name} netns {node} type veth peer name eth0 netns {other}"));
            ip(&format!("-n {node} addr add {left} dev {name}"));
            for address in right {
                ip(&format!("-n {other} addr add {address} dev eth0"));
            }
            ip(&format!("-n {node} link set {name} up"));
            ip(&format!("-n {other} link set eth0 up"));
        }
        ip(&format!("-n {pod} route add default via 10.244.1.1"));
        ip(&format!("-n {node} route add default via 10.0.0.2"));
        ip(&format!("-n {dns} route add default via 10.0.0.1"));
        if local.iter().any(|address| address.contains(':')) {
            for (space, device, address) in [
                (&pod, "eth0", "fd00:244::2"),
                (&node, "eth0", "fd00:244::1"),
                (&node, "eth1", "fd00:10::1"),
                (&dns, "eth0", "fd00:10::2"),
            ] {
                ip(&format!("-n {space} addr add {address}/64 dev {device} nodad"));
            }
            ip(&format!("-n {pod} route add default via fd00:244::1"));
            ip(&format!("-n {node} route add default via fd00:10::2"));
            ip(&format!("-n {dns} route add default via fd00:10::1"));
        }
        lab.add_local_device(&node, local);
        lab
    }

    /// The device with the addresses that nodens listens on: a dummy, as the node set-up makes, or
    /// one end of a veth where the kernel has no dummy driver.
    fn add_local_device(&self, node: &str, local: &[&str]) {
        let dummy = ["-n", node, "link", "add", "nodelocaldns", "type", "dummy"];
        if !run("ip", &dummy).status.success() {
            ip(&format!("-n {node} link add nodelocaldns type veth peer name nodelocalpeer"));
            ip(&format!("-n {node} link set nodelocalpeer up"));
        }
        ip(&format!("-n {node} link set nodelocaldns up"));
        for address in local {
            ip(&format!("-n {node} addr add {} dev nodelocaldns", alone(address)));
        }
    }

    /// The name of a network namespace: `pod`, `node` or `dns`.
    pub(crate) fn space(&self, place: &str) -> String {
        format!("{}-{place}", self.prefix)
    }

    /// A new folder of this lab, named after what it is for; it goes with the lab.
    pub(crate) fn new_folder(&mut self, name: &str) -> PathBuf {
        self.started += 1;
        let folder = self.folder.path().join(format!("{name}-{}", self.started));
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// A file of this lab.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A command in a namespace. `ip netns exec` becomes the program itself, so the child's id is
    /// the program's.
    pub(crate) fn command(&self, place: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(place), program]);
        command
    }

    /// Starts a command of this lab.
    pub(crate) fn start(&mut self, command: &mut Command) -> Running {
        self.started += 1;
        let log = self.folder.path().join(format!("log-{}", self.started));
        let out = fs::File::create(&log).unwrap();
        let streams = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Running { child: streams.spawn().unwrap(), log }
    }

    /// Starts a program in a namespace.
    fn spawn(&mut self, place: &str, program: &str, arguments: &[&str]) -> Running {
        let mut command = self.command(place, program);
        self.start(command.args(arguments))
    }

    /// Runs a program in a namespace to its end.
    pub(crate) fn run(&self, place: &str, program: &str, arguments: &[&str]) -> Output {
        let space = self.space(place);
        let mut all = vec!["netns", "exec", space.as_str(), program];
        all.extend_from_slice(arguments);
        run("ip", &all)
    }

    /// Starts a Knot DNS with all zones on one address of the DNS network.
    pub(crate) fn knot(&mut self, address: &str) -> Knot {
        self.knot_with(address, &zones().map(|(zone, text)| (zone.to_owned(), text)))
    }

    /// Gives the DNS network one more address; the node's way there is its default route.
    pub(crate) fn add_server_address(&self, address: &str) {
        ip(&format!("-n {} addr add {} dev eth0", self.space("dns"), alone(address)));
    }

    /// Starts a Knot DNS with some zones, each by its name and file, on one address.
    pub(crate) fn knot_with(&mut self, address: &str, zones: &[(String, String)]) -> Knot {
        let folder = self.folder.path().join(format!("knot-{address}"));
        fs::create_dir(&folder).unwrap();
        let mut config = format!(
            "server:\n  rundir: {0}\n  user: root:root\n  listen: {address}@53\n\
             control:\n  listen: {0}/control\n\
             log:\n  - target: stderr\n    any: info\n\
             database:\n  storage: {0}\n\
             mod-stats:\n  - id: default\n    request-protocol: on\n\
             template:\n  - id: default\n    storage: {0}\n    global-module: mod-stats/default\n\
             zone:\n",
            folder.display()
        );
        for (zone, text) in zones {
            fs::write(folder.join(format!("{zone}zone")), text).unwrap();
            let _ = writeln!(config, "  - domain: {zone}\n    file: {zone}zone");
        }
        fs::write(folder.join("knot.conf"), config).unwrap();
        let path = folder.join("knot.conf");
        let running = self.spawn("dns", "knotd", &["-c", path.to_str().unwrap()]);
        let knot = Knot { running, control: folder.join("control") };
        let at = format!("@{address}");
        let arguments = [&at, &*zones[0].0, "SOA", "+tries=1", "+time=1"];
        wait_for("Knot DNS", || {
            let output = self.run("dns", "dig", &arguments);
            match String::from_utf8_lossy(&output.stdout).contains("status: NOERROR") {
                true => Ok(()),
                false => Err(knot.running.log()),
            }
        });
        knot
    }

    /// Starts nodens on the node with a Corefile and waits until it answers for a name.
    pub(crate) fn nodens(&mut self, corefile: &str, name: &str) -> Running {
        let path = self.write("Corefile", corefile);
        let local = format!("{LOCAL},{SERVICE}");
        let runtime = format!("-runtime-dir={}", self.folder.path().join("run").display());
        let arguments = [
            &*runtime,
            "-conf",
            path.to_str().unwrap(),
            "-localip",
            &local,
            "-setupinterface=false",
            "-setupiptables=false",
            // A system call that the filter does not list must not pass unseen.
            "-seccomp=kill",
        ];
        let running = self.spawn("node", env!("CARGO_BIN_EXE_nodens"), &arguments);
        wait_for("nodens", || match self.dig(LOCAL, name, "A", &[]).status.as_str() {
            "NOERROR" => Ok(()),
            _ => Err(running.log()),
        });
        running
    }

    /// Asks from the pod, once, with time for the reply on a busy machine.
    pub(crate) fn dig(&self, server: &str, name: &str, qtype: &str, options: &[&str]) -> Told {
        let at = format!("@{server}");
        let mut arguments = vec![&*at, name, qtype, "+tries=1", "+time=15"];
        arguments.extend_from_slice(options);
        told(&String::from_utf8_lossy(&self.run("pod", "dig", &arguments).stdout))
    }

    /// Asks several servers from the pod, each `(server, name, type)` once and in order.
    pub(crate) fn dig_all(&self, questions: &[(&str, &str, &str)], options: &[&str]) -> Vec<Told> {
        let batch: String = questions
            .iter()
            .map(|(server, name, qtype)| format!("@{server} {name} {qtype}\n"))
            .collect();
        let batch = self.write("questions", &batch);
        let mut arguments = vec!["+tries=1", "+time=15"];
        arguments.extend_from_slice(options);
        arguments.extend_from_slice(&["-f", batch.to_str().unwrap()]);
        let output = self.run("pod", "dig", &arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        let told: Vec<Told> = text.split("; <<>> DiG ").skip(1).map(told).collect();
        assert_eq!(told.len(), questions.len(), "{text}");
        told
    }

    /// The reply to `GET path` from the pod, head and body.
    pub(crate) fn get(&self, host: &str, port: u16, path: &str) -> String {
        self.get_from("pod", host, port, path)
    }

    /// The reply to `GET path` from a namespace, head and body; empty when there is none.
    pub(crate) fn get_from(&self, place: &str, host: &str, port: u16, path: &str) -> String {
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port} && \
             printf 'GET {path} HTTP/1.1\\r\\nHost: lab\\r\\nConnection: close\\r\\n\\r\\n' >&3 && \
             cat <&3"
        );
        let output = self.run(place, "bash", &["-c", &script]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The devices go with their namespaces.
        for place in ["pod", "node", "dns"] {
            let _ = run("ip", &["netns", "del", &self.space(place)]);
        }
    }
}

/// An address as the only one of its network.
fn alone(address: &str) -> String {
    match address.contains(':') {
        true => format!("{address}/128 nodad"),
        false => format!("{address}/32"),
    }
}

/// Reads one reply in the output of `dig`.
fn told(text: &str) -> Told {
    let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
    let section = text.split(";; ANSWER SECTION:\n").nth(1).unwrap_or("");
    let mut answers: Vec<String> = section
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().skip(3).collect::<Vec<_>>().join(" "))
        .collect();
    answers.sort();
    Told { status: status.unwrap_or("none").to_owned(), answers }
}

/// Tries until it works; what it says last is shown when it never does.
pub(crate) fn wait_for(what: &str, mut is_up: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + START;
    while let Err(log) = is_up() {
        assert!(Instant::now() < end, "{what} does not come up:\n{log}");
        sleep(Duration::from_millis(50));
    }
}

/// The repository's own configuration for a node.
pub(crate) fn node_corefile() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/node-local-dns.Corefile");
    fs::read_to_string(path).unwrap()
}

/// The zones that every Knot serves.
fn zones() -> [(&'static str, String); 4] {
    const HEAD: &str =
        "@ 30 SOA ns hostmaster 1 7200 1800 86400 30\n@ 30 NS ns\nns 30 A 10.0.0.2\n";
    let cluster = format!(
        "{HEAD}web.default.svc 30 A 10.0.1.7\nweb.default.svc 30 AAAA fd00::7\n\
         db.default.svc 30 A 10.244.1.50\ndb.default.svc 30 A 10.244.1.51\n\
         db-0.db.default.svc 30 A 10.244.1.50\ndb-1.db.default.svc 30 A 10.244.1.51\n\
         _sql._tcp.db.default.svc 30 SRV 0 50 5432 db-0.db.default.svc\n\
         _sql._tcp.db.default.svc 30 SRV 0 50 5432 db-1.db.default.svc\n"
    );
    let reverse = format!("{HEAD}50.1.244.10 30 PTR db-0.db.default.svc.cluster.local.\n");
    let reverse6 = format!(
        "{HEAD}7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f 30 \
         PTR web.default.svc.cluster.local.\n"
    );
    let mut external = format!("{HEAD}www 300 A 192.0.2.80\nwww 300 AAAA 2001:db8::80\n");
    for number in 0..NAMES {
        // Longer than a test takes on the slowest machine.
        let _ = writeln!(external, "n{number} 3600 A 198.51.100.{}", number % 250 + 1);
    }
    [
        ("cluster.local.", cluster),
        ("in-addr.arpa.", reverse),
        ("ip6.arpa.", reverse6),
        ("example.org.", external),
    ]
}
