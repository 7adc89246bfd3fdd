//! A steady stream of queries from many clients, each of which waits for its answer.

use super::scene::query;
use super::upstream::ANSWER;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// Clients: many, so that the kernel gives some to every socket of the address.
const CLIENTS: usize = 32;

/// How long each waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause between two queries.
const PAUSE: Duration = Duration::from_millis(1);

/// The most queries that wait at once: one socket alone can hold them, however long a start takes.
const WAITING_MOST: usize = 200;

/// The most queries: the stream ends by itself then.
const QUERIES_MOST: usize = CLIENTS * 6000;

/// One query.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) is_answered: bool,
}

/// A stream that goes on until it is ended.
pub(crate) struct Stream {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Asked>>,
}

impl Stream {
    /// Asks for `names` names at `port` of 127.0.0.1, in turn.
    pub(crate) fn start(port: u16, names: usize) -> Stream {
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = is_over.clone();
        Stream { is_over, thread: spawn(move || ask_on(port, names, &flag)) }
    }

    /// All queries of the stream, once each was answered or has waited for long enough.
    pub(crate) fn end(self) -> Vec<Asked> {
        self.is_over.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

fn ask_on(port: u16, names: usize, is_over: &AtomicBool) -> Vec<Asked> {
    let clients: Vec<UdpSocket> = (0..CLIENTS)
        .map(|_| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(("127.0.0.1", port)).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let mut asked: Vec<Asked> = Vec::new();
    let mut answered = 0;
    let mut take = |asked: &mut Vec<Asked>| {
        let mut reply = [0; 512];
        for (number, client) in clients.iter().enumerate() {
            while let Ok(length) = client.recv(&mut reply) {
                let id = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
                let query = &mut asked[id * CLIENTS + number];
                answered += 1;
                query.is_answered |=
                    reply[..length].ends_with(&ANSWER.octets()) && query.at.elapsed() < PATIENCE;
            }
        }
        answered
    };
    while !is_over.load(Ordering::Acquire) && asked.len() < QUERIES_MOST {
        let number = asked.len();
        if number - take(&mut asked) >= WAITING_MOST {
            sleep(PAUSE);
            continue;
        }
        let name = format!("n{}.test", number % names);
        asked.push(Asked { at: Instant::now(), is_answered: false });
        // A refusal is the answer that nobody listens there: it is one that is lost.
        let _ = clients[number % CLIENTS].send(&query(&name, (number / CLIENTS) as u16));
        sleep(PAUSE);
    }
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && asked.iter().any(|query| !query.is_answered) {
        take(&mut asked);
        sleep(PAUSE);
    }
    asked
}
