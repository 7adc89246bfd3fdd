//! What the Corefile is made from, looked at every ten seconds: the template and the kube-dns
//! ConfigMap's directory.
//!
//! Owns the decision whether to write a new Corefile (a pure state machine over what was seen) and
//! which lines and counts go with it. An input that turns bad never takes away what was good, and
//! is looked at again.

use super::files::{Listing, Look, SourcePaths};
use super::kubedns::KubeDns;
use super::repeats::repeated;
use super::template::{NodeValues, render};
use crate::corefile::Surroundings;
use crate::plugin::Level;
use std::time::Duration;

/// How often the inputs are looked at, as node-cache does.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What a look led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// Lines for the operator.
    pub lines: Vec<(Level, String)>,
    /// How many `configmap` errors to count.
    pub errors: u64,
    /// The Corefile to write, when it is another than the last one.
    pub corefile: Option<NewCorefile>,
}

/// A Corefile to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCorefile {
    /// The text.
    pub text: String,
    /// The line to log once it is written.
    pub summary: String,
}

/// The state of the kube-dns ConfigMap. What is bad at one look may be half written, or half
/// swapped: it is said at once, and counted when the next look finds something bad again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Said,
    Counted,
}

/// What was seen last, and what came of it.
#[derive(Debug)]
pub struct Sources {
    paths: SourcePaths,
    values: NodeValues,
    base: Option<Result<String, String>>,
    kube_dns: Option<Result<Listing, String>>,
    /// Whether that was unusable, and whether it was counted.
    trouble: Trouble,
    /// The last values that were good.
    config: KubeDns,
    /// What of them is used: without stub domains that repeat a zone of the template.
    used: KubeDns,
    /// The text of the last Corefile that was given out.
    given: Option<String>,
}

impl Sources {
    /// Before the first look.
    pub fn new(paths: SourcePaths, values: NodeValues) -> Sources {
        Sources {
            paths,
            values,
            base: None,
            kube_dns: None,
            trouble: Trouble::None,
            config: KubeDns::default(),
            used: KubeDns::default(),
            given: None,
        }
    }

    /// Where to look.
    pub fn paths(&self) -> &SourcePaths {
        &self.paths
    }

    /// Forgets that the last Corefile was given out: writing it failed, the next look gives it
    /// again.
    pub fn was_not_written(&mut self) {
        self.given = None;
    }

    /// Takes a look and decides. The template may import files of the `surroundings`.
    pub fn take(&mut self, look: Look, surroundings: &dyn Surroundings) -> News {
        let mut news = News::default();
        let base = look.base.and_then(|octets| self.template(octets));
        let before = self.trouble;
        let is_new_config = self.kube_dns != look.kube_dns;
        if self.kube_dns != look.kube_dns {
            self.trouble = match &look.kube_dns {
                Some(Ok(listing)) => self.take_config(listing, &mut news),
                Some(Err(why)) => {
                    let folder = self.paths.kube_dns.as_deref().unwrap_or("".as_ref());
                    news.lines.push((
                        Level::Error,
                        format!(
                            "Failed to sync kube-dns config directory {}, err: {why}",
                            folder.display()
                        ),
                    ));
                    Trouble::Said
                }
                None => Trouble::None,
            };
            self.kube_dns = look.kube_dns;
        }
        if before != Trouble::None && self.trouble == Trouble::Said {
            news.errors += 1;
            self.trouble = Trouble::Counted;
        }
        let is_new_base = self.base.as_ref() != Some(&base);
        let text = match &base {
            Ok(text) => text,
            Err(why) => {
                if is_new_base {
                    news.errors += 1;
                    let path = self.paths.base.display();
                    news.lines.push((
                        Level::Error,
                        format!("Failed to read node-cache coreFile {path} - {why}"),
                    ));
                }
                self.base = Some(base);
                return news;
            }
        };
        if is_new_base || is_new_config {
            self.used = self.config.clone();
            let path = self.paths.base.display();
            for domain in repeated(text, &self.values, &self.config, surroundings) {
                news.errors += 1;
                news.lines.push((
                    Level::Error,
                    format!(
                        "Invalid config: the stub domain {domain} is left out, for the template {path} serves \
                         that zone already: remove it from stubDomains in the kube-dns ConfigMap, or its \
                         block from the template"
                    ),
                ));
                self.used.stub_domains.remove(&domain);
            }
        }
        let rendered = render(text, &self.values, &self.used);
        self.base = Some(base);
        if self.given.as_ref() != Some(&rendered.text) {
            news.lines.extend(rendered.lines);
            news.corefile = Some(NewCorefile {
                text: rendered.text.clone(),
                summary: format!(
                    "Updated Corefile with {} custom stubdomains and upstream servers {}",
                    self.used.stub_domains.len(),
                    rendered.upstreams
                ),
            });
            self.given = Some(rendered.text);
        }
        news
    }

    /// The template's text. At start whatever stands there is the operator's; later an empty one
    /// is being written, and one that is no text is a mistake.
    fn template(&self, octets: Vec<u8>) -> Result<String, String> {
        let is_first = self.given.is_none();
        match String::from_utf8(octets) {
            Ok(text) if !is_first && text.trim().is_empty() => Err("it is empty".to_owned()),
            Ok(text) => Ok(text),
            Err(other) if is_first => Ok(String::from_utf8_lossy(other.as_bytes()).into_owned()),
            Err(_) => Err(format!("non-utf8 data in {}", self.paths.base.display())),
        }
    }

    fn take_config(&mut self, listing: &Listing, news: &mut News) -> Trouble {
        match KubeDns::read(listing) {
            Ok(config) => match config.check_nameservers() {
                Ok(()) => {
                    self.config = config;
                    Trouble::None
                }
                Err(why) => {
                    news.errors += 1;
                    news.lines.push((Level::Error, why));
                    Trouble::Counted
                }
            },
            Err(why) => {
                news.lines
                    .push((Level::Error, format!("Invalid configuration, ignoring update: {why}")));
                Trouble::Said
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;

    fn nothing() -> MemorySurroundings {
        MemorySurroundings::new()
    }

    fn sources() -> Sources {
        let paths =
            SourcePaths { base: "/etc/base".into(), kube_dns: Some("/etc/kube-dns".into()) };
        let values = NodeValues {
            local: "::1".to_owned(),
            cluster_dns: crate::node::cluster_dns("kube-dns", |_| None),
            prometheus: String::new(),
            dns_port: 53,
        };
        Sources::new(paths, values)
    }

    fn look(base: &str, upstreams: &str) -> Look {
        let listing = [("upstreamNameservers".to_owned(), upstreams.to_owned())];
        Look { base: Ok(base.into()), kube_dns: Some(Ok(listing.into_iter().collect())) }
    }

    const BASE: &str = "up __PILLAR__UPSTREAM__SERVERS__";

    fn text(news: News) -> Option<String> {
        news.corefile.map(|corefile| corefile.text)
    }

    #[test]
    fn a_corefile_is_given_once_and_again_when_it_changes() {
        let mut sources = sources();
        assert_eq!(
            text(sources.take(look(BASE, "[\"1.1.1.1\"]"), &nothing())),
            Some("up 1.1.1.1".into())
        );
        assert_eq!(sources.take(look(BASE, "[\"1.1.1.1\"]"), &nothing()), News::default());
        assert_eq!(
            text(sources.take(look(BASE, "[\"1.1.1.2\"]"), &nothing())),
            Some("up 1.1.1.2".into())
        );
        assert_eq!(text(sources.take(look("b", "[\"1.1.1.2\"]"), &nothing())), Some("b".into()));
        sources.was_not_written();
        assert_eq!(text(sources.take(look("b", "[\"1.1.1.2\"]"), &nothing())), Some("b".into()));
    }

    #[test]
    fn a_bad_configmap_keeps_the_last_good_one_and_is_said_once_and_counted_once() {
        let mut sources = sources();
        sources.take(look(BASE, "[\"1.1.1.1\"]"), &nothing());
        let news = sources.take(look(BASE, "[broken"), &nothing());
        assert_eq!((news.lines.len(), news.errors, news.corefile), (1, 0, None));
        let counted = News { errors: 1, ..News::default() };
        assert_eq!(sources.take(look(BASE, "[broken"), &nothing()), counted);
        assert_eq!(sources.take(look(BASE, "[broken"), &nothing()), News::default());
        assert_eq!(sources.take(look(BASE, "[broken in another way"), &nothing()).errors, 1);
        assert_eq!(sources.take(look(BASE, "[broken in another way"), &nothing()), News::default());
        assert_eq!(
            text(sources.take(
                look("new __PILLAR__UPSTREAM__SERVERS__", "[broken in another way"),
                &nothing()
            )),
            Some("new 1.1.1.1".into())
        );
        assert_eq!(
            text(sources.take(look(BASE, "[]"), &nothing())),
            Some("up /etc/resolv.conf".into())
        );
    }

    #[test]
    fn a_bad_configmap_at_start_leaves_the_defaults() {
        let news = sources().take(look(BASE, "[broken"), &nothing());
        assert_eq!(text(news), Some("up /etc/resolv.conf".into()));
    }

    #[test]
    fn host_names_are_counted_as_errors() {
        let listing = [("stubDomains".to_owned(), r#"{"a.test": ["b.test"]}"#.to_owned())];
        let look =
            Look { base: Ok(BASE.into()), kube_dns: Some(Ok(listing.into_iter().collect())) };
        let news = sources().take(look, &nothing());
        assert_eq!(news.errors, 1);
        assert_eq!(text(news), Some("up /etc/resolv.conf".into()));
    }

    #[test]
    fn a_template_that_cannot_be_read_is_counted_once_and_read_when_it_can() {
        let mut sources = sources();
        let missing = || Look { base: Err("open /etc/base: no such file".into()), kube_dns: None };
        let news = sources.take(missing(), &nothing());
        assert_eq!((news.errors, news.corefile), (1, None));
        assert_eq!(sources.take(missing(), &nothing()), News::default());
        assert!(sources.take(look(BASE, "[]"), &nothing()).corefile.is_some());
    }

    #[test]
    fn a_template_that_is_no_text_is_taken_at_start_only() {
        let mut sources = sources();
        let no_text = || Look { base: Ok(b"# \xff\n.:53 {\n}\n".to_vec()), kube_dns: None };
        let first = sources.take(no_text(), &nothing()).corefile.unwrap();
        assert_eq!(first.text, "# \u{fffd}\n.:53 {\n}\n");
        let news = sources.take(no_text(), &nothing());
        assert_eq!((news.errors, news.corefile), (1, None));
        let said = "Failed to read node-cache coreFile /etc/base - non-utf8 data in /etc/base";
        assert_eq!(news.lines, [(Level::Error, said.to_owned())]);
        assert_eq!(sources.take(no_text(), &nothing()), News::default());
    }

    #[test]
    fn a_template_that_became_empty_is_not_taken() {
        let mut sources = sources();
        sources.take(look(BASE, "[]"), &nothing());
        let news = sources.take(look("\n", "[]"), &nothing());
        assert_eq!((news.errors, news.corefile), (1, None));
        assert_eq!(news.lines[0].1, "Failed to read node-cache coreFile /etc/base - it is empty");
        assert_eq!(text(sources.take(look("b", "[]"), &nothing())), Some("b".into()));
    }

    #[test]
    fn an_unreadable_directory_is_looked_at_again() {
        let mut sources = sources();
        let gone = || Look {
            base: Ok(BASE.into()),
            kube_dns: Some(Err("open /etc/kube-dns: gone".into())),
        };
        let news = sources.take(gone(), &nothing());
        assert_eq!(
            news.lines[0].1,
            "Failed to sync kube-dns config directory /etc/kube-dns, err: open /etc/kube-dns: gone"
        );
        assert_eq!(
            (text(news), sources.take(gone(), &nothing()).errors),
            (Some("up /etc/resolv.conf".into()), 1)
        );
        assert_eq!(sources.take(gone(), &nothing()), News::default());
        assert_eq!(
            text(sources.take(look(BASE, "[\"1.1.1.1\"]"), &nothing())),
            Some("up 1.1.1.1".into())
        );
    }

    #[test]
    fn what_is_whole_at_the_next_look_is_no_error() {
        let mut sources = sources();
        assert_eq!(sources.take(look(BASE, "[\"1.1.1"), &nothing()).errors, 0);
        let news = sources.take(look(BASE, "[\"1.1.1.1\"]"), &nothing());
        assert_eq!((news.errors, text(news)), (0, Some("up 1.1.1.1".into())));
    }

    #[test]
    fn a_stub_domain_that_the_template_serves_already_is_left_out_and_told() {
        let servers = r#"{"a.test": ["192.0.2.1"], "b.test": ["192.0.2.1"]}"#;
        let listing: Listing = [("stubDomains".to_owned(), servers.to_owned())].into();
        let look = |base: &str| Look { base: Ok(base.into()), kube_dns: Some(Ok(listing.clone())) };
        let mut sources = sources();
        let news = sources.take(look("a.test:53 {\n errors\n}\n"), &nothing());
        assert_eq!((news.errors, news.lines.len()), (1, 1));
        let (level, line) = &news.lines[0];
        assert_eq!(*level, Level::Error);
        assert!(line.contains("stub domain a.test is left out") && line.contains("/etc/base"));
        let Some(written) = news.corefile else { panic!("nothing is written") };
        assert_eq!(written.text.matches("a.test:53").count(), 1);
        assert_eq!(written.text.matches("b.test:53").count(), 1);
        assert!(written.summary.contains("with 1 custom stubdomains"));
        assert_eq!(sources.take(look("a.test:53 {\n errors\n}\n"), &nothing()), News::default());
        // The other way out.
        let news = sources.take(look("c.test:53 {\n errors\n}\n"), &nothing());
        assert_eq!(news.errors, 0);
        assert!(news.corefile.is_some_and(|written| written.text.contains("\na.test:53")));
    }
}
