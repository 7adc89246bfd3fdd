//! Upstreams over HTTPS that fail: a query alone, or the connection with all that are on it.

use super::*;
use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Mutex;
use tokio::sync::Notify;

/// A resolver over HTTP/2. What it does with a query, the first label of its name says.
#[derive(Default)]
struct Resolver {
    connections: AtomicUsize,
    /// Names that were asked for.
    asked: Mutex<Vec<String>>,
    /// Whether it answers what is held.
    lets_go: Notify,
    /// Ends the connection.
    ends: Notify,
}

type Reply = Result<Response<Full<Bytes>>, String>;

impl Resolver {
    async fn start() -> (Arc<Resolver>, SocketAddr) {
        Resolver::start_at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    async fn start_at(address: SocketAddr) -> (Arc<Resolver>, SocketAddr) {
        let acceptor = tokio_rustls::TlsAcceptor::from(sealing(&["h2"]));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let resolver = Arc::new(Resolver::default());
        let this = resolver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                this.connections.fetch_add(1, Ordering::Relaxed);
                let stream = acceptor.accept(stream).await.unwrap();
                let (own, serving) = (this.clone(), this.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| serving.clone().reply(request));
                    let connection = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        _ = connection => {}
                        () = own.ends.notified() => {}
                    }
                });
            }
        });
        (resolver, address)
    }

    async fn reply(self: Arc<Resolver>, request: Request<hyper::body::Incoming>) -> Reply {
        use http_body_util::BodyExt;
        let query = match request.uri().query().and_then(|text| text.strip_prefix("dns=")) {
            Some(text) => data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap(),
            None => request.into_body().collect().await.unwrap().to_bytes().to_vec(),
        };
        let name = name_of(&query).to_string();
        let times = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(name.clone());
            asked.iter().filter(|one| **one == name).count()
        };
        let (mut kind, mut status) = ("application/dns-message", 200);
        let mut message = answer(&query, 6);
        match name.split('.').next().unwrap() {
            "reset" => return Err("no".to_owned()),
            "status" => status = 503,
            "text" => kind = "text/plain",
            "long" => message.resize(70_000, 0),
            "short" => message.truncate(1),
            "held" => self.lets_go.notified().await,
            "cut" if times == 1 => {
                self.ends.notify_one();
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        let body = Full::new(Bytes::from(message));
        assert!(body.size_hint().exact().is_some());
        Ok(Response::builder().status(status).header("content-type", kind).body(body).unwrap())
    }
}

fn asking(address: SocketAddr, method: DohMethod, options: Options) -> Asking {
    let files = |_: &str| Ok(include_bytes!("../testdata/ca.pem").to_vec());
    let settings = TlsSettings {
        over: Transport::Https,
        server_name: Some("up.test".to_owned()),
        method,
        files: Arc::new(TlsFiles::read(&["/ca.pem"], files).unwrap()),
    };
    let upstream = Upstream { tls: Some(Arc::new(settings)), ..upstream(address) };
    Asking::new(vec![upstream], Options { max_fails: 0, ..options })
}

#[tokio::test]
async fn an_https_upstream_that_is_away_for_a_moment_answers_whoever_waited() {
    for method in [DohMethod::Post, DohMethod::Get] {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let asking = Arc::new(asking(address, method, impatient()));
        let waiting = tokio::spawn({
            let asking = asking.clone();
            async move { asking.udp("a.test.").await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!waiting.is_finished());
        let _up = Resolver::start_at(address).await;
        assert_eq!(waiting.await.unwrap(), Ok(6));
    }
}

#[tokio::test]
async fn a_query_that_an_https_upstream_fails_ends_alone_and_says_why() {
    const RESET: &str = "stream error received: unexpected internal error encountered";
    let get: &[(&str, &str)] = &[
        ("reset.test.", RESET),
        ("status.test.", ": http: status 503 Service Unavailable"),
        ("text.test.", ": http: the response is no DNS message"),
        ("long.test.", ": length limit exceeded"),
    ];
    let post: &[(&str, &str)] = &[
        ("reset.test.", RESET),
        // Without the page that comes with it.
        ("status.test.", ": http unsuccessful code: 503 Service Unavailable"),
        ("text.test.", "(must be 'application/dns-message'): 'text/plain'"),
    ];
    for (method, failures) in [(DohMethod::Get, get), (DohMethod::Post, post)] {
        let (resolver, address) = Resolver::start().await;
        let asking = Arc::new(asking(address, method, patient()));
        let held = tokio::spawn({
            let asking = asking.clone();
            async move { asking.udp("held.test.").await }
        });
        until(|| !resolver.asked.lock().unwrap().is_empty(), "that one is held").await;
        for (name, why) in failures {
            let error = asking.udp(name).await.unwrap_err();
            assert!(error.ends_with(why), "{method:?} {name} {error}");
        }
        resolver.lets_go.notify_one();
        assert_eq!(held.await.unwrap(), Ok(6));
        assert_eq!(resolver.connections.load(Ordering::Relaxed), 1, "{method:?}");
    }
}

#[tokio::test]
async fn what_an_https_upstream_leaves_behind_is_asked_on_a_new_connection() {
    for method in [DohMethod::Get, DohMethod::Post] {
        let (resolver, address) = Resolver::start().await;
        let asking = asking(address, method, patient());
        assert_eq!(asking.udp("a.test.").await, Ok(6));
        assert_eq!(asking.udp("cut.test.").await, Ok(6), "{method:?}");
        let asked = resolver.asked.lock().unwrap().clone();
        assert_eq!(asked, ["a.test.", "cut.test.", "cut.test."], "{method:?}");
        assert_eq!(resolver.connections.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn an_https_upstream_s_response_of_an_octet_is_ignored_and_counted() {
    let (_resolver, address) = Resolver::start().await;
    let asking = asking(address, DohMethod::Get, patient()).within(Duration::from_secs(1));
    let error = asking.udp("short.test.").await.unwrap_err();
    assert!(error.contains("i/o timeout"), "{error}");
    let text = asking.metrics.text();
    let counted =
        text.lines().find(|line| line.starts_with("nodens_upstream_ignored_responses_total{"));
    assert!(counted.is_some_and(|line| !line.ends_with(" 0")), "{text}");
}
