//! A client's stream of octets, in the clear or inside TLS, without waiting.
//!
//! Owns the socket and the TLS session. What is read and written is plain text; the handshake goes
//! on within reads and writes, so that what bounds a connection's silence bounds it too. Knows
//! nothing of messages.

use rustls::{ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Plain text that a session keeps until it can be sent, at most; what is beyond stays with the
/// connection, where [`super::tcp::UNSENT_MOST`] bounds it.
const SEALED_MOST: usize = 16 * 1024;

/// How often one read looks for more records when those that came held no plain text.
const ROUNDS_MOST: usize = 16;

/// A client's stream.
pub(super) enum Stream {
    /// As it comes.
    Plain(TcpStream),
    /// Inside TLS.
    Sealed(Box<Sealed>),
}

/// A stream inside TLS.
pub(super) struct Sealed {
    socket: TcpStream,
    session: ServerConnection,
}

impl Stream {
    /// Inside TLS if there is a configuration for it.
    pub(super) fn new(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Stream> {
        let Some(config) = tls else { return Ok(Stream::Plain(socket)) };
        let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(SEALED_MOST));
        Ok(Stream::Sealed(Box::new(Sealed { socket, session })))
    }

    /// Reads what is there; 0 is the end of the stream. `task` is that which waits for more.
    pub(super) fn try_read(
        &mut self,
        task: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => {
                // Unlike the runtime's `try_read` it knows an emptied socket by a short read: then
                // nothing is read in vain.
                let mut buffer = ReadBuf::new(buffer);
                match Pin::new(socket).poll_read(task, &mut buffer) {
                    Poll::Ready(result) => result.map(|()| buffer.filled().len()),
                    Poll::Pending => Err(ErrorKind::WouldBlock.into()),
                }
            }
            Stream::Sealed(sealed) => sealed.read(buffer),
        }
    }

    /// A second descriptor of the socket, for another process; `None` inside TLS, and where there are
    /// no more descriptors.
    pub(super) fn second(&self) -> Option<std::net::TcpStream> {
        match self {
            Stream::Plain(socket) => Some(socket.as_fd().try_clone_to_owned().ok()?.into()),
            Stream::Sealed(_) => None,
        }
    }

    /// Takes what can be taken now.
    pub(super) fn try_write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.try_write(octets),
            Stream::Sealed(sealed) => sealed.write(octets),
        }
    }

    /// Sends on what was taken; without an error also when not all of it goes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Sealed(sealed) => sealed.flush().map(drop),
        }
    }

    /// Whether something was taken, or is to be said for TLS itself, and is not sent.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Sealed(sealed) => sealed.session.wants_write(),
        }
    }

    /// Ready when there may be something to read.
    pub(super) fn poll_read_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(socket) => socket.poll_read_ready(task),
            // What a read had no room for is in the session, and then no read of the socket has found it
            // empty since: it still counts as readable.
            Stream::Sealed(sealed) => sealed.socket.poll_read_ready(task),
        }
    }

    /// Ready when there may be room to write.
    pub(super) fn poll_write_ready(&self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(socket) => socket.poll_write_ready(task),
            Stream::Sealed(sealed) => sealed.socket.poll_write_ready(task),
        }
    }
}

impl Drop for Stream {
    /// Says goodbye inside TLS, so that the client can tell an end from a cut.
    fn drop(&mut self) {
        if let Stream::Sealed(sealed) = self {
            sealed.session.send_close_notify();
            // Nobody waits for it.
            let _ = sealed.flush();
        }
    }
}

impl Sealed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..ROUNDS_MOST {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if self.session.read_tls(&mut Socket(&self.socket))? == 0 {
                return Ok(0);
            }
            let taken = self.session.process_new_packets();
            // The handshake's next words, or why there is no next one.
            let flushed = self.flush();
            taken.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            flushed?;
        }
        // Others are served by this thread too; the socket stays readable.
        Err(ErrorKind::WouldBlock.into())
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if !self.flush()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.session.writer().write(octets)?;
        self.flush()?;
        match count {
            0 => Err(ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    /// Sends what the session has; whether that was all.
    fn flush(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(&self.socket)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// A socket for rustls, which asks again when it would block.
struct Socket<'s>(&'s TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
