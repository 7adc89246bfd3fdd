//! DNS over HTTP/3 from clients, carried by hickory-server.
//!
//! Owns the endpoint of an address, who may open a connection, and how it ends. hickory-server
//! accepts, speaks QUIC and HTTP, and encodes; each query goes through the engine as one of TCP
//! does. What hickory-server leaves unbounded stands in docs/plugins/tls.md.

use super::listener::Listener;
use super::tcp::{Open, QUIC_OCTETS};
use super::worker::Worker;
use crate::corefile::KeyTransport;
use crate::dns::Transport;
use crate::engine::Server;
use crate::metrics::{Counter, names};
use crate::plugin::tls::quic_connections;
use crate::plugin::{Budget, Client, Timeouts};
use hickory_net::runtime::Time;
use hickory_proto::op::{Header, HeaderCounts, Message, MessageType, Metadata, ResponseCode};
use hickory_proto::serialize::binary::BinDecoder;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponseBuilder, Queries};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

/// QUIC connections of the process, those of `quic://` blocks among them, from which on no HTTP/3
/// client is let in; fewer where they would not fit into the memory of client connections.
pub const H3_CONNECTIONS_MOST: usize = 2_048;

/// Queries of one worker's endpoint on their way to the engine, at most; beyond, a query fails at
/// once.
pub const H3_QUEUE_MOST: usize = 1_024;

/// How often an ending endpoint looks whether its replies are made.
const LOOK: Duration = Duration::from_millis(5);

/// What an ending endpoint gives the last replies to go out.
const LINGER: Duration = Duration::from_millis(25);

/// What an endpoint is made with. It cannot be changed: others are another endpoint.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    tls: Arc<ServerConfig>,
    /// How long a connection may be without a query.
    idle: Duration,
    /// How long an ending endpoint waits for its replies.
    write: Duration,
}

/// Which settings an endpoint has: those of equal ones are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    tls: usize,
    idle: Duration,
    write: Duration,
}

impl Settings {
    /// Those of an `https3://` server with `tls`.
    pub(super) fn of(server: &Server) -> Option<Settings> {
        let tls = server.tls.clone().filter(|_| server.transport == KeyTransport::Https3)?;
        let Timeouts { idle, write, .. } = server.timeouts;
        Some(Settings { tls, idle, write })
    }

    /// What tells them from others, while somebody holds them.
    pub(super) fn identity(&self) -> Identity {
        Identity { tls: Arc::as_ptr(&self.tls) as usize, idle: self.idle, write: self.write }
    }

    /// TLS for HTTP/3 that asks `gate` before anybody is let in.
    fn sealed(&self, gate: Gate) -> Arc<ServerConfig> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        tls.cert_resolver = Arc::new(gate);
        Arc::new(tls)
    }
}

/// How many QUIC connections the process may have for another one to be let in.
fn connections_most(budget: &Budget) -> usize {
    let fit = budget.connections.most() / QUIC_OCTETS;
    usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, H3_CONNECTIONS_MOST)
}

/// Gives the certificate to clients as long as there is room; without it a handshake fails.
#[derive(Debug)]
struct Gate {
    inner: Arc<dyn ResolvesServerCert>,
    most: usize,
    refused: Counter,
}

impl ResolvesServerCert for Gate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if quic_connections() >= self.most {
            self.refused.increment();
            return None;
        }
        self.inner.resolve(hello)
    }
}

/// Opens the endpoint for `socket` and serves until the listener is gone; call it inside the
/// worker's runtime.
pub(super) fn open(
    socket: UdpSocket,
    settings: &Settings,
    worker: &Rc<Worker>,
    listener: &Rc<Listener>,
) -> io::Result<()> {
    let local = socket.local_addr()?;
    let gate = Gate {
        inner: settings.tls.cert_resolver.clone(),
        most: connections_most(&worker.equipment.budget),
        refused: worker.counters.refused.clone(),
    };
    let (sender, queries) = mpsc::channel(H3_QUEUE_MOST);
    let shed = worker.counters.shed_parked.clone();
    let mut server = hickory_server::Server::new(Asking { queries: sender, shed });
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    server
        .register_h3_listener_with_tls_config(socket, settings.idle, settings.sealed(gate), None)
        .map_err(io::Error::other)?;
    let own = Endpoint { server, queries, local, settings: settings.clone() };
    spawn_local(serve(worker.clone(), listener.clone(), own));
    Ok(())
}

/// An endpoint of one worker.
struct Endpoint {
    server: hickory_server::Server<Asking>,
    queries: mpsc::Receiver<Asked>,
    local: SocketAddr,
    /// Held as long as the endpoint is there: its address is known by them.
    settings: Settings,
}

/// Takes hickory-server's queries to the engine, then gives what is under way its time.
async fn serve(worker: Rc<Worker>, listener: Rc<Listener>, endpoint: Endpoint) {
    let Endpoint { server, mut queries, local, settings } = endpoint;
    // Not one client's: it makes no room for others.
    let open = Open::new(&worker, &listener, None, 0);
    open.shared().waits();
    let running = Rc::new(Cell::new(0_usize));
    while !listener.is_closed() {
        tokio::select! {
            asked = queries.recv() => {
                let Some(Asked { octets, address, teller }) = asked else { break };
                let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
                let (address, local) = (canonical(address), canonical(local));
                let client = Client { address, local, transport: Transport::Https };
                let (worker, listener, running) =
                    (worker.clone(), listener.clone(), running.clone());
                running.set(running.get() + 1);
                spawn_local(async move {
                    let reply = worker.reply_to(&listener, &octets, client).await;
                    if reply.is_some() {
                        listener.count_response(&worker, &names::HTTPS3_RESPONSES, "200");
                    }
                    // A connection that is gone needs none.
                    let _ = teller.send(reply);
                    running.set(running.get() - 1);
                });
            }
            () = poll_fn(|task| open.shared().poll_woken(task)) => {}
        }
    }
    drop(queries);
    let end = Instant::now() + settings.write;
    while running.get() > 0 && Instant::now() < end {
        sleep(LOOK).await;
    }
    sleep(LINGER).await;
    drop(server);
}

/// A query on its way to the engine.
struct Asked {
    octets: Box<[u8]>,
    address: SocketAddr,
    teller: oneshot::Sender<Option<Vec<u8>>>,
}

/// What hickory-server hands queries to: its tasks may move between threads, the engine's may not.
struct Asking {
    queries: mpsc::Sender<Asked>,
    shed: Counter,
}

#[async_trait::async_trait]
impl RequestHandler for Asking {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        handle: R,
    ) -> ResponseInfo {
        let (teller, told) = oneshot::channel();
        let asked = Asked { octets: request.as_slice().into(), address: request.src(), teller };
        let sent = match self.queries.try_send(asked) {
            Ok(()) => match told.await {
                Ok(Some(reply)) => send(request, &reply, handle).await,
                // Nothing to say: the stream ends without a response.
                Ok(None) | Err(_) => None,
            },
            Err(_) => {
                self.shed.increment();
                failed(request, handle).await
            }
        };
        sent.unwrap_or_else(|| nothing(request))
    }
}

/// Hands a reply to hickory-server, which encodes it anew; `None` when it could not be sent.
async fn send<R: ResponseHandler>(
    request: &Request,
    reply: &[u8],
    mut handle: R,
) -> Option<ResponseInfo> {
    let Ok(reply) = Message::from_vec(reply) else { return failed(request, handle).await };
    let none;
    let queries = if reply.queries.is_empty() {
        none = Queries::read(&mut BinDecoder::new(&[]), 0).ok()?;
        &none
    } else {
        &request.queries
    };
    let response = MessageResponseBuilder::new(queries, reply.edns.as_ref()).build(
        reply.metadata,
        &reply.answers,
        &reply.authorities,
        &[],
        &reply.additionals,
    );
    handle.send_response(response).await.ok()
}

/// SERVFAIL.
async fn failed<R: ResponseHandler>(request: &Request, mut handle: R) -> Option<ResponseInfo> {
    let response = MessageResponseBuilder::from_message_request(request)
        .error_msg(&request.metadata, ResponseCode::ServFail);
    handle.send_response(response).await.ok()
}

/// What hickory-server is told when nothing was sent.
fn nothing(request: &Request) -> ResponseInfo {
    let Metadata { id, op_code, .. } = request.metadata;
    let metadata = Metadata::new(id, MessageType::Response, op_code);
    Header { metadata, counts: HeaderCounts::default() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use crate::net::tests::sealing;
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    fn settings() -> Settings {
        let (idle, write) = (Duration::from_secs(1), Duration::from_secs(1));
        Settings { tls: sealing(&["h3"]), idle, write }
    }

    /// Whether a client is let in where `most` connections may be open.
    fn is_let_in(most: usize, refused: Counter) -> bool {
        let settings = settings();
        let gate = Gate { inner: settings.tls.cert_resolver.clone(), most, refused };
        let mut server = ServerConnection::new(settings.sealed(gate)).unwrap();
        let mut roots = RootCertStore::empty();
        let authority = include_bytes!("upstream/testdata/ca.pem");
        roots.add(CertificateDer::from_pem_slice(authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h3".to_vec()];
        let name = ServerName::try_from("up.test").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        server.read_tls(&mut hello.as_slice()).unwrap();
        server.process_new_packets().is_ok()
    }

    #[test]
    fn where_connections_are_open_enough_nobody_is_let_in() {
        let metrics = Registry::new(1);
        let refused = metrics.counter(&names::CONNECTIONS_REFUSED, &[]);
        assert!(is_let_in(usize::MAX, refused.clone()));
        assert!(!is_let_in(0, refused));
        assert!(metrics.text().contains(&format!("{} 1\n", names::CONNECTIONS_REFUSED.name)));
    }

    #[test]
    fn as_many_are_let_in_as_the_memory_of_connections_has_room_for() {
        assert_eq!(connections_most(&Budget::default()), H3_CONNECTIONS_MOST);
        assert_eq!(connections_most(&Budget::new(Some(0))), 1);
        let budget = Budget::new(Some(64 << 20));
        let most = connections_most(&budget) as u64;
        assert!(most * QUIC_OCTETS <= budget.connections.most());
        assert!((most + 1) * QUIC_OCTETS > budget.connections.most());
    }

    #[test]
    fn other_settings_are_another_endpoint() {
        let one = settings();
        let another = settings();
        assert_eq!(one.identity(), one.identity());
        assert_ne!(one.identity(), another.identity(), "another certificate of the same text");
        let hurried = Settings { idle: Duration::ZERO, ..one.clone() };
        assert_ne!(one.identity(), hurried.identity());
    }
}
