//! One listening address: accepts connections, within bounds, until it is dropped.

use super::Endpoints;
use super::listen::listen;
use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

/// The greatest number of open connections of one address; one more takes the place of the oldest.
pub const MOST_CONNECTIONS: usize = 64;

/// How long a client may take to send a request's header; also how long a connection may be idle
/// (CoreDNS's 5 s).
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The greatest length in octets of a request's header: each connection may hold as much.
const MOST_HEADER: usize = 16 * 1024;

/// How long a connection may live; then it is closed behind the request that is being served.
const LONGEST_CONNECTION: Duration = Duration::from_secs(60);

/// How long [`Site::rest`] waits for requests under way.
const REST_TIME: Duration = Duration::from_secs(2);

/// How often it looks.
const REST_LOOK: Duration = Duration::from_millis(2);

/// The pause after accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening address. Dropping it closes the socket and its connections, in the runtime's next turn.
#[derive(Debug)]
pub struct Site {
    address: SocketAddr,
    endpoints: Arc<ArcSwap<Endpoints>>,
    /// A second descriptor of the socket, for a successor.
    socket: std::net::TcpListener,
    /// True while nothing is to be accepted.
    rests: watch::Sender<bool>,
    /// True once nothing is.
    is_resting: watch::Receiver<bool>,
    places: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Site {
    /// Listens on `address` and serves `endpoints` on the current runtime. The error is
    /// [`listen`]'s.
    pub fn open(address: &str, endpoints: Endpoints) -> Result<Site, String> {
        Site::on(listen(address)?, endpoints)
            .map_err(|error| format!("listen tcp {address}: {error}"))
    }

    /// Serves `endpoints` on a socket that listens already, as a predecessor's does.
    ///
    /// # Errors
    ///
    /// The kernel's: the process has no descriptor left.
    pub fn on(socket: std::net::TcpListener, endpoints: Endpoints) -> io::Result<Site> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let listener = TcpListener::from_std(socket.try_clone()?)?;
        let endpoints = Arc::new(ArcSwap::from_pointee(endpoints));
        let (rests, resting) = watch::channel(false);
        let (told, is_resting) = watch::channel(false);
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let rest = Rest { wanted: resting, told };
        let task = tokio::spawn(accept(listener, endpoints.clone(), places.clone(), rest));
        Ok(Site { address, endpoints, socket, rests, is_resting, places, task })
    }

    /// Closes the socket and its connections; returns once they are closed.
    pub async fn close(mut self) {
        self.task.abort();
        // It was told to end: that is no error.
        let _ = (&mut self.task).await;
    }

    /// A further descriptor of the socket, for a successor.
    ///
    /// # Errors
    ///
    /// The kernel's: the process has no descriptor left.
    pub fn share(&self) -> io::Result<std::net::TcpListener> {
        self.socket.try_clone()
    }

    /// Accepts nothing more, as a successor does it, and ends connections behind the request that is
    /// being served. Returns when all have ended, two seconds later at the latest.
    pub async fn rest(&self) {
        self.rests.send_replace(true);
        let end = Instant::now() + REST_TIME;
        // Until the task has heard of it, it may take one more.
        let _ = timeout_at(end, self.is_resting.clone().wait_for(|rests| *rests)).await;
        while self.places.available_permits() < MOST_CONNECTIONS && Instant::now() < end {
            sleep(REST_LOOK).await;
        }
    }

    /// Accepts again.
    pub fn resume(&self) {
        self.rests.send_replace(false);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces what it serves, and the TLS of new connections; connections stay.
    pub fn serve(&self, endpoints: Endpoints) {
        self.endpoints.store(Arc::new(endpoints));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task that accepts hears of rests, and what it tells.
struct Rest {
    wanted: watch::Receiver<bool>,
    told: watch::Sender<bool>,
}

impl Rest {
    /// Waits through a rest, if there is one; false when there is no site any more.
    async fn is_over(&mut self) -> bool {
        if *self.wanted.borrow_and_update() {
            self.told.send_replace(true);
            if self.wanted.wait_for(|rests| !rests).await.is_err() {
                return false;
            }
            self.told.send_replace(false);
        }
        true
    }
}

/// Connections live in a set that ends with this task: an aborted site leaves none behind.
async fn accept(
    listener: TcpListener,
    endpoints: Arc<ArcSwap<Endpoints>>,
    places: Arc<Semaphore>,
    mut rest: Rest,
) {
    let mut connections = tokio::task::JoinSet::new();
    // The oldest first.
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        while connections.try_join_next().is_some() {}
        open.retain(|connection| !connection.is_finished());
        if !rest.is_over().await {
            return;
        }
        let accepted = tokio::select! {
            // Nothing more once a rest is wanted, be there ever so many.
            biased;
            _ = rest.wanted.changed() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(_) => {
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if places.available_permits() == 0
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        // It goes in the runtime's next turn.
        if let Ok(place) = places.clone().acquire_owned().await {
            let (endpoints, resting) = (endpoints.clone(), rest.wanted.clone());
            open.push_back(connections.spawn(async move {
                let tls = endpoints.load().tls.clone();
                match tls.map(TlsAcceptor::from) {
                    None => connection(stream, endpoints, resting).await,
                    Some(acceptor) => {
                        if let Ok(Ok(stream)) =
                            timeout(HEADER_TIMEOUT, acceptor.accept(stream)).await
                        {
                            connection(stream, endpoints, resting).await;
                        }
                    }
                }
                drop(place);
            }));
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    endpoints: Arc<ArcSwap<Endpoints>>,
    mut resting: watch::Receiver<bool>,
) {
    let asked = Arc::new(Notify::new());
    let has_asked = asked.clone();
    let service = service_fn(move |request| {
        has_asked.notify_one();
        let endpoints = endpoints.load_full();
        async move { Ok::<_, Infallible>(endpoints.answer(&request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // `Content-Type`, as Go writes names: some scripts compare letters.
            .title_case_headers(true)
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MOST_HEADER)
            .serve_connection(TokioIo::new(stream), service)
    );
    // What a client does wrong is its own loss: errors of a connection end it, no more.
    let rests = async {
        // Without the sender there is no site any more.
        let _ = resting.wait_for(|rests| *rests).await;
        // hyper would close one that nothing has come on yet, and its first request would be lost.
        asked.notified().await;
    };
    let is_to_end = tokio::select! {
        ended = timeout(LONGEST_CONNECTION, connection.as_mut()) => ended.is_err(),
        () = rests => true,
    };
    if is_to_end {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(HEADER_TIMEOUT, connection).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Alive, poll_health};
    use super::*;
    use crate::net::tests::ports;
    use std::io::{Read, Write};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Nothing but a mistake takes as long.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_site_serves_until_it_is_closed() {
        let port = runtime().block_on(async {
            let health = Endpoints { health: Some(Arc::new(Alive)), ..Endpoints::default() };
            // A port that nobody else gets once it is free again.
            let address = format!("127.0.0.1:{}", ports::free_port());
            let site = Site::open(&address, health).unwrap();
            assert!(poll_health(&address, PATIENCE).await.is_ok());
            site.serve(Endpoints::default());
            assert!(poll_health(&address, PATIENCE).await.is_ok());
            let port = site.address().port();
            assert!(ports::listens(port));
            site.close().await;
            assert!(!ports::listens(port));
            port
        });
        ports::is_given_up(port);
    }

    #[test]
    fn a_site_that_rests_takes_nothing_more() {
        runtime().block_on(async {
            let site = Site::open("127.0.0.1:0", Endpoints::default()).unwrap();
            for _ in 0..100 {
                // It has come before the rest, and nobody has looked at it.
                let mut client = tokio::net::TcpStream::connect(site.address()).await.unwrap();
                site.rest().await;
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                    assert_eq!(site.places.available_permits(), MOST_CONNECTIONS);
                }
                site.resume();
                let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                client.write_all(request).await.unwrap();
                let mut text = String::new();
                client.read_to_string(&mut text).await.unwrap();
                assert!(text.starts_with("HTTP/1.1 404"), "{text}");
            }
        });
    }

    #[test]
    fn while_a_site_rests_its_socket_is_a_successors() {
        runtime().block_on(async {
            let health = Endpoints { health: Some(Arc::new(Alive)), ..Endpoints::default() };
            let site = Site::open("127.0.0.1:0", health.clone()).unwrap();
            let address = site.address().to_string();
            let within = async |time| poll_health(&address, time).await.is_ok();
            let is_answered = async || within(PATIENCE).await;
            let is_left = async || !within(Duration::from_millis(300)).await;
            let second = site.share().unwrap();
            site.rest().await;
            assert!(is_left().await, "nobody accepts");
            let successor = Site::on(second, health).unwrap();
            for _ in 0..20 {
                assert!(is_answered().await);
            }
            drop(successor);
            assert!(is_left().await);
            site.resume();
            for _ in 0..20 {
                assert!(is_answered().await);
            }
        });
    }

    #[test]
    fn a_request_on_a_connection_that_was_just_accepted_is_answered_while_the_site_rests() {
        runtime().block_on(async {
            let health = Endpoints { health: Some(Arc::new(Alive)), ..Endpoints::default() };
            let site = Site::open("127.0.0.1:0", health).unwrap();
            let mut client = tokio::net::TcpStream::connect(site.address()).await.unwrap();
            while site.places.available_permits() == MOST_CONNECTIONS {
                tokio::task::yield_now().await;
            }
            let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
            let ask = async {
                sleep(Duration::from_millis(50)).await;
                client.write_all(request).await.unwrap();
                let mut text = String::new();
                client.read_to_string(&mut text).await.unwrap();
                text
            };
            let ((), text) = tokio::join!(site.rest(), ask);
            // And the connection ends behind it.
            assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("OK"), "{text}");
        });
    }

    #[test]
    fn beyond_the_bound_the_oldest_connection_makes_room() {
        runtime().block_on(async {
            let health = Endpoints { health: Some(Arc::new(Alive)), ..Endpoints::default() };
            let site = Site::open("127.0.0.1:0", health).unwrap();
            let connect = async || {
                let mut stream = tokio::net::TcpStream::connect(site.address()).await.unwrap();
                stream.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
                stream
            };
            let mut streams = VecDeque::new();
            for _ in 0..MOST_CONNECTIONS + 2 {
                streams.push_back(connect().await);
            }
            for _ in 0..2 {
                let mut oldest = streams.pop_front().unwrap();
                // Reset, since what it had sent was not read, or just closed.
                let ended = timeout(PATIENCE, oldest.read(&mut [0; 1])).await.unwrap();
                assert!(!matches!(ended, Ok(1..)), "{ended:?}");
            }
            let mut last = streams.pop_back().unwrap();
            last.write_all(b"Host: x\r\n\r\n").await.unwrap();
            let mut line = [0; 12];
            last.read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"HTTP/1.1 200");
            assert_eq!(site.places.available_permits(), 0);
        });
    }

    #[test]
    fn a_header_beyond_its_bound_is_refused() {
        runtime().block_on(async {
            let health = Endpoints { health: Some(Arc::new(Alive)), ..Endpoints::default() };
            let site = Site::open("127.0.0.1:0", health).unwrap();
            for (length, status) in [(MOST_HEADER / 2, "200"), (2 * MOST_HEADER, "431")] {
                let (reader, mut writer) =
                    tokio::net::TcpStream::connect(site.address()).await.unwrap().into_split();
                let padding = "x".repeat(length);
                let request = format!(
                    "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {padding}\r\n\r\n"
                );
                // The rest of what is refused is not read.
                let sent = tokio::spawn(async move {
                    let _ = writer.write_all(request.as_bytes()).await;
                });
                let mut line = [0; 12];
                { reader }.read_exact(&mut line).await.unwrap();
                assert_eq!(String::from_utf8_lossy(&line), format!("HTTP/1.1 {status}"));
                sent.await.unwrap();
            }
        });
    }

    #[test]
    fn head_has_no_body() {
        let runtime = runtime();
        let site = runtime.block_on(async {
            let health = Endpoints { health: Some(Arc::new(Alive)), ..Endpoints::default() };
            Site::open("127.0.0.1:0", health).unwrap()
        });
        let address = site.address();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream
                .write_all(b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let text = runtime.block_on(async {
            while !client.is_finished() {
                sleep(Duration::from_millis(5)).await;
            }
            client.join().unwrap()
        });
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("Content-Length: 2\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }
}
