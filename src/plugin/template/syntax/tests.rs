//! What Go says of sources that are no templates.

use super::*;

#[test]
fn errors_are_gos() {
    for (source, reason) in [
        ("{{ .Foo", "1: unclosed action"),
        ("{{ .Name \"", "1: unterminated quoted string"),
        ("{{ }}", "1: missing value for command"),
        ("{{ end }}", "1: unexpected {{end}}"),
        ("a\n{{ if .Name }}x", "2: unexpected EOF"),
        ("{{ foo }}", "1: function \"foo\" not defined"),
        ("{{ $x }}", "1: undefined variable \"$x\""),
        ("{{ (.Name }}", "1: unclosed left paren"),
        ("{{ .Name | \"x\" }}", "1: non executable command in pipeline stage 2"),
        ("{{ | .Name }}", "1: unexpected \"|\" in command"),
        ("{{ .Name := 1 }}", "1: unexpected \":=\" in operand"),
        ("{{ @ }}", "1: unexpected \"@\" in command"),
        ("{{ \x01 }}", "1: unrecognized character in action: U+0001"),
        ("{{ .Name@ }}", "1: bad character U+0040 '@'"),
        ("{{ .Name }", "1: unexpected \"}\" in operand"),
        ("{{ true.x }}", "1: unexpected . after term \"true\""),
        ("{{ ..Name }}", "1: unexpected . after term \".\""),
        ("{{ range $a, $b, $c := .Match }}{{ end }}", "1: too many declarations in range"),
        ("{{ if .Name }}{{ else with .Zone }}{{ end }}", "1: unexpected <with> in input"),
        ("{{ end x }}", "1: unexpected \"x\" in end"),
        ("{{ break 1 }}", "1: unexpected \"1\" in {{break}}"),
        ("{{ .Name\n@ }}", "2: unexpected \"@\" in operand"),
        ("{{ .Name\n", "2: unclosed action started at answer:1"),
        ("{{ 0x }}", "1: illegal number syntax: \"0x\""),
        ("{{ break }}", "1: {{break}} outside {{range}}"),
        ("{{ define \"x\" }}y", "1: unexpected EOF"),
        ("{{ define \"x\" }}y{{ else }}", "1: unexpected {{else}} in define clause"),
        ("{{ define \"x\" 1 }}", "1: unexpected \"1\" in define clause"),
        ("{{ define \"x\" }}{{ define \"y\" }}", "1: unexpected <define> in command"),
        ("{{ define \"x\" }}{{ break }}", "1: {{break}} outside {{range}}"),
        ("{{ $y := 1 }}{{ define \"x\" }}{{ $y }}{{ end }}", "1: undefined variable \"$y\""),
        (
            "{{ define \"x\" }}a{{ end }}{{ define \"x\" }}b{{ end }}",
            "1: template: multiple definition of template \"x\"",
        ),
        (
            "{{ define \"answer\" }}a{{ end }}b",
            "1: template: multiple definition of template \"answer\"",
        ),
        ("{{ block \"x\" }}y{{ end }}", "1: missing value for block clause"),
        ("{{ block \"x\" . }}y{{ else }}", "1: unexpected {{else}} in block clause"),
        ("{{ block \"x\" . }}y", "1: unexpected EOF"),
        ("{{ range .Match }}{{ block \"x\" . }}{{ break }}", "1: {{break}} outside {{range}}"),
        ("{{ template x }}", "1: unexpected \"x\" in template clause"),
        ("{{ template }}", "1: unexpected \"}}\" in template clause"),
        ("{{ template \"x\"", "1: unclosed action"),
        ("{{ .", "1: illegal number syntax: \".\""),
        ("{{ . ", "1: unclosed action"),
        ("{{ define x }}", "1: unexpected \"x\" in define clause"),
        ("{{ if 1 }}{{ define \"x\" }}", "1: unexpected <define> in command"),
        ("{{ .Message.Extra }}", "1: .Message.Extra is not supported"),
        ("{{ .Message }}", "1: .Message is not supported"),
        ("{{ call .Name }}", "1: function \"call\" is not supported"),
        ("{{ 1.5 }}", "1: floating-point numbers are not supported"),
        ("{{/* x", "1: unclosed comment"),
    ] {
        let error = parse("answer", source).unwrap_err();
        assert_eq!(error, format!("template: answer:{reason}"), "{source}");
    }
}

#[test]
fn a_deep_template_is_refused() {
    let source = format!("{{{{ {}1{} }}}}", "(".repeat(1000), ")".repeat(1000));
    assert!(parse("answer", &source).is_err());
}

proptest::proptest! {
    #[test]
    fn no_source_panics(source in "[a-z{}()$.|:=,\"'`0-9 \\\\/*-]{0,60}") {
        let _ = parse("answer", &source);
        let _ = parse("answer", &format!("{{{{{source}}}}}"));
    }
}
