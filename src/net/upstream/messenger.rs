//! Connections to an upstream that carry whole messages: HTTPS (RFC 8484) and QUIC (RFC 9250),
//! by hickory-net.
//!
//! Owns how a query becomes hickory's, which options of it go, and a response ours again: its octets stay as they
//! were sent.
//! hickory decodes both, so a response that it cannot decode is an error.

use super::dial::words;
use crate::net::doh;
use crate::plugin::forward::BUDGET;
use hickory_net::NetError;
use hickory_net::h2::{self, HttpsClientStream};
use hickory_net::quic::QuicClientStream;
use hickory_net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_net::xfer::{DnsRequestSender, FirstAnswer};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message};
use hickory_proto::rr::rdata::opt::EdnsCode;
use rustls::ClientConfig;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An open connection.
pub(super) enum Messenger {
    /// HTTP/2.
    Https(HttpsClientStream),
    /// HTTP/2 with queries in the address, which hickory-net does not send.
    HttpsGet(super::doh_get::Requests),
    /// QUIC.
    Quic(QuicClientStream),
}

/// A response's octets to come, its id 0.
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Vec<u8>, Broken>> + Send>>;

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection is over.
    Connection(String),
    /// This query alone failed.
    Query(String),
}

impl Messenger {
    /// HTTP/2 over `stream`. `name` is the server's, for its certificate and for HTTP.
    pub(super) async fn https(
        stream: TcpStream,
        remote: SocketAddr,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> Result<Messenger, NetError> {
        let stream = async { Ok(AsyncIoTokioAsStd(stream)) };
        let connected = h2::connect(stream, config, remote, name.into(), doh::PATH.into(), None);
        connected.await.map(Messenger::Https)
    }

    /// QUIC from `source`, if one is given.
    pub(super) async fn quic(
        remote: SocketAddr,
        source: Option<IpAddr>,
        config: &ClientConfig,
        name: &str,
    ) -> Result<Messenger, NetError> {
        let mut builder = QuicClientStream::builder().crypto_config(config.clone());
        if let Some(source) = source {
            builder = builder.bind_addr(SocketAddr::new(source, 0));
        }
        builder.build(remote, name.into()).await.map(Messenger::Quic)
    }

    /// Asks; the answer comes when it is waited for. The error says what hickory cannot send.
    pub(super) fn ask(&mut self, wire: &[u8]) -> Result<Answering, String> {
        let message = || Message::from_vec(wire).map_err(|error| format!("dns: {error}"));
        let request = |message| DnsRequest::new(message, DnsRequestOptions::default());
        let answer = match self {
            Messenger::Https(stream) => stream.send_message(request(message()?)),
            Messenger::Quic(stream) => {
                let mut message = message()?;
                // A client's, for which the upstream would have to end the connection with all that is in flight
                // on it (RFC 9250 §5.5.2).
                if let Some(edns) = &mut message.edns {
                    edns.options_mut().remove(EdnsCode::Keepalive);
                }
                stream.send_message(request(message))
            }
            Messenger::HttpsGet(requests) => {
                let answer = requests.ask(wire);
                return Ok(Box::pin(async move {
                    timeout(BUDGET, answer).await.unwrap_or_else(|_| Err(late()))
                }));
            }
        };
        Ok(Box::pin(async move {
            match timeout(BUDGET, answer.first_answer()).await {
                Ok(Ok(response)) => Ok(response.into_buffer()),
                Ok(Err(error)) => Err(broken(&error)),
                Err(_) => Err(late()),
            }
        }))
    }
}

fn late() -> Broken {
    Broken::Query("i/o timeout".to_owned())
}

/// Whether an error ends the connection, and its words.
fn broken(error: &NetError) -> Broken {
    match error {
        NetError::H2(inner) if inner.is_reset() => Broken::Query(told(error)),
        NetError::H2(_)
        | NetError::Busy
        | NetError::NoConnections
        | NetError::QuinnConnection(_)
        | NetError::QuinnWriteError(_)
        | NetError::QuinnReadError(_)
        | NetError::QuinnStreamError(_) => Broken::Connection(told(error)),
        NetError::Io(inner) => Broken::Connection(words(inner)),
        _ => Broken::Query(told(error)),
    }
}

/// hickory's words on one line, without the page that an HTTP error came with.
pub(super) fn told(error: &NetError) -> String {
    let text = error.to_string();
    let text = text.split(", message: ").next().unwrap_or_default();
    // The reason that a QUIC peer gives for its end is its own.
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::{ApplicationClose, ConnectionError};

    #[test]
    fn what_a_quic_peer_says_at_its_end_stays_on_one_line() {
        let reason = b"bye\n[INFO] all is well"[..].into();
        let close = ApplicationClose { error_code: 7_u32.into(), reason };
        let error = NetError::QuinnConnection(ConnectionError::ApplicationClosed(close));
        let Broken::Connection(text) = broken(&error) else { panic!("its connection is over") };
        assert!(text.contains("bye [INFO] all is well") && !text.contains('\n'), "{text}");
    }
}
