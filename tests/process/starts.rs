//! Starts: what they say, and what keeps them from serving.

use super::node::{Node, free_port, refused};
use std::net::UdpSocket;
use std::process::Output;

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let node = Node::new();
    let conf = node.path("Corefile").display().to_string();
    assert_eq!(
        refused(&node, &node.corefile("    looop"), &[]),
        (Some(1), format!("{conf}:4 - Error during parsing: Unknown directive 'looop'"))
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    assert_eq!(
        refused(&node, &node.corefile(&format!("    whoami\n    health {address}")), &[]),
        (Some(1), format!("listen tcp {address}: bind: address already in use"))
    );
    assert_eq!(refused(&node, "", &["-conf=/nonexistent/x"]).0, Some(1));
    assert_eq!(refused(&node, "", &["-nosuchflag"]).0, Some(2));
    let (code, line) = refused(&node, "", &["-localip="]);
    assert_eq!(code, Some(1));
    assert!(
        line.ends_with("[FATAL] Error parsing flags - invalid localip specified - \"\", Exiting"),
        "{line}"
    );
}

#[test]
fn every_start_failure_ends_with_1_and_coredns_s_line() {
    let node = Node::new();
    let path = |name: &str| node.path(name).display().to_string();
    let conf = path("Corefile");
    let taken_tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = taken_tcp.local_addr().unwrap();
    // Taken for UDP alone.
    let taken_udp = UdpSocket::bind(("127.0.0.1", free_port())).unwrap();
    let udp = taken_udp.local_addr().unwrap();
    let block = |port: u16, rest: &str| format!(".:{port} {{\n bind 127.0.0.1\n {rest}\n}}\n");
    let port = node.dns;
    std::fs::write(node.path("resolv.conf"), "search test\n").unwrap();
    let forward = |to: &str| block(port, &format!("forward . {to}"));
    let at = |line: u32, text: String| format!("{conf}:{line} - {text}");
    for (corefile, line) in [
        (
            format!("{}{}", block(port, "whoami"), block(port, "whoami")),
            at(5, format!("cannot serve dns://.:{port} on 127.0.0.1 - it is already defined")),
        ),
        (
            block(port, "erratic"),
            at(
                3,
                "no action found for directive 'erratic' with server type 'dns' (missing a plugin?); \
                 for failures on purpose there is `template`, with `rcode SERVFAIL`"
                    .to_owned(),
            ),
        ),
        (
            block(port, "whoami }"),
            at(
                3,
                "Error during parsing: Unexpected '}' because no matching opening brace".to_owned(),
            ),
        ),
        (
            block(tcp.port(), "whoami"),
            format!("Listen: listen tcp {tcp}: bind: address already in use"),
        ),
        (
            block(udp.port(), "whoami"),
            format!("ListenPacket: listen udp {udp}: bind: address already in use"),
        ),
        (
            block(port, "whoami").replace("127.0.0.1", "203.0.113.77"),
            format!(
                "Listen: listen tcp 203.0.113.77:{port}: bind: cannot assign requested address"
            ),
        ),
        (
            format!("quic://{}", block(port, "whoami")),
            at(1, "ListenPacket: quic: tls.Config not set".to_owned()),
        ),
        (
            forward("__PILLAR__CLUSTER__DNS__:5399"),
            at(3, "plugin/forward: not an IP address or file: \"<nil>:5399\"".to_owned()),
        ),
        (
            forward("/nonexistent/resolv.conf"),
            at(
                3,
                "plugin/forward: not an IP address or file: \"/nonexistent/resolv.conf\""
                    .to_owned(),
            ),
        ),
        (forward(&path("resolv.conf")), at(3, "plugin/forward: no nameservers found".to_owned())),
    ] {
        let told = refused(&node, &corefile, &["-upstreamsvc=nodens-absent"]);
        assert_eq!(told, (Some(1), line), "{corefile}");
    }
    drop((taken_tcp, taken_udp));
}

#[test]
fn a_corefile_that_cannot_be_had_is_named() {
    let node = Node::new();
    let read = |flags: &[&str]| {
        let Output { status, stderr, .. } = node.command(flags).output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    };
    let conf = node.path("Corefile").display().to_string();
    let base = node.path("base").display().to_string();
    let (code, text) = read(&[]);
    assert_eq!(code, Some(1));
    let unread = format!("[ERROR] Failed to read node-cache coreFile {base} - open {base}: ");
    assert!(text.contains(&unread), "{text}");
    let last = format!("\nloading Caddyfile via flag: open {conf}: no such file or directory\n");
    assert!(text.ends_with(&last), "{text}");

    std::fs::write(&base, node.corefile("    whoami")).unwrap();
    let (code, text) = read(&["-conf=/nonexistent/Corefile"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("[ERROR] Failed to write config file /nonexistent/Corefile - err open "),
        "{text}"
    );
    assert!(
        text.ends_with(
            "\nloading Caddyfile via flag: open /nonexistent/Corefile: no such file or directory\n"
        ),
        "{text}"
    );
}

#[test]
fn without_a_template_the_old_corefile_is_served() {
    let mut node = Node::new();
    std::fs::write(node.path("Corefile"), node.corefile("    whoami")).unwrap();
    node.start("    not_read", &["-basecorefile=/nonexistent/base"]);
    assert!(node.answers());
    let errors = std::fs::read_to_string(node.path("stderr")).unwrap();
    let line = "[ERROR] Failed to sync node-local-dns config directory /nonexistent, \
                err: lstat /nonexistent: no such file or directory\n";
    assert!(errors.contains(line), "{errors}");
}

#[test]
fn the_start_says_zones_hash_and_version_in_this_order() {
    let mut node = Node::new();
    let pidfile = "-pidfile=/nonexistent/pid";
    let more = format!("    whoami\n    reload\n}}\na_b.test:{} {{\n bind 127.0.0.1", node.dns);
    node.start(&more, &[pidfile]);
    node.says("] Privileges reduced to");
    let port = node.dns;
    let lines = node.lines();
    let mut lines = lines.lines();
    assert_eq!(lines.next().unwrap(), format!(".:{port} on 127.0.0.1"));
    assert_eq!(
        lines.next().unwrap(),
        "Warning: Domain \"a_b.test.\" does not follow RFC1035 preferred syntax"
    );
    assert_eq!(lines.next().unwrap(), format!("a_b.test.:{port} on 127.0.0.1"));
    assert_eq!(
        lines.next().unwrap(),
        "[ERROR] Could not write pidfile: open /nonexistent/pid: no such file or directory"
    );
    let hash = lines.next().unwrap();
    let hash = hash.strip_prefix("[INFO] plugin/reload: Running configuration SHA512 = ").unwrap();
    assert_eq!(hash.len(), 128);
    assert!(lines.next().unwrap().starts_with("CoreDNS-1."));
    assert!(lines.next().unwrap().starts_with("linux/"));
    assert!(lines.next().unwrap().starts_with("[INFO] Privileges reduced to "));
    assert_eq!(lines.next(), None);
    // Before, on standard error with a time stamp.
    let before = std::fs::read_to_string(node.path("stderr")).unwrap();
    let first = before.lines().next().unwrap();
    assert_eq!(&first[4..5], "/");
    assert_eq!(&first[19..46], " [INFO] Starting node-cache");
    assert!(before.contains(" [INFO] Using Pidfile /nonexistent/pid\n"), "{before}");
    if !std::path::Path::new("/etc/kube-dns").exists() {
        let last = " [INFO] Skipping kube-dns configmap sync as no directory was specified\n";
        assert!(before.ends_with(last), "{before}");
    }
}

#[test]
fn a_quiet_start_says_nothing_of_zones_and_versions() {
    let mut node = Node::new();
    node.start("    whoami\n    log", &["-quiet"]);
    // The line of privileges is written while queries are answered already: before or after.
    node.says("NOERROR");
    node.says("[INFO] Privileges reduced to ");
    let lines = node.lines();
    let is_of_privileges = |line: &&str| line.starts_with("[INFO] Privileges reduced to ");
    let (privileges, queries): (Vec<&str>, Vec<&str>) = lines.lines().partition(is_of_privileges);
    assert_eq!(privileges.len(), 1, "{lines}");
    // More than one where the first answer came too late for who asked.
    for query in queries {
        assert!(query.starts_with("[INFO] 127.0.0.1:"), "{lines}");
        let took = query.rsplit(' ').next().unwrap();
        let took: f64 = took.strip_suffix('s').unwrap().parse().unwrap();
        assert!(took > 0.0, "{lines}");
    }
}

#[test]
fn a_corefile_without_listeners_ends_at_once_with_0() {
    let node = Node::new();
    std::fs::write(node.path("base"), "unix:///tmp/x {\n    whoami\n}\n").unwrap();
    let Output { status, stdout, .. } = node.command(&[]).output().unwrap();
    assert_eq!(status.code(), Some(0));
    let last = "[ERROR] Untrapped signal, tearing down\n[INFO] Tearing down\n";
    assert!(String::from_utf8(stdout).unwrap().ends_with(last));
}

#[test]
fn nothing_of_a_corefile_shares_the_address_of_the_metrics_of_the_set_up() {
    let node = Node::new();
    let address = format!("127.0.0.1:{}", node.http);
    let flag = format!("-metrics-listen-address={address}");
    for directive in ["health", "ready", "pprof"] {
        let corefile = node.corefile(&format!("    whoami\n    {directive} {address}"));
        let why = format!("listen tcp {address}: bind: address already in use");
        assert_eq!(refused(&node, &corefile, &[&flag]), (Some(1), why), "{directive}");
    }
    let mut node = Node::new();
    let flag = format!("-metrics-listen-address=127.0.0.1:{}", node.http);
    node.start("    whoami\n    prometheus HTTP", &[&flag]);
    node.says("[ERROR] plugin/prometheus: Failed to start metrics handler: listen tcp 127.0.0.1:");
}

#[test]
fn a_taken_metrics_address_is_said_and_dns_is_served() {
    let mut node = Node::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", node.http)).unwrap();
    node.start("    whoami\n    prometheus HTTP", &[]);
    let address = taken.local_addr().unwrap();
    let line = format!(
        "[ERROR] plugin/prometheus: Failed to start metrics handler: listen tcp {address}: bind: \
         address already in use"
    );
    node.says(&line);
}
