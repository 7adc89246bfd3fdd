//! The predecessor's part: waiting at the door.
//!
//! Owns the door and the thread that lets in whoever comes, one at a time; what is said with it is
//! [`super::conversation`]'s, and the main loop decides.

use super::conversation::{PAUSE, converse, refuse, tell_refused, told_of};
use super::door::{Door, file, sweep};
use super::heir::{Event, Heir};
use super::message::Reason;
use super::talk::Talk;
use super::turn::{Turn, Whose};
use super::{End, Handover, Role, places, process};
use crate::engine::Snapshot;
use crate::plugin::Level;
use crate::sys::errors::is_exhausted;
use socket2::Socket;
use std::sync::Arc;
use std::thread;
use tokio::sync::mpsc;

/// Events that may wait for the main loop.
const EVENTS_MOST: usize = 16;

/// Waits for successors while its door is open.
pub(crate) struct Giver {
    handover: Handover,
    door: Option<Door>,
    /// What crashes left in the directory was looked for.
    has_swept: bool,
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
        let turn = Turn::default();
        Giver { handover, door: None, has_swept: false, sender, events, turn, has_told: false }
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
            let directory = (!self.has_swept).then(|| directory.clone());
            thread::Builder::new().name("handover".to_owned()).spawn(move || {
                if let Some(directory) = directory {
                    sweep(&directory);
                }
                wait(&socket, &own, &events, &turn);
            })?;
            self.has_swept = true;
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
    loop {
        let socket = match socket.accept() {
            Ok((socket, _)) => socket,
            // Whoever comes meanwhile waits at the door.
            Err(error) if is_exhausted(&error) => {
                thread::sleep(PAUSE);
                continue;
            }
            Err(_) => return,
        };
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
