//! What was made on the node, in the runtime directory: so that a start after a crash, and
//! `nodens cleanup`, take away what is ours and nothing else.
//!
//! Owns one small file for each interface and network namespace. A file that is torn, or of another
//! version, says nothing: then less is taken away, never more.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The first line; another one is another version's.
const HEAD: &str = "nodens interface 1";

/// The last line: without it the file is torn.
const END: &str = "end";

/// The most octets that are read.
const LONGEST: u64 = 16 * 1024;

/// The most addresses that are remembered.
pub(super) const MOST_ADDRESSES: usize = 256;

/// What the names of the files begin with; the interface's follows.
const PREFIX: &str = "interface-";

/// The most files that are looked at.
const MOST_FILES: usize = 10_000;

/// The interfaces that a directory remembers something of, in alphabetical order.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).into_iter().flatten().take(MOST_FILES).flatten();
    let names =
        files.filter_map(|file| file.file_name().to_str()?.strip_prefix(PREFIX).map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Made {
    /// The number of the link that was made.
    pub(super) link: Option<u32>,
    /// The addresses that were added.
    pub(super) addresses: Vec<IpAddr>,
}

/// The file for one interface.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    directory: PathBuf,
    path: PathBuf,
    /// The network namespace: another's links have other numbers.
    namespace: String,
}

impl Mark {
    /// The place for the interface `name`; touches nothing.
    pub(super) fn new(directory: &Path, name: &str) -> Mark {
        let namespace = fs::read_link("/proc/self/ns/net")
            .map(|place| place.to_string_lossy().into_owned())
            .unwrap_or_default();
        let path = directory.join(format!("{PREFIX}{name}"));
        Mark { directory: directory.to_owned(), path, namespace }
    }

    /// What a process before us made; nothing when the file does not tell.
    pub(super) fn read(&self) -> Made {
        let mut text = String::new();
        let read = fs::File::open(&self.path)
            .and_then(|file| file.take(LONGEST).read_to_string(&mut text));
        read.ok().and_then(|_| self.parse(&text)).unwrap_or_default()
    }

    /// Remembers what was made, whole or not at all; nothing made leaves no file.
    pub(super) fn write(&self, made: &Made) -> io::Result<()> {
        if *made == Made::default() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        fs::create_dir_all(&self.directory)?;
        let mut text = format!("{HEAD}\nnamespace {}\n", self.namespace);
        if let Some(link) = made.link {
            let _ = writeln!(text, "link {link}");
        }
        for address in made.addresses.iter().take(MOST_ADDRESSES) {
            let _ = writeln!(text, "address {address}");
        }
        let _ = writeln!(text, "{END}");
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, text)?;
        fs::rename(&fresh, &self.path)
    }

    fn parse(&self, text: &str) -> Option<Made> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut made = Made::default();
        let mut is_here = false;
        for line in lines {
            if line == END {
                return is_here.then_some(made);
            }
            let (word, value) = line.split_once(' ')?;
            match word {
                "namespace" => is_here = value == self.namespace,
                "link" => made.link = Some(value.parse().ok()?),
                "address" => made.addresses.push(value.parse().ok()?),
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Made {
        let addresses = ["10.0.0.10", "fd00::a"].map(|text| text.parse().unwrap());
        Made { link: Some(7), addresses: addresses.to_vec() }
    }

    #[test]
    fn what_was_made_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("run/nodens");
        let mark = Mark::new(&directory, "nodelocaldns");
        assert_eq!(mark.read(), Made::default());
        mark.write(&made()).unwrap();
        assert_eq!(Mark::new(&directory, "nodelocaldns").read(), made());
        assert_eq!(Mark::new(&directory, "other").read(), Made::default());
        Mark::new(&directory, "lo").write(&made()).unwrap();
        fs::write(directory.join("handover-dns-10.0.0.10-53"), "").unwrap();
        assert_eq!(names(&directory), ["lo", "nodelocaldns"]);
        assert_eq!(names(&directory.join("gone")), [""; 0]);
        fs::remove_file(directory.join("interface-lo")).unwrap();
        fs::remove_file(directory.join("handover-dns-10.0.0.10-53")).unwrap();
        mark.write(&Made::default()).unwrap();
        mark.write(&Made::default()).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_torn_or_anothers_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new(folder.path(), "x");
        mark.write(&made()).unwrap();
        let whole = fs::read_to_string(folder.path().join("interface-x")).unwrap();
        for length in 0..whole.len() - 1 {
            fs::write(folder.path().join("interface-x"), &whole[..length]).unwrap();
            assert_eq!(mark.read(), Made::default(), "{length}");
        }
        for text in [
            whole.replace("interface 1", "interface 2"),
            whole.replace("namespace ", "namespace x"),
            whole.replace("10.0.0.10", "x"),
            whole.replace("link", "lunk"),
        ] {
            fs::write(folder.path().join("interface-x"), text).unwrap();
            assert_eq!(mark.read(), Made::default());
        }
    }

    #[test]
    fn a_directory_that_cannot_be_is_an_error() {
        assert!(Mark::new(Path::new("/proc/nodens"), "x").write(&made()).is_err());
    }
}
