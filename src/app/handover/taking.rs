//! The successor's part: asking, taking what is offered, saying that it reads, and what comes after.
//!
//! Owns the conversation from the first word on. Whatever goes wrong before the commit is one line, and
//! this process starts as if nobody had been there: beside the other one, by SO_REUSEPORT.

use super::super::cache_stream::{Stores, take};
use super::door::{Knock, file, knock};
use super::message::{Message, Place, VERSIONS};
use super::talk::{ANSWER_TIME, Talk, Trouble};
use super::{
    CACHE_TIME, End, Handover, PROGRAM, RETIRE_TIME, Role, SITES_MOST, SOCKETS_MOST, namespace,
    places, process,
};
use crate::engine::Snapshot;
use crate::metrics::names;
use crate::net::{Clock, HandedConnection, HandedSockets, Keeper, Workers};
use crate::plugin::{Journal, Level};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

/// Puts sockets beside those of the same address.
pub(crate) fn join(all: &mut Vec<HandedSockets>, more: Vec<HandedSockets>) {
    for one in more {
        match all.iter_mut().find(|known| known.is_beside(&one)) {
            Some(known) => known.join(one),
            None => all.push(one),
        }
    }
}

/// What a predecessor offered.
pub(crate) struct Taken {
    talk: Arc<Talk>,
    handover: Handover,
    begun: Instant,
    /// Its listening sockets.
    pub(crate) sockets: Vec<HandedSockets>,
    /// Its HTTP sockets by their address.
    pub(crate) sites: BTreeMap<String, TcpListener>,
    cache: Option<UnixStream>,
    /// Its program's version.
    program: String,
}

/// The process that served before, for as long as it is there.
pub(crate) struct Predecessor(Arc<Talk>);

impl Predecessor {
    /// This process ends: the other one is to serve again if it still can.
    pub(crate) fn give_back(&self) {
        // It is gone: nobody takes over.
        let _ = self.0.send(&Message::Return, &[]);
    }

    /// This process ends, and another one serves in its place.
    pub(crate) fn bid_farewell(&self) {
        let _ = self.0.send(&Message::Farewell, &[]);
    }
}

/// Asks whoever serves the addresses of `snapshot` for what it has. `None` when nobody does or it does
/// not work out, which is told. Blocks, within a bound of time.
pub(crate) fn ask(handover: &Handover, snapshot: &Snapshot) -> Option<Taken> {
    let directory = handover.directory.as_ref()?;
    let begun = Instant::now();
    let fail = |end: End, level: Level, file: &dyn Display, why: &dyn Display| {
        handover.tell(
            Role::Successor,
            end,
            level,
            format_args!("{file}: {why}; this process starts on its own"),
        );
    };
    for place in places(snapshot) {
        let path = file(directory, &place);
        let shown = path.display();
        let socket = match knock(&path) {
            Ok(Knock::Open(socket)) => socket,
            Ok(Knock::Nothing) => continue,
            Ok(Knock::Stale) => {
                let why = "nobody listens there any more";
                fail(End::Stale, Level::Info, &shown, &why);
                continue;
            }
            Err(error) => {
                fail(End::Directory, Level::Warning, &shown, &error);
                continue;
            }
        };
        match Talk::on(socket).and_then(|talk| take_offer(handover, talk, begun)) {
            Ok(Answer::Offer(taken)) => return Some(*taken),
            Ok(Answer::Refused(why)) => fail(End::Refused, Level::Warning, &shown, &why),
            Err(why) => fail(end_of(&why), Level::Warning, &shown, &why),
        }
        return None;
    }
    None
}

enum Answer {
    Offer(Box<Taken>),
    Refused(&'static str),
}

fn take_offer(handover: &Handover, talk: Talk, begun: Instant) -> Result<Answer, Trouble> {
    let hello =
        Message::Hello { versions: VERSIONS, namespace: namespace(), program: PROGRAM.to_owned() };
    talk.send(&hello, &[])?;
    let program = match talk.receive(Some(ANSWER_TIME))? {
        // It is the predecessor who chooses the version; one that we do not speak it would not.
        (Message::Welcome { version, program }, _)
            if (VERSIONS.least..=VERSIONS.most).contains(&version) =>
        {
            program
        }
        (Message::Refused(reason), _) => return Ok(Answer::Refused(reason.text())),
        _ => return Err(Trouble::Garbage),
    };
    let mut taken = Taken {
        talk: Arc::new(talk),
        handover: handover.clone(),
        begun,
        sockets: Vec::new(),
        sites: BTreeMap::new(),
        cache: None,
        program,
    };
    let mut descriptors = 0;
    loop {
        let (message, with) = taken.talk.receive(Some(ANSWER_TIME))?;
        descriptors += with.len();
        if descriptors > SOCKETS_MOST + SITES_MOST + 1 {
            return Err(Trouble::Garbage);
        }
        match message {
            Message::Sockets { place, streams } => taken.add(place, streams, with)?,
            Message::Site { address } => {
                let socket = only(with)?;
                taken.sites.insert(address, socket.into());
            }
            Message::Cache => taken.cache = Some(only(with)?.into()),
            Message::Offered => return Ok(Answer::Offer(Box::new(taken))),
            _ => return Err(Trouble::Garbage),
        }
    }
}

fn only(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, Trouble> {
    let [one]: [OwnedFd; 1] = descriptors.try_into().map_err(|_| Trouble::Garbage)?;
    Ok(one)
}

impl Taken {
    fn add(&mut self, place: Place, streams: usize, mut all: Vec<OwnedFd>) -> Result<(), Trouble> {
        if streams > all.len() {
            return Err(Trouble::Garbage);
        }
        let Place { transport, host, port } = place;
        let datagrams = all.split_off(streams).into_iter().map(UdpSocket::from);
        let streams = all.into_iter().map(TcpListener::from);
        let more = HandedSockets {
            transport,
            host,
            port,
            streams: streams.collect(),
            datagrams: datagrams.collect(),
            keeper: Keeper::Nobody,
        };
        join(&mut self.sockets, vec![more]);
        Ok(())
    }

    /// Puts the predecessor's cache into `stores`. False, told, when it did not come whole. Blocks,
    /// within a bound of time.
    pub(crate) fn fill(&mut self, stores: &Stores, clock: Clock) -> bool {
        let Some(stream) = self.cache.take() else { return false };
        let (entries, result) = read(stream, stores, clock);
        self.handover.metrics.counter(&names::HANDOVER_ENTRIES, &[]).add(entries);
        if let Err(why) = &result {
            self.handover.log.line(
                Level::Warning,
                format_args!("Handover: {entries} entries of the cache came, then: {why}"),
            );
        }
        result.is_ok()
    }

    /// Says that this process reads the sockets, and waits until the predecessor does not. What comes
    /// behind that goes to `workers` and `stores`. Blocks, within a bound of time.
    pub(crate) fn commit(
        self,
        workers: &Arc<Workers>,
        stores: Stores,
        clock: Clock,
    ) -> Option<Predecessor> {
        let Taken { talk, handover, begun, program, .. } = self;
        let answer =
            talk.send(&Message::Commit, &[]).and_then(|()| talk.receive(Some(RETIRE_TIME)));
        let number = talk.process();
        match answer {
            Ok((Message::Retired, _)) => {
                let took = begun.elapsed();
                handover.metrics.gauge(&names::HANDOVER_SECONDS, &[]).set(took.as_secs_f64());
                handover.tell(
                    Role::Successor,
                    End::Done,
                    Level::Info,
                    format_args!(
                        "took over from {} (nodens {program}) in {took:.1?}",
                        process(number)
                    ),
                );
            }
            Err(why @ Trouble::Gone) => {
                workers.own_sockets();
                handover.tell(
                    Role::Successor,
                    End::Broken,
                    Level::Warning,
                    format_args!("{}: {why}; its sockets are this process's now", process(number)),
                );
                return None;
            }
            // Both read the sockets, each datagram once, until one of them ends.
            other => {
                let why = match other {
                    Err(why) => why.to_string(),
                    Ok((Message::Refused(reason), _)) => reason.text().to_owned(),
                    Ok(_) => Trouble::Garbage.to_string(),
                };
                handover.tell(
                    Role::Successor,
                    End::Broken,
                    Level::Warning,
                    format_args!("{}: {why}; both processes serve", process(number)),
                );
            }
        }
        let predecessor = Predecessor(talk.clone());
        let workers = Arc::downgrade(workers);
        // Without the thread the sockets count as shared until the end.
        let _ = thread::Builder::new()
            .name("predecessor".to_owned())
            .spawn(move || listen(&talk, &handover, &workers, &stores, clock));
        Some(predecessor)
    }
}

/// Takes what the predecessor still has, until it is gone.
fn listen(
    talk: &Talk,
    handover: &Handover,
    workers: &Weak<Workers>,
    stores: &Stores,
    clock: Clock,
) {
    loop {
        match talk.receive(None) {
            Ok((Message::Connection { place, octets }, with)) => {
                let (Ok(stream), Some(workers)) = (only(with), workers.upgrade()) else { continue };
                let Place { transport, host, port } = place;
                let stream = stream.into();
                workers.adopt(HandedConnection { transport, host, port, stream, octets });
            }
            Ok((Message::Fresh, with)) => {
                if let Ok(stream) = only(with) {
                    // What does not come is asked for again.
                    let (entries, _) = read(stream.into(), stores, clock);
                    handover.metrics.counter(&names::HANDOVER_ENTRIES, &[]).add(entries);
                }
            }
            // Of a later version, or nothing.
            Ok(_) | Err(Trouble::Garbage) => {}
            Err(_) => {
                if let Some(workers) = workers.upgrade() {
                    workers.own_sockets();
                }
                return;
            }
        }
    }
}

fn read(
    stream: UnixStream,
    stores: &Stores,
    clock: Clock,
) -> (u64, Result<(), crate::plugin::cache::codec::Refusal>) {
    let until = Instant::now() + CACHE_TIME;
    take(BufReader::with_capacity(1 << 16, Patient { stream, until }), stores, clock)
}

/// A stream that ends, as a failure, when its time is over.
struct Patient {
    stream: UnixStream,
    until: Instant,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

fn end_of(why: &Trouble) -> End {
    match why {
        Trouble::OtherUser(_) | Trouble::Garbage => End::Foreign,
        Trouble::Gone | Trouble::Silent | Trouble::System(_) => End::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::KeyTransport;

    /// Sockets of an address, each in a message of its own.
    fn of(port: u16) -> HandedSockets {
        HandedSockets {
            transport: KeyTransport::Dns,
            host: Some("127.0.0.1".to_owned()),
            port,
            streams: vec![TcpListener::bind("127.0.0.1:0").unwrap()],
            datagrams: vec![UdpSocket::bind("127.0.0.1:0").unwrap()],
            keeper: Keeper::Nobody,
        }
    }

    #[test]
    fn sockets_come_beside_those_of_their_own_address() {
        let mut all = Vec::new();
        for port in [53, 54, 53, 53] {
            join(&mut all, vec![of(port)]);
        }
        let count = |one: &HandedSockets| (one.port, one.streams.len(), one.datagrams.len());
        assert_eq!(all.iter().map(count).collect::<Vec<_>>(), [(53, 3, 3), (54, 1, 1)]);
    }
}
