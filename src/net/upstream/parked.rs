//! The queries in flight on one connection, found by their ids.
//!
//! Owns what each was asked for, its time, and the way to whoever waits. Says what a message means to
//! the query whose id it bears ([`judge`]). Knows no socket and reads no clock; when a connection ends,
//! and what its silence means, is the connection's matter.

use super::Asked;
use super::pace::Effect;
use crate::dns::{Rcode, flags, sizes};
use crate::plugin::forward::{Meaning, Verdict, judge, rcode_of};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A response as it goes to whoever asked.
pub(super) type Reply = (Arc<[u8]>, Meaning);

/// Why a query in flight got no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection ended; Go's words.
    Closed(Box<str>),
    /// Nobody took it: an ICMP error, or a connection that was refused; Go's words.
    Refused(Box<str>),
    /// The response was no good, or there was none in time; Go's words.
    Response(Box<str>),
    /// Time ran out, and messages that were no response had come; Go's words, and the response to
    /// give when nothing better comes.
    Misled(Box<str>, Reply),
}

/// Whether a message is the upstream's word on the query whose id it bears, whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    /// Nobody else can have written it, and no earlier query had its id.
    Surely,
    /// It may be forged, or be late and another query's.
    Perhaps,
}

/// The times of a query in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// When it is asked.
    pub(super) asked: Instant,
    /// When it fails.
    pub(super) deadline: Instant,
    /// Having waited for so long, it shows by its end that its connection is silent.
    pub(super) telling: Duration,
}

/// One query in flight.
#[derive(Debug)]
pub(super) struct Parked {
    number: u64,
    /// When it was asked.
    pub(super) asked: Instant,
    /// Its time in microseconds: half of what a moment takes.
    lasts: u32,
    /// As sent but for the id.
    asked_for: Asked,
    udp_limit: Option<u16>,
    /// It waits for long enough to show by its end that a connection is silent.
    pub(super) is_telling: bool,
    /// A message with its id came that was no response to it.
    is_misled: bool,
    answer: oneshot::Sender<Result<Reply, Failure>>,
}

impl Parked {
    /// A query with this number on its connection, and what tells its end. `udp_limit` is the size in
    /// octets that it offers to take over UDP.
    pub(super) fn new(
        number: u64,
        query: &Asked,
        udp_limit: Option<u16>,
        times: Times,
    ) -> (Parked, oneshot::Receiver<Result<Reply, Failure>>) {
        let (answer, receiver) = oneshot::channel();
        let lasts = times.deadline.saturating_duration_since(times.asked);
        let parked = Parked {
            number,
            asked: times.asked,
            // A try lasts for seconds.
            lasts: u32::try_from(lasts.as_micros()).unwrap_or(u32::MAX),
            asked_for: query.clone(),
            udp_limit,
            is_telling: lasts >= times.telling,
            is_misled: false,
            answer,
        };
        (parked, receiver)
    }

    /// Tells whoever asked how it ended.
    pub(super) fn tell(self, result: Result<Reply, Failure>) {
        // Nobody waits any more: nothing to tell.
        let _ = self.answer.send(result);
    }

    /// Tells whoever asked that its time is over, in these words. One that only got messages to other
    /// questions may end with FORMERR, with which CoreDNS answers at the first such message.
    pub(super) fn tell_timeout(self, words: &str) {
        let failure = match self.is_misled {
            false => Failure::Response(words.into()),
            true => Failure::Misled(words.into(), misunderstood(&self.asked_for, Rcode::FORMERR)),
        };
        self.tell(Err(failure));
    }

    fn deadline(&self) -> Instant {
        self.asked + Duration::from_micros(self.lasts.into())
    }
}

/// The queries in flight on one connection. As many as the pool puts on it (`Limits::hard_depth`).
#[derive(Debug, Default)]
pub(super) struct ParkedQueries {
    by_id: HashMap<u16, Parked, foldhash::fast::RandomState>,
    /// The number of the latest query that was answered.
    newest_answered: u64,
}

impl ParkedQueries {
    /// Puts a query in under a random id that no other one has, and gives the id.
    pub(super) fn park(&mut self, parked: Parked, random: &mut StdRng) -> u16 {
        let id = loop {
            let id = random.random::<u16>();
            if !self.by_id.contains_key(&id) {
                break id;
            }
        };
        self.by_id.insert(id, parked);
        id
    }

    /// The query that a message with this id ends, and how. `None` while it ends none.
    pub(super) fn receive(
        &mut self,
        id: u16,
        message: &[u8],
        meant: Meant,
    ) -> Option<(Parked, Result<Reply, Failure>)> {
        let parked = self.by_id.get_mut(&id)?;
        let result = match judge(parked.asked_for.question(), message, parked.udp_limit) {
            Verdict::Ignore if meant == Meant::Surely => {
                Ok(misunderstood(&parked.asked_for, rcode_of(message)))
            }
            Verdict::Ignore => {
                parked.is_misled |= message.len() >= sizes::HEADER;
                return None;
            }
            Verdict::Accept(meaning) => Ok((Arc::from(message), meaning)),
            Verdict::Cut(other, meaning) | Verdict::Classless(other, meaning) => {
                Ok((Arc::from(other), meaning))
            }
            Verdict::Misunderstood => Ok(misunderstood(&parked.asked_for, rcode_of(message))),
            Verdict::BadQuestion(malformed) => {
                Err(Failure::Response(format!("bad question name: dns: {malformed}").into()))
            }
            Verdict::Malformed(malformed) => {
                Err(Failure::Response(format!("dns: {malformed}").into()))
            }
        };
        let parked = self.by_id.remove(&id)?;
        self.newest_answered = self.newest_answered.max(parked.number);
        Some((parked, result))
    }

    /// What the slow answer to a query did to those behind it, at `now`. An answer is slow that took
    /// longer than `slow`.
    pub(super) fn effect(&self, answered: &Parked, now: Instant, slow: Duration) -> Effect {
        if self.newest_answered > answered.number {
            return Effect::Overtaken;
        }
        let mut behind = self.by_id.values().filter(|other| other.number > answered.number);
        match behind.any(|other| now.saturating_duration_since(other.asked) > slow) {
            true => Effect::HeldUp,
            false => Effect::Alone,
        }
    }

    /// Takes out the query with this id.
    pub(super) fn take(&mut self, id: u16) -> Option<Parked> {
        self.by_id.remove(&id)
    }

    /// Takes out the query with this id, if it has this number: the id may be another query's by now.
    pub(super) fn take_numbered(&mut self, id: u16, number: u64) -> Option<Parked> {
        self.by_id.get(&id).is_some_and(|parked| parked.number == number).then(|| self.take(id))?
    }

    /// Takes out all but the one with the id `spared`.
    pub(super) fn take_all_but(&mut self, spared: Option<u16>) -> Vec<Parked> {
        self.by_id.extract_if(|id, _| Some(*id) != spared).map(|(_, parked)| parked).collect()
    }

    /// Takes out those whose time is over at `now`, and gives with them when the next one's is, at the
    /// latest `most` from now.
    pub(super) fn take_over(&mut self, now: Instant, most: Duration) -> (Vec<Parked>, Instant) {
        let mut next = now + most;
        let over = self.by_id.extract_if(|_, parked| {
            let deadline = parked.deadline();
            let is_over = deadline <= now;
            if !is_over {
                next = next.min(deadline);
            }
            is_over
        });
        let over = over.map(|(_, parked)| parked).collect();
        (over, next)
    }
}

/// FORMERR to the query, for an upstream whose message, with this rcode, is no response to it. Nothing of
/// that message is in it.
fn misunderstood(query: &Asked, rcode: Rcode) -> Reply {
    let mut message = Vec::with_capacity(sizes::HEADER + query.question().len());
    message.extend_from_slice(&query.wire()[..2]);
    let asked = u16::from_be_bytes([query.wire()[2], query.wire()[3]]);
    let copied = match asked & flags::OPCODE {
        0 => asked & (flags::RD | flags::CD),
        opcode => opcode,
    };
    message.extend_from_slice(&(flags::QR | copied | Rcode::FORMERR.0).to_be_bytes());
    message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(query.question());
    (Arc::from(message), Meaning { rcode, truncated: false, is_response: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const SLOW: Duration = Duration::from_millis(10);
    const TIME: Duration = Duration::from_secs(2);
    const QUESTION: &[u8] = b"\x01a\x04test\0\0\x01\0\x01";

    fn query() -> Asked {
        let wire = [b"\0\0\x01\0\0\x01\0\0\0\0\0\0", QUESTION].concat();
        let end = wire.len();
        Asked::new(wire.into(), end)
    }

    /// An empty response with this id to `a.test. A`, or to another question.
    fn response(id: u16, question: &[u8]) -> Vec<u8> {
        [&id.to_be_bytes(), b"\x81\x80\0\x01\0\0\0\0\0\0".as_slice(), question].concat()
    }

    /// A table in which one query after the other was parked, so many milliseconds after `start`; the
    /// ids, and what tells their ends.
    struct Table {
        queries: ParkedQueries,
        ids: Vec<u16>,
        ends: Vec<oneshot::Receiver<Result<Reply, Failure>>>,
    }

    fn table(start: Instant, asked: &[u64]) -> Table {
        let mut table =
            Table { queries: ParkedQueries::default(), ids: Vec::new(), ends: Vec::new() };
        let mut random = StdRng::seed_from_u64(1);
        for (number, &asked) in (1..).zip(asked) {
            let asked = start + Duration::from_millis(asked);
            let times = Times { asked, deadline: asked + TIME, telling: TIME };
            let (parked, end) = Parked::new(number, &query(), None, times);
            table.ids.push(table.queries.park(parked, &mut random));
            table.ends.push(end);
        }
        table
    }

    impl Table {
        fn answer(&mut self, place: usize) -> Parked {
            let message = response(self.ids[place], QUESTION);
            self.queries.receive(self.ids[place], &message, Meant::Perhaps).unwrap().0
        }
    }

    #[test]
    fn an_id_that_went_to_another_query_is_not_given_up_with_the_earlier_one() {
        let mut table = table(Instant::now(), &[0]);
        let id = table.ids[0];
        assert!(table.queries.take_numbered(id, 2).is_none());
        assert!(!table.queries.by_id.is_empty());
        assert!(table.queries.take_numbered(id, 1).is_some());
        assert!(table.queries.by_id.is_empty());
    }

    #[test]
    fn an_answer_holds_up_those_behind_it_that_waited_for_longer_than_answers_take() {
        let start = Instant::now();
        for (asked, effect) in [
            (&[0][..], Effect::Alone),
            (&[0, 5, 6], Effect::Alone),
            (&[0, 10], Effect::Alone),
            (&[0, 9], Effect::HeldUp),
            (&[0, 5, 15, 9], Effect::HeldUp),
        ] {
            let mut table = table(start, asked);
            // The first waited for longest: it alone says nothing of the others.
            let now = start + Duration::from_millis(if effect == Effect::HeldUp { 20 } else { 15 });
            let answered = table.answer(0);
            assert_eq!(table.queries.effect(&answered, now, SLOW), effect, "{asked:?}");
        }
        // Those asked before the one that is answered are not behind it.
        let mut table = table(start, &[0, 1]);
        let answered = table.answer(1);
        let now = start + Duration::from_millis(100);
        assert_eq!(table.queries.effect(&answered, now, SLOW), Effect::Alone);
    }

    #[test]
    fn an_answer_is_overtaken_when_a_later_query_was_answered_before_it() {
        let start = Instant::now();
        let mut table = table(start, &[0, 1, 2]);
        let now = start + Duration::from_millis(100);
        let second = table.answer(1);
        assert_eq!(table.queries.effect(&second, now, SLOW), Effect::HeldUp, "by none before");
        let first = table.answer(0);
        assert_eq!(table.queries.effect(&first, now, SLOW), Effect::Overtaken);
        let third = table.answer(2);
        assert_eq!(table.queries.effect(&third, now, SLOW), Effect::Alone);
    }

    #[test]
    fn only_a_query_that_got_a_message_to_another_question_may_end_with_formerr() {
        let other = b"\x01b\x04test\0\0\x01\0\x01";
        // A message, whether it is surely meant, and whether the query may then end with FORMERR at its
        // deadline. `None`: it ends with it at once.
        for (message, meant, is_misled) in [
            (None, Meant::Perhaps, Some(false)),
            (Some(&other[..0]), Meant::Perhaps, Some(false)),
            (Some(&other[..]), Meant::Perhaps, Some(true)),
            (Some(&other[..]), Meant::Surely, None),
        ] {
            let start = Instant::now();
            let mut table = table(start, &[0]);
            let id = table.ids[0];
            let message = message.map(|question| match question {
                [] => id.to_be_bytes().to_vec(),
                question => response(id, question),
            });
            let ended = message.and_then(|message| table.queries.receive(id, &message, meant));
            assert_eq!(ended.is_none(), is_misled.is_some());
            let Some(is_misled) = is_misled else {
                let (_, result) = ended.unwrap();
                let (reply, meaning) = result.unwrap();
                assert_eq!(reply[3] & 15, Rcode::FORMERR.0 as u8);
                assert_eq!((meaning.rcode, meaning.is_response), (Rcode::NOERROR, false));
                continue;
            };
            let (mut over, _) = table.queries.take_over(start + TIME, TIME);
            over.remove(0).tell_timeout("i/o timeout");
            match table.ends[0].try_recv().unwrap() {
                Err(Failure::Response(words)) => assert!(!is_misled && &*words == "i/o timeout"),
                Err(Failure::Misled(_, (bytes, meaning))) => {
                    assert!(is_misled && meaning.rcode == Rcode::FORMERR);
                    assert_eq!(bytes[12..], *QUESTION, "to its own question");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn those_whose_time_is_over_go_and_the_next_ones_time_is_told() {
        let start = Instant::now();
        let mut table = table(start, &[0, 500, 3_000]);
        let most = Duration::from_secs(1);
        let (over, next) = table.queries.take_over(start + TIME, most);
        assert_eq!((over.len(), next), (1, start + TIME + Duration::from_millis(500)));
        let (over, next) = table.queries.take_over(next, most);
        assert_eq!((over.len(), next), (1, start + Duration::from_millis(3_500)));
        assert_eq!(table.queries.take_all_but(Some(table.ids[2])).len(), 0);
        assert_eq!(table.queries.take_all_but(None).len(), 1);
    }
}
