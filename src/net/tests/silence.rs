//! Hundreds of queries that fail together: what can be answered at once does not wait for the last.

use super::*;
use crate::plugin::{Journal, Level};
use std::fmt;
use std::net::TcpListener;
use std::sync::Mutex;

/// Queries that wait for the upstream, on several of its connections.
const WAITING: usize = 600;

/// So many of them are sent at a time: a socket has room for them.
const TOGETHER: usize = 100;

/// After so many failures the hit is sent.
const BEFORE: usize = 100;

/// What is done on the worker's own thread while it fails queries.
struct Accomplice {
    /// Who asks for the hit.
    client: UdpSocket,
    failures: Mutex<usize>,
    /// How many queries had failed when the hit was answered.
    answered: Mutex<Option<usize>>,
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
            BEFORE => drop(self.client.send(&query("hit.test.", 1)).unwrap()),
            _ if self.client.recv(&mut [0; 512]).is_ok() => {
                *self.answered.lock().unwrap() = Some(*failures);
            }
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
    let [client, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    client.set_nonblocking(true).unwrap();
    let accomplice = Arc::new(Accomplice {
        client,
        failures: Mutex::default(),
        answered: Mutex::default(),
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
    accomplice.client.connect(workers.addresses()[0]).unwrap();
    other.connect(workers.addresses()[0]).unwrap();
    let end = Instant::now() + PATIENCE;
    // They have four seconds: a socket's buffer full at a time.
    for sent in 1..=WAITING {
        other.send(&query(&format!("n{sent}.miss.test."), sent as u16)).unwrap();
        while sent % TOGETHER == 0 && workers.parked() < sent {
            assert!(Instant::now() < end, "{} of {sent} wait", workers.parked());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    upstream.set_nonblocking(true).unwrap();
    let mut connections: Vec<TcpStream> = Vec::new();
    // Queries wait also while their connections are being opened.
    while connections.len() < 2 {
        assert!(Instant::now() < end, "{} connections", connections.len());
        connections.extend(upstream.incoming().map_while(Result::ok));
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(upstream);
    let first = connections.pop().unwrap();
    *accomplice.held.lock().unwrap() = connections;
    drop(first);
    while *accomplice.failures.lock().unwrap() < WAITING {
        assert!(Instant::now() < end, "{:?} failed", accomplice.failures);
        std::thread::sleep(Duration::from_millis(1));
    }
    let answered = *accomplice.answered.lock().unwrap();
    assert!(answered.is_some_and(|failed| failed < WAITING / 2), "{answered:?} failed before");
    workers.stop_reading();
    workers.join();
}
