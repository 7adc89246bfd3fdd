//! One question to servers until one replies: every try in bounded time, all tries in bounded number.
//!
//! Owns the tries and their time, and what is said when all fail. How one is carried is `plain`'s and
//! `secure`'s.

use super::plain::{Trouble, connect, datagram, stream_exchange};
use super::secure::Secure;
use super::servers::Server;
use super::settings::{Settings, Way};
use crate::cli::failure::{Failure, PROTOCOL, UNAVAILABLE};
use crate::dns::flags;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::time::timeout;

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
