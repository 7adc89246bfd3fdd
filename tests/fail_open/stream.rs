//! A pod that asks the cluster DNS Service without pause, and who answered each of its queries.

use super::lab::{Lab, SERVICE};
use super::{NAME, OF_NODENS, messages, until};
use nix::sched::{CloneFlags, setns};
use nodens::dns::RecordType;
use std::fs::File;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// How many numbers queries can have.
const IDS: usize = 1 << 16;

/// The time between two queries of the stream.
const EVERY: Duration = Duration::from_millis(2);

/// The client's ports; each is used again after 32 ms.
const PORTS: usize = 16;

/// How long the stream waits for answers at its end, where some do not come.
const LAST_ANSWERS: Duration = Duration::from_secs(6);

/// How many answers of somebody show that it is he who answers now.
pub(crate) const SOME: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Nodens,
    Cluster,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) answered_by: Option<Who>,
}

/// A pod that asks the Service without pause.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<Asked>>,
}

/// What it has been answered so far, and that it is to end.
#[derive(Default)]
struct Shared {
    by_nodens: AtomicUsize,
    by_cluster: AtomicUsize,
    is_over: AtomicBool,
}

impl Shared {
    fn by(&self, who: Who) -> &AtomicUsize {
        match who {
            Who::Nodens => &self.by_nodens,
            Who::Cluster => &self.by_cluster,
        }
    }
}

impl Stream {
    pub(crate) fn start(lab: &Lab) -> Stream {
        let space = File::open(format!("/run/netns/{}", lab.space("pod"))).unwrap();
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = spawn(move || {
            setns(space, CloneFlags::CLONE_NEWNET).unwrap();
            ask_on(&own)
        });
        Stream { shared, thread }
    }

    /// Waits until somebody has answered some more queries.
    pub(crate) fn is_answered_by(&self, who: Who) {
        let answers = || self.shared.by(who).load(Ordering::Acquire);
        let wanted = answers() + SOME;
        until(&format!("answers of {who:?}"), || answers() >= wanted);
    }

    pub(crate) fn end(self) -> Vec<Asked> {
        self.shared.is_over.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

fn ask_on(shared: &Shared) -> Vec<Asked> {
    let sockets: Vec<UdpSocket> = (0..PORTS)
        .map(|_| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let mut asked: Vec<Asked> = Vec::new();
    let take = |asked: &mut Vec<Asked>| {
        let mut reply = [0; 512];
        for socket in &sockets {
            while let Ok(length) = socket.recv(&mut reply) {
                // The last one with that number.
                let (id, last) = (u16::from_be_bytes([reply[0], reply[1]]), asked.len() - 1);
                let id = last - (last - usize::from(id)) % IDS;
                let is_nodens = reply[..length].windows(4).any(|part| part == OF_NODENS);
                let who = if is_nodens { Who::Nodens } else { Who::Cluster };
                // An rcode is no answer.
                if reply[3] & 15 == 0 {
                    asked[id].answered_by.get_or_insert(who);
                    shared.by(who).fetch_add(1, Ordering::AcqRel);
                }
            }
        }
    };
    while !shared.is_over.load(Ordering::Acquire) {
        let id = asked.len();
        let query = messages::query(NAME, RecordType::A, (id % IDS) as u16);
        asked.push(Asked { at: Instant::now(), answered_by: None });
        // Nobody there is an answer of its own kind: the stream goes on.
        let _ = sockets[id % PORTS].send_to(&query, (SERVICE, 53));
        take(&mut asked);
        // What a busy machine holds up is not caught up with: that would keep it busy.
        sleep(EVERY);
    }
    let end = Instant::now() + LAST_ANSWERS;
    while Instant::now() < end && asked.iter().any(|one| one.answered_by.is_none()) {
        take(&mut asked);
        sleep(EVERY);
    }
    asked
}

/// From `at` on: the time to the first query behind the last that nobody answered, and how many
/// nobody answered.
pub(crate) fn gap(asked: &[Asked], at: Instant) -> (Duration, usize) {
    let after = asked.iter().filter(|one| one.at >= at);
    let lost: Vec<&Asked> = after.filter(|one| one.answered_by.is_none()).collect();
    let end = lost.last().map_or(at, |one| one.at + EVERY);
    (end - at, lost.len())
}

pub(crate) fn count(asked: &[Asked], who: Option<Who>) -> usize {
    asked.iter().filter(|one| one.answered_by == who).count()
}
