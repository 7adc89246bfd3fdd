//! One `rewrite` rule: its syntax and what it does to a query.

use super::cname::CnameRule;
use super::edns0::EdnsRule;
use super::name::NameRule;
use super::revert::Reversal;
use super::text::{MatchKind, Matcher};
use crate::dns::{Class, Name, Query, Rcode, RecordType};
use crate::plugin::Context;
use std::str::FromStr;

/// The greatest TTL in seconds that `MIN-` allows (RFC 2181 §8).
const MOST_TTL: u32 = 0x7fff_ffff;

/// The greatest rcode that may be written as a number.
const MOST_RCODE: u16 = 23;

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// No rule behind this one is looked at when it matched.
    pub(super) stops: bool,
    /// What it does.
    pub(super) action: Action,
}

/// What a rule does.
#[derive(Debug)]
pub(super) enum Action {
    /// Changes the name asked for.
    Name(NameRule),
    /// Changes the type asked for.
    Type(RecordType, RecordType),
    /// Changes the class asked for.
    Class(Class, Class),
    /// Changes EDNS options.
    Edns(EdnsRule),
    /// Changes the response to names that match.
    Response(Matcher, Reversal),
    /// Changes CNAME targets in the response.
    Cname(CnameRule),
}

/// What became of a query.
pub(super) enum Applied {
    /// The rule did not match.
    Ignored,
    /// It did, and the response is to be changed so.
    Done(Vec<Reversal>),
    /// It did, and made a name that is none.
    InvalidName(String),
}

impl Rule {
    /// The code of an EDNS option that replies may carry back to clients because of this rule.
    pub(super) fn reflected_code(&self) -> Option<u16> {
        match &self.action {
            Action::Edns(rule) => rule.reflected_code(),
            _ => None,
        }
    }

    /// Reads the arguments of one `rewrite`. Errors are CoreDNS's texts.
    pub(super) fn parse(arguments: &[&str]) -> Result<Rule, String> {
        let Some(first) = arguments.first() else {
            return Err("no rule type specified for rewrite".to_owned());
        };
        let (stops, rest) = match first.to_lowercase().as_str() {
            "continue" => (false, &arguments[1..]),
            "stop" => (true, &arguments[1..]),
            _ => (true, arguments),
        };
        let [kind, rest @ ..] = rest else {
            return Err(format!("{} rule must begin with a rule type", first.to_lowercase()));
        };
        let action = match kind.to_lowercase().as_str() {
            "answer" => return Err("response rewrites must begin with a name rule".to_owned()),
            "name" => Action::Name(NameRule::parse(rest)?),
            "type" => {
                let [from, to] = pair("type", rest)?;
                Action::Type(parse_type(from)?, parse_type(to)?)
            }
            "class" => {
                let [from, to] = pair("class", rest)?;
                Action::Class(parse_class(from)?, parse_class(to)?)
            }
            "edns0" => Action::Edns(EdnsRule::parse(rest)?),
            "ttl" => parse_ttl_rule(rest)?,
            "rcode" => parse_rcode_rule(rest)?,
            "cname" => Action::Cname(CnameRule::parse(rest)?),
            _ => return Err(format!("invalid rule type {first:?}")),
        };
        Ok(Rule { stops, action })
    }

    /// Changes the query if the rule matches it.
    pub(super) fn apply(&self, query: &mut Query<'_>, context: &Context<'_>) -> Applied {
        match &self.action {
            Action::Name(rule) => match rule.apply(&query.name().to_string()) {
                None => Applied::Ignored,
                Some((text, reversals)) => match text.parse::<Name>() {
                    Err(_) => Applied::InvalidName(text),
                    Ok(name) => {
                        let (qtype, qclass) = (query.qtype(), query.qclass());
                        query.set_question(name.as_bytes(), qtype, qclass);
                        Applied::Done(reversals)
                    }
                },
            },
            Action::Type(from, to) if query.qtype() == *from => {
                let name = query.spelled_name().to_vec();
                query.set_question(&name, *to, query.qclass());
                Applied::Done(Vec::new())
            }
            Action::Class(from, to) if query.qclass() == *from => {
                let name = query.spelled_name().to_vec();
                query.set_question(&name, query.qtype(), *to);
                Applied::Done(Vec::new())
            }
            Action::Type(..) | Action::Class(..) => Applied::Ignored,
            Action::Edns(rule) => {
                rule.apply(query, context).map_or(Applied::Ignored, Applied::Done)
            }
            Action::Response(matcher, reversal) => {
                match matcher.matches(&query.name().to_string()) {
                    true => Applied::Done(vec![reversal.clone()]),
                    false => Applied::Ignored,
                }
            }
            Action::Cname(_) => Applied::Done(Vec::new()),
        }
    }
}

fn pair<'a>(kind: &str, arguments: &[&'a str]) -> Result<[&'a str; 2], String> {
    <[&str; 2]>::try_from(arguments)
        .map_err(|_| format!("{kind} rules must have exactly two arguments"))
}

/// A type by its name; CoreDNS knows no numbers (`TYPE65280`) here.
fn parse_type(text: &str) -> Result<RecordType, String> {
    named("TYPE", text).ok_or_else(|| format!("invalid type {:?}", text.to_uppercase()))
}

/// A class by its name, in the same way.
fn parse_class(text: &str) -> Result<Class, String> {
    named("CLASS", text).ok_or_else(|| format!("invalid class {:?}", text.to_uppercase()))
}

/// What `text` names in any capitals, unless it is a number behind `generic` (RFC 3597 §5).
fn named<T: FromStr>(generic: &str, text: &str) -> Option<T> {
    let text = text.to_uppercase();
    if text.starts_with(generic) { None } else { text.parse().ok() }
}

/// `[MATCH] NAME`: the matcher of a response rule called `rule`.
fn parse_matcher(rule: &str, kind: Option<&str>, name: &str) -> Result<Matcher, String> {
    let kind = match kind {
        None => MatchKind::Exact,
        Some(word) => MatchKind::from_word(word).ok_or_else(|| {
            format!(
                "{rule} rule supports only exact, prefix, suffix, substring, and regex name \
                 matching"
            )
        })?,
    };
    Matcher::new(kind, name)
        .map_err(|pattern| format!("invalid regex pattern in a {rule} rule: {pattern}"))
}

fn parse_ttl_rule(arguments: &[&str]) -> Result<Action, String> {
    let (kind, name, text) = match *arguments {
        [] | [_] => {
            return Err(format!("too few ({}) arguments for a ttl rule", arguments.len()));
        }
        [name, ttl] => (None, name, ttl),
        [kind, name, ttl] => (Some(kind), name, ttl),
        // CoreDNS looks at the TTL first and finds none.
        _ => return Err("invalid TTL '' for a ttl rule".to_owned()),
    };
    let (least, most) =
        parse_ttl(text).ok_or_else(|| format!("invalid TTL '{text}' for a ttl rule"))?;
    let matcher = parse_matcher("ttl", kind, name)?;
    Ok(Action::Response(matcher, Reversal::Ttl(least, most)))
}

/// `TTL`, `MIN-MAX`, `MIN-` or `-MAX`.
fn parse_ttl(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| {
        Some(text).filter(|text| !text.starts_with('+')).and_then(|text| text.parse::<u32>().ok())
    };
    let (least, most) = match text.split_once('-') {
        None => {
            let ttl = number(text)?;
            (ttl, ttl)
        }
        Some(("", "")) => return None,
        Some(("", most)) => (0, number(most)?),
        Some((least, "")) => (number(least)?, MOST_TTL),
        Some((least, most)) => (number(least)?, number(most)?),
    };
    (least <= most).then_some((least, most))
}

fn parse_rcode_rule(arguments: &[&str]) -> Result<Action, String> {
    let (kind, name, old, new) = match *arguments {
        [] | [_] | [_, _] => {
            return Err(format!("too few ({}) arguments for a rcode rule", arguments.len()));
        }
        [name, old, new] => (None, name, old, new),
        [kind, name, old, new] => (Some(kind), name, old, new),
        _ => return Err("invalid matching RCODE '' for a rcode rule".to_owned()),
    };
    let old = parse_rcode(old)
        .ok_or_else(|| format!("invalid matching RCODE '{old}' for a rcode rule"))?;
    let new = parse_rcode(new)
        .ok_or_else(|| format!("invalid replacement RCODE '{new}' for a rcode rule"))?;
    let matcher = parse_matcher("rcode", kind, name)?;
    Ok(Action::Response(matcher, Reversal::Rcode(old, new)))
}

fn parse_rcode(text: &str) -> Option<Rcode> {
    match text.parse::<u16>() {
        Ok(number) if number <= MOST_RCODE && !text.starts_with('+') => Some(Rcode(number)),
        _ => Rcode::named(&text.to_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (text, error) in [
            ("", "no rule type specified for rewrite"),
            ("foo a b", "invalid rule type \"foo\""),
            ("continue", "continue rule must begin with a rule type"),
            ("stop", "stop rule must begin with a rule type"),
            ("answer name a b", "response rewrites must begin with a name rule"),
            ("type A", "type rules must have exactly two arguments"),
            ("class IN CH HS", "class rules must have exactly two arguments"),
            ("type foo A", "invalid type \"FOO\""),
            ("class IN x", "invalid class \"X\""),
            ("type A type65280", "invalid type \"TYPE65280\""),
            ("class CLASS3 IN", "invalid class \"CLASS3\""),
            ("ttl a", "too few (1) arguments for a ttl rule"),
            ("ttl a x", "invalid TTL 'x' for a ttl rule"),
            ("ttl a -", "invalid TTL '-' for a ttl rule"),
            ("ttl a 9-3", "invalid TTL '9-3' for a ttl rule"),
            (
                "ttl foo a 3",
                "ttl rule supports only exact, prefix, suffix, substring, and regex name matching",
            ),
            ("ttl regex ( 3", "invalid regex pattern in a ttl rule: ("),
            ("rcode a NXDOMAIN", "too few (2) arguments for a rcode rule"),
            ("rcode a FOO NOERROR", "invalid matching RCODE 'FOO' for a rcode rule"),
            ("rcode a 3 24", "invalid replacement RCODE '24' for a rcode rule"),
            ("cname a", "too few (1) arguments for a cname rule"),
            ("cname foo a b", "unknown cname rewrite type: foo"),
            (
                "cname regex ( b",
                "invalid cname rewrite regex pattern: error parsing regexp: missing closing ): `(`",
            ),
        ] {
            let arguments: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(Rule::parse(&arguments).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn ttls_are_numbers_and_ranges() {
        for (text, range) in [
            ("5", Some((5, 5))),
            ("30-300", Some((30, 300))),
            ("-50", Some((0, 50))),
            ("60-", Some((60, MOST_TTL))),
            ("1-2-3", None),
            ("+5", None),
            ("4294967296", None),
        ] {
            assert_eq!(parse_ttl(text), range, "{text}");
        }
    }
}
