//! `log`: one line per query (spec/coredns.md §4.2).
//!
//! Owns the rules (scope, class) and the format, which is read once at setup and written straight
//! into the journal's line: a query whose line is not wanted costs a comparison of names.

use super::kind::{Kind, ResponseClass};
use super::{Context, Handler, Labels, Setup, Turn};
use crate::corefile::{CorefileError, Dispenser};
use crate::dns::{
    Class, Edns, Name, Query, ReplyLimits, Response, Transport, Written, flags, will_be_truncated,
};
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} \
                      {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";

/// What `{combined}` has behind [`COMMON`].
const COMBINED_END: &str = " \"{>opcode}\"";

/// Reads the directive.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut rules = Vec::new();
    while dispenser.next() {
        let words = dispenser.remaining_args();
        // A single word is a name even when it looks like a format, as in CoreDNS.
        let (names, format): (&[&str], _) = match words[..] {
            [] => (&["."], COMMON.to_owned()),
            [ref names @ .., last] if !names.is_empty() && last.contains('{') => {
                let combined = format!("{COMMON}{COMBINED_END}");
                (names, last.replace("{common}", COMMON).replace("{combined}", &combined))
            }
            ref names => (names, COMMON.to_owned()),
        };
        let format = Arc::new(Format::read(&format));
        let classes = classes(dispenser)?;
        rules.extend(names.iter().filter_map(|name| {
            // What is no name is no name's scope: `log "{remote}"` logs nothing.
            Some(Rule { scope: name.parse().ok()?, format: format.clone(), classes })
        }));
    }
    setup.block.add(Log { rules });
    Ok(())
}

/// The block of a directive; all classes when it names none.
fn classes(dispenser: &mut Dispenser<'_>) -> Result<Classes, CorefileError> {
    let mut classes = Classes::default();
    while dispenser.next_block() {
        if dispenser.val() != "class" {
            return Err(dispenser.arg_err());
        }
        let words = dispenser.remaining_args();
        if words.is_empty() {
            return Err(dispenser.arg_err());
        }
        for word in words {
            match word {
                "all" => classes = Classes::ALL,
                "success" => classes.success = true,
                "denial" => classes.denial = true,
                "error" => classes.error = true,
                other => return Err(dispenser.plain_err(format!("invalid Class: {other}"))),
            }
        }
    }
    Ok(if classes == Classes::default() { Classes::ALL } else { classes })
}

/// The classes of responses that a rule logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Classes {
    success: bool,
    denial: bool,
    error: bool,
}

impl Classes {
    const ALL: Classes = Classes { success: true, denial: true, error: true };

    fn has(self, class: ResponseClass) -> bool {
        match class {
            ResponseClass::Success => self.success,
            ResponseClass::Denial => self.denial,
            ResponseClass::Error => self.error,
        }
    }
}

/// What became of a query (spec/coredns.md §2.4).
fn kind_of(query: &Query<'_>, response: &Response, context: &Context<'_>) -> Kind {
    match response.message() {
        Ok(message) if response.written == Written::Message => {
            Kind::of_reply(query, &message, response.rcode, context.now.unix)
        }
        _ => Kind::of_failure(response.rcode),
    }
}

/// One name of one directive.
struct Rule {
    scope: Name,
    format: Arc<Format>,
    classes: Classes,
}

/// The handler.
struct Log {
    rules: Vec<Rule>,
}

impl Handler for Log {
    fn word(&self) -> &'static str {
        "log"
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        // The first rule whose scope matches decides, whatever the later ones say.
        let scoped = self.rules.iter().find(|rule| query.name().is_in(&rule.scope));
        let Some(rule) = scoped else { return Turn::Up };
        if rule.classes != Classes::ALL || context.labels.wanted {
            let kind = kind_of(query, response, context);
            context.labels.set("log/type", || kind.word().to_owned());
            context.labels.set("log/class", || kind.class().word().to_owned());
            if !rule.classes.has(kind.class()) {
                return Turn::Up;
            }
        }
        let line = Line { format: &rule.format, query, response: Some(response), context };
        context.journal.query_line(format_args!("{line}"));
        Turn::Up
    }
}

/// A format, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Format {
    parts: Vec<Part>,
}

/// A piece of a format.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field),
    /// The label's name without `{/` and `}`.
    Label(String),
}

/// What a word in braces stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Type,
    Name,
    Class,
    Proto,
    Size,
    Remote,
    Local,
    Port,
    Id,
    Opcode,
    Do,
    BufferSize,
    Rcode,
    ResponseSize,
    Duration,
    ResponseFlags,
}

/// The words with their fields.
const FIELDS: &[(&str, Field)] = &[
    ("type", Field::Type),
    ("name", Field::Name),
    ("class", Field::Class),
    ("proto", Field::Proto),
    ("size", Field::Size),
    ("remote", Field::Remote),
    ("local", Field::Local),
    ("port", Field::Port),
    (">id", Field::Id),
    (">opcode", Field::Opcode),
    (">do", Field::Do),
    (">bufsize", Field::BufferSize),
    ("rcode", Field::Rcode),
    ("rsize", Field::ResponseSize),
    ("duration", Field::Duration),
    (">rflags", Field::ResponseFlags),
];

impl Format {
    /// Words are found from their closing brace backwards, so that `{ {name} }` works; an unknown
    /// word stays as it is.
    pub(super) fn read(text: &str) -> Format {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(close) = rest.find('}') {
            let (head, tail) = rest.split_at(close + 1);
            rest = tail;
            let part = head[..close].rfind('{').and_then(|open| {
                let word = &head[open + 1..close];
                let part = match word.strip_prefix('/') {
                    Some(label) => Part::Label(label.to_owned()),
                    None => Part::Field(FIELDS.iter().find(|(known, _)| *known == word)?.1),
                };
                Some((open, part))
            });
            match part {
                None => literal.push_str(head),
                Some((open, part)) => {
                    literal.push_str(&head[..open]);
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(part);
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Format { parts }
    }

    /// The text while there is no response yet: what is asked of it is `-`.
    pub(super) fn of_query<'l>(
        &'l self,
        query: &'l Query<'_>,
        context: &'l Context<'_>,
    ) -> impl Display + 'l {
        Line { format: self, query, response: None, context }
    }
}

/// A line about to be written.
struct Line<'l, 'q, 'c> {
    format: &'l Format,
    query: &'l Query<'q>,
    response: Option<&'l Response>,
    context: &'l Context<'c>,
}

impl Display for Line<'_, '_, '_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for part in &self.format.parts {
            match part {
                Part::Literal(text) => f.write_str(text)?,
                Part::Label(name) => f.write_str(label(self.context.labels, name))?,
                Part::Field(field) => self.field(*field, f)?,
            }
        }
        Ok(())
    }
}

fn label<'l>(labels: &'l Labels, name: &str) -> &'l str {
    labels.get(name).unwrap_or("-")
}

impl Line<'_, '_, '_> {
    fn field(&self, field: Field, f: &mut Formatter<'_>) -> fmt::Result {
        let Line { query, context, .. } = self;
        let client = context.client;
        let written = self.response.filter(|response| response.written == Written::Message);
        match field {
            Field::Type => write!(f, "{}", query.qtype()),
            Field::Name => write!(f, "{}", query.name()),
            // In Go's texts `ANY` is the type alone.
            Field::Class if query.qclass() == Class::ANY => f.write_str("CLASS255"),
            Field::Class => write!(f, "{}", query.qclass()),
            Field::Proto => f.write_str(client.transport.client_word()),
            Field::Size => write!(f, "{}", query.wire().len()),
            Field::Remote => write_address(f, client.address.ip()),
            Field::Local => write_address(f, client.local.ip()),
            Field::Port => write!(f, "{}", client.address.port()),
            Field::Id => write!(f, "{}", query.id()),
            Field::Opcode => write!(f, "{}", query.opcode().0),
            Field::Do => write!(f, "{}", query.wants_dnssec()),
            Field::BufferSize => write!(f, "{}", buffer_size(client.transport, query.edns())),
            Field::Rcode => match written.map(|response| (response.rcode, response.rcode.word())) {
                Some((_, Some(word))) => f.write_str(word),
                Some((rcode, None)) => write!(f, "{}", rcode.0),
                None => f.write_str("-"),
            },
            Field::ResponseFlags => match written {
                Some(response) => {
                    let limits = ReplyLimits::of(query, client.transport);
                    let truncated = will_be_truncated(query, response, limits);
                    write_flags(f, response.flags() | if truncated { flags::TC } else { 0 })
                }
                None => f.write_str("-"),
            },
            Field::ResponseSize | Field::Duration if self.response.is_none() => f.write_str("-"),
            Field::ResponseSize => {
                write!(f, "{}", written.map_or(0, Response::uncompressed_size))
            }
            Field::Duration => {
                let took = context.now.monotonic.saturating_sub(context.received.monotonic);
                write_seconds(f, took)
            }
        }
    }
}

/// The greatest response that the client takes, as CoreDNS reckons it.
fn buffer_size(transport: Transport, edns: Option<&Edns>) -> u16 {
    match transport {
        Transport::Udp => edns.map_or(512, |edns| edns.udp_size.max(512)),
        Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic => u16::MAX,
    }
}

/// IPv6 addresses stand in brackets.
fn write_address(f: &mut Formatter<'_>, address: IpAddr) -> fmt::Result {
    match address.to_canonical() {
        IpAddr::V4(address) => write!(f, "{address}"),
        IpAddr::V6(address) => write!(f, "[{address}]"),
    }
}

fn write_flags(f: &mut Formatter<'_>, word: u16) -> fmt::Result {
    let mut is_first = true;
    for (bit, name) in [
        (flags::QR, "qr"),
        (flags::AA, "aa"),
        (flags::TC, "tc"),
        (flags::RD, "rd"),
        (flags::RA, "ra"),
        (flags::Z, "z"),
        (flags::AD, "ad"),
        (flags::CD, "cd"),
    ] {
        if word & bit != 0 {
            f.write_str(if is_first { "" } else { "," })?;
            f.write_str(name)?;
            is_first = false;
        }
    }
    Ok(())
}

/// Seconds with no more digits than needed and never an exponent, as Go's `FormatFloat(x, 'f', -1)`.
fn write_seconds(f: &mut Formatter<'_>, took: Duration) -> fmt::Result {
    write!(f, "{}s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::{Rcode, Received, RecordType};
    use crate::plugin::testing::{Bench, always, query};

    const SOA: &str = "authority: test. 60 IN SOA ns.test. hm.test. 7 3600 600 86400 60";

    /// The lines that one query for `a.test. A` leaves under `directives`.
    fn lines(directives: &str, rcode: Rcode, records: &[&str]) -> Vec<String> {
        let mut bench = Bench::new();
        let chain = bench.load(directives, &MemorySurroundings::default()).unwrap();
        bench.ask(&chain, query("a.test.", RecordType::A), always(rcode, records));
        bench.journal.take()
    }

    #[test]
    fn the_common_format_is_the_default() {
        assert_eq!(
            lines("log", Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"]),
            ["[INFO] 127.0.0.1:40212 - 0 \"A IN a.test. udp 24 false 512\" NOERROR qr,rd,ra 46 0s"]
        );
    }

    #[test]
    fn a_failed_query_has_neither_rcode_nor_flags_nor_size() {
        let mut bench = Bench::new();
        let chain = bench.load("log", &MemorySurroundings::default()).unwrap();
        bench.client.transport = Transport::Tcp;
        bench.client.address = "[2001:db8::1]:7".parse().unwrap();
        bench.ask(&chain, query("A.Test.", RecordType(65280)), |_, response| {
            response.fail(Rcode::SERVFAIL, None);
        });
        assert_eq!(
            bench.journal.take(),
            ["[INFO] [2001:db8::1]:7 - 0 \"TYPE65280 IN a.test. tcp 24 false 65535\" - - 0 0s"]
        );
    }

    #[test]
    fn a_format_may_name_fields_labels_and_unknown_words() {
        assert_eq!(
            lines("log . \"{combined} {{name} }{nosuch} {/meta/x} }{\"", Rcode(99), &[]),
            ["[INFO] 127.0.0.1:40212 - 0 \"A IN a.test. udp 24 false 512\" RCODE3 qr,rd,ra 24 0s \
              \"0\" {a.test. }{nosuch} - }{"]
            .map(|line| line.replace("RCODE3", "NXDOMAIN"))
        );
        assert_eq!(
            lines("log test \"{local} {>rflags}\"", Rcode::NOERROR, &[]),
            ["[INFO] 127.0.0.53 qr,rd,ra"]
        );
    }

    #[test]
    fn a_reply_that_is_cut_has_its_whole_size_and_tc() {
        let addresses = vec!["a.test. 300 IN A 192.0.2.1"; 40];
        assert_eq!(
            lines("log . \"{>rflags} {rsize}\"", Rcode::NOERROR, &addresses),
            ["[INFO] qr,tc,rd,ra 904"]
        );
        assert_eq!(
            lines("log . \"{>rflags} {rsize}\"", Rcode::NOERROR, &addresses[..30]),
            ["[INFO] qr,rd,ra 684"]
        );
    }

    #[test]
    fn an_expired_signature_is_an_error_to_a_client_that_wants_signatures() {
        let asked = |flags: &[u8]| {
            let mut wire = b"\0\0\x01\0\0\x01\0\0\0\0\0\x01\x01a\x04test\0\0\x01\0\x01".to_vec();
            wire.extend_from_slice(b"\0\0\x29\x02\0\0\0");
            wire.extend_from_slice(flags);
            wire.extend_from_slice(&[0, 0]);
            let Received::Query(query) = Query::receive(&wire) else { panic!("no query") };
            query.into_owned()
        };
        // It covers A, and expired in 1970.
        let signature = "a.test. 300 IN RRSIG 0001 08 02 0000012c 00000001 00000000 0001 00 ab";
        for (flags, said) in [([0x80, 0], "error"), ([0, 0], "success")] {
            let mut bench = Bench::new();
            let rule = "metadata\nlog . \"{/log/class}\"";
            let chain = bench.load(rule, &MemorySurroundings::new()).unwrap();
            let records = ["a.test. 300 IN A 192.0.2.1", signature];
            bench.ask(&chain, asked(&flags), always(Rcode::NOERROR, &records));
            assert_eq!(bench.journal.take(), [format!("[INFO] {said}")]);
        }
    }

    #[test]
    fn types_and_classes_have_gos_names() {
        let mut bench = Bench::new();
        let chain = bench.load("log . \"{class} {type}\"", &MemorySurroundings::new()).unwrap();
        for (class, qtype, said) in [
            (Class::ANY, RecordType::ANY, "CLASS255 ANY"),
            (Class::NONE, RecordType(0), "NONE None"),
            (Class::CH, RecordType(128), "CH NXNAME"),
            (Class(0), RecordType(65535), "CLASS0 Reserved"),
        ] {
            let asked = Query::new(&"a.test.".parse().unwrap(), qtype, class, true);
            bench.ask(&chain, asked, always(Rcode::NOERROR, &[]));
            assert_eq!(bench.journal.take(), [format!("[INFO] {said}")]);
        }
    }

    #[test]
    fn a_single_word_is_a_name_never_a_format() {
        assert!(lines("log \"{remote}\"", Rcode::NOERROR, &[]).is_empty());
    }

    #[test]
    fn the_first_rule_in_scope_decides_alone() {
        let rules = "log a.test {\n class error\n}\nlog . \"{name}\"";
        assert!(lines(rules, Rcode::NOERROR, &[]).is_empty());
        assert_eq!(lines("log b.test a.test \"{name}\"", Rcode::NOERROR, &[]).len(), 1);
        assert!(lines("log b.test c.test \"{name}\"", Rcode::NOERROR, &[]).is_empty());
    }

    #[test]
    fn classes_select_responses() {
        let record = "a.test. 300 IN A 192.0.2.1";
        for (rcode, records, class) in [
            (Rcode::NOERROR, &[record][..], "success"),
            (Rcode::NOERROR, &["authority: test. 9 IN NS ns.test."], "success"),
            (Rcode::NOERROR, &[], "success"),
            (Rcode::NOERROR, &[SOA], "denial"),
            (Rcode::NXDOMAIN, &[SOA], "denial"),
            (Rcode::NXDOMAIN, &[], "error"),
            (Rcode::SERVFAIL, &[], "error"),
            (Rcode::REFUSED, &[], "error"),
        ] {
            for tried in ["success", "denial", "error", "all"] {
                let rule = format!("log . {{\n class {tried}\n}}");
                let wanted = usize::from(tried == class || tried == "all");
                assert_eq!(lines(&rule, rcode, records).len(), wanted, "{rcode} {records:?}");
            }
        }
    }

    #[test]
    fn what_became_of_a_query_is_a_label() {
        let mut bench = Bench::new();
        let log = "metadata\nlog . \"{/log/class} {/log/type}\"";
        let chain = bench.load(log, &MemorySurroundings::default()).unwrap();
        for (rcode, records, said) in [
            (Rcode::NOERROR, &["a.test. 300 IN A 192.0.2.1"][..], "success NOERROR"),
            (Rcode::NOERROR, &["authority: test. 9 IN NS ns.test."], "success DELEGATION"),
            (Rcode::NOERROR, &[SOA], "denial NODATA"),
            (Rcode::NXDOMAIN, &[SOA], "denial NXDOMAIN"),
            (Rcode::SERVFAIL, &[], "error SERVERERROR"),
            (Rcode::REFUSED, &[], "error OTHERERROR"),
        ] {
            bench.ask(&chain, query("a.test.", RecordType::A), always(rcode, records));
            assert_eq!(bench.journal.take(), [format!("[INFO] {said}")]);
        }
        bench.ask(&chain, query("a.test.", RecordType::AXFR), always(Rcode::NOERROR, &[]));
        assert_eq!(bench.journal.take(), ["[INFO] error META"]);
        bench.ask(&chain, query("a.test.", RecordType::A), |_, response| {
            response.fail(Rcode::SERVFAIL, None);
        });
        assert_eq!(bench.journal.take(), ["[INFO] error SERVERERROR"]);
    }

    #[test]
    fn seconds_have_no_exponent_and_no_needless_digits() {
        struct Seconds(u64);
        impl Display for Seconds {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                write_seconds(f, Duration::from_nanos(self.0))
            }
        }
        assert_eq!(Seconds(1_591_380).to_string(), "0.00159138s");
        assert_eq!(Seconds(73).to_string(), "0.000000073s");
        assert_eq!(Seconds(2_000_000_000).to_string(), "2s");
    }

    #[test]
    fn mistakes_are_named_as_coredns_names_them() {
        for (directives, text) in [
            (
                "log {\n foo\n}",
                "plugin/log: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'foo'",
            ),
            ("log {\n class foo\n}", "Corefile:3 - plugin/log: invalid Class: foo"),
            (
                "log {\n class\n}",
                "plugin/log: Corefile:3 - Error during parsing: Wrong argument count or unexpected line ending after 'class'",
            ),
        ] {
            let error = Bench::new().load_error(directives, &MemorySurroundings::default());
            assert_eq!(error, text);
        }
    }
}
