//! What every handler's tests stand on: a chain run through the engine's passes with no socket, no
//! runtime and a clock that the test moves.
//!
//! Owns a [`Bench`] (time, chance, journal, registry, client), scripted responses written as
//! record text, and the text of responses. Never decides anything itself.

mod records;
mod run;

use super::forward::Exchange;
use super::{
    BlockDraft, Carried, Chain, Client, DropReason, Handler, Journal, Labels, Level, Now,
    ServerIdentity, Service, Setup, TABLE,
};
use crate::corefile::{CorefileError, Dispenser, ServerKey, Surroundings, parse, parse_keys};
use crate::dns::{Class, Name, Query, Rcode, RecordType, Response, Section, Transport, Writer};
use crate::metrics::Registry;
use rand::SeedableRng;
use rand::rngs::StdRng;
pub(crate) use records::{parse_record, records_of};
use run::Run;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A journal that keeps its lines: `[INFO] text`.
#[derive(Debug, Default)]
pub(crate) struct FakeJournal {
    lines: Mutex<Vec<String>>,
}

impl FakeJournal {
    /// The lines since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl Journal for FakeJournal {
    fn line(&self, level: Level, text: fmt::Arguments<'_>) {
        self.lines.lock().unwrap().push(format!("[{}] {text}", level.word()));
    }
}

/// How one query ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The response above the outermost handler.
    pub(crate) response: Response,
    /// The query as the handlers left it.
    pub(crate) query: Query<'static>,
    /// Set when a handler dropped the query.
    pub(crate) dropped: Option<DropReason>,
    /// The exchanges that handlers asked for.
    pub(crate) exchanges: Vec<Exchange>,
    /// The further questions that handlers asked.
    pub(crate) further: Vec<Query<'static>>,
    /// The wishes for a refresh: the handler's place in the chain and the query it saw.
    pub(crate) refreshes: Vec<(usize, Query<'static>)>,
    /// The metadata labels at the end.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// When it would have ended waiting.
    pub(crate) deadline: Option<Duration>,
}

impl Outcome {
    /// All records as text, sections in order, OPT left out: `a.test. 300 IN A 192.0.2.1`.
    pub(crate) fn records(&self) -> Vec<String> {
        records_of(&self.response)
    }
}

/// Time, chance, client, journal and registry of a test.
pub(crate) struct Bench {
    /// The clock: both readings move together with [`Bench::advance`].
    pub(crate) now: Now,
    /// Who asks: 127.0.0.1:40212 over UDP, unless changed.
    pub(crate) client: Client,
    /// The listener: `dns://127.0.0.53:53`.
    pub(crate) server: ServerIdentity,
    /// Chance, seeded.
    pub(crate) random: StdRng,
    /// The lines.
    pub(crate) journal: FakeJournal,
    /// The registry.
    pub(crate) metrics: Registry,
    /// What survives a reload.
    pub(crate) carried: Carried,
    /// The services of the last [`Bench::load`].
    pub(crate) services: Vec<Service>,
    /// The block of the last [`Bench::load`], its chain included.
    pub(crate) block: BlockDraft,
    /// The keys of the blocks that are loaded.
    pub(crate) keys: Vec<String>,
    /// Whether metadata labels are collected.
    pub(crate) labels_wanted: bool,
    /// When set, no response comes before a handler's patience ends.
    pub(crate) upstream_is_late: bool,
    /// How long an exchange takes, as told to handlers. The clock does not move.
    pub(crate) exchange_takes: Duration,
}

impl Bench {
    /// A bench at monotonic 1000 s with key `.:53`.
    pub(crate) fn new() -> Bench {
        Bench {
            now: Now {
                monotonic: Duration::from_secs(1000),
                unix: Duration::from_secs(1_700_000_000),
            },
            client: Client {
                address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40212),
                local: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 53),
                transport: Transport::Udp,
            },
            server: ServerIdentity { label: Arc::from("dns://127.0.0.53:53"), index: 0 },
            random: StdRng::seed_from_u64(7),
            journal: FakeJournal::default(),
            metrics: Registry::new(1),
            carried: Carried::default(),
            services: Vec::new(),
            block: BlockDraft::default(),
            keys: vec![".:53".to_owned()],
            labels_wanted: false,
            upstream_is_late: false,
            exchange_takes: Duration::from_millis(3),
        }
    }

    /// Moves the clock.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now.monotonic += by;
        self.now.unix += by;
    }

    /// Sets up the directives of one server block as text, in table order, and gives its chain.
    /// The first line of `directives` is line 2 of `Corefile`.
    pub(crate) fn load(
        &mut self,
        directives: &str,
        surroundings: &dyn Surroundings,
    ) -> Result<Chain, CorefileError> {
        let text = format!("{} {{\n{directives}\n}}\n", self.keys.join(" "));
        let tree = parse(text.as_bytes(), "Corefile", &|_| true, surroundings)?;
        let keys = self.keys.iter().flat_map(|key| keys_of(key)).collect();
        let directives = tree.blocks.first().map_or(&[][..], |block| &block.directives);
        self.block = BlockDraft { keys, ..BlockDraft::default() };
        self.services.clear();
        self.carried = self.carried.next();
        for row in TABLE {
            let Ok(setup) = row.setup else { continue };
            for directive in directives {
                if directive.word != row.word {
                    continue;
                }
                setup(&mut Setup {
                    dispenser: Dispenser::new(&directive.word, &directive.tokens),
                    block: &mut self.block,
                    directives,
                    surroundings,
                    metrics: &self.metrics,
                    carried: &mut self.carried,
                    services: &mut self.services,
                    random: &mut self.random,
                    journal: &self.journal,
                })?;
            }
        }
        for handler in &self.block.chain {
            handler.start(surroundings, &self.journal)?;
        }
        self.labels_wanted = self.block.metadata;
        Ok(self.block.chain.clone())
    }

    /// The text of the error that `directives` give.
    pub(crate) fn load_error(
        &mut self,
        directives: &str,
        surroundings: &dyn Surroundings,
    ) -> String {
        match self.load(directives, surroundings) {
            Ok(_) => panic!("no error: {directives}"),
            Err(error) => error.to_string(),
        }
    }

    /// One query through `chain`. `below` plays all that is not in the chain: it answers where the
    /// chain ends, for exchanges and for further questions.
    pub(crate) fn ask(
        &mut self,
        chain: &[Arc<dyn Handler>],
        query: Query<'_>,
        mut below: impl FnMut(&Query<'_>, &mut Response),
    ) -> Outcome {
        self.run(chain, query.into_owned(), 0, 0, false, &mut below)
    }

    /// A refresh as a handler wished for it: below the handler at `depth`, ending there.
    pub(crate) fn refresh(
        &mut self,
        chain: &[Arc<dyn Handler>],
        (depth, query): (usize, Query<'static>),
        mut below: impl FnMut(&Query<'_>, &mut Response),
    ) -> Outcome {
        self.run(chain, query, depth + 1, depth, true, &mut below)
    }

    /// Calls every handler's upkeep once.
    pub(crate) fn upkeep(&self, chain: &[Arc<dyn Handler>], surroundings: &dyn Surroundings) {
        for handler in chain {
            handler.upkeep(self.now, surroundings, &self.journal);
        }
    }

    /// Calls every handler's flush.
    pub(crate) fn flush(&self, chain: &[Arc<dyn Handler>]) {
        for handler in chain {
            handler.flush(self.now, &self.journal);
        }
    }

    fn run(
        &mut self,
        chain: &[Arc<dyn Handler>],
        query: Query<'static>,
        depth: usize,
        floor: usize,
        clientless: bool,
        below: &mut dyn FnMut(&Query<'_>, &mut Response),
    ) -> Outcome {
        let late = self.upstream_is_late;
        let mut run = Run {
            bench: self,
            chain,
            floor,
            clientless,
            notes: (0..chain.len()).map(|_| None).collect(),
            labels: Labels::default(),
            patience: None,
            falls_back: false,
            late,
            below,
            outcome: Outcome {
                response: Response::new(),
                query,
                dropped: None,
                exchanges: Vec::new(),
                further: Vec::new(),
                refreshes: Vec::new(),
                labels: Vec::new(),
                deadline: None,
            },
        };
        run.labels.wanted = run.bench.labels_wanted;
        run.down(depth);
        run.outcome.labels = run.labels.pairs;
        run.outcome
    }
}

fn keys_of(text: &str) -> Vec<ServerKey> {
    match parse_keys(text, 53) {
        Ok(keys) => keys,
        Err(error) => panic!("bad key {text}: {error}"),
    }
}

/// A name from text that the test knows to be right.
pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A query of class IN with RD, id 0.
pub(crate) fn query(qname: &str, qtype: RecordType) -> Query<'static> {
    Query::new(&name(qname), qtype, Class::IN)
}

/// Writes a response with the given records: `"a.test. 300 IN A 192.0.2.1"` goes to the answer
/// section, `"authority: …"` and `"additional: …"` to theirs.
pub(crate) fn respond(query: &Query<'_>, response: &mut Response, rcode: Rcode, records: &[&str]) {
    let mut wire = Vec::new();
    let flags = 0x8180 | (rcode.0 & 0xf);
    let mut writer = Writer::new(&mut wire, query.id(), flags);
    writer.question(query.question());
    for section in [Section::Answer, Section::Authority, Section::Additional] {
        for text in records {
            let (place, text) = match text.split_once(": ") {
                Some(("authority", text)) => (Section::Authority, text),
                Some(("additional", text)) => (Section::Additional, text),
                _ => (Section::Answer, *text),
            };
            if place == section {
                let record = parse_record(text);
                writer.raw_record(
                    section,
                    record.owner.as_bytes(),
                    record.rtype,
                    record.class,
                    record.ttl,
                    &record.rdata,
                );
            }
        }
    }
    response.take(&wire, "forward").unwrap();
}

/// A closure for [`Bench::ask`] that always responds the same.
pub(crate) fn always<'s>(
    rcode: Rcode,
    records: &'s [&'s str],
) -> impl FnMut(&Query<'_>, &mut Response) + 's {
    move |query, response| respond(query, response, rcode, records)
}

/// A closure for [`Bench::ask`] that never is to be called.
pub(crate) fn nobody(query: &Query<'_>, _response: &mut Response) {
    panic!("nobody may be asked for {}", query.name());
}
