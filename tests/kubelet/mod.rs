//! A small stand-in for the kubelet: it runs the one container of a pod on the node of a lab, with
//! the pod's arguments, service environment variables, volumes and root file system, asks its
//! probes, and ends it with SIGTERM, the grace period and SIGKILL.
//!
//! It reads a pod manifest in JSON and knows of it what pods of a node cache use; a field that it
//! does not know fails the test. It never pulls an image: the program in the container is the
//! nodens under test, and it has all the capabilities of the test.

mod volumes;

use crate::lab::{Lab, Running, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

pub(crate) use volumes::ConfigMaps;

/// The shortest grace period, as the kubelet's.
const SHORTEST_GRACE: Duration = Duration::from_secs(2);

/// How much longer a second may be on a machine that tests keep busy.
const BUSY: u32 = 3;

/// What the container has of the machine's own file system, read-only: the loader and libraries
/// that a debug build needs.
const MACHINE: &[&str] = &["usr", "lib", "lib64", "bin", "proc"];

/// The fields of a pod's specification that are obeyed, or that change nothing here.
const SPEC: &[&str] =
    &["containers", "dnsPolicy", "hostNetwork", "terminationGracePeriodSeconds", "volumes"];

/// The same of a container.
const CONTAINER: &[&str] = &[
    "args",
    "env",
    "image",
    "livenessProbe",
    "name",
    "readinessProbe",
    "securityContext",
    "startupProbe",
    "volumeMounts",
];

/// What a node offers to its pods.
pub(crate) struct Node {
    /// Service names with their cluster addresses.
    pub(crate) services: BTreeMap<String, String>,
    /// The node's `/etc/resolv.conf`, which pods with `dnsPolicy: Default` get.
    pub(crate) resolv_conf: String,
    /// The node's address, which pods in its network have too.
    pub(crate) address: String,
}

/// A pod at work.
pub(crate) struct Pod {
    manifest: Value,
    address: String,
    running: Running,
}

/// How a pod ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, with this exit code, within the grace period.
    Exit(i32),
    /// By SIGKILL after the grace period, or by another signal.
    Killed,
}

impl Pod {
    /// Starts the container of a pod on the lab's node.
    pub(crate) fn start(lab: &mut Lab, manifest: &Path, node: &Node, maps: &ConfigMaps) -> Pod {
        let text = fs::read_to_string(manifest).unwrap();
        let manifest: Value = serde_json::from_str(&text).unwrap();
        let container = &manifest["spec"]["containers"][0];
        for (fields, known) in [(&manifest["spec"], SPEC), (container, CONTAINER)] {
            let unknown = fields.as_object().unwrap().keys().find(|key| !known.contains(&&***key));
            assert_eq!(unknown, None, "a field that this kubelet does not know");
        }
        let name = word(&manifest["metadata"]["name"]);
        let root = lab.new_folder(&format!("pod-{name}"));
        let mut script = container_start(&root, node);
        for (path, volume) in mounts(&manifest) {
            volumes::mount(&root, path, volume, maps, &mut script);
        }
        if container["securityContext"]["readOnlyRootFilesystem"] == true {
            let _ = writeln!(script, "mount -o remount,bind,ro {0} {0}", root.display());
        }
        let _ = writeln!(script, "exec chroot {} /node-cache \"$@\"", root.display());

        let mut command = lab.command("node", "unshare");
        command.args(["--mount", "sh", "-euc", &script, "node-cache"]);
        command.args(list(&container["args"]).map(word));
        let paths = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", paths).envs(environment(container, node));
        let running = lab.start(&mut command);
        let address = node.address.clone();
        Pod { manifest, address, running }
    }

    /// The container's standard output and error so far.
    pub(crate) fn log(&self) -> String {
        self.running.log()
    }

    /// Whether it says that it took up an edited Corefile.
    pub(crate) fn has_reloaded(&self) -> bool {
        self.log().contains("[INFO] Reloading complete")
    }

    /// Whether the container still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.running.is_alive()
    }

    /// Waits until all probes succeed; their delays are not kept.
    pub(crate) fn wait_until_ready(&mut self, lab: &Lab) {
        wait_for("the pod", || {
            assert!(self.is_alive(), "the container ended:\n{}", self.log());
            match self.failing_probe(lab) {
                None => Ok(()),
                Some(why) => Err(format!("{why}\n{}", self.log())),
            }
        });
    }

    /// The first probe that does not succeed, with its reply.
    pub(crate) fn failing_probe(&self, lab: &Lab) -> Option<String> {
        let container = &self.manifest["spec"]["containers"][0];
        for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let probe = &container[kind];
            if probe.is_null() {
                continue;
            }
            let get = &probe["httpGet"];
            let host = get["host"].as_str().unwrap_or(&self.address);
            let port = get["port"].as_u64().unwrap().try_into().unwrap();
            let path = get["path"].as_str().unwrap_or("/");
            let reply = lab.get_from("node", host, port, path);
            // As the kubelet: any status from 200 to 399.
            let status = reply.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
            if !status.is_some_and(|status| (200..400).contains(&status)) {
                return Some(format!("{kind} {host} {port} {path}: {reply:?}"));
            }
        }
        None
    }

    /// Ends the container: SIGTERM, the grace period, SIGKILL.
    pub(crate) fn stop(mut self) -> Ending {
        let grace = self.manifest["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        self.running.signal("TERM");
        let grace = Duration::from_secs(grace).max(SHORTEST_GRACE) * BUSY;
        // What still runs then is killed when it is dropped.
        match self.running.ended_within(grace) {
            Some(code) => Ending::Exit(code),
            None => Ending::Killed,
        }
    }
}

/// Makes the container's root and gives the script that mounts what the machine lends.
fn container_start(root: &Path, node: &Node) -> String {
    for folder in ["etc", "tmp", "run"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("etc/resolv.conf"), &node.resolv_conf).unwrap();
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n").unwrap();
    fs::write(root.join("node-cache"), "").unwrap();
    let at = root.display();
    let mut script = format!("mount --make-rprivate /\nmount --bind {at} {at}\n");
    for name in MACHINE {
        let machine = Path::new("/").join(name);
        if let Ok(target) = fs::read_link(&machine) {
            symlink(target, root.join(name)).unwrap();
        } else if machine.is_dir() {
            fs::create_dir(root.join(name)).unwrap();
            let _ = writeln!(script, "mount --bind -o ro /{name} {at}/{name}");
        }
    }
    let program = env!("CARGO_BIN_EXE_nodens");
    let _ = writeln!(script, "mount --bind -o ro {program} {at}/node-cache");
    script
}

/// The container's mounts: where, and the volume.
fn mounts(manifest: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let volumes = &manifest["spec"]["volumes"];
    list(&manifest["spec"]["containers"][0]["volumeMounts"]).map(|mount| {
        let volume = list(volumes).find(|volume| volume["name"] == mount["name"]);
        (word(&mount["mountPath"]), volume.expect("a mount names a volume"))
    })
}

/// The container's environment: its services' variables and its own.
fn environment(container: &Value, node: &Node) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (service, address) in &node.services {
        let name = service.replace('-', "_").to_uppercase();
        for (ending, value) in [
            ("SERVICE_HOST", address.clone()),
            ("SERVICE_PORT", "53".to_owned()),
            ("SERVICE_PORT_DNS", "53".to_owned()),
            ("PORT", format!("udp://{address}:53")),
            ("PORT_53_UDP_ADDR", address.clone()),
        ] {
            all.push((format!("{name}_{ending}"), value));
        }
    }
    for variable in list(&container["env"]) {
        let field = &variable["valueFrom"]["fieldRef"]["fieldPath"];
        let value = match field.as_str() {
            Some("status.hostIP" | "status.podIP") => node.address.clone(),
            Some(field) => panic!("not known: the field {field}"),
            None => word(&variable["value"]).to_owned(),
        };
        all.push((word(&variable["name"]).to_owned(), value));
    }
    all
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a word is needed, not {value}"))
}
