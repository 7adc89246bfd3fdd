//! Files of the node: the look at what the Corefile is made from, and at what lies beside it, and its
//! writing.
//!
//! Owns the bounds on what is read, and that a Corefile is replaced whole. Decides nothing.

use crate::corefile::{file_error_text, quote, system_error_text};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The greatest size in octets of a file that is read; a ConfigMap holds at most 1 MiB.
const MOST_OCTETS: u64 = 8 << 20;

/// The greatest number of files that a directory is read for.
const MOST_FILES: usize = 1_000;

/// The files of a directory by name.
pub type Listing = BTreeMap<String, String>;

/// Where the inputs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePaths {
    /// The template (`-basecorefile`).
    pub base: PathBuf,
    /// The directory of the kube-dns ConfigMap, if there is one to watch.
    pub kube_dns: Option<PathBuf>,
}

impl SourcePaths {
    /// Whether the template's folder is there, be the template itself in it or not. The error is the operator's
    /// line, in node-cache's words.
    pub fn find_base_folder(&self) -> Result<(), String> {
        find_folder(&self.base)
    }
}

/// What was seen. Errors are in Go's words: `open PATH: no such file or directory`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The template's octets.
    pub base: Result<Vec<u8>, String>,
    /// The kube-dns ConfigMap's directory, if there is one to watch.
    pub kube_dns: Option<Result<Listing, String>>,
}

/// Looks at the inputs of the Corefile.
pub fn look(paths: &SourcePaths) -> Look {
    Look { base: read(&paths.base), kube_dns: paths.kube_dns.as_deref().map(list) }
}

/// The files beside the template: what a Corefile imports, hosts files, certificates.
#[derive(Debug)]
pub struct Neighbours {
    /// The template and the Corefile, each looked at in another way.
    others: [PathBuf; 2],
    /// What tells a file from another one of its name: where it is, how large, and of when.
    known: Option<BTreeMap<OsString, [i64; 5]>>,
}

impl Neighbours {
    /// Those of the template `base`; not `corefile`, which may be written beside it.
    pub fn new(base: &Path, corefile: &Path) -> Neighbours {
        Neighbours { others: [base, corefile].map(Path::to_owned), known: None }
    }

    /// Whether there are others than at the last look; false at the first one, and while the folder cannot
    /// be read. Of more than a thousand files, those beyond are not looked at.
    pub fn have_changed(&mut self) -> bool {
        let Ok(entries) = fs::read_dir(folder_of(&self.others[0])) else { return false };
        let files = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_encoded_bytes().starts_with(b".") || self.others.contains(&path) {
                return None;
            }
            // Of what a link points to.
            let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
            let place = [found.dev(), found.ino(), found.size()].map(u64::cast_signed);
            let [device, inode, size] = place;
            Some((name, [device, inode, size, found.mtime(), found.mtime_nsec()]))
        });
        let files = Some(files.take(MOST_FILES).collect());
        let before = std::mem::replace(&mut self.known, files);
        before.is_some() && before != self.known
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Whether the template's folder is there. The error is the operator's line, in node-cache's words.
fn find_folder(file: &Path) -> Result<(), String> {
    let folder = folder_of(file);
    let found = fs::read_dir(folder).map(drop).map_err(|error| absent(folder, &error));
    found.map_err(|why| {
        format!("Failed to sync node-local-dns config directory {}, err: {why}", folder.display())
    })
}

/// The files of a directory, without its folders and without hidden names (`..data` of a mounted
/// ConfigMap). One file that is not UTF-8 spoils all.
fn list(folder: &Path) -> Result<Listing, String> {
    let mut listing = Listing::new();
    for entry in fs::read_dir(folder).map_err(|error| absent(folder, &error))? {
        let entry = entry.map_err(|error| file_error_text(folder, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        // Opening a pipe would wait for its writer.
        if fs::metadata(&path).is_ok_and(|known| !known.is_file()) {
            return Err(format!("{}: not a regular file", path.display()));
        }
        if listing.len() >= MOST_FILES {
            return Err(format!("{}: more than {MOST_FILES} files", folder.display()));
        }
        let text = String::from_utf8(read(&path)?)
            .map_err(|_| format!("non-utf8 data in {}", path.display()))?;
        listing.insert(name, text);
    }
    Ok(listing)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_OCTETS + 1).read_to_end(&mut octets))
        .map_err(|error| file_error_text(path, &error))?;
    match octets.len() as u64 > MOST_OCTETS {
        true => Err(format!("{}: larger than {MOST_OCTETS} octets", path.display())),
        false => Ok(octets),
    }
}

/// A folder that cannot be listed: node-cache looks at it first.
fn absent(folder: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotADirectory => {
            format!("config path {} is not a directory", quote(&folder.display().to_string()))
        }
        _ => format!("lstat {}: {}", folder.display(), system_error_text(error)),
    }
}

/// Replaces the content of a file, at once and whole; true when it was another. Readers see the
/// old content or the new one. Where the file cannot be exchanged (it is itself a mount, or the
/// folder is not writable), or shall not be (`/dev/null`), it is written in place.
///
/// # Errors
///
/// Why the file can neither be exchanged nor written, in Go's words: `open PATH: permission
/// denied`.
pub fn write_if_changed(path: &Path, text: &str) -> Result<bool, String> {
    let known = fs::metadata(path).ok();
    let why = |error| format!("open {}: {}", path.display(), system_error_text(&error));
    if known.as_ref().is_some_and(|known| !known.is_file()) {
        fs::write(path, text).map_err(why)?;
        return Ok(true);
    }
    if fs::read(path).is_ok_and(|content| content == text.as_bytes()) {
        return Ok(false);
    }
    // A link stays one: what it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(beside) = beside(&target) else {
        return Err(file_error_text(path, &io::ErrorKind::NotFound.into()));
    };
    let exchanged = write_new(&beside, text).and_then(|()| {
        // The permissions that an operator gave the file are kept.
        if let Some(known) = known {
            fs::set_permissions(&beside, known.permissions())?;
        }
        fs::rename(&beside, &target)
    });
    if exchanged.is_err() {
        let _ = fs::remove_file(&beside);
        fs::write(path, text).map_err(why)?;
    }
    Ok(true)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A name of our own in the same folder.
fn beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy();
    Some(path.with_file_name(format!(".{name}.{}", std::process::id())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(base: &Path, kube_dns: &Path) -> SourcePaths {
        SourcePaths { base: base.to_owned(), kube_dns: Some(kube_dns.to_owned()) }
    }

    #[test]
    fn a_look_passes_over_folders_and_hidden_names() {
        let folder = tempfile::tempdir().unwrap();
        let kube_dns = folder.path().join("kube-dns");
        fs::create_dir_all(kube_dns.join("..data")).unwrap();
        fs::create_dir(kube_dns.join("folder")).unwrap();
        fs::write(kube_dns.join(".hidden"), "x").unwrap();
        fs::write(kube_dns.join("..data/stubDomains"), "{}").unwrap();
        std::os::unix::fs::symlink("..data/stubDomains", kube_dns.join("stubDomains")).unwrap();
        let base = folder.path().join("base");
        fs::write(&base, b"b\xff").unwrap();
        let look = look(&paths(&base, &kube_dns));
        assert_eq!(look.base, Ok(b"b\xff".to_vec()));
        let expected: Listing = [("stubDomains".to_owned(), "{}".to_owned())].into();
        assert_eq!(look.kube_dns, Some(Ok(expected)));
    }

    #[test]
    fn files_beside_the_template_have_changed_when_one_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut neighbours = Neighbours::new(&path("base"), &path("Corefile"));
        fs::write(path("hosts"), "a").unwrap();
        assert!(!neighbours.have_changed(), "the first look");
        fs::write(path("base"), "a").unwrap();
        fs::write(path("Corefile"), "a").unwrap();
        fs::write(path(".hidden"), "a").unwrap();
        fs::create_dir(path("folder")).unwrap();
        assert!(!neighbours.have_changed());
        for change in [
            || vec![("hosts", "longer")],
            || vec![("more", "a")],
            // As the kubelet swaps what links point to.
            || vec![("..2/key", "b")],
        ] {
            for (name, text) in change() {
                fs::create_dir_all(path(name).parent().unwrap()).unwrap();
                fs::write(path(name), text).unwrap();
            }
            if path("..2").exists() {
                std::os::unix::fs::symlink("..2/key", path("key")).unwrap();
            }
            assert!(neighbours.have_changed());
            assert!(!neighbours.have_changed());
        }
        fs::remove_file(path("more")).unwrap();
        assert!(neighbours.have_changed());
    }

    #[test]
    fn what_cannot_be_read_is_said_in_gos_words() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let look = look(&paths(&gone, &gone));
        let said =
            |call: &str| Err(format!("{call} {}: no such file or directory", gone.display()));
        assert_eq!(look.base, said("open"));
        assert_eq!(look.kube_dns.map(|listing| listing.map(|_| Vec::new())), Some(said("lstat")));
        let no_folder = folder.path().join("file");
        fs::write(&no_folder, "").unwrap();
        let said = format!("config path \"{}\" is not a directory", no_folder.display());
        assert_eq!(list(&no_folder), Err(said));
        let folder_read = read(folder.path()).unwrap_err();
        assert_eq!(folder_read, format!("read {}: is a directory", folder.path().display()));
        let folder_written = write_if_changed(folder.path(), "a").unwrap_err();
        assert_eq!(folder_written, format!("open {}: is a directory", folder.path().display()));
        fs::write(folder.path().join("bad"), b"\xff").unwrap();
        assert!(list(folder.path()).unwrap_err().starts_with("non-utf8 data in /"));
        File::create(folder.path().join("bad")).unwrap().set_len(MOST_OCTETS + 1).unwrap();
        assert!(list(folder.path()).unwrap_err().ends_with("/bad: larger than 8388608 octets"));
        File::create(folder.path().join("bad")).unwrap().set_len(MOST_OCTETS).unwrap();
        assert_eq!(list(folder.path()).unwrap()["bad"].len() as u64, MOST_OCTETS);
        fs::remove_file(folder.path().join("bad")).unwrap();
        std::os::unix::net::UnixListener::bind(folder.path().join("bad")).unwrap();
        assert!(list(folder.path()).unwrap_err().ends_with("/bad: not a regular file"));
    }

    #[test]
    fn a_file_is_replaced_whole_and_only_when_it_changes() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Corefile");
        assert_eq!(write_if_changed(&path, "a"), Ok(true));
        let first = fs::metadata(&path).unwrap().ino();
        assert_eq!(write_if_changed(&path, "a"), Ok(false));
        assert_eq!(write_if_changed(&path, "b"), Ok(true));
        assert_ne!(fs::metadata(&path).unwrap().ino(), first);
        assert_eq!(fs::read_to_string(&path).unwrap(), "b");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_file_is_not_replaced_by_one() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(write_if_changed(&path, "a").is_err());
        assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    }

    #[test]
    fn a_folder_of_too_many_files_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..MOST_FILES {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(list(folder.path()).unwrap().len(), MOST_FILES);
        fs::write(folder.path().join("more"), "").unwrap();
        assert!(list(folder.path()).unwrap_err().ends_with(": more than 1000 files"));
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Corefile");
        fs::write(&path, "a").unwrap();
        for mode in [0o640, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(write_if_changed(&path, &format!("{mode}")), Ok(true));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "a").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        assert_eq!(write_if_changed(&link, "b"), Ok(true));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "b");
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        assert_eq!(
            write_if_changed("/nonexistent/Corefile".as_ref(), "a"),
            Err("open /nonexistent/Corefile: no such file or directory".to_owned())
        );
        assert!(write_if_changed("".as_ref(), "a").is_err());
    }
}
