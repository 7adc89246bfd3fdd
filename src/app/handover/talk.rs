//! One conversation between a predecessor and a successor: messages with descriptors, each within a
//! time.
//!
//! Owns the connection and who is at its other end. Blocks: it is for threads of its own.

use super::message::{Message, OCTETS_MOST};
use crate::sys::unix::{self, Peer, Received};
use socket2::Socket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long a message may take to be taken, and the other side to say what it is to say next.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The other side's process has ended, or has closed the connection.
    #[error("it is gone")]
    Gone,
    /// It says nothing, or takes nothing.
    #[error("it does not answer")]
    Silent,
    /// It runs as another user.
    #[error("it runs as user {0}")]
    OtherUser(u32),
    /// It says what no nodens says.
    #[error("it does not speak the handover of nodens")]
    Garbage,
    /// The kernel refused.
    #[error("{0}")]
    System(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Trouble::Silent,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Trouble::Gone,
            io::ErrorKind::InvalidData => Trouble::Garbage,
            _ => Trouble::System(error),
        }
    }
}

/// A connection with a process of our own user.
#[derive(Debug)]
pub(super) struct Talk {
    socket: Socket,
    peer: Peer,
}

impl Talk {
    /// Over a connected socket that keeps boundaries.
    pub(super) fn on(socket: Socket) -> Result<Talk, Trouble> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(ANSWER_TIME))?;
        let peer = unix::peer(socket.as_fd())?;
        if peer.user != unix::own_user() {
            return Err(Trouble::OtherUser(peer.user));
        }
        Ok(Talk { socket, peer })
    }

    /// The other side's process; 0 where it is not seen.
    pub(super) fn process(&self) -> u32 {
        self.peer.process
    }

    /// Sends a message with descriptors.
    pub(super) fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Trouble> {
        Ok(unix::send(self.socket.as_fd(), &message.encode(), descriptors)?)
    }

    /// The next message, waited for as long as `patience` says, or without end.
    pub(super) fn receive(
        &self,
        patience: Option<Duration>,
    ) -> Result<(Message, Vec<OwnedFd>), Trouble> {
        self.socket.set_read_timeout(patience)?;
        let mut buffer = vec![0; OCTETS_MOST];
        let Received { length, descriptors } = unix::receive(self.socket.as_fd(), &mut buffer)?;
        if length == 0 {
            return Err(Trouble::Gone);
        }
        let message = Message::decode(&buffer[..length]).ok_or(Trouble::Garbage)?;
        Ok((message, descriptors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};

    fn pair() -> (Talk, Socket) {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        (Talk::on(one).unwrap(), other)
    }

    #[test]
    fn each_way_of_ending_has_its_reason() {
        let (talk, other) = pair();
        let short = Some(Duration::from_millis(20));
        assert!(matches!(talk.receive(short), Err(Trouble::Silent)));
        for garbage in [&b"GET / HTTP/1.1\r\n"[..], b"nodens-handover\n", &[0; 40], b"\n"] {
            other.send(garbage).unwrap();
            assert!(matches!(talk.receive(short), Err(Trouble::Garbage)), "{garbage:?}");
        }
        other.send(&Message::Commit.encode()).unwrap();
        assert_eq!(talk.receive(short).unwrap().0, Message::Commit);
        drop(other);
        assert!(matches!(talk.receive(short), Err(Trouble::Gone)));
        assert!(matches!(talk.send(&Message::Done, &[]), Err(Trouble::Gone)));
        assert_eq!(talk.process(), std::process::id());
    }

    #[test]
    fn who_takes_nothing_holds_nobody_up_for_long() {
        let (talk, _other) = pair();
        talk.socket.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let long = Message::Site { address: "x".repeat(60_000) };
        let end = (0..1000).find_map(|_| talk.send(&long, &[]).err());
        assert!(matches!(end, Some(Trouble::Silent)), "{end:?}");
    }
}
