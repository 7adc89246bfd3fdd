//! `rewrite cname …`: a CNAME target is exchanged, and the new target is asked for.
//!
//! Owns the rule and how both responses become one.

use super::super::pattern;
use super::revert::replace;
use super::text::{MatchKind, Matcher};
use crate::dns::{Malformed, Message, Name, Record, RecordType, Response, Section, Writer};

/// Exchanges CNAME targets.
#[derive(Debug, Clone)]
pub(super) struct CnameRule {
    matcher: Matcher,
    replacement: String,
}

impl CnameRule {
    /// Reads the words behind `cname`.
    pub(super) fn parse(arguments: &[&str]) -> Result<CnameRule, String> {
        let (kind, from, to) = match *arguments {
            [from, to] => ("exact", from, to),
            [kind, from, to] => (kind, from, to),
            _ => return Err(format!("too few ({}) arguments for a cname rule", arguments.len())),
        };
        let kind = MatchKind::from_word(kind)
            .ok_or_else(|| format!("unknown cname rewrite type: {}", kind.to_lowercase()))?;
        let from = from.to_lowercase();
        // Not normalised: CoreDNS compares targets with the text as it stands.
        let matcher = match kind {
            MatchKind::Exact => Matcher::Exact(from),
            MatchKind::Prefix => Matcher::Prefix(from),
            MatchKind::Suffix => Matcher::Suffix(from),
            MatchKind::Substring => Matcher::Substring(from),
            MatchKind::Regex => Matcher::Regex(
                pattern::compile(&from)
                    .map_err(|why| format!("invalid cname rewrite regex pattern: {why}"))?,
            ),
        };
        Ok(CnameRule { matcher, replacement: to.to_lowercase() })
    }

    /// The new target for the first CNAME record of the answer whose target the rule matches. What
    /// did not match of the old one stays; without a final dot it gets one.
    pub(super) fn new_target(&self, message: &Message<'_>) -> Option<Name> {
        let text = message
            .records()
            .filter(is_alias)
            .filter_map(|record| message.rdata_name(&record, 0))
            .map(|target| target.to_string())
            .find(|target| self.matcher.matches(target))?;
        self.matcher.replace(&text, &self.replacement)?.parse().ok()
    }

    /// Exchanges the target in `response`; behind it comes the answer to the question for the new
    /// target.
    pub(super) fn splice(
        &self,
        response: &mut Response,
        target: &Name,
        further: &Response,
    ) -> Result<(), Malformed> {
        let message = response.message()?;
        let mut wire = Vec::with_capacity(message.wire().len() + further.wire.len());
        let mut writer = Writer::copying(&mut wire, &message);
        for record in message.records().filter(is_alias) {
            let old = message.rdata_name(&record, 0);
            let is_it = old.is_some_and(|old| self.matcher.matches(&old.to_string()));
            if is_it {
                writer.raw_record(
                    Section::Answer,
                    message.owner(&record).as_bytes(),
                    RecordType::CNAME,
                    record.class,
                    record.ttl,
                    target.as_bytes(),
                );
                break;
            }
            writer.record(Section::Answer, &message, &record, None);
        }
        if let Ok(further) = further.message() {
            for record in further.records().filter(|record| record.section == Section::Answer) {
                writer.record(Section::Answer, &further, &record, None);
            }
        }
        for record in message.records().filter(|record| record.section != Section::Answer) {
            writer.record(record.section, &message, &record, None);
        }
        let rcode = response.rcode;
        replace(response, wire, rcode);
        Ok(())
    }
}

fn is_alias(record: &Record) -> bool {
    record.section == Section::Answer && record.rtype == RecordType::CNAME
}
