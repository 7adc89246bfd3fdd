//! Surroundings that live in memory: for tests of everything that reads a Corefile, and for tools
//! that judge one without touching the machine. Owns its files, variables, interfaces and hosts; never
//! looks at the real ones.

use super::{Surroundings, glob_matches};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files, variables, interfaces and hosts as told. Files can change while it is shared, so that a test
/// can play an edit.
///
/// ```
/// use nodens::corefile::{MemorySurroundings, Surroundings};
/// let world = MemorySurroundings::new().with_file("/etc/hosts", "192.0.2.1 a.test");
/// assert!(world.read("/etc/hosts".as_ref()).is_ok());
/// ```
#[derive(Debug)]
pub struct MemorySurroundings {
    files: Mutex<Files>,
    variables: BTreeMap<String, String>,
    interfaces: BTreeMap<String, Vec<String>>,
    hosts: BTreeMap<String, Vec<IpAddr>>,
    hostname: String,
}

#[derive(Debug, Default)]
struct Files {
    contents: BTreeMap<PathBuf, (Vec<u8>, u128)>,
    edits: u128,
}

impl MemorySurroundings {
    /// No file, no variable, no interface; the host is called `node`.
    pub fn new() -> MemorySurroundings {
        MemorySurroundings {
            files: Mutex::new(Files::default()),
            variables: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            hosts: BTreeMap::new(),
            hostname: "node".to_owned(),
        }
    }

    /// With one more file.
    pub fn with_file(self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.write(path, content);
        self
    }

    /// With one more environment variable.
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With one more network interface.
    pub fn with_interface(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
        self.interfaces.insert(name.to_owned(), addresses);
        self
    }

    /// With one more host that resolves, whichever server is asked.
    pub fn with_host(mut self, name: &str, addresses: &[IpAddr]) -> Self {
        self.hosts.insert(name.to_owned(), addresses.to_vec());
        self
    }

    /// Writes or replaces a file; its stamp changes.
    pub fn write(&self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) {
        let mut files = self.files();
        files.edits += 1;
        let edit = files.edits;
        files.contents.insert(path.into(), (content.into(), edit));
    }

    /// Removes a file.
    pub fn remove(&self, path: impl AsRef<Path>) {
        self.files().contents.remove(path.as_ref());
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find<T>(&self, path: &Path, of: impl FnOnce(&(Vec<u8>, u128)) -> T) -> io::Result<T> {
        let files = self.files();
        if let Some(file) = files.contents.get(path) {
            return Ok(of(file));
        }
        let is_directory = files.contents.keys().any(|file| file.starts_with(path));
        Err(if is_directory { io::ErrorKind::IsADirectory } else { io::ErrorKind::NotFound }.into())
    }
}

impl Default for MemorySurroundings {
    fn default() -> Self {
        MemorySurroundings::new()
    }
}

impl Surroundings for MemorySurroundings {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.find(path, |(content, _)| content.clone())
    }

    fn stamp(&self, path: &Path) -> io::Result<(u128, u64)> {
        match self.find(path, |(content, edit)| (*edit, content.len() as u64)) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok((0, 0)),
            stamp => stamp,
        }
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let files = self.files();
        let mut found: Vec<PathBuf> = files
            .contents
            .keys()
            .flat_map(|file| file.ancestors())
            .filter(|path| glob_matches(pattern, path))
            .map(Path::to_path_buf)
            .collect();
        found.sort();
        found.dedup();
        found
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn interface(&self, name: &str) -> Option<Vec<String>> {
        self.interfaces.get(name).cloned()
    }

    fn hostname(&self) -> String {
        self.hostname.clone()
    }

    fn resolve(&self, host: &str, _servers: &[SocketAddr]) -> Result<Vec<IpAddr>, String> {
        self.hosts.get(host).cloned().ok_or_else(|| format!("lookup {host}: no such host"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_changes_the_stamp() {
        let world = MemorySurroundings::new().with_file("/a", "1");
        let before = world.stamp("/a".as_ref()).unwrap();
        world.write("/a", "2");
        assert_ne!(world.stamp("/a".as_ref()).unwrap(), before);
        world.remove("/a");
        assert_eq!(world.read("/a".as_ref()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_glob_finds_files_in_order_and_does_not_cross_folders() {
        let world = MemorySurroundings::new()
            .with_file("/d/b.server", "")
            .with_file("/d/a.server", "")
            .with_file("/d/e/c.server", "");
        let found = world.glob("/d/*.server".as_ref());
        assert_eq!(found, [PathBuf::from("/d/a.server"), PathBuf::from("/d/b.server")]);
        assert_eq!(world.glob("/d/e".as_ref()), [PathBuf::from("/d/e")]);
    }
}
