//! `host:port` as Go's `net.SplitHostPort` reads it, with its error texts.

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

#[cfg(test)]
mod tests {
    use super::split_host_port;

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
