//! What a serving process does once a successor is there: offers, waits for it to read, stops reading,
//! answers what had come, and ends; or serves again when the successor is gone.
//!
//! Owns the decision when this process is no longer needed. Leaves interface and rules to whoever
//! claims them ([`super::node`]); never writes the kept cache or the pid file once another process
//! serves.

use super::handover::{AfterHandover, Event, Heir, Offer};
use super::run::{Run, write_pidfile};
use super::signals::Asked;
use crate::plugin::{Journal, Level};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long SIGTERM waits for a successor that has been offered everything: it lies within the grace
/// period that Kubernetes gives by default.
const HEIR_TIME: Duration = Duration::from_secs(15);

/// How long a successor serves before its predecessor ends by itself: one that crashes at its start, or
/// at its first look at what it watches, does so by then. Whoever starts a second node-cache beside the
/// first finds both running for seconds, on a slow machine too.
const PROOF_TIME: Duration = Duration::from_secs(10);

/// How a rest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rested {
    /// This process is to end.
    End,
    /// It is to serve again.
    Returned,
}

impl Run {
    /// Does what a conversation asks for; gives the successor once that reads.
    pub(super) fn answer(&mut self, event: Event) -> Option<Heir> {
        match event {
            Event::Wanted(answer) => {
                // Who asked may have lost patience: then it says that it has ended.
                let _ = answer.send(self.offer());
                None
            }
            Event::Ended => {
                self.serving.own_sockets();
                // It may have shut ours with its own.
                self.giver.open(self.serving.snapshot());
                None
            }
            Event::Gone => {
                self.serving.own_sockets();
                None
            }
            Event::Committed(heir) => Some(heir),
            Event::Returned => None,
        }
    }

    /// `None` when there are no descriptors left.
    fn offer(&self) -> Option<Offer> {
        self.listening().ok().map(|listening| self.serving.offer(listening))
    }

    /// At SIGTERM: the successor that is about to read, if there is one. Its pod may have been taken
    /// for ready because of our answers.
    pub(super) async fn wait_for_heir(&mut self) -> Option<Heir> {
        if !self.giver.is_busy() {
            return None;
        }
        self.log
            .line(Level::Info, format_args!("SIGTERM: Waiting for the process that takes over"));
        let mut end = pin!(sleep(HEIR_TIME));
        loop {
            tokio::select! {
                () = &mut end => return None,
                event = self.giver.next() => {
                    let has_ended = matches!(event, Event::Ended);
                    let heir = self.answer(event);
                    if heir.is_some() || has_ended {
                        return heir;
                    }
                }
                asked = self.signals.next() => if asked != Asked::Reload { return None },
            }
        }
    }

    /// A successor reads. Breaks with the exit code once this process is not needed any more; goes on
    /// when it is to serve again.
    pub(super) async fn hand_over(
        mut self,
        heir: Heir,
        after: AfterHandover,
    ) -> ControlFlow<u8, Run> {
        self.giver.shut();
        let resting = self.serving.retire(&heir).await;
        self.giver.tell_done(&heir);
        self.notify.handed_to(heir.process);
        if let Some((_, site)) = &self.metrics_site {
            site.rest().await;
        }
        match self.rest(Arc::new(heir), after).await {
            Rested::End => {
                self.serving.flush_handlers();
                self.network.leave_at_once().await;
                self.serving.bid_farewell();
                self.serving.stop(self.store.keeper()).await;
                ControlFlow::Break(0)
            }
            Rested::Returned => {
                self.serving.resume(resting).await;
                self.keep_sockets().await;
                if let Some((_, site)) = &self.metrics_site {
                    site.resume();
                }
                self.giver.tell_returned();
                self.giver.open(self.serving.snapshot());
                self.notify.handed_to(std::process::id());
                if let Some(path) = &self.pidfile {
                    write_pidfile(path, &self.log);
                }
                ControlFlow::Continue(self)
            }
        }
    }

    /// Answers what had come, then ends or waits.
    async fn rest(&mut self, heir: Arc<Heir>, mut after: AfterHandover) -> Rested {
        let mut drained = pin!(self.serving.drain_to(heir));
        let mut is_drained = false;
        let mut proof = pin!(sleep(PROOF_TIME));
        loop {
            if is_drained && after == AfterHandover::End {
                return Rested::End;
            }
            tokio::select! {
                () = &mut drained, if !is_drained => is_drained = true,
                () = &mut proof, if after == AfterHandover::Prove => after = AfterHandover::End,
                event = self.giver.next() => match event {
                    Event::Returned => return Rested::Returned,
                    Event::Gone => self.serving.own_sockets(),
                    Event::Wanted(_) | Event::Ended | Event::Committed(_) => {}
                },
                asked = self.signals.next() => match asked {
                    Asked::Quit => return Rested::End,
                    Asked::Terminate | Asked::Interrupt => after = AfterHandover::End,
                    Asked::Reload => {}
                },
            }
        }
    }
}
