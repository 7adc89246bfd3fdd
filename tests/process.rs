//! The program as an operator sees it: files, flags, signals, exit codes, HTTP, lines. Each test
//! runs the binary on loopback ports of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

#[path = "process/inputs.rs"]
mod inputs;
#[path = "process/metrics_tls.rs"]
mod metrics_tls;
mod missing;
// What other tests use of it is not used here.
mod namespace;
#[path = "process/node.rs"]
mod node;
#[path = "process/starts.rs"]
mod starts;

use node::{Node, PATIENCE, refused};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn sigterm_serves_through_lameduck_and_ends_with_0() {
    let mut node = Node::new();
    let pid = node.path("pid");
    let flag = format!("-pidfile={}", pid.display());
    node.start("    whoami\n    health HTTP {\n        lameduck 10s\n    }", &[&flag]);
    assert_eq!(node.get("/health"), Some((200, "OK".to_owned())));
    assert_eq!(node.get("/metrics").unwrap().0, 404);
    // Written while queries are answered already.
    let own = format!("{}\n", node.child.as_ref().unwrap().id());
    node.until("its number", |_| std::fs::read_to_string(&pid).is_ok_and(|text| text == own));
    node.signal("TERM");
    node.says("Going into lameduck mode for 10s");
    assert!(node.answers());
    assert_eq!(node.get("/health"), Some((200, "OK".to_owned())));
    assert_eq!(node.exit_code(), Some(0));
    assert!(!pid.exists());
}

#[test]
fn a_second_sigint_ends_at_once_with_2() {
    let mut node = Node::new();
    node.start("    whoami\n    health HTTP {\n        lameduck 60s\n    }", &[]);
    node.signal("INT");
    node.says("lameduck mode for 1m0s");
    node.signal("INT");
    assert_eq!(node.exit_code(), Some(2));
}

#[test]
fn sigquit_ends_at_once_with_0_and_other_signals_do_nothing() {
    let mut node = Node::new();
    node.start("    whoami\n    health HTTP {\n        lameduck 60s\n    }", &[]);
    for name in [
        "HUP", "USR2", "ALRM", "XCPU", "XFSZ", "VTALRM", "PROF", "IO", "PWR", "WINCH", "URG",
        "CHLD", "PIPE", "CONT", "35", "64",
    ] {
        node.signal(name);
    }
    assert!(node.answers());
    node.signal("QUIT");
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn a_wrong_corefile_keeps_the_old_one_and_a_good_one_is_taken() {
    let mut node = Node::new();
    node.start("    whoami\n    reload 2s 1s\n    prometheus HTTP", &[]);
    assert_eq!(node.metric("coredns_reload_version_info"), None);
    let wrong = node.corefile("    whoami\n    reload 2s 1s\n    kache\n    prometheus HTTP");
    node.put("Corefile", &wrong);
    node.says("Corefile changed but reload failed");
    node.says("Corefile:6 - Error during parsing: Unknown directive 'kache'");
    assert!(node.answers());
    assert_eq!(node.metric("coredns_reload_failed_total").as_deref(), Some("1"));
    // SIGUSR1 on the same text fails again, and does not end the watching.
    node.signal("USR1");
    node.says("[ERROR] SIGUSR1: starting with");
    let good = node.corefile("    whoami\n    reload 2s 1s\n\n    prometheus HTTP");
    node.put("Corefile", &good);
    node.says("[INFO] Reloading complete");
    assert!(node.answers());
    // Shown once all is done, behind the line.
    node.until("the version", |node| {
        node.metric("coredns_reload_version_info").as_deref() == Some("1")
    });
    assert_eq!(node.metric("coredns_reload_failed_total").as_deref(), Some("1"));
    assert_eq!(node.metric("coredns_plugin_enabled{name=\"whoami\"").as_deref(), Some("1"));
}

#[test]
fn a_corefile_that_became_empty_is_not_taken() {
    let mut node = Node::new();
    node.start("    template ANY ANY {\n rcode REFUSED\n }\n    reload 2s 1s", &[]);
    let conf = node.path("Corefile").display().to_string();
    for (round, text) in ["", "# being written\n"].into_iter().enumerate() {
        node.put("Corefile", text);
        node.signal("USR1");
        let line = format!(
            "[ERROR] SIGUSR1: starting with listener file descriptors: {conf} - it has no server blocks\n"
        );
        node.until(&line, |node| node.lines().matches(&line).count() == round + 1);
    }
    node.says("[ERROR] plugin/reload: Corefile changed but reload failed: ");
    let reply = node.exchange("a.test").unwrap();
    assert_eq!(reply[3] & 15, 5, "REFUSED, as before");
}

#[test]
fn a_reload_that_reads_without_end_keeps_no_signal_waiting() {
    let mut node = Node::new();
    node.start("    whoami", &[]);
    node.put_pipe("hosts");
    let reading = node.corefile(&format!("    whoami\n    hosts {}", node.path("hosts").display()));
    node.put("Corefile", &reading);
    node.signal("USR1");
    node.says("[INFO] Reloading");
    assert!(node.answers());
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
    node.says("[INFO] SIGTERM: Shutting down servers then terminating");
}

#[test]
fn the_plugins_of_a_block_without_bind_are_shown_too() {
    let mut node = Node::new();
    node.start("    whoami\n}\nx.test:0 y.test:0 {\n    whoami\n    prometheus HTTP", &[]);
    node.until("it is measured", |node| node.metric("coredns_build_info").is_some());
    let (_, body) = node.get("/metrics").unwrap();
    let shown: Vec<&str> =
        body.lines().filter(|line| line.starts_with("coredns_plugin_enabled{")).collect();
    let row = |word: &str| {
        format!(
            "coredns_plugin_enabled{{name=\"{word}\",server=\"dns://:0\",view=\"\",zone=\"x.test.\"}} 1"
        )
    };
    assert_eq!(shown, [row("prometheus"), row("whoami")]);
}

#[test]
fn a_corefile_that_is_gone_is_told_at_sigusr1_and_one_without_reload_is_the_last_that_is_told() {
    let mut node = Node::new();
    node.start("    whoami\n    reload 2s 1s", &[]);
    std::fs::remove_file(node.path("Corefile")).unwrap();
    node.signal("USR1");
    let conf = node.path("Corefile").display().to_string();
    node.says(&format!(
        "[ERROR] SIGUSR1: loading updated Caddyfile: open {conf}: no such file or directory\n"
    ));
    assert!(node.answers());
    let hash = "plugin/reload: Running configuration SHA512 = ";
    node.says(hash);
    let before = node.lines().matches(hash).count();
    let unwatched = node.corefile("    whoami");
    node.put("Corefile", &unwatched);
    node.says("[INFO] Reloading complete");
    assert_eq!(node.lines().matches(hash).count(), before + 1);
    node.signal("USR1");
    node.until("another reload", |node| node.lines().matches("Reloading complete").count() == 2);
    assert_eq!(node.lines().matches(hash).count(), before + 1);
}

#[test]
fn a_corefile_that_lost_reload_is_looked_at_as_before() {
    let mut node = Node::new();
    node.start("    whoami\n    reload 2s 1s", &[]);
    for (count, body) in [(1, "    whoami"), (2, "    whoami\n    log"), (3, "    whoami")] {
        let corefile = node.corefile(body);
        node.put("Corefile", &corefile);
        node.until("another reload", |node| {
            node.lines().matches("[INFO] Reloading complete").count() == count
        });
    }
}

#[test]
fn with_log_format_json_every_line_is_an_object() {
    let mut node = Node::new();
    node.start("    whoami\n    log\n    reload", &["--log-format", "json"]);
    node.says("NOERROR");
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
    let parse = |text: &str| -> Vec<[String; 4]> {
        let objects = text.lines().map(|line| {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            ["ts", "level", "plugin", "msg"].map(|key| object[key].as_str().unwrap().to_owned())
        });
        objects.collect()
    };
    let lines = parse(&node.lines());
    let has = |level: &str, plugin: &str, start: &str| {
        let is_it = |line: &&[String; 4]| {
            (&*line[1], &*line[2]) == (level, plugin) && line[3].starts_with(start)
        };
        assert!(lines.iter().any(|line| is_it(&line)), "{plugin} {start} in {lines:?}");
    };
    has("info", "log", "127.0.0.1:");
    has("info", "reload", "Running configuration SHA512 = ");
    has("info", "", "CoreDNS-1.");
    has("info", "", "SIGTERM: ");
    let early = parse(&std::fs::read_to_string(node.path("stderr")).unwrap());
    assert!(early[0][3].starts_with("Starting node-cache image: "), "{early:?}");
    assert!(early.iter().any(|line| line[3].starts_with("Using config file:\n")), "{early:?}");

    let (code, line) = refused(&node, &node.corefile("    looop"), &["-log-format=json"]);
    let line = &parse(&line)[0];
    assert_eq!((code, line[1].as_str()), (Some(1), "fatal"));
    assert!(line[3].ends_with("Unknown directive 'looop'"), "{line:?}");
}

#[test]
fn a_forwarding_loop_ends_the_process_with_1() {
    let mut node = Node::new();
    let directives = format!("    loop\n    cache 30\n    forward . 127.0.0.1:{}", node.dns);
    std::fs::write(node.path("base"), node.corefile(&directives)).unwrap();
    let output = node.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("[FATAL] plugin/loop: Loop (127.0.0.1:"), "{text}");
    node.child = None;
}

/// Development mode in network and mount namespaces of its own: `prepare` is run by the shell
/// first. Its lines until it serves or ends. `None`, said and why, where namespaces cannot be had.
fn developing(resolv_conf: &str, prepare: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, resolv_conf).unwrap();
    let enter = "ip link set lo up && mount --bind \"$1\" /etc/resolv.conf && python3 -c ''";
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-mn", "sh", "-c", script, "sh"]);
        command.arg(&path).arg(env!("CARGO_BIN_EXE_nodens")).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", folder.path());
        command
    };
    if !inside(enter).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        missing::say_missing("root, unshare, ip, mount or python3");
        return None;
    }
    // Ended by itself, or once it has said its last line.
    let script = format!("{enter} && {prepare} exec \"$2\" 2>&1");
    let log = folder.path().join("log");
    let out = std::fs::File::create(&log).unwrap();
    let mut child = inside(&script).stdout(out).spawn().unwrap();
    let lines = || std::fs::read_to_string(&log).unwrap();
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() && !lines().contains("try: dig @") {
        assert!(Instant::now() < end, "{}", lines());
        std::thread::sleep(Duration::from_millis(10));
    }
    // Only fails when it is gone already.
    let id = child.id().to_string();
    let _ = Command::new("sh").args(["-c", "kill -TERM $0", &id]).stderr(Stdio::null()).status();
    child.wait().unwrap();
    Some(lines())
}

#[test]
fn development_mode_serves_what_this_machine_has_and_says_what_it_has_not() {
    const SERVER: &str = "nameserver 192.0.2.1\n";
    // Holds the addresses in a process of its own, which outlasts the program under test: that becomes
    // of its parent.
    let taken = |addresses: &str| {
        let hold = "import os, socket, sys, time\nheld = []\nfor address in sys.argv[1:]:\n \
                    host, port = address.rsplit(\":\", 1)\n \
                    s = socket.socket(socket.AF_INET6 if \":\" in host else socket.AF_INET)\n \
                    s.bind((host, int(port)))\n s.listen(1)\n held.append(s)\n\
                    program = os.getppid()\n\
                    if os.fork() == 0:\n while os.path.exists(f\"/proc/{program}\"): time.sleep(0.1)";
        format!("python3 -c '{hold}' {addresses} >/dev/null 2>&1 &&")
    };
    let no_ipv6 = "ip -6 addr flush dev lo;";
    let unusable = "no usable nameserver in /etc/resolv.conf: only names of /etc/hosts";
    let all = "serving DNS on 127.0.0.1:1053, [::1]:1053 (UDP and TCP), from ";
    let in_use = "bind: address already in use";
    let first_taken =
        format!("not serving on 127.0.0.1:1053: Listen: listen tcp 127.0.0.1:1053: {in_use}");
    let table = [
        (SERVER, String::new(), vec![format!("{all}192.0.2.1 (/etc/resolv.conf)")]),
        ("", String::new(), vec![format!("[WARNING] {unusable}"), format!("{all}/etc/hosts")]),
        ("nameserver x\n", String::new(), vec![format!("[WARNING] {unusable}")]),
        (
            SERVER,
            no_ipv6.to_owned(),
            vec![
                "[WARNING] not serving on [::1]:1053: Listen: listen tcp [::1]:1053: bind: cannot \
                 assign requested address"
                    .to_owned(),
                "serving DNS on 127.0.0.1:1053 (UDP and TCP)".to_owned(),
            ],
        ),
        (
            SERVER,
            taken("127.0.0.1:1053 127.0.0.1:8080"),
            vec![
                format!("[WARNING] {first_taken}"),
                format!(
                    "[WARNING] no /health on 127.0.0.1:8080: listen tcp 127.0.0.1:8080: {in_use}"
                ),
                "serving DNS on [::1]:1053 (UDP and TCP)".to_owned(),
                "see http://127.0.0.1:9253/metrics\n".to_owned(),
            ],
        ),
        (
            SERVER,
            taken("127.0.0.1:1053 ::1:1053"),
            vec![format!("nothing to serve on: {first_taken}; not serving on [::1]:1053: ")],
        ),
    ];
    let check = |resolv_conf: &str, prepare: &str, expected: &[String]| {
        let Some(lines) = developing(resolv_conf, prepare) else { return };
        for text in expected {
            assert_eq!(lines.matches(text.as_str()).count(), 1, "{text}\nin\n{lines}");
        }
        let warnings = expected.iter().filter(|text| text.starts_with("[WARNING]")).count();
        assert_eq!(lines.matches("[WARNING]").count(), warnings, "{lines}");
        let serves = expected.iter().any(|text| !text.starts_with("nothing"));
        assert_eq!(lines.contains("try: dig @"), serves, "{lines}");
        assert_eq!(lines.contains("SIGTERM: Shutting down"), serves, "{lines}");
    };
    std::thread::scope(|scope| {
        for (resolv_conf, prepare, expected) in &table {
            scope.spawn(|| check(resolv_conf, prepare, expected));
        }
    });
}
