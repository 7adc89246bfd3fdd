//! What `nodens query` is told: how a question is asked, and what of its reply is shown.
//!
//! Owns the defaults and the bounds of the numbers: whatever is asked for, a run ends. Which words set
//! what is [`super::options`]'s.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How long one try may take by default, in seconds, and at least and at most.
pub(super) const TIME: (u64, u64, u64) = (5, 1, 300);
/// How often every server is asked by default, at least and at most.
pub(super) const TRIES: (u64, u64, u64) = (3, 1, 100);
/// The size of a datagram that we take by default (the DNS flag day of 2020), at least and at most.
pub(super) const SIZE: (u64, u64, u64) = (1232, 512, 65535);

/// How a question is asked and its reply shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// `@SERVER`: an address or a name; those of resolv.conf without it.
    pub(super) server: Option<String>,
    /// `-p`; the transport's own without it.
    pub(super) port: Option<u16>,
    /// `-4`, `-6`.
    pub(super) family: Option<Family>,
    /// `-b`: the address to ask from, port 0 for any.
    pub(super) source: Option<SocketAddr>,
    /// The transport.
    pub(super) way: Way,
    /// Whether one was asked for: then ANY stays with it.
    pub(super) has_way: bool,
    /// `+ignore`: a truncated reply is taken as it is.
    pub(super) takes_truncated: bool,
    /// The RD bit.
    pub(super) recursion: bool,
    /// The AD bit.
    pub(super) authentic: bool,
    /// The CD bit.
    pub(super) checking_disabled: bool,
    /// EDNS; `None` for a query without.
    pub(super) edns: Option<Edns>,
    /// The name in the server's certificate.
    pub(super) tls_name: Option<String>,
    /// Whose signature is believed; without it certificates are not verified, as with dig.
    pub(super) authority: Option<Authority>,
    /// How long one try may take.
    pub(super) time: Duration,
    /// How often every server is asked.
    pub(super) tries: u32,
    /// `+search`: resolv.conf's search list is put behind names.
    pub(super) searches: bool,
    /// `+ndots`; resolv.conf's without it.
    pub(super) ndots: Option<usize>,
    /// What is shown.
    pub(super) shown: Shown,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What carries the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// Datagrams; a truncated reply is asked for again over TCP.
    Udp,
    /// A stream.
    Tcp,
    /// DNS over TLS.
    Tls,
    /// DNS over HTTPS, HTTP/2.
    Https(Method, String),
    /// DNS over QUIC.
    Quic,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// The query in the body.
    Post,
    /// The query in the address.
    Get,
}

/// What the OPT record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edns {
    /// 0 unless `+edns=N`.
    pub(super) version: u8,
    /// The greatest datagram that we take, octets.
    pub(super) size: u16,
    /// The DO bit.
    pub(super) dnssec: bool,
    /// Asks for the server's identifier (RFC 5001).
    pub(super) nsid: bool,
    /// Address and prefix length of the client (RFC 7871).
    pub(super) subnet: Option<(IpAddr, u8)>,
}

/// Whose signature on a certificate is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Authority {
    /// The system's authorities.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// What of a reply is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// Nothing but the RDATA of the answer.
    pub(super) is_short: bool,
    /// The first line.
    pub(super) command: bool,
    /// Header and headings.
    pub(super) comments: bool,
    /// The question section.
    pub(super) question: bool,
    /// The answer section.
    pub(super) answer: bool,
    /// The authority section.
    pub(super) authority: bool,
    /// The additional section.
    pub(super) additional: bool,
    /// The lines behind the sections.
    pub(super) statistics: bool,
    /// TTLs.
    pub(super) ttl: bool,
    /// Classes.
    pub(super) class: bool,
    /// Times in microseconds.
    pub(super) microseconds: bool,
}

impl Shown {
    /// `+all`.
    pub(super) const ALL: Shown = Shown {
        is_short: false,
        command: true,
        comments: true,
        question: true,
        answer: true,
        authority: true,
        additional: true,
        statistics: true,
        ttl: true,
        class: true,
        microseconds: false,
    };

    /// `+noall`.
    pub(super) const NOTHING: Shown = Shown {
        command: false,
        comments: false,
        question: false,
        answer: false,
        authority: false,
        additional: false,
        statistics: false,
        ..Shown::ALL
    };
}

impl Default for Edns {
    fn default() -> Edns {
        Edns { version: 0, size: SIZE.0 as u16, dnssec: false, nsid: false, subnet: None }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            server: None,
            port: None,
            family: None,
            source: None,
            way: Way::Udp,
            has_way: false,
            takes_truncated: false,
            recursion: true,
            authentic: true,
            checking_disabled: false,
            edns: Some(Edns::default()),
            tls_name: None,
            authority: None,
            time: Duration::from_secs(TIME.0),
            tries: TRIES.0 as u32,
            searches: false,
            ndots: None,
            shown: Shown::ALL,
        }
    }
}
