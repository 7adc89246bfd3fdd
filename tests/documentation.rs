//! The examples of the documentation: every Corefile in it loads, and so does every one that
//! ships, and those that people bring from other node caches; every command in it is run, where it can
//! be. Commands need root, namespaces and the programs that they name; where these are missing it says
//! so, and fails with `NODENS_TEST_ALL=1`.

// A test may panic, and so may what it calls; why it did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test may panic, and says what it lacks.

#[path = "documentation/commands.rs"]
mod commands;
#[path = "documentation/kinds.rs"]
mod kinds;
mod missing;
mod namespace;
mod repository;

use nodens::corefile::{self, MemorySurroundings};
use nodens::engine::{self, World};
use nodens::metrics::Registry;
use nodens::plugin::{Carried, SilentJournal, is_known};
use rand::SeedableRng;
use rand::rngs::StdRng;
use repository::{files_below, files_ending, root};
use std::fs;
use std::path::PathBuf;

/// The fence that marks a Corefile. A fragment that is no whole file is fenced as `text`.
const FENCE: &str = "```corefile\n";

mod certificates {
    pub(crate) const OWN: &str = include_str!("../src/net/upstream/testdata/up.pem");
    pub(crate) const KEY: &str = include_str!("../src/net/upstream/testdata/up.key");
    pub(crate) const AUTHORITY: &str = include_str!("../src/net/upstream/testdata/ca.pem");
}

/// The files that examples name, as a node would have them.
fn node() -> MemorySurroundings {
    MemorySurroundings::new()
        .with_file("/etc/resolv.conf", "nameserver 192.0.2.53\n")
        .with_file("/etc/hosts", "127.0.0.1 localhost\n192.0.2.1 a.test\n")
        .with_file("/etc/coredns/hosts", "192.0.2.1 a.test\n")
        .with_file("/etc/coredns/weights", "www.example.org\n192.0.2.1 3\n192.0.2.2 1\n")
        .with_file("/etc/coredns/tls.crt", certificates::OWN)
        .with_file("/etc/coredns/tls.key", certificates::KEY)
        .with_file("/etc/coredns/ca.crt", certificates::AUTHORITY)
        .with_host("dns.example.org", &["192.0.2.53".parse().unwrap()])
        .with_variable("NODE_IP", "192.0.2.7")
        .with_interface("lo", &["127.0.0.1", "::1"])
        .with_interface("eth0", &["192.0.2.7"])
        .with_interface("nodelocaldns", &["169.254.20.10"])
}

fn load(text: &str, file: &str) -> Result<(), String> {
    let node = node();
    let tree = corefile::parse(text.as_bytes(), file, &is_known, &node)
        .map_err(|error| error.to_string())?;
    let world = World {
        surroundings: &node,
        metrics: &Registry::new(1),
        journal: &SilentJournal,
        random: &mut StdRng::seed_from_u64(1),
        default_port: 53,
        carried: Carried::default(),
    };
    engine::build(&tree, world).map(drop).map_err(|error| error.to_string())
}

#[test]
fn every_corefile_in_the_documentation_loads() {
    let mut pages = vec![root().join("README.md")];
    pages.extend(files_ending(&root().join("docs"), "md"));
    let (mut examples, mut broken) = (0, Vec::new());
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for (number, rest) in text.split(FENCE).skip(1).enumerate() {
            let example = rest.split("```").next().unwrap();
            examples += 1;
            if let Err(error) = load(example, "Corefile") {
                broken.push(format!("{}, example {}: {error}", page.display(), number + 1));
            }
        }
    }
    assert!(examples > 20, "only {examples} examples found: is the fence still the same?");
    assert!(broken.is_empty(), "examples that do not load:\n  {}", broken.join("\n  "));
}

#[test]
fn every_plugin_page_shows_a_corefile() {
    let mut pages = Vec::new();
    pages.extend(files_ending(&root().join("docs/plugins"), "md"));
    let bare: Vec<_> = pages
        .iter()
        .filter(|page| !fs::read_to_string(page).unwrap().contains(FENCE))
        .map(|page| page.display().to_string())
        .collect();
    assert!(bare.is_empty(), "pages without an example: {bare:?}");
}

/// Loads all files of a folder; gives how many.
fn load_all_of(folder: &str) -> usize {
    let files = files_below(&root().join(folder));
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        load(&text, &path.display().to_string()).unwrap();
    }
    files.len()
}

#[test]
fn every_shipped_corefile_loads() {
    assert_eq!(load_all_of("config"), 3, "dev, node-local-dns and tuned");
}

#[test]
fn corefiles_of_other_node_caches_load() {
    assert_eq!(load_all_of("tests/corefiles"), 1, "aks-localdns");
}

/// The arguments of every `desc(` of the sources: name, labels, kind, help.
fn described_metrics() -> Vec<[String; 4]> {
    let mut found = Vec::new();
    let start = regex::Regex::new(r"static \w+: Desc =\s+desc\(").unwrap();
    for file in ["names/coredns.rs", "names/own.rs", "process.rs"] {
        let text = fs::read_to_string(root().join("src/metrics").join(file)).unwrap();
        for call in start.split(&text).skip(1) {
            let (arguments, _) = call.split_once(");\n").unwrap();
            let quoted: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
            let (name, rest) = quoted.split_first().unwrap();
            let (help, labels) = rest.split_last().unwrap();
            let (_, kind) = arguments.split_once("Kind::").unwrap();
            let kind: String = kind.chars().take_while(char::is_ascii_alphabetic).collect();
            let labels = if labels.is_empty() {
                "–".to_owned()
            } else {
                labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
            };
            found.push([
                format!("`{name}`"),
                kind.to_lowercase(),
                labels,
                help.replace('|', "\\|"),
            ]);
        }
    }
    found
}

/// With `NODENS_WRITE_DOCS=1` the table is written instead of compared.
#[test]
fn the_page_of_metrics_lists_every_metric_with_kind_labels_and_meaning() {
    const BEGIN: &str = "<!-- table: made from src/metrics -->\n";
    const END: &str = "<!-- end of table -->";
    let path = root().join("docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    let mut wanted = "\n| metric | kind | labels | meaning |\n|---|---|---|---|\n".to_owned();
    let metrics = described_metrics();
    assert!(metrics.len() > 70, "{}", metrics.len());
    for line in &metrics {
        wanted += &format!("| {} |\n", line.join(" | "));
    }
    wanted += "\n";
    if std::env::var_os("NODENS_WRITE_DOCS").is_some() {
        fs::write(path, [before, BEGIN, &wanted, END, after].concat()).unwrap();
    } else {
        assert_eq!(table, wanted, "NODENS_WRITE_DOCS=1 cargo test --test documentation writes it");
    }
}

/// The pages with commands, by their path in the repository, and their text.
fn pages_with_commands() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    paths.extend(files_ending(&root().join("docs"), "md"));
    let others =
        ["README.md", "CONTRIBUTING.md", "deploy/README.md", "deploy/helm/nodens/README.md"];
    paths.extend(others.map(|path| root().join(path)));
    paths.sort();
    let named = paths.into_iter().map(|path| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    });
    named.collect()
}

/// So no command escapes: a block says what it is.
#[test]
fn every_example_is_fenced_by_what_it_is() {
    const FENCES: &[&str] =
        &["```", "```corefile", "```sh", "```text", "```diff", "```json", "```yaml"];
    let mut wrong = Vec::new();
    for (page, text) in pages_with_commands() {
        let (mut is_inside, mut is_behind_blank) = (false, true);
        for (number, line) in text.lines().enumerate() {
            let place = format!("{page}:{}: {line}", number + 1);
            if line.starts_with("```") {
                // The end is bare, and the beginning is not.
                if !FENCES.contains(&line) || is_inside != (line == "```") {
                    wrong.push(place);
                }
                is_inside = !is_inside;
            } else if !is_inside && is_behind_blank && line.starts_with("    ") {
                wrong.push(place);
            }
            is_behind_blank = line.is_empty();
        }
    }
    assert!(wrong.is_empty(), "fence it as sh, corefile or text:\n  {}", wrong.join("\n  "));
}

#[test]
fn what_commands_name_is_there() {
    let (mut commands, mut wrong) = (0, Vec::new());
    for (page, text) in pages_with_commands() {
        let examples = commands::examples(&page, &text);
        commands += examples.len();
        wrong.extend(examples.iter().filter_map(|example| kinds::look(example).err()));
        wrong.extend(kinds::look_at_inline(&page, &text));
    }
    assert!(commands > 40, "only {commands} commands found: is the fence still the same?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_of_the_documentation_does_what_it_should() {
    for (page, text) in pages_with_commands() {
        commands::run(commands::examples(&page, &text));
    }
}

/// Each alert has its paragraph, and each paragraph its alert.
#[test]
fn every_alert_is_explained() {
    let rules = fs::read_to_string(root().join("deploy/monitoring/rules.yaml")).unwrap();
    let page = fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let (_, section) = page.split_once("\n## Alerts\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let mut explained: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    alerts.sort_unstable();
    explained.sort_unstable();
    assert_eq!(alerts, explained);
    for paragraph in section.split("\n### ").skip(1) {
        assert!(paragraph.len() > 150, "too short to help: {paragraph}");
    }
}

/// What the pages tell to install is this version.
#[test]
fn images_in_the_documentation_have_the_version_of_the_program() {
    let image = regex::Regex::new(r"ghcr\.io/nodens/nodens:([0-9]+\.[0-9]+\.[0-9]+)").unwrap();
    let mut found = 0;
    for (page, text) in pages_with_commands() {
        for version in image.captures_iter(&text).map(|captured| captured[1].to_owned()) {
            assert_eq!(version, env!("CARGO_PKG_VERSION"), "{page}");
            found += 1;
        }
    }
    assert!(found >= 2, "README and migrate name it");
}

/// What follows each `before`, up to `end`.
fn all_between<'t>(text: &'t str, before: &str, end: char) -> impl Iterator<Item = &'t str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split_once(end)).map(|(found, _)| found)
}

/// The places of a page that a link can name, as GitHub makes them of headings.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |letter: char| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then(|| letter.to_ascii_lowercase()),
    };
    headings.map(|line| line.trim_matches(['#', ' ']).chars().filter_map(kept).collect()).collect()
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut pages: Vec<PathBuf> = Vec::new();
    for folder in ["docs", "deploy", "tests"] {
        pages.extend(files_ending(&root().join(folder), "md"));
    }
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    pages.extend(top.map(|page| root().join(page)));
    let (mut links, mut broken) = (0, Vec::new());
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in all_between(&text, "](", ')').filter(|link| !link.contains("://")) {
            links += 1;
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                _ => page.parent().unwrap().join(file),
            };
            let has_place =
                || anchors(&fs::read_to_string(&target).unwrap()).contains(&place.into());
            if !target.exists() || !place.is_empty() && !has_place() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(links > 50, "only {links} links found");
    assert!(broken.is_empty(), "links that lead nowhere:\n  {}", broken.join("\n  "));
}

#[test]
fn every_page_that_the_source_names_is_there() {
    let mut sources = Vec::new();
    for folder in ["src", "benches", "fuzz/fuzz_targets"] {
        sources.extend(files_ending(&root().join(folder), "rs"));
    }
    let (mut names, mut missing) = (0, Vec::new());
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
    for source in sources {
        let text = fs::read_to_string(&source).unwrap();
        let words = text.split(|letter| !is_part(letter)).map(|word| word.trim_end_matches('.'));
        for name in words.filter(|word| word.len() > 3 && word.ends_with(".md")) {
            names += 1;
            if !root().join(name).exists() {
                missing.push(format!("{}: {name}", source.display()));
            }
        }
    }
    assert!(names > 20, "only {names} names found");
    assert!(missing.is_empty(), "pages that are not there:\n  {}", missing.join("\n  "));
}
