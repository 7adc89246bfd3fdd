//! The metrics that node-cache does not have (docs/differences.md).

use super::{Desc, Kind, desc};

/// Firewall rules, or whole tables of them, set because they were missing.
pub static FIREWALL_ADDED: Desc = desc(
    "nodens_firewall_rules_added_total",
    &[],
    Kind::Counter,
    "Counter of firewall rules that were missing and were set.",
);

/// Firewall rules removed: copies, rules of older versions, all of them at the end.
pub static FIREWALL_REMOVED: Desc = desc(
    "nodens_firewall_rules_removed_total",
    &[],
    Kind::Counter,
    "Counter of firewall rules that were removed.",
);

/// Queries that failed at once because too many were in flight to their upstream.
pub static UPSTREAM_OVERLOAD: Desc = desc(
    "nodens_upstream_overload_total",
    &["to", "proto"],
    Kind::Counter,
    "Counter of queries not sent because too many were in flight to the upstream.",
);

/// Changes of a file that names upstreams after which it could not be used.
pub static FORWARD_FILE_FAILURES: Desc = desc(
    "nodens_forward_file_failures_total",
    &["file"],
    Kind::Counter,
    "Counter of changes of a file of upstreams that made it unusable.",
);

/// Messages from an upstream that answer no query in flight.
pub static UPSTREAM_IGNORED: Desc = desc(
    "nodens_upstream_ignored_responses_total",
    &["to", "proto"],
    Kind::Counter,
    "Counter of messages from the upstream with an id or question that nobody waits for.",
);

/// Lines that the log's bound did not let through.
pub static LOG_LINES_DROPPED: Desc = desc(
    "nodens_log_lines_dropped_total",
    &[],
    Kind::Counter,
    "Counter of log lines dropped because the writer was behind.",
);

/// What is wrong with the node, by `node::Trouble`.
pub static NODE_TROUBLE: Desc = desc(
    "nodens_node_trouble_total",
    &["reason"],
    Kind::Counter,
    "Counter of troubles met while interface and firewall rules were made or checked, by reason.",
);

/// Links and addresses that had gone.
pub static NODE_REPAIRED: Desc = desc(
    "nodens_node_repaired_total",
    &[],
    Kind::Counter,
    "Counter of links and addresses that somebody removed and that were made again.",
);

/// The parts of `plugin::Part` that are there; shown where `ready` or a strict `health` asks.
pub static READY: Desc = desc(
    "nodens_ready",
    &["part"],
    Kind::Gauge,
    "Whether a part that serving stands on is there now: 1, or 0.",
);

/// What the process gave up of its privileges: `capabilities`, `system_calls`.
pub static PRIVILEGES_REDUCED: Desc = desc(
    "nodens_privileges_reduced",
    &["what"],
    Kind::Gauge,
    "Whether the process gave up the privileges that it does not need: 1, or 0 where it could not.",
);

/// Records that did not reach a `dnstap` endpoint.
pub static DNSTAP_DROPPED: Desc = desc(
    "nodens_dnstap_dropped_total",
    &["endpoint"],
    Kind::Counter,
    "Counter of dnstap records dropped because the endpoint was away or behind.",
);

/// Queries answered at once because a bound was reached, by what piled up: `parked` (queries that
/// wait), `memory` (what they hold), `refresh` (refreshes under way), `cpu` (those that wait for CPU time
/// under a quota; over UDP they get no answer).
pub static QUERIES_SHED: Desc = desc(
    "nodens_queries_shed_total",
    &["reason"],
    Kind::Counter,
    "Counter of queries failed at once because too many were waiting.",
);

/// Queries that wait for an upstream, bounded by what `nodens_queries_shed_total` counts.
pub static QUERIES_IN_FLIGHT: Desc = desc(
    "nodens_queries_in_flight",
    &[],
    Kind::Gauge,
    "Queries of clients that wait for an upstream.",
);

/// What the kernel may keep of datagrams that are not read yet, as it counts.
pub static UDP_RECEIVE_BUFFERS: Desc = desc(
    "nodens_udp_receive_buffers_bytes",
    &[],
    Kind::Gauge,
    "Memory that the kernel may use for UDP queries that are not read yet.",
);

/// Questions for an upstream that waited for CPU time, because nearly all of the quota was in use.
pub static QUERIES_HELD_BACK: Desc = desc(
    "nodens_queries_held_back_total",
    &[],
    Kind::Counter,
    "Counter of queries that waited for CPU time before they were asked upstream.",
);

/// Queries that joined a question in flight.
pub static QUERIES_JOINED: Desc = desc(
    "nodens_queries_joined_total",
    &[],
    Kind::Counter,
    "Counter of queries that waited for a question already asked upstream.",
);

/// Messages without reply: no queries, or too short.
pub static MESSAGES_IGNORED: Desc = desc(
    "nodens_messages_ignored_total",
    &[],
    Kind::Counter,
    "Counter of received messages that are no queries.",
);

/// UDP replies that the kernel did not take.
pub static REPLIES_LOST: Desc = desc(
    "nodens_udp_replies_lost_total",
    &[],
    Kind::Counter,
    "Counter of UDP replies that could not be sent.",
);

/// TCP connections that made room for others.
pub static CONNECTIONS_EVICTED: Desc = desc(
    "nodens_tcp_connections_evicted_total",
    &[],
    Kind::Counter,
    "Counter of TCP connections closed to make room for others.",
);

/// TCP connections closed because what all of them held back was over its share of the memory.
pub static CONNECTIONS_STARVED: Desc = desc(
    "nodens_tcp_connections_starved_total",
    &[],
    Kind::Counter,
    "Counter of TCP connections closed because the memory of client connections was used up.",
);

/// The memory that the process may use; there when there is a limit.
pub static MEMORY_LIMIT: Desc =
    desc("nodens_memory_limit_bytes", &[], Kind::Gauge, "Memory that the process may use.");

/// The most of each share of the memory; there when there is a limit.
pub static MEMORY_SHARE: Desc = desc(
    "nodens_memory_share_bytes",
    &["part"],
    Kind::Gauge,
    "The most memory that a part of the process may use.",
);

/// What is used of each share, looked at every two seconds.
pub static MEMORY_USED: Desc = desc(
    "nodens_memory_used_bytes",
    &["part"],
    Kind::Gauge,
    "Memory that a part of the process uses, as it counts itself.",
);

/// Replies longer than their limit, made anew or taken from where they were kept.
pub static FITTED_REPLIES: Desc = desc(
    "nodens_fitted_replies_total",
    &["from"],
    Kind::Counter,
    "Counter of replies cut to the size that their client takes.",
);

/// Octets of kept replies with what they were made of.
pub static FITTED_BYTES: Desc = desc(
    "nodens_fitted_replies_bytes",
    &[],
    Kind::Gauge,
    "Memory of replies kept as they were cut to size.",
);

/// TCP connections closed at once because there were too many.
pub static CONNECTIONS_REFUSED: Desc = desc(
    "nodens_tcp_connections_refused_total",
    &[],
    Kind::Counter,
    "Counter of TCP connections closed because too many were open.",
);

/// Failed accepts.
pub static ACCEPT_ERRORS: Desc = desc(
    "nodens_tcp_accept_errors_total",
    &[],
    Kind::Counter,
    "Counter of errors while accepting TCP connections.",
);

/// TCP connections closed because the client did not read its replies.
pub static SLOW_READERS: Desc = desc(
    "nodens_tcp_slow_readers_total",
    &[],
    Kind::Counter,
    "Counter of TCP connections closed because the client did not take its replies.",
);

// One process takes over from another.

/// Handovers, by the part that this process had (`successor`, `predecessor`) and how they ended.
pub static HANDOVER: Desc = desc(
    "nodens_handover_total",
    &["role", "result"],
    Kind::Counter,
    "Counter of handovers between two processes of a node, by role and result.",
);

/// Entries that came from the predecessor.
pub static HANDOVER_ENTRIES: Desc = desc(
    "nodens_handover_entries_total",
    &[],
    Kind::Counter,
    "Counter of cache entries taken over from the process that served before.",
);

/// How long the handover took that made this process serve.
pub static HANDOVER_SECONDS: Desc = desc(
    "nodens_handover_seconds",
    &[],
    Kind::Gauge,
    "Time from asking the process that served before until it had stopped reading.",
);

// The cache that outlives a process.

/// Entries that a start took from the file of the kept cache.
pub static SNAPSHOT_LOADED: Desc = desc(
    "nodens_cache_snapshot_entries_loaded_total",
    &[],
    Kind::Counter,
    "Counter of cache entries taken from the file of the kept cache at the start.",
);

/// How long that took.
pub static SNAPSHOT_LOAD_SECONDS: Desc = desc(
    "nodens_cache_snapshot_load_seconds",
    &[],
    Kind::Gauge,
    "Time taken to read the file of the kept cache at the start.",
);

/// Files that were not taken, by `plugin::cache::codec::Refusal`.
pub static SNAPSHOT_IGNORED: Desc = desc(
    "nodens_cache_snapshot_ignored_total",
    &["reason"],
    Kind::Counter,
    "Counter of files of a kept cache that were ignored, by reason.",
);

/// Writes of the file, by result: `written`, `failed`, `busy` (another process is writing it).
pub static SNAPSHOT_WRITES: Desc = desc(
    "nodens_cache_snapshot_writes_total",
    &["result"],
    Kind::Counter,
    "Counter of writes of the kept cache, by result.",
);

/// Entries for which the file had no room.
pub static SNAPSHOT_LEFT_OUT: Desc = desc(
    "nodens_cache_snapshot_entries_left_out_total",
    &[],
    Kind::Counter,
    "Counter of cache entries for which the file of the kept cache had no room.",
);

/// Sockets that a start was given by `LISTEN_FDS`: `used`, `unwanted` (the Corefile does not listen
/// there), `unusable`.
pub static SOCKETS_INHERITED: Desc = desc(
    "nodens_sockets_inherited_total",
    &["result"],
    Kind::Counter,
    "Counter of sockets given by the service manager at the start, by what became of them.",
);

/// Sockets that the service manager keeps over a restart; 0 where it does not keep all.
pub static SOCKETS_KEPT: Desc = desc(
    "nodens_sockets_kept",
    &[],
    Kind::Gauge,
    "Listening sockets that the service manager keeps for the next start.",
);
