//! A scripted upstream on the loopback: what it does with each query, as a test says.
//!
//! Owns its sockets and what it counted. Asks nothing itself.

use super::PATIENCE;
use crate::dns::{Name, Transport};
use crate::net::tests::ports::free_port;
use crate::plugin::forward::Upstream;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::time::Instant;

/// What a scripted upstream does with one query.
pub(super) enum Act {
    /// Sends these messages.
    Send(Vec<Vec<u8>>),
    /// Sends this message once the test lets it ([`Scripted::let_go`]).
    Held(Vec<u8>),
    /// Says nothing.
    Silence,
    /// Closes the connection (TCP).
    Close,
    /// Sends this message, then closes.
    SendAndClose(Vec<u8>),
}

pub(super) type Script = Arc<dyn Fn(&Name, &[u8], Transport) -> Act + Send + Sync>;

/// A query that came: the message, how and from where.
pub(super) type Asked = (Vec<u8>, Transport, SocketAddr);

/// A scripted upstream: the same port for UDP and TCP.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    /// Streams accepted.
    pub(super) accepted: Arc<AtomicUsize>,
    /// Queries received, probes left out.
    pub(super) asked: Arc<Mutex<Vec<Asked>>>,
    /// Probes (`. NS`) received.
    pub(super) probes: Arc<AtomicUsize>,
    /// Streams that their clients ended.
    pub(super) left: Arc<AtomicUsize>,
    /// Whether what is held may go.
    lets_go: watch::Sender<bool>,
}

impl Scripted {
    pub(super) async fn start(
        script: impl Fn(&Name, &[u8], Transport) -> Act + Send + Sync + 'static,
    ) -> Scripted {
        // Claimed: a port that is free for TCP may be another test's client's over UDP.
        Scripted::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())), script).await
    }

    pub(super) async fn start_at(
        address: SocketAddr,
        script: impl Fn(&Name, &[u8], Transport) -> Act + Send + Sync + 'static,
    ) -> Scripted {
        let script: Script = Arc::new(script);
        let listener = TcpListener::bind(address).await.unwrap();
        let socket = Arc::new(UdpSocket::bind(address).await.unwrap());
        let this = Scripted {
            address,
            accepted: Arc::default(),
            asked: Arc::default(),
            probes: Arc::default(),
            left: Arc::default(),
            lets_go: watch::Sender::new(false),
        };
        let going = this.lets_go.subscribe();
        let (asked, probes) = (this.asked.clone(), this.probes.clone());
        let udp_script = script.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let query = &buffer[..length];
                match act(&udp_script, query, Transport::Udp, from, &asked, &probes) {
                    Act::Send(messages) => {
                        for message in messages {
                            socket.send_to(&message, from).await.unwrap();
                        }
                    }
                    Act::Held(message) => {
                        let (socket, mut going) = (socket.clone(), going.clone());
                        tokio::spawn(async move {
                            going.wait_for(|goes| *goes).await.unwrap();
                            socket.send_to(&message, from).await.unwrap();
                        });
                    }
                    _ => {}
                }
            }
        });
        let (asked, probes) = (this.asked.clone(), this.probes.clone());
        let (accepted, left) = (this.accepted.clone(), this.left.clone());
        let going = this.lets_go.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let (asked, probes, left) = (asked.clone(), probes.clone(), left.clone());
                let serving = serve(stream, from, script.clone(), asked, probes, going.clone());
                tokio::spawn(async move {
                    if serving.await == Ending::Theirs {
                        left.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        this
    }

    /// What is held goes out, and what comes from now on is not held.
    pub(super) fn let_go(&self) {
        self.lets_go.send_replace(true);
    }

    /// What comes from now on is held.
    pub(super) fn hold(&self) {
        self.lets_go.send_replace(false);
    }

    /// Waits until so many queries have come.
    pub(super) async fn until_asked(&self, count: usize) {
        let is_asked = || self.asked.lock().unwrap().len() >= count;
        until(is_asked, "that all are asked").await;
    }

    pub(super) fn upstream(&self) -> Upstream {
        upstream(self.address)
    }

    pub(super) fn names(&self) -> Vec<(String, Transport)> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(query, transport, _)| (name_of(query).to_string(), *transport)).collect()
    }
}

pub(super) fn name_of(query: &[u8]) -> Name {
    Name::parse(query, 12).unwrap().0
}

fn act(
    script: &Script,
    query: &[u8],
    transport: Transport,
    from: SocketAddr,
    asked: &Mutex<Vec<Asked>>,
    probes: &AtomicUsize,
) -> Act {
    let name = name_of(query);
    if name.is_root() {
        probes.fetch_add(1, Ordering::Relaxed);
    } else {
        asked.lock().unwrap().push((query.to_vec(), transport, from));
    }
    script(&name, query, transport)
}

/// Waits until it is so.
pub(super) async fn until(mut is_so: impl FnMut() -> bool, what: &str) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it never came to it {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Who ended a stream.
#[derive(PartialEq, Eq)]
pub(super) enum Ending {
    Ours,
    Theirs,
}

/// Serves one stream as CoreDNS does: one query after the other.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    from: SocketAddr,
    script: Script,
    asked: Arc<Mutex<Vec<Asked>>>,
    probes: Arc<AtomicUsize>,
    mut going: watch::Receiver<bool>,
) -> Ending {
    loop {
        let Ok(length) = stream.read_u16().await else { return Ending::Theirs };
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return Ending::Theirs;
        }
        let (messages, is_over) = match act(&script, &query, Transport::Tcp, from, &asked, &probes)
        {
            Act::Send(messages) => (messages, false),
            Act::Held(message) => {
                if going.wait_for(|goes| *goes).await.is_err() {
                    return Ending::Ours;
                }
                (vec![message], false)
            }
            Act::Silence => (Vec::new(), false),
            Act::Close => return Ending::Ours,
            Act::SendAndClose(message) => (vec![message], true),
        };
        for message in messages {
            let framed = [&(message.len() as u16).to_be_bytes(), message.as_slice()].concat();
            if stream.write_all(&framed).await.is_err() {
                return Ending::Theirs;
            }
        }
        if is_over {
            return Ending::Ours;
        }
    }
}

pub(super) fn upstream(address: SocketAddr) -> Upstream {
    Upstream {
        text: address.to_string(),
        ip: address.ip(),
        interface: None,
        port: Ok(address.port()),
        tls: None,
    }
}

/// The query made a response with one A record.
pub(super) fn answer(query: &[u8], last: u8) -> Vec<u8> {
    let mut message = reply(query, 0x8180);
    message[7] = 1;
    message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x14\0\x04\xc0\0\x02");
    message.push(last);
    message
}

/// The query made a response without records.
pub(super) fn reply(query: &[u8], flags: u16) -> Vec<u8> {
    let mut message = query[..12].to_vec();
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[6..12].fill(0);
    let end = Name::parse(query, 12).unwrap().1 + 4;
    message.extend(&query[12..end]);
    message
}
