//! Deployments of node-cache that exist, re-created: with their arguments, Corefiles and ConfigMaps
//! nodens starts, answers, takes up an edited ConfigMap without losing a query, and stops.
//! tests/deployments/README.md says what a deployment's folder holds. Needs what tests/node.rs
//! needs; `NODENS_DEPLOYMENT=kops` runs one of them.

// A lab that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

mod kubelet;
// What the node's tests use of it is not used here.
mod lab;
mod missing;

use kubelet::{ConfigMaps, Ending, Node, Pod};
use lab::{Knot, Lab, Running, Told, has_all_it_needs, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The node's address towards its pods and towards the servers.
const NODE: &str = "10.244.1.1";
const NODE6: &str = "fd00:244::1";

#[test]
fn every_deployment_starts_answers_takes_up_an_edit_and_stops() {
    if !has_all_it_needs() {
        return;
    }
    let only = std::env::var("NODENS_DEPLOYMENT").ok();
    let mut folders = folders_of(&here());
    folders.retain(|folder| folder.join("node.json").is_file());
    assert!(folders.len() >= 10, "only {} deployments found", folders.len());
    folders.retain(|folder| only.as_ref().is_none_or(|only| folder.ends_with(only)));
    let deployments: Vec<_> = folders.iter().map(|folder| Deployment::read(folder)).collect();
    let failed: Vec<String> = thread::scope(|scope| {
        let mut started = Vec::new();
        for deployment in deployments.iter().filter(|one| one.can_be_here()) {
            let name = name_of(&deployment.folder);
            let run = move || live(deployment);
            let thread = thread::Builder::new().name(name.clone());
            started.push((name, thread.spawn_scoped(scope, run).unwrap()));
        }
        started.into_iter().filter_map(|(name, run)| run.join().err().map(|_| name)).collect()
    });
    assert!(failed.is_empty(), "deployments that failed: {failed:?}");
}

#[test]
fn an_edit_that_does_not_load_changes_nothing_and_the_next_good_one_is_taken() {
    if !has_all_it_needs() {
        return;
    }
    let deployment = Deployment::read(&here().join("addon-ipvs"));
    let mut cluster = Cluster::start(&deployment);
    cluster.wait_until("the first answers", &deployment.before, |_| true);
    let load = Load::start(&mut cluster.lab, &deployment);
    let broken = |text: Vec<u8>| [quicker(text), b"acme.test:53 {\n    kache\n}\n".into()].concat();
    let not_text = |text: Vec<u8>| [quicker(text), b"# \xff\n".into()].concat();
    let before = deployment.folder.join("configmaps");
    for (edit, said) in [
        (&broken as &dyn Fn(Vec<u8>) -> Vec<u8>, "Error during parsing: Unknown directive 'kache'"),
        (&not_text, "non-utf8"),
    ] {
        cluster.maps.apply(&before, edit);
        let is_said = |cluster: &Cluster| cluster.logs().contains(said);
        cluster.wait_until(said, &deployment.before, is_said);
        assert_eq!(cluster.pods[0].failing_probe(&cluster.lab), None);
    }
    cluster.maps.apply(&deployment.folder.join("changed/configmaps"), quicker);
    cluster.wait_until("the good edit", &deployment.after, |_| true);
    load.end(&cluster.logs());
    let metrics = cluster.lab.get(NODE, 9253, "/metrics");
    let has = |line: &str| metrics.lines().any(|other| other == line);
    assert!(has("coredns_reload_failed_total 1"), "{metrics}");
    let counted = "coredns_nodecache_setup_errors_total{errortype=\"configmap\"} 1";
    assert!(has(counted), "{metrics}");
}

#[test]
fn a_pod_that_was_killed_is_followed_by_one_that_serves() {
    if !has_all_it_needs() {
        return;
    }
    let deployment = Deployment::read(&here().join("kubespray"));
    let mut cluster = Cluster::start(&deployment);
    cluster.wait_until("the first answers", &deployment.before, |_| true);
    // Longer than the pod's grace period.
    let with_lameduck = |text: Vec<u8>| {
        let text = String::from_utf8(quicker(text)).unwrap();
        text.replace(":9254\n", ":9254 {\n        lameduck 1m\n    }\n").into_bytes()
    };
    cluster.maps.apply(&deployment.folder.join("configmaps"), with_lameduck);
    cluster.wait_until("the edit", &deployment.before, |cluster| cluster.pods[0].has_reloaded());
    assert_eq!(cluster.pods.remove(0).stop(), Ending::Killed);
    assert_eq!(wrong(&cluster.lab, &deployment.before), None, "{}", cluster.logs());
    let manifest = deployment.pods().remove(0);
    cluster.add_pod(&deployment, &manifest);
    assert_eq!(cluster.pods.remove(0).stop(), Ending::Exit(0));
    assert_eq!(wrong(&cluster.lab, &deployment.before), None, "{}", cluster.logs());
}

/// One question and what it must bring.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    /// The servers to ask.
    servers: Vec<String>,
    name: String,
    qtype: String,
    told: Told,
}

/// What a deployment's folder says.
struct Deployment {
    folder: PathBuf,
    node: Node,
    /// The addresses of the device that node-cache makes, or that something else made for it.
    addresses: Vec<String>,
    /// The DNS servers: an address, and whose zones it serves.
    servers: BTreeMap<String, String>,
    /// Where `/metrics` is: address and port.
    metrics: Vec<(String, u16)>,
    /// Lines that the log must hold.
    says: Vec<String>,
    before: Vec<Question>,
    after: Vec<Question>,
}

impl Deployment {
    fn read(folder: &Path) -> Deployment {
        let text = fs::read_to_string(folder.join("node.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let words =
            |key: &str| -> Vec<String> { serde_json::from_value(json[key].clone()).unwrap() };
        let pairs = |key: &str| -> BTreeMap<String, String> {
            serde_json::from_value(json[key].clone()).unwrap()
        };
        let addresses = words("addresses");
        let is_ipv6 = addresses.iter().any(|address| address.contains(':'));
        let metrics = words("metrics").into_iter().map(|at| {
            let (host, port) = at.rsplit_once(':').unwrap();
            (host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap())
        });
        let metrics = metrics.collect();
        let before = questions(&folder.join("questions"), &addresses);
        let mut after = questions(&folder.join("changed/questions"), &addresses);
        let is_changed = |question: &Question| {
            after
                .iter()
                .any(|other| (&other.name, &other.qtype) == (&question.name, &question.qtype))
        };
        let stays: Vec<_> = questions(&folder.join("questions"), &addresses)
            .into_iter()
            .filter(|question| !is_changed(question))
            .collect();
        after.extend(stays);
        let address = if is_ipv6 { NODE6 } else { NODE }.to_owned();
        let resolv_conf = json["resolv.conf"].as_str().unwrap().to_owned();
        Deployment {
            folder: folder.to_owned(),
            node: Node { services: pairs("services"), resolv_conf, address },
            servers: pairs("servers"),
            metrics,
            says: words("says"),
            before,
            after,
            addresses,
        }
    }

    /// Whether this machine has the address families that it needs. One without is said, and a
    /// failure when all tests are asked for.
    fn can_be_here(&self) -> bool {
        let has_it = self.node.address != NODE6 || Path::new("/proc/net/if_inet6").exists();
        if !has_it {
            missing::say_missing(&format!("IPv6, for {}", name_of(&self.folder)));
        }
        has_it
    }

    /// The pods' manifests, in the order in which they start and stop.
    fn pods(&self) -> Vec<PathBuf> {
        ["pod.json", "pod-second.json"]
            .map(|name| self.folder.join(name))
            .into_iter()
            .filter(|path| path.is_file())
            .collect()
    }
}

/// A deployment at work.
struct Cluster {
    lab: Lab,
    maps: ConfigMaps,
    pods: Vec<Pod>,
    _servers: Vec<Knot>,
}

impl Cluster {
    /// Starts the servers and the pods, and waits until the pods are ready.
    fn start(deployment: &Deployment) -> Cluster {
        let addresses: Vec<&str> = deployment.addresses.iter().map(String::as_str).collect();
        let mut lab = Lab::new(&addresses);
        let mut servers = Vec::new();
        for (address, role) in &deployment.servers {
            lab.add_server_address(address);
            servers.push(lab.knot_with(address, &zones(role)));
        }
        let maps = ConfigMaps::default();
        maps.apply(&deployment.folder.join("configmaps"), quicker);
        let mut cluster = Cluster { lab, maps, pods: Vec::new(), _servers: servers };
        for manifest in deployment.pods() {
            cluster.add_pod(deployment, &manifest);
        }
        cluster
    }

    /// Starts a pod and waits until it is ready.
    fn add_pod(&mut self, deployment: &Deployment, manifest: &Path) {
        let mut pod = Pod::start(&mut self.lab, manifest, &deployment.node, &self.maps);
        pod.wait_until_ready(&self.lab);
        self.pods.push(pod);
    }

    /// What all pods said so far.
    fn logs(&self) -> String {
        self.pods.iter().map(Pod::log).collect::<Vec<_>>().join("\n")
    }

    /// Waits until all questions are answered as they must be, and something else holds.
    fn wait_until(&self, what: &str, questions: &[Question], holds: impl Fn(&Cluster) -> bool) {
        wait_for(what, || match wrong(&self.lab, questions) {
            None if holds(self) => Ok(()),
            why => Err(format!("{why:?}\n{}", self.logs())),
        });
    }
}

/// A deployment's life.
fn live(deployment: &Deployment) {
    let mut cluster = Cluster::start(deployment);

    // It answers, and says what it does not set up.
    cluster.wait_until("the first answers", &deployment.before, |_| true);
    for (host, port) in &deployment.metrics {
        let metrics = cluster.lab.get(host, *port, "/metrics");
        let place = format!("{host} {port}: {metrics}");
        assert!(metrics.starts_with("HTTP/1.1 200"), "{place}");
        assert!(metrics.contains("coredns_dns_requests_total{"), "{place}");
        assert!(metrics.contains("\ncoredns_nodecache_setup_errors_total{"), "{place}");
        assert!(metrics.contains("\ncoredns_panics_total 0"), "{place}");
    }
    let log = cluster.logs();
    for line in &deployment.says {
        assert_eq!(log.matches(line.as_str()).count(), cluster.pods.len(), "{line}: {log}");
    }
    assert!(!log.contains("__PILLAR__"), "{log}");

    // A ConfigMap is edited: the change is seen, and no query is lost over it.
    let why = wrong(&cluster.lab, &deployment.after);
    assert!(why.is_some(), "the edit changes no answer");
    let load = Load::start(&mut cluster.lab, deployment);
    cluster.maps.apply(&deployment.folder.join("changed/configmaps"), quicker);
    // The kernel chooses which of two instances answers: each must have taken it up.
    let all_have = |cluster: &Cluster| cluster.pods.iter().all(Pod::has_reloaded);
    cluster.wait_until("the edit", &deployment.after, all_have);
    for pod in &cluster.pods {
        assert_eq!(pod.failing_probe(&cluster.lab), None, "{}", cluster.logs());
    }

    // Of two instances one is enough.
    while cluster.pods.len() > 1 {
        assert_eq!(cluster.pods.remove(0).stop(), Ending::Exit(0));
        assert_eq!(wrong(&cluster.lab, &deployment.after), None, "{}", cluster.logs());
    }
    load.end(&cluster.logs());
    for mut pod in cluster.pods {
        let log = pod.log();
        assert!(pod.is_alive() && !log.contains("panicked"), "{log}");
        assert_eq!(pod.stop(), Ending::Exit(0), "{log}");
    }
}

/// Asks everything over UDP and TCP; the first reply that is not as it must be.
fn wrong(lab: &Lab, questions: &[Question]) -> Option<String> {
    let all: Vec<(&str, &Question)> = questions
        .iter()
        .flat_map(|question| question.servers.iter().map(move |server| (server.as_str(), question)))
        .collect();
    let asked: Vec<_> = all.iter().map(|(at, one)| (*at, &*one.name, &*one.qtype)).collect();
    for option in ["+notcp", "+tcp"] {
        let told = lab.dig_all(&asked, &[option]);
        for ((server, question), told) in all.iter().zip(told) {
            if told != question.told {
                return Some(format!("{option} @{server} {question:?} was told {told:?}"));
            }
        }
    }
    None
}

/// Steady queries over UDP and TCP.
struct Load {
    clients: Vec<Running>,
}

impl Load {
    fn start(lab: &mut Lab, deployment: &Deployment) -> Load {
        let server = &deployment.addresses[0];
        let is_steady = |one: &&Question| {
            one.told.status == "NOERROR"
                && one.servers.contains(server)
                && deployment.after.contains(one)
        };
        let names: String = deployment
            .before
            .iter()
            .filter(is_steady)
            .map(|one| format!("{} {}\n", one.name, one.qtype))
            .collect();
        let names = lab.write("names", &names);
        let clients = ["udp", "tcp"].map(|mode| {
            let mut command = lab.command("pod", "dnsperf");
            command.args(["-m", mode, "-s", server, "-d"]).arg(&names);
            lab.start(command.args(["-l", "600", "-Q", "40", "-c", "2", "-T", "1", "-t", "15"]))
        });
        Load { clients: clients.into() }
    }

    /// Ends the queries: all were answered, and with NOERROR.
    fn end(self, log: &str) {
        for mut client in self.clients {
            assert!(client.is_alive(), "{}", client.log());
            client.signal("INT");
            assert_eq!(client.ended_within(Duration::from_secs(60)), Some(0));
            let text = client.log();
            let line = |start: &str| {
                let found = text.lines().find_map(|line| line.trim().strip_prefix(start));
                found.unwrap_or_default().trim().to_owned()
            };
            assert!(line("Queries lost:").starts_with("0 "), "{text}\n{log}");
            let codes = line("Response codes:");
            assert!(codes.starts_with("NOERROR") && !codes.contains(','), "{text}\n{log}");
        }
    }
}

/// The interval of `reload` is all that differs from what stands in the folder: half a minute is
/// long for a test.
fn quicker(content: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&content) else { return content };
    let line = |line: &str| match line.trim() == "reload" {
        true => line.replace("reload", "reload 2s 1s"),
        false => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect::<String>().into_bytes()
}

/// The zones of roles as in `cluster+external`: every file of their folders, named as its zone.
fn zones(roles: &str) -> Vec<(String, String)> {
    let mut zones: Vec<_> = roles
        .split('+')
        .flat_map(|role| fs::read_dir(here().join("servers").join(role)).unwrap())
        .map(|file| file.unwrap().path())
        .map(|file| (format!("{}.", name_of(&file)), fs::read_to_string(&file).unwrap()))
        .collect();
    zones.sort();
    zones
}

/// Reads lines of `NAME TYPE STATUS [DATA, DATA …]`, with `@SERVER` before those that are not for
/// all of the node's addresses.
fn questions(path: &Path, servers: &[String]) -> Vec<Question> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| question(line, servers)).collect()
}

fn question(line: &str, servers: &[String]) -> Question {
    let mut words = line.split_whitespace().peekable();
    let mut at = Vec::new();
    while let Some(server) = words.next_if(|word| word.starts_with('@')) {
        at.push(server[1..].to_owned());
    }
    let mut next = || words.next().unwrap_or_else(|| panic!("too short: {line}")).to_owned();
    let (name, qtype, status) = (next(), next(), next());
    let data = words.collect::<Vec<_>>().join(" ");
    let mut answers: Vec<String> =
        data.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
    answers.sort();
    let servers = if at.is_empty() { servers.to_vec() } else { at };
    Question { servers, name, qtype, told: Told { status, answers } }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deployments")
}

fn folders_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}
