//! Steps into awaits: what a parked query waits for, until it is done.
//!
//! Owns who asks upstream for whom: a question in flight is asked once, its followers wait for the
//! leader's result. Never decides what a result means.

use super::worker::{Listener, Node, Permit, REFRESHES_MOST, Serving, Worker};
use crate::dns::{Query, Rcode, Response};
use crate::engine::{Arrival, Event, FlightKey, Further, Parked, Role, Silence, Step, arrive};
use crate::plugin::Client;
use crate::plugin::forward::{Exchange, ExchangeFailure, Exchanged};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// The most further questions within further questions.
const DEPTH_MOST: usize = 4;

/// The most waits of one query: handlers that send it round for ever are stopped.
const WAITS_MOST: usize = 32;

/// The error of a query whose time is over, in Go's words.
const OVERDUE: &str = "context deadline exceeded";

/// The error of a query that CPU time was too scarce for.
const NO_CPU_TIME: &str = "CPU quota used up";

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
    /// Waits for a client's query and makes its reply; `None` when there is none.
    ///
    /// Not an `async fn`, whose future would hold each argument twice.
    #[allow(clippy::manual_async_fn)]
    pub(super) fn answer(
        self: &Rc<Worker>,
        parked: Box<Parked>,
        step: Step,
    ) -> impl Future<Output = Option<Response>> {
        let driving = self.drive(parked, step, 0);
        async move { driving.await.map(|parked| self.finished(parked)) }
    }

    /// One message that came whole, to its reply; `None` when there is none.
    pub(super) async fn reply_to(
        self: &Rc<Worker>,
        listener: &Listener,
        octets: &[u8],
        client: Client,
    ) -> Option<Vec<u8>> {
        let Serving { snapshot, server } = listener.serving()?;
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
                    Some(_held) => self.answer(parked, step).await,
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

    /// Waits until the query is done; `None` when it is dropped. `depth` counts the questions that
    /// this one is asked for.
    ///
    /// Not an `async fn`, whose future would hold each argument twice.
    #[allow(clippy::manual_async_fn)]
    pub(super) fn drive(
        self: &Rc<Worker>,
        mut parked: Box<Parked>,
        mut step: Step,
        depth: usize,
    ) -> impl Future<Output = Option<Box<Parked>>> {
        async move {
            let snapshot = parked.snapshot().clone();
            for _ in 0..WAITS_MOST {
                step = match step {
                    Step::Done => return Some(parked),
                    Step::Drop(_) => return None,
                    Step::Ask(question) => {
                        // Boxed, as is all that few queries do: each that waits pays for its size.
                        let answer = Box::pin(self.ask(&parked, question, depth + 1)).await;
                        self.with_means(&snapshot, |means| {
                            parked.resume(means, &Event::Answered(&answer))
                        })
                    }
                    Step::Exchange(exchange, patience) => {
                        let (role, waiting) = self.exchange(&parked, exchange);
                        let left = parked
                            .deadline()
                            .map(|end| end.saturating_sub(self.equipment.clock.now().monotonic));
                        let exchanged = match (patience, left) {
                            (None, None) => Some(waiting.await),
                            (None, Some(left)) => {
                                Some(Box::pin(self.cancel(waiting, role, left)).await)
                            }
                            (Some(patience), Some(left)) if left < patience => {
                                Some(Box::pin(self.cancel(waiting, role, left)).await)
                            }
                            (Some(patience), _) => {
                                Box::pin(self.wait(&mut parked, waiting, patience, depth)).await
                            }
                        };
                        match exchanged {
                            Some(exchanged) => self.with_means(&snapshot, |means| {
                                parked.resume(means, &Event::Exchanged(&exchanged))
                            }),
                            None => self
                                .with_means(&snapshot, |means| parked.resume(means, &Event::Late)),
                        }
                    }
                };
            }
            parked.give_up();
            Some(parked)
        }
    }

    /// The exchange's end, or `None` when patience ended first; then the exchange goes on for the
    /// handlers alone.
    async fn wait(
        self: &Rc<Worker>,
        parked: &mut Parked,
        mut waiting: Waiting,
        patience: Duration,
        depth: usize,
    ) -> Option<Exchanged> {
        if let Ok(exchanged) = timeout(patience, &mut waiting).await {
            return Some(exchanged);
        }
        let Some(mut rest) = parked.leave_behind() else { return Some(waiting.await) };
        let worker = self.clone();
        spawn_local(async move {
            let exchanged = waiting.await;
            let snapshot = rest.snapshot().clone();
            let step = worker
                .with_means(&snapshot, |means| rest.resume(means, &Event::Exchanged(&exchanged)));
            worker.drive(Box::new(rest), step, depth).await;
        });
        None
    }

    /// The exchange's end, or its failure when the query's time is over first. A leader's goes on
    /// then for those that follow, in the place of a refresh, or ends for them too when there is
    /// none.
    async fn cancel(
        self: &Rc<Worker>,
        mut waiting: Waiting,
        role: Role,
        left: Duration,
    ) -> Exchanged {
        if let Ok(exchanged) = timeout(left, &mut waiting).await {
            return exchanged;
        }
        if role != Role::Leader {
            return failed(OVERDUE);
        }
        match Permit::take(&self.node.refreshes, REFRESHES_MOST) {
            Some(permit) => {
                spawn_local(async move {
                    waiting.await;
                    drop(permit);
                });
            }
            None => self.counters.shed_refresh.increment(),
        }
        failed(OVERDUE)
    }

    /// A further question through the whole server.
    async fn ask(
        self: &Rc<Worker>,
        parked: &Parked,
        question: Box<Query<'static>>,
        depth: usize,
    ) -> Response {
        if depth > DEPTH_MOST {
            return Response::new();
        }
        let snapshot = parked.snapshot();
        match self.with_means(snapshot, |means| parked.further(*question, means)) {
            Further::Answered(response) => response,
            Further::Wait(parked, step) => {
                // Boxed again: a future cannot hold itself.
                let driven = Box::pin(self.drive(parked, step, depth)).await;
                driven.map_or_else(Response::new, |parked| parked.into_response())
            }
        }
    }

    /// Asks upstream, or joins whoever asks the same already.
    fn exchange(self: &Rc<Worker>, parked: &Parked, exchange: Exchange) -> (Role, Waiting) {
        let query = parked.query();
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
            let question = query.question().to_vec();
            let waiting = async move {
                match told.await {
                    Ok(exchanged) => respelled(exchanged, &question),
                    Err(_) => failed("exchange given up"),
                }
            };
            return (role, Box::pin(waiting));
        }
        let leading =
            (role == Role::Leader).then(|| Leading { node: self.node.clone(), key, landed: false });
        // Not the whole query: thousands may wait.
        let wire: Box<[u8]> = query.wire().into();
        let question_end = 12 + query.question().len();
        let dispatcher = self.dispatcher.clone();
        let turn = self.thrift.turn(&self.counters);
        let waiting = async move {
            let exchanged = if turn.comes().await {
                let question = wire.get(12..question_end).unwrap_or_default();
                dispatcher.exchange(&wire, question, &exchange).await
            } else {
                failed(NO_CPU_TIME)
            };
            if let Some(leading) = leading {
                leading.land(&exchanged);
            }
            exchanged
        };
        (role, Box::pin(waiting))
    }
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
    match bytes.get(12..12 + question.len()) {
        Some(theirs) if theirs != question && theirs.eq_ignore_ascii_case(question) => {
            let mut bytes = bytes.to_vec();
            bytes[12..12 + question.len()].copy_from_slice(question);
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
        let query = Query::new(&name.parse().unwrap(), RecordType::A, Class::IN, true);
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
