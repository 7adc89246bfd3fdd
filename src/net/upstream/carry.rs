//! The tasks that carry messages: one for each connection to an upstream.
//!
//! Owns the opening of every connection and the reading of UDP sockets; what goes over a stream is
//! [`super::stream`]'s. Ends its connection when it ends, however it ends.

use super::connection::Connection;
use super::dial::{Dialer, SystemRoots, words};
use super::ending::Ending;
use super::lifetime::Upkeep;
use super::limits::DIAL;
use super::messenger::{Broken, Messenger};
use super::pool::Pool;
use super::stream::{frame, serve};
use crate::dns::Transport;
use crate::net::between::{before_long_step, in_turns};
use crate::net::rest::rested;
use socket2::SockRef;
use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The most datagrams read at a time.
const BATCH: usize = 64;

thread_local! {
    /// One datagram at a time: read and delivered without waiting.
    static DATAGRAM: RefCell<Box<[u8]>> = RefCell::new(vec![0; u16::MAX as usize].into());
}

/// Opens `connection` and starts its task on this worker's runtime.
pub(super) fn carry(
    connection: Arc<Connection>,
    pool: Arc<Pool>,
    dialer: Arc<Dialer>,
    roots: Arc<SystemRoots>,
) {
    let ending = Ending { connection, pool };
    if ending.pool.transport == Transport::Udp {
        // Opened here and not in the task: the query that waits can be sent at once.
        match dialer.datagrams() {
            Ok(socket) => {
                ending.connection.established(socket.local_addr().ok());
                // The connection is new: it has no socket yet.
                let _ = ending.connection.socket.set(socket);
                tokio::spawn(in_turns(async move {
                    tokio::select! {
                        () = datagrams(&ending) => {}
                        never = expire(&ending.connection) => match never {},
                    }
                }));
            }
            Err(error) => ending.connection.close(&error),
        }
        return;
    }
    tokio::spawn(in_turns(async move {
        let error = tokio::select! {
            error = stream(&ending, &dialer, &roots) => error,
            never = expire(&ending.connection) => match never {},
        };
        ending.connection.close(&error);
    }));
}

/// Ends the queries in flight whose time is over: one timer for all of a connection.
async fn expire(connection: &Connection) -> Infallible {
    loop {
        let next = connection.expire(Instant::now());
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = connection.hurried() => {}
        }
    }
}

/// Reads a UDP socket until it is over.
async fn datagrams(ending: &Ending) {
    let connection = &ending.connection;
    let Some(socket) = connection.socket.get() else { return };
    loop {
        let Upkeep::At(next) = connection.upkeep(Instant::now()) else { return };
        tokio::select! {
            ready = socket.ready(Interest::READABLE | Interest::ERROR) => match ready {
                Ok(ready) => {
                    receive(ending, socket, Interest::READABLE);
                    // An ICMP error alone does not make a socket readable.
                    if ready.is_error() {
                        receive(ending, socket, Interest::ERROR);
                    }
                    rested().await;
                }
                Err(error) => return connection.close(&connection.words(&words(&error))),
            },
            () = tokio::time::sleep_until(next.into()) => {}
            () = connection.woken() => {}
        }
    }
}

/// Delivers the datagrams that are there, a batch at most: other sockets are served by this thread
/// too.
fn receive(ending: &Ending, socket: &tokio::net::UdpSocket, interest: Interest) {
    let connection = &ending.connection;
    DATAGRAM.with_borrow_mut(|buffer| {
        for _ in 0..BATCH {
            // Not `try_recv`, which would leave the readiness for errors as it is.
            match socket.try_io(interest, || (&*SockRef::from(socket)).read(buffer)) {
                Ok(length) => ending.deliver(&buffer[..length], Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error: the queries in flight will not be answered, the socket lives on.
                Err(error) => {
                    let what = format!("read: {}", words(&error));
                    connection.fail(&connection.words(&what), None);
                }
            }
        }
    });
}

/// Connects a stream and serves it until it is over; gives Go's words for its end. What its task keeps
/// for as long as the connection lives is what plain TCP needs: the rest is boxed.
async fn stream(ending: &Ending, dialer: &Dialer, roots: &Arc<SystemRoots>) -> String {
    let connection = &ending.connection;
    let dialled = async {
        let pause = ending.pool.pause(Instant::now());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        tokio::time::timeout(DIAL, dial(ending, dialer, roots)).await
    };
    match Box::pin(dialled).await {
        Err(_) => connection.words("i/o timeout"),
        Ok(Err(error)) => error,
        Ok(Ok(Dialled::Tcp(stream))) => {
            let (reader, writer) = stream.into_split();
            serve(ending, reader, writer).await
        }
        Ok(Ok(Dialled::Tls(stream))) => {
            let (reader, writer) = tokio::io::split(stream);
            Box::pin(serve(ending, reader, writer)).await
        }
        Ok(Ok(Dialled::Messages(messenger))) => Box::pin(messages(ending, *messenger)).await,
    }
}

/// Connects; gives Go's words for what failed.
async fn dial(
    ending: &Ending,
    dialer: &Dialer,
    roots: &Arc<SystemRoots>,
) -> Result<Dialled, String> {
    let connection = &ending.connection;
    if ending.pool.transport == Transport::Quic {
        let messenger = Box::pin(dialer.quic(roots)).await?;
        connection.established(None);
        return Ok(Dialled::Messages(Box::new(messenger)));
    }
    before_long_step();
    let stream = match dialer.stream().await {
        Ok(stream) => stream,
        Err(error) => {
            // All who wait for this dial know now, and so do those who come next.
            ending.pool.refused(Instant::now(), &error);
            before_long_step();
            connection.refuse(&error);
            return Err(error);
        }
    };
    ending.pool.taken();
    let local = stream.local_addr().ok();
    let dialled = match ending.pool.transport {
        Transport::Tls => Dialled::Tls(Box::new(Box::pin(dialer.secured(stream, roots)).await?)),
        Transport::Https => {
            Dialled::Messages(Box::new(Box::pin(dialer.https(stream, roots)).await?))
        }
        _ => Dialled::Tcp(stream),
    };
    connection.established(local);
    Ok(dialled)
}

/// What was connected.
enum Dialled {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Messages(Box<Messenger>),
}

/// Asks what is parked, each query by itself, until the connection is over.
async fn messages(ending: &Ending, mut messenger: Messenger) -> String {
    let connection = &ending.connection;
    // As many as are in flight, each for the time of a try at most; gone with this task.
    let mut asked = JoinSet::new();
    while let Some(octets) = connection.take_outgoing() {
        let mut rest = octets.as_slice();
        while let Some(message) = frame(rest) {
            rest = &rest[2 + message.len()..];
            let id = u16::from_be_bytes([message[0], message[1]]);
            match messenger.ask(message) {
                Ok(answer) => {
                    asked.spawn(async move { (id, answer.await) });
                }
                Err(text) => connection.fail_one(id, &text),
            }
        }
        let Upkeep::At(next) = connection.upkeep(Instant::now()) else { break };
        tokio::select! {
            Some(answered) = asked.join_next() => match answered {
                Ok((id, Ok(mut message))) if message.len() >= 2 => {
                    message[..2].copy_from_slice(&id.to_be_bytes());
                    ending.deliver(&message, Instant::now());
                }
                Ok((_, Err(Broken::Connection(text)))) => return connection.words(&text),
                Ok((id, Err(Broken::Query(text)))) => {
                    connection.fail_one(id, &connection.words(&text));
                }
                // Too short for a message, or the task is gone: its query's time ends by itself.
                Ok(_) | Err(_) => ending.pool.ignored.increment(),
            },
            () = connection.woken() => {}
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
    connection.words("use of closed network connection")
}
