//! Where the upstreams of a directive come from, and the look at files that name them.
//!
//! Owns what each file named when it was last usable. A file that changes to something unusable
//! never takes away what was good: it is said and counted once, and looked at again. Reads files
//! only through the surroundings.

use super::options::Upstream;
use super::policy::MOST_UPSTREAMS;
use super::target::of_file;
use crate::corefile::{Surroundings, file_error_text};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often files that name upstreams are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The greatest size in octets of a file that is looked at while serving: it is read at each look.
/// Neither its time nor its size is believed, because a link may be turned to a file that is equal
/// in both.
const LARGEST_FILE: u64 = 64 * 1024;

/// One TO, expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// An address.
    Address(Upstream),
    /// A file and what it named when it was last usable.
    File(PathBuf, Vec<Upstream>),
}

/// All upstreams in Corefile order, each once.
pub(super) fn distinct(sources: &[Source]) -> Vec<Upstream> {
    let mut all: Vec<Upstream> = Vec::new();
    for source in sources {
        let upstreams = match source {
            Source::Address(upstream) => std::slice::from_ref(upstream),
            Source::File(_, upstreams) => upstreams,
        };
        for upstream in upstreams {
            if !all.contains(upstream) {
                all.push(upstream.clone());
            }
        }
    }
    all
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Other upstreams than before.
    Upstreams(Vec<Upstream>),
    /// A file changed to something that cannot be used: why.
    Unusable(PathBuf, String),
    /// A line of a file that is left out.
    Ignored(String),
}

/// The files of one directive.
#[derive(Debug)]
pub(super) struct Watch {
    sources: Vec<Source>,
    /// What was last read of each source that is a file, usable or not.
    seen: Vec<Option<Result<Vec<u8>, String>>>,
    /// The addresses that the block itself listens on: asking there is a loop.
    own: Vec<SocketAddr>,
}

impl Watch {
    /// Before the first look; `None` when there is no file among the sources.
    pub(super) fn new(sources: Vec<Source>, own: Vec<SocketAddr>) -> Option<Watch> {
        let has_file = sources.iter().any(|source| matches!(source, Source::File(..)));
        let seen = vec![None; sources.len()];
        has_file.then_some(Watch { sources, seen, own })
    }

    /// Looks at the files.
    pub(super) fn look(&mut self, surroundings: &dyn Surroundings) -> Vec<Sight> {
        let mut sights = Vec::new();
        let before = distinct(&self.sources);
        for place in 0..self.sources.len() {
            let Source::File(path, known) = &self.sources[place] else { continue };
            let content = read(path, surroundings);
            if self.seen[place].as_ref() == Some(&content) {
                continue;
            }
            let mut ignored = Vec::new();
            let found = content.as_deref().map_err(Clone::clone).and_then(|content| {
                let targets = of_file(&path.to_string_lossy(), content, &mut ignored);
                self.judge(targets.into_iter().map(|target| target.upstream).collect(), known)
            });
            // What the start said already is not said again at the first look.
            if self.seen[place].is_some() {
                sights.extend(ignored.into_iter().map(Sight::Ignored));
            }
            let path = path.clone();
            self.seen[place] = Some(content);
            match found {
                Err(why) => sights.push(Sight::Unusable(path, why)),
                Ok(upstreams) => {
                    let old = std::mem::replace(
                        &mut self.sources[place],
                        Source::File(path.clone(), upstreams),
                    );
                    let count = distinct(&self.sources).len();
                    if count > MOST_UPSTREAMS {
                        self.sources[place] = old;
                        let why = format!("more than {MOST_UPSTREAMS} TOs configured: {count}");
                        sights.push(Sight::Unusable(path, why));
                    }
                }
            }
        }
        let all = distinct(&self.sources);
        if all != before {
            sights.push(Sight::Upstreams(all));
        }
        sights
    }

    /// Whether a file that named `known` may name `found` from now on.
    fn judge(&self, found: Vec<Upstream>, known: &[Upstream]) -> Result<Vec<Upstream>, String> {
        if found.is_empty() && !known.is_empty() {
            return Err("no nameservers found".to_owned());
        }
        let is_own = |upstream: &&Upstream| {
            upstream.port.as_ref().is_ok_and(|&port| {
                self.own.contains(&SocketAddr::new(upstream.ip.to_canonical(), port))
            })
        };
        // What was there from the start is for `loop` to judge.
        match found.iter().filter(|upstream| !known.contains(upstream)).find(is_own) {
            Some(own) => Err(format!("nameserver {} is this server itself", own.ip)),
            None => Ok(found),
        }
    }
}

fn read(path: &Path, surroundings: &dyn Surroundings) -> Result<Vec<u8>, String> {
    let fault = |error| file_error_text(path, &error);
    let (_, size) = surroundings.stamp(path).map_err(fault)?;
    if size > LARGEST_FILE {
        return Err(format!("{}: larger than {LARGEST_FILE} octets", path.display()));
    }
    surroundings.read(path).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::plugin::forward::target::targets;
    use crate::plugin::forward::target::{Target, To};

    const FILE: &str = "/etc/resolv.conf";

    fn world(content: &str) -> MemorySurroundings {
        MemorySurroundings::new().with_file(FILE, content)
    }

    fn watch(words: &[&str], world: &MemorySurroundings, own: &[&str]) -> Watch {
        let plain = |target: Target| target.upstream;
        let sources =
            targets(words, world, &mut Vec::new()).unwrap().into_iter().map(|to| match to {
                To::Address(target) => Source::Address(plain(target)),
                To::Host(_) | To::Unsupported(_) => panic!("addresses and files alone stand here"),
                To::File(path, targets) => {
                    Source::File(path, targets.into_iter().map(plain).collect())
                }
            });
        let own = own.iter().map(|address| address.parse().unwrap()).collect();
        Watch::new(sources.collect(), own).unwrap()
    }

    /// The upstreams' texts, or why there are no others.
    fn shown(sights: Vec<Sight>) -> Vec<String> {
        let show = |sight| match sight {
            Sight::Upstreams(all) => {
                all.iter().map(|upstream| upstream.text.as_str()).collect::<Vec<_>>().join(" ")
            }
            Sight::Unusable(_, why) => format!("unusable: {why}"),
            Sight::Ignored(line) => format!("ignored: {line}"),
        };
        sights.into_iter().map(show).collect()
    }

    #[test]
    fn an_edit_gives_the_new_upstreams_in_place_of_the_old_ones() {
        let world = world("nameserver 192.0.2.1\n");
        let mut watch = watch(&["192.0.2.9", FILE, "192.0.2.8"], &world, &[]);
        assert!(watch.look(&world).is_empty());
        world.write(FILE, "nameserver 192.0.2.2\nnameserver x\nnameserver 192.0.2.3\n");
        assert_eq!(
            shown(watch.look(&world)),
            [
                "ignored: /etc/resolv.conf: nameserver x is not an IP address",
                "192.0.2.9:53 192.0.2.2:53 192.0.2.3:53 192.0.2.8:53"
            ]
        );
        assert!(watch.look(&world).is_empty());
        world.write(FILE, "# only a comment more\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n");
        assert!(watch.look(&world).is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_told_once_and_changes_nothing() {
        let world = world("nameserver 192.0.2.1\n");
        let mut watch = watch(&[FILE], &world, &["169.254.20.10:53"]);
        let sixteen: String = (1..17).map(|last| format!("nameserver 192.0.2.{last}\n")).collect();
        for (content, why) in [
            ("search test\n".to_owned(), "no nameservers found"),
            (sixteen, "more than 15 TOs configured: 16"),
            (
                "nameserver 169.254.20.10\n".to_owned(),
                "nameserver 169.254.20.10 is this server itself",
            ),
            ("#".repeat(70_000), "/etc/resolv.conf: larger than 65536 octets"),
        ] {
            world.write(FILE, content);
            assert_eq!(shown(watch.look(&world)), [format!("unusable: {why}")]);
            assert!(watch.look(&world).is_empty(), "{why}");
        }
        world.remove(FILE);
        assert_eq!(
            shown(watch.look(&world)),
            ["unusable: open /etc/resolv.conf: no such file or directory"]
        );
        world.write(FILE, "nameserver 192.0.2.1\n");
        assert!(watch.look(&world).is_empty(), "as it was");
        world.write(FILE, "nameserver 192.0.2.7\n");
        assert_eq!(shown(watch.look(&world)), ["192.0.2.7:53"]);
    }

    #[test]
    fn a_file_may_be_as_large_and_name_as_many_as_the_bounds_say() {
        let world = world("nameserver 192.0.2.1\n");
        let mut watch = watch(&[FILE], &world, &[]);
        let mut content: String =
            (1..16).map(|last| format!("nameserver 192.0.2.{last}\n")).collect();
        content.push_str(&"#".repeat(65_536 - content.len()));
        world.write(FILE, content);
        let [all] = shown(watch.look(&world)).try_into().unwrap();
        assert_eq!(all.split(' ').count(), 15);
    }

    #[test]
    fn an_upstream_that_is_named_twice_is_asked_once() {
        let world = world("nameserver 192.0.2.1\nnameserver 192.0.2.2\n");
        let watch = watch(&["192.0.2.2", FILE, "192.0.2.1:53"], &world, &[]);
        let texts: Vec<_> = distinct(&watch.sources).into_iter().map(|one| one.text).collect();
        assert_eq!(texts, ["192.0.2.2:53", "192.0.2.1:53"]);
    }
}
