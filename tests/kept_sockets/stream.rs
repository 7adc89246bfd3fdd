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

/// How long each waits for its answer: a start may take a while on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// At the end, so long after the last answer no other one comes.
const SILENCE: Duration = Duration::from_secs(5);

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
    pub(crate) answered: Option<Instant>,
}

/// Whether one of the client that asked the query at this place was answered before `moment` that it had
/// asked longer than `much` behind it.
pub(crate) fn is_overtaken(all: &[Asked], place: usize, much: Duration, moment: Instant) -> bool {
    let later = all[place..].iter().step_by(CLIENTS).skip(1);
    let mut answered = later.filter(|later| later.answered.is_some_and(|at| at < moment));
    answered.any(|later| later.at > all[place].at + much)
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
                if reply[..length].ends_with(&ANSWER.octets()) && query.at.elapsed() < PATIENCE {
                    query.answered.get_or_insert_with(Instant::now);
                }
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
        asked.push(Asked { at: Instant::now(), answered: None });
        // A refusal is the answer that nobody listens there: it is one that is lost.
        let _ = clients[number % CLIENTS].send(&query(&name, (number / CLIENTS) as u16));
        sleep(PAUSE);
    }
    let (mut answered, mut last) = (take(&mut asked), Instant::now());
    while last.elapsed() < SILENCE && asked.iter().any(|query| query.answered.is_none()) {
        let now = take(&mut asked);
        if now > answered {
            (answered, last) = (now, Instant::now());
        }
        sleep(PAUSE);
    }
    asked
}
