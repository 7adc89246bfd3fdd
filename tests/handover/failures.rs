//! Successors that go, break off or are none, predecessors that fail, and directories that cannot be
//! used: nothing changes for whoever asks.

use super::namespace::{in_namespaces, sh};
use super::peer::Peer;
use super::scene::{Process, Scene, ask, query, until};
use super::{POD, missing};
use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Instant;

/// What a successor does before it goes.
type Stage<'a> = (&'a str, &'a dyn Fn(&Peer));

#[test]
fn a_successor_that_goes_at_any_stage_changes_nothing() {
    let mut scene = Scene::new();
    let mut command = scene.command(&[]);
    let mut server = scene.start_command(command.env(POD.0, POD.1));
    assert!(scene.answers("a.test"));
    let clients: Vec<UdpSocket> = (0..64).map(|_| scene.client()).collect();
    let (dns, [one, two, three]) = (scene.dns, scene.http);
    let stages: [Stage<'_>; 5] = [
        ("knocks", &|_| {}),
        ("says who it is", &Peer::hello),
        ("hears that it is welcome", &|peer| {
            peer.hello();
            assert!(peer.hear().0.starts_with("welcome 1 "));
        }),
        ("has been given all", &|peer| {
            peer.hello();
            let all = peer.take_all();
            let lines: Vec<&str> = all.iter().map(|(line, _)| &**line).collect();
            for site in [one, two, three] {
                assert!(lines.contains(&&*format!("site 127.0.0.1:{site}")), "{lines:?}");
            }
            let (line, sockets) = all.iter().find(|(line, _)| line.starts_with("sockets")).unwrap();
            assert_eq!(*line, format!("sockets dns 127.0.0.1 {dns} {}", sockets.len() / 2));
        }),
        ("has read the cache", &|peer| {
            peer.hello();
            let (_, mut stream) =
                peer.take_all().into_iter().find(|(line, _)| line == "cache").unwrap();
            let mut octets = Vec::new();
            std::os::unix::net::UnixStream::from(stream.remove(0))
                .read_to_end(&mut octets)
                .unwrap();
            assert!(octets.starts_with(b"nodens cache"));
        }),
    ];
    for (number, (stage, act)) in stages.iter().enumerate() {
        let peer = Peer::knock(&scene.door());
        act(&peer);
        drop(peer);
        for client in &clients {
            assert!(ask(client, "a.test"), "{stage}: {}", server.log());
        }
        // It was heard of before the next one is let in.
        let broken = (number + 1) as f64;
        until(stage, &mut server, |_| scene.handovers("predecessor", "broken") == broken);
    }
    server.says("did not take over: it is gone; this process serves on");
    assert!(scene.get(1, "/health").unwrap().ends_with("OK"));

    // One that has said that it reads, and goes: what comes meanwhile waits in the sockets.
    let peer = Peer::knock(&scene.door());
    peer.hello();
    drop(peer.take_all());
    peer.say(b"nodens-handover commit\n");
    assert_eq!(peer.hear().0, "retired");
    for (id, client) in clients.iter().enumerate() {
        client.send(&query("a.test", id as u16)).unwrap();
    }
    drop(peer);
    for client in &clients {
        assert!(client.recv(&mut [0; 512]).is_ok(), "{}", server.log());
    }
    until("it serves again", &mut server, |_| scene.handovers("predecessor", "returned") == 1.0);
    let door = scene.door();
    until("its door", &mut server, |_| door.exists());
    assert!(scene.get(1, "/health").unwrap().ends_with("OK"));

    // After all that a real one takes over.
    let mut second = scene.start(&[]);
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    second.says("took over from");
    assert!(scene.answers("a.test"));
}

#[test]
fn a_successor_that_is_killed_at_any_moment_changes_nothing() {
    let mut scene = Scene::new();
    let mut command = scene.command(&[]);
    let mut server = scene.start_command(command.env(POD.0, POD.1));
    assert!(scene.answers("a.test"));
    let asked = scene.upstream.questions();
    // How long a start takes here and now: moments are parts of it, and a little of what follows.
    let began = Instant::now();
    let mut command = scene.command(&[]);
    let mut successor = scene.start_command(command.env(POD.0, POD.1));
    successor.says("took over from");
    let whole = began.elapsed().mul_f64(1.2);
    successor.signal("QUIT");
    assert_eq!(successor.exit_code(), Some(0));
    until("it serves again", &mut server, |_| scene.handovers("predecessor", "returned") == 1.0);
    for moment in 0..40 {
        let mut command = scene.command(&[]);
        let mut successor = scene.spawn(command.env(POD.0, POD.1));
        sleep(whole * moment / 40);
        successor.child.kill().unwrap();
        successor.child.wait().unwrap();
        // Whoever has the sockets now answers all that comes.
        for client in (0..16).map(|_| scene.client()) {
            assert!(ask(&client, "a.test"), "{moment}: {}\n{}", server.log(), successor.log());
        }
        assert!(server.is_alive(), "{moment}: {}", server.log());
        assert!(scene.get(1, "/health").unwrap().ends_with("OK"), "{moment}");
    }
    assert_eq!(scene.upstream.questions(), asked, "{}", server.log());
    let ends: f64 =
        ["broken", "returned"].map(|end| scene.handovers("predecessor", end)).iter().sum();
    assert!(ends > 1.0, "none of them came as far as its door: {}", server.log());
    server.signal("QUIT");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn who_knocks_and_is_no_successor_is_told_and_sent_away() {
    let mut scene = Scene::new();
    let mut server = scene.start(&[]);
    let mut count = 0.0;
    let mut turned_away = |server: &mut Process, scene: &Scene, result: &str, line: &str| {
        count += 1.0;
        until(line, server, |server| server.log().matches(line).count() == 1);
        let all = ["foreign", "refused", "broken"].map(|end| scene.handovers("predecessor", end));
        assert_eq!(all.iter().sum::<f64>(), count, "{result}: {all:?}\n{}", server.log());
        assert!(scene.handovers("predecessor", result) >= 1.0, "{result}: {}", server.log());
        assert!(scene.answers("a.test"));
    };
    let garbage = Peer::knock(&scene.door());
    garbage.say(b"GET / HTTP/1.1\r\n\r\n");
    turned_away(&mut server, &scene, "foreign", "it does not speak the handover of nodens");

    let later = Peer::knock(&scene.door());
    later.say(b"nodens-handover hello 7 9 net:[1] 9.9.9\n");
    assert_eq!(later.hear().0, "refused version");
    let line = "was refused: it speaks versions 7 to 9, this is 1 to 1";
    turned_away(&mut server, &scene, "refused", line);

    let elsewhere = Peer::knock(&scene.door());
    elsewhere.say(b"nodens-handover hello 1 1 net:[1] 9.9.9\n");
    assert_eq!(elsewhere.hear().0, "refused namespace");
    turned_away(&mut server, &scene, "refused", "was refused: another network namespace");

    // One at a time; and the first one is not disturbed by the second.
    let first = Peer::knock(&scene.door());
    first.hello();
    drop(first.take_all());
    let second = Peer::knock(&scene.door());
    assert_eq!(second.hear().0, "refused busy");
    let line = "was refused: it is handing over to another process";
    turned_away(&mut server, &scene, "refused", line);
    // Out of turn.
    first.say(b"nodens-handover done\n");
    until("it is heard", &mut server, |_| scene.handovers("predecessor", "foreign") == 2.0);

    // A real second process goes on beside the first one when it is refused.
    let first = Peer::knock(&scene.door());
    first.hello();
    drop(first.take_all());
    let mut beside = scene.start(&[]);
    beside.says(": it is handing over to another process; this process starts on its own");
    assert!(server.is_alive() && scene.answers("a.test"));
}

#[test]
fn a_successor_is_let_in_by_one_that_was_out_of_descriptors_when_another_knocked() {
    if !missing::are_here(&["prlimit"]) {
        return;
    }
    let mut scene = Scene::new();
    let mut server = scene.start(&[]);
    let process = server.child.id();
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let usual = open_files.split_whitespace().nth(3).unwrap();
    let limit = |most: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &process.to_string(), &format!("--nofile={most}:")]);
        assert!(prlimit.status().unwrap().success());
    };
    // It has more of them open already.
    limit("3");
    drop(Peer::knock(&scene.door()));
    server.says("did not take over: it is gone");
    limit(usual);
    let mut second = scene.start(&[]);
    second.says("took over from");
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
}

#[test]
fn a_process_of_another_user_gets_nothing() {
    let mut scene = Scene::new();
    if !is_root() {
        return missing::say_missing("root");
    }
    let mut server = scene.start(&[]);
    // Somebody opened everything: the other side is looked at all the same.
    let open =
        |path: PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    open(scene.door());
    open(scene.folder.path().to_owned());
    open(scene.path("run"));
    let nobody = 65534;
    let mut command = scene.command(&[]);
    let mut foreign = scene.spawn(command.uid(nobody).gid(nobody));
    assert_eq!(foreign.exit_code(), Some(1), "{}", foreign.log());
    assert!(
        foreign.log().contains("it runs as user 0; this process starts on its own"),
        "{}",
        foreign.log()
    );
    server.says("did not take over: it runs as user 65534; this process serves on");
    assert_eq!(scene.handovers("predecessor", "foreign"), 1.0);
    assert!(scene.answers("a.test"));
}

fn is_root() -> bool {
    nodens::sys::unix::own_user() == 0
}

/// What a predecessor does with the one that knocks, before it is gone.
type Act = Box<dyn FnOnce(Peer) + Send>;

/// It hears who is there and says some words.
fn saying(words: &'static [&'static str]) -> Act {
    Box::new(move |peer| {
        assert!(peer.hear().0.starts_with("hello 1 1 net:["));
        words.iter().for_each(|line| peer.say(format!("{line}\n").as_bytes()));
    })
}

#[test]
fn a_predecessor_that_fails_is_told_and_the_start_goes_on() {
    const WELCOME: &str = "nodens-handover welcome 1 9.9.9";
    let alone = |why: &str| format!(": {why}; this process starts on its own");
    let foreign = alone("it does not speak the handover of nodens");
    let silent = |peer: Peer| {
        peer.hear();
        peer.say(format!("{WELCOME}\n").as_bytes());
        // And then nothing, for longer than anybody waits.
        while !peer.hear().0.is_empty() {}
    };
    let acts: [(Act, &str, &str); 7] = [
        (Box::new(drop), "broken", &alone("it is gone")),
        (
            saying(&["nodens-handover refused version"]),
            "refused",
            &alone("no version of the handover in common"),
        ),
        (saying(&["hello yourself"]), "foreign", &foreign),
        (saying(&["nodens-handover welcome 9 9.9.9"]), "foreign", &foreign),
        // Three TCP sockets, it says, and sends none.
        (saying(&[WELCOME, "nodens-handover sockets dns 127.0.0.1 53 3"]), "foreign", &foreign),
        (Box::new(silent), "broken", &alone("it does not answer")),
        // It had nothing to offer, and is gone before the commit: all is bound anew.
        (
            saying(&[WELCOME, "nodens-handover offered"]),
            "broken",
            ": it is gone; its sockets are this process's now",
        ),
    ];
    for (act, result, line) in acts {
        let mut scene = Scene::new();
        let predecessor = Peer::wait(&scene.door(), act);
        // Nobody listens: the start must bind its own sockets.
        let mut server = scene.start(&[]);
        predecessor.join().unwrap();
        server.says(line);
        assert_eq!(scene.handovers("successor", result), 1.0, "{line}");
        assert!(scene.answers("a.test"));
        server.signal("QUIT");
        assert_eq!(server.exit_code(), Some(0));
    }
}

#[test]
fn a_file_that_a_crash_left_is_told_and_replaced() {
    let mut scene = Scene::new();
    let first = scene.start(&[]);
    drop(first);
    assert!(scene.door().exists());
    let mut second = scene.start(&[]);
    second.says(&format!(
        "[INFO] Handover: {}: nobody listens there any more; this process starts on its own",
        scene.door().display()
    ));
    assert_eq!(scene.handovers("successor", "stale"), 1.0);
    let mut third = scene.start(&[]);
    assert_eq!(second.exit_code(), Some(0), "{}", second.log());
    assert!(scene.answers("a.test"));
    // With other addresses each time: what is left does not pile up.
    drop(third);
    for _ in 0..3 {
        let left = scene.door();
        scene.move_to_another_port();
        third = scene.start(&[]);
        until("the next one removes it", &mut third, |_| !left.exists());
        drop(third);
    }
    assert_eq!(fs::read_dir(scene.path("run")).unwrap().count(), 1);
}

#[test]
fn a_runtime_directory_that_cannot_be_used_is_told_and_all_else_works() {
    let told = |scene: &mut Scene, why: &str| {
        let mut command = scene.command(&[]);
        let mut server = scene.spawn(&mut command);
        until("it is told", &mut server, |server| {
            server.log().contains("Handover: cannot wait for a successor at")
                && server.log().contains(why)
        });
        assert_eq!(scene.handovers("predecessor", "directory"), 1.0);
        assert!(scene.answers("a.test"));
        // The next one starts beside it, and neither disturbs the other.
        let mut command = scene.command(&[]);
        let mut beside = scene.spawn(&mut command);
        beside.says("cannot wait for a successor");
        server.signal("QUIT");
        assert_eq!(server.exit_code(), Some(0));
        assert!(scene.answers("a.test"));
        beside.signal("QUIT");
        assert_eq!(beside.exit_code(), Some(0));
    };
    let mut scene = Scene::new();
    fs::write(scene.path("run"), "a file").unwrap();
    told(&mut scene, "next process starts beside this one");

    in_namespaces(&[], move || {
        // Full: there is room for the directory and nothing in it.
        let mut scene = Scene::new();
        let run = scene.path("run");
        fs::create_dir(&run).unwrap();
        sh(&format!("mount -t tmpfs -o nr_inodes=1,size=4k tmpfs {}", run.display()));
        told(&mut scene, "No space left on device");
        sh(&format!("umount {}", run.display()));
        // Read-only, as a container's root may be.
        sh(&format!("mount -t tmpfs -o ro tmpfs {}", run.display()));
        told(&mut scene, "Read-only file system");
        sh(&format!("umount {}", run.display()));
    });
}
