//! Where lines for the operator go: standard error with a time stamp before the start, standard
//! output without one afterwards, as node-cache does it; with `-log-format json` one object a line.
//!
//! Owns the writer thread and its bound: whoever logs never waits for a slow reader of our output;
//! what does not fit is dropped and counted.

use crate::metrics::{Counter, Registry, names};
use crate::plugin::{Journal, Level};
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::macros::format_description;

/// The greatest number of lines that wait to be written.
pub(super) const MOST_LINES: usize = 8192;

/// The most octets that they may have together, [`LINE_OCTETS`] for each among them.
pub(super) const MOST_OCTETS: usize = 1 << 20;

/// What a line that waits takes beside its text.
const LINE_OCTETS: usize = 32;

/// The greatest length of a line in octets; the rest is cut. The generated Corefile is logged
/// whole, so this is generous.
pub(super) const LONGEST_LINE: usize = 64 * 1024;

/// How long the end of the process waits for lines to be written.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// How long the writer rests in a flood of lines: meanwhile they gather, and whoever logs wakes
/// nobody. It would be woken for each, which costs more than the line.
const REST: Duration = Duration::from_millis(25);

/// More lines than this within [`WINDOW`] are a flood; up to them each is written as it comes, as are the dozen
/// of a start. 160 lines a second: to wake the writer for each takes a thirtieth of a CPU limit of 100m.
const FLOOD: u32 = 40;
const WINDOW: Duration = Duration::from_millis(250);

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// node-cache's: `[INFO] plugin/reload: …`.
    Text,
    /// `{"ts":"2026-01-02T03:04:05.678Z","level":"info","plugin":"reload","msg":"…"}`.
    Json,
}

enum Message {
    Line(Box<str>),
    Flush(SyncSender<()>),
}

/// The log. Cloning shares it.
#[derive(Clone)]
pub(super) struct Log(Arc<Inner>);

/// The name of the thread that writes.
pub(super) const THREAD: &str = "log";

struct Inner {
    has_started: AtomicBool,
    /// The [`Level`] of the least lines that are shown.
    least: AtomicU8,
    is_json: AtomicBool,
    sender: SyncSender<Message>,
    /// Octets of the lines that wait.
    waiting: Arc<AtomicUsize>,
    dropped: Counter,
}

impl Log {
    /// A log that writes to standard error until [`Log::start`].
    pub(super) fn new(metrics: &Registry) -> Log {
        let (sender, receiver) = sync_channel(MOST_LINES);
        let waiting = Arc::default();
        let written = Arc::clone(&waiting);
        // Without the thread lines are dropped and counted: no reason not to serve.
        let _ = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || write_lines(&receiver, &written, io::stdout()));
        Log(Arc::new(Inner {
            has_started: AtomicBool::new(false),
            least: AtomicU8::new(Level::Info as u8),
            is_json: AtomicBool::new(false),
            sender,
            waiting,
            dropped: metrics.counter(&names::LOG_LINES_DROPPED, &[]),
        }))
    }

    /// From now on lines go to standard output, without time stamp.
    pub(super) fn start(&self) {
        self.0.has_started.store(true, Ordering::Release);
    }

    /// From now on lines are written in this format; text before.
    pub(super) fn write_as(&self, format: Format) {
        self.0.is_json.store(format == Format::Json, Ordering::Release);
    }

    /// Lines without a level, as they are: the zones and versions of the start.
    pub(super) fn plain(&self, text: &str) {
        match self.is_json() {
            false => self.put(text.to_owned()),
            true => self.put_object("info", text),
        }
    }

    /// A line `[FATAL] …`.
    pub(super) fn fatal(&self, text: fmt::Arguments<'_>) {
        self.put_line("FATAL", text);
    }

    /// The last line of a process that cannot serve: on standard error, without level or time
    /// stamp unless lines are objects.
    pub(super) fn last_word(&self, why: &str) {
        self.flush();
        let line = match self.is_json() {
            false => why.to_owned(),
            true => object(OffsetDateTime::now_utc(), "fatal", why),
        };
        // Nobody reads: nothing to be done about it.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// Waits, but not for long, until what was logged is written.
    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.0.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIME);
        }
    }

    fn is_json(&self) -> bool {
        self.0.is_json.load(Ordering::Acquire)
    }

    fn put_line(&self, level: &str, text: fmt::Arguments<'_>) {
        match self.is_json() {
            false => self.put(format!("[{level}] {text}")),
            true => self.put_object(&level.to_lowercase(), &text.to_string()),
        }
    }

    fn put_object(&self, level: &str, text: &str) {
        self.hand_over(object(OffsetDateTime::now_utc(), level, cut(text)));
    }

    fn put(&self, mut text: String) {
        text.truncate(cut(&text).len());
        // A text that ends its own line gets no empty one behind it, as with Go's log.
        if text.ends_with('\n') {
            text.pop();
        }
        if !self.0.has_started.load(Ordering::Acquire) {
            text = format!("{} {text}", time_stamp(OffsetDateTime::now_utc()));
        }
        self.hand_over(text);
    }

    fn hand_over(&self, line: String) {
        if !self.0.has_started.load(Ordering::Acquire) {
            let _ = writeln!(io::stderr().lock(), "{line}");
        } else if !self.has_queued(line) {
            self.0.dropped.increment();
        }
    }

    /// Has the line written; false when too much waits already.
    fn has_queued(&self, line: String) -> bool {
        let octets = line.len() + LINE_OCTETS;
        let fits = self.0.waiting.fetch_add(octets, Ordering::Relaxed) + octets <= MOST_OCTETS;
        let has_queued = fits && self.0.sender.try_send(Message::Line(line.into())).is_ok();
        if !has_queued {
            self.0.waiting.fetch_sub(octets, Ordering::Relaxed);
        }
        has_queued
    }
}

impl Journal for Log {
    fn show_from(&self, least: Level) {
        self.0.least.store(least as u8, Ordering::Relaxed);
    }

    fn line(&self, level: Level, text: fmt::Arguments<'_>) {
        if level as u8 >= self.0.least.load(Ordering::Relaxed) {
            self.put_line(level.word(), text);
        }
    }

    fn query_line(&self, text: fmt::Arguments<'_>) {
        match self.is_json() {
            false => self.line(Level::Info, text),
            true => self.put_object("info", &format!("plugin/log: {text}")),
        }
    }
}

/// The longest beginning of `text` that a line may have.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_LINE)]
}

/// One line as a JSON object; `plugin/NAME: ` in front of the text is a field of its own.
fn object(time: OffsetDateTime, level: &str, text: &str) -> String {
    let named = text.strip_prefix("plugin/").and_then(|rest| rest.split_once(": "));
    let is_name = |name: &str| name.bytes().all(|octet| octet.is_ascii_alphanumeric());
    let (plugin, message) = named.filter(|(name, _)| is_name(name)).unwrap_or(("", text));
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    format!(
        "{{\"ts\":\"{}\",\"level\":\"{level}\",\"plugin\":\"{plugin}\",\"msg\":{}}}",
        time.format(&format).unwrap_or_default(),
        serde_json::Value::from(message)
    )
}

/// Writes until the last sender is gone; flushes whenever nothing more waits. Errors of the output
/// (a closed pipe) are nobody's to hear.
fn write_lines(receiver: &Receiver<Message>, waiting: &AtomicUsize, output: impl Write) {
    let mut output = BufWriter::new(output);
    let mut pace = Pace { since: Instant::now(), lines: 0 };
    while let Ok(mut message) = receiver.recv() {
        let mut lines = 0;
        loop {
            match message {
                Message::Line(text) => {
                    lines += 1;
                    waiting.fetch_sub(text.len() + LINE_OCTETS, Ordering::Relaxed);
                    let _ =
                        output.write_all(text.as_bytes()).and_then(|()| output.write_all(b"\n"));
                }
                Message::Flush(done) => {
                    let _ = output.flush();
                    let _ = done.try_send(());
                }
            }
            match receiver.try_recv() {
                Ok(next) => message = next,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let _ = output.flush();
        if pace.is_flood(Instant::now(), lines) {
            std::thread::sleep(REST);
        }
    }
}

/// How many lines were written lately.
struct Pace {
    since: Instant,
    lines: u32,
}

impl Pace {
    /// Whether there are so many, these among them, that the writer shall rest.
    fn is_flood(&mut self, now: Instant, lines: u32) -> bool {
        if now.saturating_duration_since(self.since) > WINDOW {
            *self = Pace { since: now, lines: 0 };
        }
        self.lines = self.lines.saturating_add(lines);
        self.lines > FLOOD
    }
}

/// `2006/01/02 15:04:05`, UTC (containers run in UTC).
fn time_stamp(time: OffsetDateTime) -> String {
    let format = format_description!("[year]/[month]/[day] [hour]:[minute]:[second]");
    time.format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(bound: usize) -> (Log, Receiver<Message>) {
        let (sender, receiver) = sync_channel(bound);
        let inner = Inner {
            has_started: AtomicBool::new(true),
            least: AtomicU8::new(Level::Info as u8),
            is_json: AtomicBool::new(false),
            sender,
            waiting: Arc::default(),
            dropped: Registry::new(0).counter(&names::LOG_LINES_DROPPED, &[]),
        };
        (Log(Arc::new(inner)), receiver)
    }

    #[test]
    fn lines_are_written_in_order_with_their_level() {
        let (log, receiver) = log(10);
        log.line(Level::Info, format_args!("a {}", 1));
        log.line(Level::Debug, format_args!("hidden"));
        log.show_from(Level::Debug);
        log.line(Level::Debug, format_args!("shown"));
        log.plain("b");
        let waiting = log.0.waiting.clone();
        drop(log);
        let sink = Sink::default();
        write_lines(&receiver, &waiting, sink.clone());
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
        assert_eq!(*sink.0.lock().unwrap(), b"[INFO] a 1\n[DEBUG] shown\nb\n");
    }

    #[test]
    fn a_line_as_an_object_has_its_time_level_plugin_and_text() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_136_214_245_007_000_000).unwrap();
        for (level, text, fields) in [
            (
                "info",
                "plugin/reload: \"x\"\ny: z",
                r#""level":"info","plugin":"reload","msg":"\"x\"\ny: z"}"#,
            ),
            ("error", "Restart failed", r#""level":"error","plugin":"","msg":"Restart failed"}"#),
            ("info", "plugin/a b: c", r#""level":"info","plugin":"","msg":"plugin/a b: c"}"#),
        ] {
            let line = object(time, level, text);
            assert_eq!(line, format!("{{\"ts\":\"2006-01-02T15:04:05.007Z\",{fields}"));
            assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        }
    }

    #[test]
    fn every_kind_of_line_is_an_object_when_asked_for() {
        let (log, receiver) = log(10);
        log.write_as(Format::Json);
        log.line(Level::Warning, format_args!("plugin/hosts: a"));
        log.query_line(format_args!("127.0.0.1:5 - 7 \"A IN a. udp\""));
        log.plain(".:53 on ::1");
        log.fatal(format_args!("b"));
        let waiting = log.0.waiting.clone();
        drop(log);
        let sink = Sink::default();
        write_lines(&receiver, &waiting, sink.clone());
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let seen: Vec<_> = text
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                ["level", "plugin", "msg"].map(|key| line[key].as_str().unwrap().to_owned())
            })
            .collect();
        assert_eq!(
            seen,
            [
                ["warning", "hosts", "a"],
                ["info", "log", "127.0.0.1:5 - 7 \"A IN a. udp\""],
                ["info", "", ".:53 on ::1"],
                ["fatal", "", "b"],
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (log, _receiver) = log(2);
        for _ in 0..5 {
            log.line(Level::Error, format_args!("x"));
        }
        assert_eq!(log.0.dropped.value(), 3);
    }

    #[test]
    fn long_lines_that_wait_are_dropped_beyond_a_mebibyte() {
        let (log, receiver) = log(MOST_LINES);
        let text = "x".repeat(1024 - LINE_OCTETS);
        for _ in 0..2 * MOST_OCTETS / 1024 {
            log.plain(&text);
        }
        assert_eq!(log.0.dropped.value() as usize, MOST_OCTETS / 1024);
        assert_eq!(receiver.try_iter().count(), MOST_OCTETS / 1024);
        assert_eq!(log.0.waiting.load(Ordering::Relaxed), MOST_OCTETS);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let (log, receiver) = log(2);
        log.plain(&"ä".repeat(LONGEST_LINE));
        let Ok(Message::Line(line)) = receiver.try_recv() else { panic!("no line") };
        assert_eq!(line.len(), LONGEST_LINE);
    }

    #[test]
    fn the_writer_rests_in_a_flood_alone() {
        let begun = Instant::now();
        let mut pace = Pace { since: begun, lines: 0 };
        // A hundred lines a second, evenly.
        for line in 0..100 {
            assert!(!pace.is_flood(begun + line * Duration::from_millis(10), 1));
        }
        let later = begun + Duration::from_secs(2);
        assert!((0..FLOOD).all(|_| !pace.is_flood(later, 1)));
        assert!(pace.is_flood(later, 1));
        assert!(pace.is_flood(later + REST, 1), "it goes on");
        assert!(!pace.is_flood(later + WINDOW + REST, 1), "it is over");
        assert!(pace.is_flood(later + 3 * WINDOW, FLOOD + 1));
    }

    #[test]
    fn time_stamps_are_gos() {
        let time = OffsetDateTime::from_unix_timestamp(1_136_214_245).unwrap();
        assert_eq!(time_stamp(time), "2006/01/02 15:04:05");
    }
}
