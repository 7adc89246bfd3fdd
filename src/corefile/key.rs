//! Server block keys: `[scheme://]ZONE[:PORT]`, CIDR keys included (spec/coredns.md §1.6).

use crate::dns::Name;

/// The scheme of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyTransport {
    /// `dns://` or none: UDP and TCP.
    Dns,
    /// `tls://`.
    Tls,
    /// `quic://`.
    Quic,
    /// `grpc://`.
    Grpc,
    /// `https://`.
    Https,
    /// `https3://`.
    Https3,
    /// `unix://`: no server at all.
    Unix,
}

impl KeyTransport {
    /// The word before `://`.
    pub fn word(self) -> &'static str {
        match self {
            KeyTransport::Dns => "dns",
            KeyTransport::Tls => "tls",
            KeyTransport::Quic => "quic",
            KeyTransport::Grpc => "grpc",
            KeyTransport::Https => "https",
            KeyTransport::Https3 => "https3",
            KeyTransport::Unix => "unix",
        }
    }
}

/// One zone of a server block, lower-cased, with its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerKey {
    /// The scheme.
    pub transport: KeyTransport,
    /// The zone.
    pub zone: Name,
    /// The port as written, or the scheme's default.
    pub port: String,
}

/// The keys of one block; a CIDR key gives several. `default_port` is `-dns.port`. The error is
/// CoreDNS's text, such as `error inspecting server blocks: zone is not a valid domain name: X`
/// without the first part.
pub fn parse_keys(text: &str, default_port: u16) -> Result<Vec<ServerKey>, String> {
    let _ = (text, default_port);
    todo!()
}

/// CoreDNS's `Host.NormalizeExact`: scheme and port stripped, lower-cased, CIDR to reverse zones;
/// empty when the text names no zone.
pub fn normalise_zone(text: &str) -> Vec<Name> {
    let _ = text;
    todo!()
}
