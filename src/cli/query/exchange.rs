//! One question to servers until one replies: every try in bounded time, all tries in bounded number.
//!
//! Owns datagrams and plain streams; what is encrypted is `secure`'s. Reads at most one message of at
//! most 65535 octets of a stream, and datagrams only until a try's time is over.

use super::message;
use super::secure::Secure;
use super::servers::Server;
use super::settings::{Settings, Way};
use crate::cli::failure::{Failure, PROTOCOL, UNAVAILABLE};
use crate::dns::flags;
use crate::dns::sizes::MESSAGE_MOST;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

/// The most notes about datagrams that were no reply.
const NOTES_MOST: usize = 5;

/// A reply that came.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its octets.
    pub(super) wire: Vec<u8>,
    /// Who sent it.
    pub(super) server: Server,
    /// How it came: `UDP`, `TCP`, `TLS`, `HTTPS`, `QUIC`.
    pub(super) carrier: &'static str,
    /// From the query to the reply, connecting included.
    pub(super) elapsed: Duration,
    /// What happened on the way.
    pub(super) notes: Vec<String>,
}

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

/// Asks the servers in turn, as often as settings say. `query` is the message.
pub(super) async fn ask(
    query: &[u8],
    servers: &[Server],
    settings: &Settings,
    way: &Way,
    secure: &Secure,
) -> Result<Answer, Failure> {
    let mut troubles: Vec<(&Server, Trouble)> = Vec::new();
    let mut notes = Vec::new();
    for _ in 0..settings.tries {
        for server in servers {
            let is_hopeless = |(other, trouble): &(&Server, Trouble)| {
                *other == server && matches!(trouble, Trouble::Wrong(_))
            };
            if troubles.iter().any(is_hopeless) {
                continue;
            }
            match try_once(query, server, settings, way, secure, &mut notes).await {
                Ok((wire, carrier, elapsed)) => {
                    return Ok(Answer { wire, server: server.clone(), carrier, elapsed, notes });
                }
                Err(trouble) => {
                    troubles.retain(|(other, _)| *other != server);
                    troubles.push((server, trouble));
                }
            }
        }
    }
    let code = match troubles.iter().all(|(_, trouble)| matches!(trouble, Trouble::Wrong(_))) {
        true => PROTOCOL,
        false => UNAVAILABLE,
    };
    let each: Vec<String> = troubles
        .iter()
        .map(|(server, Trouble::Unreachable(why) | Trouble::Wrong(why))| {
            format!("{} ({}): {why}", shown(server), carrier(way))
        })
        .collect();
    let mut text = format!("no reply from {}", each.join("; from "));
    if let Some(note) = notes.last() {
        text += &format!("; {note}");
    }
    Err(Failure::new(code, text))
}

/// `192.0.2.1#53`, as dig has it.
pub(super) fn shown(server: &Server) -> String {
    format!("{}#{}", server.address.ip(), server.address.port())
}

fn carrier(way: &Way) -> &'static str {
    match way {
        Way::Udp => "UDP",
        Way::Tcp => "TCP",
        Way::Tls => "TLS",
        Way::Https(..) => "HTTPS",
        Way::Quic => "QUIC",
    }
}

/// One try, and once more over TCP when the datagram was too small for the reply.
async fn try_once(
    query: &[u8],
    server: &Server,
    settings: &Settings,
    way: &Way,
    secure: &Secure,
    notes: &mut Vec<String>,
) -> Result<(Vec<u8>, &'static str, Duration), Trouble> {
    let began = Instant::now();
    let late = || Trouble::Unreachable(format!("no reply within {} s", settings.time.as_secs()));
    let source = source(settings, server.address);
    let attempt = async {
        match way {
            Way::Udp => datagram(query, server.address, source, notes).await,
            Way::Tcp => {
                let mut stream = connect(server.address, source).await?;
                stream_exchange(&mut stream, query).await
            }
            other => secure.exchange(query, server, source, other).await,
        }
    };
    let wire = timeout(settings.time, attempt).await.unwrap_or_else(|_| Err(late()))?;
    let is_truncated = wire.get(2).is_some_and(|octet| u16::from(*octet) << 8 & flags::TC != 0);
    if *way != Way::Udp || !is_truncated || settings.takes_truncated {
        return Ok((wire, carrier(way), began.elapsed()));
    }
    notes.push("Truncated, retrying in TCP mode.".to_owned());
    let again = async {
        let mut stream = connect(server.address, source).await?;
        stream_exchange(&mut stream, query).await
    };
    let began = Instant::now();
    let wire = timeout(settings.time, again).await.unwrap_or_else(|_| Err(late()))?;
    Ok((wire, carrier(&Way::Tcp), began.elapsed()))
}

/// The address to ask from.
fn source(settings: &Settings, server: SocketAddr) -> SocketAddr {
    settings.source.unwrap_or_else(|| match server {
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    })
}

async fn datagram(
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
