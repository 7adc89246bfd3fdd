//! Sends dnstap records to their collectors: one thread for each endpoint, never one that serves.
//!
//! Owns the connections, when they are tried again, and what is said about them. Takes the records
//! ready made from [`Tap`]s, whose bounds hold what a slow or missing collector leaves.

mod endpoint;
mod frames;

use self::endpoint::{Line, words};
use crate::corefile::system_error_text;
use crate::plugin::dnstap::Tap;
use crate::plugin::{Journal, Level};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{JoinHandle, park, park_timeout};
use std::time::{Duration, Instant};

/// How long records gather before they are sent together.
const GATHER: Duration = Duration::from_millis(100);

/// The pause before a collector is tried again, and the time between two looks at an idle one.
const RETRY: Duration = Duration::from_secs(1);

/// The least time between two lines about dropped records.
const REPORT: Duration = Duration::from_secs(10);

/// How long the last records may take when the process ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// The senders that run now.
pub struct Senders {
    journal: Arc<dyn Journal>,
    running: Vec<Running>,
}

struct Running {
    tap: Arc<Tap>,
    is_ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    /// Disconnected when the thread is done.
    done: Receiver<()>,
}

impl Senders {
    /// None yet.
    pub fn new(journal: Arc<dyn Journal>) -> Senders {
        Senders { journal, running: Vec::new() }
    }

    /// From now on the senders are those of `taps`; those that stay keep their connection, the
    /// others send what they have and end.
    pub fn replace<'t>(&mut self, taps: impl IntoIterator<Item = &'t Arc<Tap>>) {
        let mut before = std::mem::take(&mut self.running);
        for tap in taps {
            let known = before.iter().position(|running| Arc::ptr_eq(&running.tap, tap));
            match known {
                Some(place) => self.running.push(before.swap_remove(place)),
                None => self.running.extend(start(tap.clone(), &self.journal)),
            }
        }
        for gone in &before {
            gone.end();
        }
    }

    /// Sends what is left and closes the connections; returns after two seconds at the latest.
    /// Blocks.
    pub fn stop(self) {
        for running in &self.running {
            running.end();
        }
        let until = Instant::now() + FAREWELL;
        for running in &self.running {
            let left = until.saturating_duration_since(Instant::now());
            if running.done.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

impl Running {
    fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }
}

fn start(tap: Arc<Tap>, journal: &Arc<dyn Journal>) -> Option<Running> {
    let is_ending = Arc::new(AtomicBool::new(false));
    let (alive, done) = sync_channel(0);
    let mut sender = Sender {
        tap: tap.clone(),
        journal: journal.clone(),
        is_ending: is_ending.clone(),
        frames: Vec::new(),
        has_failed: false,
        reported: tap.dropped.value(),
        report_at: Instant::now(),
    };
    let run = move || {
        sender.run();
        drop(alive);
    };
    match std::thread::Builder::new().name("dnstap".to_owned()).spawn(run) {
        Ok(thread) => {
            let sleeper = thread.thread().clone();
            tap.wake_with(move || sleeper.unpark());
            Some(Running { tap, is_ending, thread, done })
        }
        Err(error) => {
            journal.line(
                Level::Error,
                format_args!("plugin/dnstap: no thread: {}", system_error_text(&error)),
            );
            None
        }
    }
}

/// One endpoint's thread.
struct Sender {
    tap: Arc<Tap>,
    journal: Arc<dyn Journal>,
    is_ending: Arc<AtomicBool>,
    /// The records that are being sent.
    frames: Vec<u8>,
    /// It was said that there is no connection.
    has_failed: bool,
    /// How many dropped records were reported.
    reported: u64,
    report_at: Instant,
}

impl Sender {
    fn run(&mut self) {
        let mut line: Option<Line> = None;
        loop {
            let is_last = self.is_ending.load(Ordering::Acquire);
            // A collector that went while nothing was sent: what waits is for the next connection.
            line = line.and_then(|mut open| (!open.is_closed()).then_some(open));
            // At the end once more, for what waits.
            if line.is_none() && !(is_last && self.tap.is_empty()) {
                line = self.connect();
            }
            if let Some(open) = &mut line
                && let Err(error) = send(&self.tap, &mut self.frames, open)
            {
                let what = words(&error);
                self.say(Level::Warning, &format!("Could not write to dnstap endpoint: {what}"));
                line = None;
            }
            self.report();
            if is_last {
                match line {
                    // A collector that does not say goodbye has the records all the same.
                    Some(line) => drop(line.close()),
                    None => {
                        self.tap.dropped.add(self.tap.take(&mut self.frames) as u64);
                        self.tap.sent(&mut self.frames);
                    }
                }
                return;
            }
            match line {
                Some(_) => self.wait_for_records(),
                None => self.wait_to_try_again(),
            }
        }
    }

    /// Until the collector may be there again, or the end.
    fn wait_to_try_again(&self) {
        let until = Instant::now() + RETRY;
        while !self.is_ending.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            park_timeout(left);
        }
    }

    /// Until records wait, some more have had time to come, or the end.
    fn wait_for_records(&self) {
        if self.tap.is_empty() && !self.is_ending.load(Ordering::Acquire) {
            park();
        }
        if !self.is_ending.load(Ordering::Acquire) {
            park_timeout(GATHER);
        }
    }

    fn connect(&mut self) -> Option<Line> {
        match Line::open(&self.tap) {
            Ok(line) => {
                if std::mem::take(&mut self.has_failed) {
                    self.say(Level::Info, "Connected to dnstap endpoint");
                }
                Some(line)
            }
            Err(why) => {
                // Once for each time that it is away: it is tried every second.
                if !std::mem::replace(&mut self.has_failed, true) {
                    self.say(Level::Error, &format!("No connection to dnstap endpoint: {why}"));
                }
                None
            }
        }
    }

    /// Says how many records were dropped, now and then.
    fn report(&mut self) {
        let dropped = self.tap.dropped.value();
        if dropped > self.reported && Instant::now() >= self.report_at {
            let count = dropped - self.reported;
            self.say(Level::Warning, &format!("Dropped dnstap messages: {count}"));
            self.reported = dropped;
            self.report_at = Instant::now() + REPORT;
        }
    }

    fn say(&self, level: Level, text: &str) {
        self.journal.line(level, format_args!("plugin/dnstap: {text}"));
    }
}

/// Sends all that waits. Records that were on their way when it failed are counted as dropped: the
/// collector may have some of them, and must not get them twice.
fn send(tap: &Tap, frames: &mut Vec<u8>, line: &mut Line) -> std::io::Result<()> {
    let count = tap.take(frames);
    if count == 0 {
        return Ok(());
    }
    let written = line.write(frames).inspect_err(|_| tap.dropped.add(count as u64));
    tap.sent(frames);
    written
}

#[cfg(test)]
mod tests;
