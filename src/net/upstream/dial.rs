//! Sockets towards an upstream, and Go's words for what goes wrong with them.
//!
//! Owns address resolution (the IPv6 zone), binding to `source_address`, connecting, TLS.

use super::doh_get;
use super::limits::UNACKNOWLEDGED;
use super::messenger::{Messenger, told};
use super::trust::{self, Trust};
use crate::net::between::before_long_step;
use crate::plugin::forward::{DohMethod, Keeping, Upstream};
use crate::sys::beside::beside;
use crate::sys::interfaces;
use hickory_net::NetError;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How to reach one upstream.
#[derive(Debug)]
pub(super) struct Dialer {
    upstream: Upstream,
    source: Option<IpAddr>,
    tls: OnceLock<Result<Tls, String>>,
}

#[derive(Clone)]
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    shown: String,
    /// Address and name, for errors: `192.0.2.53:853 (dns.test)`.
    peer: String,
}

impl Tls {
    /// Go's words for a failed handshake, with the name that failed.
    fn words(&self, error: &io::Error) -> String {
        let peer = &self.peer;
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(error)) => {
                let why = distrust(error, self);
                format!("{}: tls: failed to verify certificate: x509: {why}", self.peer)
            }
            Some(error) => format!("{peer}: tls: handshake: {error}"),
            None => format!("{peer}: tls: handshake: {}", words(error)),
        }
    }

    /// [`Tls::words`] for an error of hickory's.
    fn told(&self, error: &NetError) -> String {
        match error {
            NetError::Io(error) => self.words(error),
            error => format!("{}: tls: handshake: {}", self.peer, told(error)),
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.shown).finish_non_exhaustive()
    }
}

impl Dialer {
    /// For `upstream`, from the source that `keeping` asks for.
    pub(super) fn new(upstream: &Upstream, keeping: &Keeping) -> Dialer {
        Dialer { upstream: upstream.clone(), source: keeping.source, tls: OnceLock::new() }
    }

    /// The address; the error is what Go says behind `dial udp `.
    pub(super) fn address(&self, network: &str) -> Result<SocketAddr, String> {
        let port = self.upstream.port.clone().map_err(|text| {
            if text.bytes().all(|byte| byte.is_ascii_digit()) {
                format!("address {text}: invalid port")
            } else {
                format!("lookup {network}/{text}: unknown port")
            }
        })?;
        let scope = match &self.upstream.interface {
            None => 0,
            Some(zone) => interfaces::index(zone)
                .ok_or_else(|| format!("{}: no such network interface: {zone}", self.text()))?,
        };
        Ok(match self.upstream.ip {
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)),
            ip => SocketAddr::new(ip, port),
        })
    }

    /// `IP:port`.
    pub(super) fn text(&self) -> &str {
        &self.upstream.text
    }

    /// A connected UDP socket with a random port; the error is Go's whole text.
    pub(super) fn datagrams(&self) -> Result<UdpSocket, String> {
        let remote = self.address("udp").map_err(|error| format!("dial udp: {error}"))?;
        let local = match (self.source, remote) {
            (Some(source), _) => source,
            (None, SocketAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            (None, SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let open = || -> io::Result<UdpSocket> {
            // Bound to port 0, the kernel chooses the port by chance.
            let socket = std::net::UdpSocket::bind(SocketAddr::new(local, 0))?;
            socket.set_nonblocking(true)?;
            socket.connect(remote)?;
            UdpSocket::from_std(socket)
        };
        open().map_err(|error| format!("dial udp {}: connect: {}", self.text(), words(&error)))
    }

    /// A connected stream without TLS; the error is Go's whole text.
    pub(super) async fn stream(&self) -> Result<TcpStream, String> {
        let remote = self.address("tcp").map_err(|error| format!("dial tcp: {error}"))?;
        let open = async {
            let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(source) = self.source {
                socket.bind(SocketAddr::new(source, 0))?;
            }
            // Over loopback the whole handshake is done within the call.
            before_long_step();
            let stream = socket.connect(remote).await?;
            stream.set_nodelay(true)?;
            // A peer that is gone without a word is noticed by what it does not acknowledge.
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
            Ok(stream)
        };
        open.await.map_err(|error: io::Error| {
            format!("dial tcp {}: connect: {}", self.text(), words(&error))
        })
    }

    /// Makes the stream one of TLS; the error names the server.
    pub(super) async fn secured(
        &self,
        stream: TcpStream,
        roots: &Arc<SystemRoots>,
    ) -> Result<TlsStream<TcpStream>, String> {
        let tls = self.prepared(roots).await?;
        let connected = TlsConnector::from(tls.config.clone()).connect(tls.name.clone(), stream);
        connected.await.map_err(|error| tls.words(&error))
    }

    /// Opens a connection for messages over QUIC; the error names the server.
    pub(super) async fn quic(&self, roots: &Arc<SystemRoots>) -> Result<Messenger, String> {
        let tls = self.prepared(roots).await?;
        let remote = self.address("udp").map_err(|error| format!("dial udp: {error}"))?;
        let opened = Messenger::quic(remote, self.source, &tls.config, &tls.shown).await;
        opened.map_err(|error| tls.told(&error))
    }

    /// Makes the stream one for messages over HTTPS; the error names the server.
    pub(super) async fn https(
        &self,
        stream: TcpStream,
        roots: &Arc<SystemRoots>,
    ) -> Result<Messenger, String> {
        let tls = self.prepared(roots).await?;
        if matches!(tls.name, ServerName::IpAddress(rustls::pki_types::IpAddr::V6(_))) {
            return Err(format!("https: {}: tls_servername must say a name", tls.shown));
        }
        let method = self.upstream.tls.as_ref().map(|settings| settings.method);
        if method == Some(DohMethod::Get) {
            let connected = doh_get::connect(stream, &tls.config, &tls.name, &tls.shown).await;
            return connected.map(Messenger::HttpsGet).map_err(|error| tls.words(&error));
        }
        let remote = stream.peer_addr().map_err(|error| tls.words(&error))?;
        let opened = Messenger::https(stream, remote, tls.config.clone(), &tls.shown).await;
        opened.map_err(|error| tls.told(&error))
    }

    async fn prepared(&self, roots: &Arc<SystemRoots>) -> Result<Tls, String> {
        if self.tls.get().is_none() && self.trusts_the_system() {
            // Many files: not on the thread that serves queries.
            let roots = roots.clone();
            let _ = beside(move || drop(roots.get())).await;
        }
        self.tls.get_or_init(|| self.tls(roots)).clone()
    }

    fn trusts_the_system(&self) -> bool {
        self.upstream.tls.as_ref().is_none_or(|settings| settings.files.roots.is_none())
    }

    fn tls(&self, roots: &SystemRoots) -> Result<Tls, String> {
        let Some(settings) = self.upstream.tls.as_deref() else {
            return Err("tls: no settings".to_owned());
        };
        let shown = match &settings.server_name {
            Some(name) => name.trim_end_matches('.').to_owned(),
            None => self.upstream.ip.to_string(),
        };
        let name = match &settings.server_name {
            Some(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| format!("tls: not a server name: {name:?}"))?,
            None => ServerName::from(self.upstream.ip),
        };
        let wrong = |error: rustls::Error| format!("tls: settings for {shown}: {error}");
        let (store, own) = match &settings.files.roots {
            None => (roots.get(), Vec::new()),
            Some(certificates) => {
                let mut store = RootCertStore::empty();
                for certificate in certificates {
                    store.add(certificate.clone()).map_err(wrong)?;
                }
                (Arc::new(store), certificates.clone())
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::new(store, own, provider.clone()).map_err(|_| {
            format!("tls: no authorities to trust for {shown}: name a file of them with `tls`")
        })?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust));
        let config = match &settings.files.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(wrong)?
            }
        };
        let peer = format!("{} ({shown})", self.text());
        Ok(Tls { config: Arc::new(config), name, shown, peer })
    }
}

/// The system's root certificates, loaded when the first upstream needs them.
#[derive(Debug, Default)]
pub(super) struct SystemRoots(OnceLock<Arc<RootCertStore>>);

impl SystemRoots {
    fn get(&self) -> Arc<RootCertStore> {
        self.0
            .get_or_init(|| {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Arc::new(store)
            })
            .clone()
    }
}

/// What Go says of a certificate before its first or after its last second.
const OUT_OF_DATE: &str = "certificate has expired or is not yet valid";

/// `2006-01-02T15:04:05Z`, as Go writes a time in an error.
fn date(time: UnixTime) -> String {
    let time = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(time.as_secs());
    time.format(&Rfc3339).unwrap_or_default()
}

/// Go's words for why a server's certificate is not trusted.
fn distrust(error: &CertificateError, tls: &Tls) -> String {
    match error {
        // Another authority of the same name, too.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let kind = match &tls.name {
                ServerName::DnsName(_) => "DnsName(",
                _ => "IpAddress(",
            };
            let names: Vec<&str> = presented
                .iter()
                .filter_map(|name| name.strip_prefix(kind)?.strip_suffix(')'))
                .map(|name| name.trim_matches('"'))
                .collect();
            match (names.is_empty(), &tls.name) {
                (false, _) => {
                    format!("certificate is valid for {}, not {}", names.join(", "), tls.shown)
                }
                (true, ServerName::DnsName(_)) => format!(
                    "certificate is not valid for any names, but wanted to match {}",
                    tls.shown
                ),
                (true, _) => format!(
                    "cannot validate certificate for {} because it doesn't contain any IP SANs",
                    tls.shown
                ),
            }
        }
        CertificateError::ExpiredContext { time, not_after: end } => {
            format!("{OUT_OF_DATE}: current time {} is after {}", date(*time), date(*end))
        }
        CertificateError::NotValidYetContext { time, not_before: begin } => {
            format!("{OUT_OF_DATE}: current time {} is before {}", date(*time), date(*begin))
        }
        CertificateError::Expired | CertificateError::NotValidYet => OUT_OF_DATE.to_owned(),
        CertificateError::Other(why) if why.to_string() == trust::AUTHORITY => {
            "certificate signed by unknown authority (it calls itself one: to trust it, name its \
             file with `tls`)"
                .to_owned()
        }
        other => format!("certificate of {}: {other}", tls.shown),
    }
}

/// The system's words for an error as Go prints them: `connection refused`.
pub(super) fn words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "EOF".to_owned();
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "unknown error".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_read_as_in_go() {
        for (number, text) in [
            (111, "connection refused"),
            (113, "no route to host"),
            (101, "network is unreachable"),
            (104, "connection reset by peer"),
            (32, "broken pipe"),
            (90, "message too long"),
        ] {
            assert_eq!(words(&io::Error::from_raw_os_error(number)), text);
        }
    }

    /// The settings for a server of this name at 192.0.2.53.
    fn tls_to(name: &str) -> Tls {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Tls {
            config: Arc::new(config),
            name: ServerName::try_from(name.to_owned()).unwrap(),
            shown: name.to_owned(),
            peer: format!("192.0.2.53:853 ({name})"),
        }
    }

    #[test]
    fn why_a_certificate_is_not_trusted_reads_as_in_go() {
        let day = |day: u64| UnixTime::since_unix_epoch(Duration::from_secs(day * 86_400));
        let misnamed = |name: &str, presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from(name.to_owned()).unwrap(),
            presented: presented.iter().map(|&name| name.to_owned()).collect(),
        };
        let names = [r#"DnsName("a.test")"#, r#"DnsName("b.test")"#, "IpAddress(192.0.2.1)"];
        for (name, error, why) in [
            (
                "dns.test",
                misnamed("dns.test", &names),
                "certificate is valid for a.test, b.test, not dns.test",
            ),
            (
                "dns.test",
                misnamed("dns.test", &names[2..]),
                "certificate is not valid for any names, but wanted to match dns.test",
            ),
            (
                "192.0.2.53",
                misnamed("192.0.2.53", &names),
                "certificate is valid for 192.0.2.1, not 192.0.2.53",
            ),
            (
                "192.0.2.53",
                misnamed("192.0.2.53", &names[..2]),
                "cannot validate certificate for 192.0.2.53 because it doesn't contain any IP SANs",
            ),
            (
                "dns.test",
                CertificateError::ExpiredContext { time: day(1), not_after: day(0) },
                "certificate has expired or is not yet valid: \
                 current time 1970-01-02T00:00:00Z is after 1970-01-01T00:00:00Z",
            ),
            (
                "dns.test",
                CertificateError::NotValidYetContext { time: day(1), not_before: day(2) },
                "certificate has expired or is not yet valid: \
                 current time 1970-01-02T00:00:00Z is before 1970-01-03T00:00:00Z",
            ),
        ] {
            let error = io::Error::other(rustls::Error::InvalidCertificate(error));
            let words = format!("({name}): tls: failed to verify certificate: x509: {why}");
            assert_eq!(tls_to(name).words(&error), format!("192.0.2.53:853 {words}"));
        }
        let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(
            tls_to("dns.test").words(&closed),
            "192.0.2.53:853 (dns.test): tls: handshake: EOF"
        );
    }

    #[test]
    fn an_authority_that_is_not_trusted_reads_as_in_go() {
        let tls = tls_to("dns.test");
        let text = "certificate signed by unknown authority";
        for error in [CertificateError::UnknownIssuer, CertificateError::BadSignature] {
            assert_eq!(distrust(&error, &tls), text);
        }
        let authority = Arc::new(io::Error::other(trust::AUTHORITY));
        let shown = distrust(&CertificateError::Other(rustls::OtherError(authority)), &tls);
        assert!(shown.starts_with(&format!("{text} (it calls itself one")), "{shown}");
    }

    #[test]
    fn a_port_that_is_none_is_told_when_dialled() {
        let upstream = |port: Result<u16, String>| Upstream {
            text: "192.0.2.1:x".to_owned(),
            ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            interface: None,
            port,
            tls: None,
        };
        for (port, text) in [
            ("abc", "dial udp: lookup udp/abc: unknown port"),
            ("99999", "dial udp: address 99999: invalid port"),
        ] {
            let dialer = Dialer::new(&upstream(Err(port.to_owned())), &Keeping::default());
            assert_eq!(dialer.datagrams().unwrap_err(), text);
        }
    }
}
