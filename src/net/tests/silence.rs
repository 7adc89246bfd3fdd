//! Hundreds of queries that fail together: what can be answered at once does not wait for the last.

use super::*;
use crate::plugin::{Journal, Level};
use std::fmt;
use std::net::TcpListener;
use std::sync::Mutex;

/// Queries that wait for the upstream, on several of its connections.
const WAITING: usize = 600;

/// After so many failures the hit is sent.
const BEFORE: usize = 100;

/// What is done on the worker's own thread while it fails queries.
struct Accomplice {
    client: UdpSocket,
    failures: Mutex<usize>,
    /// The upstream's ends of its connections.
    held: Mutex<Vec<TcpStream>>,
}

impl Journal for Accomplice {
    fn line(&self, _: Level, _: fmt::Arguments<'_>) {
        let mut failures = self.failures.lock().unwrap();
        *failures += 1;
        match *failures {
            // The first failure was the test's doing; now the other connections end together.
            1 => self.held.lock().unwrap().clear(),
            BEFORE => drop(self.client.send(&query("hit.test.", u16::MAX)).unwrap()),
            _ => {}
        }
    }
}

#[test]
fn a_hit_does_not_wait_for_hundreds_of_failures() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let corefile = format!(
        ".:0 {{\nbind 127.0.0.1\nerrors\nhosts {{\n192.0.2.9 hit.test\nfallthrough\n}}\n\
         forward . {} {{\nforce_tcp\nmax_fails 0\n}}\n}}\n",
        upstream.local_addr().unwrap()
    );
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let accomplice = Arc::new(Accomplice {
        client: client.try_clone().unwrap(),
        failures: Mutex::default(),
        held: Mutex::default(),
    });
    let equipment = Equipment {
        workers: 1,
        clock: Clock::start(),
        metrics: Registry::new(1),
        journal: accomplice.clone(),
        budget: Arc::default(),
        meter: Arc::new(OwnMeter),
    };
    let snapshot = snapshot(&corefile, &equipment.metrics);
    let workers = Workers::start(&equipment, &snapshot).unwrap();
    client.connect(workers.addresses()[0]).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    for sent in 1..=WAITING {
        client.send(&query(&format!("n{sent}.miss.test."), sent as u16)).unwrap();
        while workers.parked() < sent {
            assert!(Instant::now() < end, "{} of {sent} wait", workers.parked());
            std::thread::yield_now();
        }
    }
    upstream.set_nonblocking(true).unwrap();
    let mut connections: Vec<TcpStream> = upstream.incoming().map_while(Result::ok).collect();
    drop(upstream);
    let first = connections.pop().unwrap();
    *accomplice.held.lock().unwrap() = connections;
    drop(first);
    let mut buffer = [0; 512];
    let mut ids = (0..=WAITING).map(|_| {
        client.recv(&mut buffer).unwrap();
        id(&buffer)
    });
    let answered_before = ids.position(|id| id == u16::MAX).unwrap();
    assert!(answered_before < WAITING / 2, "the hit waited for {answered_before} failures");
    assert_eq!(ids.count(), WAITING - answered_before);
    workers.stop_reading();
    workers.join();
}
