//! The TOs of a `forward` line: addresses, schemes, resolv.conf files (docs/plugins/forward.md).
//!
//! Owns the text forms that CoreDNS accepts, Go's splitting of host and port included. Reads files
//! and resolves host names only through the surroundings.

use super::options::Upstream;
use crate::corefile::Surroundings;
use crate::dns::{Transport, sizes};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A TO before its TLS settings are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The upstream, without TLS settings.
    pub(super) upstream: Upstream,
    /// What `tls://`, `https://` or `quic://` in front asks for.
    pub(super) over: Option<Transport>,
    /// The server name of `tls://IP%NAME`.
    pub(super) server_name: Option<String>,
    /// The host name that the address was found for: the server's, unless the directive says
    /// another.
    pub(super) host: Option<String>,
}

/// A TO that is a host name: its addresses are found when the whole directive is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    name: String,
    port: String,
    over: Option<Transport>,
}

/// What one word of the line stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    /// An address.
    Address(Target),
    /// A host name.
    Host(Host),
    /// An upstream behind a scheme that there is none for: CoreDNS's text, which is said when the whole
    /// directive is read.
    Unsupported(String),
    /// A file, and the addresses that its `nameserver` lines name.
    File(PathBuf, Vec<Target>),
}

/// The schemes that CoreDNS knows, with their ports. Anything else is no scheme.
const SCHEMES: &[(&str, &str)] = &[
    ("dns", "53"),
    ("tls", "853"),
    ("quic", "853"),
    ("grpc", "443"),
    ("https3", "443"),
    ("https", "443"),
    ("unix", ""),
];

/// The encrypted transports and their schemes.
const SEALED: &[(Transport, &str)] =
    &[(Transport::Tls, "tls"), (Transport::Https, "https"), (Transport::Quic, "quic")];

/// What is encrypted behind a scheme.
fn sealed(scheme: &str) -> Option<Transport> {
    SEALED.iter().find(|(_, word)| *word == scheme).map(|(over, _)| *over)
}

/// The scheme of an encrypted transport.
pub(super) fn scheme_of(over: Transport) -> &'static str {
    SEALED.iter().find(|(known, _)| *known == over).map_or("dns", |(_, word)| word)
}

/// Expands the TOs of one line. The error is CoreDNS's text; lines of a file that name no address
/// go to the empty `ignored`. Files may name nobody but such: as with CoreDNS that is no error.
pub(super) fn targets(
    words: &[&str],
    surroundings: &dyn Surroundings,
    ignored: &mut Vec<String>,
) -> Result<Vec<To>, String> {
    let mut targets = Vec::new();
    for word in words {
        let (scheme, port, host) = split_scheme(word);
        if host.is_empty() {
            return Err(format!("invalid address: {word:?}"));
        }
        let over = sealed(scheme);
        let supported = scheme == "dns" || over.is_some();
        if let Some((host, port)) = host_and_port(host, port) {
            if !supported {
                let shown = join(&host, &port);
                targets.push(unsupported(scheme, &format!("{scheme}://{shown}")));
                continue;
            }
            if let Some(target) = target(&host, &port, over) {
                targets.push(To::Address(target));
                continue;
            }
        } else if scheme == "unix" {
            targets.push(unsupported(scheme, word));
            continue;
        }
        let content = match surroundings.read(Path::new(host)) {
            Ok(content) => content,
            // To Go a directory is a file without servers: so `forward . . ADDRESS` has only one.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => continue,
            Err(_) => match host_name(host, port) {
                Some((name, port)) if supported => {
                    targets.push(To::Host(Host { name, port, over }));
                    continue;
                }
                Some((name, port)) => {
                    targets.push(unsupported(scheme, &format!("{scheme}://{name}:{port}")));
                    continue;
                }
                None => return Err(format!("not an IP address or file: {host:?}")),
            },
        };
        targets.push(To::File(PathBuf::from(host), of_file(host, &content, ignored)));
    }
    let is_empty = |to: &To| matches!(to, To::File(_, targets) if targets.is_empty());
    if targets.iter().all(is_empty) && ignored.is_empty() {
        return Err("no nameservers found".to_owned());
    }
    Ok(targets)
}

/// The addresses of a file's `nameserver` lines; those that name none go to `ignored`.
pub(super) fn of_file(path: &str, content: &[u8], ignored: &mut Vec<String>) -> Vec<Target> {
    let mut targets = Vec::new();
    for server in nameservers(&String::from_utf8_lossy(content)) {
        match target(server, "53", None) {
            Some(target) => targets.push(target),
            None => ignored.push(format!("{path}: nameserver {server} is not an IP address")),
        }
    }
    targets
}

fn unsupported(scheme: &str, shown: &str) -> To {
    To::Unsupported(format!(
        "'{scheme}' is not supported as a destination protocol in forward: {shown}"
    ))
}

/// Scheme, its port, and the rest.
fn split_scheme(word: &str) -> (&'static str, &'static str, &str) {
    SCHEMES
        .iter()
        .find_map(|&(scheme, port)| {
            let rest = word.strip_prefix(scheme)?.strip_prefix("://")?;
            Some((scheme, port, rest))
        })
        .unwrap_or(("dns", "53", word))
}

impl Host {
    /// Its addresses, asked at `resolvers`; the error is CoreDNS's text. The certificate of a TLS
    /// one must have the host's name.
    pub(super) fn resolve(
        &self,
        surroundings: &dyn Surroundings,
        resolvers: &[SocketAddr],
    ) -> Result<Vec<Target>, String> {
        let name = &self.name;
        let addresses = surroundings.resolve(name, resolvers).map_err(|why| {
            format!("failed to resolve {name:?}: no addresses found for {name:?}: {why}")
        })?;
        let targets = addresses.iter().filter_map(|address| {
            let found = target(&address.to_string(), &self.port, self.over)?;
            Some(Target { host: self.over.map(|_| name.clone()), ..found })
        });
        Ok(targets.collect())
    }
}

/// Name and port of a host; `None` when `text` is no host name. A host name has a dot, so that a
/// mistake stays a mistake whatever the resolver says.
fn host_name(text: &str, default: &str) -> Option<(String, String)> {
    let (name, port) = split_host_port(text).unwrap_or((text, default));
    let mut labels = name.strip_suffix('.').unwrap_or(name).split('.');
    let is_label = |label: &str| {
        (1..=sizes::LABEL_MOST).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last = labels.clone().next_back()?;
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    let is_name =
        name.len() < sizes::NAME_MOST && name.contains('.') && !is_number && labels.all(is_label);
    is_name.then(|| (name.to_owned(), port.to_owned()))
}

/// A server as `resolver` names it: an address, with port 53 unless it says another.
pub(super) fn resolver(word: &str) -> Option<SocketAddr> {
    let (host, port) = host_and_port(word, "53")?;
    Some(SocketAddr::new(host.parse().ok()?, port.parse().ok()?))
}

/// Host and port of an address; `None` when `text` is no address.
fn host_and_port(text: &str, default: &str) -> Option<(String, String)> {
    let (host, port) = match split_host_port(text) {
        Some(pair) => pair,
        None => {
            let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            (bare.unwrap_or(text), default)
        }
    };
    let address = host.rsplit_once('%').map_or(host, |(address, _)| address);
    address.parse::<IpAddr>().ok()?;
    Some((host.to_owned(), port.to_owned()))
}

/// Go's `net.SplitHostPort`.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => Some((inner.strip_suffix(']')?, port)),
        None if host.contains([':', '[', ']']) => None,
        None => Some((host, port)),
    }
}

/// Go's `net.JoinHostPort`.
fn join(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn without_zone(host: &str) -> (&str, Option<&str>) {
    match host.split_once('%') {
        Some((host, zone)) => (host, Some(zone)),
        None => (host, None),
    }
}

fn target(host: &str, port: &str, over: Option<Transport>) -> Option<Target> {
    let (address, zone) = without_zone(host);
    let ip: IpAddr = address.parse().ok()?;
    let zone = zone.filter(|zone| !zone.is_empty()).map(str::to_owned);
    // `%` names the TLS server; only a link-local address needs an interface more.
    let (interface, server_name) = match zone {
        Some(zone) if over.is_some() && !is_link_local(ip) => (None, Some(zone)),
        zone => (zone, None),
    };
    let number = if port.is_empty() { Ok(0) } else { port.parse::<u16>() };
    let text = match number {
        Ok(port) => SocketAddr::new(ip, port).to_string(),
        Err(_) => join(&ip.to_string(), port),
    };
    Some(Target {
        upstream: Upstream {
            text,
            ip,
            interface,
            port: number.map_err(|_| port.to_owned()),
            tls: None,
        },
        over,
        server_name,
        host: None,
    })
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The values of the `nameserver` lines of a resolv.conf.
fn nameservers(content: &str) -> impl Iterator<Item = &str> {
    content.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;

    fn one_file(content: &str) -> MemorySurroundings {
        MemorySurroundings::new().with_file("/etc/resolv.conf", content)
    }

    fn flat(tos: Vec<To>) -> Result<Vec<Target>, String> {
        let mut targets = Vec::new();
        for to in tos {
            match to {
                To::Host(host) => targets.extend(host.resolve(&one_file(RESOLV), &[])?),
                To::Address(target) => targets.push(target),
                To::File(_, found) => targets.extend(found),
                To::Unsupported(why) => return Err(why),
            }
        }
        Ok(targets)
    }

    const RESOLV: &str = "# nameserver 9.9.9.9\nsearch a.test\nnameserver 10.0.0.10\n  nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\n";

    fn texts(words: &[&str]) -> Result<Vec<String>, String> {
        let targets = targets(words, &one_file(RESOLV), &mut Vec::new())?;
        Ok(flat(targets)?.into_iter().map(|target| target.upstream.text).collect())
    }

    #[test]
    fn addresses_take_every_form_that_coredns_accepts() {
        for (word, text) in [
            ("1.1.1.1", "1.1.1.1:53"),
            ("1.1.1.1:5353", "1.1.1.1:5353"),
            ("dns://1.1.1.1", "1.1.1.1:53"),
            ("::1", "[::1]:53"),
            ("[::1]:54", "[::1]:54"),
            ("[::1]", "[::1]:53"),
            ("::1:53", "[::1:53]:53"),
            ("tls://9.9.9.9", "9.9.9.9:853"),
            ("tls://9.9.9.9%dns.quad9.net:8853", "9.9.9.9:8853"),
            ("tls://[2620:fe::fe]:853", "[2620:fe::fe]:853"),
            ("https://9.9.9.9", "9.9.9.9:443"),
            ("https://9.9.9.9%dns.quad9.net:8443", "9.9.9.9:8443"),
            ("quic://[2620:fe::fe]", "[2620:fe::fe]:853"),
            ("fe80::1%lo", "[fe80::1]:53"),
            ("1.1.1.1:abc", "1.1.1.1:abc"),
            ("1.1.1.1:99999", "1.1.1.1:99999"),
            ("1.1.1.1:0", "1.1.1.1:0"),
            ("1.1.1.1:", "1.1.1.1:0"),
        ] {
            assert_eq!(texts(&[word]), Ok(vec![text.to_owned()]), "{word}");
        }
    }

    #[test]
    fn a_host_name_is_as_long_as_a_name_can_be() {
        let long = "x".repeat(63);
        let name = format!("{long}.{long}.{long}.{}.", "x".repeat(61));
        assert_eq!(host_name(&name, "53"), Some((name.clone(), "53".to_owned())));
        assert_eq!(host_name(&format!("x.{name}"), "53"), None);
    }

    #[test]
    fn what_is_no_address_is_refused_in_the_words_of_coredns() {
        for (word, error) in [
            ("foo", "not an IP address or file: \"foo\""),
            ("foo://127.0.0.1", "not an IP address or file: \"foo://127.0.0.1\""),
            ("tls://", "invalid address: \"tls://\""),
            (
                "https3://1.1.1.1",
                "'https3' is not supported as a destination protocol in forward: https3://1.1.1.1:443",
            ),
            (
                "grpc://[::1]:1",
                "'grpc' is not supported as a destination protocol in forward: grpc://[::1]:1",
            ),
            ("/nowhere", "not an IP address or file: \"/nowhere\""),
            ("1.1.1.1%a%b", "not an IP address or file: \"1.1.1.1%a%b\""),
        ] {
            assert_eq!(texts(&[word]), Err(error.to_owned()), "{word}");
        }
    }

    #[test]
    fn a_resolv_conf_gives_its_nameservers_on_port_53() {
        let mut ignored = Vec::new();
        let targets = targets(&["/etc/resolv.conf", "192.0.2.1"], &one_file(RESOLV), &mut ignored);
        let targets = flat(targets.unwrap()).unwrap();
        let texts: Vec<_> = targets.iter().map(|target| target.upstream.text.as_str()).collect();
        assert_eq!(texts, ["10.0.0.10:53", "[fe80::1]:53", "192.0.2.1:53"]);
        assert_eq!(targets[1].upstream.interface.as_deref(), Some("eth0"));
        assert_eq!(ignored, ["/etc/resolv.conf: nameserver nonsense is not an IP address"]);
    }

    #[test]
    fn a_resolv_conf_without_nameservers_is_refused() {
        let result = targets(&["/etc/resolv.conf"], &one_file("search a.test"), &mut Vec::new());
        assert_eq!(result, Err("no nameservers found".to_owned()));
    }

    #[test]
    fn a_percent_sign_names_the_tls_server_or_the_interface() {
        let one = |word| {
            flat(targets(&[word], &one_file(""), &mut Vec::new()).unwrap()).unwrap().remove(0)
        };
        let quad9 = one("tls://9.9.9.9%dns.quad9.net");
        assert_eq!(
            (quad9.over, quad9.server_name.as_deref()),
            (Some(Transport::Tls), Some("dns.quad9.net"))
        );
        let local = one("tls://fe80::1%eth0");
        assert_eq!(local.upstream.interface.as_deref(), Some("eth0"));
        assert_eq!(local.server_name, None);
        assert_eq!(one("fe80::1%lo").upstream.interface.as_deref(), Some("lo"));
    }
}
