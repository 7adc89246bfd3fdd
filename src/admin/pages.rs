//! Responses as Go's servers write them: text, a link elsewhere, and octets compressed.

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Response, StatusCode};
use std::io::Write;

/// The type of all text.
pub(super) const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Text.
pub(super) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_TYPE));
    response
}

/// Text that no browser is to take for anything else.
pub(super) fn unsniffed_text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = text(status, body);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Sends a client elsewhere with a link, as Go does.
pub(super) fn moved(status: StatusCode, elsewhere: &str, method: &Method) -> Response<Full<Bytes>> {
    let reason = status.canonical_reason().unwrap_or_default();
    let link = match *method {
        Method::GET => format!("<a href=\"{elsewhere}\">{reason}</a>.\n\n"),
        _ => String::new(),
    };
    let mut response = text(status, link);
    let headers = response.headers_mut();
    match *method {
        Method::GET | Method::HEAD => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))
        }
        _ => headers.remove(CONTENT_TYPE),
    };
    // It is a part of what came as a URI.
    if let Ok(location) = HeaderValue::from_str(elsewhere) {
        headers.insert(LOCATION, location);
    }
    response
}

/// Compressed; `None` when there is no memory for it.
pub(super) fn gzip(plain: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok()
}
