//! `nodens check`: all that is wrong with a Corefile, and what loads but is not what was meant.
//!
//! The loading code is the judge: the parser and the setups that serving uses. Changes nothing, and
//! asks nobody unless told to (`--probe`).

mod braces;
mod finding;
mod hints;
mod load;
mod probe;
mod show;
mod syntax;
mod template;
mod warnings;
mod watched;

pub use finding::{CODES, Finding, Severity};

use super::failure::{DATA, Failure};
use super::output;
use crate::app::Machine;
use crate::corefile::{Place, Surroundings};
use crate::node::NodeValues;
use annotate_snippets::Renderer;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use load::{Loaded, Whose, load};
use show::Texts;
use std::io::{self, IsTerminal, Read};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use template::{Filled, is_template};
use warnings::{Asked, Facts};
use watched::{Names, Watched};

/// What standard input is called.
const STANDARD_INPUT: &str = "<stdin>";

/// The most octets that are read from standard input.
const MOST_INPUT: u64 = 64 * 1024 * 1024;

/// Its command line.
pub(super) fn command() -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let word = |name: &'static str, values: [&'static str; 2], default, help: &'static str| {
        let parser = PossibleValuesParser::new(values);
        Arg::new(name).long(name).default_value(default).value_parser(parser).help(help)
    };
    Command::new("check")
        .about("Tell all that is wrong with a Corefile before a node is told to use it")
        .long_about(
            "Load a Corefile, or a template of node-cache's ConfigMap, with the code that serving uses, \
             and tell all mistakes at once, each with its place and what to do; then what loads but \
             is hardly what was meant. Nothing is changed, and nobody is asked without --probe.",
        )
        .after_help(
            "Exit status: 0 nodens starts with it, 65 it does not (with --strict: or there are \
             warnings), 66 the file is missing, 77 it may not be read. docs/check.md explains each \
             warning.",
        )
        .arg(Arg::new("COREFILE").required(true).help("The file; - is standard input"))
        .arg(
            word("output", ["text", "json"], "text", "How to tell it")
                .short('o')
                .value_name("FORMAT"),
        )
        .arg(switch("strict", "Warnings are wrong, too"))
        .arg(switch("notes", "Tell also what is as it was meant and worth knowing"))
        .arg(switch(
            "elsewhere",
            "The Corefile is for another machine: files and interfaces that are not here are warnings",
        ))
        .arg(switch("probe", "Ask the upstreams, over UDP and TCP, whether they answer"))
        .arg(switch(
            "template",
            "It is a template, even if no variable shows it; implies --elsewhere",
        ))
        .arg(
            Arg::new("localip")
                .long("localip")
                .value_name("ADDRESSES")
                .default_value("169.254.20.10")
                .value_delimiter(',')
                .value_parser(value_parser!(IpAddr))
                .help("What a template's __PILLAR__LOCAL__DNS__ stands for"),
        )
        .arg(
            Arg::new("cluster-dns")
                .long("cluster-dns")
                .value_name("ADDRESS")
                .default_value("192.0.2.10")
                .value_parser(value_parser!(IpAddr))
                .help("What its __PILLAR__CLUSTER__DNS__ stands for"),
        )
        .arg(
            Arg::new("prometheus-listen-address")
                .long("prometheus-listen-address")
                .value_name("ADDRESS")
                .default_value(":9253")
                .help("What its __PROMETHEUS__ENDPOINT__ stands for"),
        )
        .arg(
            Arg::new("dns-port")
                .long("dns-port")
                .value_name("PORT")
                .default_value("53")
                .value_parser(value_parser!(u16))
                .help("The port of keys without one"),
        )
        .arg(
            Arg::new("color")
                .long("color")
                .value_name("WHEN")
                .default_value("auto")
                .value_parser(PossibleValuesParser::new(["auto", "always", "never"]))
                .help("Colours: on a terminal without NO_COLOR, always, or never"),
        )
}

/// Looks, and tells.
pub(super) fn run(matches: &ArgMatches) -> Result<u8, Failure> {
    let text = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let (name, content) = read(text("COREFILE"))?;
    let addresses = matches.get_many::<IpAddr>("localip").unwrap_or_default();
    let addresses: Vec<String> = addresses.map(|one| one.to_canonical().to_string()).collect();
    let cluster_dns = matches.get_one::<IpAddr>("cluster-dns").copied();
    let dns_port = matches.get_one::<u16>("dns-port").copied().unwrap_or(53);
    let is_probing = matches.get_flag("probe");
    let question = Question {
        name: &name,
        text: &content,
        is_template: matches.get_flag("template") || is_template(&content),
        whose: if matches.get_flag("elsewhere") { Whose::Anothers } else { Whose::Ours },
        names: if is_probing { Names::Resolve } else { Names::Stand },
        values: NodeValues {
            local: addresses.join(","),
            cluster_dns: Ok(cluster_dns.unwrap_or(watched::SOMEBODY)),
            prometheus: text("prometheus-listen-address").to_owned(),
            dns_port,
        },
    };
    let ask = |asked: &[Asked<'_>]| if is_probing { probe::probe(asked) } else { Vec::new() };
    let mut judged = judge(&question, &Machine, &ask);
    if !matches.get_flag("notes") {
        judged.findings.retain(|finding| finding.severity != Severity::Note);
    }
    let Judged { findings, texts } = &judged;
    match text("output") {
        "json" => output::write(&format!("{:#}\n", show::as_json(findings, &name)))?,
        _ => {
            let renderer = match is_coloured(text("color")) {
                true => Renderer::styled(),
                false => Renderer::plain(),
            };
            output::write(&show::as_text(findings, texts, &name, &renderer))?;
        }
    }
    let worst = match matches.get_flag("strict") {
        true => Severity::Warning,
        false => Severity::Error,
    };
    let is_wrong = findings.iter().any(|finding| finding.severity <= worst);
    Ok(if is_wrong { DATA } else { 0 })
}

/// The name of the file and its text.
fn read(path: &str) -> Result<(String, String), Failure> {
    let (name, content) = match path {
        "-" => {
            let mut content = Vec::new();
            let input = io::stdin().lock().take(MOST_INPUT).read_to_end(&mut content);
            let name = Path::new(STANDARD_INPUT);
            input.map_err(|error| Failure::unreadable(name, &error))?;
            (STANDARD_INPUT, content)
        }
        path => {
            let content = Machine.read(Path::new(path));
            (path, content.map_err(|error| Failure::unreadable(Path::new(path), &error))?)
        }
    };
    Ok((name.to_owned(), String::from_utf8_lossy(&content).into_owned()))
}

fn is_coloured(when: &str) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match when {
        "always" => true,
        "never" => false,
        _ => io::stdout().is_terminal() && !is_set("NO_COLOR"),
    }
}

/// What is to be judged.
struct Question<'q> {
    name: &'q str,
    text: &'q str,
    is_template: bool,
    whose: Whose,
    names: Names,
    /// What a template is filled in with; its port is that of keys without one.
    values: NodeValues,
}

/// What was found, and the texts that it is in.
struct Judged {
    findings: Vec<Finding>,
    texts: Texts,
}

/// Judges a text as a Corefile for this machine, asking nobody. For tests of any input.
pub fn findings_of(text: &str, surroundings: &dyn Surroundings) -> Vec<Finding> {
    let question = Question {
        name: "Corefile",
        text,
        is_template: is_template(text),
        whose: Whose::Ours,
        names: Names::Stand,
        values: NodeValues {
            local: "169.254.20.10".to_owned(),
            cluster_dns: Ok(watched::SOMEBODY),
            prometheus: ":9253".to_owned(),
            dns_port: 53,
        },
    };
    let judged = judge(&question, surroundings, &|_| Vec::new());
    let _ = show::as_text(&judged.findings, &judged.texts, question.name, &Renderer::plain());
    judged.findings
}

/// Loads it, looks at it, asks with `ask`.
fn judge(
    question: &Question<'_>,
    surroundings: &dyn Surroundings,
    ask: &dyn Fn(&[Asked<'_>]) -> Vec<Finding>,
) -> Judged {
    let file: Arc<str> = Arc::from(question.name);
    let filled = question.is_template.then(|| Filled::new(question.text, &question.values));
    let text = filled.as_ref().map_or(question.text, |filled| &filled.text);
    let whose = if question.is_template { Whose::Anothers } else { question.whose };
    let surroundings = Watched::new(surroundings, question.names);
    let loaded = load(text, &file, question.values.dns_port, whose, &surroundings);
    let Loaded { written, tree, inspection, mut findings } = loaded;
    let wrong: Vec<Place> = findings.iter().filter_map(|one| one.place.clone()).collect();
    let facts = Facts {
        written: &written,
        tree: &tree,
        blocks: &inspection.blocks,
        wrong: &wrong,
        surroundings: &surroundings,
        whose,
    };
    findings.extend(warnings::all(&facts));
    findings.extend(ask(&warnings::asked(&facts)));
    let mut texts = Texts::from([(file.clone(), question.text.to_owned())]);
    for place in findings.iter_mut().filter_map(|finding| finding.place.as_mut()) {
        if place.file != file && !texts.contains_key(&place.file) {
            let content = surroundings.read(Path::new(&*place.file)).unwrap_or_default();
            texts.insert(place.file.clone(), String::from_utf8_lossy(&content).into_owned());
        }
        if let Some(filled) = filled.as_ref().filter(|_| place.file == file) {
            *place = filled.back(question.text, place);
        }
    }
    Judged { findings: finding::in_order(findings), texts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::{MemorySurroundings, parse};
    use crate::engine::{World, build};
    use crate::metrics::Registry;
    use crate::plugin::{Carried, SilentJournal, is_known};
    use proptest::prelude::{ProptestConfig, any, prop, proptest};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn loads(text: &str, surroundings: &MemorySurroundings) -> bool {
        let Ok(tree) = parse(text.as_bytes(), "Corefile", &is_known, surroundings) else {
            return false;
        };
        let world = World {
            surroundings,
            metrics: &Registry::new(1),
            journal: &SilentJournal,
            random: &mut StdRng::seed_from_u64(1),
            default_port: 53,
            carried: Carried::default(),
        };
        build(&tree, world).is_ok()
    }

    fn world() -> MemorySurroundings {
        MemorySurroundings::new()
            .with_file("/etc/resolv.conf", "nameserver 192.0.2.53\nnameserver 127.0.0.1\n")
            .with_file("more", "errors\n}\n")
            .with_variable("A", "{")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn there_are_errors_when_and_only_when_it_does_not_load(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "{", "}", "\n", "\n", "\n", " {\n", "\n}\n", " ", " ", ".:53", "a.test", "(s)",
                    "import", "s", "more", "cache", "30", "30s", "success", "forward", ".", "::1",
                    "/etc/resolv.conf", "192.0.2.1", "force_tcp", "hosts", "ttl", "bind", "errors",
                    "log", "\"", "#", ",", "{$A}", "kubernetes", "template", "ANY", "except", "é",
                ]),
                0..40,
            ),
        ) {
            let text = words.join(" ");
            let findings = findings_of(&text, &world());
            let is_wrong = findings.iter().any(|one| one.severity == Severity::Error);
            assert_eq!(is_wrong, !loads(&text, &world()), "{text}\n{findings:#?}");
        }

        #[test]
        fn any_octets_are_judged(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            findings_of(&String::from_utf8_lossy(&octets), &world());
        }
    }

    fn warns(lines: &str, code: &str) -> bool {
        let text = format!(".:53 {{\n errors\n reload\n bind 127.0.0.1\n {lines}\n}}\n");
        findings_of(&text, &world()).iter().any(|one| one.code == code)
    }

    #[test]
    fn a_forward_is_shadowed_unless_the_one_above_hands_something_on() {
        for (above, is_shadowed) in [
            ("forward . 192.0.2.1", true),
            ("forward a.test 192.0.2.1", false),
            ("forward . 192.0.2.1 {\n next NXDOMAIN\n }", false),
            ("forward . 192.0.2.1 {\n next_on_nodata\n }", false),
            ("forward . 192.0.2.1 {\n except a.test\n }", false),
        ] {
            let lines = format!("{above}\n forward . 192.0.2.2");
            assert_eq!(warns(&lines, "forward-shadowed"), is_shadowed, "{above}");
        }
    }

    #[test]
    fn a_ttl_below_the_least_is_told_with_what_was_written() {
        let hint = |line: &str| {
            let text = format!(".:53 {{\n cache {{\n  {line}\n }}\n whoami\n}}\n");
            let findings = findings_of(&text, &world());
            let found = findings.iter().find(|one| one.code == "cache-ttl-below-minimum").unwrap();
            found.hint.clone()
        };
        assert!(hint("success 9984 3 60").starts_with("write the greater number first"));
        assert!(hint("success 9984 3").starts_with("the least is 5 unless given"));
    }
}
