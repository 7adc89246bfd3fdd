//! Requests that Go's HTTP server refuses whatever their path, in its words.
//!
//! Owns the look at a request's target, `Host` and `Expect`. Never knows what is served.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, EXPECT, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

/// The response to a request that is none, to one that expects what nobody does, and to `OPTIONS *`;
/// `None` for one whose path decides.
pub(super) fn refuse<B>(request: &Request<B>) -> Option<Response<Full<Bytes>>> {
    let uri = request.uri();
    let is_everything = uri.path() == "*" && request.method() == Method::OPTIONS;
    if uri.path() == "*" && !is_everything {
        return Some(last(StatusCode::BAD_REQUEST, Full::default()));
    }
    // `GET health`: hyper takes such a target for an authority, as CONNECT has it.
    let is_bare = uri.scheme().is_none() && uri.authority().is_some();
    if is_bare && request.method() != Method::CONNECT
        || unescaped(uri.path()).is_none()
        || !is_everything && !is_bare && !uri.path().starts_with('/')
    {
        return Some(bad("400 Bad Request"));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Some(bad("400 Bad Request")),
        (None, _) if request.version() == Version::HTTP_11 => {
            return Some(bad("400 Bad Request: missing required Host header"));
        }
        (Some(host), _) if !host.as_bytes().iter().all(is_of_hosts) => {
            return Some(bad("400 Bad Request: malformed Host header"));
        }
        _ => {}
    }
    if is_everything {
        return Some(Response::new(Full::default()));
    }
    let expects = request.headers().get(EXPECT).map(HeaderValue::as_bytes);
    if expects.is_some_and(|what| !what.is_empty() && !what.eq_ignore_ascii_case(b"100-continue")) {
        return Some(last(StatusCode::EXPECTATION_FAILED, Full::default()));
    }
    None
}

/// A path with its escapes (`%61`) taken for what they mean; `None` when one is broken.
pub(super) fn unescaped(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut octets = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
        // Two hexadecimal digits are an octet.
        octets.push((high? * 16 + low?) as u8);
        rest = behind;
    }
    Some(String::from_utf8_lossy(&octets).into_owned())
}

/// What may stand in a `Host` header (RFC 3986 §3.2.2, as Go reads it).
fn is_of_hosts(octet: &u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(octet)
}

fn bad(text: &'static str) -> Response<Full<Bytes>> {
    let mut response = last(StatusCode::BAD_REQUEST, Full::from(text));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    let reason = text.trim_start_matches("400 ");
    response.extensions_mut().insert(ReasonPhrase::from_static(reason.as_bytes()));
    response
}

/// A response behind which the connection is closed.
fn last(status: StatusCode, body: Full<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, target: &str, headers: &[(&str, &str)]) -> Option<(u16, String)> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = refuse(&request.body(()).unwrap())?;
        let reason = response.extensions().get::<ReasonPhrase>();
        let reason = reason.map_or("", |reason| str::from_utf8(reason.as_bytes()).unwrap());
        Some((response.status().as_u16(), reason.to_owned()))
    }

    #[test]
    fn a_request_has_one_good_host() {
        let missing = (400, "Bad Request: missing required Host header".to_owned());
        let malformed = (400, "Bad Request: malformed Host header".to_owned());
        assert_eq!(asked("GET", "/health", &[]), Some(missing));
        for host in ["a b", "a/b", "a\"b"] {
            assert_eq!(asked("GET", "/health", &[("host", host)]), Some(malformed.clone()));
        }
        let twice = [("host", "a"), ("host", "a")];
        assert_eq!(asked("GET", "/health", &twice), Some((400, "Bad Request".to_owned())));
        for host in ["", "a", "127.0.0.1:8080", "[::1]:80", "a,b"] {
            assert_eq!(asked("GET", "/health", &[("host", host)]), None, "{host}");
        }
        let old = Request::builder().version(Version::HTTP_10).uri("/health").body(()).unwrap();
        assert!(refuse(&old).is_none());
    }

    #[test]
    fn targets_and_expectations_that_go_refuses_are_refused() {
        let host = ("host", "a");
        for (method, target) in [("GET", "health"), ("GET", "/health%zz"), ("GET", "/%a")] {
            let refused = Some((400, "Bad Request".to_owned()));
            assert_eq!(asked(method, target, &[host]), refused, "{target}");
        }
        assert_eq!(asked("OPTIONS", "*", &[host]), Some((200, String::new())));
        assert_eq!(asked("GET", "*", &[host]), Some((400, String::new())));
        assert_eq!(asked("CONNECT", "a:80", &[host]), None);
        let foo = [host, ("expect", "foo")];
        assert_eq!(asked("GET", "/health", &foo), Some((417, String::new())));
        let more = [host, ("expect", "100-Continue")];
        assert_eq!(asked("POST", "/health", &more), None);
    }

    #[test]
    fn escapes_mean_what_they_stand_for() {
        assert_eq!(unescaped("/he%61lth").as_deref(), Some("/health"));
        assert_eq!(unescaped("/%2Fx").as_deref(), Some("//x"));
        assert_eq!(unescaped("/%"), None);
    }
}
