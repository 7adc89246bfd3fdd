//! Whether serving stands on all that it needs: listeners, interface, rules, upstreams. For /ready, and
//! for a /health that was asked to be strict.
//!
//! Owns what is known of each part, and the two watches that nobody else keeps: of the workers' pulse
//! and of upstreams. Asks nothing and nobody unless a Corefile asks for it.

use crate::admin::Condition;
use crate::metrics::{Registry, names};
use crate::net::{Heartbeat, Workers};
use crate::plugin::{Handler, Monitor, Part};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often the parts are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How often upstreams are while none has answered.
const SOON: Duration = Duration::from_millis(250);

/// How long a worker may take to answer: what a busy one has in hand is done long before.
const PULSE: Duration = Duration::from_secs(3);

/// What is known of each part. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Readiness(Arc<Known>);

#[derive(Debug)]
struct Known {
    /// The parts that are there now, a bit each.
    now: AtomicU8,
    /// Those that were there at some time.
    once: AtomicU8,
    /// The process ends.
    ends: AtomicBool,
}

fn bit(part: Part) -> u8 {
    1 << part as u8
}

/// The words of the parts whose bit is missing, as CoreDNS lists plugins.
fn missing(parts: &[Part], there: u8) -> Result<(), String> {
    let missing: Vec<&str> =
        parts.iter().filter(|part| there & bit(**part) == 0).map(|part| part.word()).collect();
    if missing.is_empty() { Ok(()) } else { Err(missing.join(",")) }
}

impl Readiness {
    /// Nobody listens yet, no upstream has answered; interface and rules are there until somebody
    /// says that they are to be made.
    pub(super) fn new() -> Readiness {
        let there = AtomicU8::new(bit(Part::Interface) | bit(Part::Rules));
        Readiness(Arc::new(Known {
            now: there,
            once: AtomicU8::new(0),
            ends: AtomicBool::new(false),
        }))
    }

    /// The part is there.
    pub(super) fn has(&self, part: Part) {
        self.0.now.fetch_or(bit(part), Ordering::AcqRel);
        self.0.once.fetch_or(bit(part), Ordering::AcqRel);
    }

    /// The part is not there, or no more.
    pub(super) fn lacks(&self, part: Part) {
        self.0.now.fetch_and(!bit(part), Ordering::AcqRel);
    }

    /// The process ends: /ready says so until then.
    pub(super) fn ends(&self) {
        self.0.ends.store(true, Ordering::Release);
    }

    /// What /ready looks at.
    pub(super) fn ready(&self, monitor: Monitor) -> Arc<dyn Condition> {
        Arc::new(Ready { readiness: self.clone(), monitor })
    }

    /// What a /health that is strict about some parts looks at.
    pub(super) fn strict(&self, parts: Vec<Part>) -> Arc<dyn Condition> {
        Arc::new(Strict { readiness: self.clone(), parts })
    }

    /// The parts that are there now.
    fn now(&self) -> u8 {
        self.0.now.load(Ordering::Acquire)
    }

    /// Keeps the part of the listeners until the workers have ended.
    pub(super) async fn watch_listeners(self, heart: Heartbeat) {
        loop {
            // One beat at a time: of a worker that hangs only the next one is waited for.
            let mut beats = pin!(heart.beats());
            let is_alive = match timeout(PULSE, beats.as_mut()).await {
                Ok(is_alive) => is_alive,
                Err(_) => {
                    self.lacks(Part::Listeners);
                    beats.await
                }
            };
            if !is_alive {
                return self.lacks(Part::Listeners);
            }
            self.has(Part::Listeners);
            sleep(EVERY).await;
        }
    }

    /// Keeps the part of the upstreams: one that answers is enough, whoever's it is, for an
    /// unreachable stub domain must not take a node out of service. Shows all parts, too.
    pub(super) async fn watch_upstreams(
        self,
        handlers: Vec<Arc<dyn Handler>>,
        workers: Weak<Workers>,
        metrics: Registry,
    ) {
        let gauges = Part::ALL.map(|part| (part, metrics.gauge(&names::READY, &[part.word()])));
        loop {
            let answers = {
                let Some(workers) = workers.upgrade() else { return };
                let mut all = handlers.iter().filter_map(|handler| handler.upstreams()).peekable();
                // Where nobody is asked nobody has to answer.
                all.peek().is_none() || all.fold(false, |any, one| any | workers.answers(&one))
            };
            if answers {
                self.has(Part::Upstreams)
            } else {
                self.lacks(Part::Upstreams)
            }
            let now = self.now();
            for (part, gauge) in &gauges {
                gauge.set(if now & bit(*part) == 0 { 0.0 } else { 1.0 });
            }
            sleep(if answers { EVERY } else { SOON }).await;
        }
    }
}

#[derive(Debug)]
struct Ready {
    readiness: Readiness,
    monitor: Monitor,
}

impl Condition for Ready {
    fn look(&self) -> Result<(), String> {
        let known = &self.readiness.0;
        if known.ends.load(Ordering::Acquire) {
            return Err("Shutting down".to_owned());
        }
        let there = match self.monitor {
            // A part that needs nothing was never set.
            Monitor::UntilReady => self.readiness.now() | known.once.load(Ordering::Acquire),
            Monitor::Continuously => self.readiness.now(),
        };
        missing(&Part::ALL, there)
    }
}

#[derive(Debug)]
struct Strict {
    readiness: Readiness,
    parts: Vec<Part>,
}

impl Condition for Strict {
    fn look(&self) -> Result<(), String> {
        missing(&self.parts, self.readiness.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(condition: &Arc<dyn Condition>) -> String {
        condition.look().map_or_else(|why| why, |()| "OK".to_owned())
    }

    #[test]
    fn what_is_missing_is_named() {
        let readiness = Readiness::new();
        let ready = readiness.ready(Monitor::default());
        assert_eq!(of(&ready), "listeners,upstreams");
        readiness.lacks(Part::Rules);
        readiness.lacks(Part::Interface);
        readiness.has(Part::Listeners);
        assert_eq!(of(&ready), "interface,rules,upstreams");
        for part in [Part::Upstreams, Part::Interface, Part::Rules] {
            readiness.has(part);
        }
        assert_eq!(of(&ready), "OK");
        readiness.ends();
        assert_eq!(of(&ready), "Shutting down");
    }

    #[test]
    fn what_was_ready_once_is_unready_again_only_for_who_monitors_it() {
        let readiness = Readiness::new();
        let until_ready = readiness.ready(Monitor::UntilReady);
        let continuously = readiness.ready(Monitor::Continuously);
        let strict = readiness.strict(vec![Part::Rules, Part::Listeners]);
        for part in Part::ALL {
            readiness.has(part);
        }
        readiness.lacks(Part::Rules);
        readiness.lacks(Part::Upstreams);
        assert_eq!(of(&until_ready), "OK");
        assert_eq!(of(&continuously), "rules,upstreams");
        assert_eq!(of(&strict), "rules");
        readiness.has(Part::Rules);
        assert_eq!((of(&continuously), of(&strict)), ("upstreams".to_owned(), "OK".to_owned()));
    }
}
