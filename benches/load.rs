//! A load generator with a clock: queries become due at a given rate, whether or not the server keeps
//! up, and a latency counts from the moment its query was due. So a server that pauses is charged for
//! all that waited. dnsperf sends at a rate too, but reports no percentiles.
//!
//!   load --server 127.0.0.1:53 --seconds 4 [--sockets 16] [--patience 1] --stream LABEL:RATE:SOURCE ...
//!
//! A response that takes longer than the patience, in seconds, counts as lost.
//!
//!   load --walk SECONDS
//!
//! measures the core that it runs on instead: how long the same walk through memory takes, every 5 ms. Other
//! machines on the same host share its cache, and what a server pays for a query hangs on that. `ready` is
//! printed before the first walk, at the end the median, in microseconds.
//!
//! SOURCE is a file of `name type` lines, asked in order, or `unique=ZONE` for names that never come
//! twice. One JSON object is printed: a member for each stream. Needs nothing but the standard library,
//! so that `rustc -O benches/load.rs` makes it; benches/lab.py does.

// Its output is for the script that started it; its arguments come from there.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)] // A program of its own, that says what it measured.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where the stream's number stands in a slot, above the nanoseconds.
const STREAM_SHIFT: u32 = 56;
/// Buckets of a histogram: 32 for each power of two of nanoseconds.
const BUCKETS: usize = 64 * 32;

fn main() {
    match run() {
        Ok(report) => println!("{report}"),
        Err(reason) => {
            eprintln!("load: {reason}");
            std::process::exit(64);
        }
    }
}

/// The queries of one stream.
enum Source {
    /// Encoded with id 0, asked round and round.
    Listed(Vec<Vec<u8>>),
    /// A zone in wire form, below which each query has a name of its own.
    Unique(Vec<u8>),
}

struct Stream {
    label: String,
    source: Source,
    /// Nanoseconds between queries, on average.
    gap: f64,
    due: u64,
    count: u64,
}

struct Options {
    server: SocketAddr,
    seconds: f64,
    sockets: usize,
    patience: f64,
    streams: Vec<Stream>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        server: ([127, 0, 0, 1], 53).into(),
        seconds: 4.0,
        sockets: 16,
        patience: 1.0,
        streams: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let wrong = |_| format!("{word}: not understood: {value}");
        match word.as_str() {
            "--server" => options.server = value.parse().map_err(|_| wrong(()))?,
            "--seconds" => options.seconds = value.parse().map_err(|_| wrong(()))?,
            "--sockets" => options.sockets = value.parse().map_err(|_| wrong(()))?,
            "--patience" => options.patience = value.parse().map_err(|_| wrong(()))?,
            "--stream" => options.streams.push(stream(&value)?),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    if !(options.patience > 0.0 && options.patience <= 60.0) {
        return Err(format!("a patience of {} s is of no use", options.patience));
    }
    if options.streams.is_empty() || options.streams.len() > 100 || options.sockets == 0 {
        return Err("needs --stream LABEL:RATE:SOURCE and at least one socket".into());
    }
    Ok(options)
}

fn stream(text: &str) -> Result<Stream, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(label), Some(rate), Some(source)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(format!("a stream is LABEL:RATE:SOURCE, not {text}"));
    };
    let rate: f64 = rate.parse().map_err(|_| format!("{rate} is no rate"))?;
    if !(rate > 0.0 && rate <= 10_000_000.0) {
        return Err(format!("{rate} queries a second cannot be sent"));
    }
    let source = match source.strip_prefix("unique=") {
        Some(zone) => Source::Unique(name(zone)?),
        None => {
            let text =
                std::fs::read_to_string(source).map_err(|error| format!("{source}: {error}"))?;
            let queries: Result<Vec<_>, _> = text.lines().map(query).collect();
            Source::Listed(queries.and_then(|queries| {
                if queries.is_empty() { Err(format!("{source} is empty")) } else { Ok(queries) }
            })?)
        }
    };
    Ok(Stream { label: label.into(), source, gap: 1e9 / rate, due: 0, count: 0 })
}

/// A name in wire form.
fn name(text: &str) -> Result<Vec<u8>, String> {
    let mut wire = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).map_err(|_| format!("{text}: a label is too long"))?);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    Ok(wire)
}

/// A query with RD and id 0 from a `name type` line.
fn query(line: &str) -> Result<Vec<u8>, String> {
    let mut words = line.split_whitespace();
    let (Some(owner), Some(kind)) = (words.next(), words.next()) else {
        return Err(format!("`{line}` is not a name and a type"));
    };
    let kind = match kind {
        "A" => 1,
        "AAAA" => 28,
        _ => return Err(format!("type {kind} is not known here")),
    };
    Ok(message(&name(owner)?, kind))
}

fn message(owner: &[u8], kind: u8) -> Vec<u8> {
    let mut wire = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    wire.extend_from_slice(owner);
    wire.extend_from_slice(&[0, kind, 0, 1]);
    wire
}

/// A socket and, for each id, what is in flight under it: zero, or the stream's number above the
/// nanoseconds from the start at which the query was due, plus one.
struct Lane {
    socket: UdpSocket,
    slots: Vec<AtomicU64>,
}

#[derive(Clone)]
struct Tally {
    sent: u64,
    answered: u64,
    failed: u64,
    overdue: u64,
    /// Nanoseconds, of those in time.
    slowest: u64,
    latencies: Vec<u64>,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            sent: 0,
            answered: 0,
            failed: 0,
            overdue: 0,
            slowest: 0,
            latencies: vec![0; BUCKETS],
        }
    }

    fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.failed += other.failed;
        self.overdue += other.overdue;
        self.slowest = self.slowest.max(other.slowest);
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            *mine += theirs;
        }
    }

    /// Microseconds that `share` of the latencies do not exceed, to 3 %.
    fn percentile(&self, share: f64) -> f64 {
        let total: u64 = self.latencies.iter().sum();
        let rank = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.latencies.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return bucket_start(bucket + 1) / 1e3;
            }
        }
        0.0
    }
}

fn bucket(nanoseconds: u64) -> usize {
    let value = nanoseconds.max(32);
    let power = 63 - value.leading_zeros();
    (power as usize * 32 + ((value >> (power - 5)) & 31) as usize).min(BUCKETS - 1)
}

fn bucket_start(bucket: usize) -> f64 {
    (1.0 + (bucket % 32) as f64 / 32.0) * 2f64.powi((bucket / 32) as i32)
}

/// Takes responses until told to stop; one tally for each stream. `patience` is in nanoseconds.
fn receive(
    lane: &Lane,
    streams: usize,
    patience: u64,
    start: Instant,
    stop: &AtomicBool,
) -> Vec<Tally> {
    let mut tallies = vec![Tally::new(); streams];
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = lane.socket.recv(&mut buffer) else { continue };
        if length < 12 || buffer[2] & 0x80 == 0 {
            continue;
        }
        let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
        let slot = lane.slots[id].swap(0, Ordering::AcqRel);
        let Some(tally) = tallies.get_mut((slot >> STREAM_SHIFT) as usize) else { continue };
        if slot == 0 {
            continue;
        }
        let due = (slot & ((1 << STREAM_SHIFT) - 1)) - 1;
        let took = (start.elapsed().as_nanos() as u64).saturating_sub(due);
        if took > patience {
            tally.overdue += 1;
            continue;
        }
        tally.answered += 1;
        tally.slowest = tally.slowest.max(took);
        tally.failed += u64::from(buffer[3] & 15 != 0 || buffer[6..8] == [0, 0]);
        tally.latencies[bucket(took)] += 1;
    }
    tallies
}

/// How long a walk through memory takes, in the median of those of so many seconds.
fn walk(seconds: f64) -> String {
    // More than a core's own cache holds, in an order that cannot be foreseen.
    const PLACES: usize = 2 << 17;
    const STEPS: usize = 200;
    let mut order: Vec<usize> = (0..PLACES).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for place in (1..PLACES).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order.swap(place, random as usize % (place + 1));
    }
    let mut next = vec![0; PLACES];
    for pair in order.windows(2) {
        next[pair[0]] = pair[1];
    }
    next[order[PLACES - 1]] = order[0];
    // That took the core for milliseconds: the load may begin now.
    println!("ready");
    let (start, mut place, mut took) = (Instant::now(), 0, Vec::new());
    while start.elapsed().as_secs_f64() < seconds {
        std::thread::sleep(Duration::from_millis(5));
        let begin = Instant::now();
        for _ in 0..STEPS {
            place = next[place];
        }
        std::hint::black_box(place);
        took.push(begin.elapsed().as_nanos() as u64);
    }
    took.sort_unstable();
    format!("{:.1}", took.get(took.len() / 2).map_or(0.0, |median| *median as f64 / 1e3))
}

fn run() -> Result<String, String> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("--walk") {
        let seconds = words.next().and_then(|text| text.parse().ok());
        return seconds.map(walk).ok_or_else(|| "--walk needs seconds".into());
    }
    let mut options = options()?;
    let local: SocketAddr = if options.server.is_ipv4() {
        ([127, 0, 0, 1], 0).into()
    } else {
        (std::net::Ipv6Addr::LOCALHOST, 0).into()
    };
    let mut lanes = Vec::new();
    for _ in 0..options.sockets {
        let socket = UdpSocket::bind(local).and_then(|socket| {
            socket.connect(options.server)?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(socket)
        });
        let socket = socket.map_err(|error| format!("a socket to {}: {error}", options.server))?;
        let slots = (0..=u16::MAX).map(|_| AtomicU64::new(0)).collect();
        lanes.push(Arc::new(Lane { socket, slots }));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let streams = options.streams.len();
    let patience = Duration::from_secs_f64(options.patience);
    let nanoseconds = patience.as_nanos() as u64;
    let receivers: Vec<_> = lanes
        .iter()
        .map(|lane| {
            let (lane, stop) = (lane.clone(), stop.clone());
            std::thread::spawn(move || receive(&lane, streams, nanoseconds, start, &stop))
        })
        .collect();
    let (mut tallies, lateness) = send(&mut options, &lanes, start);
    settle(&lanes, patience);
    stop.store(true, Ordering::Relaxed);
    for receiver in receivers {
        let received = receiver.join().map_err(|_| "a receiving thread ended early")?;
        tallies.iter_mut().zip(&received).for_each(|(tally, more)| tally.add(more));
    }
    Ok(report(&options, &tallies, &lateness))
}

/// Sends what is due until the time is over; what was sent, and how late.
fn send(options: &mut Options, lanes: &[Arc<Lane>], start: Instant) -> (Vec<Tally>, Tally) {
    let mut tallies = vec![Tally::new(); options.streams.len()];
    let mut lateness = Tally::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id()) << 20;
    let mut ids = vec![0u16; lanes.len()];
    let mut turn = 0;
    let mut wire = Vec::new();
    let end = (options.seconds * 1e9) as u64;
    let run = u64::from(std::process::id());
    while let Some((index, stream)) =
        options.streams.iter_mut().enumerate().min_by_key(|(_, stream)| stream.due)
    {
        let due = stream.due;
        if due >= end {
            break;
        }
        let mut now = start.elapsed().as_nanos() as u64;
        if due > now {
            std::thread::sleep(Duration::from_nanos(due - now));
            now = start.elapsed().as_nanos() as u64;
        }
        lateness.latencies[bucket(now - due.min(now))] += 1;
        // Exponential gaps: arrivals of many independent clients.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let even = (random >> 11) as f64 / (1u64 << 53) as f64;
        stream.due += (-(1.0 - even).ln() * stream.gap) as u64;
        wire.clear();
        match &stream.source {
            Source::Listed(queries) => {
                wire.extend_from_slice(&queries[stream.count as usize % queries.len()])
            }
            Source::Unique(zone) => {
                let mut label = format!("{run:x}-{:x}", stream.count).into_bytes();
                label.insert(0, label.len() as u8);
                label.extend_from_slice(zone);
                wire = message(&label, 1);
            }
        }
        stream.count += 1;
        turn = (turn + 1) % lanes.len();
        let (lane, id) = (&lanes[turn], &mut ids[turn]);
        *id = id.wrapping_add(1);
        wire[..2].copy_from_slice(&id.to_be_bytes());
        let slot = (index as u64) << STREAM_SHIFT | (due + 1);
        lane.slots[usize::from(*id)].store(slot, Ordering::Release);
        // A full send buffer or a refused port is a lost query, which the slot then shows.
        let _ = lane.socket.send(&wire);
        tallies[index].sent += 1;
    }
    (tallies, lateness)
}

/// Waits until nothing is in flight, or as long as a client would.
fn settle(lanes: &[Arc<Lane>], patience: Duration) {
    let start = Instant::now();
    while start.elapsed() < patience
        && lanes.iter().any(|lane| lane.slots.iter().any(|slot| slot.load(Ordering::Acquire) != 0))
    {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn report(options: &Options, tallies: &[Tally], lateness: &Tally) -> String {
    let mut text = String::from("{");
    for (stream, tally) in options.streams.iter().zip(tallies) {
        let lost = tally.sent - tally.answered;
        let _ = write!(
            text,
            "\"{}\": {{\"sent\": {}, \"answered\": {}, \"failed\": {}, \"lost\": {lost}, \"overdue\": {}, \
             \"slowest_us\": {:.1}, \"p50_us\": {:.1}, \"p90_us\": {:.1}, \"p99_us\": {:.1}, \"p999_us\": {:.1}}}, ",
            stream.label,
            tally.sent,
            tally.answered,
            tally.failed,
            tally.overdue,
            tally.slowest as f64 / 1e3,
            tally.percentile(0.5),
            tally.percentile(0.9),
            tally.percentile(0.99),
            tally.percentile(0.999),
        );
    }
    let _ = write!(text, "\"late_p99_us\": {:.1}}}", lateness.percentile(0.99));
    text
}
