//! Tables as the kernel has them: asked for, and changed whole or not at all.
//!
//! Knows whose comments rules have. Decides nothing.

use super::messages::{self, CHAINS, HEADER};
use crate::sys::netlink::{Message, Netlink, Refusal, Request};

/// Does all of it or nothing.
pub(super) fn commit(netlink: &mut Netlink, inner: Vec<Request>) -> Result<(), Refusal> {
    let refused = netlink.ask_all(messages::transaction(inner))?;
    refused.into_iter().next().map_or(Ok(()), |(_, refusal)| Err(refusal))
}

/// One object; `None` when it is not there.
pub(super) fn get(netlink: &mut Netlink, request: &Request) -> Result<Option<Message>, Refusal> {
    match netlink.get(request) {
        Err(refusal) if refusal.number() == Some(libc::ENOENT) => Ok(None),
        result => result,
    }
}

/// The rules of a table of both families.
fn rules(netlink: &mut Netlink, table: &str) -> Result<Vec<Message>, Refusal> {
    match netlink.dump(&messages::rules_of(table)) {
        Ok(found) => {
            Ok(found.into_iter().filter(|rule| messages::is_of_table(rule, table)).collect())
        }
        Err(refusal) if refusal.number() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(refusal) => Err(refusal),
    }
}

/// Whether all rules of a table have comments of ours. One without rules is nobody's loss, and may
/// be what an interrupted one left.
pub(super) fn is_of_nodens(netlink: &mut Netlink, table: &str) -> Result<bool, Refusal> {
    Ok(rules(netlink, table)?.iter().all(messages::is_marked))
}

/// All that the kernel shows of a table, its chains and its rules.
pub(super) fn picture(netlink: &mut Netlink, table: &str) -> Result<Vec<Vec<u8>>, Refusal> {
    // The header has a number that changes with every change of any table.
    let seen = |message: &Message| message.payload.get(HEADER..).unwrap_or_default().to_vec();
    let mut all = Vec::new();
    all.extend(get(netlink, &messages::get_table(table))?.iter().map(seen));
    for chain in CHAINS {
        all.extend(get(netlink, &messages::get_chain(table, chain.name))?.iter().map(seen));
    }
    all.extend(rules(netlink, table)?.iter().map(seen));
    Ok(all)
}
