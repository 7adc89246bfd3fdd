//! What is said with a successor, from its first word to its end: the offer, the commit, and what follows
//! once it reads.
//!
//! Owns the threads that talk. Until the successor has committed, nothing is changed by whatever it does
//! or fails to do.

use super::super::cache_stream::{Pace, Stores, pour};
use super::heir::{Event, Heir, Task};
use super::message::{Message, Place, Reason, VERSIONS, Versions};
use super::talk::{ANSWER_TIME, Talk, Trouble};
use super::turn::{Turn, Whose};
use super::{
    CACHE_TIME, COMMIT_TIME, End, Handover, PROGRAM, Role, SITES_MOST, SOCKETS_MOST, namespace,
    process,
};
use crate::net::{Clock, HandedConnection, HandedSockets};
use crate::plugin::Level;
use crate::sys::unix::DESCRIPTORS_MOST;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The pause behind a successor that was none, for which the next one waits: lines and counters stay
/// bounded.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

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

/// One conversation, from the first word to the last.
pub(super) fn converse(
    handover: &Handover,
    talk: &Arc<Talk>,
    events: &mpsc::Sender<Event>,
    turn: &Turn,
) {
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
pub(super) fn refuse(talk: &Talk, reason: Reason) -> String {
    // Refused or gone: the same.
    let _ = talk.send(&Message::Refused(reason), &[]);
    format!("{} was refused: {}", process(talk.process()), reason.text())
}

/// Tells the operator that one was refused.
pub(super) fn tell_refused(handover: &Handover, line: &str) {
    handover.tell(Role::Predecessor, End::Refused, Level::Warning, format_args!("{line}"));
}

/// Tells the operator why the process with this number did not take over.
pub(super) fn told_of(handover: &Handover, why: &Trouble, number: u32) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::KeyTransport;
    use crate::net::Keeper;
    use socket2::{Domain, Socket, Type};
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn more_sockets_of_an_address_than_one_message_takes_go_in_several() {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let (talk, other) = (Talk::on(one).unwrap(), Talk::on(other).unwrap());
        let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = HandedSockets {
            transport: KeyTransport::Dns,
            host: None,
            port: 53,
            streams: (0..DESCRIPTORS_MOST + 2).map(bind).collect(),
            datagrams: vec![UdpSocket::bind("127.0.0.1:0").unwrap()],
            keeper: Keeper::Nobody,
        };
        send_sockets(&talk, &sockets).unwrap();
        let came = [(); 2].map(|()| {
            let (message, with) = other.receive(Some(ANSWER_TIME)).unwrap();
            let Message::Sockets { streams, .. } = message else { panic!("{message:?}") };
            (streams, with.len())
        });
        assert_eq!(came, [(DESCRIPTORS_MOST, DESCRIPTORS_MOST), (2, 3)]);
    }
}
