//! Connections in: framing, pipelining, and what a client may do to us.
//!
//! One task per connection. Queries that hit are answered as they are read, those that wait are
//! tasks whose replies join the connection's unsent octets in whatever order they come (RFC 7766
//! §6.2.1.1). Nothing is read while too much is unsent or waits: a client that does not read
//! holds up itself alone.

mod held;
mod open;
mod patience;
mod reader;

use super::handed::bequeath;
use super::https;
use super::listener::Listener;
use super::stream::Stream;
use super::worker::Worker;
use crate::corefile::KeyTransport;
use crate::dns::Transport;
use crate::plugin::Client;
use crate::sys::errors::is_exhausted;
pub(super) use held::HeldBack;
#[cfg(test)]
pub(super) use open::OCTETS_LEAST;
pub use open::{CONNECTIONS_PER_WORKER_MOST, UNSENT_MOST, WAITING_PER_CONNECTION_MOST};
pub(super) use open::{
    Connection, HTTPS_OCTETS, Open, QUIC_OCTETS, TCP_OCTETS, connections_most, has_place, has_room,
};
use open::{KEPT_OCTETS, TLS_OCTETS};
use patience::Patience;
use reader::Reader;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{consume_budget, spawn_local, yield_now};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Octets read by one system call, at most.
pub(super) const READ_OCTETS: usize = 16 * 1024;

/// The pause after running out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until its task is aborted; no error ends it.
pub(super) async fn accept(worker: Rc<Worker>, listener: Rc<Listener>, socket: TcpListener) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                let transport = listener.with_serving(|serving| {
                    let server = &serving.snapshot.servers[serving.server];
                    (server.transport, server.tls.is_some())
                });
                let octets = match transport {
                    Some((KeyTransport::Https, _)) => HTTPS_OCTETS,
                    Some((KeyTransport::Tls, true)) => TLS_OCTETS,
                    _ => TCP_OCTETS,
                };
                if !has_place(&worker, peer.ip(), octets).await {
                    continue;
                }
                // Replies are small and complete; without this they wait for acknowledgements. One that is
                // handed over has it from its first process.
                let _ = stream.set_nodelay(true);
                // Counted here and not by its task, which has not run when the next one is accepted.
                let open = Open::new(&worker, &listener, Some(peer.ip()), octets);
                let (worker, listener) = (worker.clone(), listener.clone());
                match transport {
                    Some((KeyTransport::Https, _)) => {
                        spawn_local(https::connection(worker, listener, open, stream, peer));
                    }
                    _ => {
                        spawn_local(connection(worker, listener, open, stream, peer, Vec::new()));
                    }
                }
            }
            Err(error) => {
                worker.counters.accept_errors.increment();
                match is_exhausted(&error) {
                    true => sleep(EXHAUSTED_PAUSE).await,
                    false => yield_now().await,
                }
            }
        }
        consume_budget().await;
    }
}

/// Who asks over `stream`; `None` when it is gone already.
pub(super) fn client_of(
    stream: &TcpStream,
    peer: SocketAddr,
    transport: Transport,
) -> Option<Client> {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let local = stream.local_addr().ok()?;
    Some(Client { address: canonical(peer), local: canonical(local), transport })
}

/// Serves a connection until it ends; `octets` were read of it before.
pub(super) async fn connection(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    open: Open,
    stream: TcpStream,
    peer: SocketAddr,
    octets: Vec<u8>,
) {
    let shared = open.shared();
    let tls = listener.with_serving(|serving| {
        let server = &serving.snapshot.servers[serving.server];
        // Without `tls` it is plain TCP on another port, as in CoreDNS.
        server.tls.clone().filter(|_| server.transport == KeyTransport::Tls)
    });
    let tls = tls.flatten();
    let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
    let Some(client) = client_of(&stream, peer, transport) else { return };
    let Ok(mut stream) = Stream::new(stream, tls) else { return };
    let timeouts = listener
        .with_serving(|serving| serving.snapshot.servers[serving.server].timeouts)
        .unwrap_or_default();
    let mut reader = Reader {
        worker: &worker,
        listener: &listener,
        client,
        partial: octets,
        left: timeouts.queries,
        moment: Instant::now(),
    };
    let mut patience = Patience::new(timeouts);
    let mut alarm = pin!(sleep_until(patience.deadline(shared, &stream)));
    let (mut more_to_read, mut has_ended) = (true, false);
    // Whether this turn may have kept datagrams waiting.
    let mut was_long = false;
    loop {
        if !matches!(send(&mut stream, shared, reader.moment), Ok(())) || shared.is_evicted() {
            return;
        }
        if std::mem::take(&mut was_long) {
            worker.look_if_time();
        }
        if !shared.is_full() && !listener.is_closed() && reader.has_frame() {
            // Held back while the connection was full.
            reader.serve_frames(shared, &mut patience);
            continue;
        }
        more_to_read &= !listener.is_closed() && reader.left > 0;
        let unsent = !shared.unsent.borrow().is_empty() || stream.has_unsent();
        if !more_to_read && !unsent && shared.waiting.get() == 0 {
            // One that its client closed has nothing to be asked any more.
            if !has_ended && reader.left > 0 {
                bequeath(&listener, &stream, &mut reader.partial);
            }
            return;
        }
        let wanted = Wanted { reading: more_to_read && !shared.is_full(), writing: unsent };
        match wait(&stream, shared, wanted, alarm.as_mut()).await {
            Ok(Wake::Readable) => {
                let read = |task: &mut task::Context<'_>| {
                    Poll::Ready(reader.read(task, &mut stream, shared, &mut patience))
                };
                let Ok(more) = poll_fn(read).await else { return };
                // What was read may be asked upstream, which takes as long as several hits.
                was_long = worker.is_crowded();
                more_to_read = more;
                has_ended = !more;
            }
            Ok(Wake::Look) => {
                reader.moment = Instant::now();
                // Hundreds of queries may fail together, and each reply is a system call.
                was_long = true;
            }
            Ok(Wake::Alarm) => {
                reader.moment = Instant::now();
                let deadline = patience.deadline(shared, &stream);
                if deadline <= reader.moment {
                    if unsent {
                        worker.counters.slow_readers.increment();
                    }
                    return;
                }
                alarm.as_mut().reset(deadline);
            }
            Err(_) => return,
        }
        let deadline = patience.deadline(shared, &stream);
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
    }
}

/// What a connection's socket is waited for.
#[derive(Clone, Copy)]
struct Wanted {
    reading: bool,
    writing: bool,
}

/// What ended a wait.
enum Wake {
    /// There is something to read.
    Readable,
    /// A reply came up, there is room to write, or the listener changed.
    Look,
    /// The alarm.
    Alarm,
}

/// Waits for whatever comes first. By hand, since this runs once for every turn of a connection.
async fn wait(
    stream: &Stream,
    connection: &Connection,
    wanted: Wanted,
    mut alarm: Pin<&mut Sleep>,
) -> io::Result<Wake> {
    poll_fn(|task| {
        if connection.poll_woken(task).is_ready() {
            return Poll::Ready(Ok(Wake::Look));
        }
        if wanted.reading
            && let Poll::Ready(ready) = stream.poll_read_ready(task)
        {
            return Poll::Ready(ready.map(|()| Wake::Readable));
        }
        if wanted.writing
            && let Poll::Ready(ready) = stream.poll_write_ready(task)
        {
            return Poll::Ready(ready.map(|()| Wake::Look));
        }
        alarm.as_mut().poll(task).map(|()| Ok(Wake::Alarm))
    })
    .await
}

/// Sends what the client takes now, which is about `moment`.
fn send(stream: &mut Stream, connection: &Connection, moment: Instant) -> io::Result<()> {
    stream.flush()?;
    let mut unsent = connection.unsent.borrow_mut();
    let mut sent = 0;
    while sent < unsent.len() {
        match stream.try_write(&unsent[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    if sent > 0 {
        connection.is_active_at(moment);
    }
    match sent == unsent.len() {
        true if unsent.capacity() > KEPT_OCTETS => *unsent = Vec::new(),
        true => unsent.clear(),
        false => drop(unsent.drain(..sent)),
    }
    Ok(())
}
