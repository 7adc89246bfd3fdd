//! DNS over HTTPS from clients (RFC 8484): HTTP/2 and HTTP/1.1, GET and POST of `/dns-query`.
//!
//! Owns the connections' HTTP, which hyper speaks on the worker's own thread, and how long they may
//! be idle. Each query goes through the engine as one of TCP does, octets as they come. Knows
//! nothing of what a message means but the lifetime that HTTP is told.

use super::doh::{MESSAGE_TYPE, PATH, cut_at, message_of};
use super::listener::Listener;
use super::tcp::{Connection, Open, client_of};
use super::worker::Worker;
use crate::dns::{Message, RecordType, Transport, sizes};
use crate::metrics::names;
use crate::plugin::{Client, Timeouts};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

/// The most queries of one connection at once; HTTP/2 tells it to the client.
pub const STREAMS_MOST: u32 = 32;

/// The greatest header of a request in octets.
const HEADER_MOST: u32 = 16 * 1024;

/// Octets of responses that a connection keeps for sending before it takes no more.
const SENDING_MOST: usize = 64 * 1024;

/// The greatest query: a DNS message.
const QUERY_MOST: usize = sizes::MESSAGE_MOST;

/// How often a connection that waits for upstreams alone looks at itself.
const LOOK: Duration = Duration::from_secs(30);

/// The lifetime that HTTP is told for a response, at most, and for one without records (CoreDNS's).
const LIFETIME_MOST: u32 = 3_600;
const LIFETIME_EMPTY: u32 = 5;

const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// One connection, from the handshake to its end.
pub(super) async fn connection(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    open: Open,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let Some(client) = client_of(&stream, peer, Transport::Https) else { return };
    let found = listener.with_serving(|serving| {
        let server = &serving.snapshot.servers[serving.server];
        (server.timeouts, server.tls.clone())
    });
    let Some((timeouts, tls)) = found else { return };
    let exchanges = Rc::new(Exchanges {
        worker: worker.clone(),
        listener: listener.clone(),
        client,
        timeouts,
        shared: open.shared().clone(),
        running: Cell::new(0),
        spoken: Cell::new(false),
        active: Cell::new(Instant::now()),
    });
    match tls {
        // Without `tls` it is plain HTTP, as in CoreDNS.
        None => exchanges.serve_http1(stream, &open).await,
        Some(config) => {
            let acceptor = TlsAcceptor::from(with_http(&config));
            let shaken = tokio::select! {
                shaken = timeout(timeouts.read, acceptor.accept(stream)) => shaken,
                () = exchanges.shared.until_evicted() => return,
            };
            let Ok(Ok(stream)) = shaken else { return };
            // What woke it meanwhile is still to be looked at.
            exchanges.shared.wake();
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                exchanges.serve_http2(stream, &open).await;
            } else {
                exchanges.serve_http1(stream, &open).await;
            }
        }
    }
}

/// The configuration with HTTP's names in the handshake.
fn with_http(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Runs the tasks of HTTP/2 streams on the worker's thread.
#[derive(Clone, Copy)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// What the exchanges of one connection share.
struct Exchanges {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    client: Client,
    timeouts: Timeouts,
    /// What others see of the connection.
    shared: Rc<Connection>,
    /// Exchanges under way.
    running: Cell<usize>,
    /// A request came.
    spoken: Cell<bool>,
    /// When the last exchange began or ended.
    active: Cell<Instant>,
}

/// An exchange while it is under way.
struct Running(Rc<Exchanges>);

impl Running {
    fn new(exchanges: &Rc<Exchanges>) -> Running {
        exchanges.running.set(exchanges.running.get() + 1);
        exchanges.spoken.set(true);
        exchanges.active.set(Instant::now());
        exchanges.shared.waits();
        Running(exchanges.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.active.set(Instant::now());
        self.0.shared.waits_no_more();
        self.0.shared.is_active_at(self.0.active.get());
    }
}

impl Exchanges {
    async fn serve_http2(self: Rc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, open: &Open) {
        let exchanges = self.clone();
        let service = service_fn(move |request| exchanges.clone().respond(request));
        let connection = http2::Builder::new(Here)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MOST)
            .max_header_list_size(HEADER_MOST)
            .max_send_buf_size(SENDING_MOST)
            .serve_connection(TokioIo::new(stream), service);
        let connection = pin!(connection);
        self.watch(connection, |connection| connection.graceful_shutdown(), open).await;
    }

    async fn serve_http1(self: Rc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, open: &Open) {
        let exchanges = self.clone();
        let service = service_fn(move |request| exchanges.clone().respond(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.timeouts.idle)
            .max_buf_size(HEADER_MOST as usize)
            .serve_connection(TokioIo::new(stream), service);
        let connection = pin!(connection);
        self.watch(connection, |connection| connection.graceful_shutdown(), open).await;
    }

    /// Runs a connection until it is over, idle for too long, or its listener is gone; then what is
    /// under way has the write time to end. One that makes room for another ends at once.
    async fn watch<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        end: impl Fn(Pin<&mut C>),
        open: &Open,
    ) {
        let mut last = None;
        loop {
            let until = last.unwrap_or_else(|| self.deadline());
            tokio::select! {
                _ = connection.as_mut() => return,
                () = poll_fn(|task| open.shared().poll_woken(task)) => {
                    if !self.listener.is_closed() && !self.shared.is_evicted() {
                        continue;
                    }
                }
                () = sleep_until(until) => {
                    if last.is_none() && self.deadline() > Instant::now() {
                        continue;
                    }
                }
            }
            match last {
                Some(last) if last <= Instant::now() => return,
                Some(_) => {}
                None => {
                    end(connection.as_mut());
                    if self.shared.is_evicted() {
                        // One turn, to say goodbye in.
                        let turn =
                            |task: &mut Context<'_>| Poll::Ready(connection.as_mut().poll(task));
                        drop(poll_fn(turn).await);
                        return;
                    }
                    last = Some(Instant::now() + self.timeouts.write);
                }
            }
        }
    }

    fn deadline(&self) -> Instant {
        if self.running.get() > 0 {
            return Instant::now() + LOOK;
        }
        let lasts = if self.spoken.get() { self.timeouts.idle } else { self.timeouts.read };
        self.active.get() + lasts
    }

    async fn respond(
        self: Rc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let running = Running::new(&self);
        let is_head = request.method() == Method::HEAD;
        let mut response = match self.query_of(request).await {
            Err(refused) => refused,
            // More than HTTP/2 allows: of those that were taken back, too many are still under way.
            Ok(_) if self.running.get() > STREAMS_MOST as usize => {
                text(StatusCode::SERVICE_UNAVAILABLE, "too many queries in flight")
            }
            Ok(query) => match answered(running, query).await {
                Some(reply) => message(reply, &self.shared),
                None => text(StatusCode::INTERNAL_SERVER_ERROR, "No response"),
            },
        };
        if is_head {
            take_body(&mut response);
        }
        let status = response.status();
        self.listener.count_response(&self.worker, &names::HTTPS_RESPONSES, status.as_str());
        Ok(response)
    }

    /// The body of a request, counted as it comes; `None` when it is too long or is broken off.
    async fn body(&self, request: Request<Incoming>) -> Option<Bytes> {
        let mut body = Limited::new(request.into_body(), QUERY_MOST);
        let mut held = self.shared.hold_back(Vec::new());
        while let Some(frame) = body.frame().await {
            if let Ok(octets) = frame.ok()?.into_data() {
                self.shared.hold_more(&mut held, &octets);
            }
        }
        Some(Bytes::from_owner(held))
    }

    /// The DNS message of a request, or the response when there is none, in CoreDNS's words.
    async fn query_of(&self, request: Request<Incoming>) -> Result<Bytes, Response<Full<Bytes>>> {
        let bad = |why: &str| text(StatusCode::BAD_REQUEST, why);
        if request.uri().path() != PATH {
            return Err(text(StatusCode::NOT_FOUND, ""));
        }
        let query = match *request.method() {
            Method::GET => {
                let found = message_of(request.uri().query().unwrap_or_default());
                found.map(Bytes::from).map_err(|why| bad(&why))?
            }
            Method::POST => match timeout(self.timeouts.read, self.body(request)).await {
                Ok(Some(body)) => body,
                Ok(None) => return Err(bad("http: request body too large")),
                Err(_) => return Err(text(StatusCode::REQUEST_TIMEOUT, "i/o timeout")),
            },
            ref method => return Err(bad(&format!("method not allowed: {method}"))),
        };
        match query.len() {
            length @ 0..sizes::HEADER => Err(bad(&cut_at(length))),
            _ => Ok(query),
        }
    }
}

/// The reply to a query, made by a task of its own: hyper drops an exchange whose client takes it back, and
/// others may wait for what was asked upstream for it.
async fn answered(running: Running, query: Bytes) -> Option<Vec<u8>> {
    let (teller, told) = oneshot::channel();
    spawn_local(async move {
        let Exchanges { worker, listener, client, .. } = &*running.0;
        let reply = worker.reply_to(listener, &query, *client).await;
        drop(running);
        // Taken back, it has nobody to be told.
        let _ = teller.send(reply);
    });
    told.await.ok().flatten()
}

fn message(reply: Vec<u8>, connection: &Connection) -> Response<Full<Bytes>> {
    let lifetime = HeaderValue::from_str(&format!("max-age={}", lifetime(&reply)));
    // Also while hyper keeps it: a client may open no window for it.
    let reply = Bytes::from_owner(connection.hold_back(reply));
    let mut response = Response::new(Full::new(reply));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MESSAGE_TYPE));
    if let Ok(lifetime) = lifetime {
        headers.insert(CACHE_CONTROL, lifetime);
    }
    response
}

/// The least TTL of a reply (RFC 8484 §5.1).
fn lifetime(reply: &[u8]) -> u32 {
    let Ok(reply) = Message::parse(reply) else { return 0 };
    let records = reply.records().filter(|record| record.rtype != RecordType::OPT);
    let least = records.map(|record| record.ttl).min();
    least.map_or(LIFETIME_EMPTY, |ttl| ttl.min(LIFETIME_MOST))
}

/// Leaves of a response what HEAD is answered with (RFC 9110 §9.3.2). hyper does so over HTTP/1.1 alone:
/// over HTTP/2 a client ends the stream at the octets of a body.
fn take_body(response: &mut Response<Full<Bytes>>) {
    let body = std::mem::take(response.body_mut());
    if let Some(length) = body.size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

fn text(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{why}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_TYPE));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Class, Section, Writer};

    #[test]
    fn http_is_told_the_least_ttl_within_an_hour() {
        let told = |ttls: &[u32]| {
            let mut reply = Vec::new();
            let mut writer = Writer::new(&mut reply, 0, 0x8180);
            for ttl in ttls {
                writer.raw_record(Section::Answer, &[0], RecordType::NS, Class::IN, *ttl, &[0]);
            }
            // The flags of an OPT are no TTL.
            writer.raw_record(Section::Additional, &[0], RecordType::OPT, Class(1232), 0, &[]);
            lifetime(&reply)
        };
        assert_eq!(told(&[30, 20, 86_400]), 20);
        assert_eq!(told(&[86_400]), 3_600);
        assert_eq!(told(&[]), 5);
        assert_eq!(lifetime(b"no message"), 0);
    }
}
