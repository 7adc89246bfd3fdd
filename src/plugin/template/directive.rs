//! One `template` directive: what was typed, checked, and which queries it concerns.

use super::syntax;
use super::tree::Tree;
use crate::corefile::{CorefileError, Dispenser, normalise_zone, parse_unsigned};
use crate::dns::{Class, Name, Query, Rcode, RecordType};
use crate::plugin::pattern;
use regex::Regex;

/// One record's template.
pub(super) struct RecordTemplate {
    pub(super) source: String,
    pub(super) tree: Tree,
}

/// A regular expression, and what it was written as.
pub(super) struct Pattern {
    pub(super) regex: Regex,
    pub(super) source: String,
}

/// One `template` of the block.
pub(super) struct Template {
    pub(super) class: Class,
    pub(super) qtype: RecordType,
    pub(super) zones: Vec<Name>,
    /// Tried in turn; empty: any name.
    pub(super) patterns: Vec<Pattern>,
    pub(super) answer: Vec<RecordTemplate>,
    pub(super) authority: Vec<RecordTemplate>,
    pub(super) additional: Vec<RecordTemplate>,
    pub(super) rcode: Rcode,
    pub(super) extended_error: Option<(u16, String)>,
    /// Where a name that no pattern matches goes on to the next template; empty: nowhere.
    pub(super) fall_through: Vec<Name>,
}

impl Template {
    pub(super) fn parse(
        dispenser: &mut Dispenser<'_>,
        zones: &[Name],
    ) -> Result<Template, CorefileError> {
        let class = argument(dispenser)?;
        let class = class
            .parse::<Class>()
            .ok()
            .filter(|known| known.word() == Some(class))
            .ok_or_else(|| dispenser.err(format!("invalid query class {class}")))?;
        let qtype = argument(dispenser)?;
        let qtype = qtype
            .parse::<RecordType>()
            .ok()
            .filter(|known| known.word() == Some(qtype))
            .ok_or_else(|| dispenser.err(format!("invalid RR class {qtype}")))?;
        let named = dispenser.remaining_args();
        let zones = match named.is_empty() {
            true => zones.to_vec(),
            false => named.into_iter().flat_map(normalise_zone).collect(),
        };
        let mut template = Template {
            class,
            qtype,
            zones,
            patterns: Vec::new(),
            answer: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            rcode: Rcode::NOERROR,
            extended_error: None,
            fall_through: Vec::new(),
        };
        while dispenser.next_block() {
            template.option(dispenser)?;
        }
        Ok(template)
    }

    fn option(&mut self, dispenser: &mut Dispenser<'_>) -> Result<(), CorefileError> {
        match dispenser.val() {
            "match" => {
                for text in arguments(dispenser)? {
                    let regex = pattern::compile(text).map_err(|error| {
                        dispenser.err(format!("could not parse regex: {text}, {error}"))
                    })?;
                    self.patterns.push(Pattern { regex, source: text.to_owned() });
                }
            }
            "answer" => compile(dispenser, "answer", &mut self.answer)?,
            "authority" => compile(dispenser, "authority", &mut self.authority)?,
            "additional" => compile(dispenser, "additional", &mut self.additional)?,
            "rcode" => {
                let word = argument(dispenser)?;
                self.rcode = Rcode::named(word)
                    .ok_or_else(|| dispenser.err(format!("unknown rcode {word}")))?;
            }
            "ederror" => {
                let (code, reason) = match dispenser.remaining_args()[..] {
                    [code] => (code, ""),
                    [code, reason] => (code, reason),
                    _ => return Err(dispenser.arg_err()),
                };
                let number = parse_unsigned(code, 16).map_err(|why| {
                    // The last word of the line is shown, as by CoreDNS.
                    let last = dispenser.val();
                    dispenser.err(format!("error parsing extended DNS error code {last}, {why}"))
                })?;
                let number = u16::try_from(number).unwrap_or(u16::MAX);
                self.extended_error = Some((number, reason.to_owned()));
            }
            "fallthrough" => {
                let zones = dispenser.remaining_args();
                self.fall_through = match zones.is_empty() {
                    true => vec![Name::root()],
                    false => zones.into_iter().flat_map(normalise_zone).collect(),
                };
            }
            // CoreDNS takes it and does nothing.
            "upstream" => {
                dispenser.remaining_args();
            }
            _ => return Err(dispenser.arg_err()),
        }
        Ok(())
    }

    /// The zone that makes this template concern a query.
    pub(super) fn concerns(&self, query: &Query<'_>) -> Option<&Name> {
        let (class, qtype) = (query.qclass(), query.qtype());
        let class_fits = self.class == class || [self.class, class].contains(&Class::ANY);
        let type_fits = self.qtype == qtype || [self.qtype, qtype].contains(&RecordType::ANY);
        if !class_fits || !type_fits {
            return None;
        }
        longest(&self.zones, query.name())
    }

    /// The class and type that the records are told: where the query leaves them open, one's own.
    pub(super) fn shown(&self, query: &Query<'_>) -> (Class, RecordType) {
        let (class, qtype) = (query.qclass(), query.qtype());
        (
            if class == Class::ANY { self.class } else { class },
            if qtype == RecordType::ANY { self.qtype } else { qtype },
        )
    }
}

/// The longest of `zones` that a name is in.
pub(super) fn longest<'z>(zones: &'z [Name], name: &Name) -> Option<&'z Name> {
    zones.iter().filter(|zone| name.is_in(zone)).max_by_key(|zone| zone.as_bytes().len())
}

fn argument<'t>(dispenser: &mut Dispenser<'t>) -> Result<&'t str, CorefileError> {
    if dispenser.next_arg() { Ok(dispenser.val()) } else { Err(dispenser.arg_err()) }
}

fn arguments<'t>(dispenser: &mut Dispenser<'t>) -> Result<Vec<&'t str>, CorefileError> {
    let arguments = dispenser.remaining_args();
    if arguments.is_empty() { Err(dispenser.arg_err()) } else { Ok(arguments) }
}

fn compile(
    dispenser: &mut Dispenser<'_>,
    section: &str,
    into: &mut Vec<RecordTemplate>,
) -> Result<(), CorefileError> {
    for source in arguments(dispenser)? {
        let tree = syntax::parse(section, source).map_err(|error| {
            // CoreDNS names the last argument, not the wrong one.
            dispenser.err(format!("could not compile template: {}, {error}", dispenser.val()))
        })?;
        into.push(RecordTemplate { source: source.to_owned(), tree });
    }
    Ok(())
}

impl RecordTemplate {
    /// The source as Go prints a parsed template: no white space inside the delimiters.
    pub(super) fn go_source(&self) -> String {
        self.source.replace("{{ ", "{{").replace(" }}", "}}")
    }
}
