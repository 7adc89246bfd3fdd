//! Queries of pods for a Service's address that are sent to a local address without connection
//! tracking, and their replies back: for nodes where the Service's own address cannot be served on, as
//! with kube-proxy in IPVS mode.
//!
//! Pure: says which addresses, and which rules are compared with. Changes nothing on the node.

use super::rules::{Place, Protocol, Rule, Side};
use std::net::IpAddr;

/// The most pairs that are taken.
const MOST: usize = 8;

/// One Service's address and the local one that answers for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// What pods ask.
    pub service: IpAddr,
    /// Where nodens listens; of the same family.
    pub local: IpAddr,
}

impl Rewrite {
    /// Reads `SERVICE=LOCAL`, several with commas; each `LOCAL` is one of `addresses` and stands there
    /// once. The error says what was expected.
    pub fn parse_all(text: &str, addresses: &[IpAddr]) -> Result<Vec<Rewrite>, String> {
        let mut all: Vec<Rewrite> = Vec::new();
        for pair in text.split(',').filter(|_| !text.is_empty()) {
            let bad = |why: &str| format!("{pair}: {why}");
            let parsed = pair.split_once('=').and_then(|(service, local)| {
                let parse = |text: &str| text.parse::<IpAddr>().ok().map(|one| one.to_canonical());
                Some(Rewrite { service: parse(service)?, local: parse(local)? })
            });
            let one = parsed.ok_or_else(|| bad("want SERVICE-ADDRESS=LOCAL-ADDRESS"))?;
            let is_local = |address: IpAddr| addresses.iter().any(|a| a.to_canonical() == address);
            if one.service.is_ipv4() != one.local.is_ipv4() {
                return Err(bad("the addresses are of two families"));
            }
            if !is_local(one.local) {
                return Err(bad("the local address is none of -localip"));
            }
            if is_local(one.service) {
                return Err(bad("the Service's address is one of -localip"));
            }
            if all.iter().any(|other| other.service == one.service || other.local == one.local) {
                return Err(bad("an address stands in two pairs"));
            }
            if all.len() == MOST {
                return Err(bad("no more than 8 pairs"));
            }
            all.push(one);
        }
        Ok(all)
    }

    /// What is compared, and the address that takes the place of the one compared: queries as they
    /// come in, and replies as they leave.
    pub(super) fn rules(self, port: u16) -> Vec<(Rule, IpAddr)> {
        let mut rules = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for (place, side, address, by) in [
                (Place::RawPrerouting, Side::Destination, self.service, self.local),
                (Place::RawOutput, Side::Source, self.local, self.service),
            ] {
                rules.push((Rule { place, protocol, side, address, port }, by));
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Rewrite>, String> {
        let addresses = ["169.254.20.10", "169.254.20.11", "fd00::a"];
        Rewrite::parse_all(text, &addresses.map(|one| one.parse().unwrap()))
    }

    #[test]
    fn pairs_of_both_families_are_read() {
        assert_eq!(parse("").unwrap(), []);
        let both = parse("10.96.0.10=169.254.20.11,fd00:96::a=fd00::a").unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(both[1].service.to_string(), "fd00:96::a");
        assert_eq!(both[1].local.to_string(), "fd00::a");
    }

    #[test]
    fn a_pair_that_cannot_be_is_refused_with_its_reason() {
        for (text, why) in [
            ("10.96.0.10", "want SERVICE-ADDRESS=LOCAL-ADDRESS"),
            ("10.96.0.10=x", "want SERVICE-ADDRESS=LOCAL-ADDRESS"),
            ("10.96.0.10=169.254.20.11,", "want SERVICE-ADDRESS=LOCAL-ADDRESS"),
            ("10.96.0.10=fd00::a", "the addresses are of two families"),
            ("10.96.0.10=169.254.20.12", "the local address is none of -localip"),
            ("169.254.20.10=169.254.20.11", "the Service's address is one of -localip"),
            ("10.96.0.10=169.254.20.11,10.96.0.11=169.254.20.11", "an address stands in two pairs"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.ends_with(why), "{text}: {error}");
        }
    }

    #[test]
    fn each_pair_has_a_rule_for_each_way_and_transport() {
        let rules = parse("10.96.0.10=169.254.20.11").unwrap()[0].rules(53);
        assert_eq!(rules.len(), 4);
        for (rule, by) in rules {
            let (from, to) = match rule.side {
                Side::Destination => ("10.96.0.10", "169.254.20.11"),
                Side::Source => ("169.254.20.11", "10.96.0.10"),
            };
            assert_eq!((rule.address.to_string(), by.to_string()), (from.into(), to.into()));
        }
    }
}
