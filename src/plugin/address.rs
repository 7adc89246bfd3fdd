//! `host:port` as Go's `net.SplitHostPort` reads it, and as its `url.Parse` does, with their error
//! texts. Never looks a name up.

use crate::corefile::quote;
use std::net::IpAddr;

/// Host (brackets removed, possibly empty) and port (possibly empty). The error is Go's text, such
/// as `address 9153: missing port in address`; an empty address is not named.
pub fn split_host_port(text: &str) -> Result<(&str, &str), String> {
    let fail = |why: &str| match text {
        "" => Err(why.to_owned()),
        text => Err(format!("address {text}: {why}")),
    };
    let Some(colon) = text.rfind(':') else { return fail("missing port in address") };
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let Some(end) = inner.find(']') else { return fail("missing ']' in address") };
            // Counted in `text`, where the bracket stands one octet further on.
            match end + 2 {
                after if after == text.len() => return fail("missing port in address"),
                after if after == colon => {}
                after if text[after..].starts_with(':') => {
                    return fail("too many colons in address");
                }
                _ => return fail("missing port in address"),
            }
            (&inner[..end], &inner[end + 1..])
        }
        None => {
            let host = &text[..colon];
            if host.contains(':') {
                return fail("too many colons in address");
            }
            (host, text)
        }
    };
    if host.contains('[') || rest.contains('[') {
        return fail("unexpected '[' in address");
    }
    if host.contains(']') || (rest.contains(']') && !text.starts_with('[')) {
        return fail("unexpected ']' in address");
    }
    Ok((host, &text[colon + 1..]))
}

/// The services that Go knows without a file.
const SERVICES: [(&str, u16); 14] = [
    ("ftp", 21),
    ("ftps", 990),
    ("gopher", 70),
    ("http", 80),
    ("https", 443),
    ("imap2", 143),
    ("imap3", 220),
    ("imaps", 993),
    ("pop3", 110),
    ("pop3s", 995),
    ("smtp", 25),
    ("ssh", 22),
    ("submissions", 465),
    ("telnet", 23),
];

/// The port of an address to listen at over TCP, a number or the name of a service that Go knows
/// without a file; none is any. The error is Go's text, such as `address 99999: invalid port`.
pub fn tcp_port(port: &str) -> Result<u16, String> {
    let named = || SERVICES.iter().find(|(name, _)| name.eq_ignore_ascii_case(port));
    match (port, port.parse::<u16>()) {
        ("", _) => Ok(0),
        (_, Ok(number)) => Ok(number),
        (_, Err(_)) => match (named(), port.parse::<i64>()) {
            (Some((_, number)), _) => Ok(*number),
            (None, Ok(_)) => Err(format!("address {port}: invalid port")),
            (None, Err(_)) => Err(format!("lookup tcp/{port}: unknown port")),
        },
    }
}

/// Looks at an address that a directive is to listen at over TCP. The error is Go's text.
pub(super) fn look_at(text: &str) -> Result<(), String> {
    let (_, port) = split_host_port(text)?;
    tcp_port(port).map(drop).map_err(|why| format!("listen tcp: {why}"))
}

/// Host and port of a URL, from the text behind its `scheme://`: what stands before path and query.
/// A port must be a number, and only an address stands in brackets. The error is Go's text, such as
/// `invalid port ":abc" after host`.
pub(super) fn url_authority(text: &str) -> Result<&str, String> {
    let authority = text.split(['/', '?', '#']).next().unwrap_or_default();
    let port = match authority.rfind(']') {
        Some(end) if authority.starts_with('[') => &authority[end + 1..],
        _ => authority.rfind(':').map_or("", |colon| &authority[colon..]),
    };
    let is_number = |digits: &str| digits.bytes().all(|octet| octet.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_number) {
        return Err(format!("invalid port {} after host", quote(port)));
    }
    let host = &authority[..authority.len() - port.len()];
    if let Some(at) = host.find('%') {
        let escape: String = host[at..].chars().take(3).collect();
        return Err(format!("invalid URL escape {}", quote(&escape)));
    }
    let is_odd = |letter: &char| {
        letter.is_ascii()
            && !letter.is_ascii_alphanumeric()
            && !"-_.~!$&'()*+,;=:[]<>\"".contains(*letter)
    };
    if let Some(odd) = host.chars().find(is_odd) {
        return Err(format!("invalid character {} in host name", quote(&odd.to_string())));
    }
    // An IPv4 address in brackets is taken, though Go 1.25.2 began to refuse it: deployments write that.
    match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) if inner.parse::<IpAddr>().is_err() => Err("invalid IP-literal".to_owned()),
        _ => Ok(authority),
    }
}

#[cfg(test)]
mod tests {
    use super::{look_at, split_host_port, url_authority};

    #[test]
    fn a_url_has_a_number_for_its_port() {
        for (text, authority) in [
            ("127.0.0.1:80/path:x", Ok("127.0.0.1:80")),
            ("[::1]:80", Ok("[::1]:80")),
            ("[::1]", Ok("[::1]")),
            (":8080", Ok(":8080")),
            ("host:", Ok("host:")),
            ("", Ok("")),
            ("127.0.0.1:abc", Err("invalid port \":abc\" after host".to_owned())),
            ("127.0.0.1:-1", Err("invalid port \":-1\" after host".to_owned())),
            ("[::1]x", Err("invalid port \"x\" after host".to_owned())),
            ("[127.0.0.1]:80", Ok("[127.0.0.1]:80")),
            ("[localhost]:80", Err("invalid IP-literal".to_owned())),
            ("[::1%lo]:80", Err("invalid URL escape \"%lo\"".to_owned())),
            ("a b:80", Err("invalid character \" \" in host name".to_owned())),
        ] {
            assert_eq!(url_authority(text), authority, "{text}");
        }
    }

    #[test]
    fn an_address_to_listen_at_has_a_port_that_there_is() {
        for (text, found) in [
            (":80", Ok(())),
            ("localhost:", Ok(())),
            (":HTTP", Ok(())),
            ("80", Err("address 80: missing port in address".to_owned())),
            (":65536", Err("listen tcp: address 65536: invalid port".to_owned())),
            (":-1", Err("listen tcp: address -1: invalid port".to_owned())),
            (":dns", Err("listen tcp: lookup tcp/dns: unknown port".to_owned())),
        ] {
            assert_eq!(look_at(text), found, "{text}");
        }
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, host, port) in [
            (":9253", "", "9253"),
            ("localhost:9153", "localhost", "9153"),
            ("127.0.0.1:", "127.0.0.1", ""),
            ("[::1]:8080", "::1", "8080"),
            ("[fe80::1%eth0]:53", "fe80::1%eth0", "53"),
        ] {
            assert_eq!(split_host_port(text), Ok((host, port)), "{text}");
        }
    }

    #[test]
    fn errors_are_gos() {
        for (text, error) in [
            ("8080", "address 8080: missing port in address"),
            ("", "missing port in address"),
            ("[::1]", "address [::1]: missing port in address"),
            ("::1", "address ::1: too many colons in address"),
            ("[::1", "address [::1: missing ']' in address"),
            ("[::1]x:1", "address [::1]x:1: missing port in address"),
            ("a]:1", "address a]:1: unexpected ']' in address"),
        ] {
            assert_eq!(split_host_port(text), Err(error.to_owned()), "{text}");
        }
    }
}
