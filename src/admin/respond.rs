//! What each path answers.

use super::pages::{gzip, moved, text, unsniffed_text};
use super::refuse::{refuse, unescaped};
use super::{negotiate, profile};
use crate::metrics::{Gauge, Registry, names};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use std::fmt;
use std::sync::Arc;

/// Whether all is well; the error is what a prober is told with status 503. Called for each request:
/// never waits.
pub trait Condition: fmt::Debug + Send + Sync {
    /// Looks at it now.
    fn look(&self) -> Result<(), String>;
}

/// Well as long as the process can answer.
#[derive(Debug)]
pub struct Alive;

impl Condition for Alive {
    fn look(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What one address serves.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// /metrics of this registry.
    pub metrics: Option<Registry>,
    /// /health: 200 while this holds.
    pub health: Option<Arc<dyn Condition>>,
    /// /ready: 200 while this holds.
    pub ready: Option<Arc<dyn Condition>>,
    /// New connections speak TLS by this.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// /debug/pprof: CPU profiles.
    pub profile: bool,
}

impl Endpoints {
    /// The response to any method on `request`'s path, also when it takes time to make.
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if let Some(refused) = refuse(request) {
            return refused;
        }
        if request.method() != Method::CONNECT
            && let Some(elsewhere) = clean(request.uri())
        {
            return moved(StatusCode::MOVED_PERMANENTLY, &elsewhere, request.method());
        }
        if self.profile
            && let Some(path) = request.uri().path().strip_prefix("/debug/pprof")
        {
            let query = request.uri().query().unwrap_or_default();
            return profile::respond(path, query, request.method()).await;
        }
        self.respond(request)
    }

    /// The response to any method on `request`'s path.
    fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = unescaped(request.uri().path()).unwrap_or_default();
        match (path.as_str(), self) {
            ("/metrics", Endpoints { metrics: Some(registry), .. }) => {
                scrape(registry, request.headers())
            }
            ("/health", Endpoints { health: Some(condition), .. })
            | ("/ready", Endpoints { ready: Some(condition), .. }) => match condition.look() {
                Ok(()) => text(StatusCode::OK, "OK".to_owned()),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            _ => unsniffed_text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        }
    }
}

/// The path in its shortest form and the query, when `uri` has another: Go's servers send such
/// clients (`//metrics`) there.
fn clean(uri: &Uri) -> Option<String> {
    let path = uri.path();
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    let shortest = format!("/{}{slash}", parts.join("/"));
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    (shortest != path).then(|| shortest + &query)
}

/// Counts a scrape that is being served; its end is the drop.
struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

fn scrape(registry: &Registry, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let in_flight = InFlight(registry.gauge(&names::SCRAPES_IN_FLIGHT, &[]));
    in_flight.0.add(1.0);
    let plain = registry.text().into_bytes();
    let zipped = negotiate::prefers_gzip(headers).then(|| gzip(&plain)).flatten();
    let kind = HeaderValue::from_static(negotiate::metrics_type(headers));
    registry.counter(&names::SCRAPES, &["200"]).increment();
    let is_zipped = zipped.is_some();
    let mut response = Response::new(Full::new(Bytes::from(zipped.unwrap_or(plain))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    if is_zipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::super::negotiate::METRICS_TYPE;
    use super::super::pages::TEXT_TYPE;
    use super::*;
    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;
    use hyper::header::{ACCEPT_ENCODING, HOST, LOCATION};
    use std::io::Read;
    use std::sync::Mutex;

    fn ask(
        endpoints: &Endpoints,
        method: Method,
        path: &str,
        coding: &str,
    ) -> Response<Full<Bytes>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "x")
            .header(ACCEPT_ENCODING, coding)
            .body(())
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(endpoints.answer(&request))
    }

    fn body(response: Response<Full<Bytes>>) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(response.into_body().collect()).unwrap().to_bytes().to_vec()
    }

    fn alive() -> Endpoints {
        Endpoints { health: Some(Arc::new(Alive)), ..Endpoints::default() }
    }

    /// Holds unless there is a reason not to.
    #[derive(Debug)]
    struct Unless(Mutex<Option<&'static str>>);

    impl Condition for Unless {
        fn look(&self) -> Result<(), String> {
            self.0.lock().unwrap().map_or(Ok(()), |why| Err(why.to_owned()))
        }
    }

    #[test]
    fn health_is_ok_for_any_method_and_query() {
        let endpoints = alive();
        for (method, path) in
            [(Method::GET, "/health"), (Method::POST, "/he%61lth"), (Method::GET, "/health?x=1")]
        {
            let response = ask(&endpoints, method, path, "");
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()[CONTENT_TYPE], TEXT_TYPE);
            assert_eq!(body(response), b"OK");
        }
    }

    #[test]
    fn other_paths_and_endpoints_that_nobody_asked_for_are_not_found() {
        let endpoints = alive();
        for path in ["/", "/healthz", "/health/", "/ready", "/metrics"] {
            let response = ask(&endpoints, Method::GET, path, "");
            assert_eq!(response.status(), 404, "{path}");
            assert_eq!(body(response), b"404 page not found\n");
        }
    }

    #[test]
    fn a_path_that_could_be_shorter_is_where_it_is_moved_to() {
        let endpoints = alive();
        for (path, location) in [
            ("//health", "/health"),
            ("/./health?a=b", "/health?a=b"),
            ("/x/../health/", "/health/"),
            ("//", "/"),
        ] {
            let response = ask(&endpoints, Method::GET, path, "");
            assert_eq!(response.status(), 301, "{path}");
            assert_eq!(response.headers()[LOCATION], location);
            let link = format!("<a href=\"{location}\">Moved Permanently</a>.\n\n");
            assert_eq!(body(response), link.as_bytes());
            let response = ask(&endpoints, Method::POST, path, "");
            assert_eq!((response.status().as_u16(), body(response)), (301, Vec::new()));
        }
    }

    #[test]
    fn a_condition_that_does_not_hold_is_unavailable_and_says_why() {
        let condition = Arc::new(Unless(Mutex::new(Some("rules,upstreams"))));
        let (health, ready) = (Some(condition.clone() as _), Some(condition.clone() as _));
        let endpoints = Endpoints { health, ready, ..Endpoints::default() };
        for path in ["/ready", "/health"] {
            let response = ask(&endpoints, Method::GET, path, "");
            assert_eq!(
                (response.status().as_u16(), body(response)),
                (503, b"rules,upstreams".to_vec())
            );
        }
        *condition.0.lock().unwrap() = None;
        for path in ["/ready", "/health"] {
            let response = ask(&endpoints, Method::GET, path, "");
            assert_eq!((response.status().as_u16(), body(response)), (200, b"OK".to_vec()));
        }
    }

    #[test]
    fn metrics_are_compressed_only_when_asked_for() {
        let registry = Registry::new(0);
        let endpoints = Endpoints { metrics: Some(registry), ..Endpoints::default() };
        for coding in ["", "identity", "gzip;q=0", "deflate, gzip;q=0.0"] {
            let response = ask(&endpoints, Method::GET, "/metrics", coding);
            assert_eq!(response.headers()[CONTENT_TYPE], METRICS_TYPE);
            assert!(response.headers().get(CONTENT_ENCODING).is_none(), "{coding}");
            assert!(body(response).starts_with(b"# HELP coredns_"));
        }
        let response = ask(&endpoints, Method::GET, "/metrics", "deflate, gzip;q=0.5");
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let mut text = String::new();
        GzDecoder::new(body(response).as_slice()).read_to_string(&mut text).unwrap();
        assert!(text.contains("promhttp_metric_handler_requests_total{code=\"200\"} 4"));
        assert!(text.contains("promhttp_metric_handler_requests_in_flight 1"));
    }
}
