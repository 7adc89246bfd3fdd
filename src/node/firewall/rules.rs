//! The rules of one local address as values: node-cache's twelve, in its order and with its
//! comments.
//!
//! Pure: changes nothing on the node.

use std::fmt;
use std::net::IpAddr;

/// What the rules are made from: the addresses that pods ask, and two ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The local addresses in the order of `-localip`; both families may stand in it.
    pub addresses: Vec<IpAddr>,
    /// The port of DNS (`-dns.port`).
    pub dns_port: u16,
    /// The port of health checks (`-health-port`).
    pub health_port: u16,
}

/// An address family; each has its own tables of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address; an IPv4 address in IPv6 spelling is an IPv4 address.
    pub fn of(address: IpAddr) -> Family {
        if address.to_canonical().is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl Plan {
    /// The addresses of one family.
    pub fn addresses_of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let canonical = self.addresses.iter().map(IpAddr::to_canonical);
        canonical.filter(move |address| Family::of(*address) == family)
    }

    /// The families that have rules, with these.
    pub(super) fn families(&self) -> impl Iterator<Item = (Family, Vec<Rule>)> {
        let both = Family::ALL.into_iter().map(|family| (family, self.rules(family)));
        both.filter(|(_, rules)| !rules.is_empty())
    }

    /// Whether one of [`Plan::rules`] keeps queries here. Without those the cluster DNS Service gets them,
    /// while replies to what came before still leave as they should. A late datagram that is tracked as
    /// if it were the first of a flow leaves from another port where the client's flow to the Service is
    /// known, and where it is not, all further queries from the client's port come here. TCP is tracked
    /// both ways or not at all: half a connection is invalid.
    pub(super) fn keeps_queries(&self, rule: &Rule) -> bool {
        let is_late_reply = rule.protocol == Protocol::Udp && rule.side == Side::Source;
        rule.place.table() == "raw" && rule.port == self.dns_port && !is_late_reply
    }

    /// The rules of one family in node-cache's order of setting them. It prepends each, so in a
    /// chain they stand the other way round.
    pub fn rules(&self, family: Family) -> Vec<Rule> {
        let mut rules = Vec::new();
        for address in self.addresses_of(family) {
            let rules_of_address = ORDER.iter().map(|&(place, protocol, side, port)| Rule {
                place,
                protocol,
                side,
                address,
                port: match port {
                    Port::Dns => self.dns_port,
                    Port::Health => self.health_port,
                },
            });
            for rule in rules_of_address {
                // The same address twice, or one port for both, makes a rule twice.
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        rules
    }
}

/// A table and a built-in chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `raw PREROUTING`: what comes from pods.
    RawPrerouting,
    /// `raw OUTPUT`: what leaves the node or stays on it.
    RawOutput,
    /// `filter INPUT`.
    FilterInput,
    /// `filter OUTPUT`.
    FilterOutput,
}

impl Place {
    /// The table's name.
    pub fn table(self) -> &'static str {
        match self {
            Place::RawPrerouting | Place::RawOutput => "raw",
            Place::FilterInput | Place::FilterOutput => "filter",
        }
    }

    /// The chain's name.
    pub fn chain(self) -> &'static str {
        match self {
            Place::RawPrerouting => "PREROUTING",
            Place::FilterInput => "INPUT",
            Place::RawOutput | Place::FilterOutput => "OUTPUT",
        }
    }

    pub(super) fn of(table: &str, chain: &str) -> Option<Place> {
        match (table, chain) {
            ("raw", "PREROUTING") => Some(Place::RawPrerouting),
            ("raw", "OUTPUT") => Some(Place::RawOutput),
            ("filter", "INPUT") => Some(Place::FilterInput),
            ("filter", "OUTPUT") => Some(Place::FilterOutput),
            _ => None,
        }
    }

    /// What a rule here does: `NOTRACK` or `ACCEPT`.
    pub fn target(self) -> &'static str {
        match self.table() {
            "raw" => "NOTRACK",
            _ => "ACCEPT",
        }
    }

    /// The comment of a rule here: node-cache's own since 1.22.19.
    pub fn comment(self) -> &'static str {
        match self.table() {
            "raw" => "NodeLocal DNS Cache: skip conntrack",
            _ => "NodeLocal DNS Cache: allow DNS traffic",
        }
    }
}

/// The transport that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The word of `-p`.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// The end of a packet that a rule compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// `-s`, `--sport`.
    Source,
    /// `-d`, `--dport`.
    Destination,
}

#[derive(Debug, Clone, Copy)]
enum Port {
    Dns,
    Health,
}

/// node-cache's order.
const ORDER: [(Place, Protocol, Side, Port); 12] = [
    (Place::RawPrerouting, Protocol::Tcp, Side::Destination, Port::Dns),
    (Place::RawPrerouting, Protocol::Udp, Side::Destination, Port::Dns),
    (Place::FilterInput, Protocol::Tcp, Side::Destination, Port::Dns),
    (Place::FilterInput, Protocol::Udp, Side::Destination, Port::Dns),
    (Place::RawOutput, Protocol::Tcp, Side::Source, Port::Dns),
    (Place::RawOutput, Protocol::Udp, Side::Source, Port::Dns),
    (Place::FilterOutput, Protocol::Tcp, Side::Source, Port::Dns),
    (Place::FilterOutput, Protocol::Udp, Side::Source, Port::Dns),
    (Place::RawOutput, Protocol::Tcp, Side::Destination, Port::Dns),
    (Place::RawOutput, Protocol::Udp, Side::Destination, Port::Dns),
    (Place::RawOutput, Protocol::Tcp, Side::Destination, Port::Health),
    (Place::RawOutput, Protocol::Tcp, Side::Source, Port::Health),
];

/// One rule. Its `Display` is node-cache's: `{raw PREROUTING [-p tcp -d 10.0.0.10 …]}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Where it stands, which also says what it does.
    pub place: Place,
    /// Its transport.
    pub protocol: Protocol,
    /// The end that address and port belong to.
    pub side: Side,
    /// The local address, never an IPv4 one in IPv6 spelling.
    pub address: IpAddr,
    /// The local port.
    pub port: u16,
}

impl Rule {
    /// The words after the chain's name for `iptables`, in node-cache's order.
    pub fn words(&self) -> Vec<String> {
        let (address, port) = match self.side {
            Side::Source => ("-s", "--sport"),
            Side::Destination => ("-d", "--dport"),
        };
        let (target, comment) = (self.place.target(), self.place.comment());
        [
            "-p",
            self.protocol.word(),
            address,
            &self.address.to_string(),
            port,
            &self.port.to_string(),
            "-j",
            target,
            "-m",
            "comment",
            "--comment",
            comment,
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

#[cfg(test)]
impl Plan {
    /// The plan of tests: these addresses, and the ports of a stock deployment.
    pub(super) fn of(addresses: &[&str]) -> Plan {
        let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
        Plan { addresses, dns_port: 53, health_port: 8080 }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, words) = (self.place, self.words().join(" "));
        write!(f, "{{{} {} [{words}]}}", place.table(), place.chain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_node_caches_twelve_rules_in_its_order() {
        let shown: Vec<String> =
            Plan::of(&["10.0.0.10"]).rules(Family::V4).iter().map(ToString::to_string).collect();
        let skip = "-j NOTRACK -m comment --comment NodeLocal DNS Cache: skip conntrack]}";
        let allow = "-j ACCEPT -m comment --comment NodeLocal DNS Cache: allow DNS traffic]}";
        assert_eq!(
            shown,
            [
                format!("{{raw PREROUTING [-p tcp -d 10.0.0.10 --dport 53 {skip}"),
                format!("{{raw PREROUTING [-p udp -d 10.0.0.10 --dport 53 {skip}"),
                format!("{{filter INPUT [-p tcp -d 10.0.0.10 --dport 53 {allow}"),
                format!("{{filter INPUT [-p udp -d 10.0.0.10 --dport 53 {allow}"),
                format!("{{raw OUTPUT [-p tcp -s 10.0.0.10 --sport 53 {skip}"),
                format!("{{raw OUTPUT [-p udp -s 10.0.0.10 --sport 53 {skip}"),
                format!("{{filter OUTPUT [-p tcp -s 10.0.0.10 --sport 53 {allow}"),
                format!("{{filter OUTPUT [-p udp -s 10.0.0.10 --sport 53 {allow}"),
                format!("{{raw OUTPUT [-p tcp -d 10.0.0.10 --dport 53 {skip}"),
                format!("{{raw OUTPUT [-p udp -d 10.0.0.10 --dport 53 {skip}"),
                format!("{{raw OUTPUT [-p tcp -d 10.0.0.10 --dport 8080 {skip}"),
                format!("{{raw OUTPUT [-p tcp -s 10.0.0.10 --sport 8080 {skip}"),
            ]
        );
    }

    #[test]
    fn all_rules_of_the_raw_table_keep_queries_but_those_for_health_and_late_replies() {
        let plan = Plan::of(&["10.0.0.10"]);
        let mut keep: Vec<String> = plan
            .rules(Family::V4)
            .iter()
            .filter(|rule| plan.keeps_queries(rule))
            .map(|rule| rule.to_string().chars().take_while(|&letter| letter != 'j').collect())
            .collect();
        keep.sort();
        assert_eq!(
            keep,
            [
                "{raw OUTPUT [-p tcp -d 10.0.0.10 --dport 53 -",
                "{raw OUTPUT [-p tcp -s 10.0.0.10 --sport 53 -",
                "{raw OUTPUT [-p udp -d 10.0.0.10 --dport 53 -",
                "{raw PREROUTING [-p tcp -d 10.0.0.10 --dport 53 -",
                "{raw PREROUTING [-p udp -d 10.0.0.10 --dport 53 -",
            ]
        );
    }

    #[test]
    fn each_family_has_its_own_rules() {
        let plan = Plan::of(&["10.0.0.10", "fd00::a", "::ffff:10.0.0.11", "10.0.0.10"]);
        assert_eq!(plan.rules(Family::V4).len(), 24);
        assert_eq!(plan.rules(Family::V6).len(), 12);
        assert!(plan.rules(Family::V6)[0].to_string().contains("-d fd00::a "));
    }

    #[test]
    fn one_port_for_both_makes_no_rule_twice() {
        let mut plan = Plan::of(&["10.0.0.10"]);
        plan.health_port = 53;
        assert_eq!(plan.rules(Family::V4).len(), 10);
    }
}
