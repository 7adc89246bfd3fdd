//! Sends the probes of `loop` and watches for their verdict (docs/plugins/loop.md).

use crate::dns::{Class, Query, RecordType};
use crate::plugin::{LoopProbe, split_host_port};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

/// How long probing goes on.
const PROBING: Duration = Duration::from_secs(30);

/// How long one probe waits for its answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// The pause behind a probe that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the verdict is looked at while a probe is out.
const LOOK: Duration = Duration::from_millis(20);

/// Probes until an answer comes, the verdict stands, or 30 s are over. Gives the verdict.
pub(super) async fn probe(probe: &LoopProbe) -> Option<String> {
    let start = Instant::now();
    while start.elapsed() < PROBING {
        let verdict = tokio::select! {
            result = timeout(ANSWER_TIME, ask(probe)) => {
                if matches!(result, Ok(Ok(()))) {
                    break;
                }
                None
            }
            verdict = verdict(probe) => Some(verdict),
        };
        // A probe that went round right before its time was over is a loop all the same.
        if let Some(verdict) = verdict.or_else(|| verdict_now(probe)) {
            return Some(verdict);
        }
        probe.seen.store(0, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
    probe.disabled.store(true, Ordering::Relaxed);
    verdict_now(probe)
}

fn verdict_now(probe: &LoopProbe) -> Option<String> {
    probe.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn verdict(probe: &LoopProbe) -> String {
    loop {
        if let Some(verdict) = verdict_now(probe) {
            return verdict;
        }
        sleep(LOOK).await;
    }
}

async fn ask(probe: &LoopProbe) -> io::Result<()> {
    let target = target(&probe.target)?;
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    let mut query = Query::new(&probe.name, RecordType::HINFO, Class::IN);
    query.set_id(rand::random());
    socket.send(query.wire()).await?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= 12 && answer[..2] == query.wire()[..2] {
            return Ok(());
        }
    }
}

/// The address to ask; "all addresses" is asked at the loopback address.
fn target(text: &str) -> io::Result<SocketAddr> {
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (host, port) = split_host_port(text).map_err(|_| io::ErrorKind::InvalidInput)?;
    let port: u16 = port.parse().map_err(wrong)?;
    let (host, zone) = host.split_once('%').unwrap_or((host, ""));
    if host.is_empty() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let address = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        Ok(IpAddr::V6(v6)) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        Ok(IpAddr::V6(v6)) => {
            let scope = crate::sys::interfaces::index(zone).unwrap_or(0);
            return Ok(std::net::SocketAddrV6::new(v6, port, 0, scope).into());
        }
        Ok(address) => address,
        Err(_) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    Ok(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn at(target: String) -> LoopProbe {
        LoopProbe {
            zone: ".".to_owned(),
            name: "1.2.".parse().unwrap(),
            target,
            seen: AtomicU32::new(2),
            disabled: AtomicBool::new(false),
            verdict: Mutex::new(None),
        }
    }

    #[test]
    fn an_answer_ends_the_probing() {
        runtime().block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let looping = at(server.local_addr().unwrap().to_string());
            let answer = async {
                let mut query = [0; 512];
                let (length, client) = server.recv_from(&mut query).await.unwrap();
                server.send_to(&query[..length], client).await.unwrap();
            };
            let (verdict, ()) = tokio::join!(probe(&looping), answer);
            assert_eq!(verdict, None);
            assert!(looping.disabled.load(Ordering::Relaxed));
        });
    }

    #[test]
    fn a_verdict_is_seen_while_the_probe_is_out() {
        runtime().block_on(async {
            let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let looping = at(silent.local_addr().unwrap().to_string());
            let judge = async {
                let mut query = [0; 512];
                silent.recv_from(&mut query).await.unwrap();
                *looping.verdict.lock().unwrap() = Some("a loop".to_owned());
            };
            let (verdict, ()) = tokio::join!(probe(&looping), judge);
            assert_eq!(verdict.as_deref(), Some("a loop"));
        });
    }

    #[test]
    fn all_addresses_are_asked_at_the_loopback_address() {
        for (text, address) in [
            (":53", "127.0.0.1:53"),
            ("0.0.0.0:5301", "127.0.0.1:5301"),
            ("[::]:53", "[::1]:53"),
            ("169.254.20.10:53", "169.254.20.10:53"),
        ] {
            assert_eq!(target(text).unwrap(), address.parse().unwrap(), "{text}");
        }
        assert!(target("a.test:53").is_err());
    }
}
