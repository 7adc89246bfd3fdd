//! What goes over a stream to an upstream: framed messages (RFC 1035 §4.2.2), both ways.
//!
//! Owns the buffer that is read into and the beginning of a message whose rest has not come. Knows nothing
//! of what a message means, nor how the stream was opened.

use super::connection::Connection;
use super::dial::words;
use super::ending::Ending;
use super::lifetime::Upkeep;
use crate::dns::sizes;
use crate::net::rest::{rested, rests};
use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf};
use tokio::net::tcp::OwnedReadHalf;

/// The greatest message with its length in front.
const LONGEST_FRAME: usize = 2 + sizes::MESSAGE_MOST;

/// The shortest message: a bare header.
const SHORTEST: usize = sizes::HEADER;

/// How often a stream is looked at once more in a turn, for what the peer had kept back.
const LOOKS_MOST: usize = 4;

thread_local! {
    /// What one read takes from a stream: delivered before anything else is read.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; 16_384].into());
}

/// Writes what is parked and delivers what comes, until the connection is over.
pub(super) async fn serve(
    ending: &Ending,
    reader: impl AsyncRead + Acknowledge + Unpin,
    writer: impl AsyncWrite + Unpin,
) -> String {
    let connection = &ending.connection;
    tokio::select! {
        error = read(ending, reader) => error,
        error = write(connection, writer) => error,
        // Also while the peer takes nothing of what is written.
        () = connection.closed() => String::new(),
    }
}

/// The half of a stream that is read.
pub(super) trait Acknowledge {
    /// Has the kernel tell the peer at once of what was read. A peer with Nagle's algorithm (Knot DNS)
    /// keeps the next answer back until it hears that the last one has arrived, and the kernel would
    /// wait for up to 40 ms whether there is a query to tell it with (RFC 1122 §4.2.3.2).
    fn acknowledge(&self);

    /// Reads what is there, whether or not the runtime knows of it; fails with `WouldBlock` where nothing is.
    fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Acknowledge for OwnedReadHalf {
    fn acknowledge(&self) {
        // Where it cannot be asked for, answers come a little later.
        let _ = self.as_ref().set_quickack(true);
    }

    fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(self.as_ref())).read(buffer)
    }
}

impl<S> Acknowledge for ReadHalf<S> {
    fn acknowledge(&self) {}

    fn read_now(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Delivers what comes over a stream; gives Go's words for its end. Between reads only the beginning of
/// a message is kept whose rest has not come.
async fn read(ending: &Ending, mut reader: impl AsyncRead + Acknowledge + Unpin) -> String {
    let connection = &ending.connection;
    let mut begun = Vec::new();
    loop {
        let delivered = poll_fn(|task| {
            READ.with_borrow_mut(|buffer| {
                let mut filled = ReadBuf::new(buffer);
                ready!(Pin::new(&mut reader).poll_read(task, &mut filled))?;
                Poll::Ready(Ok(deliver(ending, &mut begun, filled.filled())))
            })
        });
        let delivered: io::Result<_> = delivered.await;
        match delivered {
            Ok(Ok(())) => {}
            Ok(Err(text)) => return text.to_owned(),
            // TLS without a goodbye.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return end_behind(&begun).to_owned();
            }
            Err(error) => return failed(connection, "read", &error),
        }
        let looks = if rests() { LOOKS_MOST } else { 0 };
        if let Err(text) = acknowledge(ending, &mut begun, &reader, looks) {
            return text;
        }
        rested().await;
    }
}

/// Has the kernel tell the peer what has arrived while answers are still to come, and delivers what a near peer
/// kept back until then: it is there at once, and would wait for the end of another rest. Looked for at most
/// `looks` times. Fails with Go's words when the stream is over.
fn acknowledge(
    ending: &Ending,
    begun: &mut Vec<u8>,
    reader: &impl Acknowledge,
    looks: usize,
) -> Result<(), String> {
    let mut looks = 0..looks;
    while ending.connection.load() > 0 {
        // The kernel does not tell while octets lie there that were not read: so once more after each read.
        reader.acknowledge();
        if looks.next().is_none() {
            break;
        }
        let is_emptied = READ.with_borrow_mut(|buffer| match reader.read_now(buffer) {
            Ok(length) => {
                deliver(ending, begun, &buffer[..length]).map(|()| false).map_err(str::to_owned)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(failed(&ending.connection, "read", &error)),
        })?;
        if is_emptied {
            break;
        }
    }
    Ok(())
}

/// Delivers the messages that are whole with these octets behind those of a message that was `begun`,
/// and keeps the rest there. Fails with Go's words when the stream is over or no stream of messages.
fn deliver(ending: &Ending, begun: &mut Vec<u8>, octets: &[u8]) -> Result<(), &'static str> {
    if octets.is_empty() {
        return Err(end_behind(begun));
    }
    let now = Instant::now();
    let mut joined = std::mem::take(begun);
    let mut rest = match joined.is_empty() {
        true => octets,
        false => {
            joined.extend_from_slice(octets);
            joined.as_slice()
        }
    };
    while let Some(message) = frame(rest) {
        if message.len() < SHORTEST {
            return Err("dns: short read");
        }
        ending.deliver(message, now);
        rest = &rest[2 + message.len()..];
    }
    debug_assert!(rest.len() < LONGEST_FRAME, "a whole frame is taken out");
    begun.extend_from_slice(rest);
    Ok(())
}

/// Go's words for a stream that is over behind `begun`, the beginning of a message: it reads the two octets of
/// the length first, then the message.
fn end_behind(begun: &[u8]) -> &'static str {
    match begun.len() {
        0 | 2 => "EOF",
        _ => "unexpected EOF",
    }
}

/// The message at the beginning of what was read, when it is whole.
pub(super) fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let &[high, low] = bytes.first_chunk::<2>()?;
    bytes.get(2..2 + usize::from(u16::from_be_bytes([high, low])))
}

/// Writes what is parked until the connection is over; gives Go's words for its end.
async fn write(connection: &Connection, mut writer: impl AsyncWrite + Unpin) -> String {
    loop {
        // Queries that were parked while the connection was being established wait already.
        let Some(octets) = connection.take_outgoing() else { return String::new() };
        if !octets.is_empty() {
            let written = async {
                writer.write_all(&octets).await?;
                writer.flush().await
            };
            if let Err(error) = written.await {
                return failed(connection, "write", &error);
            }
            continue;
        }
        let Upkeep::At(next) = connection.upkeep(Instant::now()) else { break };
        tokio::select! {
            () = connection.woken() => {}
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
    // A goodbye that TLS and some servers like to see; nobody waits for it to arrive.
    let _ = writer.shutdown().await;
    connection.words("use of closed network connection")
}

/// Go's words for a call that failed: `read tcp …: read: connection reset by peer`.
fn failed(connection: &Connection, call: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        connection.died_in_silence();
    }
    connection.words(&format!("{call}: {}", words(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Transport;
    use crate::metrics::Registry;
    use crate::net::upstream::Asked;
    use crate::net::upstream::limits::STREAMS;
    use crate::net::upstream::parked::Times;
    use crate::net::upstream::pool::{Place, Pool};
    use crate::plugin::forward::Keeping;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::cell::Cell;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// A peer that gives away one more message whenever it is told that the last one has arrived.
    struct KeepsBack {
        left: Cell<usize>,
        is_told: Cell<bool>,
        told: Cell<usize>,
    }

    impl Acknowledge for KeepsBack {
        fn acknowledge(&self) {
            self.is_told.set(true);
            self.told.set(self.told.get() + 1);
        }

        fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
            if !self.is_told.take() || self.left.get() == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.left.set(self.left.get() - 1);
            let message = [&[0, 12][..], &[7; 12]].concat();
            buffer[..message.len()].copy_from_slice(&message);
            Ok(message.len())
        }
    }

    /// A connection with a query that waits.
    fn ending() -> Ending {
        let metrics = Registry::new(1);
        let keeping = Keeping::default();
        let pool = Pool::new("192.0.2.1:53", Transport::Tcp, STREAMS, keeping, &metrics);
        let random = Mutex::new(StdRng::seed_from_u64(1));
        let Some(Place::New(connection)) = pool.try_place(0, &random) else { panic!("no place") };
        let (mut chance, now) = (StdRng::seed_from_u64(2), Instant::now());
        let asked = Asked::new([0; 17].into(), 17);
        let times = Times { asked: now, deadline: now, telling: Duration::ZERO };
        let _ticket = connection.park(&asked, None, &mut chance, times).unwrap();
        Ending { connection, pool: Arc::new(pool) }
    }

    /// How many messages come, and how often such a peer with so many is told, while a query waits.
    fn kept_back(messages: usize, looks: usize) -> (u64, usize) {
        let ending = ending();
        let peer = KeepsBack {
            left: Cell::new(messages),
            is_told: Cell::default(),
            told: Cell::default(),
        };
        acknowledge(&ending, &mut Vec::new(), &peer, looks).unwrap();
        // They answer nothing that was asked.
        (ending.pool.ignored.value(), peer.told.get())
    }

    #[test]
    fn what_a_peer_keeps_back_until_it_is_told_is_delivered_in_the_same_turn() {
        assert_eq!(kept_back(2, LOOKS_MOST), (2, 3));
        assert_eq!(kept_back(0, LOOKS_MOST), (0, 1));
        assert_eq!(kept_back(100, LOOKS_MOST), (LOOKS_MOST as u64, LOOKS_MOST + 1));
    }

    #[test]
    fn who_does_not_rest_tells_the_peer_and_waits_for_the_runtime() {
        assert_eq!(kept_back(2, 0), (0, 1));
    }

    #[test]
    fn a_message_that_comes_in_pieces_is_delivered_once_when_its_last_octet_is_there() {
        let framed = [&[0, 12][..], &[7; 12], &[0, 13], &[8; 13]].concat();
        for piece in 1..framed.len() {
            let (ending, mut begun) = (ending(), Vec::new());
            let mut came = 0;
            for octets in framed.chunks(piece) {
                deliver(&ending, &mut begun, octets).unwrap();
                came += octets.len();
                // They answer nothing that was asked.
                let whole = u64::from(came >= 14) + u64::from(came == framed.len());
                assert_eq!(ending.pool.ignored.value(), whole, "{came} octets, {piece} at a time");
            }
        }
    }

    #[test]
    fn a_stream_whose_peer_acknowledges_nothing_has_died_in_silence_and_no_other_has() {
        for (kind, is_silent) in
            [(io::ErrorKind::TimedOut, true), (io::ErrorKind::ConnectionReset, false)]
        {
            let ending = ending();
            let words = failed(&ending.connection, "write", &kind.into());
            assert!(words.starts_with("dial tcp 192.0.2.1:53: write: "), "{words}");
            assert_eq!(ending.connection.silent_since().is_some(), is_silent, "{kind:?}");
        }
    }

    #[test]
    fn an_end_within_a_message_has_gos_words() {
        for (came, words) in [
            (&b""[..], "EOF"),
            (b"\0", "unexpected EOF"),
            (b"\0\x0c", "EOF"),
            (b"\0\x0cabc", "unexpected EOF"),
            (b"\0\x0c123456789012", "EOF"),
        ] {
            let (ending, mut begun) = (ending(), Vec::new());
            if !came.is_empty() {
                deliver(&ending, &mut begun, came).unwrap();
            }
            assert_eq!(deliver(&ending, &mut begun, b""), Err(words), "{came:?}");
        }
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        assert_eq!(frame(b"\0\x03abcd"), Some(b"abc".as_slice()));
        assert_eq!(frame(b"\0\x03ab"), None);
        assert_eq!(frame(b"\0"), None);
        assert_eq!(frame(b"\0\0"), Some(b"".as_slice()));
    }
}
