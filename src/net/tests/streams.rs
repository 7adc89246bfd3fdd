//! Connections over TCP: pipelining, late readers, ends, and the times after which they are closed.

use super::*;

#[test]
fn queries_of_one_connection_are_pipelined() {
    let server = Running::start(&answering(".:0", 9, ""), 1);
    let mut stream = server.tcp();
    let mut all = framed(b"");
    all.extend(framed(b"short"));
    for id in 0..500 {
        all.extend(framed(&query("a.test.", id)));
    }
    // Cut in the middle of a message.
    let (one, two) = all.split_at(all.len() - 7);
    stream.write_all(one).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(two).unwrap();
    for expected in 0..500 {
        let reply = read_frame(&mut stream).unwrap();
        assert_eq!(id(&reply), expected);
        assert_eq!(last_octet(&reply), Some(9));
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(octets_to_its_end(&mut stream).is_empty(), "each is answered once");
    server.stop();
}

#[test]
fn a_client_that_reads_late_gets_every_reply_whole() {
    let address = |number| format!("10.0.{}.{} a.test\n", number / 250, number % 250);
    let addresses: String = (0..1_000).map(address).collect();
    let server = Running::start(
        &format!(
            ".:0 {{\nbind 127.0.0.1\ntimeouts {{\nread {NEVER}\nidle {NEVER}\n}}\nhosts {{\n{addresses}}}\n}}\n"
        ),
        1,
    );
    // 16 MB of replies: more than the kernel keeps of them.
    let count = 1_000;
    let mut stream = server.tcp();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let all: Vec<u8> = (0..count).flat_map(|id| framed(&query("a.test.", id))).collect();
        writer.write_all(&all).unwrap();
    });
    // However far the server gets meanwhile: by far until the kernel takes no more.
    std::thread::sleep(Duration::from_secs(2));
    for expected in 0..count {
        let reply = read_frame(&mut stream).unwrap();
        assert_eq!(id(&reply), expected);
        assert_eq!(Message::parse(&reply).unwrap().count(Section::Answer), 1_000);
    }
    writing.join().unwrap();
    server.stop();
}

#[test]
fn a_half_closed_connection_is_answered_then_closed() {
    let server = Running::start(&answering(".:0", 9, ""), 1);
    let mut stream = server.tcp();
    stream.write_all(&framed(&query("a.test.", 3))).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(id(&read_frame(&mut stream).unwrap()), 3);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    server.stop();
}

#[test]
fn a_connection_ends_after_the_queries_that_it_may_bring() {
    let more = "timeouts {\nmaxtcpqueries 2\n}";
    let running = Running::start(&answering(".:0", 1, more), 1);
    let mut stream = running.tcp();
    let all: Vec<u8> = (1..=3).flat_map(|id| framed(&query("a.test.", id))).collect();
    stream.write_all(&all).unwrap();
    for expected in 1..=2 {
        assert_eq!(id(&read_frame(&mut stream).unwrap()), expected);
    }
    assert!(read_frame(&mut stream).is_err());
    assert_eq!(running.ask("a.test."), Some(1), "datagrams have no such limit");
    running.stop();
}

#[test]
fn a_silent_connection_is_closed_in_its_time() {
    let more = format!("timeouts {{\nread 1s\nidle {NEVER}\n}}");
    let server = Running::start(&answering(".:0", 9, &more), 1);
    let start = Instant::now();
    let (mut silent, mut half) = (server.tcp(), server.tcp());
    // It may be closed before that comes.
    let _ = half.write_all(b"\x00\x30abc");
    assert_eq!(octets_to_its_end(&mut silent), b"");
    assert_eq!(octets_to_its_end(&mut half), b"");
    assert!(start.elapsed().as_millis() >= 900, "{:?}", start.elapsed());
    server.stop();
}

#[test]
fn an_idle_connection_is_closed_in_its_time_and_a_silent_one_is_not() {
    let more = format!("timeouts {{\nread {NEVER}\nidle 2s\n}}");
    let server = Running::start(&answering(".:0", 9, &more), 1);
    let mut silent = server.tcp();
    let start = Instant::now();
    let (mut idle, mut empty) = (server.tcp(), server.tcp());
    // Any message begins the idle time, as in CoreDNS.
    empty.write_all(b"\0\0").unwrap();
    idle.write_all(&framed(&query("a.test.", 3))).unwrap();
    read_frame(&mut idle).unwrap();
    assert_eq!(octets_to_its_end(&mut idle), b"");
    assert_eq!(octets_to_its_end(&mut empty), b"");
    assert!(start.elapsed().as_millis() >= 1900, "{:?}", start.elapsed());
    silent.write_all(&framed(&query("a.test.", 4))).unwrap();
    assert_eq!(id(&read_frame(&mut silent).unwrap()), 4);
    server.stop();
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_else() {
    let server = Running::start(&answering(".:0", 9, ""), 1);
    let mut stream = server.tcp();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let burst: Vec<u8> = (0..1000).flat_map(|id| framed(&query("a.test.", id))).collect();
    while stream.write_all(&burst).is_ok() {}
    assert_eq!(server.ask("b.test."), Some(9));
    let mut other = server.tcp();
    other.write_all(&framed(&query("a.test.", 3))).unwrap();
    assert_eq!(id(&read_frame(&mut other).unwrap()), 3);
    drop(stream);
    drop(other);
    server.stop();
}
