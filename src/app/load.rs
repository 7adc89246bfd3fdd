//! Text to snapshot: where the Corefile comes from, and what it is called in errors.

use super::log::Log;
use super::surroundings::Machine;
use crate::corefile::{Surroundings, Tree, file_error_text, fingerprint, parse};
use crate::engine::{Snapshot, World, build};
use crate::metrics::Registry;
use crate::plugin::{Budget, Carried, Journal, Level, is_known};
use rand::rngs::StdRng;
use sha2::{Digest, Sha512};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the Corefile is.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A file, read anew at each load.
    File(PathBuf),
    /// A tree made by this program (development mode).
    Made(Box<Tree>),
    /// Two of them, one until something is there and one from then on (development mode without
    /// nameservers).
    Awaiting(Box<Awaiting>),
}

/// Two trees in place of a Corefile.
#[derive(Debug, Clone)]
pub(super) struct Awaiting {
    /// What is served until then.
    pub(super) until: Tree,
    /// What is served from then on: it is not taken back.
    pub(super) then: Tree,
    /// Whether it is there.
    pub(super) is_there: fn(&dyn Surroundings) -> bool,
    /// It was there and has been loaded.
    pub(super) came: Arc<AtomicBool>,
}

impl Awaiting {
    fn tree(&self, surroundings: &dyn Surroundings) -> &Tree {
        match self.came.load(Ordering::Relaxed) || (self.is_there)(surroundings) {
            true => &self.then,
            false => &self.until,
        }
    }

    /// What was loaded stays.
    fn loaded(&self, hash: &str) {
        let is_then = hash == self::hash(&self.then);
        self.came.fetch_or(is_then, Ordering::Relaxed);
    }
}

/// What every load uses.
#[derive(Clone)]
pub(super) struct Loader {
    /// Where the Corefile is.
    pub(super) source: Source,
    /// `-dns.port`.
    pub(super) default_port: u16,
    /// The registry.
    pub(super) metrics: Registry,
    /// Lines for the operator.
    pub(super) log: Log,
    /// The memory that all snapshots share.
    pub(super) budget: Arc<Budget>,
}

/// A Corefile that was read and set up.
pub(super) struct Loaded {
    /// What serves.
    pub(super) snapshot: Arc<Snapshot>,
    /// SHA-512 of the Corefile's tokens in hexadecimal: what `reload` compares and shows.
    pub(super) hash: String,
}

impl Loader {
    /// Reads, parses and sets up. The error is CoreDNS's text.
    pub(super) fn load(&self, carried: Carried) -> Result<Loaded, String> {
        self.set_up(&self.tree(&is_known)?, carried)
    }

    /// As [`Loader::load`], for a server that serves: a Corefile without server blocks is an error, for it
    /// is cut or being written. At a start it stands for CoreDNS's default.
    pub(super) fn reload(&self, carried: Carried) -> Result<Loaded, String> {
        let tree = self.tree(&is_known)?;
        match &self.source {
            Source::File(path) if tree.blocks.is_empty() => {
                Err(format!("{} - it has no server blocks", path.display()))
            }
            _ => self.set_up(&tree, carried),
        }
    }

    fn set_up(&self, tree: &Tree, carried: Carried) -> Result<Loaded, String> {
        for warning in &tree.warnings {
            self.log.line(Level::Warning, format_args!("{warning}"));
        }
        let mut random: StdRng = rand::make_rng();
        let world = World {
            surroundings: &Machine,
            metrics: &self.metrics,
            journal: &self.log,
            random: &mut random,
            default_port: self.default_port,
            carried,
        };
        let snapshot = build(tree, world).map_err(|error| error.to_string())?;
        let hash = hash(tree);
        if let Source::Awaiting(awaiting) = &self.source {
            awaiting.loaded(&hash);
        }
        Ok(Loaded { snapshot: Arc::new(snapshot), hash })
    }

    /// The hash of the Corefile as it is now, its directives not judged. `None` when it cannot be
    /// read; the error is the parser's.
    pub(super) fn hash_now(&self) -> Option<Result<String, String>> {
        if self.look().is_err() {
            return None;
        }
        Some(self.tree(&|_| true).map(|tree| hash(&tree)))
    }

    /// Whether the Corefile can be read at all. The error is Go's text.
    pub(super) fn look(&self) -> Result<(), String> {
        match &self.source {
            Source::Made(_) | Source::Awaiting(_) => Ok(()),
            Source::File(path) => content(path).map(drop),
        }
    }

    fn tree(&self, known: &dyn Fn(&str) -> bool) -> Result<Tree, String> {
        match &self.source {
            Source::Made(tree) => Ok((**tree).clone()),
            Source::Awaiting(awaiting) => Ok(awaiting.tree(&Machine).clone()),
            Source::File(path) => {
                let text =
                    content(path).map_err(|why| format!("loading Caddyfile via flag: {why}"))?;
                parse(&text, &path.to_string_lossy(), known, &Machine)
                    .map_err(|error| error.to_string())
            }
        }
    }
}

/// The octets of a Corefile. The error is Go's text.
fn content(path: &Path) -> Result<Vec<u8>, String> {
    Machine.read(path).map_err(|error| file_error_text(path, &error))
}

fn hash(tree: &Tree) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(128);
    for octet in Sha512::digest(fingerprint(tree)) {
        // Writing into a string cannot fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}
