//! Queries over UDP: each gets its own reply, also those that wait, and those under way at the end.

use super::*;
use crate::dns::flags;
use crate::sys::udp::{Outbox, Route};
use std::os::fd::AsFd;

/// Waits for the replies to queries with the ids below `count`, in whatever order.
fn each_is_answered(client: &UdpSocket, count: u16) {
    let mut seen = Vec::new();
    let mut buffer = [0; 512];
    for _ in 0..count {
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(last_octet(&buffer[..length]), Some(9));
        seen.push(id(&buffer));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..count).collect::<Vec<u16>>());
}

#[test]
fn datagrams_are_answered_each_with_its_id() {
    let server = Running::start(&answering(".:0", 9, ""), 2);
    let socket = server.udp();
    for id in 0..200 {
        socket.send(&query("a.test.", id)).unwrap();
    }
    each_is_answered(&socket, 200);
    server.stop();
}

#[test]
fn each_query_of_a_train_is_answered() {
    let server = Running::start(&answering(".:0", 9, ""), 1);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let route = Route::to(server.address());
    // More than leave together, in trains of 64.
    let queries: Vec<Vec<u8>> = (0..160).map(|id| query("a.test.", id)).collect();
    Outbox::new(queries.len())
        .send(client.as_fd(), queries.len(), |place| (queries[place].as_slice(), &route));
    each_is_answered(&client, 160);
    server.stop();
}

#[test]
fn a_reply_comes_from_the_address_that_was_asked_on_a_socket_for_all() {
    let server = Running::start(".:0 {\nwhoami\n}\n", 1);
    let port = server.address().port();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let target: SocketAddr = format!("127.0.0.77:{port}").parse().unwrap();
    socket.send_to(&query("a.test.", 1), target).unwrap();
    let (_, from) = socket.recv_from(&mut [0; 512]).unwrap();
    assert_eq!(from, target);
    server.stop();
}

#[test]
fn a_question_is_asked_once_however_many_wait_for_it() {
    let mut upstream = Held::start();
    let port = upstream.port();
    let corefile = format!(".:0 {{\nbind 127.0.0.1\n{}}}\n", asking_once(port));
    let server = Running::start(&corefile, 2);
    let sockets: Vec<UdpSocket> = (0..20).map(|_| server.udp()).collect();
    for (number, socket) in sockets.iter().enumerate() {
        let mut message = query("a.test.", 100 + number as u16);
        if number % 2 == 1 {
            message[13] = b'A';
        }
        socket.send(&message).unwrap();
    }
    wait_until_parked(&server, sockets.len());
    upstream.until_asked();
    upstream.answer();
    for (number, socket) in sockets.iter().enumerate() {
        let mut buffer = [0; 512];
        socket.recv(&mut buffer).unwrap();
        assert_eq!(id(&buffer), 100 + number as u16);
        let spelled = if number % 2 == 1 { b'A' } else { b'a' };
        assert_eq!(buffer[13], spelled, "each client's own capitals");
    }
    assert!(!upstream.is_asked_more());
    server.stop();
}

/// Asks once, until that is cancelled, and once more; the error says how the second one fared when it was
/// not answered by what the first one had asked.
fn join_what_was_cancelled() -> Result<(), String> {
    let begun = Instant::now();
    let mut upstream = Held::start();
    let port = upstream.port();
    let corefile = format!(".:0 {{\nbind 127.0.0.1\ncancel 1s\nforward . 127.0.0.1:{port}\n}}\n");
    let server = Running::start(&corefile, 1);
    let (first, second) = (server.udp(), server.udp());
    let mut buffer = [0; 512];
    first.send(&query("a.test.", 1)).unwrap();
    first.recv(&mut buffer).unwrap();
    assert_eq!(buffer[3] & 15, 2, "SERVFAIL");
    second.send(&query("a.test.", 2)).unwrap();
    let has_joined = || server.equipment.metrics.text().contains("nodens_queries_joined_total 1\n");
    while !has_joined() && begun.elapsed() < 2 * CANCELLED {
        std::thread::sleep(Duration::from_millis(1));
    }
    upstream.until_asked();
    upstream.answer();
    second.recv(&mut buffer).unwrap();
    let (fared, is_asked_more) = ((id(&buffer), buffer[3] & 15), upstream.is_asked_more());
    server.stop();
    match (fared, is_asked_more) {
        ((2, 0), false) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// What `cancel` says in [`join_what_was_cancelled`]. A second later the upstream is asked again, and the
/// second query is cancelled.
const CANCELLED: Duration = Duration::from_secs(1);

#[test]
fn a_query_waits_no_longer_than_cancel_says_and_who_joined_it_does() {
    let end = Instant::now() + PATIENCE;
    loop {
        let begun = Instant::now();
        let Err(fared) = join_what_was_cancelled() else { return };
        // A machine that is too busy for that second tries again.
        let was_quick = begun.elapsed() < 2 * CANCELLED;
        assert!(!was_quick && Instant::now() < end, "{fared}");
    }
}

/// Stops a server while a query waits over UDP and one over TCP.
fn stop_while_waiting(bind: &str) {
    let mut upstream = Held::start();
    let port = upstream.port();
    let corefile = format!(".:0 {{\n{bind}\nforward . 127.0.0.1:{port}\n}}\n");
    let server = Running::start(&corefile, 1);
    let target = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(target).unwrap();
    let mut stream = TcpStream::connect(target).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&query("a.test.", 1)).unwrap();
    stream.write_all(&framed(&query("b.test.", 2))).unwrap();
    wait_until_parked(&server, 2);
    upstream.until_asked();
    upstream.until_asked();
    server.workers.stop_reading();
    upstream.answer();
    assert!(server.workers.drain(PATIENCE));
    let mut buffer = [0; 512];
    socket.recv(&mut buffer).unwrap();
    assert_eq!(id(&buffer), 1);
    assert_ne!(u16::from_be_bytes([buffer[2], buffer[3]]) & flags::QR, 0);
    assert_eq!(id(&read_frame(&mut stream).unwrap()), 2);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    server.workers.join();
}

#[test]
fn what_waits_when_reading_stops_still_gets_its_reply() {
    stop_while_waiting("bind 127.0.0.1");
}

#[test]
fn what_waits_on_a_socket_for_all_addresses_gets_its_reply_too() {
    stop_while_waiting("errors");
}

#[test]
fn a_worker_that_leaves_gives_its_address_to_its_successor() {
    let server = Running::start(&answering(".:0", 1, ""), 1);
    let port = server.address().port();
    let next = Running::start(&answering(&format!(".:{port}"), 2, ""), 1);
    server.workers.stop_reading();
    for _ in 0..40 {
        assert_eq!(next.ask("a.test."), Some(2));
    }
    server.workers.join();
    next.stop();
}

#[test]
fn an_option_that_a_rewrite_rule_names_is_reflected_also_from_the_cache() {
    let more = "cache\nrewrite edns0 local set 0xffee 0x07";
    let server = Running::start(&answering(".:0", 9, more), 1);
    let mut asked = query("a.test.", 1);
    asked[11] = 1;
    asked.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0xff, 0xee, 0, 1, 7]);
    let socket = server.udp();
    let mut buffer = [0; 512];
    for from in ["hosts", "the cache"] {
        socket.send(&asked).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..length].ends_with(&[0xff, 0xee, 0, 1, 7]), "{from}");
    }
    server.stop();
}
