//! The surroundings that `check` loads a Corefile in: those of this machine, watched.
//!
//! Owns which files and interfaces were looked for in vain. Host names are not resolved unless told
//! to, and then stand for an address that nobody has.

use crate::corefile::Surroundings;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What a host name stands for: an address of documentation (RFC 5737).
pub(super) const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Whether host names are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Nobody is asked.
    Stand,
    /// As at the start of nodens.
    Resolve,
}

/// This machine, or other surroundings.
pub(super) struct Watched<'s> {
    real: &'s dyn Surroundings,
    names: Names,
    missing: Mutex<BTreeSet<String>>,
}

impl<'s> Watched<'s> {
    pub(super) fn new(real: &'s dyn Surroundings, names: Names) -> Watched<'s> {
        Watched { real, names, missing: Mutex::default() }
    }

    /// Whether a message names a file or an interface that is not here.
    pub(super) fn is_about_what_is_missing(&self, message: &str) -> bool {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.iter().any(|name| message.contains(name.as_str()))
    }

    fn miss(&self, name: String) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }

    /// A word without a slash is a mistaken address rather than a file.
    fn miss_file<T>(&self, path: &Path, result: io::Result<T>) -> io::Result<T> {
        let shown = path.to_string_lossy();
        if result.is_err() && shown.contains('/') && !shown.contains("://") {
            self.miss(shown.into_owned());
        }
        result
    }
}

impl Surroundings for Watched<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.miss_file(path, self.real.read(path))
    }

    fn stamp(&self, path: &Path) -> io::Result<(u128, u64)> {
        self.miss_file(path, self.real.stamp(path))
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let found = self.real.glob(pattern);
        if found.is_empty()
            && let Some(name) = pattern.file_name()
        {
            self.miss(name.to_string_lossy().into_owned());
        }
        found
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.real.variable(name)
    }

    fn interface(&self, name: &str) -> Option<Vec<String>> {
        let found = self.real.interface(name);
        let is_name = name.chars().any(char::is_alphabetic) && !name.contains([':', '/']);
        if found.is_none() && is_name {
            self.miss(name.to_owned());
        }
        found
    }

    fn hostname(&self) -> String {
        self.real.hostname()
    }

    fn resolve(&self, host: &str, servers: &[SocketAddr]) -> Result<Vec<IpAddr>, String> {
        match self.names {
            Names::Stand => Ok(vec![SOMEBODY]),
            Names::Resolve => self.real.resolve(host, servers),
        }
    }
}
