//! `template` as a client sees it, and the grammar.

use super::*;
use crate::corefile::MemorySurroundings;
use crate::dns::{Class, Edns, flags};
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
        ("template IN A {\n rcode SERVFAIL\n}", "a.test.", RecordType::A, Some(Rcode::SERVFAIL)),
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
    let text = "template IN TXT {\n answer \"{{ .Name }} 5 IN TXT {{ .Class }}-{{ .Type }}\"\n}";
    for (class, qtype, said) in [
        (Class::ANY, RecordType::ANY, "IN-TXT"),
        (Class::IN, RecordType::TXT, "IN-TXT"),
        (Class::ANY, RecordType::TXT, "IN-TXT"),
    ] {
        let mut bench = Bench::new();
        let chain = load(&mut bench, text);
        let asked = Query::new(&name("a.test."), qtype, class);
        let outcome = bench.ask(&chain, asked, nobody);
        assert_eq!(outcome.records(), [format!("a.test. 5 IN TXT \"{said}\"")]);
    }
    let text = text.replace("IN TXT {\n", "ANY ANY {\n");
    let mut bench = Bench::new();
    let chain = load(&mut bench, &text);
    let asked = Query::new(&name("a.test."), RecordType(65280), Class(7));
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
    let answer = "answer \"a.test. 60 IN TXT {{ .Regex }}\"\n}";
    for (pattern, text) in [("match b ^a[.]\n", "\"^a[.]\""), ("", "\".*\"")] {
        let directive = format!("template IN TXT {{\n{pattern}{answer}");
        let outcome = ask(&directive, "a.test.", RecordType::TXT);
        assert_eq!(outcome.records(), [format!("a.test. 60 IN TXT {text}")]);
    }
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
fn types_without_a_name_share_the_empty_label() {
    let mut bench = Bench::new();
    let chain = load(&mut bench, "template ANY ANY a.test {\n rcode NXDOMAIN\n}");
    for qtype in [65400, 65401] {
        bench.ask(&chain, query("x.a.test.", RecordType(qtype)), nobody);
    }
    let labels = [&*bench.server.label, "a.test.", "", "IN", ""];
    assert_eq!(bench.metrics.counter(&names::TEMPLATE_MATCHES, &labels).value(), 2);
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
        (
            "template IN A {\n ederror 65536 why\n}",
            "error parsing extended DNS error code why, strconv.ParseUint: parsing \"65536\": \
             value out of range",
        ),
        ("template IN A {\n ederror 1 2 3\n}", "Wrong argument count"),
    ] {
        let told = Bench::new().load_error(text, &MemorySurroundings::new());
        assert!(told.contains(error), "{text}: {told}");
    }
}
