//! Listening sockets that go from one set of workers to the next, as from a process to its
//! successor.

use super::*;
use crate::net::HandedSockets;

/// A successor of `running` on its sockets, with as many workers.
fn successor(corefile: &str, workers: usize, handed: Vec<HandedSockets>) -> Running {
    let equipment = Equipment {
        workers,
        clock: Clock::start(),
        metrics: Registry::new(workers),
        journal: Arc::new(FakeJournal::default()),
        budget: Arc::default(),
    };
    let snapshot = snapshot(corefile, &equipment.metrics);
    let workers = Workers::start_with(&equipment, &snapshot, handed).unwrap();
    Running { equipment, workers }
}

/// Sends a datagram from each of many clients, so that every socket of the address gets some.
fn ask_all(clients: &[UdpSocket]) {
    for (id, client) in clients.iter().enumerate() {
        client.send(&query("a.test.", id as u16)).unwrap();
    }
}

fn all_are_answered(clients: &[UdpSocket]) -> Vec<u8> {
    let mut buffer = [0; 512];
    clients
        .iter()
        .map(|client| {
            let length = client.recv(&mut buffer).expect("every query is answered");
            last_octet(&buffer[..length]).unwrap()
        })
        .collect()
}

#[test]
fn no_query_is_lost_while_sockets_change_hands() {
    let first = Running::start(&answering(".:0", 1, ""), 2);
    let address = first.address();
    let mut running = first;
    // More workers, fewer, and as many.
    for (last, workers) in [(2, 3), (3, 1), (4, 2)] {
        let clients: Vec<UdpSocket> = (0..64).map(|_| running.udp()).collect();
        ask_all(&clients);
        let handed = running.workers.share_sockets().unwrap();
        let next = successor(&answering(".:0", last, ""), workers, handed);
        assert_eq!(next.address(), address);
        all_are_answered(&clients);
        ask_all(&clients);
        running.workers.stop_reading();
        next.workers.own_sockets();
        ask_all(&clients);
        all_are_answered(&clients);
        all_are_answered(&clients);
        running.stop();
        ask_all(&clients);
        assert!(all_are_answered(&clients).iter().all(|from| *from == last));
        assert_eq!(next.ask("a.test."), Some(last));
        let mut stream = next.tcp();
        stream.write_all(&framed(&query("a.test.", 5))).unwrap();
        assert_eq!(last_octet(&read_frame(&mut stream).unwrap()), Some(last));
        running = next;
    }
    running.stop();
}

#[test]
fn a_successor_that_goes_again_changes_nothing() {
    let first = Running::start(&answering(".:0", 1, ""), 2);
    let clients: Vec<UdpSocket> = (0..64).map(|_| first.udp()).collect();
    let handed = first.workers.share_sockets().unwrap();
    drop(handed);
    ask_all(&clients);
    assert!(all_are_answered(&clients).iter().all(|from| *from == 1));
    let handed = first.workers.share_sockets().unwrap();
    let next = successor(&answering(".:0", 2, ""), 2, handed);
    next.stop();
    ask_all(&clients);
    assert!(all_are_answered(&clients).iter().all(|from| *from == 1));
    first.stop();
}

#[test]
fn an_address_that_the_successor_does_not_serve_is_given_up() {
    let first = Running::start(&answering(".:0", 1, ""), 1);
    let old = first.address();
    let handed = first.workers.share_sockets().unwrap();
    let other = answering(".:0", 2, "").replace("127.0.0.1", "127.0.0.2");
    let next = successor(&other, 1, handed);
    assert_ne!(next.address(), old);
    assert_eq!(first.ask("a.test."), Some(1));
    first.stop();
    assert!(TcpStream::connect(old).is_err());
    next.stop();
}
