//! `rewrite edns0 …`: options that a query is given, loses or has changed.
//!
//! Owns the syntax of EDNS0 rules and their effect on the query's options.

use super::options::{self, EdnsOption};
use super::revert::Reversal;
use crate::dns::Query;
use crate::dns::options::{CLIENT_SUBNET, NSID};
use crate::plugin::Context;
use std::net::IpAddr;

/// Changes one option of the query.
#[derive(Debug)]
pub(super) struct EdnsRule {
    action: Action,
    code: u16,
    source: Source,
    /// The response gets back what the client had.
    reverts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Only where the option is.
    Replace,
    /// In any case.
    Set,
    /// One more.
    Append,
    /// Away with it.
    Unset,
}

/// Where the option's octets come from.
#[derive(Debug)]
enum Source {
    Fixed(Vec<u8>),
    Variable(Variable),
    /// The client's network: prefix lengths for IPv4 and IPv6.
    Subnet(u8, u8),
}

#[derive(Debug)]
enum Variable {
    QueryName,
    QueryType,
    ClientIp,
    ClientPort,
    Protocol,
    ServerIp,
    ServerPort,
    /// A metadata label.
    Label(String),
}

impl EdnsRule {
    /// Reads the words behind `edns0`.
    pub(super) fn parse(arguments: &[&str]) -> Result<EdnsRule, String> {
        let [kind, action, rest @ ..] = arguments else {
            return Err("too few arguments for an EDNS0 rule".to_owned());
        };
        let action = match action.to_lowercase().as_str() {
            "replace" => Action::Replace,
            "set" => Action::Set,
            "append" => Action::Append,
            "unset" => Action::Unset,
            other => return Err(format!("invalid action: {other:?}")),
        };
        let (rest, reverts) = match rest {
            [rest @ .., "revert"] if action != Action::Unset => (rest, true),
            rest => (rest, false),
        };
        let (code, source) = match (kind.to_lowercase().as_str(), action, rest) {
            ("local", Action::Unset, [code]) => (parse_code(code)?, Source::Fixed(Vec::new())),
            ("local", Action::Unset, _) => {
                return Err("local unset action requires exactly two arguments".to_owned());
            }
            ("local", _, [code, data]) => (parse_code(code)?, Source::parse(data)?),
            ("local", ..) => {
                return Err("EDNS0 local rules require three or four args".to_owned());
            }
            ("nsid", _, []) => (NSID, Source::Fixed(Vec::new())),
            ("nsid", Action::Unset, _) => {
                return Err("nsid unset action requires exactly one argument".to_owned());
            }
            ("nsid", ..) => {
                return Err("EDNS0 NSID rules can accept no more than one arg".to_owned());
            }
            ("subnet", Action::Unset, []) => (CLIENT_SUBNET, Source::Fixed(Vec::new())),
            ("subnet", Action::Unset, _) => {
                return Err("subnet unset action requires exactly one argument".to_owned());
            }
            ("subnet", _, [v4, v6]) => (
                CLIENT_SUBNET,
                Source::Subnet(parse_mask(v4, 32, "IPv4")?, parse_mask(v6, 128, "IPv6")?),
            ),
            ("subnet", ..) => {
                return Err("EDNS0 subnet rules require three or four args".to_owned());
            }
            (other, ..) => return Err(format!("invalid rule type {other:?}")),
        };
        Ok(EdnsRule { action, code, source, reverts })
    }

    /// The code of an option that the reply may echo to the client: those of `local` rules.
    pub(super) fn reflected_code(&self) -> Option<u16> {
        Some(self.code).filter(|code| ![NSID, CLIENT_SUBNET].contains(code))
    }

    /// Changes the query; `None` when there was nothing to do. A query without EDNS gets an OPT
    /// record even then, as in CoreDNS, unless the rule's variable has no value.
    pub(super) fn apply(
        &self,
        query: &mut Query<'_>,
        context: &Context<'_>,
    ) -> Option<Vec<Reversal>> {
        let octets = self.source.octets(query, context)?;
        let mut options = options::of_query(query);
        let change = self.change(&mut options, octets);
        if change.is_some() || query.edns().is_none() {
            options::set(query, &options).ok()?;
        }
        change
    }

    fn change(&self, options: &mut Vec<EdnsOption>, octets: Vec<u8>) -> Option<Vec<Reversal>> {
        let reverting = |reversal| if self.reverts { vec![reversal] } else { Vec::new() };
        if self.action == Action::Unset {
            options.retain(|(code, _)| *code != self.code);
            return Some(Vec::new());
        }
        if let Some((code, present)) = options.iter_mut().find(|(code, _)| *code == self.code) {
            match (self.action, &self.source) {
                (Action::Replace | Action::Set, _) => {
                    let old = std::mem::replace(present, octets);
                    return Some(reverting(Reversal::OptionBack(*code, old)));
                }
                // What depends on the query is never appended to what is there.
                (_, Source::Variable(_) | Source::Subnet(..)) => return None,
                (_, Source::Fixed(_)) => {}
            }
        }
        if self.action == Action::Replace {
            return None;
        }
        options.push((self.code, octets));
        Some(reverting(Reversal::OptionOut(self.code)))
    }
}

impl Source {
    /// `0x…` in hexadecimal, `{variable}`, or the text itself.
    fn parse(text: &str) -> Result<Source, String> {
        if text.starts_with('{') && text.ends_with('}') {
            return Ok(Source::Variable(Variable::parse(text)?));
        }
        match text.strip_prefix("0x") {
            None => Ok(Source::Fixed(text.as_bytes().to_vec())),
            Some(digits) => parse_hex(digits).map(Source::Fixed),
        }
    }

    fn octets(&self, query: &Query<'_>, context: &Context<'_>) -> Option<Vec<u8>> {
        match self {
            Source::Fixed(octets) => Some(octets.clone()),
            Source::Variable(variable) => variable.octets(query, context),
            Source::Subnet(v4, v6) => {
                let client = context.client.address.ip().to_canonical();
                Some(subnet(client, if client.is_ipv4() { *v4 } else { *v6 }))
            }
        }
    }
}

impl Variable {
    fn parse(text: &str) -> Result<Variable, String> {
        Ok(match text {
            "{qname}" => Variable::QueryName,
            "{qtype}" => Variable::QueryType,
            "{client_ip}" => Variable::ClientIp,
            "{client_port}" => Variable::ClientPort,
            "{protocol}" => Variable::Protocol,
            "{server_ip}" => Variable::ServerIp,
            "{server_port}" => Variable::ServerPort,
            _ => {
                let label = text.trim_start_matches('{').trim_end_matches('}');
                match label.split_once('/') {
                    Some((plugin, name)) if !plugin.is_empty() && !name.is_empty() => {
                        Variable::Label(label.to_owned())
                    }
                    _ => return Err(format!("unsupported variable name {text:?}")),
                }
            }
        })
    }

    fn octets(&self, query: &Query<'_>, context: &Context<'_>) -> Option<Vec<u8>> {
        let client = context.client;
        Some(match self {
            Variable::QueryName => spelled_text(query.spelled_name()).into_bytes(),
            Variable::QueryType => query.qtype().0.to_be_bytes().to_vec(),
            Variable::ClientIp => address_octets(client.address.ip()),
            Variable::ServerIp => address_octets(client.local.ip()),
            Variable::ClientPort => client.address.port().to_be_bytes().to_vec(),
            Variable::ServerPort => client.local.port().to_be_bytes().to_vec(),
            Variable::Protocol => client.transport.client_word().as_bytes().to_vec(),
            Variable::Label(label) => {
                context.labels.get(label).filter(|value| !value.is_empty())?.as_bytes().to_vec()
            }
        })
    }
}

/// A name's presentation text as the client spelled it.
fn spelled_text(wire: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut rest = wire;
    while let Some((&length, behind)) = rest.split_first().filter(|(length, _)| **length != 0) {
        let Some((label, behind)) = behind.split_at_checked(usize::from(length)) else { break };
        for &octet in label {
            // Writing to a string cannot fail.
            let _ = match octet {
                b'.' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' => {
                    write!(text, "\\{}", char::from(octet))
                }
                0x21..=0x7e => write!(text, "{}", char::from(octet)),
                other => write!(text, "\\{other:03}"),
            };
        }
        text.push('.');
        rest = behind;
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

fn address_octets(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// ECS option octets: family, source prefix length, scope 0, the address cut to the prefix
/// (RFC 7871 §6).
fn subnet(client: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, mut address) = match client {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (2, address.octets().to_vec()),
    };
    address.truncate(usize::from(prefix).div_ceil(8));
    if let Some(last) = address.last_mut()
        && !prefix.is_multiple_of(8)
    {
        *last &= 0xff << (8 - prefix % 8);
    }
    let mut octets = vec![0, family, prefix, 0];
    octets.append(&mut address);
    octets
}

fn parse_mask(text: &str, most: u64, family: &str) -> Result<u8, String> {
    let length = parse_unsigned(text)?;
    u8::try_from(length)
        .ok()
        .filter(|_| length <= most)
        .ok_or_else(|| format!("invalid {family} bit mask length {length}"))
}

fn parse_code(text: &str) -> Result<u16, String> {
    let number = parse_unsigned(text)?;
    u16::try_from(number).map_err(|_| out_of_range(text))
}

fn out_of_range(text: &str) -> String {
    format!("strconv.ParseUint: parsing {text:?}: value out of range")
}

/// Go's `strconv.ParseUint(text, 0, 16)`: decimal, `0x`, `0o`, `0b` and a leading zero for octal.
fn parse_unsigned(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax"));
    }
    u64::from_str_radix(digits, radix)
        .ok()
        .filter(|number| *number <= u64::from(u16::MAX))
        .ok_or_else(|| out_of_range(text))
}

fn parse_hex(digits: &str) -> Result<Vec<u8>, String> {
    let mut nibbles = Vec::with_capacity(digits.len());
    for digit in digits.chars() {
        let nibble = digit.to_digit(16).ok_or_else(|| {
            format!("encoding/hex: invalid byte: U+{:04X} '{digit}'", u32::from(digit))
        })?;
        nibbles.push(nibble as u8);
    }
    if !nibbles.len().is_multiple_of(2) {
        return Err("encoding/hex: odd length hex string".to_owned());
    }
    Ok(nibbles.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EdnsRule, String> {
        EdnsRule::parse(&text.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (text, error) in [
            ("nsid", "too few arguments for an EDNS0 rule"),
            ("local foo 1 2", "invalid action: \"foo\""),
            ("local set 1", "EDNS0 local rules require three or four args"),
            ("local unset", "local unset action requires exactly two arguments"),
            ("local unset 1 revert", "local unset action requires exactly two arguments"),
            ("nsid unset revert", "nsid unset action requires exactly one argument"),
            ("subnet unset 24 56", "subnet unset action requires exactly one argument"),
            ("nsid set x", "EDNS0 NSID rules can accept no more than one arg"),
            ("subnet set 33 56", "invalid IPv4 bit mask length 33"),
            ("subnet set 24 129", "invalid IPv6 bit mask length 129"),
            ("local set x y", "strconv.ParseUint: parsing \"x\": invalid syntax"),
            ("local set 70000 y", "strconv.ParseUint: parsing \"70000\": value out of range"),
            ("local set 1 0xzz", "encoding/hex: invalid byte: U+007A 'z'"),
            ("local set 1 0x1", "encoding/hex: odd length hex string"),
            ("local set 1 {foo}", "unsupported variable name \"{foo}\""),
            ("other set 1", "invalid rule type \"other\""),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
        for text in ["local set 0xffee 0x61 revert", "nsid unset", "local set 1 {forward/upstream}"]
        {
            parse(text).unwrap();
        }
    }

    #[test]
    fn actions_change_the_list_of_options() {
        let (old, new) = (vec![1], vec![2]);
        for (text, before, after) in [
            ("local set 7 x", vec![], Some(vec![(7, new.clone())])),
            ("local set 7 x", vec![(7, old.clone())], Some(vec![(7, new.clone())])),
            ("local replace 7 x", vec![], None),
            ("local replace 7 x", vec![(7, old.clone())], Some(vec![(7, new.clone())])),
            (
                "local append 7 x",
                vec![(7, old.clone())],
                Some(vec![(7, old.clone()), (7, new.clone())]),
            ),
            (
                "local unset 7",
                vec![(7, old.clone()), (8, old.clone())],
                Some(vec![(8, old.clone())]),
            ),
            ("local unset 7", vec![], Some(vec![])),
            ("subnet append 24 56", vec![(8, old)], None),
        ] {
            let mut options = before.clone();
            let changed = parse(text).unwrap().change(&mut options, new.clone());
            assert_eq!(changed.map(|_| options), after, "{text} {before:?}");
        }
    }

    #[test]
    fn a_subnet_is_cut_to_its_prefix() {
        let v4 = "192.0.2.255".parse().unwrap();
        assert_eq!(subnet(v4, 24), [0, 1, 24, 0, 192, 0, 2]);
        assert_eq!(subnet(v4, 25), [0, 1, 25, 0, 192, 0, 2, 128]);
        assert_eq!(subnet(v4, 0), [0, 1, 0, 0]);
        let v6 = "2001:db8::1".parse().unwrap();
        assert_eq!(subnet(v6, 32), [0, 2, 32, 0, 0x20, 1, 0x0d, 0xb8]);
    }
}
