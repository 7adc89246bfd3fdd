//! The predecessor's part: waiting at the door, offering, and what follows once the successor reads.
//!
//! Owns the threads that talk; the main loop gives what is asked for and decides. One successor at a
//! time. Until it has committed, nothing is changed by whatever it does or fails to do.

use super::super::cache_stream::{Pace, Stores, pour};
use super::super::store::Listening;
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
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The pause behind a successor that was none, for which the next one waits: lines and counters stay
/// bounded.
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
    pub(crate) listening: Listening,
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

/// Whose turn it is at the door.
#[derive(Default, Clone)]
struct Turn(Arc<Mutex<Whose>>);

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Whoever comes.
    #[default]
    Nobodys,
    /// Whoever comes, from then on.
    NobodysFrom(Instant),
    /// One that has not committed, nor failed.
    Somebodys,
}

impl Turn {
    /// Gives the turn to one that has come, behind a pause that is due; false when it is another one's.
    fn take(&self) -> bool {
        if let Whose::NobodysFrom(at) = self.whose() {
            thread::sleep(at.saturating_duration_since(Instant::now()));
        }
        self.set(Whose::Somebodys) != Whose::Somebodys
    }

    /// Its conversation is over; gives what was before.
    fn set(&self, whose: Whose) -> Whose {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), whose)
    }

    fn whose(&self) -> Whose {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why one that came does not take over.
enum Failed {
    /// This process has not let it.
    Refused(String),
    /// It has not.
    Itself(Trouble),
}

impl<T: Into<Trouble>> From<T> for Failed {
    fn from(why: T) -> Failed {
        Failed::Itself(why.into())
    }
}

/// Waits for successors while its door is open.
pub(crate) struct Giver {
    handover: Handover,
    door: Option<Door>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    turn: Turn,
    /// That there can be no door was told already.
    has_told: bool,
}

impl Giver {
    /// Nobody is waited for yet.
    pub(crate) fn new(handover: Handover) -> Giver {
        let (sender, events) = mpsc::channel(EVENTS_MOST);
        Giver { handover, door: None, sender, events, turn: Turn::default(), has_told: false }
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
            let turn = self.turn.clone();
            thread::Builder::new()
                .name("handover".to_owned())
                .spawn(move || wait(&socket, &own, &events, &turn))?;
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
        self.turn.whose() == Whose::Somebodys
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
fn wait(socket: &Socket, handover: &Handover, events: &mpsc::Sender<Event>, turn: &Turn) {
    while let Ok((socket, _)) = socket.accept() {
        let talk = match Talk::on(socket) {
            Ok(talk) => talk,
            Err(why) => {
                told_of(handover, &why, 0);
                thread::sleep(PAUSE);
                continue;
            }
        };
        if !turn.take() {
            // An end with something unread would be an end without an answer.
            let _ = talk.receive(Some(PAUSE));
            tell_refused(handover, &refuse(&talk, Reason::Busy));
            continue;
        }
        let (own, events, own_turn) = (handover.clone(), events.clone(), turn.clone());
        let started = thread::Builder::new().name("handing-over".to_owned()).spawn(move || {
            converse(&own, &Arc::new(talk), &events, &own_turn);
        });
        if started.is_err() {
            turn.set(Whose::Nobodys);
        }
    }
}

/// One conversation, from the first word to the last.
fn converse(handover: &Handover, talk: &Arc<Talk>, events: &mpsc::Sender<Event>, turn: &Turn) {
    let begun = Instant::now();
    if let Err(why) = offer(talk, events) {
        let _ = events.blocking_send(Event::Ended);
        turn.set(Whose::NobodysFrom(Instant::now() + PAUSE));
        // Told when the next one may come.
        match why {
            Failed::Refused(line) => tell_refused(handover, &line),
            Failed::Itself(why) => told_of(handover, &why, talk.process()),
        }
        return;
    }
    let (tasks, work) = channel();
    let heir = Heir { process: talk.process(), tasks };
    let _ = events.blocking_send(Event::Committed(heir));
    turn.set(Whose::Nobodys);
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

/// Offers all there is and waits for the successor to read.
fn offer(talk: &Talk, events: &mpsc::Sender<Event>) -> Result<(), Failed> {
    let (Message::Hello { versions, namespace: theirs, program }, _) =
        talk.receive(Some(ANSWER_TIME))?
    else {
        return Err(Trouble::Garbage.into());
    };
    let Some(version) = VERSIONS.common(versions) else {
        let Versions { least, most } = versions;
        // Refused or gone: the same.
        let _ = talk.send(&Message::Refused(Reason::Version), &[]);
        return Err(Failed::Refused(format!(
            "nodens {program} ({}) was refused: it speaks versions {least} to {most}, this is {} to {}",
            process(talk.process()),
            VERSIONS.least,
            VERSIONS.most
        )));
    };
    if theirs != namespace() {
        return Err(Failed::Refused(refuse(talk, Reason::Namespace)));
    }
    let (answer, answered) = sync_channel(1);
    if events.blocking_send(Event::Wanted(answer)).is_err() {
        return Err(Trouble::Gone.into());
    }
    let offer = answered.recv().ok().flatten().filter(|offer| {
        let count = |one: &HandedSockets| one.streams.len() + one.datagrams.len();
        offer.listening.sockets.iter().map(count).sum::<usize>() <= SOCKETS_MOST
            && offer.listening.sites.len() <= SITES_MOST
    });
    let Some(offer) = offer else {
        return Err(Failed::Refused(refuse(talk, Reason::Sockets)));
    };
    talk.send(&Message::Welcome { version, program: PROGRAM.to_owned() }, &[])?;
    for sockets in &offer.listening.sockets {
        send_sockets(talk, sockets)?;
    }
    for (address, socket) in &offer.listening.sites {
        talk.send(&Message::Site { address: address.clone() }, &[socket.as_fd()])?;
    }
    let out = send_stream(talk, &Message::Cache)?;
    talk.send(&Message::Offered, &[])?;
    // A successor that takes only a part of it, or none, takes over all the same.
    let _ = pour_into(out, &offer.stores, offer.clock, None);
    drop(offer);
    match talk.receive(Some(COMMIT_TIME)) {
        Ok((Message::Commit, _)) => Ok(()),
        Ok(_) => Err(Trouble::Garbage.into()),
        Err(why) => Err(why.into()),
    }
}

/// The sockets of an address, in as many messages as they need.
fn send_sockets(talk: &Talk, sockets: &HandedSockets) -> Result<(), Trouble> {
    let HandedSockets { transport, host, port, streams, datagrams, .. } = sockets;
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

/// Refuses; gives the line that tells so.
fn refuse(talk: &Talk, reason: Reason) -> String {
    // Refused or gone: the same.
    let _ = talk.send(&Message::Refused(reason), &[]);
    format!("{} was refused: {}", process(talk.process()), reason.text())
}

fn tell_refused(handover: &Handover, line: &str) {
    handover.tell(Role::Predecessor, End::Refused, Level::Warning, format_args!("{line}"));
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
