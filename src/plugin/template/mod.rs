//! `template`: responses made of templates (spec/coredns.md §4.11).
//!
//! Owns the directive, which template a query matches, and the response made of it. Targets of
//! CNAME answers are asked for through the whole server ([`Flow::Ask`]).

mod evaluate;
mod functions;
mod record;
mod syntax;
mod tokens;

use super::{Context, Flow, Handler, Setup, Turn, pattern};
use crate::corefile::{CorefileError, Dispenser, normalise_zone, parse_unsigned};
use crate::dns::{
    Class, Edns, Message, Name, Query, Rcode, RecordType, Response, Section, Writer, flags,
};
use crate::metrics::{Desc, Registry, names};
use evaluate::Data;
use record::TextRecord;
use regex::{Captures, Regex};
use syntax::Node;

/// The UDP payload size in the OPT record that carries an extended error, as in CoreDNS.
const ERROR_UDP_SIZE: u16 = 4096;

/// The code of the Extended DNS Error option (RFC 8914 §4).
const EXTENDED_ERROR: u16 = 15;

/// The label for classes and types without a name: what pods send must not make series.
const UNNAMED: &str = "other";

/// One record's template.
struct RecordTemplate {
    source: String,
    nodes: Vec<Node>,
}

/// One `template` of the block.
struct Template {
    class: Class,
    qtype: RecordType,
    zones: Vec<Name>,
    /// Tried in turn; empty: any name.
    patterns: Vec<Regex>,
    answer: Vec<RecordTemplate>,
    authority: Vec<RecordTemplate>,
    additional: Vec<RecordTemplate>,
    rcode: Rcode,
    extended_error: Option<(u16, String)>,
    /// Where a name that no pattern matches goes on to the next template; empty: nowhere.
    fall_through: Vec<Name>,
}

/// The running part.
struct Templates {
    templates: Vec<Template>,
    metrics: Registry,
}

/// A response whose CNAME targets are being asked for.
struct Draft {
    template: usize,
    answer: Vec<TextRecord>,
    authority: Vec<TextRecord>,
    additional: Vec<TextRecord>,
    /// Responses for CNAME targets, by the place of the CNAME in `answer`.
    chased: Vec<(usize, Vec<u8>)>,
    /// The place of the CNAME being asked for.
    asking: usize,
}

/// Reads the directive, all of a block's templates at once.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let mut templates = Vec::new();
    let zones: Vec<Name> = setup.block.zones().cloned().collect();
    while setup.dispenser.next() {
        templates.push(Template::parse(&mut setup.dispenser, &zones)?);
    }
    setup.block.add(Templates { templates, metrics: setup.metrics.clone() });
    Ok(())
}

impl Template {
    fn parse(dispenser: &mut Dispenser<'_>, zones: &[Name]) -> Result<Template, CorefileError> {
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
                    self.patterns.push(pattern::compile(text).map_err(|error| {
                        dispenser.err(format!("could not parse regex: {text}, {error}"))
                    })?);
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
                let number = parse_unsigned(code, 16).ok().and_then(|code| code.try_into().ok());
                let number = number.ok_or_else(|| {
                    let reason = parse_unsigned(code, 16).err().unwrap_or_default();
                    dispenser.err(format!("error parsing extended DNS error code {code}, {reason}"))
                })?;
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
    fn concerns(&self, query: &Query<'_>) -> Option<&Name> {
        let (class, qtype) = (query.qclass(), query.qtype());
        let class_fits = self.class == class || [self.class, class].contains(&Class::ANY);
        let type_fits = self.qtype == qtype || [self.qtype, qtype].contains(&RecordType::ANY);
        if !class_fits || !type_fits {
            return None;
        }
        longest(&self.zones, query.name())
    }

    /// The class and type that the records are told: where the query leaves them open, one's own.
    fn shown(&self, query: &Query<'_>) -> (Class, RecordType) {
        let (class, qtype) = (query.qclass(), query.qtype());
        (
            if class == Class::ANY { self.class } else { class },
            if qtype == RecordType::ANY { self.qtype } else { qtype },
        )
    }
}

/// The longest of `zones` that a name is in.
fn longest<'z>(zones: &'z [Name], name: &Name) -> Option<&'z Name> {
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
        let nodes = syntax::parse(section, source).map_err(|error| {
            // CoreDNS names the last argument, not the wrong one.
            dispenser.err(format!("could not compile template: {}, {error}", dispenser.val()))
        })?;
        into.push(RecordTemplate { source: source.to_owned(), nodes });
    }
    Ok(())
}

/// Writes the response to a query that one of the templates matched.
struct Answering<'a> {
    metrics: &'a Registry,
    server: &'a str,
    data: Data<'a>,
}

impl Answering<'_> {
    /// The value of the label for a class or type.
    fn label(word: &str) -> &str {
        if word.is_empty() { UNNAMED } else { word }
    }

    fn count(&self, desc: &'static Desc, rest: &[&str]) {
        let Data { zone, class, qtype, .. } = &self.data;
        let (class, qtype) = (Answering::label(class), Answering::label(qtype));
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
            let text = evaluate::execute(&template.nodes, &self.data).map_err(|error| {
                self.count(&names::TEMPLATE_FAILURES, &[section, &template.go_source()]);
                format!("template: {section}: executing {section:?}: {error}")
            })?;
            TextRecord::parse(&text).map_err(|error| {
                self.count(&names::TEMPLATE_RR_FAILURES, &[section, &template.go_source()]);
                format!("dns: {error}")
            })
        };
        templates.iter().map(record).collect()
    }
}

impl RecordTemplate {
    /// The source as Go prints a parsed template: no white space inside the delimiters.
    fn go_source(&self) -> String {
        self.source.replace("{{ ", "{{").replace(" }}", "}}")
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
                .find_map(|pattern| pattern.captures(name).map(|groups| (pattern, groups)));
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
        let behind = draft.answer.iter().enumerate().skip(if chases { from } else { usize::MAX });
        let next = behind.filter_map(|(at, record)| Some((at, record.alias_target()?))).next();
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
    pattern: Option<(&'t Regex, Captures<'q>)>,
}

impl Found<'_, '_> {
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
            .capture_names()
            .flatten()
            .map(|name| (name.to_owned(), text(captures.name(name))))
            .collect();
        (groups, named)
    }
}

impl Draft {
    fn write(&self, template: &Template, query: &Query<'_>, response: &mut Response) {
        let chased: Vec<(usize, Message<'_>)> = self
            .chased
            .iter()
            .filter_map(|(at, wire)| Some((*at, Message::parse(wire).ok()?)))
            .collect();
        let truncated = chased.last().map_or(0, |(_, message)| message.flags() & flags::TC);
        response.start(query, template.rcode, flags::AA | truncated, "template");
        let flags = response.flags();
        let mut writer = Writer::new(&mut response.wire, query.id(), flags);
        writer.question(query.question());
        for (at, record) in self.answer.iter().enumerate() {
            record.write(Section::Answer, &mut writer);
            for (_, message) in chased.iter().filter(|(place, _)| *place == at) {
                for found in message.records().filter(|found| found.section == Section::Answer) {
                    writer.record(Section::Answer, message, &found, None);
                }
            }
        }
        for record in &self.authority {
            record.write(Section::Authority, &mut writer);
        }
        for record in &self.additional {
            record.write(Section::Additional, &mut writer);
        }
        if let Some((code, reason)) = &template.extended_error {
            write_error(&mut writer, *code, reason);
        }
    }
}

impl TextRecord {
    fn write(&self, section: Section, writer: &mut Writer<'_>) {
        writer.raw_record(section, &self.owner, self.rtype, self.class, self.ttl, &self.rdata);
    }
}

/// An OPT record with an extended error (RFC 8914 §2).
fn write_error(writer: &mut Writer<'_>, code: u16, reason: &str) {
    let mut option = EXTENDED_ERROR.to_be_bytes().to_vec();
    let length = u16::try_from(reason.len() + 2).unwrap_or(2);
    option.extend_from_slice(&length.to_be_bytes());
    option.extend_from_slice(&code.to_be_bytes());
    if usize::from(length) == reason.len() + 2 {
        option.extend_from_slice(reason.as_bytes());
    }
    writer.raw_record(
        Section::Additional,
        Name::root().as_bytes(),
        RecordType::OPT,
        Class(ERROR_UDP_SIZE),
        u32::from(Edns::DO),
        &option,
    );
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
                authority: answering.records("authority", &template.authority)?,
                additional: answering.records("additional", &template.additional)?,
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
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::plugin::testing::{Bench, Outcome, always, name, nobody, query, respond};

    fn load(bench: &mut Bench, text: &str) -> super::super::Chain {
        bench.load(text, &MemorySurroundings::new()).unwrap()
    }

    fn ask(text: &str, qname: &str, qtype: RecordType) -> Outcome {
        let mut bench = Bench::new();
        let chain = load(&mut bench, text);
        let below = always(Rcode::NOERROR, &["below.test. 20 IN A 192.0.2.7"]);
        bench.ask(&chain, query(qname, qtype), below)
    }

    #[test]
    fn records_of_all_sections_are_made() {
        let outcome = ask(
            "template IN A a.test {\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n\
             answer \"{{ .Name }} 61 IN A 192.0.2.2\"\n\
             authority \"a.test. 62 IN NS ns.a.test.\"\n\
             additional \"ns.a.test. 63 IN A 192.0.2.3\"\n}",
            "X.a.test.",
            RecordType::A,
        );
        assert_eq!(
            outcome.records(),
            [
                "x.a.test. 60 IN A 192.0.2.1",
                "x.a.test. 61 IN A 192.0.2.2",
                "a.test. 62 IN NS ns.a.test.",
                "ns.a.test. 63 IN A 192.0.2.3",
            ]
        );
        let kept = outcome.response.flags() & (flags::QR | flags::AA | flags::RA | flags::RD);
        assert_eq!(kept, flags::QR | flags::AA | flags::RD);
        assert_eq!(outcome.response.writer, "template");
    }

    #[test]
    fn a_template_answers_what_it_matches() {
        const BELOW: Option<Rcode> = None;
        for (text, qname, qtype, rcode) in [
            (
                "template IN AAAA . {\n rcode NOERROR\n}",
                "a.test.",
                RecordType::AAAA,
                Some(Rcode::NOERROR),
            ),
            (
                "template ANY AAAA {\n rcode NXDOMAIN\n}",
                "a.test.",
                RecordType::AAAA,
                Some(Rcode::NXDOMAIN),
            ),
            ("template IN AAAA", "a.test.", RecordType::A, BELOW),
            ("template IN ANY", "a.test.", RecordType::TXT, Some(Rcode::NOERROR)),
            ("template IN A", "a.test.", RecordType::ANY, Some(Rcode::NOERROR)),
            ("template CH A", "a.test.", RecordType::A, BELOW),
            ("template IN A b.test", "a.test.", RecordType::A, BELOW),
            (
                "template IN A {\n rcode SERVFAIL\n}",
                "a.test.",
                RecordType::A,
                Some(Rcode::SERVFAIL),
            ),
            ("template IN A {\n rcode REFUSED\n}", "a.test.", RecordType::A, Some(Rcode::REFUSED)),
            ("template IN A {\n match ^b\n}", "a.test.", RecordType::A, Some(Rcode::SERVFAIL)),
            ("template IN A {\n match ^b ^a\n}", "A.test.", RecordType::A, Some(Rcode::NOERROR)),
            ("template IN A {\n match ^b\n fallthrough\n}", "a.test.", RecordType::A, BELOW),
            (
                "template IN A {\n match ^b\n fallthrough b.test\n}",
                "a.test.",
                RecordType::A,
                Some(Rcode::SERVFAIL),
            ),
            (
                "template IN A {\n match ^b\n fallthrough\n}\ntemplate IN A {\n rcode NXDOMAIN\n}",
                "a.test.",
                RecordType::A,
                Some(Rcode::NXDOMAIN),
            ),
        ] {
            let outcome = ask(text, qname, qtype);
            match rcode {
                None => assert_eq!(outcome.records().len(), 1, "{text}"),
                Some(rcode) => {
                    assert_eq!(outcome.response.rcode, rcode, "{text}");
                    assert!(outcome.records().is_empty(), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_query_for_any_type_or_class_is_told_the_templates_own() {
        let text =
            "template IN TXT {\n answer \"{{ .Name }} 5 IN TXT {{ .Class }}-{{ .Type }}\"\n}";
        for (class, qtype, said) in [
            (Class::ANY, RecordType::ANY, "IN-TXT"),
            (Class::IN, RecordType::TXT, "IN-TXT"),
            (Class::ANY, RecordType::TXT, "IN-TXT"),
        ] {
            let mut bench = Bench::new();
            let chain = load(&mut bench, text);
            let asked = Query::new(&name("a.test."), qtype, class, true);
            let outcome = bench.ask(&chain, asked, nobody);
            assert_eq!(outcome.records(), [format!("a.test. 5 IN TXT \"{said}\"")]);
        }
        let text = text.replace("IN TXT {\n", "ANY ANY {\n");
        let mut bench = Bench::new();
        let chain = load(&mut bench, &text);
        let asked = Query::new(&name("a.test."), RecordType(65280), Class(7), true);
        assert_eq!(bench.ask(&chain, asked, nobody).records(), ["a.test. 5 IN TXT \"-\""]);
    }

    #[test]
    fn groups_of_the_pattern_are_in_the_data() {
        let outcome = ask(
            "template IN A a.test {\n\
             match ^ip-(?P<a>[0-9]+)-([0-9]+)[.]\n\
             answer \"{{ .Zone }} 60 IN A {{ .Group.a }}.{{ index .Match 2 }}.0.{{ .Group.1 }}\"\n}",
            "ip-10-2.a.test.",
            RecordType::A,
        );
        assert_eq!(outcome.records(), ["a.test. 60 IN A 10.2.0.10"]);
    }

    #[test]
    fn the_target_of_a_cname_is_asked_for() {
        let mut bench = Bench::new();
        let text = "template IN ANY c.test {\n answer \"{{ .Name }} 60 IN CNAME target.test.\"\n\
                    answer \"x.test. 60 IN TXT x\"\n}";
        let chain = load(&mut bench, text);
        let outcome = bench.ask(&chain, query("x.c.test.", RecordType::A), |query, response| {
            assert_eq!(query.name(), &name("target.test."));
            respond(query, response, Rcode::NOERROR, &["target.test. 30 IN A 192.0.2.77"]);
        });
        assert_eq!(
            outcome.records(),
            [
                "x.c.test. 60 IN CNAME target.test.",
                "target.test. 30 IN A 192.0.2.77",
                "x.test. 60 IN TXT \"x\"",
            ]
        );
        let outcome = bench.ask(&chain, query("x.c.test.", RecordType::TXT), nobody);
        assert_eq!(outcome.records().len(), 2);
    }

    #[test]
    fn failures_are_counted_and_answered_with_servfail() {
        let mut bench = Bench::new();
        let text = "template IN A bad.test {\n answer \"{{ .Name }} 20 IN A nonsense\"\n}\n\
                    template IN A worse.test {\n answer \"{{ index .Match 9 }}\"\n}";
        let chain = load(&mut bench, text);
        for (qname, desc, template) in [
            ("a.bad.test.", &names::TEMPLATE_RR_FAILURES, "{{.Name}} 20 IN A nonsense"),
            ("a.worse.test.", &names::TEMPLATE_FAILURES, "{{index .Match 9}}"),
        ] {
            let outcome = bench.ask(&chain, query(qname, RecordType::A), nobody);
            assert_eq!(outcome.response.rcode, Rcode::SERVFAIL);
            assert!(outcome.response.error.is_some());
            let (server, zone) = (bench.server.label.to_string(), &qname[2..]);
            let labels = [&server, zone, "", "IN", "A", "answer", template];
            assert_eq!(bench.metrics.counter(desc, &labels).value(), 1);
            assert_eq!(bench.metrics.counter(&names::TEMPLATE_MATCHES, &labels[..5]).value(), 1);
        }
    }

    #[test]
    fn an_extended_error_is_in_the_response() {
        let outcome = ask(
            "template IN A {\n rcode NXDOMAIN\n ederror 21 \"not here\"\n}",
            "a.test.",
            RecordType::A,
        );
        let message = outcome.response.message().unwrap();
        let edns = message.edns().unwrap();
        assert_eq!((edns.udp_size, edns.flags), (4096, Edns::DO));
        assert_eq!(&message.wire()[edns.options], b"\0\x0f\0\x0a\0\x15not here");
    }

    #[test]
    fn mistakes_are_told_in_corednss_words() {
        for (text, error) in [
            ("template", "Wrong argument count or unexpected line ending after 'template'"),
            ("template IN", "Wrong argument count"),
            ("template in A", "invalid query class in"),
            ("template IN FOO", "invalid RR class FOO"),
            ("template IN TYPE1", "invalid RR class TYPE1"),
            ("template IN A {\n rcode foo\n}", "unknown rcode foo"),
            (
                "template IN A {\n match \"(\"\n}",
                "could not parse regex: (, error parsing regexp: missing closing ): `(`",
            ),
            (
                "template IN A {\n answer \"{{ .Foo\"\n}",
                "could not compile template: {{ .Foo, template: answer:1: unclosed action",
            ),
            ("template IN A {\n answer\n}", "Wrong argument count"),
            ("template IN A {\n foo\n}", "Wrong argument count"),
            (
                "template IN A {\n ederror a\n}",
                "error parsing extended DNS error code a, strconv.ParseUint: parsing \"a\": \
                 invalid syntax",
            ),
            ("template IN A {\n ederror 1 2 3\n}", "Wrong argument count"),
        ] {
            let told = Bench::new().load_error(text, &MemorySurroundings::new());
            assert!(told.contains(error), "{text}: {told}");
        }
    }
}
