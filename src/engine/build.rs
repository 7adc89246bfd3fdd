//! Tree to snapshot: keys, setups in directive order, listeners.
//!
//! Owns the order in which a Corefile's mistakes are found, which is CoreDNS's:
//! keys, then all setups directive by directive, then addresses, then overlaps, then what
//! handlers find as they start.

use super::fitted::FittedReplies;
use super::snapshot::{Block, BuildError, Server, Snapshot, least_level};
use super::zones::Zones;
use crate::corefile::{
    CorefileError, Directive, Dispenser, KeyTransport, ServerBlock, ServerKey, Surroundings, Token,
    Tree, parse, parse_keys,
};
use crate::dns::Name;
use crate::metrics::{Registry, names};
use crate::plugin::prometheus::{DROPPED, Tally};
use crate::plugin::{
    BlockDraft, Carried, DirectiveRow, Journal, Level, ServerIdentity, Service, Setup, TABLE,
    Timeouts,
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
pub(super) struct Plan<'t> {
    pub(super) source: &'t ServerBlock,
    pub(super) draft: BlockDraft,
    /// For each key of the draft, the token it came from.
    pub(super) places: Vec<&'t Token>,
}

/// What becomes of a mistake: the error that ends the build, or nothing, and the build goes on.
pub(super) type OnMistake<'m> = &'m mut dyn FnMut(BuildError) -> Result<(), BuildError>;

/// What the setups of a tree share.
pub(super) struct Common<'w> {
    pub(super) surroundings: &'w dyn Surroundings,
    pub(super) metrics: &'w Registry,
    pub(super) journal: &'w dyn Journal,
    pub(super) random: &'w mut StdRng,
    pub(super) carried: Carried,
    pub(super) services: Vec<Service>,
}

/// Tree to snapshot: all setups in directive order, then the listeners. A tree without blocks gives
/// CoreDNS's default, `whoami` and `log` on the default port.
///
/// # Errors
///
/// The first mistake, in the order that CoreDNS finds them: keys, directives, listeners, what handlers
/// find as they start.
pub fn build(tree: &Tree, world: World<'_>) -> Result<Snapshot, BuildError> {
    let default;
    let tree = if tree.blocks.is_empty() {
        let text = format!(".:{} {{\nwhoami\nlog\n}}\n", world.default_port);
        default = parse(text.as_bytes(), "Corefile", &|_| true, world.surroundings)?;
        &default
    } else {
        tree
    };
    let World { surroundings, metrics, journal, random, default_port, carried } = world;
    let services = Vec::new();
    let mut common = Common { surroundings, metrics, journal, random, carried, services };

    let mut plans = plan(tree, default_port, &mut Err)?;
    for row in TABLE {
        for Plan { source, draft, .. } in &mut plans {
            if let Some(directive) = source.directives.iter().find(|one| one.word == row.word) {
                set_up(row, &directive.tokens, &source.directives, draft, &mut common)?;
            }
        }
    }
    let servers = servers(&plans, &common, &mut Err)?;
    common.journal.show_from(least_level(&servers));
    for row in TABLE {
        for plan in &plans {
            start(row, &plan.draft, &common)?;
        }
    }
    let Common { carried, services, .. } = common;
    let mut reflected: Vec<u16> =
        plans.iter().flat_map(|plan| &plan.draft.reflected).copied().collect();
    reflected.sort_unstable();
    reflected.dedup();
    let reflected = (!reflected.is_empty()).then(|| reflected.into());
    let blocks = plans.into_iter().map(|plan| Arc::new(finished(plan.draft))).collect();
    let fitted = FittedReplies::new(metrics);
    Ok(Snapshot { blocks, servers, reflected, fitted, services, carried })
}

/// One directive of one block: `tokens` are its own, `directives` are the block's.
pub(super) fn set_up(
    row: &DirectiveRow,
    tokens: &[Token],
    directives: &[Directive],
    draft: &mut BlockDraft,
    common: &mut Common<'_>,
) -> Result<(), CorefileError> {
    let setup = row.setup.map_err(|instead| {
        let missing = format!(
            "no action found for directive '{}' with server type 'dns' (missing a plugin?)",
            row.word
        );
        let error = located(tokens.first(), format!("{missing}; {instead}"));
        CorefileError { message: missing, ..error }
    })?;
    setup(&mut Setup {
        dispenser: Dispenser::new(row.word, tokens),
        block: draft,
        directives,
        surroundings: common.surroundings,
        metrics: common.metrics,
        carried: &mut common.carried,
        services: &mut common.services,
        random: common.random,
        journal: common.journal,
    })
}

/// Starts the handlers of one directive of one block.
pub(super) fn start(
    row: &DirectiveRow,
    draft: &BlockDraft,
    common: &Common<'_>,
) -> Result<(), CorefileError> {
    let mut handlers = draft.chain.iter().filter(|handler| handler.word() == row.word);
    handlers.try_for_each(|handler| handler.start(common.surroundings, common.journal))
}

/// The listeners of all blocks, and whether they contradict one another.
pub(super) fn servers(
    plans: &[Plan<'_>],
    common: &Common<'_>,
    on_mistake: OnMistake<'_>,
) -> Result<Vec<Server>, BuildError> {
    let mut servers = Servers::new(common.metrics);
    for (block, plan) in plans.iter().enumerate() {
        servers.add(block, plan, on_mistake)?;
    }
    check_overlaps(plans, on_mistake)?;
    for server in &servers.servers {
        let label = &server.identity.label;
        match (server.transport, &server.tls) {
            (KeyTransport::Grpc, _) => common.journal.line(
                Level::Warning,
                format_args!("{label} speaks DNS over TCP, without HTTP and TLS"),
            ),
            (transport @ (KeyTransport::Quic | KeyTransport::Https3), None) => {
                let text = match transport {
                    KeyTransport::Quic => "ListenPacket: quic: tls.Config not set",
                    _ => "DoH3 requires TLS, no TLS config found",
                };
                let places = plans.iter().flat_map(|plan| plan.draft.keys.iter().zip(&plan.places));
                let of_server = |key: &ServerKey| {
                    key.transport == transport && key.port == server.port.to_string()
                };
                for (_, place) in places.into_iter().filter(|(key, _)| of_server(key)).take(1) {
                    on_mistake(servers_error(place, text.to_owned()))?;
                }
            }
            (KeyTransport::Https, None) => common.journal.line(
                Level::Warning,
                format_args!("{label} speaks HTTP without TLS: its block has no tls"),
            ),
            _ => {}
        }
    }
    Ok(servers.servers)
}

/// The blocks with their keys read.
pub(super) fn plan<'t>(
    tree: &'t Tree,
    default_port: u16,
    on_mistake: OnMistake<'_>,
) -> Result<Vec<Plan<'t>>, BuildError> {
    let mut plans = Vec::with_capacity(tree.blocks.len());
    for source in &tree.blocks {
        let mut draft = BlockDraft::default();
        let mut places: Vec<&Token> = Vec::new();
        for token in &source.keys {
            let keys = match parse_keys(&token.text, default_port) {
                Ok(keys) => keys,
                Err(text) => {
                    let text = format!("error inspecting server blocks: {text}");
                    on_mistake(located(Some(token), text).into())?;
                    continue;
                }
            };
            for key in keys {
                // `a.test A.TEST` works with CoreDNS, which keeps the capitals and never matches
                // them; lower-cased it is one zone. The same zone in other words stays an error.
                let in_other_capitals =
                    |text: &str| text != token.text && text.eq_ignore_ascii_case(&token.text);
                let again = draft.keys.iter().zip(&places);
                if again.into_iter().any(|(known, at)| *known == key && in_other_capitals(&at.text))
                {
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
    Block { keys: draft.keys, chain: draft.chain, metadata: draft.metadata }
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

    fn add(
        &mut self,
        block: usize,
        plan: &Plan<'_>,
        on_mistake: OnMistake<'_>,
    ) -> Result<(), BuildError> {
        let draft = &plan.draft;
        for (key, place) in draft.keys.iter().zip(&plan.places) {
            // CoreDNS serves nothing at `unix://`, but looks at a port there.
            let is_unix = key.transport == KeyTransport::Unix;
            if is_unix && key.port.is_empty() {
                continue;
            }
            let Ok(port) = key.port.parse::<u16>() else {
                let text = format!("address {}: invalid port", key.port);
                on_mistake(located(Some(place), text).into())?;
                continue;
            };
            if is_unix {
                continue;
            }
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
pub(super) fn hosts(draft: &BlockDraft) -> impl Iterator<Item = Option<&str>> {
    let all = draft.hosts.is_empty().then_some(None);
    all.into_iter().chain(draft.hosts.iter().map(|host| Some(host.as_str())))
}

/// An address in its one shortest form: two spellings are one listener.
pub(super) fn canonical(host: &str) -> String {
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    match (address.parse::<IpAddr>(), zone) {
        // To Go `::ffff:10.0.0.1` is an IPv4 address.
        (Ok(address), None) => address.to_canonical().to_string(),
        (Ok(address), Some(zone)) => format!("{address}%{zone}"),
        (Err(_), _) => host.to_owned(),
    }
}

/// A zone is served once on a listener, and not both on one address and on all.
fn check_overlaps(plans: &[Plan<'_>], on_mistake: OnMistake<'_>) -> Result<(), BuildError> {
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
                    on_mistake(servers_error(place, text))?;
                    continue;
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
                    on_mistake(servers_error(place, text))?;
                    continue;
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

fn servers_error(place: &Token, text: String) -> BuildError {
    BuildError::Servers(located(Some(place), text))
}

/// CoreDNS's bare text behind the place that it does not say.
fn located(place: Option<&Token>, text: String) -> CorefileError {
    match place {
        Some(token) => CorefileError::bare(token, text),
        None => CorefileError::unplaced(text),
    }
}
