//! The thread for work that belongs to no query: sweeping caches, re-reading hosts files, printing
//! consolidated errors ([`crate::plugin::Handler::upkeep`]), giving free memory back.

use super::ebb::{Ebb, LOOK_EVERY};
use super::log::Log;
use super::surroundings::Machine;
use crate::engine::Snapshot;
use crate::metrics::{Gauge, Registry, names};
use crate::net::{Clock, Spares};
use crate::plugin::{Budget, Handler, Journal, Level};
use crate::sys::memory::{self, Spare};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// The shortest time between two calls of one handler, whatever it asks for.
const SHORTEST: Duration = Duration::from_millis(10);

/// The thread's other end. The thread ends when this is dropped.
pub(super) struct Upkeep {
    /// The snapshot to take up next; the last one wins.
    next: Arc<Mutex<Option<Arc<Snapshot>>>>,
    /// Wakes the thread.
    sender: SyncSender<()>,
}

/// How long to wait for the memory that workers keep: one that is busy goes on keeping it.
const SPARES_LONGEST: Duration = Duration::from_millis(100);

struct Duty {
    handler: Weak<dyn Handler>,
    every: Duration,
    due: Duration,
}

impl Upkeep {
    /// A thread without duties yet.
    pub(super) fn start(
        clock: Clock,
        log: Log,
        metrics: &Registry,
        budget: Arc<Budget>,
        mut spares: Spares,
    ) -> Upkeep {
        let used = gauges(metrics, &budget);
        let (sender, receiver) = sync_channel(1);
        let next = Arc::new(Mutex::new(None));
        let given = next.clone();
        let run = move || {
            let mut duties: Vec<Duty> = Vec::new();
            let mut now = clock.now().monotonic;
            let (mut ebb, mut next_look) = (Ebb::new(now), now + LOOK_EVERY);
            loop {
                now = clock.now().monotonic;
                if now >= next_look {
                    give_back(&mut ebb, &mut spares, now);
                    for ((_, share), gauge) in budget.shares().iter().zip(&used) {
                        gauge.set(share.used() as f64);
                    }
                    next_look = now + LOOK_EVERY;
                }
                let due = duties.iter().map(|duty| duty.due).fold(next_look, Duration::min);
                match receiver.recv_timeout(due.saturating_sub(now)) {
                    Ok(()) => {
                        if let Some(snapshot) = take(&given) {
                            duties = duties_of(&snapshot, clock.now().monotonic);
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        duties.retain_mut(|duty| perform(duty, clock, &log));
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        // Without the thread the server still serves; nothing here is needed for an answer.
        let _ = std::thread::Builder::new().name("upkeep".to_owned()).spawn(run);
        Upkeep { next, sender }
    }

    /// From now on the duties are those of `snapshot`'s handlers.
    pub(super) fn replace(&self, snapshot: &Arc<Snapshot>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
        // Full means that the thread is about to look anyway: never wait for slow upkeep here.
        let _ = self.sender.try_send(());
    }
}

/// Shows limit and shares, if there are any; the gauges for what is used of each.
fn gauges(metrics: &Registry, budget: &Budget) -> Vec<Gauge> {
    if let Some(limit) = budget.limit() {
        metrics.gauge(&names::MEMORY_LIMIT, &[]).set(limit as f64);
        for (part, share) in budget.shares() {
            metrics.gauge(&names::MEMORY_SHARE, &[part]).set(share.most() as f64);
        }
    }
    let gauge = |(part, _)| metrics.gauge(&names::MEMORY_USED, &[part]);
    budget.shares().map(gauge).into()
}

/// Gives free memory back when it is time.
fn give_back(ebb: &mut Ebb, spares: &mut Spares, now: Duration) {
    let Some(before) = memory::resident() else { return };
    if ebb.is_due(before, now) {
        let mut spare = spares.collect(SPARES_LONGEST);
        spare.push(Spare::of_this_thread());
        memory::give_back(spare);
        ebb.given_back(before, memory::resident().unwrap_or(before), now);
    }
}

fn take(given: &Mutex<Option<Arc<Snapshot>>>) -> Option<Arc<Snapshot>> {
    given.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn duties_of(snapshot: &Snapshot, now: Duration) -> Vec<Duty> {
    let handlers = snapshot.blocks.iter().flat_map(|block| &block.chain);
    handlers
        .filter_map(|handler| {
            let every = handler.upkeep_every()?.max(SHORTEST);
            Some(Duty { handler: Arc::downgrade(handler), every, due: now + every })
        })
        .collect()
}

/// Calls a handler that is due; false when it is gone with its snapshot.
fn perform(duty: &mut Duty, clock: Clock, log: &Log) -> bool {
    let now = clock.now();
    if duty.due > now.monotonic {
        return true;
    }
    let Some(handler) = duty.handler.upgrade() else { return false };
    let call = AssertUnwindSafe(|| handler.upkeep(now, &Machine, log));
    if catch_unwind(call).is_err() {
        let word = handler.word();
        log.line(Level::Error, format_args!("plugin/{word}: panic in periodic work"));
    }
    duty.due = clock.now().monotonic + duty.every;
    true
}
