//! `loop`: notices its own probe coming back, that is a forwarding loop (docs/plugins/loop.md).
//!
//! Owns the probe's name and the count of its returns. Sending the probe, and ending the process
//! on the verdict, is the app's work ([`Service::Loop`]).

use super::{Context, Flow, Handler, LoopProbe, Service, Setup};
use crate::corefile::{CorefileError, quote};
use crate::dns::{Name, Query, RecordType, Response};
use rand::Rng;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How often the probe may come back before it is a loop: once as sent, once more after a retry.
const HARMLESS: u32 = 2;

/// Reads the directive.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for any argument; `this plugin can only
/// be used once per Server Block`; `no room for a probe below zone …` when the block's first zone
/// leaves no room for two labels.
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    let dispenser = &mut setup.dispenser;
    let mut is_first = true;
    while dispenser.next() {
        if !is_first {
            return Err(dispenser.once_err());
        }
        is_first = false;
        if dispenser.next_arg() {
            return Err(dispenser.arg_err());
        }
    }
    let zone = setup.block.zones().next().cloned().unwrap_or_else(Name::root);
    // Two numbers from a cryptographic generator: whoever can guess the name can end the process
    // (CVE-2026-26018).
    let (one, two) = (setup.random.next_u64() >> 1, setup.random.next_u64() >> 1);
    let name = if zone.is_root() { format!("{one}.{two}.") } else { format!("{one}.{two}.{zone}") };
    let name: Name = name
        .parse()
        .map_err(|_| setup.dispenser.plain_err(format!("no room for a probe below zone {zone}")))?;
    let host = setup.block.hosts.first().map_or("", String::as_str);
    let port = setup.block.keys.first().map_or("53", |key| key.port.as_str());
    let probe = Arc::new(LoopProbe {
        zone: zone.to_string(),
        name,
        target: join_host_port(host, port),
        seen: AtomicU32::new(0),
        disabled: AtomicBool::new(false),
        verdict: Mutex::new(None),
    });
    setup.services.push(Service::Loop(probe.clone()));
    setup.block.add(Loop { probe });
    Ok(())
}

/// Go's `net.JoinHostPort`.
fn join_host_port(host: &str, port: &str) -> String {
    if host.contains([':', '%']) { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The handler.
struct Loop {
    probe: Arc<LoopProbe>,
}

impl Handler for Loop {
    fn word(&self) -> &'static str {
        "loop"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        _response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let probe = &*self.probe;
        if query.qtype() != RecordType::HINFO
            || probe.disabled.load(Ordering::Relaxed)
            || *query.name() != probe.name
        {
            return Flow::Next;
        }
        let seen = probe.seen.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if seen > HARMLESS {
            let mut verdict = probe.verdict.lock().unwrap_or_else(PoisonError::into_inner);
            verdict.get_or_insert_with(|| {
                format!(
                    "plugin/loop: Loop ({} -> {}) detected for zone {}, see \
                     https://coredns.io/plugins/loop#troubleshooting. Query: \"HINFO {}\"",
                    context.client.address,
                    probe.target,
                    quote(&probe.zone),
                    probe.name
                )
            });
        }
        Flow::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::MemorySurroundings;
    use crate::dns::{Class, Rcode};
    use crate::plugin::Chain;
    use crate::plugin::testing::{Bench, always};

    fn probing(keys: &[&str]) -> (Bench, Chain, Arc<LoopProbe>) {
        let mut bench = Bench::new();
        bench.keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let chain = bench.load("loop", &MemorySurroundings::default()).unwrap();
        let Some(Service::Loop(probe)) = bench.services.first() else { panic!("no service") };
        let probe = probe.clone();
        (bench, chain, probe)
    }

    fn send(bench: &mut Bench, chain: &Chain, name: &Name, qtype: RecordType) {
        let query = Query::new(name, qtype, Class::IN);
        bench.ask(chain, query, always(Rcode::NXDOMAIN, &[]));
    }

    fn verdict(probe: &LoopProbe) -> Option<String> {
        probe.verdict.lock().unwrap().clone()
    }

    #[test]
    fn a_probe_that_comes_back_for_the_third_time_is_a_loop() {
        let (mut bench, chain, probe) = probing(&["Z.example:1053", "y.example:1053"]);
        assert!(probe.name.to_string().ends_with(".z.example."));
        assert_eq!(probe.name.labels().count(), 4);
        assert_eq!(probe.target, ":1053");
        send(&mut bench, &chain, &probe.name, RecordType::HINFO);
        send(&mut bench, &chain, &probe.name, RecordType::HINFO);
        send(&mut bench, &chain, &probe.name, RecordType::A);
        assert_eq!(verdict(&probe), None);
        send(&mut bench, &chain, &probe.name, RecordType::HINFO);
        assert_eq!(
            verdict(&probe).unwrap(),
            format!(
                "plugin/loop: Loop (127.0.0.1:40212 -> :1053) detected for zone \"z.example.\", \
                 see https://coredns.io/plugins/loop#troubleshooting. Query: \"HINFO {}\"",
                probe.name
            )
        );
    }

    #[test]
    fn other_names_and_a_disabled_probe_never_are() {
        let (mut bench, chain, probe) = probing(&[".:53"]);
        for _ in 0..8 {
            send(&mut bench, &chain, &"1.2.".parse().unwrap(), RecordType::HINFO);
        }
        probe.disabled.store(true, Ordering::Relaxed);
        for _ in 0..8 {
            send(&mut bench, &chain, &probe.name, RecordType::HINFO);
        }
        assert_eq!(probe.seen.load(Ordering::Relaxed), 0);
        assert_eq!(verdict(&probe), None);
    }

    #[test]
    fn two_probes_have_different_names() {
        let (mut bench, _, first) = probing(&["."]);
        bench.load("loop", &MemorySurroundings::default()).unwrap();
        let Some(Service::Loop(second)) = bench.services.first() else { panic!("no service") };
        assert_ne!(first.name, second.name);
    }

    #[test]
    fn an_address_with_colons_stands_in_brackets() {
        assert_eq!(join_host_port("::1", "53"), "[::1]:53");
        assert_eq!(join_host_port("127.0.0.1", "53"), "127.0.0.1:53");
    }

    #[test]
    fn mistakes_are_named_as_coredns_names_them() {
        for (directives, text) in [
            (
                "loop now",
                "plugin/loop: Corefile:2 - Error during parsing: Wrong argument count or unexpected line ending after 'now'",
            ),
            (
                "loop\nloop",
                "Corefile:3 - plugin/loop: this plugin can only be used once per Server Block",
            ),
        ] {
            let error = Bench::new().load_error(directives, &MemorySurroundings::default());
            assert_eq!(error, text);
        }
    }
}
