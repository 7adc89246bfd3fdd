//! The real surroundings: this machine's files, environment, interfaces and resolver.

use crate::corefile::{Surroundings, glob_matches};
use crate::sys;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;
use std::{env, fs};

/// The greatest file that is read, in octets: a Corefile, hosts file, certificate or weight file
/// beyond it is a mistake, and reading it would be our end.
pub(super) const LARGEST_FILE: u64 = 64 * 1024 * 1024;

/// The greatest number of paths that a pattern gives.
const MOST_MATCHES: usize = 10_000;

/// This machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Surroundings for Machine {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut content)?;
        if content.len() as u64 > LARGEST_FILE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(content)
    }

    fn stamp(&self, path: &Path) -> io::Result<(u128, u64)> {
        let metadata = fs::metadata(path)?;
        let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((changed.as_nanos(), metadata.len()))
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        // Tokens of imported files carry absolute paths, as in CoreDNS.
        let pattern = std::path::absolute(pattern).unwrap_or_else(|_| pattern.to_owned());
        let mut found = vec![PathBuf::new()];
        for component in pattern.components() {
            found = match component {
                Component::Normal(part) if is_pattern(part) => {
                    found.iter().flat_map(|folder| matches_in(folder, part)).collect()
                }
                part => found.into_iter().map(|path| path.join(part)).collect(),
            };
            found.truncate(MOST_MATCHES);
        }
        found.retain(|path| path.symlink_metadata().is_ok());
        found.sort();
        found
    }

    fn variable(&self, name: &str) -> Option<String> {
        // A name that is empty or holds `=` or NUL is no variable's; std would refuse it too.
        env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn interface(&self, name: &str) -> Option<Vec<String>> {
        sys::interfaces::addresses(name)
    }

    fn hostname(&self) -> String {
        fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|_| "localhost".to_owned())
    }

    fn resolve(&self, host: &str, servers: &[SocketAddr]) -> Result<Vec<IpAddr>, String> {
        super::resolve::resolve(host, servers)
    }
}

fn is_pattern(part: &OsStr) -> bool {
    part.to_string_lossy().contains(['*', '?', '\\'])
}

fn matches_in(folder: &Path, part: &OsStr) -> Vec<PathBuf> {
    let place = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| glob_matches(Path::new(part), Path::new(name)))
        .take(MOST_MATCHES)
        .collect();
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_gives_the_matching_paths_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.server", "a.server", "c.other"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let found = Machine.glob(&folder.path().join("*.server"));
        assert_eq!(found, [folder.path().join("a.server"), folder.path().join("b.server")]);
        assert_eq!(Machine.glob(&folder.path().join("no")), Vec::<PathBuf>::new());
        assert_eq!(Machine.glob(&folder.path().join("c.other")).len(), 1);
    }

    #[test]
    fn a_relative_pattern_gives_absolute_paths() {
        let found = Machine.glob(Path::new("Cargo.tom?"));
        assert_eq!(found, [std::path::absolute("Cargo.toml").unwrap()]);
    }

    #[test]
    fn a_missing_file_is_an_error_and_a_present_one_has_a_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        assert_eq!(Machine.read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "xyz").unwrap();
        assert_eq!(Machine.read(&path).unwrap(), b"xyz");
        assert_eq!(Machine.stamp(&path).unwrap().1, 3);
    }

    #[test]
    fn odd_variable_names_are_unset() {
        assert_eq!(Machine.variable(""), None);
        assert_eq!(Machine.variable("A=B"), None);
    }
}
