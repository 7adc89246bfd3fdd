//! The kept cache (`-cache-snapshot`): a file from which a start takes what may still be served.
//!
//! Owns the file and the thread that writes it, once a minute and at the end. The file is exchanged
//! whole, or stays as it was. No query waits for it: a slice of one shard is copied under its lock,
//! and the rest is done here. Never holds a whole cache in memory.

use super::cache_stream::{OCTETS_MOST, Pace, Stores, pour, take};
use super::log::Log;
use crate::metrics::{Registry, names};
use crate::net::Clock;
use crate::plugin::cache::codec::{self, Refusal, Totals};
use crate::plugin::{Journal, Level};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the file is written.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// The pause behind each frame of a write that is not the last one: the cores are the queries'.
const PAUSE: Duration = Duration::from_millis(1);

/// How long the start waits for the file to be read; what is read later still counts.
const LOAD_WAIT: Duration = Duration::from_millis(500);

/// How long the end of the process waits for the last write.
const LAST_WRITE_WAIT: Duration = Duration::from_secs(5);

/// The stores to write; the last ones win, and a write that hangs holds on to no others.
type Kept = Arc<Mutex<Stores>>;

/// The kept cache of a running server; without [`KeptCache::finish`] the thread ends with it.
pub(super) struct KeptCache {
    kept: Kept,
    /// Has the thread write at once and end, and answer then.
    end: SyncSender<SyncSender<()>>,
}

/// Why the file was not written.
#[derive(Debug, thiserror::Error)]
enum NotWritten {
    #[error("another process is writing it")]
    Busy,
    #[error("{0}")]
    Failed(#[from] io::Error),
}

/// Where lines, counters and the time come from.
#[derive(Clone)]
pub(super) struct Reports {
    /// The process's clock.
    pub(super) clock: Clock,
    /// Lines for the operator.
    pub(super) log: Log,
    /// The registry.
    pub(super) metrics: Registry,
}

impl KeptCache {
    /// Writes `path` from now on; takes nothing of it, for the stores are filled already.
    pub(super) fn go_on(path: PathBuf, stores: Stores, reports: Reports) -> KeptCache {
        let (kept_cache, kept, ends) = KeptCache::of(stores);
        // Without the thread there is no kept cache: no reason not to serve.
        let _ = std::thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || keep(&path, &kept, &reports, &ends, WRITE_EVERY));
        kept_cache
    }

    /// Takes what `path` holds for `stores`, as far as that is quickly done, and writes it from now
    /// on.
    pub(super) fn start(path: PathBuf, stores: Stores, reports: Reports) -> KeptCache {
        let (kept_cache, kept, ends) = KeptCache::of(stores.clone());
        let (loaded, wait) = sync_channel(1);
        let thread = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            load(&path, &stores, &reports);
            // The start may have gone on without.
            let _ = loaded.try_send(());
            drop(stores);
            keep(&path, &kept, &reports, &ends, WRITE_EVERY);
        });
        // Without the thread there is no kept cache: no reason not to serve.
        if thread.is_ok() {
            let _ = wait.recv_timeout(LOAD_WAIT);
        }
        kept_cache
    }

    /// With what its thread is to have.
    fn of(stores: Stores) -> (KeptCache, Kept, Receiver<SyncSender<()>>) {
        let kept = Arc::new(Mutex::new(stores));
        let (end, ends) = sync_channel(1);
        (KeptCache { kept: kept.clone(), end }, kept, ends)
    }

    /// From now on these stores are kept.
    pub(super) fn replace(&self, stores: Stores) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = stores;
    }

    /// Writes the file a last time, within a bound of time. Blocks.
    pub(super) fn finish(self) {
        let (done, wait) = sync_channel(1);
        if self.end.send(done).is_ok() {
            let _ = wait.recv_timeout(LAST_WRITE_WAIT);
        }
    }
}

/// The thread: a write `every` so often until the last one.
fn keep(
    path: &Path,
    kept: &Kept,
    reports: &Reports,
    ends: &Receiver<SyncSender<()>>,
    every: Duration,
) {
    let mut due = Instant::now() + every;
    let mut has_failed = false;
    let now = || kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
    loop {
        match ends.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(done) => {
                save(path, &now(), reports, Duration::ZERO, &mut has_failed);
                // Nobody waits any more: the process has ended without us.
                let _ = done.try_send(());
                return;
            }
            Err(RecvTimeoutError::Timeout) => {
                save(path, &now(), reports, PAUSE, &mut has_failed);
                due = Instant::now() + every;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn load(path: &Path, stores: &Stores, reports: &Reports) {
    let Reports { clock, log, metrics } = reports;
    let begun = Instant::now();
    let found =
        File::open(path).map_err(Refusal::Unread).and_then(|file| read(&file, stores, *clock));
    let took = begun.elapsed();
    match found {
        Ok(entries) => {
            metrics.counter(&names::SNAPSHOT_LOADED, &[]).add(entries);
            metrics.gauge(&names::SNAPSHOT_LOAD_SECONDS, &[]).set(took.as_secs_f64());
            log.line(
                Level::Info,
                format_args!("Kept cache {}: {entries} entries in {took:.1?}", path.display()),
            );
        }
        // The first start.
        Err(Refusal::Unread(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(why) => {
            metrics.counter(&names::SNAPSHOT_IGNORED, &[why.word()]).increment();
            log.line(
                Level::Warning,
                format_args!("Kept cache {} is ignored: {why}", path.display()),
            );
        }
    }
}

/// Takes all of the file, or nothing; how many entries there were.
fn read(file: &File, stores: &Stores, clock: Clock) -> Result<u64, Refusal> {
    if !file.metadata().map_err(Refusal::Unread)?.is_file() {
        return Err(Refusal::Foreign);
    }
    codec::read(BufReader::new(file), OCTETS_MOST, |_, _| Ok(()))?;
    let mut from = file;
    from.rewind().map_err(Refusal::Unread)?;
    let (entries, result) = take(BufReader::new(file), stores, clock);
    result.map(|()| entries)
}

fn save(path: &Path, stores: &Stores, reports: &Reports, pause: Duration, has_failed: &mut bool) {
    let Reports { clock, log, metrics } = reports;
    let result = write(path, stores, *clock, pause);
    let word = match &result {
        Ok(totals) => {
            metrics.counter(&names::SNAPSHOT_LEFT_OUT, &[]).add(totals.left_out);
            "written"
        }
        Err(NotWritten::Busy) => "busy",
        Err(NotWritten::Failed(_)) => "failed",
    };
    metrics.counter(&names::SNAPSHOT_WRITES, &[word]).increment();
    // One line, not one a minute.
    if let Err(why @ NotWritten::Failed(_)) = &result
        && !*has_failed
    {
        let path = path.display();
        log.line(Level::Warning, format_args!("Kept cache {path} could not be written: {why}"));
    }
    *has_failed = matches!(result, Err(NotWritten::Failed(_)));
}

/// Writes beside the file, then exchanges it. What is there and no file stays as it is.
fn write(
    path: &Path,
    stores: &Stores,
    clock: Clock,
    pause: Duration,
) -> Result<Totals, NotWritten> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other("not a regular file").into());
    }
    let beside = beside(path);
    let file = open_alone(&beside)?;
    let written = fill(&file, stores, clock, pause).and_then(|totals| {
        fs::rename(&beside, path)?;
        // A crash of the machine right now may leave the old file: as good.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty())
            && let Ok(folder) = File::open(folder)
        {
            let _ = folder.sync_all();
        }
        Ok(totals)
    });
    if written.is_err() {
        // On a full disk it should not stay.
        let _ = fs::remove_file(&beside);
    }
    Ok(written?)
}

fn fill(file: &File, stores: &Stores, clock: Clock, pause: Duration) -> io::Result<Totals> {
    file.set_len(0)?;
    let pace = Pace { pause, ..Pace::default() };
    let (mut out, totals) = pour(BufWriter::new(file), stores, clock, pace)?;
    out.flush()?;
    file.sync_all()?;
    Ok(totals)
}

/// The name of the file until it is whole: the same for all, so that what a crash leaves behind is
/// used again.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Opens the file for one process alone: a predecessor may be writing its last one. Readable by our
/// user alone, for it says what was asked.
fn open_alone(beside: &Path) -> Result<File, NotWritten> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(beside)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(NotWritten::Busy),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    // Whoever had it before may have given it its name meanwhile: then it is not ours to write.
    let is_same = fs::metadata(beside).is_ok_and(|there| {
        file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
    });
    if is_same { Ok(file) } else { Err(NotWritten::Busy) }
}

#[cfg(test)]
mod tests {
    use super::super::load::{Loader, Source};
    use super::super::surroundings::Machine;
    use super::*;
    use crate::corefile::parse;
    use crate::dns::Rcode;
    use crate::plugin::cache::{Kept, KeptAs, stores};
    use crate::plugin::{Carried, is_known};
    use std::sync::Arc;

    fn reports() -> Reports {
        let metrics = Registry::new(1);
        Reports { clock: Clock::start(), log: Log::new(&metrics), metrics }
    }

    /// The stores of a Corefile.
    fn of(corefile: &str, reports: &Reports) -> Stores {
        let tree = parse(corefile.as_bytes(), "Corefile", &is_known, &Machine).unwrap();
        let loader = Loader {
            source: Source::Made(Box::new(tree)),
            default_port: 53,
            metrics: reports.metrics.clone(),
            log: reports.log.clone(),
            budget: Arc::default(),
        };
        stores(&loader.load(Carried::default()).unwrap().snapshot.carried)
    }

    const ONE: &str = ".:53 {\n cache 60\n forward . 192.0.2.1\n}\n";

    fn entry(number: u32, age: u64) -> Kept {
        let mut message = b"\0\0\x81\x80\0\x01\0\x01\0\0\0\0".to_vec();
        let label = format!("n{number}");
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
        message.extend(b"\x04test\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
        Kept {
            message: message.into(),
            rcode: Rcode::NOERROR,
            kind: KeptAs::Success,
            dnssec_ok: false,
            checking_disabled: false,
            ttl: 60,
            age,
            hits: 1,
            last_hit: None,
        }
    }

    fn put(stores: &Stores, reports: &Reports, entries: impl Iterator<Item = Kept>) {
        let now = reports.clock.now().monotonic;
        for kept in entries {
            assert!(stores[0].1.import(&kept, now));
        }
    }

    /// How many entries a start with `corefile` takes from `path`.
    fn taken(path: &Path, corefile: &str) -> (u64, Reports) {
        let reports = reports();
        load(path, &of(corefile, &reports), &reports);
        (reports.metrics.counter(&names::SNAPSHOT_LOADED, &[]).value(), reports)
    }

    fn written(path: &Path, entries: impl Iterator<Item = Kept>) {
        let reports = reports();
        let stores = of(ONE, &reports);
        put(&stores, &reports, entries);
        write(path, &stores, reports.clock, Duration::ZERO).unwrap();
    }

    #[test]
    fn what_is_no_file_is_not_replaced_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let reports = reports();
        let result = write(&path, &of(ONE, &reports), reports.clock, Duration::ZERO);
        assert!(matches!(result, Err(NotWritten::Failed(_))));
        assert!(!fs::metadata(&path).unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_start_takes_what_may_still_be_served_by_the_same_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        written(&path, (0..9000).map(|number| entry(number, u64::from(number % 10) * 1000)));
        assert_eq!(taken(&path, ONE).0, 9000);
        for other in [
            ONE.replace("192.0.2.1", "192.0.2.2"),
            ONE.replace("cache 60", "cache 61"),
            ONE.replace(".:53", "test.:53"),
            ONE.replace("cache 60", "bind 127.0.0.1\n cache 60"),
            ONE.replace("cache 60\n", ""),
        ] {
            assert_eq!(taken(&path, &other).0, 0, "{other}");
        }
        let mode = fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!beside(&path).exists());
    }

    #[test]
    fn a_file_that_is_not_right_is_ignored_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let ignored = |text: Option<&[u8]>, reason: &str| {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let (entries, reports) = taken(&path, ONE);
            assert_eq!(entries, 0, "{reason}");
            let count = reports.metrics.counter(&names::SNAPSHOT_IGNORED, &[reason]).value();
            assert_eq!(count, 1, "{reason}");
        };
        written(&path, (0..100).map(|number| entry(number, 0)));
        let whole = fs::read(&path).unwrap();
        ignored(Some(&whole[..whole.len() / 2]), "torn");
        let mut changed = whole.clone();
        changed[500] ^= 1;
        ignored(Some(&changed), "torn");
        ignored(Some(b""), "foreign");
        ignored(Some(b"root:x:0:0:root:/root:/bin/bash\n"), "foreign");
        let mut later = whole;
        later[15] += 1;
        ignored(Some(&later), "version");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        ignored(None, "foreign");
        fs::remove_dir(&path).unwrap();
        let (entries, reports) = taken(&path, ONE);
        let shown = reports.metrics.counter(&names::SNAPSHOT_IGNORED, &["unread"]).value();
        assert_eq!((entries, shown), (0, 0), "the first start has no file");
    }

    #[test]
    fn one_process_writes_at_a_time_and_a_crash_leaves_nothing_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        fs::write(beside(&path), [7; 100_000]).unwrap();
        let other = open_alone(&beside(&path)).unwrap();
        let reports = reports();
        let stores = of(ONE, &reports);
        put(&stores, &reports, (0..3).map(|number| entry(number, 0)));
        let mut has_failed = false;
        save(&path, &stores, &reports, Duration::ZERO, &mut has_failed);
        assert!(!path.exists() && !has_failed);
        // A program that another test starts has the file too until it runs: closing would not do.
        other.unlock().unwrap();
        drop(other);
        save(&path, &stores, &reports, Duration::ZERO, &mut has_failed);
        let writes = |result| reports.metrics.counter(&names::SNAPSHOT_WRITES, &[result]).value();
        assert_eq!((writes("busy"), writes("written")), (1, 1));
        assert!(fs::metadata(&path).unwrap().len() < 1000);
        assert_eq!(taken(&path, ONE).0, 3);
        let nowhere = folder.path().join("no/cache");
        save(&nowhere, &stores, &reports, Duration::ZERO, &mut has_failed);
        assert!(has_failed);
        assert_eq!(writes("failed"), 1);
    }

    #[test]
    fn the_file_is_written_again_and_again_with_what_has_come_since() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let reports = reports();
        let stores = of(ONE, &reports);
        put(&stores, &reports, std::iter::once(entry(0, 0)));
        let (kept_cache, kept, ends) = KeptCache::of(stores.clone());
        let every = Duration::from_millis(5);
        let thread = std::thread::spawn({
            let (path, reports) = (path.clone(), reports.clone());
            move || keep(&path, &kept, &reports, &ends, every)
        });
        let until = |entries: u64| {
            let begun = Instant::now();
            while taken(&path, ONE).0 != entries {
                assert!(begun.elapsed() < Duration::from_secs(60), "never {entries} entries");
                std::thread::sleep(every);
            }
        };
        until(1);
        put(&stores, &reports, std::iter::once(entry(1, 0)));
        until(2);
        // Without a last word the thread ends and leaves the file.
        drop(kept_cache);
        thread.join().unwrap();
        assert_eq!(taken(&path, ONE).0, 2);
    }

    #[test]
    fn the_thread_keeps_the_stores_that_it_was_told_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let reports = reports();
        let kept = KeptCache::start(path.clone(), Stores::new(), reports.clone());
        let stores = of(ONE, &reports);
        put(&stores, &reports, (0..5).map(|number| entry(number, 0)));
        kept.replace(stores);
        kept.finish();
        assert_eq!(taken(&path, ONE).0, 5);
    }

    #[test]
    fn stores_of_reloads_are_not_held_on_to_while_a_write_hangs() {
        let reports = reports();
        // Its thread, which would write, takes nothing.
        let (kept_cache, _kept, _ends) = KeptCache::of(Stores::new());
        let gone = of(ONE, &reports);
        let known = Arc::downgrade(&gone[0].1);
        kept_cache.replace(gone);
        kept_cache.replace(of(ONE, &reports));
        assert_eq!(known.strong_count(), 0);
    }
}
