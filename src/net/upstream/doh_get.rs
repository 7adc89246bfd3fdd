//! DNS over HTTPS with GET (RFC 8484 §4.1): the query stands in the address.
//!
//! Owns the requests and what of their responses is a DNS message. hyper speaks HTTP/2; bounds on
//! queries in flight and their time are the pool's.

use super::messenger::Broken;
use crate::dns::sizes;
use crate::net::doh::{MESSAGE_TYPE, PATH};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::error::Error;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An open connection.
pub(super) struct Requests {
    sender: SendRequest<Empty<Bytes>>,
    /// `https://NAME/dns-query`.
    base: Box<str>,
}

/// HTTP/2 inside TLS over `stream`; `shown` is the server's name for HTTP.
pub(super) async fn connect(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: &ServerName<'static>,
    shown: &str,
) -> io::Result<Requests> {
    let mut config = (**config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream).await?;
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(io::Error::other)?;
    // Ends when the sender is gone, or the server; queries are told by their own requests.
    tokio::spawn(connection);
    Ok(Requests { sender, base: format!("https://{shown}{PATH}").into() })
}

impl Requests {
    /// Asks; the response's octets are for whoever waits.
    pub(super) fn ask(
        &self,
        wire: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, Broken>> + Send + use<> {
        // An id of 0 lets caches between know the question again (RFC 8484 §4.1).
        let mut query = wire.to_vec();
        query.iter_mut().take(2).for_each(|octet| *octet = 0);
        let text = data_encoding::BASE64URL_NOPAD.encode(&query);
        let request = Request::get(format!("{}?dns={text}", self.base))
            .header(ACCEPT, MESSAGE_TYPE)
            .body(Empty::new());
        let mut sender = self.sender.clone();
        async move {
            let query = |error: String| Broken::Query(error);
            let request = request.map_err(|error| query(error.to_string()))?;
            let response = match sender.send_request(request).await {
                Ok(response) => response,
                Err(error) if sender.is_closed() => {
                    return Err(Broken::Connection(with_causes(&error)));
                }
                Err(error) => return Err(query(with_causes(&error))),
            };
            if response.status() != StatusCode::OK {
                return Err(query(format!("http: status {}", response.status())));
            }
            if response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != MESSAGE_TYPE) {
                return Err(query("http: the response is no DNS message".to_owned()));
            }
            let body = Limited::new(response.into_body(), sizes::MESSAGE_MOST).collect().await;
            body.map(|body| body.to_bytes().into()).map_err(|error| query(error.to_string()))
        }
    }
}

/// An error and what it comes from: hyper says of itself no more than "http2 error".
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
