//! `acl`: which clients may ask which types of which zones.
//!
//! Owns the rules and the metrics of what they did. Decides by the client's address as it arrived
//! and the type asked for; never looks at a response.

use super::{Context, DropReason, Flow, Handler, PerServer, Setup};
use crate::corefile::{CorefileError, Dispenser, Network, normalise_zone, quote};
use crate::dns::{Class, Name, Query, Rcode, RecordType, Response, Section, options};
use crate::metrics::{LazyCounter, Registry, names};
use std::net::IpAddr;

/// Extended DNS Error codes (RFC 8914 §4.16, §4.18): blocked, filtered.
const BLOCKED: u16 = 15;
const FILTERED: u16 = 17;

/// What happens to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// It goes on, and no later rule is asked.
    Allow,
    /// REFUSED.
    Block,
    /// NOERROR without records.
    Filter,
    /// No response.
    Drop,
}

/// The types that a policy is about.
#[derive(Debug, PartialEq, Eq)]
enum Types {
    All,
    Some(Vec<RecordType>),
}

/// The addresses that a policy is about: ranges in order that do not overlap, IPv4 and IPv6 apart.
#[derive(Debug, PartialEq, Eq)]
enum Sources {
    All,
    Some { v4: Vec<(u128, u128)>, v6: Vec<(u128, u128)> },
}

/// One line of a rule.
#[derive(Debug)]
struct Policy {
    action: Action,
    types: Types,
    sources: Sources,
}

/// One directive.
struct Rule {
    /// The zones, longest first, each with its number among those of all rules.
    zones: Vec<(Name, usize)>,
    policies: Vec<Policy>,
}

/// What one server counts.
struct Counters {
    allowed: LazyCounter,
    /// For each zone: blocked, filtered, dropped.
    zones: Vec<[LazyCounter; 3]>,
}

/// The running part.
struct Acl {
    rules: Vec<Rule>,
    metrics: Registry,
    counters: PerServer<Counters>,
}

impl Sources {
    fn of(networks: &[Network]) -> Sources {
        let ranges = |wants_v4: bool| {
            let family = networks.iter().filter(|one| one.address.is_ipv4() == wants_v4);
            let mut ranges: Vec<_> = family.map(range).collect();
            ranges.sort_unstable();
            ranges.dedup_by(|next, kept| {
                let joins = next.0 <= kept.1;
                kept.1 = if joins { kept.1.max(next.1) } else { kept.1 };
                joins
            });
            ranges
        };
        Sources::Some { v4: ranges(true), v6: ranges(false) }
    }

    fn contain(&self, address: IpAddr) -> bool {
        let Sources::Some { v4, v6 } = self else { return true };
        let (ranges, bits) = match address {
            IpAddr::V4(address) => (v4, u128::from(address.to_bits())),
            IpAddr::V6(address) => (v6, address.to_bits()),
        };
        let behind = ranges.partition_point(|(first, _)| *first <= bits);
        behind.checked_sub(1).is_some_and(|place| bits <= ranges[place].1)
    }
}

/// The first and last address of a network.
fn range(network: &Network) -> (u128, u128) {
    let (bits, width) = match network.address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let host = (u128::MAX >> (128 - width)).checked_shr(u32::from(network.length)).unwrap_or(0);
    (bits, bits | host)
}

impl Rule {
    /// The action for a query, with the number of the zone that it fell into.
    fn judge(&self, query: &Query<'_>, client: IpAddr) -> Option<(Action, usize)> {
        let (_, zone) = self.zones.iter().find(|(zone, _)| query.name().is_in(zone))?;
        let decisive = self.policies.iter().find(|policy| {
            let cares = match &policy.types {
                Types::All => true,
                Types::Some(types) => types.contains(&query.qtype()),
            };
            cares && policy.sources.contain(client)
        })?;
        Some((decisive.action, *zone))
    }
}

impl Acl {
    fn counters(&self, context: &Context<'_>) -> &Counters {
        self.counters.get(context.server, |server| {
            let mut zones: Vec<_> = self.rules.iter().flat_map(|rule| &rule.zones).collect();
            zones.sort_by_key(|(_, number)| *number);
            Counters {
                allowed: self.metrics.lazy_counter(&names::ACL_ALLOWED, &[server, ""]),
                zones: zones
                    .into_iter()
                    .map(|(zone, _)| {
                        [&names::ACL_BLOCKED, &names::ACL_FILTERED, &names::ACL_DROPPED].map(
                            |desc| {
                                self.metrics.lazy_counter(desc, &[server, &zone.to_string(), ""])
                            },
                        )
                    })
                    .collect(),
            }
        })
    }
}

/// Writes a reply without records that says why to a client that understands it.
fn refuse(query: &Query<'_>, response: &mut Response, rcode: Rcode, why: u16) {
    let mut writer = response.start_with_records(query, rcode, 0, "acl");
    let Some(edns) = query.edns() else { return };
    let mut option = [0; 6];
    option[..2].copy_from_slice(&options::EXTENDED_ERROR.to_be_bytes());
    option[3] = 2;
    option[4..].copy_from_slice(&why.to_be_bytes());
    let size = Class(edns.udp_size);
    writer.raw_record(Section::Additional, &[0], RecordType::OPT, size, 0, &option);
}

impl Handler for Acl {
    fn word(&self) -> &'static str {
        "acl"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let counters = self.counters(context);
        let client = context.client.address.ip().to_canonical();
        let verdict = self.rules.iter().find_map(|rule| rule.judge(query, client));
        let (action, zone) = verdict.unwrap_or((Action::Allow, 0));
        match action {
            Action::Allow => {
                counters.allowed.increment();
                Flow::Next
            }
            Action::Block => {
                counters.zones[zone][0].increment();
                refuse(query, response, Rcode::REFUSED, BLOCKED);
                Flow::Answer
            }
            Action::Filter => {
                counters.zones[zone][1].increment();
                refuse(query, response, Rcode::NOERROR, FILTERED);
                Flow::Answer
            }
            Action::Drop => {
                counters.zones[zone][2].increment();
                Flow::Drop(DropReason::Policy)
            }
        }
    }
}

/// Reads the block's `acl` directives.
///
/// # Errors
///
/// `unexpected token "…"; expect 'allow', 'block', 'filter' or 'drop'`, `… expect 'type | net'` or `…
/// expect legal QTYPE`; `no token specified in "…" section`; `illegal CIDR notation "…"`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut rules = Vec::new();
    let mut number = 0;
    while dispenser.next() {
        let words = dispenser.remaining_args();
        let zones: Vec<Name> = if words.is_empty() {
            setup.block.zones().cloned().collect()
        } else {
            words.iter().flat_map(|word| normalise_zone(word)).collect()
        };
        let mut zones: Vec<(Name, usize)> = zones.into_iter().zip(number..).collect();
        number += zones.len();
        zones.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.as_bytes().len()));
        let mut policies = Vec::new();
        while dispenser.next_block() {
            policies.push(policy(dispenser)?);
        }
        rules.push(Rule { zones, policies });
    }
    let metrics = setup.metrics.clone();
    setup.block.add(Acl { rules, metrics, counters: PerServer::new() });
    Ok(())
}

/// One line: `ACTION [type QTYPE...] [net SOURCE...]`.
fn policy(dispenser: &mut Dispenser<'_>) -> Result<Policy, CorefileError> {
    let action = match dispenser.val().to_lowercase().as_str() {
        "allow" => Action::Allow,
        "block" => Action::Block,
        "filter" => Action::Filter,
        "drop" => Action::Drop,
        _ => {
            return Err(dispenser.err(format!(
                "unexpected token {}; expect 'allow', 'block', 'filter' or 'drop'",
                quote(dispenser.val())
            )));
        }
    };
    let words = dispenser.remaining_args();
    let (mut types, mut networks) = (None, None);
    let mut rest = words.as_slice();
    while let [word, behind @ ..] = rest {
        let section = word.to_lowercase();
        if !is_section(word) {
            let text = format!("unexpected token {}; expect 'type | net'", quote(word));
            return Err(dispenser.err(text));
        }
        let count = behind.iter().take_while(|word| !is_section(word)).count();
        let (given, behind) = behind.split_at(count);
        rest = behind;
        if given.is_empty() {
            let text = format!("no token specified in {} section", quote(&section));
            return Err(dispenser.err(text));
        }
        if section == "type" {
            add_types(types.get_or_insert(Types::Some(Vec::new())), given, dispenser)?;
        } else {
            add_networks(networks.get_or_insert(Some(Vec::new())), given, dispenser)?;
        }
    }
    let sources = match networks {
        Some(Some(networks)) => Sources::of(&networks),
        None | Some(None) => Sources::All,
    };
    Ok(Policy { action, types: types.unwrap_or(Types::All), sources })
}

fn is_section(word: &str) -> bool {
    word.eq_ignore_ascii_case("type") || word.eq_ignore_ascii_case("net")
}

/// Adds to the types; `*` is all, and ends the section.
fn add_types(
    types: &mut Types,
    given: &[&str],
    dispenser: &Dispenser<'_>,
) -> Result<(), CorefileError> {
    for word in given {
        if *word == "*" {
            *types = Types::All;
            return Ok(());
        }
        let qtype = word.parse().map_err(|_| {
            dispenser.err(format!("unexpected token {}; expect legal QTYPE", quote(word)))
        })?;
        if let Types::Some(types) = types {
            types.push(qtype);
        }
    }
    Ok(())
}

/// Adds to the networks, an address without length being one of its own; `*` is all, for which
/// `None` stands, and ends the section.
fn add_networks(
    networks: &mut Option<Vec<Network>>,
    given: &[&str],
    dispenser: &Dispenser<'_>,
) -> Result<(), CorefileError> {
    for word in given {
        if *word == "*" {
            *networks = None;
            return Ok(());
        }
        let length = match word {
            _ if word.contains('/') => "",
            _ if word.contains(':') => "/128",
            _ => "/32",
        };
        let text = format!("{word}{length}");
        let network: Network = text
            .parse()
            .map_err(|_| dispenser.err(format!("illegal CIDR notation {}", quote(&text))))?;
        if let Some(networks) = networks {
            networks.push(network);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
