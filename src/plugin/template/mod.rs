//! `template`: responses made of templates (docs/plugins/template.md).
//!
//! Owns the directive, which template a query matches, and the response made of it. Targets of
//! CNAME answers are asked for through the whole server ([`Flow::Ask`]).

mod data;
mod directive;
mod draft;
mod escapes;
mod evaluate;
mod functions;
mod line;
mod literals;
mod printf;
mod rdata;
mod record;
mod syntax;
mod tokens;
mod tree;

use super::{Context, Flow, Handler, Setup, Turn};
use crate::corefile::CorefileError;
use crate::dns::{Name, Query, Rcode, RecordType, Response};
use crate::metrics::{Desc, Registry, names};
use data::Data;
use directive::{Pattern, RecordTemplate, Template, longest};
use draft::Draft;
use record::TextRecord;
use regex::Captures;

/// The running part.
struct Templates {
    templates: Vec<Template>,
    metrics: Registry,
}

/// Reads the directive, all of a block's templates at once.
///
/// # Errors
///
/// `invalid query class …`; `invalid RR class …`; `Wrong argument count or unexpected line ending after
/// '…'`; `could not parse regex: …`; `could not compile template: …`; `unknown rcode …`; `error parsing
/// extended DNS error code …`.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let mut templates = Vec::new();
    let zones: Vec<Name> = setup.block.zones().cloned().collect();
    while setup.dispenser.next() {
        templates.push(Template::parse(&mut setup.dispenser, &zones)?);
    }
    setup.block.add(Templates { templates, metrics: setup.metrics.clone() });
    Ok(())
}

/// Writes the response to a query that one of the templates matched.
struct Answering<'a> {
    metrics: &'a Registry,
    server: &'a str,
    data: Data<'a>,
}

impl Answering<'_> {
    /// Classes and types without a name share the empty label: what pods send makes no series.
    fn count(&self, desc: &'static Desc, rest: &[&str]) {
        let Data { zone, class, qtype, .. } = &self.data;
        let mut labels = vec![self.server, zone.as_str(), "", class, qtype];
        labels.extend_from_slice(rest);
        self.metrics.counter(desc, &labels).increment();
    }

    /// The records of one section.
    fn records(
        &self,
        section: &str,
        templates: &[RecordTemplate],
    ) -> Result<Vec<TextRecord>, String> {
        let record = |template: &RecordTemplate| {
            let text = evaluate::execute(&template.tree, &self.data).map_err(|fault| {
                self.count(&names::TEMPLATE_FAILURES, &[section, &template.go_source()]);
                fault.told(section)
            })?;
            TextRecord::parse(&text).map_err(|error| {
                self.count(&names::TEMPLATE_RR_FAILURES, &[section, &template.go_source()]);
                format!("dns: {error}")
            })
        };
        templates.iter().map(record).collect()
    }
}

impl Templates {
    /// The template that answers a query, with the zone and groups that matched; or the end of the
    /// search without one.
    fn find<'q>(&self, query: &Query<'_>, name: &'q str) -> Result<Found<'_, 'q>, Flow> {
        for (place, template) in self.templates.iter().enumerate() {
            let Some(zone) = template.concerns(query) else { continue };
            if template.patterns.is_empty() {
                return Ok(Found { place, zone, pattern: None });
            }
            let matched = template
                .patterns
                .iter()
                .find_map(|pattern| pattern.regex.captures(name).map(|groups| (pattern, groups)));
            if let Some((pattern, groups)) = matched {
                return Ok(Found { place, zone, pattern: Some((pattern, groups)) });
            }
            if longest(&template.fall_through, query.name()).is_none() {
                return Err(Flow::Answer);
            }
        }
        Err(Flow::Next)
    }

    /// Asks for the next CNAME target from the answer's place `from` on, or writes the response.
    fn go_on(
        &self,
        mut draft: Box<Draft>,
        from: usize,
        query: &Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Option<Box<Query<'static>>> {
        let chases = [RecordType::A, RecordType::AAAA].contains(&query.qtype());
        let mut behind =
            draft.answer.iter().enumerate().skip(if chases { from } else { usize::MAX });
        let next = behind.find_map(|(at, record)| Some((at, record.alias_target()?)));
        if let Some((at, target)) = next {
            let mut question = query.clone().into_owned();
            question.set_question(target.as_bytes(), query.qtype(), query.qclass());
            draft.asking = at;
            context.note = Some(draft);
            return Some(Box::new(question));
        }
        if let Some(template) = self.templates.get(draft.template) {
            draft.write(template, query, response);
        }
        None
    }
}

/// A template that matches a query.
struct Found<'t, 'q> {
    place: usize,
    zone: &'t Name,
    pattern: Option<(&'t Pattern, Captures<'q>)>,
}

impl Found<'_, '_> {
    /// The pattern that matched, as written; `.*` without one.
    fn regex(&self) -> &str {
        self.pattern.as_ref().map_or(".*", |(pattern, _)| &pattern.source)
    }

    /// The groups of the match; without a pattern the whole name, as if it were `.*`.
    fn groups(&self, name: &str) -> (Vec<String>, Vec<(String, String)>) {
        let Some((pattern, captures)) = &self.pattern else {
            return (vec![name.to_owned()], Vec::new());
        };
        let text = |group: Option<regex::Match<'_>>| {
            group.map_or_else(String::new, |group| group.as_str().to_owned())
        };
        let groups = captures.iter().map(text).collect();
        let named = pattern
            .regex
            .capture_names()
            .flatten()
            .map(|name| (name.to_owned(), text(captures.name(name))))
            .collect();
        (groups, named)
    }
}

impl Handler for Templates {
    fn word(&self) -> &'static str {
        "template"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        if !self.templates.iter().any(|template| longest(&template.zones, query.name()).is_some()) {
            return Flow::Next;
        }
        let name = query.name().to_string();
        let found = match self.find(query, &name) {
            Ok(found) => found,
            Err(flow) => {
                if matches!(flow, Flow::Answer) {
                    response.fail(Rcode::SERVFAIL, None);
                }
                return flow;
            }
        };
        let (groups, named) = found.groups(&name);
        let (class, qtype) = self.templates[found.place].shown(query);
        let labels = &*context.labels;
        let meta = |label: &str| labels.get(label).map(str::to_owned);
        let answering = Answering {
            metrics: &self.metrics,
            server: &context.server.label,
            data: Data {
                regex: found.regex(),
                zone: found.zone.to_string(),
                class: class.word().unwrap_or_default(),
                qtype: qtype.word().unwrap_or_default(),
                groups,
                named,
                remote: context.client.address.ip().to_canonical().to_string(),
                query,
                meta: &meta,
                name: name.clone(),
            },
        };
        answering.count(&names::TEMPLATE_MATCHES, &[]);
        let template = &self.templates[found.place];
        if template.rcode == Rcode::SERVFAIL {
            response.fail(Rcode::SERVFAIL, None);
            return Flow::Answer;
        }
        let records = || {
            Ok(Box::new(Draft {
                template: found.place,
                answer: answering.records("answer", &template.answer)?,
                additional: answering.records("additional", &template.additional)?,
                authority: answering.records("authority", &template.authority)?,
                chased: Vec::new(),
                asking: 0,
            }))
        };
        let draft = match records() {
            Ok(draft) => draft,
            Err(error) => {
                let error: String = error;
                response.fail(Rcode::SERVFAIL, Some(error.into()));
                return Flow::Answer;
            }
        };
        match self.go_on(draft, 0, query, response, context) {
            Some(question) => Flow::Ask(question),
            None => Flow::Answer,
        }
    }

    fn answered(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        further: &Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let Some(mut draft) = context.note.take().and_then(|note| note.downcast::<Draft>().ok())
        else {
            return Turn::Up;
        };
        let from = draft.asking + 1;
        draft.chased.push((draft.asking, further.wire.clone()));
        match self.go_on(draft, from, query, response, context) {
            Some(question) => Turn::Ask(question),
            None => Turn::Up,
        }
    }
}

#[cfg(test)]
mod tests;
