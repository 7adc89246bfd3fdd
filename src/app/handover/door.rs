//! The socket file at which a serving process waits for its successor.
//!
//! Owns the file: its name, its mode, whose it is. The newest process has the name; a file that nobody
//! listens at any more, as a crash leaves it, is replaced, and those of other addresses are removed.

use super::message::Place;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Successors that may wait at the door.
const WAITING_MOST: i32 = 8;

/// What the names of all files begin with.
const BEGINNING: &str = "handover-";

/// The most octets of the kernel's list of sockets that are read.
const LONGEST_LIST: u64 = 8 << 20;

/// The file for an address. What serves other addresses has other files: two nodens that have nothing
/// to do with each other never meet.
pub(super) fn file(directory: &Path, place: &Place) -> PathBuf {
    let host = place.host.as_deref().unwrap_or("all").replace('/', "_");
    directory.join(format!("{BEGINNING}{}-{host}-{}", place.transport.word(), place.port))
}

/// The most names of the directory that are looked at to find what crashes left: there is one for each
/// address that a nodens of this node began with.
const LOOKED_AT_MOST: usize = 10_000;

/// What knocking led to.
#[derive(Debug)]
pub(super) enum Knock {
    /// Somebody is there.
    Open(Socket),
    /// There is no file.
    Nothing,
    /// There is a file, and nobody listens.
    Stale,
}

/// Connects to whoever listens at `file`.
pub(super) fn knock(file: &Path) -> io::Result<Knock> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    // Who has more waiting than it takes is not waited for.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(file)?) {
        Ok(()) => Ok(Knock::Open(socket)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Knock::Nothing),
            io::ErrorKind::ConnectionRefused => Ok(Knock::Stale),
            _ => Err(error),
        },
    }
}

/// Whether somebody listens at `file`, without knocking.
pub(super) fn is_served(file: &Path) -> bool {
    // The kernel shows the name that it was bound by.
    is_bound(&format!("{}.", file.display()))
}

/// Whether somebody listens at any door of `directory`, without knocking.
pub(super) fn is_anybody_there(directory: &Path) -> bool {
    is_bound(&directory.join(BEGINNING).display().to_string())
}

/// Whether a socket has a name of this network namespace that begins so.
fn is_bound(beginning: &str) -> bool {
    let mut list = String::new();
    let read = File::open("/proc/self/net/unix")
        .and_then(|open| open.take(LONGEST_LIST).read_to_string(&mut list));
    let places = list.lines().filter_map(|line| line.split_whitespace().last());
    read.is_ok() && places.into_iter().any(|place| place.starts_with(beginning))
}

/// Removes the files of `directory` whose sockets are gone, as crashes leave them. What cannot be judged or
/// removed stays, as does what is no door.
pub(super) fn sweep(directory: &Path) {
    let Ok(names) = fs::read_dir(directory) else { return };
    for name in names.take(LOOKED_AT_MOST).filter_map(Result::ok) {
        let path = name.path();
        if !name.file_name().as_encoded_bytes().starts_with(BEGINNING.as_bytes()) {
            continue;
        }
        // One that took the name meanwhile is another file.
        if let Ok(before) = identity(&path)
            && is_left(&path)
            && identity(&path).is_ok_and(|now| now == before)
        {
            // Gone already is as good.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether no process has the socket of a file, in whatever network namespace. Nobody hears of the question:
/// a socket of another kind is refused when there is somebody, as one that is not a door at all.
fn is_left(file: &Path) -> bool {
    let Ok(address) = SockAddr::unix(file) else { return false };
    let asked = Socket::new(Domain::UNIX, Type::DGRAM, None).and_then(|own| own.connect(&address));
    let is_socket = fs::symlink_metadata(file).is_ok_and(|there| there.file_type().is_socket());
    is_socket && asked.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A socket that listens at a file; dropping it removes the file if it is still its own.
#[derive(Debug)]
pub(super) struct Door {
    socket: Socket,
    path: PathBuf,
    /// Device and number of the file.
    identity: (u64, u64),
}

impl Door {
    /// Listens at `path`, in place of whoever did before.
    pub(super) fn open(path: PathBuf) -> io::Result<Door> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut fresh = path.clone().into_os_string();
        fresh.push(format!(".{:08x}", rand::random::<u32>()));
        let fresh = PathBuf::from(fresh);
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        // The file gets the socket's mode.
        File::from(OwnedFd::from(socket.try_clone()?))
            .set_permissions(Permissions::from_mode(0o600))?;
        socket.bind(&SockAddr::unix(&fresh)?)?;
        let opened = socket
            .listen(WAITING_MOST)
            .and_then(|()| identity(&fresh))
            .and_then(|identity| fs::rename(&fresh, &path).map(|()| identity));
        match opened {
            Ok(identity) => Ok(Door { socket, path, identity }),
            Err(error) => {
                // It must not stay; what is wrong is told already.
                let _ = fs::remove_file(&fresh);
                Err(error)
            }
        }
    }

    /// Whether it is who knocks at `path` that comes here.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        self.path == path && self.is_own()
    }

    fn is_own(&self) -> bool {
        identity(&self.path).is_ok_and(|there| there == self.identity)
    }

    /// A further descriptor, to accept at.
    pub(super) fn second(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Whoever accepts at a second descriptor is told, too.
        let _ = self.socket.shutdown(Shutdown::Both);
        if self.is_own() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let there = fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::KeyTransport;

    fn path(folder: &tempfile::TempDir, host: Option<&str>) -> PathBuf {
        let host = host.map(str::to_owned);
        file(&folder.path().join("run"), &Place { transport: KeyTransport::Dns, host, port: 53 })
    }

    #[test]
    fn the_newest_has_the_name_and_leaves_it_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder, Some("fe80::1%eth0"));
        assert!(path.ends_with("run/handover-dns-fe80::1%eth0-53"));
        let run = folder.path().join("run");
        assert!(matches!(knock(&path).unwrap(), Knock::Nothing));
        assert!(!is_served(&path) && !is_anybody_there(&run));
        let first = Door::open(path.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(knock(&path).unwrap(), Knock::Open(_)));
        assert!(is_served(&path) && is_anybody_there(&run) && !is_anybody_there(folder.path()));
        assert!(first.is_at(&path) && !first.is_at(folder.path()));
        let second = Door::open(path.clone()).unwrap();
        assert!(second.is_at(&path) && !first.is_at(&path));
        drop(first);
        assert!(matches!(knock(&path).unwrap(), Knock::Open(_)));
        drop(second);
        assert!(matches!(knock(&path).unwrap(), Knock::Nothing));
        assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_a_crash_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder, None);
        let door = Door::open(path.clone()).unwrap();
        let left = path.with_extension("left");
        fs::rename(&path, &left).unwrap();
        drop(door);
        fs::rename(&left, &path).unwrap();
        assert!(matches!(knock(&path).unwrap(), Knock::Stale));
        let _door = Door::open(path.clone()).unwrap();
        assert!(matches!(knock(&path).unwrap(), Knock::Open(_)));
    }

    #[test]
    fn files_of_processes_that_are_gone_are_removed_and_nobody_else_hears_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let at = |name: &str| run.join(format!("{BEGINNING}{name}"));
        let served = Door::open(at("served")).unwrap();
        let listens = served.second().unwrap();
        listens.set_nonblocking(true).unwrap();
        for name in ["left", "left.0123abcd"] {
            let gone = Door::open(at("gone")).unwrap();
            fs::rename(at("gone"), at(name)).unwrap();
            drop(gone);
        }
        // Between its making and its first listening, and what is none of ours.
        let bound = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        bound.bind(&SockAddr::unix(at("bound.0123abcd")).unwrap()).unwrap();
        fs::write(at("text"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("link")).unwrap();
        fs::write(run.join("interface-lo"), "").unwrap();
        let foreign = std::os::unix::net::UnixDatagram::bind(run.join("other")).unwrap();
        drop(foreign);
        // A program that another test starts has what was closed until it runs.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while fs::exists(at("left")).unwrap() || fs::exists(at("left.0123abcd")).unwrap() {
            assert!(std::time::Instant::now() < end, "it stays");
            sweep(&run);
        }
        let mut names: Vec<String> = fs::read_dir(&run)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let kept = ["bound.0123abcd", "folder", "link", "served", "text"];
        let mut kept = kept.map(|name| format!("{BEGINNING}{name}")).to_vec();
        kept.extend(["interface-lo", "other"].map(str::to_owned));
        assert_eq!(names, kept);
        let knocked = listens.accept().unwrap_err();
        assert_eq!(knocked.kind(), io::ErrorKind::WouldBlock, "nobody was disturbed");
        sweep(&folder.path().join("nowhere"));
    }

    #[test]
    fn an_end_wakes_who_accepts() {
        let folder = tempfile::tempdir().unwrap();
        let door = Door::open(path(&folder, None)).unwrap();
        let second = door.second().unwrap();
        let waiting = std::thread::spawn(move || second.accept().is_err());
        std::thread::sleep(std::time::Duration::from_millis(20));
        drop(door);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn a_directory_that_cannot_be_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("run"), "").unwrap();
        assert!(Door::open(path(&folder, None)).is_err());
        assert!(matches!(knock(&path(&folder, None)).unwrap(), Knock::Nothing));
        let long = folder.path().join("x".repeat(200));
        assert!(Door::open(long.clone()).is_err() && knock(&long).is_err());
    }
}
