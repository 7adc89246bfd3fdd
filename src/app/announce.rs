//! What the log and the metrics say of a snapshot as such: its zones, its handlers, its least lines.
//!
//! Owns CoreDNS's start lines and the rows of `coredns_plugin_enabled`. Changes nothing of what is served.

use super::log::Log;
use super::version;
use crate::corefile::{has_preferred_syntax, quote};
use crate::dns::Name;
use crate::engine::Snapshot;
use crate::metrics::{Registry, names};
use crate::plugin::{Journal, Service};

/// Has the log and the metrics say what they say of the snapshot that serves from now on.
pub(super) fn show(snapshot: &Snapshot, log: &Log, metrics: &Registry) {
    log.show_from(snapshot.least_level());
    metrics.reset(&names::PLUGIN_ENABLED);
    for (server, zone, word) in enabled(snapshot) {
        metrics.gauge(&names::PLUGIN_ENABLED, &[&server, &zone, "", word]).set(1.0);
    }
    let is_measured = |service: &Service| matches!(service, Service::Prometheus { .. });
    if snapshot.services.iter().any(is_measured) {
        let labels = [version::COREDNS_VERSION, version::REVISION, version::COMPILER];
        metrics.gauge(&names::BUILD_INFO, &labels).set(1.0);
    }
}

/// CoreDNS's start lines: `ZONE:PORT on ADDRESS`, sorted within a listener, a warning before
/// zones that are no host names.
pub(super) fn zone_lines(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for server in &snapshot.servers {
        let scheme = match server.transport.word() {
            "dns" => String::new(),
            word => format!("{word}://"),
        };
        let place = server.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
        let zones = server.zones.iter().filter_map(|(wire, _)| Name::parse(wire, 0).ok());
        let mut zones: Vec<(String, bool)> =
            zones.map(|(zone, _)| (zone.to_string(), has_preferred_syntax(&zone))).collect();
        zones.sort();
        for (zone, is_preferred) in zones {
            if !is_preferred {
                let zone = quote(&zone);
                lines.push(format!(
                    "Warning: Domain {zone} does not follow RFC1035 preferred syntax"
                ));
            }
            lines.push(format!("{scheme}{zone}:{}{place}", server.port));
        }
    }
    lines
}

/// Server, zone and handler word of `coredns_plugin_enabled`: blocks with `prometheus`, their first
/// zone only, as CoreDNS has it.
fn enabled(snapshot: &Snapshot) -> Vec<(String, String, &'static str)> {
    let mut rows = Vec::new();
    for (index, block) in snapshot.blocks.iter().enumerate() {
        if !block.chain.iter().any(|handler| handler.word() == "prometheus") {
            continue;
        }
        let Some(key) = block.keys.first() else { continue };
        for server in &snapshot.servers {
            let serves = server
                .zones
                .iter()
                .any(|(zone, owner)| owner == index && zone == key.zone.as_bytes());
            if serves && server.port.to_string() == key.port {
                rows.extend(block.chain.iter().map(|handler| {
                    (server.identity.label.to_string(), key.zone.to_string(), handler.word())
                }));
            }
        }
    }
    rows
}
