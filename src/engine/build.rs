//! Tree to snapshot: keys, setups in directive order, listeners.
//!
//! Owns the order in which a Corefile's mistakes are found, which is CoreDNS's (spec/coredns.md
//! §0.3, §1.8): keys, then all setups directive by directive, then addresses, then overlaps.

use super::fitted::FittedReplies;
use super::snapshot::{Block, BuildError, Server, Snapshot};
use super::zones::Zones;
use crate::corefile::{
    CorefileError, Dispenser, KeyTransport, ServerBlock, ServerKey, Surroundings, Token, Tree,
    parse, parse_keys,
};
use crate::dns::Name;
use crate::metrics::{Registry, names};
use crate::plugin::prometheus::{DROPPED, Tally};
use crate::plugin::{
    BlockDraft, Carried, Journal, Level, ServerIdentity, Service, Setup, TABLE, Timeouts,
};
use rand::rngs::StdRng;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What a build uses.
pub struct World<'w> {
    /// Files, environment, interfaces.
    pub surroundings: &'w dyn Surroundings,
    /// The registry.
    pub metrics: &'w Registry,
    /// Lines for the operator.
    pub journal: &'w dyn Journal,
    /// Chance.
    pub random: &'w mut StdRng,
    /// `-dns.port`.
    pub default_port: u16,
    /// What the snapshot before left.
    pub carried: Carried,
}

/// A block while it is being set up, with where its keys stand.
struct Plan<'t> {
    source: &'t ServerBlock,
    draft: BlockDraft,
    /// For each key of the draft, the token it came from.
    places: Vec<&'t Token>,
}

/// Tree to snapshot: all setups in directive order, then the listeners (spec/coredns.md §0.3,
/// §1.7). A tree without blocks gives CoreDNS's default, `whoami` and `log` on the default port.
pub fn build(tree: &Tree, world: World<'_>) -> Result<Snapshot, BuildError> {
    let default;
    let tree = if tree.blocks.is_empty() {
        let text = format!(".:{} {{\nwhoami\nlog\n}}\n", world.default_port);
        default = parse(text.as_bytes(), "Corefile", &|_| true, world.surroundings)?;
        &default
    } else {
        tree
    };
    let World { surroundings, metrics, journal, random, default_port, mut carried } = world;

    let mut plans = plan(tree, default_port)?;
    let mut services: Vec<Service> = Vec::new();
    for row in TABLE {
        for plan in &mut plans {
            let Some(directive) = plan.source.directives.iter().find(|one| one.word == row.word)
            else {
                continue;
            };
            let setup = row.setup.map_err(|instead| {
                let text = format!(
                    "no action found for directive '{}' with server type 'dns' (missing a plugin?); {instead}",
                    row.word
                );
                located(directive.tokens.first(), text)
            })?;
            setup(&mut Setup {
                dispenser: Dispenser::new(&directive.tokens),
                block: &mut plan.draft,
                directives: &plan.source.directives,
                surroundings,
                metrics,
                carried: &mut carried,
                services: &mut services,
                random: &mut *random,
                journal,
            })?;
        }
    }

    let mut servers = Servers::new(metrics);
    for (block, plan) in plans.iter().enumerate() {
        servers.add(block, plan)?;
    }
    check_overlaps(&plans)?;
    for server in &servers.servers {
        let label = &server.identity.label;
        match (server.transport, &server.tls) {
            (KeyTransport::Grpc, _) | (KeyTransport::Https3, None) => journal.line(
                Level::Warning,
                format_args!("{label} speaks DNS over TCP, without HTTP and TLS"),
            ),
            (KeyTransport::Https, None) => journal.line(
                Level::Warning,
                format_args!("{label} speaks HTTP without TLS: its block has no tls"),
            ),
            _ => {}
        }
    }
    let mut reflected: Vec<u16> =
        plans.iter().flat_map(|plan| &plan.draft.reflected).copied().collect();
    reflected.sort_unstable();
    reflected.dedup();
    let reflected = (!reflected.is_empty()).then(|| reflected.into());
    let blocks = plans.into_iter().map(|plan| Arc::new(finished(plan.draft))).collect();
    let fitted = FittedReplies::new(metrics);
    Ok(Snapshot { blocks, servers: servers.servers, reflected, fitted, services, carried })
}

/// The blocks with their keys read.
fn plan(tree: &Tree, default_port: u16) -> Result<Vec<Plan<'_>>, CorefileError> {
    let mut plans = Vec::with_capacity(tree.blocks.len());
    for source in &tree.blocks {
        let mut draft = BlockDraft::default();
        let mut places: Vec<&Token> = Vec::new();
        for token in &source.keys {
            let keys = parse_keys(&token.text, default_port).map_err(|text| {
                located(Some(token), format!("error inspecting server blocks: {text}"))
            })?;
            for key in keys {
                // `a.test A.TEST` works with CoreDNS, which keeps the capitals and never matches
                // them; lower-cased it is one zone. The same text twice stays an error.
                let again = draft.keys.iter().zip(&places);
                if again.into_iter().any(|(known, at)| *known == key && at.text != token.text) {
                    continue;
                }
                draft.keys.push(key);
                places.push(token);
            }
        }
        plans.push(Plan { source, draft, places });
    }
    Ok(plans)
}

fn finished(draft: BlockDraft) -> Block {
    Block { keys: draft.keys, hosts: draft.hosts, chain: draft.chain, metadata: draft.metadata }
}

/// The listeners as they come up, in the order of the file.
struct Servers<'m> {
    metrics: &'m Registry,
    servers: Vec<Server>,
    index: HashMap<(KeyTransport, Option<String>, u16), usize>,
}

impl<'m> Servers<'m> {
    fn new(metrics: &'m Registry) -> Servers<'m> {
        Servers { metrics, servers: Vec::new(), index: HashMap::new() }
    }

    fn add(&mut self, block: usize, plan: &Plan<'_>) -> Result<(), BuildError> {
        let draft = &plan.draft;
        for (key, place) in draft.keys.iter().zip(&plan.places) {
            if key.transport == KeyTransport::Unix {
                continue;
            }
            let port: u16 = key.port.parse().map_err(|_| {
                BuildError::Corefile(located(
                    Some(place),
                    format!("address {}: invalid port", key.port),
                ))
            })?;
            for host in hosts(draft) {
                let server = self.at(key.transport, host.map(canonical), port);
                // A zone that is there already is an overlap, which is reported later.
                server.zones.insert(&key.zone, block);
                server.timeouts = draft.timeouts.over(server.timeouts);
                if draft.tls.is_some() {
                    server.tls.clone_from(&draft.tls);
                }
                server.any_class |= draft.chain.iter().any(|handler| handler.takes_any_class());
                server.debug |= draft.debug;
                server.stacktrace = draft.stacktrace;
            }
        }
        Ok(())
    }

    fn at(&mut self, transport: KeyTransport, host: Option<String>, port: u16) -> &mut Server {
        let next = self.servers.len();
        let place = (transport, host, port);
        if let Some(known) = self.index.get(&place) {
            return &mut self.servers[*known];
        }
        let host = place.1.clone();
        self.index.insert(place, next);
        let shown = match &host {
            Some(host) if host.contains(':') => format!("[{host}]"),
            Some(host) => host.clone(),
            None => String::new(),
        };
        let label = format!("{}://{shown}:{port}", transport.word());
        self.servers.push(Server {
            dropped: Tally::new(self.metrics, &label, DROPPED),
            panics: self.metrics.counter(&names::PANICS, &[]),
            identity: ServerIdentity { label: label.into(), index: next },
            transport,
            host,
            port,
            zones: Zones::default(),
            timeouts: Timeouts::default(),
            tls: None,
            any_class: false,
            debug: false,
            stacktrace: false,
        });
        &mut self.servers[next]
    }
}

/// The addresses of a block: those after `bind`, or `None` for all.
fn hosts(draft: &BlockDraft) -> impl Iterator<Item = Option<&str>> {
    let all = draft.hosts.is_empty().then_some(None);
    all.into_iter().chain(draft.hosts.iter().map(|host| Some(host.as_str())))
}

/// An address in its one shortest form: two spellings are one listener.
fn canonical(host: &str) -> String {
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    match (address.parse::<IpAddr>(), zone) {
        (Ok(address), None) => address.to_string(),
        (Ok(address), Some(zone)) => format!("{address}%{zone}"),
        (Err(_), _) => host.to_owned(),
    }
}

/// A zone is served once on a listener, and not both on one address and on all (spec/coredns.md
/// §1.6).
fn check_overlaps(plans: &[Plan<'_>]) -> Result<(), BuildError> {
    type Spot<'p> = (KeyTransport, &'p Name, &'p str);
    let mut taken: HashSet<(Spot<'_>, Option<&str>)> = HashSet::new();
    let mut registered: HashMap<Spot<'_>, Option<&str>> = HashMap::new();
    for plan in plans {
        for (key, place) in plan.draft.keys.iter().zip(&plan.places) {
            for host in hosts(&plan.draft) {
                let spot: Spot<'_> = (key.transport, &key.zone, &key.port);
                let here = shown(key, host);
                if !taken.insert((spot, host)) {
                    let text = format!("cannot serve {here} - it is already defined");
                    return Err(servers_error(place, &text));
                }
                let other = match (registered.get(&spot), host) {
                    (Some(other), None) => Some(*other),
                    (Some(_), Some(_)) if taken.contains(&(spot, None)) => Some(None),
                    _ => None,
                };
                if let Some(other) = other {
                    let other = shown(key, other);
                    let text = format!(
                        "cannot serve {here} - zone overlap listener capacity with {other}"
                    );
                    return Err(servers_error(place, &text));
                }
                registered.insert(spot, host);
            }
        }
    }
    Ok(())
}

fn shown(key: &ServerKey, host: Option<&str>) -> String {
    let base = format!("{}://{}:{}", key.transport.word(), key.zone, key.port);
    match host {
        Some(host) => format!("{base} on {host}"),
        None => base,
    }
}

fn servers_error(place: &Token, text: &str) -> BuildError {
    BuildError::Servers(format!("{}:{} - {text}", place.file, place.line))
}

/// CoreDNS's bare text behind the place that it does not say.
fn located(place: Option<&Token>, text: String) -> CorefileError {
    match place {
        Some(token) => CorefileError {
            text: format!("{}:{} - {text}", token.file, token.line),
            file: Some(token.file.to_string()),
            line: Some(token.line),
        },
        None => CorefileError { text, file: None, line: None },
    }
}
