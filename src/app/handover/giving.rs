//! The predecessor's part: waiting at the door, offering, and what follows once the successor reads.
//!
//! Owns the threads that talk; the main loop gives what is asked for and decides. One successor at a
//! time. Until it has committed, nothing is changed by whatever it does or fails to do.

use super::super::cache_stream::{Pace, Stores, pour};
use super::door::{Door, file};
use super::message::{Message, Place, Reason, VERSIONS, Versions};
use super::talk::{ANSWER_TIME, Talk, Trouble};
use super::{
    CACHE_TIME, COMMIT_TIME, End, Handover, PROGRAM, Role, SITES_MOST, SOCKETS_MOST, namespace,
    places, process,
};
use crate::engine::Snapshot;
use crate::net::{Clock, HandedConnection, HandedSockets};
use crate::plugin::Level;
use crate::sys::fds::DESCRIPTORS_MOST;
use socket2::Socket;
use std::io::{self, BufWriter, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The pause behind a successor that was none: lines and counters stay bounded.
const PAUSE: Duration = Duration::from_millis(200);

/// Events that may wait for the main loop.
const EVENTS_MOST: usize = 16;

/// What the main loop is told.
pub(crate) enum Event {
    /// A successor is there: what is there for it? From now on it may have the sockets.
    Wanted(SyncSender<Option<Offer>>),
    /// It has gone or was refused, and has read nothing.
    Ended,
    /// It reads.
    Committed(Heir),
    /// It is gone, or is about to end, after it had committed.
    Returned,
    /// It is gone, and has no socket any more.
    Gone,
}

/// What a successor gets.
pub(crate) struct Offer {
    /// All listening sockets.
    pub(crate) sockets: Vec<HandedSockets>,
    /// HTTP sockets by their address.
    pub(crate) sites: Vec<(String, TcpListener)>,
    /// The cache.
    pub(crate) stores: Stores,
    /// The clock of the cache.
    pub(crate) clock: Clock,
}

/// What the conversation's thread is to send.
enum Task {
    Retired,
    Connection(HandedConnection),
    Last { stores: Stores, clock: Clock, done: SyncSender<()> },
}

/// The successor that reads now.
pub(crate) struct Heir {
    /// Its process; 0 where it is not seen.
    pub(crate) process: u32,
    tasks: Sender<Task>,
}

impl Heir {
    /// This process reads no more.
    pub(crate) fn retired(&self) {
        // A thread that is gone has told that the successor is.
        let _ = self.tasks.send(Task::Retired);
    }

    /// Who takes clients' connections.
    pub(crate) fn of_connections(&self) -> crate::net::Heir {
        let tasks = self.tasks.clone();
        Arc::new(move |connection| {
            let _ = tasks.send(Task::Connection(connection));
        })
    }

    /// Sends what came into the cache since the offer; returns when all is said. Blocks.
    pub(crate) fn finish(&self, stores: Stores, clock: Clock) {
        let (done, is_done) = sync_channel(1);
        if self.tasks.send(Task::Last { stores, clock, done }).is_ok() {
            let _ = is_done.recv_timeout(CACHE_TIME + ANSWER_TIME);
        }
    }
}

/// Waits for successors while its door is open.
pub(crate) struct Giver {
    handover: Handover,
    door: Option<Door>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    is_busy: Arc<AtomicBool>,
    /// That there can be no door was told already.
    has_told: bool,
}

impl Giver {
    /// Nobody is waited for yet.
    pub(crate) fn new(handover: Handover) -> Giver {
        let (sender, events) = mpsc::channel(EVENTS_MOST);
        Giver { handover, door: None, sender, events, is_busy: Arc::default(), has_told: false }
    }

    /// Waits at the door of the first address of `snapshot`; where there cannot be one, that is told.
    /// A door that is open there stays.
    pub(crate) fn open(&mut self, snapshot: &Snapshot) {
        let Some(directory) = &self.handover.directory else { return };
        let Some(path) = places(snapshot).first().map(|place| file(directory, place)) else {
            self.door = None;
            return;
        };
        if self.door.as_ref().is_some_and(|door| door.is_at(&path)) {
            return;
        }
        let opened = Door::open(path.clone()).and_then(|door| {
            let socket = door.second()?;
            let (own, events) = (self.handover.clone(), self.sender.clone());
            let is_busy = self.is_busy.clone();
            thread::Builder::new()
                .name("handover".to_owned())
                .spawn(move || wait(&socket, &own, &events, &is_busy))?;
            Ok(door)
        });
        if let Err(error) = &opened
            && !std::mem::replace(&mut self.has_told, true)
        {
            self.handover.tell(
                Role::Predecessor,
                End::Directory,
                Level::Warning,
                format_args!(
                    "cannot wait for a successor at {}: {error}; the next process starts beside this one",
                    path.display()
                ),
            );
        }
        self.door = opened.ok();
    }

    /// Lets nobody in any more.
    pub(crate) fn shut(&mut self) {
        self.door = None;
    }

    /// Lets nobody in any more, and listens to nobody.
    pub(crate) fn end(&mut self) {
        self.shut();
        self.events.close();
        while self.events.try_recv().is_ok() {}
    }

    /// The next event. May be cancelled at any time.
    pub(crate) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Whether a successor is being served that has not committed.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Tells that the successor serves.
    pub(crate) fn tell_done(&self, heir: &Heir) {
        self.handover.tell(
            Role::Predecessor,
            End::Done,
            Level::Info,
            format_args!("{} has taken over; what came before is answered", process(heir.process)),
        );
    }

    /// Tells that it does not serve any more.
    pub(crate) fn tell_returned(&self) {
        self.handover.tell(
            Role::Predecessor,
            End::Returned,
            Level::Warning,
            format_args!("the process that took over is gone: this one serves again"),
        );
    }
}

/// Lets successors in until the door is shut.
fn wait(
    socket: &Socket,
    handover: &Handover,
    events: &mpsc::Sender<Event>,
    is_busy: &Arc<AtomicBool>,
) {
    while let Ok((socket, _)) = socket.accept() {
        let talk = match Talk::on(socket) {
            Ok(talk) => talk,
            Err(why) => {
                told_of(handover, &why, 0);
                thread::sleep(PAUSE);
                continue;
            }
        };
        if is_busy.swap(true, Ordering::AcqRel) {
            // An end with something unread would be an end without an answer.
            let _ = talk.receive(Some(PAUSE));
            refuse(handover, &talk, Reason::Busy);
            continue;
        }
        let (own, events, free) = (handover.clone(), events.clone(), is_busy.clone());
        let started = thread::Builder::new().name("handing-over".to_owned()).spawn(move || {
            converse(&own, &Arc::new(talk), &events, &free);
        });
        if started.is_err() {
            is_busy.store(false, Ordering::Release);
        }
    }
}

/// One conversation, from the first word to the last.
fn converse(
    handover: &Handover,
    talk: &Arc<Talk>,
    events: &mpsc::Sender<Event>,
    is_busy: &AtomicBool,
) {
    let begun = Instant::now();
    let committed = match offer(handover, talk, events) {
        Ok(true) => true,
        Ok(false) => {
            thread::sleep(PAUSE);
            false
        }
        Err(why) => {
            told_of(handover, &why, talk.process());
            let _ = events.blocking_send(Event::Ended);
            thread::sleep(PAUSE);
            false
        }
    };
    if !committed {
        is_busy.store(false, Ordering::Release);
        return;
    }
    let (tasks, work) = channel();
    let heir = Heir { process: talk.process(), tasks };
    let _ = events.blocking_send(Event::Committed(heir));
    is_busy.store(false, Ordering::Release);
    let (listening, told) = (talk.clone(), events.clone());
    let heard = thread::Builder::new().name("successor".to_owned()).spawn(move || {
        listen(&listening, &told);
    });
    if heard.is_err() {
        // Nobody would hear of its end: then this process does not take its place again.
        handover.tell(
            Role::Predecessor,
            End::Broken,
            Level::Warning,
            format_args!("no thread can be started to hear of the successor"),
        );
    }
    hand_on(talk, &work, begun);
}

/// Offers all there is and waits for the successor to read. False when nothing was offered.
fn offer(handover: &Handover, talk: &Talk, events: &mpsc::Sender<Event>) -> Result<bool, Trouble> {
    let (Message::Hello { versions, namespace: theirs, program }, _) =
        talk.receive(Some(ANSWER_TIME))?
    else {
        return Err(Trouble::Garbage);
    };
    let Some(version) = VERSIONS.common(versions) else {
        let Versions { least, most } = versions;
        handover.tell(
            Role::Predecessor,
            End::Refused,
            Level::Warning,
            format_args!(
                "nodens {program} ({}) was refused: it speaks versions {least} to {most}, this is {} \
                 to {}",
                process(talk.process()),
                VERSIONS.least,
                VERSIONS.most
            ),
        );
        // Refused or gone: the same.
        let _ = talk.send(&Message::Refused(Reason::Version), &[]);
        return Ok(false);
    };
    if theirs != namespace() {
        refuse(handover, talk, Reason::Namespace);
        return Ok(false);
    }
    let (answer, answered) = sync_channel(1);
    if events.blocking_send(Event::Wanted(answer)).is_err() {
        return Err(Trouble::Gone);
    }
    let offer = answered.recv().ok().flatten().filter(|offer| {
        let count = |one: &HandedSockets| one.streams.len() + one.datagrams.len();
        offer.sockets.iter().map(count).sum::<usize>() <= SOCKETS_MOST
            && offer.sites.len() <= SITES_MOST
    });
    let Some(offer) = offer else {
        refuse(handover, talk, Reason::Sockets);
        let _ = events.blocking_send(Event::Ended);
        return Ok(false);
    };
    talk.send(&Message::Welcome { version, program: PROGRAM.to_owned() }, &[])?;
    for sockets in &offer.sockets {
        send_sockets(talk, sockets)?;
    }
    for (address, socket) in &offer.sites {
        talk.send(&Message::Site { address: address.clone() }, &[socket.as_fd()])?;
    }
    let out = send_stream(talk, &Message::Cache)?;
    talk.send(&Message::Offered, &[])?;
    // A successor that takes only a part of it, or none, takes over all the same.
    let _ = pour_into(out, &offer.stores, offer.clock, None);
    drop(offer);
    match talk.receive(Some(COMMIT_TIME)) {
        Ok((Message::Commit, _)) => Ok(true),
        Ok(_) => Err(Trouble::Garbage),
        Err(why) => Err(why),
    }
}

/// The sockets of an address, in as many messages as they need.
fn send_sockets(talk: &Talk, sockets: &HandedSockets) -> Result<(), Trouble> {
    let HandedSockets { transport, host, port, streams, datagrams } = sockets;
    let place = Place { transport: *transport, host: host.clone(), port: *port };
    let all: Vec<BorrowedFd<'_>> =
        streams.iter().map(AsFd::as_fd).chain(datagrams.iter().map(AsFd::as_fd)).collect();
    for (number, part) in all.chunks(DESCRIPTORS_MOST).enumerate() {
        let before = number * DESCRIPTORS_MOST;
        let streams = streams.len().saturating_sub(before).min(part.len());
        talk.send(&Message::Sockets { place: place.clone(), streams }, part)?;
    }
    Ok(())
}

/// Sends one end of a new stream; gives the other one, to write to.
fn send_stream(talk: &Talk, message: &Message) -> Result<UnixStream, Trouble> {
    let (out, into) = UnixStream::pair()?;
    out.set_write_timeout(Some(ANSWER_TIME))?;
    talk.send(message, &[into.as_fd()])?;
    Ok(out)
}

fn pour_into(
    out: UnixStream,
    stores: &Stores,
    clock: Clock,
    newest: Option<Duration>,
) -> io::Result<()> {
    let until = Some(Instant::now() + CACHE_TIME);
    let pace = Pace { newest, until, ..Pace::default() };
    let (mut out, _) = pour(BufWriter::with_capacity(1 << 16, out), stores, clock, pace)?;
    out.flush()
}

/// What is said behind the commit, until the main loop has nothing more or the successor is gone.
fn hand_on(talk: &Talk, work: &Receiver<Task>, begun: Instant) {
    // Those of the workers that stopped first, while others still read.
    let mut early = Some(Vec::new());
    while let Ok(task) = work.recv() {
        let sent = match task {
            Task::Retired => {
                let retired = talk.send(&Message::Retired, &[]);
                let connections = early.take().unwrap_or_default();
                retired.and_then(|()| connections.into_iter().try_for_each(|one| send(talk, one)))
            }
            Task::Connection(connection) => match &mut early {
                Some(early) => {
                    early.push(connection);
                    Ok(())
                }
                None => send(talk, connection),
            },
            Task::Last { stores, clock, done } => {
                let sent = send_stream(talk, &Message::Fresh).and_then(|out| {
                    pour_into(out, &stores, clock, Some(begun.elapsed()))?;
                    talk.send(&Message::Done, &[])
                });
                // Who waited may have lost patience.
                let _ = done.try_send(());
                sent
            }
        };
        // A connection that does not get through is lost with the successor that does not take it;
        // its end is heard by the other thread.
        if matches!(sent, Err(Trouble::Gone)) {
            return;
        }
    }
}

fn send(talk: &Talk, connection: HandedConnection) -> Result<(), Trouble> {
    let HandedConnection { transport, host, port, stream, octets } = connection;
    let place = Place { transport, host, port };
    talk.send(&Message::Connection { place, octets }, &[stream.as_fd()])
}

/// Hears what the successor says once it reads: nothing, until it ends.
fn listen(talk: &Talk, events: &mpsc::Sender<Event>) {
    let mut has_returned = false;
    loop {
        match talk.receive(None) {
            // Until it is really gone it has our sockets.
            Ok((Message::Return, _)) if !has_returned => {
                has_returned = true;
                let _ = events.blocking_send(Event::Returned);
            }
            // Somebody serves in its place.
            Ok((Message::Farewell, _)) => has_returned = true,
            Ok(_) | Err(Trouble::Garbage) => {}
            Err(_) => {
                if !has_returned {
                    let _ = events.blocking_send(Event::Returned);
                }
                let _ = events.blocking_send(Event::Gone);
                return;
            }
        }
    }
}

fn refuse(handover: &Handover, talk: &Talk, reason: Reason) {
    // Refused or gone: the same.
    let _ = talk.send(&Message::Refused(reason), &[]);
    handover.tell(
        Role::Predecessor,
        End::Refused,
        Level::Warning,
        format_args!("{} was refused: {}", process(talk.process()), reason.text()),
    );
}

fn told_of(handover: &Handover, why: &Trouble, number: u32) {
    let end = match why {
        Trouble::OtherUser(_) | Trouble::Garbage => End::Foreign,
        Trouble::Gone | Trouble::Silent | Trouble::System(_) => End::Broken,
    };
    handover.tell(
        Role::Predecessor,
        end,
        Level::Warning,
        format_args!("{} did not take over: {why}; this process serves on", process(number)),
    );
}
