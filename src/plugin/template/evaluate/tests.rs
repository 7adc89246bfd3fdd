//! What templates give, and what Go says of those that fail.

use super::super::syntax::parse;
use super::*;
use crate::dns::{Class, Name, Query, RecordType};

fn run(source: &str) -> Result<String, String> {
    let name: Name = "ip-10-0-0-1.a.test.".parse().unwrap();
    let mut query = Query::new(&name, RecordType::A, Class::IN);
    query.set_question(b"\x0bIP-10-0-0-1\x01a\x04test\0", RecordType::A, Class::IN);
    let data = Data {
        regex: ".*",
        zone: "test.".to_owned(),
        name: name.to_string(),
        class: "IN",
        qtype: "A",
        groups: ["ip-10-0-0-1", "10", "0", "0", "1"].map(str::to_owned).to_vec(),
        named: vec![("first".to_owned(), "10".to_owned())],
        remote: "192.0.2.9".to_owned(),
        query: &query,
        meta: &|label| (label == "a/b").then(|| "value".to_owned()),
    };
    execute(&parse("answer", source)?, &data).map_err(|fault| fault.told("answer"))
}

#[test]
fn templates_of_corefiles_give_gos_text() {
    for (source, text) in [
        ("{{ .Name }} 60 IN A 192.0.2.1", "ip-10-0-0-1.a.test. 60 IN A 192.0.2.1"),
        ("{{.Zone}} {{ .Class }} {{ .Type }} {{ .Remote }}", "test. IN A 192.0.2.9"),
        ("{{ index .Match 1 }}.{{ index .Match 4 }}", "10.1"),
        ("{{ .Group.first }} {{ .Group.none }} {{ index .Group \"2\" }}", "10 <no value> 0"),
        ("{{ .Question.Name }} {{ .Question.Qtype }}", "IP-10-0-0-1.a.test. 1"),
        ("{{ .Meta \"a/b\" }}|{{ .Meta \"none/x\" }}|{{ \"a/b\" | .Meta }}", "value||value"),
        ("{{ parseInt .Group.first 16 8 }}", "16"),
        ("{{ .Group.first | printf \"%s-%d\" \"x\" | len }}", "16"),
        ("{{ printf \"%03d\" (parseInt .Group.first 10 32) }}", "010"),
        ("{{ if eq .Type \"AAAA\" \"A\" }}yes{{ else }}no{{ end }}", "yes"),
        ("{{ if false }}a{{ else if .Zone }}b{{ else }}c{{ end }}", "b"),
        ("{{ with .Group.first }}{{ . }}{{ $.Type }}{{ end }}", "10A"),
        ("{{ range $i, $m := .Match }}{{ if $i }}{{ $m }},{{ end }}{{ end }}", "10,0,0,1,"),
        (
            "{{ range .Match }}{{ if eq . \"0\" }}{{ break }}{{ end }}[{{ . }}]{{ end }}",
            "[ip-10-0-0-1][10]",
        ),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("a {{- /* gone */ -}} b {{- 1 -}} c", "ab1c"),
        ("{{ and 1 0 }}{{ or 0 \"x\" }}{{ not 1 }}", "0xfalse"),
        ("{{ print 1 2 \"a\" 3 }}", "1 2a3"),
        ("{{ slice .Name 0 2 }}", "ip"),
        ("{{ .Message.RecursionDesired }} {{ .Message.Id }}", "true 0"),
        (
            "{{ len .Message.Question }} {{ (index .Message.Question 0).Name }}",
            "1 IP-10-0-0-1.a.test.",
        ),
        ("{{ range .Message.Question }}{{ .Qtype }}{{ end }}", "1"),
        ("{{ `raw` }}{{ \"\\x41\\n\" }}{{ 'a' }}{{ 0x10 }}{{ -3 }}", "rawA\n9716-3"),
        ("{{ (index .Match 1) }}", "10"),
        ("{{ lt 1 2 }} {{ .Match }}", "true [ip-10-0-0-1 10 0 0 1]"),
        ("}} is text", "}} is text"),
    ] {
        match run(source) {
            Ok(result) => assert_eq!(result, text, "{source}"),
            Err(error) => assert_eq!(text, "error", "{source}: {error}"),
        }
    }
}

#[test]
fn what_go_refuses_while_executing_is_an_error() {
    for source in [
        "{{ index .Match 9 }}",
        "{{ .Foo }}",
        "{{ $x = 1 }}",
        "{{ .Name.Foo }}",
        "{{ .Name 1 }}",
        "{{ .Group.none.x }}",
        "{{ parseInt \"x\" 10 8 }}",
        "{{ eq 1 \"a\" }}",
        "{{ range .Name }}{{ end }}",
        "{{ range $i, $number := 3 }}{{ end }}",
        "{{ if (nil) }}{{ end }}",
        "{{ $x := nil }}",
        "{{ .Meta }}",
        "{{ . }}",
    ] {
        assert!(run(source).is_err(), "{source}");
    }
}

#[test]
fn errors_name_the_place_as_go_does() {
    for (source, at) in [
        (
            "a\n {{ index .Match 5 }}",
            ":2:4: executing \"answer\" at <index .Match 5>: error calling index: index out of range: 5",
        ),
        (
            "{{ $x := index .Match 7 }}",
            ":1:9: executing \"answer\" at <index .Match 7>: error calling index: index out of range: 7",
        ),
        (
            "{{ printf \"%d\" (index .Match 6) }}",
            ":1:16: executing \"answer\" at <index .Match 6>: error calling index: index out of range: 6",
        ),
        (
            "{{ .Foo }}",
            ":1:3: executing \"answer\" at <.Foo>: can't evaluate field Foo in type *template.templateData",
        ),
        (
            "{{ .Name.x }}",
            ":1:8: executing \"answer\" at <.Name.x>: can't evaluate field x in type string",
        ),
        (
            "{{ .Message.Opcode | len }}",
            ":1:21: executing \"answer\" at <len>: error calling len: len of type int",
        ),
        (
            "{{ index .Match \"a\" }}",
            ":1:3: executing \"answer\" at <index .Match \"a\">: error calling index: cannot index slice/array with type string",
        ),
        (
            "{{ range .Name }}{{ end }}",
            ":1:9: executing \"answer\" at <.Name>: range can't iterate over ip-10-0-0-1.a.test.",
        ),
        (
            "{{ len 1 2 }}",
            ":1:3: executing \"answer\" at <len>: wrong number of args for len: want 1 got 2",
        ),
        (
            "{{ .Meta }}",
            ":1:3: executing \"answer\" at <.Meta>: wrong number of args for Meta: want 1 got 0",
        ),
        (
            "{{ 1 | .Name }}",
            ":1:7: executing \"answer\" at <.Name>: Name has arguments but cannot be invoked as function",
        ),
        ("{{ nil }}", ":1:3: executing \"answer\" at <nil>: nil is not a command"),
    ] {
        assert_eq!(run(source), Err(format!("template: answer{at}")), "{source}");
    }
}

#[test]
fn templates_that_are_defined_are_called_with_a_dot_of_their_own() {
    for (source, text) in [
        ("{{ define \"x\" }}[{{ . }}]{{ end }}{{ template \"x\" .Type }}", "[A]"),
        ("{{ template `x` 5 }}{{ define `x` }}[{{ $ }}]{{ end }}", "[5]"),
        ("{{ define \"x\" }}[{{ . }}]{{ end }}{{ template \"x\" }}", "[<no value>]"),
        ("{{ with .Zone }}{{ block \"x\" . }}<{{ . }}>{{ end }}{{ end }}", "<test.>"),
        ("{{ block \"x\" .Type }}{{ . }}{{ end }}{{ template \"x\" .Class }}", "AIN"),
        ("{{ define \"x\" }}a{{ end }}{{ define \"x\" }} {{ end }}{{ template \"x\" }}", "a"),
        ("{{ define \"x\" }} {{ end }}{{ define \"x\" }}b{{ end }}{{ template \"x\" }}", "b"),
        ("{{ define \"answer\" }}{{ .Type }}{{ end }} ", "A"),
        (
            "{{ define \"x\" }}{{ range . }}<{{ . }}>{{ end }}{{ end }}\
             {{ template \"x\" slice .Match 1 3 }}",
            "<10><0>",
        ),
        (
            "{{ define \"x\" }}{{ $a := 2 }}{{ $a }}{{ end }}\
             {{ $a := 1 }}{{ template \"x\" }}{{ $a }}{{ template \"x\" $b := 3 }}{{ $b }}",
            "2123",
        ),
        (
            "{{ define \"x\" }}{{ if . }}{{ len . }}{{ template \"x\" slice . 1 }}{{ end }}{{ end }}\
             {{ template \"x\" \"abc\" }}",
            "321",
        ),
    ] {
        assert_eq!(run(source).as_deref(), Ok(text), "{source}");
    }
}

#[test]
fn errors_name_the_template_that_was_executed() {
    for (source, at) in [
        (
            "{{ .Name }}{{ template \"x\" }}",
            ":1:23: executing \"answer\" at <{{template \"x\"}}>: template \"x\" not defined",
        ),
        (
            "{{ define \"x\" }}{{ .Foo }}{{ end }}{{ block \"y\" . }}{{ template \"x\" . }}{{ end }}",
            ":1:19: executing \"x\" at <.Foo>: can't evaluate field Foo in type *template.templateData",
        ),
        (
            "{{ template \"x\" .Foo }}{{ define \"x\" }}{{ end }}",
            ":1:16: executing \"answer\" at <.Foo>: can't evaluate field Foo in type *template.templateData",
        ),
        (
            "{{ template \"answer\" . }}",
            ":1:12: executing \"answer\" at <{{template \"answer\" .}}>: exceeded maximum template depth (100)",
        ),
    ] {
        assert_eq!(run(source), Err(format!("template: answer{at}")), "{source}");
    }
}

#[test]
fn a_template_that_calls_itself_from_within_ends() {
    let deep = format!(
        "{{{{ define \"x\" }}}}{}{{{{ template \"x\" }}}}{}{{{{ end }}}}{{{{ template \"x\" }}}}",
        "{{ range 1 }}".repeat(60),
        "{{ end }}".repeat(60)
    );
    assert!(run(&deep).unwrap_err().contains("exceeded maximum template depth"));
    let wide =
        "{{ define \"x\" }}{{ template \"x\" }}{{ end }}{{ range 9 }}{{ template \"x\" }}{{ end }}";
    assert!(run(wide).is_err());
}

#[test]
fn work_and_text_are_bounded() {
    assert!(run("{{ range 100000 }}{{ range 100000 }}x{{ end }}{{ end }}").is_err());
    assert!(run("{{ range 99999999999 }}{{ end }}").is_err());
    assert!(run("{{ range 900 }}{{ printf \"%1000s\" \"x\" }}{{ end }}").is_err());
}
