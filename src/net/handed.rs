//! A client's TCP connection on its way from one process to its successor.
//!
//! Owns nothing but what it carries. A connection goes between two messages: what was read has been
//! answered, and what was not read waits in the socket or goes along, so that no query is lost. TLS,
//! HTTPS and QUIC do not go: their sessions are state of the process that made them.

use super::listener::Listener;
use super::sockets::Address;
use super::stream::Stream;
use super::tcp::{Open, TCP_OCTETS, connection, has_place};
use super::worker::Worker;
use crate::corefile::KeyTransport;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;

/// An open connection, with the address that it was made to.
#[derive(Debug)]
pub struct HandedConnection {
    /// The scheme.
    pub transport: KeyTransport,
    /// The address as the Corefile has it, `None` for all.
    pub host: Option<String>,
    /// The port as the Corefile has it.
    pub port: u16,
    /// The connection.
    pub stream: TcpStream,
    /// What was read of it and not answered: part of a message, or messages that were held back.
    pub octets: Vec<u8>,
}

impl HandedConnection {
    pub(super) fn address(&self) -> Address {
        Address { transport: self.transport, host: self.host.clone(), port: self.port, h3: None }
    }
}

/// Who takes connections.
pub type Heir = Arc<dyn Fn(HandedConnection) + Send + Sync>;

/// Gives a connection to the heir of its listener. False when there is none, or the connection cannot
/// go: then it is for the caller to end it.
pub(super) fn bequeath(listener: &Listener, stream: &Stream, octets: &mut Vec<u8>) -> bool {
    let Some((address, heir)) = listener.heir() else { return false };
    let Some(stream) = stream.second() else { return false };
    let Address { transport, host, port, .. } = address;
    let octets = std::mem::take(octets);
    heir(HandedConnection { transport, host, port, stream, octets });
    true
}

/// Serves on a connection that a predecessor had accepted; one that is gone already ends.
pub(super) async fn adopt(worker: Rc<Worker>, listener: Rc<Listener>, handed: HandedConnection) {
    let HandedConnection { stream, octets, .. } = handed;
    let Ok(peer) = stream.peer_addr() else { return };
    let stream =
        stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
    let Ok(stream) = stream else { return };
    if has_place(&worker, peer.ip(), TCP_OCTETS).await {
        let open = Open::new(&worker, &listener, Some(peer.ip()), TCP_OCTETS);
        connection(worker, listener, open, stream, peer, octets).await;
    }
}
