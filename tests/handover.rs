//! One process takes over from another, with the real program: sockets, connections, cache and files
//! go over, and whatever fails changes nothing. What needs network namespaces says so where they are
//! missing.

// A lab that cannot be made fails the test, and why a test did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

// What other tests use of them is not used here.
#[path = "handover/failures.rs"]
mod failures;
mod lab;
mod missing;
mod namespace;
#[path = "handover/peer.rs"]
mod peer;
#[path = "handover/scene.rs"]
mod scene;
#[path = "handover/upgrades.rs"]
mod upgrades;
#[path = "process/upstream.rs"]
mod upstream;

use namespace::{in_namespaces, sh};
use peer::Peer;
use scene::{PATIENCE, Scene, ask, framed, is_answered, until};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A pod of Kubernetes: kubelet starts anew whatever ends there.
const POD: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");

#[test]
fn a_second_process_takes_everything_over_and_the_first_ends_with_0() {
    let mut scene = Scene::new();
    let snapshot = scene.path("cache");
    let flag = format!("-cache-snapshot={}", snapshot.display());
    let manager = UnixDatagram::bind(scene.path("notify")).unwrap();
    let notify = scene.path("notify");
    let mut command = scene.command(&[&flag]);
    let mut first = scene.start_command(command.env("NOTIFY_SOCKET", &notify));
    for number in 0..500 {
        assert!(scene.answers(&format!("n{number}.test")));
    }
    let asked = scene.upstream.questions();
    let (mut idle, mut begun) = (scene.tcp(), scene.tcp());
    idle.write_all(&framed("n1.test", 1)).unwrap();
    assert!(is_answered(&mut idle));
    let message = framed("n2.test", 2);
    begun.write_all(&message[..7]).unwrap();
    // It has been read, or will be by the successor: both are right.
    sleep(Duration::from_millis(50));

    let mut second = scene.start(&[&flag]);
    assert_eq!(first.exit_code(), Some(0), "{}", first.log());
    assert!(first.log().contains("has taken over"), "{}", first.log());
    assert!(!first.log().contains("Going into lameduck"), "{}", first.log());
    second.says("[INFO] Handover: took over from process");
    assert!(!snapshot.exists(), "the first one wrote its cache behind the second one's back");
    let pid = fs::read_to_string(scene.path("pid")).unwrap();
    assert_eq!(pid.trim(), second.child.id().to_string());

    idle.write_all(&framed("n3.test", 3)).unwrap();
    begun.write_all(&message[7..]).unwrap();
    assert!(is_answered(&mut idle) && is_answered(&mut begun), "{}", second.log());
    for number in 0..500 {
        assert!(scene.answers(&format!("n{number}.test")));
    }
    assert_eq!(scene.upstream.questions(), asked, "every answer is in the cache that came over");
    assert_eq!(scene.handovers("successor", "done"), 1.0);
    assert!(scene.metric("nodens_handover_entries_total") >= 500.0);
    assert!(scene.metric("nodens_handover_seconds") > 0.0);
    for (port, path) in [(0, "/metrics"), (1, "/health"), (2, "/metrics")] {
        assert!(scene.get(port, path).unwrap().starts_with("HTTP/1.1 200"), "{path}");
    }

    // The service manager's first process named the second one before it ended.
    let mut told = Vec::new();
    manager.set_nonblocking(true).unwrap();
    let mut buffer = [0; 512];
    while let Ok(length) = manager.recv(&mut buffer) {
        told.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    let main = format!("MAINPID={}\n", second.child.id());
    assert!(told.last().unwrap().starts_with(&main), "{told:?}");

    second.signal("QUIT");
    assert_eq!(second.exit_code(), Some(0));
    assert!(!scene.path("pid").exists() && !scene.door().exists());
}

#[test]
fn a_process_of_a_pod_waits_until_it_is_told_to_end_and_serves_again_if_need_be() {
    let mut scene = Scene::new();
    let start = |scene: &mut Scene| {
        let mut command = scene.command(&[]);
        scene.start_command(command.env(POD.0, POD.1))
    };
    let mut first = start(&mut scene);
    assert!(scene.answers("a.test"));
    let asked = scene.upstream.questions();
    let mut second = start(&mut scene);
    second.says("took over from");
    // It would end at once, if it did.
    sleep(Duration::from_millis(300));
    assert!(first.is_alive() && scene.answers("a.test"));
    // A rollout that is undone: the new pod goes, and the old one is there at once.
    let client = scene.client();
    second.signal("QUIT");
    for _ in 0..50 {
        assert!(ask(&client, "a.test"), "{}", first.log());
    }
    assert_eq!(second.exit_code(), Some(0));
    first.says("this one serves again");
    assert_eq!(scene.handovers("predecessor", "returned"), 1.0);
    let door = scene.door();
    until("its door", &mut first, |_| door.exists());
    // A rollout that is done: the old pod is told to end, and ends at once, without lameduck.
    let mut third = start(&mut scene);
    third.says("took over from");
    first.signal("TERM");
    assert_eq!(first.exit_code(), Some(0), "{}", first.log());
    assert!(!first.log().contains("Going into lameduck"), "{}", first.log());
    assert!(ask(&client, "a.test"));
    assert_eq!(scene.upstream.questions(), asked);
    third.signal("QUIT");
    assert_eq!(third.exit_code(), Some(0));
}

#[test]
fn sigterm_waits_for_a_successor_that_is_about_to_read() {
    let mut scene = Scene::new();
    let mut server = scene.start(&[]);
    let peer = Peer::knock(&scene.door());
    peer.hello();
    drop(peer.take_all());
    server.signal("TERM");
    server.says("SIGTERM: Waiting for the process that takes over");
    assert!(scene.answers("a.test"));
    peer.say(b"nodens-handover commit\n");
    assert_eq!(peer.hear().0, "retired");
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    assert!(!server.log().contains("Going into lameduck"), "{}", server.log());
}

#[test]
fn after_a_reload_the_successor_finds_the_new_addresses() {
    let mut scene = Scene::new();
    let mut server = scene.start(&[]);
    let before = scene.door();
    let corefile = fs::read_to_string(scene.path("Corefile")).unwrap();
    let old = scene.dns;
    scene.move_to_another_port();
    let corefile = corefile.replace(&format!(".:{old} "), &format!(".:{} ", scene.dns));
    fs::write(scene.path("Corefile"), corefile).unwrap();
    server.signal("USR1");
    let door = scene.door();
    until("the new door", &mut server, |_| door.exists() && !before.exists());
    assert!(scene.answers("a.test"));
    let mut second = scene.start(&[]);
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    second.says("took over from");
}

#[test]
fn without_handover_two_processes_serve_beside_each_other() {
    let mut scene = Scene::new();
    let mut command = scene.command(&["-handover=false"]);
    let mut first = scene.spawn(&mut command);
    until("it serves", &mut first, |_| scene.answers("a.test"));
    assert!(!scene.path("run").join("handover").exists() && !scene.door().exists());
    // Neither does one that would take over find it.
    let mut second = scene.start(&[]);
    assert!(!second.log().contains("Handover"), "{}", second.log());
    let mut command = scene.command(&["-handover=false"]);
    let mut third = scene.spawn(&mut command);
    third.says("linux/amd64");
    sleep(Duration::from_millis(200));
    for process in [&mut first, &mut second, &mut third] {
        assert!(process.is_alive(), "{}", process.log());
        process.signal("QUIT");
        assert_eq!(process.exit_code(), Some(0));
    }
}

#[test]
fn guardians_end_with_their_servers() {
    let mut scene = Scene::new();
    let mut first = scene.start(&["-guardian"]);
    let mut second = scene.start(&["-guardian"]);
    assert_eq!(first.exit_code(), Some(0), "{}", first.log());
    assert!(scene.answers("a.test") && second.is_alive());
    second.signal("QUIT");
    assert_eq!(second.exit_code(), Some(0), "{}", second.log());
}

#[test]
fn a_second_nodens_on_a_laptop_takes_over() {
    in_namespaces(&["dig"], || {
        let folder = tempfile::tempdir().unwrap();
        let start = |number: u32| {
            let log = folder.path().join(format!("log-{number}"));
            let out = fs::File::create(&log).unwrap();
            let child = Command::new(env!("CARGO_BIN_EXE_nodens"))
                .env("XDG_RUNTIME_DIR", folder.path())
                .stdin(Stdio::null())
                .stdout(out.try_clone().unwrap())
                .stderr(out)
                .spawn()
                .unwrap();
            (child, log)
        };
        let serves = |log: &PathBuf| {
            let said = |text: &str| fs::read_to_string(log).unwrap().contains(text);
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end {
                if said("try: dig")
                    && folder.path().join("nodens/handover-dns-127.0.0.1-1053").exists()
                {
                    return;
                }
                sleep(Duration::from_millis(10));
            }
            panic!("{}", fs::read_to_string(log).unwrap());
        };
        let (mut first, log) = start(1);
        serves(&log);
        let (mut second, log) = start(2);
        serves(&log);
        assert!(fs::read_to_string(&log).unwrap().contains("took over from process"));
        assert_eq!(first.wait().unwrap().code(), Some(0));
        let said = sh("dig @127.0.0.1 -p 1053 localhost +tries=1 +time=15");
        assert!(said.contains("status: "), "{said}");
        sh(&format!("kill -TERM {}", second.id()));
        assert_eq!(second.wait().unwrap().code(), Some(0));
    });
}
