//! Files that change while the program runs: resolv.conf, the template, the kube-dns ConfigMap.
//! The template and the ConfigMap are looked at every ten seconds.

use crate::namespace::in_namespaces;
use crate::node::Node;
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

/// An upstream on port 53 of a loopback address, which answers every question with that address: for a
/// network of the test's own, where nobody else has that port. Its thread ends with the test.
fn upstream(last: u8) -> Ipv4Addr {
    let address = Ipv4Addr::new(127, 0, 1, last);
    let socket = UdpSocket::bind((address, 53)).unwrap();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            let Some(name) = query[12..length].iter().position(|octet| *octet == 0) else { return };
            let mut reply = query[..12 + name + 5].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04");
            reply.extend(address.octets());
            let _ = socket.send_to(&reply, client);
        }
    });
    address
}

/// Turns the link `name` in `folder` to `target`, in one step as the kubelet does it.
fn turn(folder: &Path, name: &str, target: &str) {
    let beside = folder.join(format!("{name}_tmp"));
    symlink(target, &beside).unwrap();
    fs::rename(beside, folder.join(name)).unwrap();
}

/// The directory of a mounted ConfigMap: `..data` is a link to the folder of its present version,
/// and each key a link through it.
struct Mounted {
    folder: PathBuf,
    version: u32,
}

impl Mounted {
    fn new(folder: PathBuf, keys: &[(&str, &[u8])]) -> Mounted {
        fs::create_dir(&folder).unwrap();
        for (key, _) in keys {
            symlink(format!("..data/{key}"), folder.join(key)).unwrap();
        }
        let mut mounted = Mounted { folder, version: 0 };
        mounted.swap(keys);
        mounted
    }

    /// A new version of the same keys, as the kubelet brings it.
    fn swap(&mut self, keys: &[(&str, &[u8])]) {
        self.version += 1;
        let name = format!("..2026_01_02_{}", self.version);
        fs::create_dir(self.folder.join(&name)).unwrap();
        for (key, value) in keys {
            fs::write(self.folder.join(&name).join(key), value).unwrap();
        }
        turn(&self.folder, "..data", &name);
        let old = format!("..2026_01_02_{}", self.version - 1);
        // There is none before the first.
        let _ = fs::remove_dir_all(self.folder.join(old));
    }
}

#[test]
fn a_template_that_is_read_without_end_keeps_no_signal_waiting() {
    let mut node = Node::new();
    node.start("    whoami", &[]);
    node.put_pipe("base");
    let mut writer = OpenOptions::new();
    writer.write(true).custom_flags(libc::O_NONBLOCK);
    let mut open = None;
    // Refused until somebody reads.
    node.until("it is read", |node| {
        open = writer.open(node.path("base")).ok();
        open.is_some()
    });
    assert!(node.answers());
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn a_configmap_that_is_bad_at_start_is_taken_when_it_is_good() {
    in_namespaces(&[], bad_configmap);
}

fn bad_configmap() {
    let (first, second) = (upstream(1), upstream(2));
    let mut node = Node::new();
    fs::write(node.path("resolv.conf"), format!("nameserver {first}\n")).unwrap();
    let key = "upstreamNameservers";
    let mut mounted = Mounted::new(node.path("kube-dns"), &[(key, b"[\"1.1.1.1\xff")]);
    let flag = format!("-kubednscm={}", node.path("kube-dns").display());
    let directives = format!(
        "    prometheus HTTP\n    reload 2s 1s\n    forward . {}\n}}\n\
         other.test:{} {{\n    bind 127.0.0.1\n    forward . __PILLAR__UPSTREAM__SERVERS__",
        node.path("resolv.conf").display(),
        node.dns
    );
    node.start(&directives, &[&flag]);
    let stderr = fs::read_to_string(node.path("stderr")).unwrap();
    let line = format!(
        "[ERROR] Failed to sync kube-dns config directory {0}, err: non-utf8 data in {0}/{key}\n",
        node.path("kube-dns").display()
    );
    assert!(stderr.contains(&line), "{stderr}");

    mounted.swap(&[(key, format!("[\"{second}\"]").as_bytes())]);
    let mut number = 0;
    node.until("the ConfigMap's upstream", |node| {
        number += 1;
        node.ask(&format!("a{number}.other.test")) == Some(second)
    });
    node.says(&format!("custom stubdomains and upstream servers {second}\n"));
    let errors = "coredns_nodecache_setup_errors_total{errortype=\"configmap\"}";
    assert_eq!(node.metric(errors).as_deref(), Some("0"), "it was whole at the next look");

    // Half written, and left so.
    mounted.swap(&[(key, b"[\"127.")]);
    node.says("[ERROR] Invalid configuration, ignoring update: upstreamNames");
    node.until("it is counted", |node| node.metric(errors).as_deref() == Some("1"));
    assert_eq!(node.ask("later.other.test"), Some(second));
}

#[test]
fn with_reloadwithsignal_a_changed_template_is_loaded_without_the_reload_plugin() {
    let mut node = Node::new();
    let mut mounted = Mounted::new(
        node.path("config"),
        &[(
            "Corefile.base",
            node.corefile("    whoami\n    prometheus __PROMETHEUS__ENDPOINT__").as_bytes(),
        )],
    );
    let base = format!("-basecorefile={}", node.path("config/Corefile.base").display());
    let listen = format!("-prometheus-listen-address=127.0.0.1:{}", node.http);
    node.start("    not_read", &[&base, &listen, "-reloadwithsignal"]);
    node.until("the first template", |node| {
        node.metric("coredns_plugin_enabled{name=\"whoami\"").is_some()
    });
    let before = fs::read_to_string(node.path("stderr")).unwrap();
    assert_eq!(before.matches(" [INFO] Sending reload signal to PID ").count(), 1, "{before}");
    let text = fs::read_to_string(node.path("Corefile")).unwrap();
    assert!(text.contains(&format!("prometheus 127.0.0.1:{}\n", node.http)), "{text}");

    let added = "    whoami\n    loadbalance\n    prometheus __PROMETHEUS__ENDPOINT__";
    mounted.swap(&[("Corefile.base", node.corefile(added).as_bytes())]);
    node.until("the new template", |node| {
        node.metric("coredns_plugin_enabled{name=\"loadbalance\"").is_some()
    });
    node.says("[INFO] Sending reload signal to PID ");
    node.says("[INFO] SIGUSR1: Reloading\n");
    assert!(node.answers());
}

#[test]
fn with_reloadwithsignal_a_changed_file_beside_the_template_is_loaded_too() {
    let mut node = Node::new();
    let import = format!("    import {}", node.path("config/imported").display());
    let template = node.corefile(&format!("{import}\n    prometheus HTTP"));
    let keys = |imported| [("Corefile.base", template.as_bytes()), ("imported", imported)];
    let mut mounted = Mounted::new(node.path("config"), &keys(b"whoami\n"));
    let base = format!("-basecorefile={}", node.path("config/Corefile.base").display());
    node.start("    not_read", &[&base, "-reloadwithsignal"]);
    mounted.swap(&keys(b"whoami\nloadbalance\n"));
    node.until("what is imported", |node| {
        node.metric("coredns_plugin_enabled{name=\"loadbalance\"").is_some()
    });
    node.says("[INFO] Sending reload signal to PID ");
}

#[test]
fn a_missing_service_variable_is_named_and_the_process_ends_with_1() {
    let node = Node::new();
    fs::write(node.path("base"), node.corefile("    forward . __PILLAR__CLUSTER__DNS__")).unwrap();
    let output = node.command(&["-upstreamsvc=nodens-absent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let line = "[ERROR] __PILLAR__CLUSTER__DNS__ is <nil> in the Corefile: the environment variable \
                NODENS_ABSENT_SERVICE_HOST is not set.";
    assert!(stderr.contains(line), "{stderr}");
    let written = fs::read_to_string(node.path("Corefile")).unwrap();
    assert!(written.contains("forward . <nil>\n"), "{written}");
}

#[test]
fn an_edit_of_resolv_conf_takes_effect_and_the_cache_stays() {
    in_namespaces(&[], edited_resolv_conf);
}

fn edited_resolv_conf() {
    let (first, second) = (upstream(1), upstream(2));
    let mut node = Node::new();
    let folder = node.folder.path().to_owned();
    fs::write(folder.join("first"), format!("nameserver {first}\n")).unwrap();
    // Equal in size, and in time as far as a file system tells it.
    fs::write(folder.join("second"), format!("nameserver {second}\n")).unwrap();
    turn(&folder, "resolv.conf", "first");
    let file = node.path("resolv.conf").display().to_string();
    node.start(&format!("    prometheus HTTP\n    cache\n    forward . {file}"), &[]);
    assert_eq!(node.ask("kept.test"), Some(first));

    turn(&folder, "resolv.conf", "second");
    let mut number = 0;
    node.until("the second upstream", |node| {
        number += 1;
        node.ask(&format!("new{number}.test")) == Some(second)
    });
    assert_eq!(node.ask("kept.test"), Some(first), "the cache is kept");
    let told = format!("[INFO] plugin/forward: upstreams changed: asking {second}:53 now\n");
    node.says(&told);
    assert_eq!(node.lines().matches(&told).count(), 1, "{}", node.lines());

    node.put("second", "nameserver\n");
    node.says("as before: no nameservers found\n");
    assert_eq!(node.ask("later.test"), Some(second));
    let counter = format!("nodens_forward_file_failures_total{{file=\"{file}\"}}");
    assert_eq!(node.metric(&counter).as_deref(), Some("1"));
    node.put("second", &format!("nameserver {first}\n"));
    node.until("the first upstream again", |node| {
        number += 1;
        node.ask(&format!("new{number}.test")) == Some(first)
    });
    assert!(!node.lines().contains("Reloading"), "{}", node.lines());
}
