//! Steps into awaits: what a parked query waits for, until it is done.
//!
//! Owns who asks upstream for whom: a question in flight is asked once, its followers wait for the
//! leader's result. Never decides what a result means.

use super::listener::{Listener, Serving};
use super::rest::go_on;
use super::thrift::Turn;
use super::upstream::Asked;
use super::worker::{Counted, Node, Worker};
use crate::dns::{Query, Rcode, Response, sizes};
use crate::engine::{
    Arrival, Event, FlightKey, Further, KeptLife, Parked, Role, Silence, Step, arrive,
};
use crate::plugin::Client;
use crate::plugin::forward::{Exchange, ExchangeFailure, Exchanged};
use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// The most further questions within further questions.
pub(super) const DEPTH_MOST: u8 = 4;

/// The most waits of one query: handlers that send it round for ever are stopped.
const WAITS_MOST: u8 = 32;

/// The error of a query whose time is over, in Go's words.
const OVERDUE: &str = "context deadline exceeded";

/// The error of a query that CPU time was too scarce for.
const NO_CPU_TIME: &str = "CPU quota used up";

/// What a query waits for.
enum Wait {
    /// Nothing.
    Over,
    /// Nothing: there is no reply.
    Dropped,
    /// The answer to a further question, which is there until it is asked. The response that waits for it is
    /// counted meanwhile; where there is no memory for it, nobody is asked, and the answer is an empty one.
    Answer(Option<Box<Query<'static>>>, Option<Counted>),
    /// An exchange. Boxed, as is all that few queries have: each that waits pays for its size.
    Exchange(Role, Waiting, Option<Box<Ending>>),
}

/// What may end the wait for an exchange before its own end.
enum Ending {
    /// The end of the query's time, that far away.
    Cancelled(Duration),
    /// The end of a handler's patience, that far away.
    Impatient(Duration),
}

type Waiting = Pin<Box<dyn Future<Output = Exchanged>>>;

/// A leader's duty to tell those that follow, also when its task goes before it is done.
struct Leading {
    node: Arc<Node>,
    key: FlightKey,
    landed: bool,
}

impl Leading {
    fn land(mut self, exchanged: &Exchanged) {
        self.landed = true;
        for follower in self.node.flights.land(&self.key) {
            // A follower that is gone needs nothing.
            let _ = follower.send(Exchanged { tried: Vec::new(), ..exchanged.clone() });
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        if !self.landed {
            // Dropped senders tell the followers that nothing will come.
            self.node.flights.land(&self.key);
        }
    }
}

impl Worker {
    /// Waits for a client's query and makes its reply, for `then` to send; there may be none.
    pub(super) fn answer<T, F>(
        self: &Rc<Worker>,
        parked: Box<Parked>,
        step: Step,
        then: F,
    ) -> impl Future<Output = T> + use<T, F>
    where
        F: FnOnce(&Rc<Worker>, Option<Response>) -> T,
    {
        self.drive(parked, step, 0, |worker, parked| {
            let reply = parked.map(|parked| worker.finished(parked));
            then(worker, reply)
        })
    }

    /// One message that came whole, to its reply; `None` when there is none.
    pub(super) async fn reply_to(
        self: &Rc<Worker>,
        listener: &Listener,
        octets: &[u8],
        client: Client,
    ) -> Option<Vec<u8>> {
        let Serving { snapshot, server } = listener.serving()?;
        // Among many connections there may be no rest for a long time.
        go_on();
        let mut response = Response::new();
        let arrival = self.with_means(&snapshot, |means| {
            arrive(&snapshot, server, octets, client, &mut response, means)
        });
        match arrival {
            Arrival::Reply => Some(response.wire),
            Arrival::Silence(Silence::NotAQuery) => {
                self.counters.ignored.increment();
                None
            }
            Arrival::Silence(Silence::Dropped(_)) => None,
            Arrival::Wait(parked, step) => {
                let reply = match self.hold(&parked) {
                    Some(_held) => self.answer(parked, step, |_, reply| reply).await,
                    None => self.shed(parked, step),
                };
                reply.map(|reply| reply.wire)
            }
        }
    }

    /// [`Worker::answer`] without waiting: whatever it wants to wait for has failed.
    pub(super) fn shed(
        self: &Rc<Worker>,
        mut parked: Box<Parked>,
        mut step: Step,
    ) -> Option<Response> {
        let snapshot = parked.snapshot().clone();
        for _ in 0..WAITS_MOST {
            step = self.with_means(&snapshot, |means| match &step {
                Step::Exchange(..) => {
                    let nothing = failed("too many queries in flight");
                    parked.resume(means, &Event::Exchanged(&nothing))
                }
                _ => parked.resume(means, &Event::Answered(&Response::new())),
            });
            match step {
                Step::Done => return Some(self.finished(parked)),
                Step::Drop(_) => return None,
                Step::Exchange(..) | Step::Ask(_) => {}
            }
        }
        parked.give_up();
        Some(self.finished(parked))
    }

    fn finished(self: &Rc<Worker>, mut parked: Box<Parked>) -> Response {
        let snapshot = parked.snapshot().clone();
        self.with_means(&snapshot, |means| parked.finish(means));
        parked.into_response()
    }

    /// Waits until the query is done, for `then` to end it; it may have been dropped. `depth` counts
    /// the questions that this one is asked for.
    ///
    /// One future with what is done at its end, not an `async fn` for each: a future that waits for
    /// another holds it twice, and thousands may wait.
    pub(super) fn drive<T, F>(
        self: &Rc<Worker>,
        mut parked: Box<Parked>,
        step: Step,
        depth: u8,
        then: F,
    ) -> impl Future<Output = T> + use<T, F>
    where
        F: FnOnce(&Rc<Worker>, Option<Box<Parked>>) -> T,
    {
        let worker = self.clone();
        // Before the future is made, which then has no place for what an exchange begins with.
        let mut wait = worker.begin(&parked, step);
        async move {
            let mut waits = 0;
            loop {
                let step = match &mut wait {
                    Wait::Over => return then(&worker, Some(parked)),
                    Wait::Dropped => return then(&worker, None),
                    Wait::Answer(question, _counted) => {
                        // Boxed, as is all that few queries do: each that waits pays for its size.
                        let question = question.take();
                        let answer = Box::pin(worker.ask(&parked, question, depth + 1)).await;
                        worker.resumed(&mut parked, &Event::Answered(&answer))
                    }
                    Wait::Exchange(_, waiting, None) => {
                        let ended = poll_fn(|task| {
                            worker.look_between();
                            waiting.as_mut().poll(task)
                        });
                        let exchanged = ended.await;
                        worker.resumed(&mut parked, &Event::Exchanged(&exchanged))
                    }
                    Wait::Exchange(role, waiting, Some(ending)) => match **ending {
                        Ending::Cancelled(left) => {
                            let exchanged = Box::pin(worker.cancel(waiting, *role, left)).await;
                            worker.resumed(&mut parked, &Event::Exchanged(&exchanged))
                        }
                        Ending::Impatient(patience) => {
                            let waited = worker.wait(&mut parked, *role, waiting, patience, depth);
                            Box::pin(waited).await
                        }
                    },
                };
                waits += 1;
                if waits == WAITS_MOST && !matches!(step, Step::Done | Step::Drop(_)) {
                    parked.give_up();
                    return then(&worker, Some(parked));
                }
                wait = worker.begin(&parked, step);
            }
        }
    }

    /// Begins what `step` waits for.
    fn begin(self: &Rc<Worker>, parked: &Parked, step: Step) -> Wait {
        match step {
            Step::Done => Wait::Over,
            Step::Drop(_) => Wait::Dropped,
            Step::Ask(question) => {
                let counted = self.count(parked.response_octets() as u64);
                Wait::Answer(counted.is_some().then_some(question), counted)
            }
            Step::Exchange(exchange, patience) => {
                let (role, waiting) = self.exchange(parked, exchange);
                Wait::Exchange(role, waiting, self.ending(parked, patience))
            }
        }
    }

    fn resumed(self: &Rc<Worker>, parked: &mut Parked, event: &Event<'_>) -> Step {
        let snapshot = parked.snapshot().clone();
        self.with_means(&snapshot, |means| parked.resume(means, event))
    }

    /// What else may end the wait for an exchange.
    fn ending(&self, parked: &Parked, patience: Option<Duration>) -> Option<Box<Ending>> {
        let deadline = parked.waiting().and_then(KeptLife::deadline);
        let left = deadline.map(|end| end.saturating_sub(self.equipment.clock.now().monotonic));
        Some(Box::new(match (patience, left) {
            (None, None) => return None,
            (None, Some(left)) => Ending::Cancelled(left),
            (Some(patience), Some(left)) if left < patience => Ending::Cancelled(left),
            (Some(patience), _) => Ending::Impatient(patience),
        }))
    }

    /// The step behind the exchange's end, or behind the end of patience when that is first; then
    /// the exchange goes on for those that follow and for the handlers alone, in the place of a refresh. Of one that
    /// follows another's nothing goes on: the handlers hear from the leader's.
    async fn wait(
        self: &Rc<Worker>,
        parked: &mut Parked,
        role: Role,
        waiting: &mut Waiting,
        patience: Duration,
        depth: u8,
    ) -> Step {
        if let Ok(exchanged) = timeout(patience, &mut *waiting).await {
            return self.resumed(parked, &Event::Exchanged(&exchanged));
        }
        let Some(mut rest) = parked.leave_behind().map(Box::new) else {
            let exchanged = waiting.await;
            return self.resumed(parked, &Event::Exchanged(&exchanged));
        };
        let (worker, waiting) = (self.clone(), taken(waiting));
        if role != Role::Follower
            && let Some(permit) = self.permit()
        {
            spawn_local(async move {
                // Many may: no place is kept for what is there when the exchange has ended.
                let step = {
                    let exchanged = waiting.await;
                    worker.resumed(&mut rest, &Event::Exchanged(&exchanged))
                };
                Box::pin(worker.drive(rest, step, depth, |_, _| drop(permit))).await;
            });
        }
        self.resumed(parked, &Event::Late)
    }

    /// The exchange's end, or its failure when the query's time is over first. A leader's goes on
    /// then for those that follow, in the place of a refresh, or ends for them too when there is
    /// none.
    async fn cancel(
        self: &Rc<Worker>,
        waiting: &mut Waiting,
        role: Role,
        left: Duration,
    ) -> Exchanged {
        if let Ok(exchanged) = timeout(left, &mut *waiting).await {
            return exchanged;
        }
        if role != Role::Leader {
            return failed(OVERDUE);
        }
        if let Some(permit) = self.permit() {
            let waiting = taken(waiting);
            spawn_local(async move {
                waiting.await;
                drop(permit);
            });
        }
        failed(OVERDUE)
    }

    /// A further question through the whole server.
    async fn ask(
        self: &Rc<Worker>,
        parked: &Parked,
        question: Option<Box<Query<'static>>>,
        depth: u8,
    ) -> Response {
        let Some(question) = question.filter(|_| depth <= DEPTH_MOST) else {
            return Response::new();
        };
        let snapshot = parked.snapshot();
        match self.with_means(snapshot, |means| parked.further(*question, means)) {
            Further::Answered(response) => response,
            Further::Wait(parked, step) => {
                // Boxed again: a future cannot hold itself.
                let driven = self.drive(parked, step, depth, |_, parked| {
                    parked.map_or_else(Response::new, |parked| parked.into_response())
                });
                Box::pin(driven).await
            }
        }
    }

    /// Asks upstream, or joins whoever asks the same already.
    fn exchange(self: &Rc<Worker>, parked: &Parked, exchange: Exchange) -> (Role, Waiting) {
        let Some(query) = parked.waiting().map(KeptLife::query) else {
            debug_assert!(false, "who waits for an exchange keeps its query");
            return (Role::Alone, Box::pin(ready(failed("no query"))));
        };
        let target = Arc::as_ptr(&exchange.upstreams) as usize;
        let key = FlightKey::new(target, exchange.transport, exchange.udp_limit, query);
        let mut told = None;
        let role = self.node.flights.join(&key, || {
            let (teller, receiver) = oneshot::channel();
            told = Some(receiver);
            teller
        });
        if let (Role::Follower, Some(told)) = (&role, told) {
            self.counters.joined.increment();
            let query = query.clone();
            let waiting = async move {
                match told.await {
                    Ok(exchanged) => respelled(exchanged, query.question()),
                    Err(_) => failed("exchange given up"),
                }
            };
            return (role, Box::pin(waiting));
        }
        let leading =
            (role == Role::Leader).then(|| Leading { node: self.node.clone(), key, landed: false });
        let asked = Asked::new(query.wire().clone(), query.question_end());
        let dispatcher = self.dispatcher.clone();
        let ask = move |has_turn: bool| async move {
            let exchanged = match has_turn {
                true => dispatcher.exchange(&asked, &exchange).await,
                false => failed(NO_CPU_TIME),
            };
            if let Some(leading) = leading {
                leading.land(&exchanged);
            }
            exchanged
        };
        // Without a wait for its turn a query takes no room for it.
        let waiting: Waiting = match self.thrift.turn(&self.counters) {
            Turn::Now => Box::pin(ask(true)),
            turn => Box::pin(async move { ask(turn.comes().await).await }),
        };
        (role, waiting)
    }
}

/// What goes on without whoever waited for it.
fn taken(waiting: &mut Waiting) -> Waiting {
    std::mem::replace(waiting, Box::pin(ready(failed(OVERDUE))))
}

fn failed(text: &str) -> Exchanged {
    Exchanged {
        outcome: Err(ExchangeFailure { rcode: Rcode::SERVFAIL, text: text.into() }),
        upstream: None,
        took: Duration::ZERO,
        tried: Vec::new(),
    }
}

/// A follower may have spelled the name with other capitals than the leader, and its client checks
/// them (0x20). The name stands uncompressed behind the header of every response with a question.
fn respelled(exchanged: Exchanged, question: &[u8]) -> Exchanged {
    let Ok(bytes) = &exchanged.outcome else { return exchanged };
    let place = sizes::HEADER..sizes::HEADER + question.len();
    match bytes.get(place.clone()) {
        Some(theirs) if theirs != question && theirs.eq_ignore_ascii_case(question) => {
            let mut bytes = bytes.to_vec();
            bytes[place].copy_from_slice(question);
            Exchanged { outcome: Ok(bytes.into()), ..exchanged }
        }
        _ => exchanged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Class, RecordType};

    fn response(name: &str) -> Exchanged {
        let query = Query::new(&name.parse().unwrap(), RecordType::A, Class::IN);
        Exchanged {
            outcome: Ok(query.wire().into()),
            upstream: None,
            took: Duration::ZERO,
            tried: Vec::new(),
        }
    }

    #[test]
    fn a_follower_gets_its_own_spelling_back() {
        let question = b"\x01A\x04TeSt\x00\x00\x01\x00\x01";
        let bytes = respelled(response("a.test."), question).outcome.unwrap();
        assert_eq!(&bytes[12..], question);
    }

    #[test]
    fn a_response_to_another_question_stays_as_it_is() {
        let question = b"\x01b\x04test\x00\x00\x01\x00\x01";
        let bytes = respelled(response("a.test."), question).outcome.unwrap();
        assert_eq!(bytes[13], b'a');
    }
}
