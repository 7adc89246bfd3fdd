//! Listening sockets that go from one set of workers to the next, as from a process to its
//! successor.

use super::*;
use crate::net::tcp::{OCTETS_LEAST, TCP_OCTETS};
use crate::net::{HandedConnection, HandedSockets};
use std::ops::RangeInclusive;
use std::sync::Mutex;

/// A successor of `running` on its sockets, with as many workers.
fn successor(corefile: &str, workers: usize, handed: Vec<HandedSockets>) -> Running {
    successor_within(corefile, workers, handed, Arc::default())
}

fn successor_within(
    corefile: &str,
    workers: usize,
    handed: Vec<HandedSockets>,
    budget: Arc<Budget>,
) -> Running {
    let equipment = Equipment {
        workers,
        clock: Clock::start(),
        metrics: Registry::new(workers),
        journal: Arc::new(FakeJournal::default()),
        budget,
        meter: Arc::new(OwnMeter),
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
fn what_arrives_at_sockets_that_were_left_waits_for_whoever_reads_them_next() {
    for (before, after) in [(2, 2), (3, 1), (1, 3)] {
        let first = Running::start(&answering(".:0", 1, ""), before);
        let clients: Vec<UdpSocket> = (0..64).map(|_| first.udp()).collect();
        let (kept, address) = (first.workers.second_sockets().unwrap(), first.address());
        first.workers.leave_sockets();
        ask_all(&clients);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&framed(&query("a.test.", 5))).unwrap();
        assert!(first.workers.drain(PATIENCE));
        first.workers.join();
        let next = successor(&answering(".:0", 2, ""), after, kept);
        assert!(all_are_answered(&clients).iter().all(|from| *from == 2));
        assert_eq!(last_octet(&read_frame(&mut stream).unwrap()), Some(2));
        next.stop();
    }
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
    // A port that nobody else gets once it is free again.
    let key = format!(".:{}", ports::free_port());
    let first = Running::start(&answering(&key, 1, ""), 1);
    let old = first.address();
    let handed = first.workers.share_sockets().unwrap();
    let other = answering(".:0", 2, "").replace("127.0.0.1", "127.0.0.2");
    let next = successor(&other, 1, handed);
    assert_ne!(next.address(), old);
    assert_eq!(first.ask("a.test."), Some(1));
    first.stop();
    ports::is_given_up(old.port());
    next.stop();
}

/// Waits until so many connections are open.
fn wait_until_open(server: &Running, count: RangeInclusive<usize>) {
    let end = Instant::now() + PATIENCE;
    while !count.contains(&server.workers.connections()) {
        assert!(Instant::now() < end, "{} are open", server.workers.connections());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Has `running` give its connections to `next`, and does something meanwhile; how many octets went along
/// with each.
fn bequeath(running: &Running, next: &Running, meanwhile: impl FnOnce()) -> Vec<usize> {
    let given: Arc<Mutex<Vec<HandedConnection>>> = Arc::default();
    let list = given.clone();
    running.workers.bequeath(&(Arc::new(move |one| list.lock().unwrap().push(one)) as _));
    meanwhile();
    assert!(running.workers.drain(PATIENCE));
    let given = std::mem::take(&mut *given.lock().unwrap());
    let octets = given.iter().map(|one| one.octets.len()).collect();
    given.into_iter().for_each(|one| next.workers.adopt(one));
    octets
}

#[test]
fn open_connections_go_on_with_the_successor_and_lose_no_query() {
    let mut upstream = Held::start();
    let port = upstream.port();
    let forwarding = format!(".:0 {{\nbind 127.0.0.1\nforward . 127.0.0.1:{port}\n}}\n");
    let first = Running::start(&forwarding, 2);
    let message = framed(&query("a.test.", 3));
    let mut idle = first.tcp();
    let (mut begun, mut asked) = (first.tcp(), first.tcp());
    begun.write_all(&message[..9]).unwrap();
    // One query waits for the upstream, and the next is there already.
    asked.write_all(&message).unwrap();
    asked.write_all(&framed(&query("b.test.", 4))[..5]).unwrap();
    let mut ended = first.tcp();
    ended.write_all(&message).unwrap();
    ended.shutdown(Shutdown::Write).unwrap();
    wait_until_parked(&first, 2);
    wait_until_open(&first, 4..=4);
    upstream.until_asked();
    let next = successor(&answering(".:0", 2, ""), 3, first.workers.share_sockets().unwrap());
    assert_eq!(next.address(), first.address());
    let mut octets = bequeath(&first, &next, || upstream.answer());
    octets.sort_unstable();
    assert_eq!(octets, [0, 5, 9], "the one that its client ended does not go");
    // What was asked before is answered by the one that was asked.
    for stream in [&mut asked, &mut ended] {
        assert_eq!(last_octet(&read_frame(stream).unwrap()), None);
    }
    first.workers.join();
    assert_eq!(ended.read(&mut [0]).unwrap(), 0);
    idle.write_all(&message).unwrap();
    begun.write_all(&message[9..]).unwrap();
    asked.write_all(&framed(&query("b.test.", 4))[5..]).unwrap();
    for stream in [&mut idle, &mut begun, &mut asked] {
        assert_eq!(last_octet(&read_frame(stream).unwrap()), Some(2));
    }
    wait_until_open(&next, 0..=3);
    drop((idle, begun, asked));
    next.stop();
}

#[test]
fn a_connection_to_an_address_that_is_not_served_is_closed() {
    let first = Running::start(&answering(".:0", 1, ""), 1);
    let mut client = first.tcp();
    client.write_all(&framed(&query("a.test.", 3))).unwrap();
    read_frame(&mut client).unwrap();
    let other = answering(".:0", 2, "").replace("127.0.0.1", "127.0.0.2");
    let next = successor(&other, 1, first.workers.share_sockets().unwrap());
    assert_eq!(bequeath(&first, &next, || ()), [0]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    first.workers.join();
    next.stop();
}

#[test]
fn connections_that_come_from_a_predecessor_keep_to_the_memory_of_connections() {
    const BEYOND: usize = 3;
    let first = Running::start(&answering(".:0", 1, ""), 1);
    let most = usize::try_from(OCTETS_LEAST / TCP_OCTETS).unwrap();
    let mut clients: Vec<TcpStream> = (0..most + BEYOND).map(|_| first.tcp()).collect();
    wait_until_open(&first, clients.len()..=clients.len());
    let (handed, budget) = (first.workers.share_sockets().unwrap(), Arc::new(Budget::new(Some(0))));
    let next = successor_within(&answering(".:0", 2, ""), 1, handed, budget.clone());
    assert_eq!(bequeath(&first, &next, || ()).len(), clients.len());
    first.workers.join();
    // It has taken them all, or not, when it answers another client.
    assert_eq!(next.ask("a.test."), Some(2));
    let served = clients.iter_mut().filter_map(|client| {
        let _ = client.write_all(&framed(&query("a.test.", 3)));
        read_frame(client).ok()
    });
    assert_eq!(served.count(), most);
    assert_eq!(budget.connections.used(), most as u64 * TCP_OCTETS);
    drop(clients);
    next.stop();
}

#[test]
fn sockets_that_come_back_are_read_again() {
    let first = Running::start(&answering(".:0", 1, ""), 2);
    let clients: Vec<UdpSocket> = (0..64).map(|_| first.udp()).collect();
    let kept = first.workers.second_sockets().unwrap();
    let next = successor(&answering(".:0", 2, ""), 1, first.workers.share_sockets().unwrap());
    first.workers.bequeath(&(Arc::new(drop) as _));
    ask_all(&clients);
    assert!(all_are_answered(&clients).iter().all(|from| *from == 2));
    // The successor ends; what comes meanwhile waits in the sockets.
    next.workers.stop_reading();
    ask_all(&clients);
    let snapshot = snapshot(&answering(".:0", 1, ""), &first.equipment.metrics);
    first.workers.publish_with(&snapshot, kept).unwrap();
    assert!(all_are_answered(&clients).iter().all(|from| *from == 1));
    next.workers.join();
    first.workers.own_sockets();
    ask_all(&clients);
    assert!(all_are_answered(&clients).iter().all(|from| *from == 1));
    first.stop();
}
