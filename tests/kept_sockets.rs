//! The service manager keeps the listening sockets while no process is there: restarts, crashes, reloads,
//! and starts with sockets that nodens could not have opened itself. With the real program.

// A test may panic, and why one did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

#[path = "kept_sockets/manager.rs"]
mod manager;
mod missing;
mod namespace;
#[path = "handover/scene.rs"]
mod scene;
#[path = "kept_sockets/stream.rs"]
mod stream;
#[path = "process/upstream.rs"]
mod upstream;

use manager::{Manager, sockets_of};
use namespace::{in_namespaces, sh, write_program};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use scene::{Process, Scene, ask, framed, free_port, is_answered, until};
use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};
use stream::{Stream, is_overtaken};

/// How often a process is ended and started again.
const RESTARTS: usize = 20;

/// Names that are asked for.
const NAMES: usize = 200;

/// How long one process serves before it is ended.
const BETWEEN: Duration = Duration::from_millis(100);

/// A scene whose Corefile has no lameduck, and HTTP endpoints of all kinds.
fn scene() -> Scene {
    let scene = Scene::new();
    write_corefile(&scene, &[scene.dns]);
    scene
}

/// Listens at these ports.
fn write_corefile(scene: &Scene, ports: &[u16]) {
    let [prometheus, health, _] = scene.http;
    let blocks = ports.iter().map(|port| {
        format!(
            ".:{port} {{\n bind 127.0.0.1\n errors\n cache 3600\n hosts {{\n  192.0.2.80 b.test\n  \
             fallthrough\n }}\n prometheus 127.0.0.1:{prometheus}\n \
             health 127.0.0.1:{health}\n forward . {} {{\n  max_fails 0\n }}\n}}\n",
            scene.upstream.address
        )
    });
    fs::write(scene.path("base"), blocks.collect::<String>()).unwrap();
}

fn workers() -> usize {
    available_parallelism().map_or(1, usize::from).min(16)
}

/// Every other process has one worker alone, where this machine has more than one core.
fn change_workers(manager: &mut Manager, restart: usize) {
    let cores = sched_getaffinity(Pid::from_raw(0)).unwrap();
    // A container may have others than the first.
    let one = (0..CpuSet::count()).find(|core| cores.is_set(*core).unwrap()).unwrap();
    manager.by = match restart % 2 {
        0 if workers() > 1 => ["taskset", "-c", &one.to_string()].map(str::to_owned).to_vec(),
        _ => Vec::new(),
    };
}

fn fill(scene: &Scene) {
    let client = scene.client();
    for number in 0..NAMES {
        assert!(ask(&client, &format!("n{number}.test")));
    }
}

#[test]
fn twenty_restarts_by_sigterm_lose_no_query_and_ask_upstream_for_nothing_again() {
    restart_by_sigterm(&[]);
}

#[test]
fn twenty_restarts_of_a_guardian_lose_no_query_either() {
    restart_by_sigterm(&["-guardian"]);
}

fn restart_by_sigterm(more: &[&str]) {
    let mut scene = scene();
    let mut manager = Manager::new(&scene);
    let snapshot = format!("-cache-snapshot={}", scene.path("cache").display());
    let flags = [&[snapshot.as_str()], more].concat();
    let mut process = manager.start(&mut scene, &flags);
    let kept = manager.names();
    assert_eq!(kept.len(), 2 * workers() + 3, "{kept:?}");
    fill(&scene);
    let questions = scene.upstream.questions();
    let stream = Stream::start(scene.dns, NAMES);
    for restart in 0..RESTARTS {
        sleep(BETWEEN);
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        // What comes now waits.
        let (mut tcp, client) = (scene.tcp(), scene.client());
        tcp.write_all(&framed("n1.test", 1)).unwrap();
        client.send(&scene::query("n2.test", 2)).unwrap();
        change_workers(&mut manager, restart);
        process = manager.start(&mut scene, &flags);
        assert!(is_answered(&mut tcp), "{}", process.log());
        assert!(client.recv(&mut [0; 512]).is_ok(), "{}", process.log());
        assert_eq!(manager.names(), kept, "{}", process.log());
        assert!(!process.log().contains("ed sockets: "), "{}", process.log());
    }
    let asked = stream.end();
    let lost = asked.iter().filter(|query| query.answered.is_none()).count();
    println!("{RESTARTS} restarts by SIGTERM {more:?}: {lost} of {} queries lost", asked.len());
    assert_eq!(lost, 0, "of {}: {}", asked.len(), process.log());
    assert!(asked.len() > RESTARTS * 20);
    assert_eq!(scene.upstream.questions(), questions, "{}", process.log());
    assert!(scene.get(1, "/health").unwrap().ends_with("OK"));
    let used = "nodens_sockets_inherited_total{result=\"used\"}";
    assert_eq!(scene.metric(used), kept.len() as f64);
    assert_eq!(scene.metric("nodens_sockets_kept"), kept.len() as f64);
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0), "{}", process.log());
}

#[test]
fn twenty_ends_by_sigkill_lose_only_what_was_read_and_not_answered() {
    let mut scene = scene();
    let mut manager = Manager::new(&scene);
    let mut process = manager.start(&mut scene, &[]);
    let stream = Stream::start(scene.dns, NAMES);
    let mut kills = Vec::new();
    for restart in 0..RESTARTS {
        // So that little waits for upstream: a cache starts empty here.
        fill(&scene);
        sleep(BETWEEN);
        let before = Instant::now();
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        kills.push((before, Instant::now()));
        change_workers(&mut manager, restart);
        process = manager.start(&mut scene, &[]);
    }
    fill(&scene);
    let asked = stream.end();
    let is_lost = |place: &usize| asked[*place].answered.is_none();
    let lost: Vec<usize> = (0..asked.len()).filter(is_lost).collect();
    println!("{RESTARTS} ends by SIGKILL: {} of {} queries lost", lost.len(), asked.len());
    // Of the last batch of each worker, and of those that had come shortly before the kill: by how far a
    // busy machine had got.
    let near = Duration::from_millis(500);
    for &place in &lost {
        let at = asked[place].at;
        let is_of = |(from, to): &(Instant, Instant)| {
            at <= *to && (at + near >= *from || !is_overtaken(&asked, place, near, *from))
        };
        assert!(kills.iter().any(is_of), "{place} of {}: {}", asked.len(), process.log());
    }
    assert!(lost.len() <= RESTARTS * workers() * 64, "{}", lost.len());
    assert!(asked.len() > RESTARTS * 20);
}

#[test]
fn a_reload_that_adds_and_removes_addresses_keeps_the_store_right() {
    let mut scene = scene();
    let manager = Manager::new(&scene);
    let mut process = manager.start(&mut scene, &[]);
    let (first, second) = (scene.dns, free_port());
    let of = |port: u16| format!("dns 127.0.0.1,{port}");
    let count = |port: u16| manager.names().iter().filter(|name| **name == of(port)).count();
    assert_eq!((count(first), count(second)), (2 * workers(), 0), "{:?}", manager.names());
    let reload = |scene: &Scene, process: &mut Process, ports: &[u16]| {
        write_corefile(scene, ports);
        fs::copy(scene.path("base"), scene.path("Corefile")).unwrap();
        let before = manager.count("READY=1");
        process.signal("USR1");
        until("the reload", process, |_| manager.count("READY=1") > before);
    };
    reload(&scene, &mut process, &[first, second]);
    assert_eq!((count(first), count(second)), (2 * workers(), 2 * workers()));
    reload(&scene, &mut process, &[second]);
    until("what is gone is forgotten", &mut process, |_| count(first) == 0);
    assert_eq!(count(second), 2 * workers());
    // Nobody reads at the first address, and nothing pretends to: but for programs that other tests start,
    // which have what the manager had until they run.
    let client = scene.client();
    client.set_read_timeout(Some(BETWEEN)).unwrap();
    until("a refusal", &mut process, |_| {
        let sent = client.send(&scene::query("a.test", 1));
        let refused = sent.and_then(|_| client.recv(&mut [0; 512])).unwrap_err();
        refused.kind() == std::io::ErrorKind::ConnectionRefused
    });
    until("a refusal", &mut process, |_| TcpStream::connect(("127.0.0.1", first)).is_err());
    // A reload that fails changes nothing.
    fs::write(scene.path("Corefile"), "kache {\n").unwrap();
    let before = manager.count("READY=1");
    process.signal("USR1");
    until("the reload", &mut process, |_| manager.count("READY=1") > before);
    assert_eq!(count(second), 2 * workers());

    // The next start wants another address than those that are kept.
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0), "{}", process.log());
    write_corefile(&scene, &[first]);
    let mut process = manager.start(&mut scene, &[]);
    assert_eq!((count(first), count(second)), (2 * workers(), 0), "{}", process.log());
    let line = format!("UDP 127.0.0.1:{second} ({}) is closed", of(second));
    assert!(process.log().contains(&line), "{}", process.log());
    let unwanted = "nodens_sockets_inherited_total{result=\"unwanted\"}";
    assert_eq!(scene.metric(unwanted), 2.0 * workers() as f64);
    assert!(scene.answers("a.test"));
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0), "{}", process.log());
    // A stop lets all go.
    manager.drop_all();
    let client = scene.client();
    client.set_read_timeout(Some(BETWEEN)).unwrap();
    let answered = client.send(&scene::query("a.test", 1)).and_then(|_| client.recv(&mut [0; 512]));
    assert!(answered.is_err());
}

#[test]
fn sockets_are_known_by_what_they_are_whatever_they_are_called() {
    let mut scene = scene();
    let manager = Manager::new(&scene);
    let first = manager.start(&mut scene, &[]);
    drop(first);
    // The names of the store say nothing, or the wrong thing; and a socket unit gives its own.
    let renamed: Vec<_> = ["metrics", "", "nodens.socket", "dns 127.0.0.1,53"]
        .into_iter()
        .cycle()
        .zip(manager.take_all())
        .collect();
    let count = renamed.len();
    for (name, kept) in renamed {
        manager.put(name, kept.socket);
    }
    let mut second = manager.start(&mut scene, &[]);
    assert!(scene.answers("a.test"), "{}", second.log());
    let used = "nodens_sockets_inherited_total{result=\"used\"}";
    assert_eq!(scene.metric(used), count as f64, "{}", second.log());
    // Under their own names from now on.
    let own = format!("dns 127.0.0.1,{}", scene.dns);
    assert!(manager.names().iter().filter(|name| **name == own).count() == 2 * workers());
    second.signal("TERM");
    assert_eq!(second.exit_code(), Some(0));
}

#[test]
fn what_is_no_socket_of_use_is_told_in_one_line_and_never_taken() {
    let mut scene = scene();
    let manager = Manager::new(&scene);
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect("127.0.0.1:9").unwrap();
    let half = nodens_half_open();
    manager.put("file", File::open("/dev/null").unwrap());
    manager.put("unix", UnixListener::bind(scene.path("unix")).unwrap());
    manager.put("connected", connected);
    manager.put("silent", half);
    manager.put("foreign", TcpListener::bind("127.0.0.1:0").unwrap());
    let mut process = manager.start(&mut scene, &[]);
    assert!(scene.answers("a.test"), "{}", process.log());
    let log = process.log();
    for line in [
        "descriptor 3 (file) is not taken: it is no socket",
        "descriptor 4 (unix) is not taken: it is a socket of another family than IPv4 and IPv6",
        "descriptor 5 (connected) is not taken: it is connected",
        "descriptor 6 (silent) is not taken: it does not listen (a socket unit: Accept=no)",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    assert!(log.contains("(foreign) is closed: the Corefile does not listen there"), "{log}");
    assert_eq!(scene.metric("nodens_sockets_inherited_total{result=\"unusable\"}"), 4.0);
    // They are kept no longer.
    let names = manager.names();
    assert!(names.iter().all(|name| name.starts_with("dns ") || name.starts_with("http ")));
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
}

/// A TCP socket that is bound and does not listen.
fn nodens_half_open() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket
}

#[test]
fn variables_that_lie_are_told_and_nothing_is_taken() {
    let mut scene = scene();
    let mut manager = Manager::new(&scene);
    for (variables, line) in [
        (&[("LISTEN_FDS", "two")][..], "LISTEN_FDS=two is no number: no socket is taken"),
        (
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")],
            "LISTEN_PID=1 is not this process: no socket",
        ),
        (&[("LISTEN_FDS", "2")], "descriptor 4 is not taken: it is not open"),
        (&[("LISTEN_FDS", "4000000000")], "LISTEN_FDS=4000000000 is more than 1088"),
        (&[("FDSTORE", "many")], "FDSTORE=many is no number: no socket is kept"),
        (&[("FDSTORE", "2")], "the service manager keeps 2 at most (FileDescriptorStoreMax=)"),
    ] {
        manager.variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut process = manager.start(&mut scene, &[]);
        assert!(scene.answers("a.test"), "{line}: {}", process.log());
        assert_eq!(process.log().matches(line).count(), 1, "{line}: {}", process.log());
        process.signal("TERM");
        assert_eq!(process.exit_code(), Some(0), "{line}: {}", process.log());
        manager.drop_all();
    }
}

#[test]
fn programs_that_it_starts_get_neither_the_sockets_nor_the_variables() {
    let mut scene = scene();
    let mut manager = Manager::new(&scene);
    drop(manager.start(&mut scene, &[]));
    let bin = scene.path("bin");
    fs::create_dir(&bin).unwrap();
    let told = scene.path("told");
    for program in ["iptables", "iptables-save", "iptables-restore", "iptables-nft", "nft"] {
        let file = told.display();
        let script = format!("#!/bin/bash\nenv >>{file}\nls -l /proc/self/fd >>{file}\nexit 1\n");
        write_program(&bin.join(program), &script);
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    manager.variables.push(("PATH".to_owned(), path));
    let flags = ["-setupiptables=true", "-firewall=iptables", "-seccomp=on"];
    let mut process = manager.start(&mut scene, &flags);
    until("the programs", &mut process, |_| told.exists());
    assert!(scene.answers("a.test"));
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0), "{}", process.log());
    let told = fs::read_to_string(&told).unwrap();
    assert!(told.contains("PATH=") && !told.contains("LISTEN_"), "{told}");
    assert!(!told.contains("socket:"), "{told}");
}

#[test]
fn a_guardian_has_none_of_its_servers_sockets() {
    let mut scene = scene();
    let manager = Manager::new(&scene);
    drop(manager.start(&mut scene, &[]));
    let mut process = manager.start(&mut scene, &["-guardian"]);
    assert!(process.log().contains("Privileges") || process.is_alive());
    // It closes them beside the server's start.
    let guardian = process.child.id();
    until("none is left", &mut process, |_| sockets_of(guardian) == 0);
    assert!(scene.answers("a.test"));
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0), "{}", process.log());
}

#[test]
fn a_second_process_takes_over_from_one_that_was_given_its_sockets() {
    let mut scene = scene();
    let manager = Manager::new(&scene);
    drop(manager.start(&mut scene, &[]));
    let mut first = manager.start(&mut scene, &[]);
    let stream = Stream::start(scene.dns, NAMES);
    // Both ways at once: it is offered what it was given already.
    let mut second = manager.start(&mut scene, &[]);
    assert_eq!(first.exit_code(), Some(0), "{}", first.log());
    assert!(second.log().contains("took over from"), "{}", second.log());
    second.signal("TERM");
    assert_eq!(second.exit_code(), Some(0), "{}", second.log());
    let third = manager.start(&mut scene, &[]);
    let asked = stream.end();
    let lost = asked.iter().filter(|query| query.answered.is_none()).count();
    assert_eq!(lost, 0, "of {}: {}", asked.len(), third.log());
}

#[test]
fn a_port_that_it_may_not_open_is_served_when_the_manager_gives_it() {
    in_namespaces(&["setpriv", "dig"], || {
        let mut scene = scene();
        scene.dns = 53;
        write_corefile(&scene, &[53]);
        for name in ["base", "run"] {
            let path = scene.path(name);
            if name == "run" {
                fs::create_dir(&path).unwrap();
            }
            sh(&format!("chmod 777 {}", path.display()));
        }
        sh(&format!("chmod 777 {}", scene.folder.path().display()));
        let mut manager = Manager::new(&scene);
        sh(&format!("chmod 666 {}", scene.path("notify").display()));
        // As a socket unit has them: one of each kind, without SO_REUSEPORT.
        manager.put("nodens.socket", UdpSocket::bind("127.0.0.1:53").unwrap());
        manager.put("nodens.socket", TcpListener::bind("127.0.0.1:53").unwrap());
        let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all";
        manager.by = nobody.split(' ').map(str::to_owned).collect();
        // A socket unit keeps its sockets without any store.
        manager.most = "0".to_owned();
        for _ in 0..3 {
            let mut process = manager.start(&mut scene, &["-handover=false"]);
            for more in ["", "+tcp"] {
                let told = sh(&format!("dig @127.0.0.1 a.test +tries=1 +time=15 {more}"));
                assert!(told.contains("192.0.2.80"), "{told}{}", process.log());
            }
            process.signal("TERM");
            assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        }
        // Without them it cannot.
        manager.drop_all();
        let mut process = manager.spawn(&mut scene, &["-handover=false"]);
        assert_eq!(process.exit_code(), Some(1));
        assert!(process.log().contains("bind: permission denied"), "{}", process.log());
    });
}

#[test]
fn the_first_query_starts_it_by_systemd_socket_activate_and_is_answered() {
    in_namespaces(&["systemd-socket-activate"], || {
        let mut scene = scene();
        for (kind, is_datagram) in [("--datagram", true), ("--fdname=any", false)] {
            let program = scene.command(&[]);
            let mut command = std::process::Command::new("systemd-socket-activate");
            command.arg(kind).arg(format!("--listen=127.0.0.1:{}", scene.dns));
            command.arg(program.get_program()).args(program.get_args());
            let mut process = scene.spawn(&mut command);
            until("it listens", &mut process, |process| process.log().contains("Listening on"));
            assert!(!process.log().contains("node-cache image"), "{}", process.log());
            if is_datagram {
                assert!(scene.answers("a.test"), "{}", process.log());
            }
            let mut tcp = match is_datagram {
                // It opened what it was not given.
                true => {
                    until("it serves", &mut process, |process| {
                        process.log().contains("linux/amd64")
                    });
                    scene.tcp()
                }
                false => scene.tcp(),
            };
            tcp.write_all(&framed("b.test", 1)).unwrap();
            assert!(is_answered(&mut tcp), "{}", process.log());
            assert!(scene.answers("a.test"), "{}", process.log());
            assert_eq!(scene.metric("nodens_sockets_inherited_total{result=\"used\"}"), 1.0);
            process.signal("TERM");
            assert_eq!(process.exit_code(), Some(0), "{}", process.log());
        }
    });
}
