//! Objects of nftables as netlink messages: a table, its chains, the rules of a [`Plan`]; and what
//! is read of the kernel's answers. The numbers are those of `linux/netfilter/nf_tables.h`.
//!
//! Pure: sends nothing, decides nothing.

use super::rules::{Family, Place, Plan, Protocol, Rule, Side};
use crate::sys::netlink::{Message, Request, attributes};
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

const ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

/// The register that values pass through (`NFT_REG_1`).
const REGISTER: u32 = 1;

/// `NFT_META_IIF`, `NFT_META_OIF`.
const META_LINK_IN: u32 = 4;
const META_LINK_OUT: u32 = 5;
/// `NFT_META_NFPROTO`, `NFT_META_L4PROTO`.
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;

/// The number of the loopback link, in every network namespace.
const LOOPBACK: u32 = 1;

/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// `NFT_PAYLOAD_CSUM_NONE`, `…_INET`: whether the header that is written to has a checksum; and
/// `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`: the transport's checksum covers the addresses.
const NO_CHECKSUM: u32 = 0;
const HEADER_CHECKSUM: u32 = 1;
const COVERED_BY_TRANSPORT: u32 = 1;
/// Where an IPv4 header has its checksum.
const CHECKSUM_PLACE: u32 = 10;

/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// `NF_INET_LOCAL_IN`.
const HOOK_INPUT: u32 = 1;

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
        Side::Destination => META_LINK_IN,
        Side::Source => META_LINK_OUT,
    };
    append(table, rule.place, REWRITTEN, |list| {
        // Links have their numbers in the machine's order.
        let list = compare(meta(list, link), UNEQUAL, &LOOPBACK.to_ne_bytes());
        exchange(not_tracked(matching(list, rule)), rule.side, by)
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

/// `ip daddr ADDRESS udp dport PORT`.
fn matching(list: Request, rule: &Rule) -> Request {
    let family = if rule.address.is_ipv4() { IPV4 } else { IPV6 };
    let (place, address) = address_at(rule.side, rule.address);
    let protocol = match rule.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let port_place = match rule.side {
        Side::Source => 0,
        Side::Destination => 2,
    };
    let list = equal(meta(list, META_FAMILY), &[family]);
    let list = equal(payload(list, NETWORK, place, address.len()), &address);
    let list = equal(meta(list, META_PROTOCOL), &[protocol as u8]);
    equal(payload(list, TRANSPORT, port_place, 2), &rule.port.to_be_bytes())
}

/// Where the header of its family has an address, and its octets.
fn address_at(side: Side, address: IpAddr) -> (u32, Vec<u8>) {
    let (source, destination, octets) = match address {
        IpAddr::V4(v4) => (12, 16, v4.octets().to_vec()),
        IpAddr::V6(v6) => (8, 24, v6.octets().to_vec()),
    };
    match side {
        Side::Source => (source, octets),
        Side::Destination => (destination, octets),
    }
}

/// `ip daddr set ADDRESS`, with the checksums.
fn exchange(list: Request, side: Side, by: IpAddr) -> Request {
    let (place, octets) = address_at(side, by);
    let (kind, checksum_place) = match by {
        IpAddr::V4(_) => (HEADER_CHECKSUM, CHECKSUM_PLACE),
        IpAddr::V6(_) => (NO_CHECKSUM, 0),
    };
    let list = expression(list, "immediate", |data| {
        number(data, 1, REGISTER).nested(2, |inner| inner.attribute(DATA_VALUE, &octets))
    });
    expression(list, "payload", |data| {
        let data = number(number(data, 5, REGISTER), 2, NETWORK);
        let data = number(number(data, 3, place), 4, octets.len() as u32);
        number(number(number(data, 6, kind), 7, checksum_place), 8, COVERED_BY_TRANSPORT)
    })
}

fn not_tracked(list: Request) -> Request {
    list.nested(ELEMENT, |element| element.text(EXPRESSION_NAME, "notrack"))
}

fn meta(list: Request, key: u32) -> Request {
    expression(list, "meta", |data| number(number(data, 1, REGISTER), 2, key))
}

fn payload(list: Request, base: u32, offset: u32, length: usize) -> Request {
    expression(list, "payload", |data| {
        let data = number(number(data, 1, REGISTER), 2, base);
        number(number(data, 3, offset), 4, length as u32)
    })
}

fn equal(list: Request, value: &[u8]) -> Request {
    compare(list, EQUAL, value)
}

fn compare(list: Request, operation: u32, value: &[u8]) -> Request {
    expression(list, "cmp", |data| {
        let data = number(number(data, 1, REGISTER), 2, operation);
        data.nested(3, |inner| inner.attribute(DATA_VALUE, value))
    })
}

fn expression(list: Request, name: &str, fill: impl FnOnce(Request) -> Request) -> Request {
    list.nested(ELEMENT, |element| {
        element.text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, fill)
    })
}

fn request(message: u16, flags: libc::c_int, family: u8) -> Request {
    Request::new(SUBSYSTEM << 8 | message, flags as u16).fixed(&[family, 0, 0, 0])
}

/// nftables has its numbers in network byte order.
fn number(request: Request, kind: u16, value: u32) -> Request {
    request.attribute(kind, &value.to_be_bytes())
}

/// What an answer says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableFound {
    /// `ip`, `inet` …
    pub(super) family: &'static str,
    /// Its name.
    pub(super) name: String,
    /// The port of the socket that owns it.
    pub(super) owner: Option<u32>,
}

/// What an answer says of a base chain or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChainFound {
    /// `ip`, `inet` …
    pub(super) family: &'static str,
    /// Its table's name.
    pub(super) table: String,
    /// Its name.
    pub(super) name: String,
    /// Whether it judges what comes to the node itself, and drops what no rule accepts.
    pub(super) drops_input: bool,
}

/// Reads an answer about a table.
pub(super) fn read_table(message: &Message) -> TableFound {
    TableFound {
        family: family(message),
        name: text(message, TABLE_NAME),
        owner: value(message, TABLE_OWNER).and_then(read_number),
    }
}

/// Reads an answer about a chain.
pub(super) fn read_chain(message: &Message) -> ChainFound {
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
pub(super) fn is_of_table(message: &Message, table: &str) -> bool {
    family(message) == "inet" && text(message, RULE_TABLE) == table
}

/// Whether a rule has a comment of ours.
pub(super) fn is_marked(message: &Message) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(addresses: &[&str]) -> Plan {
        let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
        Plan { addresses, dns_port: 53, health_port: 8080 }
    }

    fn message(kind: u16, family: u8, fill: impl FnOnce(Request) -> Request) -> Message {
        Message {
            kind,
            flags: 0,
            sequence: 0,
            payload: fill(Request::new(kind, 0).fixed(&[family, 0, 0, 0])).octets()[16..].to_vec(),
        }
    }

    #[test]
    fn an_address_has_the_eight_rules_before_connection_tracking() {
        let rules = rules(&plan(&["169.254.20.10", "fd00::a"]));
        assert_eq!(rules.len(), 16);
        assert!(rules.iter().all(|rule| new_rule("nodens", rule).is_some()));
        let incoming = rules.iter().filter(|rule| rule.place == Place::RawPrerouting);
        assert!(incoming.clone().all(|rule| rule.side == Side::Destination && rule.port == 53));
        assert_eq!(incoming.count(), 4);
    }

    #[test]
    fn a_rule_says_that_it_is_ours() {
        let rule = rules(&plan(&["10.0.0.10"]))[0];
        let request = new_rule("nodens", &rule).unwrap();
        let found =
            Message { kind: 0, flags: 0, sequence: 0, payload: request.octets()[16..].to_vec() };
        assert!(is_marked(&found) && is_of_table(&found, "nodens"));
        assert!(!is_of_table(&found, "other"));
        for userdata in [&[][..], &[0, 200, b'N'], &[1, 2, b'N', 0], b"\0\x03abc"] {
            let other = message(0, INET, |request| request.attribute(RULE_USERDATA, userdata));
            assert!(!is_marked(&other), "{userdata:?}");
        }
    }

    #[test]
    fn a_chain_that_drops_what_comes_in_is_seen() {
        let chain = |family: u8, hook: u32, policy: u32| {
            let message = message(0, family, |request| {
                let request = request.text(CHAIN_TABLE, "filter").text(CHAIN_NAME, "INPUT");
                let request = request.nested(CHAIN_HOOK, |inner| number(inner, HOOK_NUMBER, hook));
                number(request, CHAIN_POLICY, policy)
            });
            read_chain(&message)
        };
        assert!(chain(IPV4, HOOK_INPUT, DROP).drops_input);
        assert!(!chain(IPV4, HOOK_INPUT, ACCEPT).drops_input);
        assert!(!chain(IPV4, 0, DROP).drops_input);
        assert!(!chain(7, HOOK_INPUT, DROP).drops_input);
        assert_eq!(chain(IPV6, 0, DROP).family, "ip6");
    }

    #[test]
    fn tables_are_read_with_their_owner() {
        let of = |request: Request| {
            read_table(&Message {
                kind: 0,
                flags: 0,
                sequence: 0,
                payload: request.octets()[16..].to_vec(),
            })
        };
        let found = of(number(get_table("nodens"), TABLE_OWNER, 7));
        assert_eq!((found.name.as_str(), found.family, found.owner), ("nodens", "inet", Some(7)));
        assert_eq!(of(get_table("nodens")).owner, None);
        assert_eq!(of(get_table("nodens").attribute(TABLE_OWNER, &[1])).owner, None);
    }
}
