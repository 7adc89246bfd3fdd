//! Replies that leave when queries go to the cluster DNS Service already: they arrive, and take no
//! further query along.

use super::lab::{EXTERNAL, LOCAL, Lab, SERVICE};
use super::stream::Who;
use super::{NAME, Node, OF_NODENS, PATIENCE, can_run, messages, until};
use nix::sched::{CloneFlags, setns};
use nodens::dns::RecordType;
use std::fs::File;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::spawn;
use std::time::{Duration, Instant};

/// A UDP socket of a namespace of the lab.
fn socket_in(lab: &Lab, place: &str, bound: &str) -> UdpSocket {
    let space = File::open(format!("/run/netns/{}", lab.space(place))).unwrap();
    let bound = bound.to_owned();
    let opened = spawn(move || {
        setns(space, CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind(bound).unwrap()
    });
    let socket = opened.join().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

/// An upstream that keeps what it is asked until it may answer.
struct Upstream {
    asked: Arc<AtomicUsize>,
    may_answer: Arc<AtomicBool>,
}

impl Upstream {
    fn start(lab: &Lab) -> Upstream {
        let socket = socket_in(lab, "dns", &format!("{EXTERNAL}:53"));
        let upstream = Upstream { asked: Arc::default(), may_answer: Arc::default() };
        let (asked, may_answer) = (upstream.asked.clone(), upstream.may_answer.clone());
        // It ends with the test.
        spawn(move || {
            let mut kept = Vec::new();
            let mut query = [0; 512];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut query) {
                    kept.push((query[..length].to_vec(), from));
                    asked.fetch_add(1, Ordering::AcqRel);
                }
                if may_answer.load(Ordering::Acquire) {
                    for (query, from) in kept.drain(..) {
                        let _ = socket.send_to(&answered(&query), from);
                    }
                }
            }
        });
        upstream
    }
}

/// The answer to a query: [`OF_NODENS`].
fn answered(query: &[u8]) -> Vec<u8> {
    let question = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
    let mut reply = query[..question].to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    reply.extend(OF_NODENS);
    reply
}

/// Asks on a socket that takes replies of the Service alone, until one comes; `None` when that takes
/// [`PATIENCE`].
fn asks(socket: &UdpSocket, id: u16) -> Option<Who> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        socket.send(&messages::query(NAME, RecordType::A, id)).unwrap();
        if let Some(who) = hears(socket, id) {
            return Some(who);
        }
    }
    None
}

/// Takes what comes until a reply of this number, or nothing more.
fn hears(socket: &UdpSocket, id: u16) -> Option<Who> {
    let mut reply = [0; 512];
    while let Ok(length) = socket.recv(&mut reply) {
        if reply[..2] == id.to_be_bytes() {
            let is_nodens = reply[..length].windows(4).any(|part| part == OF_NODENS);
            return Some(if is_nodens { Who::Nodens } else { Who::Cluster });
        }
    }
    None
}

/// Replies that leave when queries go to the cluster DNS already: each comes from the Service's address and
/// port, and the next query of the same client goes to the cluster DNS, too, and not where a flow would
/// lead that began with the reply.
fn late_replies_arrive(addresses: [&str; 2], flags: &[&str]) {
    let mut node = Node::new();
    let upstream = Upstream::start(&node.lab);
    let client = || {
        let socket = socket_in(&node.lab, "pod", "0.0.0.0:0");
        socket.connect((SERVICE, 53)).unwrap();
        socket
    };
    let (known, unknown) = (client(), client());
    let others: Vec<UdpSocket> = (0..64).map(|_| client()).collect();
    assert_eq!(asks(&known, 1), Some(Who::Cluster));
    let forward = format!("forward . {EXTERNAL}");
    let (mut running, _) = node.nodens_with(addresses, &forward, flags);
    for (number, socket) in [&known, &unknown].into_iter().enumerate() {
        let name = format!("late{number}.example.org");
        socket.send(&messages::query(&name, RecordType::A, 2)).unwrap();
        until("a query at the upstream", || upstream.asked.load(Ordering::Acquire) > number);
    }
    running.signal("TERM");
    let mut others = others.iter().cycle();
    let mut number = 2;
    until("an answer of the cluster DNS", || {
        let socket = others.next().unwrap();
        number += 1;
        socket.send(&messages::query(NAME, RecordType::A, number)).unwrap();
        hears(socket, number) == Some(Who::Cluster)
    });
    upstream.may_answer.store(true, Ordering::Release);
    // On a slow machine that it took too long may be the answer.
    for socket in [&known, &unknown] {
        until("the late reply", || hears(socket, 2).is_some());
    }
    for socket in [&known, &unknown] {
        assert_eq!(asks(socket, 3), Some(Who::Cluster), "{}", running.log());
    }
    assert_eq!(running.ended_within(PATIENCE), Some(0), "{}", running.log());
    for socket in [&known, &unknown] {
        assert_eq!(asks(socket, 4), Some(Who::Cluster), "{}", running.log());
    }
    // All rules are gone.
    let left = node.sh("iptables-save; nft list tables");
    assert!(!left.contains("NodeLocal") && !left.contains("nodens"), "{left}");
}

#[test]
fn late_replies_arrive_and_take_no_further_query_along_with_nftables() {
    if can_run() {
        late_replies_arrive([LOCAL, SERVICE], &["-firewall=nftables"]);
    }
}

#[test]
fn late_replies_arrive_and_take_no_further_query_along_with_iptables() {
    if can_run() {
        late_replies_arrive([LOCAL, SERVICE], &["-firewall=iptables"]);
    }
}

#[test]
fn late_replies_arrive_with_the_services_address_rewritten() {
    if can_run() {
        let inner = "169.254.20.11";
        let rewrite = format!("-service-rewrite={SERVICE}={inner}");
        late_replies_arrive([LOCAL, inner], &[&rewrite]);
    }
}
