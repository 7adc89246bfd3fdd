//! `hosts`: answers from a hosts file and from lines in the Corefile (docs/plugins/hosts.md).
//!
//! Owns the directive, the tables and their re-reading. Reads files only through
//! [`Surroundings`], at the start and in upkeep; a query touches one table, read without a lock.

mod table;

use super::{Context, Flow, Handler, Journal, Level, Now, Setup};
use crate::corefile::{
    CorefileError, Dispenser, Surroundings, normalise_zone, parse_duration, parse_integer,
    system_error_text,
};
use crate::dns::{Class, Name, Query, Rcode, RecordType, Response, Section, Writer, flags};
use crate::metrics::{Gauge, Registry, names};
use arc_swap::ArcSwap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use table::{HostsTable, Reverse, address_of_reverse};

/// The file read when the directive names none.
const DEFAULT_FILE: &str = "/etc/hosts";

/// The TTL in seconds of all answers: default and bounds (`ttl`).
const DEFAULT_TTL: u32 = 3600;
const LEAST_TTL: i64 = 1;
const MOST_TTL: i64 = 65535;

/// How often the file is looked at, unless `reload` says otherwise; zero means never.
const DEFAULT_RELOAD: Duration = Duration::from_secs(5);

/// What the directive says.
#[derive(Debug)]
struct Options {
    path: PathBuf,
    zones: Vec<Name>,
    ttl: u32,
    reverse: Reverse,
    reload: Duration,
    /// Where an unknown name goes on to the next handler; empty: nowhere.
    fall_through: Vec<Name>,
    inline: String,
}

/// The running part.
struct Hosts {
    options: Options,
    inline: HostsTable,
    file: ArcSwap<HostsTable>,
    /// The stamp of the file as last read.
    stamp: Mutex<Option<(u128, u64)>>,
    /// For the count of entries, which is there once the file has been read.
    metrics: Registry,
    reloaded: Gauge,
}

/// Reads the directive.
///
/// # Errors
///
/// `unable to access hosts file '…': stat …: …`, but for a file that is not there or a directory there
/// is only a warning; `ttl needs a time in second`, `ttl needs a number of second`, `ttl provided is
/// invalid`; `reload needs a duration (zero seconds to disable)`, `invalid duration for reload '…'`,
/// `invalid negative duration for reload '…'`; `unknown property '…'` behind `fallthrough`; `this
/// plugin can only be used once per Server Block`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let zones = setup.block.zones().cloned().collect();
    let options = parse(&mut setup.dispenser, zones, setup.surroundings, setup.journal)?;
    setup.block.add(Hosts {
        inline: HostsTable::parse(&options.inline, &options.zones, options.reverse),
        options,
        file: ArcSwap::default(),
        stamp: Mutex::new(None),
        metrics: setup.metrics.clone(),
        reloaded: setup.metrics.gauge(&names::HOSTS_RELOAD, &[]),
    });
    Ok(())
}

fn parse(
    dispenser: &mut Dispenser<'_>,
    mut zones: Vec<Name>,
    surroundings: &dyn Surroundings,
    journal: &dyn Journal,
) -> Result<Options, CorefileError> {
    dispenser.next();
    let mut arguments = dispenser.remaining_args().into_iter();
    let path = match arguments.next() {
        None => PathBuf::from(DEFAULT_FILE),
        Some(path) => {
            look_at(path, dispenser, surroundings, journal)?;
            PathBuf::from(path)
        }
    };
    let named: Vec<&str> = arguments.collect();
    if !named.is_empty() {
        zones = named.into_iter().flat_map(normalise_zone).collect();
    }
    let mut options = Options {
        path,
        zones,
        ttl: DEFAULT_TTL,
        reverse: Reverse::Kept,
        reload: DEFAULT_RELOAD,
        fall_through: Vec::new(),
        inline: String::new(),
    };
    while dispenser.next_block() {
        option(dispenser, &mut options)?;
    }
    if dispenser.next() {
        return Err(dispenser.once_err());
    }
    Ok(options)
}

/// Warns of a file that is not there and of a directory; any other trouble is an error.
fn look_at(
    path: &str,
    dispenser: &Dispenser<'_>,
    surroundings: &dyn Surroundings,
    journal: &dyn Journal,
) -> Result<(), CorefileError> {
    match surroundings.stamp(Path::new(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            journal.line(Level::Warning, format_args!("plugin/hosts: File does not exist: {path}"));
            Ok(())
        }
        Err(error) if error.kind() != io::ErrorKind::IsADirectory => {
            let why = system_error_text(&error);
            Err(dispenser.err(format!("unable to access hosts file '{path}': stat {path}: {why}")))
        }
        _ => {
            let read = surroundings.read(Path::new(path));
            if read.is_err_and(|error| error.kind() == io::ErrorKind::IsADirectory) {
                let line = format_args!("plugin/hosts: Hosts file {path:?} is a directory");
                journal.line(Level::Warning, line);
            }
            Ok(())
        }
    }
}

fn option(dispenser: &mut Dispenser<'_>, options: &mut Options) -> Result<(), CorefileError> {
    let word = dispenser.val();
    match word {
        "fallthrough" => {
            let zones = dispenser.remaining_args();
            options.fall_through = match zones.is_empty() {
                true => vec![Name::root()],
                false => zones.into_iter().flat_map(normalise_zone).collect(),
            };
        }
        "no_reverse" => options.reverse = Reverse::LeftOut,
        "ttl" => {
            let arguments = dispenser.remaining_args();
            let Some(text) = arguments.first() else {
                return Err(dispenser.err("ttl needs a time in second"));
            };
            let ttl =
                parse_integer(text).map_err(|_| dispenser.err("ttl needs a number of second"))?;
            options.ttl = u32::try_from(ttl)
                .ok()
                .filter(|_| (LEAST_TTL..=MOST_TTL).contains(&ttl))
                .ok_or_else(|| dispenser.err("ttl provided is invalid"))?;
        }
        "reload" => {
            let arguments = dispenser.remaining_args();
            let [text] = arguments[..] else {
                return Err(dispenser.err("reload needs a duration (zero seconds to disable)"));
            };
            let nanoseconds = parse_duration(text)
                .map_err(|_| dispenser.err(format!("invalid duration for reload '{text}'")))?;
            options.reload =
                u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| {
                    dispenser.err(format!("invalid negative duration for reload '{text}'"))
                })?;
        }
        // Any other word begins a line of a hosts file, until `fallthrough` was said.
        word if options.fall_through.is_empty() => {
            options.inline.push_str(word);
            for field in dispenser.remaining_args() {
                options.inline.push(' ');
                options.inline.push_str(field);
            }
            options.inline.push('\n');
        }
        word => return Err(dispenser.err(format!("unknown property '{word}'"))),
    }
    Ok(())
}

impl Hosts {
    /// Reads the file if it changed since it was last read. A file that cannot be read leaves what
    /// was known.
    fn read(&self, surroundings: &dyn Surroundings, journal: &dyn Journal) {
        let Ok(stamp) = surroundings.stamp(&self.options.path) else { return };
        let mut last = self.stamp.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *last == Some(stamp) {
            return;
        }
        let bytes = match surroundings.read(&self.options.path) {
            Ok(bytes) => bytes,
            // Read as Go reads it: nothing is in it.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Vec::new(),
            Err(_) => return,
        };
        let text = String::from_utf8_lossy(&bytes);
        let table = HostsTable::parse(&text, &self.options.zones, self.options.reverse);
        journal.line(
            Level::Debug,
            format_args!("plugin/hosts: Parsed hosts file into {} entries", table.entries()),
        );
        let path = self.options.path.display().to_string();
        let entries = table.entries() + self.inline.entries();
        self.metrics.gauge(&names::HOSTS_ENTRIES, &[&path]).set(entries as f64);
        self.reloaded.set(stamp.0 as f64 / 1e9);
        self.file.store(Arc::new(table));
        *last = Some(stamp);
    }

    /// Writes the answer to a PTR query if the address is known.
    fn reverse(&self, query: &Query<'_>, response: &mut Response) -> Flow {
        let Some(address) = address_of_reverse(query.name()) else { return Flow::Next };
        let file = self.file.load();
        let (file, inline) = (file.names(address), self.inline.names(address));
        if file.is_empty() && inline.is_empty() {
            return Flow::Next;
        }
        let mut writer = start(query, response);
        for name in file.iter().chain(inline) {
            self.record(&mut writer, query, RecordType::PTR, name.as_bytes());
        }
        Flow::Answer
    }

    fn record(&self, writer: &mut Writer<'_>, query: &Query<'_>, rtype: RecordType, rdata: &[u8]) {
        let owner = query.name().as_bytes();
        writer.raw_record(Section::Answer, owner, rtype, Class::IN, self.options.ttl, rdata);
    }
}

/// An empty authoritative reply, ready for records.
fn start<'r>(query: &Query<'_>, response: &'r mut Response) -> Writer<'r> {
    response.start_with_records(query, Rcode::NOERROR, flags::AA, "hosts")
}

impl Handler for Hosts {
    fn word(&self) -> &'static str {
        "hosts"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        _context: &mut Context<'_>,
    ) -> Flow {
        // Reverse zones need not be listed: an address that is known is answered for anywhere.
        if query.qtype() == RecordType::PTR {
            return self.reverse(query, response);
        }
        let name = query.name();
        if !self.options.zones.iter().any(|zone| name.is_in(zone)) {
            return Flow::Next;
        }
        let file = self.file.load();
        if !file.knows(name) && !self.inline.knows(name) {
            if self.options.fall_through.iter().any(|zone| name.is_in(zone)) {
                return Flow::Next;
            }
            // There is no SOA record for an NXDOMAIN.
            response.fail(Rcode::SERVFAIL, None);
            return Flow::Answer;
        }
        let mut writer = start(query, response);
        match query.qtype() {
            RecordType::A => {
                for address in file.v4(name).iter().chain(self.inline.v4(name)) {
                    self.record(&mut writer, query, RecordType::A, &address.octets());
                }
            }
            RecordType::AAAA => {
                for address in file.v6(name).iter().chain(self.inline.v6(name)) {
                    self.record(&mut writer, query, RecordType::AAAA, &address.octets());
                }
            }
            _ => {}
        }
        Flow::Answer
    }

    fn start(
        &self,
        surroundings: &dyn Surroundings,
        journal: &dyn Journal,
    ) -> Result<(), CorefileError> {
        self.read(surroundings, journal);
        Ok(())
    }

    fn upkeep_every(&self) -> Option<Duration> {
        Some(self.options.reload).filter(|interval| !interval.is_zero())
    }

    fn upkeep(&self, _now: Now, surroundings: &dyn Surroundings, journal: &dyn Journal) {
        self.read(surroundings, journal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::plugin::testing::{Bench, Outcome, always, nobody, query};

    const BELOW: &[&str] = &["b.test. 20 IN A 192.0.2.7"];

    fn ask(directive: &str, files: &MemorySurroundings, name: &str, qtype: RecordType) -> Outcome {
        let mut bench = Bench::new();
        let chain = bench.load(directive, files).unwrap();
        bench.ask(&chain, query(name, qtype), always(Rcode::NOERROR, BELOW))
    }

    #[test]
    fn names_of_the_file_are_answered_with_authority() {
        let files = MemorySurroundings::new()
            .with_file("/h", "192.0.2.10 a.test Alias.test\n2001:db8::1 a.test\n");
        for (name, qtype, records) in [
            ("A.test.", RecordType::A, vec!["a.test. 3600 IN A 192.0.2.10"]),
            ("a.test.", RecordType::AAAA, vec!["a.test. 3600 IN AAAA 2001:db8::1"]),
            ("a.test.", RecordType::TXT, vec![]),
            ("alias.test.", RecordType::AAAA, vec![]),
            (
                "10.2.0.192.in-addr.arpa.",
                RecordType::PTR,
                vec![
                    "10.2.0.192.in-addr.arpa. 3600 IN PTR a.test.",
                    "10.2.0.192.in-addr.arpa. 3600 IN PTR alias.test.",
                ],
            ),
        ] {
            let outcome = ask("hosts /h", &files, name, qtype);
            assert_eq!(outcome.records(), records, "{name} {qtype}");
            assert_eq!(outcome.response.rcode, Rcode::NOERROR);
            assert_ne!(outcome.response.flags() & flags::AA, 0);
            assert_eq!(outcome.response.flags() & flags::RA, 0);
            assert_eq!(outcome.response.writer, "hosts");
        }
    }

    #[test]
    fn an_unknown_name_fails_or_falls_through_as_the_corefile_says() {
        let files = MemorySurroundings::new().with_file("/h", "192.0.2.10 a.test\n");
        for (directive, name, qtype, answered) in [
            ("hosts /h", "none.test.", RecordType::A, false),
            ("hosts /h {\n fallthrough\n}", "none.test.", RecordType::A, true),
            ("hosts /h {\n fallthrough b.test\n}", "none.test.", RecordType::A, false),
            ("hosts /h {\n fallthrough b.test\n}", "x.b.test.", RecordType::A, true),
            ("hosts /h test", "other.", RecordType::A, true),
            ("hosts /h test", "none.test.", RecordType::A, false),
            ("hosts /h", "99.2.0.192.in-addr.arpa.", RecordType::PTR, true),
            ("hosts /h test", "99.2.0.192.in-addr.arpa.", RecordType::A, true),
            ("hosts /h {\n no_reverse\n}", "10.2.0.192.in-addr.arpa.", RecordType::PTR, true),
        ] {
            let outcome = ask(directive, &files, name, qtype);
            let rcode = if answered { Rcode::NOERROR } else { Rcode::SERVFAIL };
            assert_eq!(outcome.response.rcode, rcode, "{directive} {name}");
            assert_eq!(outcome.records().is_empty(), !answered, "{directive} {name}");
            assert_eq!(outcome.response.error, None);
        }
    }

    #[test]
    fn lines_of_the_corefile_come_after_those_of_the_file() {
        let files = MemorySurroundings::new().with_file("/etc/hosts", "192.0.2.1 a.test\n");
        let directive = "hosts {\n 192.0.2.2 a.test b.test\n ttl 60\n fallthrough\n}";
        let outcome = ask(directive, &files, "a.test.", RecordType::A);
        assert_eq!(outcome.records(), ["a.test. 60 IN A 192.0.2.1", "a.test. 60 IN A 192.0.2.2"]);
        let outcome = ask(directive, &files, "2.2.0.192.in-addr.arpa.", RecordType::PTR);
        assert_eq!(outcome.records().len(), 2);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_is_not_forgotten() {
        let mut bench = Bench::new();
        let files = MemorySurroundings::new().with_file("/h", "192.0.2.1 a.test\n");
        let chain = bench.load("hosts /h {\n reload 2s\n}", &files).unwrap();
        assert_eq!(chain[0].upkeep_every(), Some(Duration::from_secs(2)));
        let entries = bench.metrics.gauge(&names::HOSTS_ENTRIES, &["/h"]);
        let reloaded = bench.metrics.gauge(&names::HOSTS_RELOAD, &[]);
        assert_eq!((entries.value(), reloaded.value()), (2.0, 1e-9));

        files.write("/h", "192.0.2.2 a.test b.test\n");
        bench.upkeep(&chain, &files);
        assert_eq!((entries.value(), reloaded.value()), (4.0, 2e-9));
        let outcome = bench.ask(&chain, query("a.test.", RecordType::A), nobody);
        assert_eq!(outcome.records(), ["a.test. 3600 IN A 192.0.2.2"]);

        files.remove("/h");
        bench.upkeep(&chain, &files);
        let outcome = bench.ask(&chain, query("b.test.", RecordType::A), nobody);
        assert_eq!(outcome.records(), ["b.test. 3600 IN A 192.0.2.2"]);
    }

    #[test]
    fn a_missing_file_is_a_warning_and_no_reload_means_no_upkeep() {
        let mut bench = Bench::new();
        let chain = bench.load("hosts /none {\n reload 0s\n}", &MemorySurroundings::new()).unwrap();
        assert_eq!(bench.journal.take(), ["[WARNING] plugin/hosts: File does not exist: /none"]);
        assert_eq!(chain[0].upkeep_every(), None);
        assert!(!bench.metrics.text().contains("coredns_hosts_entries{"));
    }

    #[test]
    fn a_directory_is_a_warning() {
        let files = MemorySurroundings::new().with_file("/d/f", "192.0.2.1 a.test");
        let mut bench = Bench::new();
        bench.load("hosts /d", &files).unwrap();
        assert_eq!(
            bench.journal.take(),
            [
                "[WARNING] plugin/hosts: Hosts file \"/d\" is a directory",
                "[DEBUG] plugin/hosts: Parsed hosts file into 0 entries",
            ]
        );
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (options, text) in [
            ("ttl", "ttl needs a time in second"),
            ("ttl x", "ttl needs a number of second"),
            ("ttl 0", "ttl provided is invalid"),
            ("ttl 65536", "ttl provided is invalid"),
            ("reload", "reload needs a duration (zero seconds to disable)"),
            ("reload 5", "invalid duration for reload '5'"),
            ("reload -5s", "invalid negative duration for reload '-5s'"),
            ("fallthrough\n1.2.3.4 a", "unknown property '1.2.3.4'"),
        ] {
            let directive = format!("hosts {{\n{options}\n}}");
            let error = Bench::new().load_error(&directive, &MemorySurroundings::new());
            assert!(error.contains(text), "{error}");
            assert!(error.contains("Corefile:"), "{error}");
        }
        let error = Bench::new().load_error("hosts\nhosts", &MemorySurroundings::new());
        assert!(error.contains("this plugin can only be used once per Server Block"), "{error}");
    }
}
