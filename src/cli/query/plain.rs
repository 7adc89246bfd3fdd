//! Plain ways: a datagram, or a stream of messages behind their lengths (RFC 1035 §4.2).
//!
//! Owns what may go wrong on any way. Reads at most one message of at most 65535 octets of a stream, and
//! datagrams until their reply comes: the caller ends that.

use super::message;
use crate::dns::sizes::MESSAGE_MOST;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// The most notes about datagrams that were no reply.
const NOTES_MOST: usize = 5;

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody there, or silent: it may be better the next time.
    Unreachable(String),
    /// Somebody is there who does not speak as we do, or is not believed: another try is in vain.
    Wrong(String),
}

/// Whatever way was tried, and what it gave.
pub(super) type Got = Result<Vec<u8>, Trouble>;

/// A query in a datagram, and its reply. What else came is noted.
pub(super) async fn datagram(
    query: &[u8],
    server: SocketAddr,
    source: SocketAddr,
    notes: &mut Vec<String>,
) -> Got {
    let socket = UdpSocket::bind(source).await.map_err(|error| unreachable(&error))?;
    let sent = async {
        socket.connect(server).await?;
        socket.send(query).await
    };
    sent.await.map_err(|error| unreachable(&error))?;
    let mut buffer = vec![0; MESSAGE_MOST];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| unreachable(&error))?;
        let wire = &buffer[..length];
        match message::belongs(wire, query) {
            Ok(()) => return Ok(wire.to_vec()),
            // Anybody may send a datagram: the reply may still come.
            Err(why) => {
                if notes.len() < NOTES_MOST {
                    notes.push(format!("a datagram was no reply: {why}"));
                }
            }
        }
    }
}

/// A connected stream.
pub(super) async fn connect(server: SocketAddr, source: SocketAddr) -> Result<TcpStream, Trouble> {
    let open = async {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(source)?;
        socket.connect(server).await
    };
    let stream = open.await.map_err(|error| unreachable(&error))?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A query and its reply, each behind its length (RFC 1035 §4.2.2).
pub(super) async fn stream_exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    query: &[u8],
) -> Got {
    let length = u16::try_from(query.len())
        .map_err(|_| Trouble::Wrong("the query is longer than 65535 octets".to_owned()))?;
    let framed = [&length.to_be_bytes()[..], query].concat();
    let exchange = async {
        stream.write_all(&framed).await?;
        stream.flush().await?;
        let length = stream.read_u16().await?;
        let mut wire = vec![0; usize::from(length)];
        stream.read_exact(&mut wire).await?;
        Ok(wire)
    };
    let wire: Vec<u8> = exchange.await.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Trouble::Unreachable("the connection was closed without a reply".to_owned())
        }
        _ => unreachable(&error),
    })?;
    checked(wire, query)
}

/// The message, if it is a reply to `query`.
pub(super) fn checked(wire: Vec<u8>, query: &[u8]) -> Got {
    match message::belongs(&wire, query) {
        Ok(()) => Ok(wire),
        Err(why) => Err(Trouble::Wrong(format!("what came is no reply: {why}"))),
    }
}

/// What the system says.
pub(super) fn unreachable(error: &io::Error) -> Trouble {
    Trouble::Unreachable(crate::corefile::system_error_text(error))
}
