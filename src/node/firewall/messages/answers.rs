//! What the kernel answers about tables, chains and rules of nftables.
//!
//! Owns what counts as ours, and as dropping what comes in. Pure.

use super::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, COMMENT, DROP, HEADER, HOOK_NUMBER, INET,
    IPV4, IPV6, MARK, RULE_TABLE, RULE_USERDATA, TABLE_NAME, TABLE_OWNER,
};
use crate::sys::netlink::{Message, attributes};

/// `NF_INET_LOCAL_IN`.
pub(super) const HOOK_INPUT: u32 = 1;

/// What an answer says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct TableFound {
    /// `ip`, `inet` …
    pub(in super::super) family: &'static str,
    /// Its name.
    pub(in super::super) name: String,
    /// The port of the socket that owns it.
    pub(in super::super) owner: Option<u32>,
}

/// What an answer says of a base chain or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ChainFound {
    /// `ip`, `inet` …
    pub(in super::super) family: &'static str,
    /// Its table's name.
    pub(in super::super) table: String,
    /// Its name.
    pub(in super::super) name: String,
    /// Whether it judges what comes to the node itself, and drops what no rule accepts.
    pub(in super::super) drops_input: bool,
}

/// Reads an answer about a table.
pub(in super::super) fn read_table(message: &Message) -> TableFound {
    TableFound {
        family: family(message),
        name: text(message, TABLE_NAME),
        owner: value(message, TABLE_OWNER).and_then(read_number),
    }
}

/// Reads an answer about a chain.
pub(in super::super) fn read_chain(message: &Message) -> ChainFound {
    let hook = value(message, CHAIN_HOOK).and_then(|hook| {
        attributes(hook).find(|(kind, _)| *kind == HOOK_NUMBER).and_then(|(_, v)| read_number(v))
    });
    let policy = value(message, CHAIN_POLICY).and_then(read_number);
    let family = family(message);
    ChainFound {
        family,
        table: text(message, CHAIN_TABLE),
        name: text(message, CHAIN_NAME),
        drops_input: matches!(family, "ip" | "ip6" | "inet")
            && hook == Some(HOOK_INPUT)
            && policy == Some(DROP),
    }
}

/// Whether an answer about a rule is of this table, of both families.
pub(in super::super) fn is_of_table(message: &Message, table: &str) -> bool {
    family(message) == "inet" && text(message, RULE_TABLE) == table
}

/// Whether a rule has a comment of ours.
pub(in super::super) fn is_marked(message: &Message) -> bool {
    let comment = value(message, RULE_USERDATA).and_then(|data| match data {
        [COMMENT, length, rest @ ..] => rest.get(..usize::from(*length)),
        _ => None,
    });
    comment.is_some_and(|comment| comment.starts_with(MARK.as_bytes()))
}

fn family(message: &Message) -> &'static str {
    match message.payload.first() {
        Some(&INET) => "inet",
        Some(&IPV4) => "ip",
        Some(&IPV6) => "ip6",
        Some(3) => "arp",
        Some(5) => "netdev",
        Some(7) => "bridge",
        _ => "unknown",
    }
}

fn value(message: &Message, kind: u16) -> Option<&[u8]> {
    message.attributes(HEADER).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn text(message: &Message, kind: u16) -> String {
    let octets = value(message, kind).unwrap_or_default();
    String::from_utf8_lossy(octets).trim_end_matches('\0').to_owned()
}

fn read_number(octets: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(octets.try_into().ok()?))
}
