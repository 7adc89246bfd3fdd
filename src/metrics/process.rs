//! The process's own numbers, read from /proc at a scrape: CPU, memory, file descriptors, network.
//!
//! What cannot be read is left out; a scrape never fails for it.

use super::exposition::{family, number};
use super::names::{Desc, Kind};
use prometheus::proto::MetricFamily;
use std::fs;

/// Clock ticks per second in /proc/*/stat: fixed for user space on Linux (proc(5), USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

const fn desc(name: &'static str, kind: Kind, help: &'static str) -> Desc {
    Desc { name, help, labels: &[], kind }
}

static CPU: Desc = desc(
    "process_cpu_seconds_total",
    Kind::Counter,
    "Total user and system CPU time spent in seconds.",
);
static MAX_FDS: Desc =
    desc("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors.");
static OPEN_FDS: Desc = desc("process_open_fds", Kind::Gauge, "Number of open file descriptors.");
static RECEIVED: Desc = desc(
    "process_network_receive_bytes_total",
    Kind::Counter,
    "Number of bytes received by the process over the network.",
);
static SENT: Desc = desc(
    "process_network_transmit_bytes_total",
    Kind::Counter,
    "Number of bytes sent by the process over the network.",
);
static RESIDENT: Desc =
    desc("process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes.");
static START: Desc = desc(
    "process_start_time_seconds",
    Kind::Gauge,
    "Start time of the process since unix epoch in seconds.",
);
static THREADS: Desc = desc("process_threads", Kind::Gauge, "Number of OS threads in the process.");
static VIRTUAL: Desc =
    desc("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes.");
static VIRTUAL_MAX: Desc = desc(
    "process_virtual_memory_max_bytes",
    Kind::Gauge,
    "Maximum amount of virtual memory available in bytes.",
);

/// All that can be read now.
pub(super) fn families() -> Vec<MetricFamily> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let network = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    let octets = octets(&network);
    [
        (&CPU, cpu_seconds(&stat)),
        (&MAX_FDS, limit(&limits, "Max open files")),
        (&OPEN_FDS, fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64)),
        (&RECEIVED, octets.map(|(received, _)| received)),
        (&SENT, octets.map(|(_, sent)| sent)),
        (&RESIDENT, kilobytes(&status, "VmRSS:")),
        (&START, start_seconds(&stat, &system)),
        (&THREADS, word_after(&status, "Threads:").and_then(|word| word.parse().ok())),
        (&VIRTUAL, kilobytes(&status, "VmSize:")),
        (&VIRTUAL_MAX, limit(&limits, "Max address space")),
    ]
    .into_iter()
    .filter_map(|(desc, value)| Some(family(desc, vec![number(desc.kind, value?)])))
    .collect()
}

/// Field `number` (from 1, as proc(5) counts) of /proc/*/stat; the second may hold spaces.
fn field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str, system: &str) -> Option<f64> {
    let boot: f64 = word_after(system, "btime")?.parse().ok()?;
    Some(boot + field(stat, 22)? / TICKS_PER_SECOND)
}

fn word_after<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()
}

fn kilobytes(status: &str, key: &str) -> Option<f64> {
    Some(word_after(status, key)?.parse::<f64>().ok()? * 1024.0)
}

/// The soft limit; `unlimited` is what Go's client shows for it: 2^64.
fn limit(limits: &str, key: &str) -> Option<f64> {
    match word_after(limits, key)? {
        "unlimited" => Some(u64::MAX as f64),
        word => word.parse().ok(),
    }
}

/// InOctets and OutOctets of the IpExt pair of lines.
fn octets(netstat: &str) -> Option<(f64, f64)> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let place = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(place)?.parse().ok()
    };
    Some((value("InOctets")?, value("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 1000 5 6";

    #[test]
    fn a_command_name_with_parentheses_moves_no_field() {
        assert_eq!(cpu_seconds(STAT), Some(2.0));
        assert_eq!(start_seconds(STAT, "cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_010.0));
    }

    #[test]
    fn what_is_missing_is_left_out() {
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(octets("TcpExt: A\nTcpExt: 1\n"), None);
        assert_eq!(limit("", "Max open files"), None);
    }

    #[test]
    fn limits_and_sizes_are_read() {
        assert_eq!(limit("Max open files  1024  4096  files\n", "Max open files"), Some(1024.0));
        assert_eq!(kilobytes("VmRSS:\t  10 kB\n", "VmRSS:"), Some(10240.0));
        let text = "IpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 11 12\n";
        assert_eq!(octets(text), Some((11.0, 12.0)));
    }
}
