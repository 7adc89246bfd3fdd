//! /debug/pprof: what this process spends its time on, as `go tool pprof` reads it.
//!
//! Owns the sampling and the profile's form (github.com/google/pprof, proto/profile.proto). Costs
//! nothing while no profile is being taken; one is taken at a time.

use super::pages::{gzip, moved, unsniffed_text};
use crate::plugin::dnstap::protobuf::Fields;
use crate::sys::beside::beside;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};
use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder, Symbol};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep};

/// How often a second of processor time is looked at: Go's rate.
const FREQUENCY: u64 = 100;

/// How long a profile takes unless `seconds` says: Go's time.
const SECONDS_DEFAULT: u64 = 30;

/// The longest profile; a connection lives only a little longer.
const SECONDS_MOST: u64 = 50;

/// Nanoseconds from one sample to the next.
const PERIOD: u64 = 1_000_000_000 / FREQUENCY;

/// Where no stack is walked: unwinding from within these could wait for a lock held there.
const BLOCKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// Within how many frames the sampler's own stand.
const SAMPLER_DEPTH: usize = 8;

const INDEX: &str = "<html>
<head><title>/debug/pprof/</title></head>
<body>
<p>Profiles of this process:</p>
<ul>
<li><a href=\"profile?seconds=30\">profile</a>: CPU profile; <code>seconds</code> says how long it
takes (1 to 50, 30 unless given)</li>
<li><a href=\"cmdline\">cmdline</a>: the command line</li>
</ul>
</body>
</html>
";

/// The response to a path below /debug/pprof.
pub(super) async fn respond(path: &str, query: &str, method: &Method) -> Response<Full<Bytes>> {
    match path {
        "" => moved(StatusCode::FOUND, "/debug/pprof/", method),
        "/" => {
            let mut response = unsniffed_text(StatusCode::OK, INDEX.to_owned());
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, html);
            response
        }
        "/cmdline" => {
            let arguments = std::env::args_os().map(|one| one.to_string_lossy().into_owned());
            unsniffed_text(StatusCode::OK, arguments.collect::<Vec<_>>().join("\0"))
        }
        "/profile" => profile(seconds(query)).await,
        _ => failure(StatusCode::NOT_FOUND, "Unknown profile\n".to_owned()),
    }
}

/// An error that `go tool pprof` shows.
fn failure(status: StatusCode, why: String) -> Response<Full<Bytes>> {
    let mut response = unsniffed_text(status, why);
    let marker = HeaderName::from_static("x-go-pprof");
    response.headers_mut().insert(marker, HeaderValue::from_static("1"));
    response
}

/// What `seconds` says, within its bounds; Go too takes its default for what is no number.
fn seconds(query: &str) -> u64 {
    let given = query.split('&').find_map(|pair| pair.strip_prefix("seconds="));
    match given.and_then(|text| text.parse().ok()) {
        None | Some(0) => SECONDS_DEFAULT,
        Some(seconds) => SECONDS_MOST.min(seconds),
    }
}

async fn profile(seconds: u64) -> Response<Full<Bytes>> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let failed = |why: String| {
        let text = format!("Could not enable CPU profiling: {why}\n");
        failure(StatusCode::INTERNAL_SERVER_ERROR, text)
    };
    // Dropped with this future when the client goes: then the sampling ends.
    let guard =
        ProfilerGuardBuilder::default().frequency(FREQUENCY as i32).blocklist(&BLOCKED).build();
    let guard = match guard {
        Ok(guard) => guard,
        Err(why) => return failed(why.to_string()),
    };
    let clock = Instant::now();
    sleep(Duration::from_secs(seconds)).await;
    let took = clock.elapsed();
    // Names are looked up in the program's file: not on this thread.
    match beside(move || written(&guard, started, took)).await {
        Ok(Ok(octets)) => {
            let mut response = Response::new(Full::new(Bytes::from(octets)));
            let headers = response.headers_mut();
            let octets = HeaderValue::from_static("application/octet-stream");
            headers.insert(CONTENT_TYPE, octets);
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            let name = HeaderValue::from_static("attachment; filename=\"profile\"");
            headers.insert(CONTENT_DISPOSITION, name);
            response
        }
        Ok(Err(why)) => failed(why),
        Err(_) => failed("the profile could not be written".to_owned()),
    }
}

fn written(
    guard: &ProfilerGuard<'_>,
    started: Duration,
    took: Duration,
) -> Result<Vec<u8>, String> {
    let report = guard.report().build().map_err(|why| why.to_string())?;
    let stacks = report.data.iter().map(|(frames, count)| {
        (stack(frames), frames.thread_name.clone(), u64::try_from(*count).unwrap_or_default())
    });
    gzip(&encode(stacks, started, took)).ok_or_else(|| "out of memory".to_owned())
}

/// The functions of a stack, the innermost first, without the sampler's own.
fn stack(frames: &Frames) -> Vec<Function> {
    let innermost = frames.frames.iter().take(SAMPLER_DEPTH);
    let is_sampler = |symbol: &Symbol| is_sampler(&symbol.name());
    let mut own = innermost.enumerate().filter(|(_, symbols)| symbols.iter().any(is_sampler));
    let first = own.next_back().map_or(0, |(place, _)| place + 1);
    let functions = frames.frames.iter().skip(first).flatten().map(|symbol| Function {
        name: symbol.name(),
        system_name: symbol.sys_name().into_owned(),
        file: symbol.filename().into_owned(),
        line: symbol.lineno().into(),
    });
    functions.collect()
}

/// Whether a function stands on the stack only because it was looked at.
fn is_sampler(name: &str) -> bool {
    ["perf_signal_handler", "pprof::", "backtrace::backtrace"].iter().any(|own| name.contains(own))
}

/// A place in the program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Function {
    name: String,
    /// The name in the program's file: where it differs, readers leave `name` as it is.
    system_name: String,
    file: String,
    line: u64,
}

/// The strings of a profile, each once; the first is empty.
struct Strings {
    places: HashMap<String, u64>,
    all: Vec<String>,
}

impl Strings {
    fn new() -> Strings {
        Strings { places: HashMap::from([(String::new(), 0)]), all: vec![String::new()] }
    }

    fn place(&mut self, text: &str) -> u64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.all.len() as u64;
        self.places.insert(text.to_owned(), place);
        self.all.push(text.to_owned());
        place
    }
}

/// The `Profile` message: for each stack its samples and their processor time, with the thread's
/// name as a label.
fn encode(
    stacks: impl Iterator<Item = (Vec<Function>, String, u64)>,
    started: Duration,
    took: Duration,
) -> Vec<u8> {
    let mut out = Fields::default();
    let mut strings = Strings::new();
    let value_type = |strings: &mut Strings, kind, unit| {
        let mut fields = Fields::default();
        fields.number(1, strings.place(kind));
        fields.number(2, strings.place(unit));
        fields.into_octets()
    };
    out.octets(1, &value_type(&mut strings, "samples", "count"));
    let processor = value_type(&mut strings, "cpu", "nanoseconds");
    out.octets(1, &processor);
    let mut locations: HashMap<Function, u64> = HashMap::new();
    for (stack, thread, count) in stacks {
        let ids: Vec<u64> = stack
            .into_iter()
            .map(|function| {
                let next = locations.len() as u64 + 1;
                *locations.entry(function).or_insert(next)
            })
            .collect();
        let mut label = Fields::default();
        label.number(1, strings.place("thread"));
        label.number(2, strings.place(&thread));
        let mut sample = Fields::default();
        sample.numbers(1, &ids);
        sample.numbers(2, &[count, count * PERIOD]);
        sample.octets(3, &label.into_octets());
        out.octets(2, &sample.into_octets());
    }
    // One function for each location: pprof puts together what has one name.
    for (function, id) in &locations {
        let mut line = Fields::default();
        line.number(1, *id);
        line.number(2, function.line);
        let mut location = Fields::default();
        location.number(1, *id);
        location.octets(4, &line.into_octets());
        out.octets(4, &location.into_octets());
        let mut fields = Fields::default();
        fields.number(1, *id);
        fields.number(2, strings.place(&function.name));
        fields.number(3, strings.place(&function.system_name));
        fields.number(4, strings.place(&function.file));
        out.octets(5, &fields.into_octets());
    }
    for text in &strings.all {
        out.octets(6, text.as_bytes());
    }
    out.number(9, u64::try_from(started.as_nanos()).unwrap_or_default());
    out.number(10, u64::try_from(took.as_nanos()).unwrap_or_default());
    out.octets(11, &processor);
    out.number(12, PERIOD);
    out.into_octets()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;
    use std::io::Read;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn seconds_stay_within_their_bounds() {
        for (query, expected) in [
            ("", 30),
            ("seconds=5", 5),
            ("debug=1&seconds=7", 7),
            ("seconds=0", 30),
            ("seconds=-1", 30),
            ("seconds=x", 30),
            ("seconds=3600", 50),
        ] {
            assert_eq!(seconds(query), expected, "{query}");
        }
    }

    #[test]
    fn stacks_share_functions_and_strings() {
        let function = |name: &str, line| {
            let name = name.to_owned();
            Function { system_name: name.clone(), name, file: "f".to_owned(), line }
        };
        let stacks = [
            (vec![function("inner", 3), function("outer", 9)], "udp".to_owned(), 2),
            (vec![function("outer", 9)], "udp".to_owned(), 1),
        ];
        let took = Duration::from_secs(1);
        let octets = encode(stacks.into_iter(), Duration::from_secs(7), took);
        let count = |part: &[u8]| octets.windows(part.len()).filter(|some| *some == part).count();
        // samples: locations 1 and 2 with 2 samples, location 2 with 1, 10 ms each
        assert_eq!(count(b"\x0a\x02\x01\x02\x12\x05\x02\x80\xda\xc4\x09"), 1);
        assert_eq!(count(b"\x0a\x01\x02\x12\x05\x01\x80\xad\xe2\x04"), 1);
        for text in ["inner", "outer", "samples", "nanoseconds", "udp", "thread"] {
            assert_eq!(count(text.as_bytes()), 1, "{text}");
        }
    }

    #[inline(never)]
    fn a_busy_function(is_over: &AtomicBool) -> u64 {
        let mut sum = 0u64;
        while !is_over.load(Ordering::Relaxed) {
            for one in 0..10_000u64 {
                sum = sum.wrapping_mul(31).wrapping_add(one);
            }
        }
        sum
    }

    /// Whether it is in a profile, while which a second one is refused.
    async fn has_busy_function() -> bool {
        let profile = || respond("/profile", "seconds=1", &Method::GET);
        let (first, second) = tokio::join!(profile(), profile());
        assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 500));
        let zipped = first.into_body().collect().await.unwrap().to_bytes();
        let mut plain = Vec::new();
        GzDecoder::new(&*zipped).read_to_end(&mut plain).unwrap();
        let has = |name: &[u8]| plain.windows(name.len()).any(|part| part == name);
        assert!(!has(b"perf_signal_handler") && !has(b"trace_unsynchronized"));
        has(b"a_busy_function")
    }

    /// Set in the process that takes profiles.
    const ALONE: &str = "NODENS_TEST_ALONE";

    #[test]
    fn a_profile_names_what_runs_and_one_is_taken_at_a_time() {
        // In a process of its own: its signals interrupt what other tests wait for.
        if std::env::var_os(ALONE).is_none() {
            let test = "a_profile_names_what_runs_and_one_is_taken_at_a_time";
            let test = format!("admin::profile::tests::{test}");
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &test, "--nocapture"])
                .env(ALONE, "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let busy = std::thread::spawn(move || a_busy_function(&over));
        // On a busy machine a second may pass in which it has hardly run, and names may take a minute.
        assert!((0..20).any(|_| runtime.block_on(has_busy_function())), "it is in no profile");
        is_over.store(true, Ordering::Relaxed);
        busy.join().unwrap();
    }

    #[test]
    fn other_paths_are_the_index_or_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (path, status) in [("", 302), ("/", 200), ("/cmdline", 200), ("/heap", 404)] {
            let response = runtime.block_on(respond(path, "", &Method::GET));
            assert_eq!(response.status(), status, "{path}");
            let is_marked = response.headers().contains_key("x-go-pprof");
            assert_eq!(is_marked, status == 404, "{path}");
        }
    }
}
