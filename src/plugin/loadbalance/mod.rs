//! `loadbalance`: changes the order of records so that clients spread (docs/plugins/loadbalance.md).
//!
//! Owns the directive, the policies and the weights. Never adds or removes a record, and stands
//! above the cache: what is stored keeps its order.

mod order;
mod weights;

use super::{Context, Handler, Journal, Now, Setup, Turn};
use crate::corefile::{CorefileError, Dispenser, Network, Surroundings, parse_duration, quote};
use crate::dns::{Message, Query, Rcode, RecordType, Response, Section, Written};
use order::{Arranged, Group, Piece};
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::Duration;
use weights::{Weights, WeightsError};

/// How often a weight file is looked at, unless told.
const RELOAD: Duration = Duration::from_secs(30);

/// Reads the directive; the last one of a block wins.
///
/// # Errors
///
/// `unknown policy: …`; `unknown property for round_robin`; `missing weight file argument`, `unexpected
/// argument(s)`; `unknown property '…'`; `invalid CIDR "…": invalid CIDR address: …`; `reload duration
/// value is missing`, `unexpected argument`, `invalid reload duration '…'`. What is wrong with a weight
/// file is said at the start.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut chosen: Option<Directive> = None;
    while dispenser.next() {
        let mut next = directive(dispenser)?;
        // Preferred networks add up; a weight file begins anew.
        if let (Some(before), Word::RoundRobin) = (&mut chosen, &next.policy) {
            before.preferred.append(&mut next.preferred);
            next.preferred = std::mem::take(&mut before.preferred);
        }
        chosen = Some(next);
    }
    let Some(Directive { policy, reload, preferred }) = chosen else {
        return Err(dispenser.arg_err());
    };
    let policy = match policy {
        Word::RoundRobin => Policy::RoundRobin,
        Word::Weighted(file) => {
            let place = dispenser.plain_err(&file).place;
            let fault = CorefileError { place, ..dispenser.plain_err("") };
            Policy::Weighted(Weights::new(file, reload), fault)
        }
    };
    setup.block.add(LoadBalance { policy, preferred });
    Ok(())
}

/// One directive as written.
struct Directive {
    policy: Word,
    reload: Duration,
    preferred: Vec<Network>,
}

/// A policy's words.
enum Word {
    RoundRobin,
    Weighted(String),
}

fn directive(dispenser: &mut Dispenser<'_>) -> Result<Directive, CorefileError> {
    let policy = match dispenser.remaining_args()[..] {
        [] | ["round_robin"] => Word::RoundRobin,
        ["round_robin", ..] => return Err(dispenser.err("unknown property for round_robin")),
        ["weighted"] => return Err(dispenser.err("missing weight file argument")),
        ["weighted", file] => Word::Weighted(file.to_owned()),
        ["weighted", ..] => return Err(dispenser.err("unexpected argument(s)")),
        [other, ..] => return Err(dispenser.plain_err(format!("unknown policy: {other}"))),
    };
    let mut directive = Directive { policy, reload: RELOAD, preferred: Vec::new() };
    while dispenser.next_block() {
        match (dispenser.val(), &directive.policy) {
            ("prefer", Word::RoundRobin) => {
                for text in dispenser.remaining_args() {
                    let network = text.parse().map_err(|_| {
                        let text =
                            format!("invalid CIDR {}: invalid CIDR address: {text}", quote(text));
                        dispenser.err(text)
                    })?;
                    directive.preferred.push(network);
                }
            }
            ("reload", Word::Weighted(_)) => {
                let text = match dispenser.remaining_args()[..] {
                    [] => return Err(dispenser.err("reload duration value is missing")),
                    [text] => text,
                    _ => return Err(dispenser.err("unexpected argument")),
                };
                let nanoseconds = parse_duration(text)
                    .map_err(|_| dispenser.err(format!("invalid reload duration '{text}'")))?;
                directive.reload = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
            }
            (other, _) => return Err(dispenser.err(format!("unknown property '{other}'"))),
        }
    }
    Ok(directive)
}

/// Who comes first.
enum Policy {
    /// Addresses and MX records in random order.
    RoundRobin,
    /// One address in front, chosen by weight; and the beginning of the error that a wrong file is.
    Weighted(Weights, CorefileError),
}

/// The handler.
struct LoadBalance {
    policy: Policy,
    preferred: Vec<Network>,
}

impl LoadBalance {
    /// The order of one section's records.
    fn arrange(
        &self,
        message: &Message<'_>,
        qtype: RecordType,
        section: Section,
        pieces: &mut [Piece],
        random: &mut StdRng,
    ) {
        match &self.policy {
            Policy::RoundRobin => {
                order::group(pieces, &[Group::Alias, Group::Other, Group::Address, Group::Mail]);
                shuffle(order::of_group(pieces, Group::Address), random);
                shuffle(order::of_group(pieces, Group::Mail), random);
            }
            Policy::Weighted(weights, _)
                if [RecordType::A, RecordType::AAAA, RecordType::SRV].contains(&qtype)
                    && section != Section::Authority
                    && pieces.iter().any(|piece| piece.group == Group::Address) =>
            {
                order::group(pieces, &[Group::Alias, Group::Other, Group::Address, Group::Mail]);
                let addresses = order::of_group(pieces, Group::Address);
                let first = weights.choose(message, addresses, random);
                addresses.swap(0, first);
            }
            Policy::Weighted(..) => {}
        }
        // `weighted` has none.
        if !self.preferred.is_empty() && section != Section::Authority {
            order::group(pieces, &[Group::Alias, Group::Address, Group::Mail, Group::Other]);
            order::sort_addresses(pieces, |piece| {
                let address = piece.address(message.wire());
                self.preferred
                    .iter()
                    .position(|network| address.is_some_and(|address| network.contains(address)))
                    .unwrap_or(self.preferred.len())
            });
        }
    }
}

/// Fisher and Yates.
fn shuffle(pieces: &mut [Piece], random: &mut StdRng) {
    for last in (1..pieces.len()).rev() {
        pieces.swap(last, random.random_range(0..=last));
    }
}

impl Handler for LoadBalance {
    fn word(&self) -> &'static str {
        "loadbalance"
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let qtype = query.qtype();
        response.pass_through("loadbalance");
        if response.written == Written::Message
            && response.rcode == Rcode::NOERROR
            && ![RecordType::AXFR, RecordType::IXFR].contains(&qtype)
            && let Ok(message) = response.message()
        {
            let arranged = Arranged::new(&message, |section, pieces| {
                self.arrange(&message, qtype, section, pieces, context.random);
            });
            arranged.write(&mut response.wire);
        }
        Turn::Up
    }

    fn start(
        &self,
        surroundings: &dyn Surroundings,
        journal: &dyn Journal,
    ) -> Result<(), CorefileError> {
        let Policy::Weighted(weights, fault) = &self.policy else { return Ok(()) };
        match weights.read(surroundings, journal) {
            Err(error @ WeightsError::Open) if weights.reload().is_some() => {
                weights.warn_of_absence(&error, journal);
                Ok(())
            }
            result => result.map_err(|error| CorefileError {
                text: format!("{}{error}", fault.text),
                message: format!("{}{error}", fault.message),
                place: fault.place.clone(),
            }),
        }
    }

    fn upkeep_every(&self) -> Option<Duration> {
        match &self.policy {
            Policy::RoundRobin => None,
            Policy::Weighted(weights, _) => weights.reload(),
        }
    }

    fn upkeep(&self, _now: Now, surroundings: &dyn Surroundings, journal: &dyn Journal) {
        if let Policy::Weighted(weights, _) = &self.policy
            && let Err(error) = weights.read(surroundings, journal)
        {
            weights.complain(&error, journal);
        }
    }
}

#[cfg(test)]
mod tests;
