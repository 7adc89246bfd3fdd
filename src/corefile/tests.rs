//! The Corefile language as operators meet it: text in, tree or message out.

use super::{
    Directive, Dispenser, MemorySurroundings, Tree, fingerprint, normalise_zone, parse, parse_all,
    parse_keys,
};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

fn known(word: &str) -> bool {
    ["errors", "cache", "forward", "bind", "log", "whoami", "hosts"].contains(&word)
}

fn read_in(text: &str, world: &MemorySurroundings) -> Result<Tree, String> {
    parse(text.as_bytes(), "/etc/Corefile", &known, world).map_err(|error| error.text)
}

fn read(text: &str) -> Result<Tree, String> {
    read_in(text, &MemorySurroundings::new())
}

/// Blocks as `key key | directive args ; directive`, one a line.
fn shape(tree: &Tree) -> String {
    let mut lines = Vec::new();
    for block in &tree.blocks {
        let keys: Vec<&str> = block.keys.iter().map(|key| key.text.as_str()).collect();
        let directives: Vec<String> = block
            .directives
            .iter()
            .map(|directive| {
                let words: Vec<&str> = directive.tokens.iter().map(|t| t.text.as_str()).collect();
                words.join(" ")
            })
            .collect();
        lines.push(format!("{} | {}", keys.join(" "), directives.join(" ; ")));
    }
    lines.join("\n")
}

#[test]
fn a_typical_corefile_becomes_its_blocks() {
    let tree = read(
        "cluster.local:53, in-addr.arpa:53 {\n  errors\n  cache {\n    success 9984 30\n  }\n}\n\
         .:53 {\n  forward . /etc/resolv.conf\n  errors\n}\n",
    )
    .unwrap();
    assert_eq!(
        shape(&tree),
        "cluster.local:53 in-addr.arpa:53 | errors ; cache { success 9984 30 }\n\
         .:53 | forward . /etc/resolv.conf ; errors"
    );
}

#[test]
fn keys_go_on_over_lines_after_a_comma() {
    assert_eq!(
        shape(&read("a.test,\nb.test c.test {\n errors\n}").unwrap()),
        "a.test b.test c.test | errors"
    );
}

#[test]
fn without_braces_the_rest_of_the_file_is_one_block() {
    assert_eq!(
        shape(&read(".:53\nbind 127.0.0.1\nerrors\n").unwrap()),
        ".:53 | bind 127.0.0.1 ; errors"
    );
    assert_eq!(shape(&read(".:53 \n errors\n}\n").unwrap()), ".:53 | errors");
    assert_eq!(shape(&read(".:53\n{\n errors\n}\n").unwrap()), ".:53 | errors");
    assert_eq!(shape(&read(".").unwrap()), ". | ");
}

#[test]
fn blocks_without_keys_vanish_and_an_extra_brace_becomes_a_key() {
    assert_eq!(read("{\n}\n").unwrap().blocks.len(), 0);
    assert_eq!(read("").unwrap().blocks.len(), 0);
    assert_eq!(read("# nothing\n").unwrap().blocks.len(), 0);
    assert_eq!(shape(&read(". {\n errors\n}\n}\n").unwrap()), ". | errors\n} | ");
    assert_eq!(
        shape(&read(". {\n errors\n} foo.org {\n log\n}\n").unwrap()),
        ". | errors\nfoo.org | log"
    );
}

#[test]
fn syntax_errors_say_where() {
    for (text, message) in [
        (".:53 {\n nosuch\n}", "2 - Error during parsing: Unknown directive 'nosuch'"),
        (".:53 {\n errors\n", "2 - Syntax error: Unexpected token 'errors', expecting '}'"),
        (
            ".:53 {\n whoami }\n",
            "2 - Error during parsing: Unexpected '}' because no matching opening brace",
        ),
        (".:53 {\n cache {\n", "2 - Error during parsing: Unexpected EOF"),
        (
            "., {\n",
            "1 - Error during parsing: Expected another address but had '{' - check for extra comma",
        ),
        (".:53,", "1 - Error during parsing: Unexpected EOF"),
        (".:53 {\n .:54 {\n }\n}", "2 - Error during parsing: Unknown directive '.:54'"),
        (
            ". {\n import\n}",
            "2 - Error during parsing: Wrong argument count or unexpected line ending after 'import'",
        ),
        (". {\n import \"\"\n}", "2 - Error during parsing: Import requires a non-empty filepath"),
        (
            ". {\n import a b\n}",
            "2 - Error during parsing: Import takes only one argument (glob pattern or file)",
        ),
        (". {\n import nosnip\n}", "2 - Error during parsing: File to import not found: nosnip"),
        (
            "(a) {\n}\n(a) {\n}",
            "3 - Error during parsing: redeclaration of previously declared snippet a",
        ),
        ("(a)\nerrors", "2 - Syntax error: Unexpected token 'errors', expecting '{'"),
        ("(a) {\n errors", "2 - Syntax error: Unexpected token 'errors', expecting '}'"),
        (
            ". {\n import *x*\n}",
            "2 - Error during parsing: Glob pattern may only contain one wildcard (*), but has others: /etc/*x*",
        ),
    ] {
        assert_eq!(read(text), Err(format!("/etc/Corefile:{message}")), "{text}");
    }
}

#[test]
fn a_directive_twice_has_its_tokens_joined() {
    assert_eq!(
        shape(&read(". {\n forward a 1\n errors\n forward b 2\n}").unwrap()),
        ". | forward a 1 forward b 2 ; errors"
    );
    assert_eq!(shape(&read(". {\n cache\n {\n }\n}").unwrap()), ". | cache { }");
}

#[test]
fn snippets_and_files_are_imported() {
    let world = MemorySurroundings::new()
        .with_file("/etc/extra.conf", "log a.test\n")
        .with_file("/etc/conf.d/2.server", "b.test {\n import ../extra.conf\n}\n")
        .with_file("/etc/conf.d/1.server", "a.test {\n errors\n}\n")
        .with_file("/etc/hosts.inc", "192.0.2.1 a.test\n");
    let tree = read_in(
        "(snip) {\n bind 127.0.0.1\n errors\n}\n. {\n import snip\n import extra.conf\n hosts {\n  import hosts.inc\n  ttl 5\n }\n}\nimport conf.d/*.server\nimport none/*.x\n",
        &world,
    )
    .unwrap();
    assert_eq!(
        shape(&tree),
        ". | bind 127.0.0.1 ; errors ; log a.test ; hosts { 192.0.2.1 a.test ttl 5 }\n\
         a.test | errors\n\
         b.test | log a.test"
    );
    assert_eq!(tree.warnings, ["No files matching import glob pattern: none/*.x"]);
    assert_eq!(&*tree.blocks[2].directives[0].tokens[0].file, "/etc/extra.conf");
}

#[test]
fn a_backslash_in_an_import_takes_what_follows_for_itself() {
    let world = MemorySurroundings::new().with_file("/etc/a*.inc", "errors\n");
    let tree = read_in(". {\n import a\\*.inc\n import \\b\n}\n", &world);
    assert!(tree.unwrap_err().ends_with("File to import not found: \\b"));
    let tree = read_in(". {\n import a\\*.inc\n}\n", &world).unwrap();
    assert_eq!(shape(&tree), ". | errors");
    for pattern in ["a[b", "a\\"] {
        let error = read_in(&format!(". {{\n import {pattern}\n}}\n"), &world).unwrap_err();
        let text = format!("Failed to use import pattern {pattern}: syntax error in pattern");
        assert!(error.ends_with(&text), "{error}");
    }
}

#[test]
fn imports_of_themselves_end() {
    let error = read("(a) {\n import a\n}\n. {\n import a\n}").unwrap_err();
    assert!(error.ends_with("maximum snippet import depth (10000) exceeded"), "{error}");
    // Also one that nobody imports: a brace is missing, and all that follows is in the snippet.
    let error = read("(a) {\n errors {\n}\n. {\n import a\n}\n}").unwrap_err();
    assert!(error.ends_with("maximum snippet import depth (10000) exceeded"), "{error}");
    assert!(read("(a) {\n log import a\n}\n. {\n import a\n}").is_ok());
    let error =
        read("(a) {\n errors\n}\n(b) {\n import c\n}\n(c) {\n import b\n}\n. {\n import b\n}")
            .unwrap_err();
    assert!(error.ends_with("maximum snippet import depth (10000) exceeded"), "{error}");
    let world = MemorySurroundings::new().with_file("/etc/x", "import x\n");
    let error = read_in(". {\n import x\n}", &world).unwrap_err();
    assert!(error.ends_with("maximum file import depth (10000) exceeded"), "{error}");
}

#[test]
fn a_path_above_the_corefiles_folder_stays_above_it() {
    let world = MemorySurroundings::new().with_file("../up.conf", "errors\n");
    let text = b". {\n import ../up.conf\n}\n";
    assert!(super::parse(text, "Corefile", &|_| true, &world).is_ok());
    let world = MemorySurroundings::new().with_file("up.conf", "errors\n");
    assert!(super::parse(text, "Corefile", &|_| true, &world).is_err());
}

#[test]
fn imports_make_no_more_tokens_than_a_bound() {
    // Each level imports the one before ten times: three million tokens in the end.
    let mut text = format!("(s0) {{\n errors {}\n}}\n", "x ".repeat(3000));
    for level in 1..4 {
        let line = format!(" import s{}\n", level - 1);
        text += &format!("(s{level}) {{\n{}}}\n", line.repeat(10));
    }
    let error = read(&format!("{text}. {{\n import s3\n}}\n")).unwrap_err();
    assert!(error.ends_with("imports make more than 2000000 tokens of this file"), "{error}");
    assert!(read(&format!("{text}. {{\n import s2\n}}\n")).is_ok());
}

#[test]
fn a_folder_cannot_be_imported() {
    let world = MemorySurroundings::new().with_file("/etc/d/a", "");
    assert_eq!(
        read_in("import d", &world),
        Err("/etc/Corefile:1 - Error during parsing: Could not import /etc/d: is a directory"
            .into())
    );
}

#[test]
fn the_environment_is_replaced_within_tokens() {
    let world = MemorySurroundings::new()
        .with_variable("ADDRESS", "127.0.0.1 127.0.0.2")
        .with_variable("WORD", "errors")
        .with_variable("ZONE", "a.test:53")
        .with_variable("BRACE", "{");
    let tree =
        read_in("{$ZONE} {\n {%WORD%}\n bind {$ADDRESS}{$NONE}\n log {$BRACE}\n}", &world).unwrap();
    assert_eq!(shape(&tree), "a.test:53 | {%WORD%} ; bind 127.0.0.1 127.0.0.2 ; log {");
    assert_eq!(tree.blocks[0].directives[0].word, "errors");
    assert_eq!(tree.blocks[0].directives[1].tokens.len(), 2);
}

#[test]
fn line_breaks_of_a_value_count_as_those_of_the_file() {
    let world = MemorySurroundings::new().with_variable("TWO", "a\nb");
    let tree = read_in(". {\n log {$TWO}\n errors\n whoami\n}", &world).unwrap();
    assert_eq!(shape(&tree), ". | log a\nb errors ; whoami");
}

#[test]
fn the_fingerprint_is_gos_json() {
    let world = MemorySurroundings::new().with_file("/etc/x", "log <&>\n");
    let tree = read_in(". a.test {\n whoami\n import x\n cache \"a\nb\"\n}\n", &world).unwrap();
    assert_eq!(
        String::from_utf8(fingerprint(&tree)).unwrap(),
        "[{\"Keys\":[\".\",\"a.test\"],\"Tokens\":{\
         \"cache\":[{\"File\":\"\",\"Line\":4,\"Text\":\"cache\"},{\"File\":\"\",\"Line\":4,\"Text\":\"a\\nb\"}],\
         \"log\":[{\"File\":\"/etc/x\",\"Line\":1,\"Text\":\"log\"},{\"File\":\"/etc/x\",\"Line\":1,\"Text\":\"\\u003c\\u0026\\u003e\"}],\
         \"whoami\":[{\"File\":\"\",\"Line\":2,\"Text\":\"whoami\"}]}}]"
    );
    assert_eq!(fingerprint(&Tree::default()), b"null");
}

#[test]
fn a_word_from_the_environment_counts_in_the_fingerprint_as_it_is_written() {
    let world = MemorySurroundings::new().with_variable("WORD", "cache");
    let tree = read_in(".:53 {\n {$WORD} 30\n}", &world).unwrap();
    let json = String::from_utf8(fingerprint(&tree)).unwrap();
    let word = r#"{"cache":[{"File":"","Line":2,"Text":"{$WORD}"}"#;
    assert!(json.contains(word), "{json}");
    let Directive { word, tokens } = &tree.blocks[0].directives[0];
    let mut dispenser = Dispenser::new(word, tokens);
    dispenser.next();
    let text = dispenser.arg_err().text;
    assert!(text.starts_with("plugin/cache: ") && text.ends_with("after '{$WORD}'"), "{text}");
}

/// All mistakes, each as `line:column message`.
fn mistakes(text: &str) -> (String, Vec<String>) {
    let (tree, found) =
        parse_all(text.as_bytes(), "/etc/Corefile", &known, &MemorySurroundings::new());
    let told = found.into_iter().map(|error| {
        let place = error.place.unwrap();
        format!("{}:{} {}", place.line, place.column, error.message)
    });
    (shape(&tree), told.collect())
}

#[test]
fn reading_goes_on_after_a_mistake() {
    let (shape, found) = mistakes(
        "a.test, {\n  erors\n  import nothing\n  cache {\n    success 5\n  }\n  kache {\n    x\n  }\n\
         \x20 log }\n}\nb.test {\n  whoami }\nc.test {\n  errors\n}\n",
    );
    assert_eq!(
        found,
        [
            "1:9 Expected another address but had '{' - check for extra comma",
            "2:3 Unknown directive 'erors'",
            "3:10 File to import not found: nothing",
            "7:3 Unknown directive 'kache'",
            "10:7 Unexpected '}' because no matching opening brace",
            "13:10 Unexpected '}' because no matching opening brace",
        ]
    );
    assert_eq!(shape, "a.test | cache { success 5 } ; log\nb.test | whoami\nc.test | errors");
}

#[test]
fn an_early_end_is_said_once() {
    let (_, found) = mistakes("a.test {\n  cache {\n    success 5\n");
    assert_eq!(found, ["3:13 Unexpected EOF"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_ends_in_a_tree_or_a_located_error(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "\n", "\n", " ", " ", "import", "(a)", "a", "\"", "#", ",", ".:53", "cache",
                "{$X}", "{%", "\\", "\r", "é", "\u{a0}",
            ]),
            0..60,
        ),
    ) {
        let world = MemorySurroundings::new().with_variable("X", "{").with_file("/etc/a", "import a\n}");
        let text = words.concat();
        let one = parse(text.as_bytes(), "/etc/Corefile", &known, &world);
        let (tree, mistakes) = parse_all(text.as_bytes(), "/etc/Corefile", &known, &world);
        match one {
            Err(error) => assert_eq!(mistakes.first(), Some(&error), "{text}"),
            Ok(one) => assert_eq!((tree, mistakes), (one, Vec::new()), "{text}"),
        }
        match parse(text.as_bytes(), "/etc/Corefile", &|_| true, &world) {
            Err(error) => assert!(error.place.is_some(), "{}", error.text),
            Ok(tree) => {
                fingerprint(&tree);
                for directive in tree.blocks.iter().flat_map(|block| &block.directives) {
                    let mut dispenser = Dispenser::new(&directive.word, &directive.tokens);
                    let mut steps = 0;
                    while dispenser.next() {
                        dispenser.remaining_args();
                        while dispenser.next_block() {
                            dispenser.remaining_args();
                            steps += 1;
                            assert!(steps <= directive.tokens.len());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn any_octets_are_a_text(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&octets, "Corefile", &|_| true, &MemorySurroundings::new());
    }

    #[test]
    fn any_key_is_judged(text in "\\PC{0,40}") {
        if let Ok(keys) = parse_keys(&text, 53) {
            assert!(!keys.is_empty());
        }
        normalise_zone(&text);
    }
}
