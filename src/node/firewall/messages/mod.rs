//! Objects of nftables as netlink messages: a table, its chains, the rules of a [`Plan`]. The numbers
//! are those of `linux/netfilter/nf_tables.h`.
//!
//! Owns the requests; `expressions` has what a rule compares and does, `answers` what is read of the
//! kernel's. Pure: sends nothing, decides nothing.

mod answers;
mod expressions;

pub(super) use self::answers::{is_marked, is_of_table, read_chain, read_table};
use self::expressions::{LINK_IN, LINK_OUT, exchange, matching, not_loopback, not_tracked};
use super::rules::{Family, Place, Plan, Rule, Side};
use crate::sys::netlink::Request;
use std::net::IpAddr;

/// Octets of `struct nfgenmsg`.
pub(super) const HEADER: usize = 4;

/// The subsystem's number (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM: u16 = 10;

/// Begin and end of a transaction (`NFNL_MSG_BATCH_BEGIN`, `…_END`).
const BATCH: (u16, u16) = (0x10, 0x11);

/// `NFT_MSG_NEWTABLE` and its relatives.
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;

/// `NFPROTO_UNSPEC`: all families.
const EVERY_FAMILY: u8 = 0;
/// `NFPROTO_INET`: both families in one table.
pub(super) const INET: u8 = 1;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_OWNER: u16 = 7;
/// The table goes when the socket that made it is closed (`NFT_TABLE_F_OWNER`, Linux 5.12).
pub(super) const OWNED: u32 = 2;

const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;

/// `NF_DROP`, `NF_ACCEPT`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// What stands before a rule's comment in its user data: its kind, as `nft` knows it.
const COMMENT: u8 = 0;

/// The start of all comments of ours; by it a table is known.
pub(super) const MARK: &str = "NodeLocal DNS Cache: ";

/// The comment of rules that exchange addresses.
const REWRITTEN: &str = "NodeLocal DNS Cache: answer for the Service";

/// A base chain of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    hook: u32,
    priority: i32,
}

/// Before connection tracking, for what comes from pods and for what leaves or stays on the node.
pub(super) const CHAINS: [Chain; 2] = [
    Chain { name: "prerouting", hook: 0, priority: -300 },
    Chain { name: "output", hook: 3, priority: -300 },
];

/// The rules of a plan that nftables needs: those that keep packets out of connection tracking. An
/// accept is none of them: in a table of one's own it accepts for nobody else.
pub(super) fn rules(plan: &Plan) -> Vec<Rule> {
    let all = Family::ALL.into_iter().flat_map(|family| plan.rules(family));
    all.filter(|rule| chain_of(rule.place).is_some()).collect()
}

fn chain_of(place: Place) -> Option<Chain> {
    match place {
        Place::RawPrerouting => Some(CHAINS[0]),
        Place::RawOutput => Some(CHAINS[1]),
        Place::FilterInput | Place::FilterOutput => None,
    }
}

/// A transaction: the kernel does all of it or nothing.
pub(super) fn transaction(inner: Vec<Request>) -> Vec<Request> {
    // The batch's own messages name the subsystem where others have a zero.
    let edge = |kind: u16| {
        let number = SUBSYSTEM.to_be_bytes();
        Request::new(kind, 0).fixed(&[EVERY_FAMILY, 0, number[0], number[1]]).unacknowledged()
    };
    let mut all = vec![edge(BATCH.0)];
    all.extend(inner);
    all.push(edge(BATCH.1));
    all
}

/// Makes a table with flags: [`OWNED`], or none.
pub(super) fn new_table(name: &str, flags: u32) -> Request {
    let request = request(NEW_TABLE, libc::NLM_F_CREATE, INET).text(TABLE_NAME, name);
    number(request, TABLE_FLAGS, flags)
}

/// Removes a table with all that it holds.
pub(super) fn delete_table(name: &str) -> Request {
    request(DELETE_TABLE, 0, INET).text(TABLE_NAME, name)
}

/// Asks for one table of both families.
pub(super) fn get_table(name: &str) -> Request {
    get_table_of(INET, name)
}

/// Asks for one table of a family.
pub(super) fn get_table_of(family: u8, name: &str) -> Request {
    request(GET_TABLE, 0, family).text(TABLE_NAME, name)
}

/// Makes a chain of a table; it lets all pass that no rule judges.
pub(super) fn new_chain(table: &str, chain: Chain) -> Request {
    let request = request(NEW_CHAIN, libc::NLM_F_CREATE, INET)
        .text(CHAIN_TABLE, table)
        .text(CHAIN_NAME, chain.name)
        .nested(CHAIN_HOOK, |hook| {
            let hook = number(hook, HOOK_NUMBER, chain.hook);
            hook.attribute(HOOK_PRIORITY, &chain.priority.to_be_bytes())
        });
    number(request, CHAIN_POLICY, ACCEPT).text(CHAIN_TYPE, "filter")
}

/// Asks for one chain of a table of both families.
pub(super) fn get_chain(table: &str, name: &str) -> Request {
    get_chain_of(INET, table, name)
}

/// Asks for one chain of a family's table.
pub(super) fn get_chain_of(family: u8, table: &str, name: &str) -> Request {
    request(GET_CHAIN, 0, family).text(CHAIN_TABLE, table).text(CHAIN_NAME, name)
}

/// Asks for the chains of all tables.
pub(super) fn all_chains() -> Request {
    request(GET_CHAIN, 0, EVERY_FAMILY)
}

/// Appends a rule to its chain; `None` for a rule that nftables does not need.
pub(super) fn new_rule(table: &str, rule: &Rule) -> Option<Request> {
    let fill = |list| not_tracked(matching(list, rule));
    append(table, rule.place, rule.place.comment(), fill)
}

/// Appends a rule that exchanges the address that it compares, on packets that come from or go to
/// other links than the loopback one; `None` for a place that nftables does not need.
pub(super) fn new_rewrite(table: &str, rule: &Rule, by: IpAddr) -> Option<Request> {
    let link = match rule.side {
        Side::Destination => LINK_IN,
        Side::Source => LINK_OUT,
    };
    append(table, rule.place, REWRITTEN, |list| {
        exchange(not_tracked(matching(not_loopback(list, link), rule)), rule.side, by)
    })
}

fn append(
    table: &str,
    place: Place,
    comment: &str,
    fill: impl FnOnce(Request) -> Request,
) -> Option<Request> {
    let chain = chain_of(place)?;
    let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
    let mut comment = comment.as_bytes().to_vec();
    comment.push(0);
    let mut userdata = vec![COMMENT, comment.len() as u8];
    userdata.extend(comment);
    let request = request(NEW_RULE, flags, INET)
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, chain.name)
        .nested(RULE_EXPRESSIONS, fill)
        .attribute(RULE_USERDATA, &userdata);
    Some(request)
}

/// Asks for the rules of a table. Kernels that know no such choice give all.
pub(super) fn rules_of(table: &str) -> Request {
    request(GET_RULE, 0, INET).text(RULE_TABLE, table)
}

fn request(message: u16, flags: libc::c_int, family: u8) -> Request {
    Request::new(SUBSYSTEM << 8 | message, flags as u16).fixed(&[family, 0, 0, 0])
}

/// nftables has its numbers in network byte order.
fn number(request: Request, kind: u16, value: u32) -> Request {
    request.attribute(kind, &value.to_be_bytes())
}

#[cfg(test)]
mod tests;
