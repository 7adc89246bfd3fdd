//! Encrypted ways: DNS over TLS (RFC 7858), over HTTPS (RFC 8484), over QUIC (RFC 9250).
//!
//! Owns the settings of TLS and whom it believes. rustls speaks TLS, hyper HTTP/2 and hickory-net
//! QUIC; a body is read up to the size of a message.

use super::plain::{Got, Trouble, checked, connect, stream_exchange, unreachable};
use super::servers::Server;
use super::settings::{Authority, Method, Settings, Way};
use crate::cli::failure::{DATA, Failure, NO_INPUT};
use crate::dns::sizes::MESSAGE_MOST;
use crate::net::Unverified;
use crate::net::doh::MESSAGE_TYPE;
use hickory_net::quic::QuicClientStream;
use hickory_net::xfer::{DnsRequestSender, FirstAnswer};
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The greatest file of certificates.
const AUTHORITIES_MOST: u64 = 16 << 20;

/// TLS as a line asks for it; none for a line that needs none.
#[derive(Debug, Clone, Default)]
pub(super) struct Secure {
    config: Option<ClientConfig>,
    name: Option<String>,
}

impl Secure {
    /// Reads what the settings name. A wrong file is a failure before anybody is asked.
    pub(super) fn prepare(settings: &Settings) -> Result<Secure, Failure> {
        if matches!(settings.way, Way::Udp | Way::Tcp) {
            return Ok(Secure::default());
        }
        let internal = |error: rustls::Error| Failure::new(DATA, format!("TLS: {error}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(internal)?;
        let builder = match &settings.authority {
            // As dig's `+tls` without `+tls-ca`.
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified::new(provider))),
            Some(Authority::System) => builder.with_root_certificates(system()?),
            Some(Authority::File(path)) => builder.with_root_certificates(authorities(path)?),
        };
        if let Some(name) = &settings.tls_name {
            server_name(name).map_err(|why| Failure::usage(format!("+tls-hostname: {why}")))?;
        }
        Ok(Secure { config: Some(builder.with_no_client_auth()), name: settings.tls_name.clone() })
    }

    /// Whether both settings ask for the same.
    pub(super) fn is_same(one: &Settings, other: &Settings) -> bool {
        (&one.way, &one.authority, &one.tls_name) == (&other.way, &other.authority, &other.tls_name)
    }

    /// One exchange over a new connection.
    pub(super) async fn exchange(
        &self,
        query: &[u8],
        server: &Server,
        source: SocketAddr,
        way: &Way,
    ) -> Got {
        let shown = self.name.as_ref().unwrap_or(&server.name);
        let name = server_name(shown).map_err(Trouble::Wrong)?;
        match way {
            Way::Https(method, path) => {
                let stream = self.connect(server, source, name, b"h2").await?;
                https(stream, query, *method, &authority(server, shown), path).await
            }
            Way::Quic => self.quic(query, server, source, shown).await,
            _ => {
                let mut stream = self.connect(server, source, name, b"dot").await?;
                stream_exchange(&mut stream, query).await
            }
        }
    }

    async fn connect(
        &self,
        server: &Server,
        source: SocketAddr,
        name: ServerName<'static>,
        protocol: &[u8],
    ) -> Result<TlsStream<tokio::net::TcpStream>, Trouble> {
        let mut config = self.config.clone().ok_or_else(no_settings)?;
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = connect(server.address, source).await?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        connected.map_err(|error| distrust(&error))
    }

    async fn quic(&self, query: &[u8], server: &Server, source: SocketAddr, name: &str) -> Got {
        let config = self.config.clone().ok_or_else(no_settings)?;
        let wrong = |error: hickory_net::NetError| Trouble::Unreachable(error.to_string());
        let builder = QuicClientStream::builder().crypto_config(config).bind_addr(source);
        let mut stream = builder.build(server.address, name.into()).await.map_err(wrong)?;
        let message =
            Message::from_vec(query).map_err(|error| Trouble::Wrong(error.to_string()))?;
        let request = DnsRequest::new(message, DnsRequestOptions::default());
        let response = stream.send_message(request).first_answer().await.map_err(wrong)?;
        let mut wire = response.into_buffer();
        // Over QUIC the id is 0 (RFC 9250 §4.2.1).
        restore_id(&mut wire, query);
        checked(wire, query)
    }
}

fn no_settings() -> Trouble {
    Trouble::Wrong("TLS was not set up".to_owned())
}

/// `NAME` or `NAME:PORT` for HTTP.
fn authority(server: &Server, name: &str) -> String {
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    match server.address.port() {
        443 => name,
        port => format!("{name}:{port}"),
    }
}

async fn https(
    stream: TlsStream<tokio::net::TcpStream>,
    query: &[u8],
    method: Method,
    authority: &str,
    path: &str,
) -> Got {
    let broken = |error: hyper::Error| Trouble::Unreachable(format!("HTTP: {error}"));
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(broken)?;
    // Ends with the runtime at the latest.
    tokio::spawn(connection);
    // An id of 0 lets caches between know the question again (RFC 8484 §4.1).
    let mut anonymous = query.to_vec();
    anonymous.iter_mut().take(2).for_each(|octet| *octet = 0);
    let address = format!("https://{authority}{path}");
    let request = match method {
        Method::Post => Request::post(address)
            .header(CONTENT_TYPE, MESSAGE_TYPE)
            .header(ACCEPT, MESSAGE_TYPE)
            .body(Full::new(Bytes::from(anonymous))),
        Method::Get => {
            let separator = if path.contains('?') { '&' } else { '?' };
            let text = data_encoding::BASE64URL_NOPAD.encode(&anonymous);
            Request::get(format!("{address}{separator}dns={text}"))
                .header(ACCEPT, MESSAGE_TYPE)
                .body(Full::default())
        }
    };
    let request = request.map_err(|error| Trouble::Wrong(format!("HTTP: {error}")))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        return Err(Trouble::Wrong(format!("HTTP status {}", response.status())));
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind != Some(MESSAGE_TYPE) {
        let kind = kind.unwrap_or("nothing known");
        return Err(Trouble::Wrong(format!("HTTP: the reply is {kind}, not {MESSAGE_TYPE}")));
    }
    let body = Limited::new(response.into_body(), MESSAGE_MOST).collect().await;
    let body = body.map_err(|error| Trouble::Wrong(format!("HTTP: {error}")))?;
    let mut wire: Vec<u8> = body.to_bytes().into();
    restore_id(&mut wire, query);
    checked(wire, query)
}

/// A reply that came without an id gets the query's; another id stays, and is wrong.
fn restore_id(wire: &mut [u8], query: &[u8]) {
    if let (Some(id @ [0, 0]), Some(own)) = (wire.get_mut(..2), query.get(..2)) {
        id.copy_from_slice(own);
    }
}

/// A name of a certificate: a host's or an address.
fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    let text = text.trim_end_matches('.').trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(text.to_owned()).map_err(|_| format!("'{text}' is no server's name"))
}

fn distrust(error: &io::Error) -> Trouble {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => {
            Trouble::Wrong(format!("its certificate is not believed: {why}"))
        }
        Some(why) => Trouble::Wrong(format!("TLS: {why}")),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Trouble::Unreachable("the connection was closed during the TLS handshake".to_owned())
        }
        None => unreachable(error),
    }
}

fn system() -> Result<RootCertStore, Failure> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        let text = "+tls-ca: the system has no authorities; name a file: +tls-ca=FILE";
        return Err(Failure::new(NO_INPUT, text));
    }
    Ok(store)
}

fn authorities(path: &Path) -> Result<RootCertStore, Failure> {
    let wrong = |why: String| Failure::new(DATA, format!("+tls-ca: {}: {why}", path.display()));
    let unreadable = |error: io::Error| {
        let failure = Failure::unreadable(path, &error);
        Failure::new(failure.code, format!("+tls-ca: {}", failure.text))
    };
    let about = fs::metadata(path).map_err(unreadable)?;
    if about.is_dir() || about.len() > AUTHORITIES_MOST {
        return Err(wrong("it is no file of certificates".to_owned()));
    }
    let text = fs::read(path).map_err(unreadable)?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        store.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    match store.is_empty() {
        true => Err(wrong("it has no certificate".to_owned())),
        false => Ok(store),
    }
}
