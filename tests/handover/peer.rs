//! The other side of a handover, played by the test: what it says is written out here, word by word.

use nodens::sys::unix::{self, Received};
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// One side of a conversation.
pub(crate) struct Peer(Socket);

impl Peer {
    fn on(socket: Socket) -> Peer {
        // Nothing but a mistake takes as long.
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Peer(socket)
    }

    /// A successor that knocks.
    pub(crate) fn knock(door: &Path) -> Peer {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&SockAddr::unix(door).unwrap()).unwrap();
        Peer::on(socket)
    }

    /// A predecessor: does something with the first one that knocks.
    pub(crate) fn wait(door: &Path, act: impl FnOnce(Peer) + Send + 'static) -> JoinHandle<()> {
        std::fs::create_dir_all(door.parent().unwrap()).unwrap();
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.bind(&SockAddr::unix(door).unwrap()).unwrap();
        socket.listen(1).unwrap();
        thread::spawn(move || act(Peer::on(socket.accept().unwrap().0)))
    }

    pub(crate) fn say(&self, octets: &[u8]) {
        unix::send(self.0.as_fd(), octets, &[]).unwrap();
    }

    /// The first words of a successor of this network namespace.
    pub(crate) fn hello(&self) {
        let space = std::fs::read_link("/proc/self/ns/net").unwrap();
        self.say(format!("nodens-handover hello 1 1 {} 9.9.9\n", space.display()).as_bytes());
    }

    /// The next message's line, without its first word, and its descriptors; empty at the end.
    pub(crate) fn hear(&self) -> (String, Vec<OwnedFd>) {
        let mut buffer = vec![0; 1 << 17];
        let Ok(Received { length, descriptors }) = unix::receive(self.0.as_fd(), &mut buffer)
        else {
            return (String::new(), Vec::new());
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        let line = text.lines().next().unwrap_or_default();
        (line.trim_start_matches("nodens-handover ").to_owned(), descriptors)
    }

    /// Everything that is offered.
    pub(crate) fn take_all(&self) -> Vec<(String, Vec<OwnedFd>)> {
        let mut all = Vec::new();
        loop {
            let message = self.hear();
            assert!(!message.0.is_empty(), "it ended: {all:?}");
            if message.0 == "offered" {
                return all;
            }
            all.push(message);
        }
    }
}
