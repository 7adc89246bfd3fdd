//! The health of one upstream: failed probes, and the loop that probes (CoreDNS: plugin/pkg/proxy).
//!
//! Owns the count of failed probes. Probing starts when a try fails and ends with the first probe
//! that is answered; one loop for each upstream of the node, whoever uses it.

use super::dial::{Dialer, SystemRoots};
use super::limits::DIAL;
use super::messenger::Messenger;
use crate::dns::{Class, Query, RecordType, Transport, sizes};
use crate::metrics::LazyCounter;
use crate::plugin::forward::Probe;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};

/// How long a probe waits for its response.
const PROBE: Duration = Duration::from_secs(1);

/// The health of one upstream.
#[derive(Debug)]
pub(super) struct Health {
    fails: AtomicU32,
    is_probing: AtomicBool,
    has_answered: AtomicBool,
    is_greeting: AtomicBool,
    failures: LazyCounter,
    probe: Probe,
    transport: Transport,
}

impl Health {
    /// Healthy until probes fail. `failures` counts failed probes.
    pub(super) fn new(probe: Probe, transport: Transport, failures: LazyCounter) -> Health {
        Health {
            fails: AtomicU32::new(0),
            is_probing: AtomicBool::new(false),
            has_answered: AtomicBool::new(false),
            is_greeting: AtomicBool::new(false),
            failures,
            probe,
            transport,
        }
    }

    /// More than `max_fails` probes failed in a row; never with `max_fails` 0.
    pub(super) fn is_down(&self, max_fails: u32) -> bool {
        max_fails != 0 && self.fails.load(Ordering::Relaxed) > max_fails
    }

    /// Whether it ever answered.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// It answered a query or a probe.
    pub(super) fn answered(&self) {
        // Every miss passes here: a line of memory that all workers read is written once.
        if !self.has_answered() {
            self.has_answered.store(true, Ordering::Relaxed);
        }
    }

    /// Sends one probe on this runtime to hear whether somebody is there, unless one is out. Says
    /// nothing of its health: nobody's query has failed.
    pub(super) fn greet(self: &Arc<Self>, dialer: &Arc<Dialer>, roots: &Arc<SystemRoots>) {
        if self.is_greeting.swap(true, Ordering::AcqRel) {
            return;
        }
        let greeting = Greeting(self.clone());
        let (dialer, roots) = (dialer.clone(), roots.clone());
        tokio::spawn(async move {
            if greeting.0.ask(&dialer, &roots).await.is_some() {
                greeting.0.answered();
            }
        });
    }

    /// Starts to probe on this worker's runtime unless somebody probes already. `in_use` dangles
    /// when no snapshot uses the upstream any more: then probing ends.
    pub(super) fn check(
        self: &Arc<Self>,
        dialer: &Arc<Dialer>,
        roots: &Arc<SystemRoots>,
        in_use: Weak<dyn std::any::Any + Send + Sync>,
    ) {
        if self.is_probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let probing = Probing(self.clone());
        let (dialer, roots) = (dialer.clone(), roots.clone());
        tokio::spawn(async move {
            let health = &probing.0;
            while in_use.strong_count() > 0 {
                if health.ask(&dialer, &roots).await.is_some() {
                    health.answered();
                    health.fails.store(0, Ordering::Relaxed);
                    return;
                }
                health.fails.fetch_add(1, Ordering::Relaxed);
                health.failures.increment();
                tokio::time::sleep(health.probe.interval).await;
            }
        });
    }

    /// What a probe asks: NS of the domain that the Corefile names, the root's without one.
    fn query(&self, id: u16) -> Query<'static> {
        let mut query = Query::new(&self.probe.domain, RecordType::NS, Class::IN);
        if !self.probe.recursion {
            query.set_flags(0);
        }
        query.set_id(id);
        query
    }

    /// One probe over a connection of its own. Any header with its id will do as a response. What plain
    /// transports need not is boxed: a probe takes its room for as long as the upstream is silent.
    async fn ask(&self, dialer: &Dialer, roots: &Arc<SystemRoots>) -> Option<()> {
        let query = self.query(rand::random());
        let wire = query.wire();
        if self.transport == Transport::Udp {
            let socket = dialer.datagrams().ok()?;
            socket.send(wire).await.ok()?;
            return tokio::time::timeout(PROBE, datagram(&socket, wire)).await.ok().flatten();
        }
        if self.transport == Transport::Quic {
            let opened = tokio::time::timeout(DIAL, Box::pin(dialer.quic(roots))).await;
            return asked(opened.ok()?.ok()?, wire).await;
        }
        let stream = tokio::time::timeout(DIAL, dialer.stream()).await.ok()?.ok()?;
        match self.transport {
            Transport::Https => {
                let opened = Box::pin(dialer.https(stream, roots));
                asked(tokio::time::timeout(DIAL, opened).await.ok()?.ok()?, wire).await
            }
            Transport::Tls => {
                let secured = Box::pin(dialer.secured(stream, roots));
                let stream = tokio::time::timeout(DIAL, secured).await.ok()?.ok()?;
                let answer = Box::pin(message(stream, wire));
                tokio::time::timeout(PROBE, answer).await.ok().flatten()
            }
            _ => tokio::time::timeout(PROBE, message(stream, wire)).await.ok().flatten(),
        }
    }
}

/// Lets the next failure start to probe, however this loop ends.
struct Probing(Arc<Health>);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.is_probing.store(false, Ordering::Release);
    }
}

/// Lets the next greeting go out, however this one ends.
struct Greeting(Arc<Health>);

impl Drop for Greeting {
    fn drop(&mut self) {
        self.0.is_greeting.store(false, Ordering::Release);
    }
}

/// Waits for whatever answers `wire`.
async fn asked(mut messenger: Messenger, wire: &[u8]) -> Option<()> {
    let answer = tokio::time::timeout(PROBE, messenger.ask(wire).ok()?).await;
    answer.ok()?.ok().map(drop)
}

/// Waits for a datagram that answers `wire`.
async fn datagram(socket: &tokio::net::UdpSocket, wire: &[u8]) -> Option<()> {
    let mut buffer = [0; 512];
    loop {
        // An ICMP error alone does not make a socket readable.
        if socket.ready(Interest::READABLE | Interest::ERROR).await.ok()?.is_error() {
            return None;
        }
        match socket.try_recv(&mut buffer) {
            Ok(length) if length >= sizes::HEADER && buffer[..2] == wire[..2] => return Some(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

/// Sends `wire` and waits for a message that answers it.
async fn message(mut stream: impl AsyncRead + AsyncWrite + Unpin, wire: &[u8]) -> Option<()> {
    let length = u16::try_from(wire.len()).ok()?;
    let framed = [&length.to_be_bytes(), wire].concat();
    stream.write_all(&framed).await.ok()?;
    stream.flush().await.ok()?;
    loop {
        let length = usize::from(stream.read_u16().await.ok()?);
        let mut message = vec![0; length];
        stream.read_exact(&mut message).await.ok()?;
        if length >= sizes::HEADER && message[..2] == wire[..2] {
            return Some(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::flags;
    use crate::metrics::{Registry, names};

    fn health(probe: Probe) -> Health {
        let failures = Registry::new(1)
            .lazy_counter(&names::PROXY_HEALTHCHECK_FAILURES, &["forward", "192.0.2.53:53"]);
        Health::new(probe, Transport::Udp, failures)
    }

    #[test]
    fn an_upstream_is_down_after_more_failed_probes_than_may_fail() {
        let health = health(Probe::default());
        for (fails, is_down) in [(0, false), (2, false), (3, true)] {
            health.fails.store(fails, Ordering::Relaxed);
            assert_eq!(health.is_down(2), is_down, "{fails}");
            assert!(!health.is_down(0), "max_fails 0 is never");
        }
    }

    #[tokio::test]
    async fn a_message_with_another_id_is_no_answer_to_a_probe() {
        for (answers, is_answer) in [(&[8][..], false), (&[8, 7], true), (&[7], true)] {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            for id in answers {
                theirs
                    .write_all(&[0, 12, 0, *id, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0])
                    .await
                    .unwrap();
            }
            let asked = message(ours, &[0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let ended = async {
                let mut query = [0; 14];
                theirs.read_exact(&mut query).await.unwrap();
                drop(theirs);
            };
            assert_eq!(tokio::join!(asked, ended).0.is_some(), is_answer, "{answers:?}");
        }
    }

    #[tokio::test]
    async fn a_datagram_with_another_id_or_without_a_header_is_no_answer_to_a_probe() {
        let query = [0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let here = std::net::Ipv4Addr::LOCALHOST;
        let ours = tokio::net::UdpSocket::bind((here, 0)).await.unwrap();
        let theirs = tokio::net::UdpSocket::bind((here, 0)).await.unwrap();
        ours.connect(theirs.local_addr().unwrap()).await.unwrap();
        theirs.connect(ours.local_addr().unwrap()).await.unwrap();
        let mut other = query;
        other[1] = 8;
        theirs.send(&other).await.unwrap();
        theirs.send(&query[..11]).await.unwrap();
        ours.readable().await.unwrap();
        let mut asked = std::pin::pin!(datagram(&ours, &query));
        let mut task = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(asked.as_mut().poll(&mut task).is_pending());
        theirs.send(&query).await.unwrap();
        assert!(asked.await.is_some());
    }

    #[test]
    fn a_probe_asks_what_the_corefile_says() {
        let query = health(Probe::default()).query(7);
        assert_eq!((query.id(), query.flags(), query.qtype()), (7, flags::RD, RecordType::NS));
        assert!(query.name().is_root());
        let domain: crate::dns::Name = "a.test.".parse().unwrap();
        let probe = Probe { domain: domain.clone(), recursion: false, ..Probe::default() };
        let query = health(probe).query(7);
        assert_eq!((query.flags(), query.name()), (0, &domain));
    }
}
