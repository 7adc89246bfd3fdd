//! Server block keys: `[scheme://]ZONE[:PORT]`, CIDR keys included.
//!
//! Owns the schemes, their default ports, and the way from text to zones. Knows nothing of
//! listeners.

use super::cidr::Network;
use super::{parse_integer, quote};
use crate::dns::Name;

/// The greatest length of a zone's text in octets.
const LONGEST_ZONE: usize = 255;

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
    /// All of them.
    const ALL: [KeyTransport; 7] = [
        KeyTransport::Dns,
        KeyTransport::Tls,
        KeyTransport::Quic,
        KeyTransport::Grpc,
        KeyTransport::Https,
        KeyTransport::Https3,
        KeyTransport::Unix,
    ];

    /// The one with this word, in lower case.
    pub fn of_word(word: &str) -> Option<KeyTransport> {
        KeyTransport::ALL.into_iter().find(|transport| transport.word() == word)
    }

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

    /// The port when the key has none.
    fn default_port(self, dns: u16) -> String {
        match self {
            KeyTransport::Dns => dns.to_string(),
            KeyTransport::Tls | KeyTransport::Quic => "853".to_owned(),
            KeyTransport::Grpc | KeyTransport::Https | KeyTransport::Https3 => "443".to_owned(),
            KeyTransport::Unix => String::new(),
        }
    }

    /// The scheme in front of `text`, and the rest. An unknown scheme is part of the rest.
    fn split(text: &str) -> (KeyTransport, &str) {
        for transport in KeyTransport::ALL {
            let rest =
                text.strip_prefix(transport.word()).and_then(|rest| rest.strip_prefix("://"));
            if let Some(rest) = rest {
                return (transport, rest);
            }
        }
        (KeyTransport::Dns, text)
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
    let (transport, rest) = KeyTransport::split(text);
    let (zones, port) = split_host_port(rest)?;
    let port = port.unwrap_or_else(|| transport.default_port(default_port));
    Ok(zones.into_iter().map(|zone| ServerKey { transport, zone, port: port.clone() }).collect())
}

/// CoreDNS's `Host.NormalizeExact`: scheme and port stripped, lower-cased, CIDR to reverse zones;
/// empty when the text names no zone.
pub fn normalise_zone(text: &str) -> Vec<Name> {
    let (_, rest) = KeyTransport::split(text);
    split_host_port(rest).map(|(zones, _)| zones).unwrap_or_default()
}

/// The zones that a key or argument without scheme names, and its port if it has one: whatever
/// number stands behind the last colon.
fn split_host_port(text: &str) -> Result<(Vec<Name>, Option<String>), String> {
    if text.is_empty() || text.ends_with(':') {
        return Err(format!("expecting data after last colon: {}", quote(text)));
    }
    let (zone, port) = match text.rsplit_once(':') {
        Some((zone, digits)) => match parse_integer(digits) {
            Ok(port) => (zone, Some(port.to_string())),
            Err(_) => (text, None),
        },
        None => (text, None),
    };
    // Looked at as it is written, and again with the dot of the root.
    let qualified = zone.len() + usize::from(!zone.ends_with('.'));
    if let Some(length) = [zone.len(), qualified].into_iter().find(|&length| length > LONGEST_ZONE)
    {
        return Err(format!("specified zone is too long: {length} > {LONGEST_ZONE}"));
    }
    let invalid = || format!("zone is not a valid domain name: {zone}");
    if zone.is_empty() {
        return Err(invalid());
    }
    let name: Name = zone.parse().map_err(|_| invalid())?;
    match zone.parse::<Network>() {
        // CoreDNS takes these for addresses with something missing.
        Ok(_) if zone.starts_with(':') || zone.starts_with('0') && zone.contains(':') => {
            Err(format!("invalid CIDR {zone}"))
        }
        Ok(network) => Ok((network.reverse_zones(), port)),
        Err(_) => Ok((vec![name], port)),
    }
}

/// Whether a zone follows the preferred syntax of RFC 1035 §2.3.1 (letters, digits, hyphens).
/// The root and reverse zones always do. CoreDNS warns at start about zones that do not:
/// `Warning: Domain "a_b.org." does not follow RFC1035 preferred syntax`.
pub fn has_preferred_syntax(zone: &Name) -> bool {
    let text = zone.to_string();
    let reverse = [".in-addr.arpa.", ".ip6.arpa."];
    if reverse.iter().any(|end| text.ends_with(end)) {
        return true;
    }
    zone.labels().all(|label| match label {
        [first, rest @ ..] => {
            first.is_ascii_alphabetic()
                && rest.iter().all(|&octet| octet.is_ascii_alphanumeric() || octet == b'-')
                && rest.last() != Some(&b'-')
        }
        [] => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Vec<String>, String> {
        Ok(parse_keys(text, 53)?
            .iter()
            .map(|key| format!("{}://{}:{}", key.transport.word(), key.zone, key.port))
            .collect())
    }

    #[test]
    fn keys_have_scheme_zone_and_port() {
        for (text, key) in [
            (".", "dns://.:53"),
            (".:1053", "dns://.:1053"),
            ("dns://Example.ORG", "dns://example.org.:53"),
            ("tls://.", "tls://.:853"),
            ("quic://.", "quic://.:853"),
            ("https://a:8443", "https://a.:8443"),
            ("grpc://.", "grpc://.:443"),
            ("foo://.:53", "dns://foo://.:53"),
            ("foo:bar", "dns://foo:bar.:53"),
            (".:99999", "dns://.:99999"),
            ("}", "dns://}.:53"),
        ] {
            assert_eq!(keys(text), Ok(vec![key.to_owned()]), "{text}");
        }
    }

    #[test]
    fn bad_keys_give_corednss_texts() {
        for (text, error) in [
            (".:", "expecting data after last colon: \".:\""),
            (":53", "zone is not a valid domain name: "),
            (".:53{", "zone is not a valid domain name: .:53{"),
            ("a..test:1053", "zone is not a valid domain name: a..test"),
            ("::/0", "invalid CIDR ::/0"),
            ("::1/128", "invalid CIDR ::1/128"),
            ("0:0::/32", "invalid CIDR 0:0::/32"),
        ] {
            assert_eq!(keys(text), Err(error.to_owned()), "{text}");
        }
        let long = "abcdefgh.".repeat(30) + "test";
        assert_eq!(keys(&long), Err("specified zone is too long: 274 > 255".to_owned()));
        let dotless = "a".repeat(63) + "." + &["b"; 96].join(".");
        assert_eq!(keys(&dotless), Err("specified zone is too long: 256 > 255".to_owned()));
    }

    #[test]
    fn networks_become_reverse_zones() {
        for (text, zones) in [
            ("10.0.0.0/8", &["10.in-addr.arpa."][..]),
            ("192.168.1.0/24:1053", &["1.168.192.in-addr.arpa."]),
            ("10.0.0.1/24", &["0.0.10.in-addr.arpa."]),
            ("0.0.0.0/0", &["in-addr.arpa."]),
            ("0.0.0.0/8", &["0.in-addr.arpa."]),
            ("1::/0", &["ip6.arpa."]),
            ("172.16.2.0/23", &["2.16.172.in-addr.arpa.", "3.16.172.in-addr.arpa."]),
            ("192.0.2.1/32", &["1.2.0.192.in-addr.arpa."]),
            ("2001:db8::/32", &["8.b.d.0.1.0.0.2.ip6.arpa."]),
            ("2001:db8::/31", &["8.b.d.0.1.0.0.2.ip6.arpa.", "9.b.d.0.1.0.0.2.ip6.arpa."]),
        ] {
            let found: Vec<String> = normalise_zone(text).iter().map(Name::to_string).collect();
            assert_eq!(found, zones, "{text}");
        }
    }

    #[test]
    fn what_names_no_zone_normalises_to_nothing() {
        assert!(normalise_zone("a..b").is_empty());
        assert!(normalise_zone("").is_empty());
        assert_eq!(normalise_zone("dns://A.B:53")[0].to_string(), "a.b.");
    }

    #[test]
    fn the_preferred_syntax_is_letters_digits_hyphens() {
        let check = |text: &str| has_preferred_syntax(&text.parse().unwrap());
        assert!(check(".") && check("a-1.test.") && check("8.b.d.0.ip6.arpa."));
        assert!(!check("a_b.test.") && !check("1a.test.") && !check("a-.test."));
    }
}
