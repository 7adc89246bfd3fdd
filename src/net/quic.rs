//! DNS over QUIC from clients (RFC 9250): one query on each stream.
//!
//! Owns the endpoint of an address and its connections, their bounds and how they end. Each query
//! goes through the engine as one of TCP does, octets as they come.

use super::listener::Listener;
use super::tcp::{
    self, CONNECTIONS_PER_WORKER_MOST, HeldBack, Open, QUIC_OCTETS, has_place, has_room,
};
use super::worker::Worker;
use crate::dns::{Transport, sizes};
use crate::metrics::names;
use crate::plugin::{Client, Timeouts};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

/// The most queries of one connection at once; QUIC tells it to the client.
pub const QUIC_STREAMS_MOST: u32 = 32;

/// The most connections of an address that wait to be accepted, and the octets kept for them.
const INCOMING_MOST: usize = 256;
const INCOMING_OCTETS: u64 = 1 << 20;

/// Connections of a worker beyond which a new client must first show that its address is its own. So must one for
/// which another connection has to end.
const UNPROVEN_MOST: usize = CONNECTIONS_PER_WORKER_MOST / 4;

/// Connections of an address that have ended, which quinn keeps until no packet of theirs can be on its way; with
/// more nobody is let in.
const ENDED_MOST: usize = CONNECTIONS_PER_WORKER_MOST / 4;

/// A message behind its length, at most.
const FRAME_MOST: usize = 2 + sizes::MESSAGE_MOST;

/// Octets of one stream, and of one connection, that a client may send before they are read. What comes in order
/// is read at once, and more may come; what has a gap before it waits in quinn, as a part of [`QUIC_OCTETS`].
const STREAM_AHEAD: u32 = 8 * 1024;
const AHEAD: u32 = 2 * STREAM_AHEAD;
const _: () = assert!((AHEAD as u64) < QUIC_OCTETS);

/// Unsent octets of one connection beyond which its replies wait.
const UNSENT_MOST: u64 = 64 * 1024;

/// RFC 9250 §4.3.
const NO_ERROR: VarInt = VarInt::from_u32(0);
const INTERNAL_ERROR: VarInt = VarInt::from_u32(1);
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);

/// How often an ending connection looks whether its replies are made.
const LOOK: Duration = Duration::from_millis(5);

/// An endpoint for `socket`; call it inside the worker's runtime.
pub(super) fn open(socket: UdpSocket, listener: &Listener) -> io::Result<Endpoint> {
    let mut configs = Configs::default();
    // Each connection is accepted with the configuration of its time; without one, none would be.
    let config = configs.now(listener).map(|(config, _)| (*config).clone());
    Endpoint::new(EndpointConfig::default(), config, socket, Arc::new(TokioRuntime))
}

/// Accepts until its task is aborted.
pub(super) async fn serve(worker: Rc<Worker>, listener: Rc<Listener>, endpoint: Endpoint) {
    let mut configs = Configs::default();
    while let Some(incoming) = endpoint.accept().await {
        let client = incoming.remote_address().ip();
        let is_crowded =
            worker.open.borrow().len() >= UNPROVEN_MOST || !has_room(&worker, QUIC_OCTETS);
        let ended = endpoint.open_connections().saturating_sub(listener.connections.borrow().len());
        if ended >= ENDED_MOST {
            worker.counters.refused.increment();
            incoming.refuse();
        } else if is_crowded && !incoming.remote_address_validated() {
            // One that was told so already is not told again; it goes without a word.
            let _ = incoming.retry();
        } else if !has_place(&worker, client, QUIC_OCTETS).await {
            incoming.refuse();
        } else if let Some((config, timeouts)) = configs.now(&listener) {
            let Ok(local) = endpoint.local_addr() else { continue };
            // Counted here and not by its task, which has not run when the next one comes.
            let open = Open::new(&worker, &listener, Some(client), QUIC_OCTETS);
            let (worker, listener) = (worker.clone(), listener.clone());
            spawn_local(connection(worker, listener, open, incoming, (config, timeouts), local));
        } else {
            incoming.refuse();
        }
    }
}

/// The configuration of a listener, made anew when its certificate or its timeouts change.
#[derive(Default)]
struct Configs {
    known: Option<(Arc<rustls::ServerConfig>, Timeouts, Arc<ServerConfig>)>,
}

impl Configs {
    fn now(&mut self, listener: &Listener) -> Option<(Arc<ServerConfig>, Timeouts)> {
        let found = listener.with_serving(|serving| {
            let server = &serving.snapshot.servers[serving.server];
            server.tls.clone().map(|tls| (tls, server.timeouts))
        });
        let (tls, timeouts) = found.flatten()?;
        match &self.known {
            Some((known, of, config)) if Arc::ptr_eq(known, &tls) && *of == timeouts => {
                Some((config.clone(), timeouts))
            }
            _ => {
                let config = Arc::new(config(&tls, timeouts)?);
                self.known = Some((tls, timeouts, config.clone()));
                Some((config, timeouts))
            }
        }
    }
}

/// QUIC with the bounds of one connection; `None` when the certificate's settings cannot do QUIC.
fn config(tls: &rustls::ServerConfig, timeouts: Timeouts) -> Option<ServerConfig> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![b"doq".to_vec()];
    let crypto = QuicServerConfig::try_from(tls).ok()?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(QUIC_STREAMS_MOST.into())
        .max_concurrent_uni_streams(0_u32.into())
        .max_idle_timeout(timeouts.idle.try_into().ok())
        .stream_receive_window(STREAM_AHEAD.into())
        .receive_window(AHEAD.into())
        .send_window(UNSENT_MOST)
        .datagram_receive_buffer_size(None);
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING_MOST)
        .incoming_buffer_size_total(INCOMING_OCTETS);
    Some(config)
}

/// What the exchanges of one connection share.
struct Exchanges {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    client: Client,
    timeouts: Timeouts,
    connection: Connection,
    /// What others see of the connection.
    shared: Rc<tcp::Connection>,
    /// Exchanges under way.
    running: Cell<usize>,
}

async fn connection(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    open: Open,
    incoming: Incoming,
    (config, timeouts): (Arc<ServerConfig>, Timeouts),
    local: SocketAddr,
) {
    let Ok(connecting) = incoming.accept_with(config) else {
        worker.counters.accept_errors.increment();
        return;
    };
    let shaken = tokio::select! {
        shaken = timeout(timeouts.read, connecting) => shaken,
        () = open.shared().until_evicted() => return,
    };
    let Ok(Ok(connection)) = shaken else { return };
    // What woke it meanwhile is still to be looked at.
    open.shared().wake();
    let address = connection.remote_address();
    let local_ip = connection.local_ip().unwrap_or(local.ip());
    let client = Client {
        address: SocketAddr::new(address.ip().to_canonical(), address.port()),
        local: SocketAddr::new(local_ip.to_canonical(), local.port()),
        transport: Transport::Quic,
    };
    let exchanges = Rc::new(Exchanges {
        worker: worker.clone(),
        listener: listener.clone(),
        client,
        timeouts,
        connection,
        shared: open.shared().clone(),
        running: Cell::new(0),
    });
    while !listener.is_closed() && !open.shared().is_evicted() {
        tokio::select! {
            stream = exchanges.connection.accept_bi() => match stream {
                Ok((send, receive)) => {
                    spawn_local(exchange(Running::new(&exchanges), send, receive));
                }
                Err(_) => return,
            },
            () = poll_fn(|task| open.shared().poll_woken(task)) => {}
        }
    }
    let end = Instant::now() + timeouts.write;
    while exchanges.running.get() > 0 && Instant::now() < end && !open.shared().is_evicted() {
        sleep(LOOK).await;
    }
    let why = if open.shared().is_evicted() { EXCESSIVE_LOAD } else { NO_ERROR };
    exchanges.connection.close(why, b"");
}

/// An exchange while it is under way.
struct Running(Rc<Exchanges>);

impl Running {
    fn new(exchanges: &Rc<Exchanges>) -> Running {
        exchanges.running.set(exchanges.running.get() + 1);
        exchanges.shared.waits();
        Running(exchanges.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.shared.waits_no_more();
        self.0.shared.is_active_at(Instant::now());
    }
}

/// One query and its reply.
async fn exchange(running: Running, mut send: SendStream, mut receive: RecvStream) {
    let Exchanges { worker, listener, client, timeouts, connection, shared, .. } = &*running.0;
    let read = timeout(timeouts.read, frame_of(&mut receive, shared)).await;
    let Ok(Some(frame)) = read else { return };
    let count = |status| listener.count_response(worker, &names::QUIC_RESPONSES, status);
    let Some(query) = query_of(frame.as_ref()) else {
        count("0x2");
        connection.close(PROTOCOL_ERROR, b"");
        return;
    };
    match worker.reply_to(listener, query, *client).await {
        Some(reply) => {
            count("0x0");
            // A reply is at most 65535 octets (ReplyLimits::stream).
            let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
            let framed = [&length.to_be_bytes(), &reply[..usize::from(length)]].concat();
            let framed = shared.hold_back(framed);
            let written = async {
                send.write_all(framed.as_ref()).await.ok()?;
                send.finish().ok()?;
                // Until the client has it all: then it is no longer under way.
                send.stopped().await.ok()
            };
            if timeout(timeouts.write, written).await.is_err() {
                worker.counters.slow_readers.increment();
            }
        }
        None => {
            count("0x1");
            // Gone already is as good.
            let _ = send.reset(INTERNAL_ERROR);
        }
    }
}

/// All of a stream, counted as it comes; `None` when it is too long or is broken off.
async fn frame_of(receive: &mut RecvStream, shared: &tcp::Connection) -> Option<HeldBack> {
    let mut frame = shared.hold_back(Vec::new());
    while let Some(chunk) = receive.read_chunk(FRAME_MOST, true).await.ok()? {
        if frame.as_ref().len() + chunk.bytes.len() > FRAME_MOST {
            return None;
        }
        shared.hold_more(&mut frame, &chunk.bytes);
    }
    Some(frame)
}

/// The one message of a stream, whose id must be 0 (RFC 9250 §4.2.1).
fn query_of(frame: &[u8]) -> Option<&[u8]> {
    let (length, query) = frame.split_first_chunk::<2>()?;
    let is_whole = usize::from(u16::from_be_bytes(*length)) == query.len();
    (is_whole && query.get(..2) == Some(&[0, 0])).then_some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_one_whole_message_with_id_0() {
        assert_eq!(query_of(b"\0\x03\0\0c"), Some(&b"\0\0c"[..]));
        for frame in [&b""[..], b"\0", b"\0\x03\0\0", b"\0\x03\0\x01c", b"\0\x03\0\0cd", b"\0\0"] {
            assert_eq!(query_of(frame), None, "{frame:?}");
        }
    }
}
