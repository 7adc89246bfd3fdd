//! Our own carriers of `tls://`, `https://` and `quic://` beside hickory-server's: CPU time a query,
//! throughput, memory of an idle connection. Both give one constant answer (ours from the cache), to
//! the same client on loopback, with as many threads.
//!
//!   cargo bench --bench encrypted
//!
//! The other server is this program again, started with `serve CARRIER PORT`. Client and server share
//! the machine, so the throughput is for comparison alone.

// Its output is what it is for; without its servers it has nothing to say.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)] // A program of its own, that says what it measured.

use hickory_proto::op::{Metadata, ResponseCode};
use hickory_proto::rr::{Name, RData, Record};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::cell::Cell;
use std::error::Error;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections under load, and the queries of each that wait for their answers.
const CONNECTIONS: usize = 8;
const WINDOW: usize = 8;
/// How long the load lasts.
const LOAD: Duration = Duration::from_secs(4);
/// Idle connections whose memory is measured.
const IDLE: usize = 500;
/// The longest wait for a server to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the servers allow a handshake, and a connection without queries.
const SILENCE: Duration = Duration::from_secs(30);

/// `www.test. A`, with RD.
const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x03www\x04test\0\0\x01\0\x01";

type Failed = Box<dyn Error>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Tls,
    Https,
    Quic,
}

const CARRIERS: [(Carrier, &str); 3] =
    [(Carrier::Tls, "tls"), (Carrier::Https, "https"), (Carrier::Quic, "quic")];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, carrier, port] = words.as_slice()
        && serve == "serve"
    {
        let (carrier, _) = CARRIERS.into_iter().find(|(_, word)| word == carrier).unwrap();
        return serve_hickory(carrier, port.parse().unwrap());
    }
    println!(
        "{CONNECTIONS} connections of {WINDOW} queries at a time for {LOAD:?}; {IDLE} idle ones\n\
         carrier server  us of CPU a query  queries/s  reconnections  KiB an idle connection"
    );
    for (carrier, word) in CARRIERS {
        let starts: [(&str, Start); 2] = [("own", start_own), ("hickory", start_hickory)];
        for (server, start) in starts {
            let figures = LocalSet::new();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Figures { cpu, rate, again, memory } =
                figures.block_on(&runtime.unwrap(), measure(carrier, word, start));
            println!("{word:<7} {server:<8} {cpu:>16.1} {rate:>10.0} {again:>14} {memory:>23.1}");
        }
    }
}

/// Starts a server of a carrier on a port.
type Start = fn(&str, u16) -> Server;

/// What was measured.
struct Figures {
    cpu: f64,
    rate: f64,
    again: u64,
    memory: f64,
}

/// A server that ends with its measurement.
struct Server(Child, #[allow(dead_code)] tempfile::TempDir); // Which goes with it.

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// CPU time so far, in seconds.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        // Linux counts in hundredths for programs, whatever it has inside.
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Resident memory in KiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/net/upstream/testdata").join(name)
}

fn start_own(word: &str, port: u16) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let corefile = format!(
        "{word}://.:{port} {{\n bind 127.0.0.1\n tls {} {}\n timeouts {{\n  idle 30s\n }}\n cache\n \
         hosts /dev/null {{\n  192.0.2.1 www.test\n }}\n}}\n",
        file("up.pem").display(),
        file("up.key").display()
    );
    std::fs::write(folder.path().join("base"), corefile).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_nodens"))
        .args(["-localip=127.0.0.1", "-setupinterface=false", "-setupiptables=false"])
        .arg("-metrics-listen-address=127.0.0.1:0")
        .arg(format!("-basecorefile={}", folder.path().join("base").display()))
        .arg(format!("-conf={}", folder.path().join("Corefile").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Server(child.unwrap(), folder)
}

fn start_hickory(word: &str, port: u16) -> Server {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["serve", word, &port.to_string()])
        .stdin(Stdio::null())
        .spawn();
    Server(child.unwrap(), tempfile::tempdir().unwrap())
}

async fn measure(carrier: Carrier, word: &str, start: Start) -> Figures {
    let port = free_port();
    let server = start(word, port);
    let client = Rc::new(Client::new(carrier, port));
    let began = Instant::now();
    while client.connect().await.is_err() {
        assert!(began.elapsed() < PATIENCE, "{word} does not answer");
        sleep(Duration::from_millis(50)).await;
    }
    let counted = Rc::new(Cell::new((0_u64, 0_u64)));
    let tasks: Vec<JoinHandle<()>> =
        (0..CONNECTIONS).map(|_| spawn_local(load(client.clone(), counted.clone()))).collect();
    // Handshakes and first steps are not measured.
    sleep(LOAD / 8).await;
    let (before, cpu, began) = (counted.get(), server.cpu(), Instant::now());
    sleep(LOAD).await;
    let (after, cpu, took) = (counted.get(), server.cpu() - cpu, began.elapsed().as_secs_f64());
    tasks.iter().for_each(JoinHandle::abort);
    drop(tasks);
    let queries = (after.0 - before.0) as f64;
    drop(server);

    // Another process: what the load left behind is not an idle connection's.
    let port = free_port();
    let server = start(word, port);
    let client = Client::new(carrier, port);
    let began = Instant::now();
    while client.connect().await.is_err() {
        assert!(began.elapsed() < PATIENCE, "{word} does not answer");
        sleep(Duration::from_millis(50)).await;
    }
    let empty = server.memory();
    let mut open = Vec::new();
    for _ in 0..IDLE {
        open.push(client.connect().await.unwrap());
    }
    let memory = (server.memory() - empty) / IDLE as f64;
    drop(open);
    Figures { cpu: cpu * 1e6 / queries, rate: queries / took, again: after.1 - before.1, memory }
}

fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Asks over one connection for as long as it lasts, then over another one.
async fn load(client: Rc<Client>, counted: Rc<Cell<(u64, u64)>>) {
    loop {
        if let Ok(connection) = client.connect().await {
            let _ = connection.ask_on(&counted).await;
        }
        let (queries, again) = counted.get();
        counted.set((queries, again + 1));
    }
}

struct Client {
    carrier: Carrier,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    quic: quinn::Endpoint,
}

/// A connection that was asked once.
enum Connected {
    Tls(Box<TlsStream<TcpStream>>),
    Https(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
    Quic(quinn::Connection),
}

impl Client {
    fn new(carrier: Carrier, port: u16) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = alpn(carrier);
        // Each handshake is a whole one.
        tls.resumption = rustls::client::Resumption::disabled();
        let tls = Arc::new(tls);
        let mut quic = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        if carrier == Carrier::Quic {
            let crypto = QuicClientConfig::try_from(tls.clone()).unwrap();
            quic.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        }
        Client { carrier, address: ([127, 0, 0, 1], port).into(), tls, quic }
    }

    async fn connect(&self) -> Result<Connected, Failed> {
        if self.carrier == Carrier::Quic {
            let connection = self.quic.connect(self.address, "up.test")?.await?;
            ask_quic(&connection).await?;
            return Ok(Connected::Quic(connection));
        }
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("up.test")?;
        let mut stream = TlsConnector::from(self.tls.clone()).connect(name, socket).await?;
        if self.carrier == Carrier::Tls {
            stream.write_all(&framed()).await?;
            read_reply(&mut stream).await?;
            return Ok(Connected::Tls(Box::new(stream)));
        }
        let io = TokioIo::new(stream);
        let (mut sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(driver);
        ask_https(&mut sender).await?;
        Ok(Connected::Https(sender))
    }
}

impl Connected {
    /// Keeps [`WINDOW`] queries under way until one fails.
    async fn ask_on(self, counted: &Rc<Cell<(u64, u64)>>) -> Result<(), Failed> {
        let count = |counted: &Cell<(u64, u64)>| {
            let (queries, again) = counted.get();
            counted.set((queries + 1, again));
        };
        let mut tasks = tokio::task::JoinSet::new();
        match self {
            Connected::Tls(mut stream) => {
                stream.write_all(&framed().repeat(WINDOW)).await?;
                loop {
                    read_reply(&mut stream).await?;
                    count(counted);
                    stream.write_all(&framed()).await?;
                }
            }
            Connected::Https(sender) => {
                for _ in 0..WINDOW {
                    let (mut sender, counted) = (sender.clone(), counted.clone());
                    tasks.spawn_local(async move {
                        while ask_https(&mut sender).await.is_ok() {
                            count(&counted);
                        }
                    });
                }
            }
            Connected::Quic(connection) => {
                for _ in 0..WINDOW {
                    let (connection, counted) = (connection.clone(), counted.clone());
                    tasks.spawn_local(async move {
                        while ask_quic(&connection).await.is_ok() {
                            count(&counted);
                        }
                    });
                }
            }
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

/// The query behind its length.
fn framed() -> Vec<u8> {
    [&(QUERY.len() as u16).to_be_bytes(), QUERY].concat()
}

/// An answer has a record.
fn check(reply: &[u8]) -> Result<(), Failed> {
    match reply.get(7) {
        Some(1) => Ok(()),
        _ => Err("no answer".into()),
    }
}

async fn read_reply(stream: &mut TlsStream<TcpStream>) -> Result<(), Failed> {
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    check(&reply)
}

async fn ask_https(
    sender: &mut hyper::client::conn::http2::SendRequest<Full<Bytes>>,
) -> Result<(), Failed> {
    sender.ready().await?;
    let request = hyper::Request::post("https://up.test/dns-query")
        .header("content-type", "application/dns-message")
        .header("accept", "application/dns-message")
        .header("content-length", QUERY.len())
        .body(Full::new(Bytes::from_static(QUERY)))?;
    let response = sender.send_request(request).await?;
    check(&response.into_body().collect().await?.to_bytes())
}

async fn ask_quic(connection: &quinn::Connection) -> Result<(), Failed> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&framed()).await?;
    send.finish()?;
    let reply = receive.read_to_end(4096).await?;
    check(reply.get(2..).unwrap_or_default())
}

fn alpn(carrier: Carrier) -> Vec<Vec<u8>> {
    match carrier {
        Carrier::Tls => Vec::new(),
        Carrier::Https => vec![b"h2".to_vec()],
        Carrier::Quic => vec![b"doq".to_vec()],
    }
}

/// Gives every question the same address.
struct Constant;

#[async_trait::async_trait]
impl RequestHandler for Constant {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut handle: R,
    ) -> ResponseInfo {
        let name = Name::from(request.request_info().unwrap().query.name());
        let answer = [Record::from_rdata(name, 3600, RData::A(Ipv4Addr::new(192, 0, 2, 1).into()))];
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = ResponseCode::NoError;
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &answer,
            &[],
            &[],
            &[],
        );
        handle.send_response(response).await.unwrap()
    }
}

/// Serves on as many threads as nodens has, each with sockets of its own.
fn serve_hickory(carrier: Carrier, port: u16) {
    let threads: Vec<_> = (0..nodens::net::default_workers())
        .map(|_| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(serve_on_one_thread(carrier, port));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

async fn serve_on_one_thread(carrier: Carrier, port: u16) {
    let chain = vec![CertificateDer::from_pem_file(file("up.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("up.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = alpn(carrier);
    let tls = Arc::new(tls);
    let mut server = hickory_server::Server::new(Constant);
    let kind = if carrier == Carrier::Quic { socket2::Type::DGRAM } else { socket2::Type::STREAM };
    let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    if carrier != Carrier::Quic {
        socket.listen(1024).unwrap();
    }
    match carrier {
        Carrier::Tls => {
            let listener = tokio::net::TcpListener::from_std(socket.into()).unwrap();
            server.register_tls_listener_with_tls_config(listener, SILENCE, tls).unwrap();
        }
        Carrier::Https => {
            let listener = tokio::net::TcpListener::from_std(socket.into()).unwrap();
            server
                .register_https_listener_with_tls_config(
                    listener,
                    SILENCE,
                    tls,
                    None,
                    "/dns-query".to_owned(),
                )
                .unwrap();
        }
        Carrier::Quic => {
            let socket = tokio::net::UdpSocket::from_std(socket.into()).unwrap();
            server.register_quic_listener_and_tls_config(socket, SILENCE, tls).unwrap();
        }
    }
    pending::<()>().await;
    drop(server);
}
