//! The metrics that node-cache has: CoreDNS's, its own, and the scrape's.

use super::{Desc, Kind, SIZE_BUCKETS, SLIM_TIME_BUCKETS, TIME_BUCKETS, desc};

// The server core and `prometheus`.

/// The program's version; always 1.
pub static BUILD_INFO: Desc = desc(
    "coredns_build_info",
    &["version", "revision", "goversion"],
    Kind::Gauge,
    "A metric with a constant '1' value labeled by version, revision, and goversion from which CoreDNS was built.",
);

/// Panics caught in the query path.
pub static PANICS: Desc =
    desc("coredns_panics_total", &[], Kind::Counter, "A metrics that counts the number of panics.");

/// Which handlers serve a zone of a server; always 1.
pub static PLUGIN_ENABLED: Desc = desc(
    "coredns_plugin_enabled",
    &["server", "zone", "view", "name"],
    Kind::Gauge,
    "A metric that indicates whether a plugin is enabled on per server and zone basis.",
);

/// Queries. `family` is 1 for IPv4, 2 for IPv6.
pub static REQUESTS: Desc = desc(
    "coredns_dns_requests_total",
    &["server", "zone", "view", "proto", "family", "type"],
    Kind::Counter,
    "Counter of DNS requests made per zone, protocol and family.",
);

/// From receiving a query to its response, in seconds.
pub static REQUEST_DURATION: Desc = desc(
    "coredns_dns_request_duration_seconds",
    &["server", "zone", "view"],
    Kind::Histogram(TIME_BUCKETS),
    "Histogram of the time (in seconds) each request took per zone.",
);

/// Query sizes in octets, as received (whatever CoreDNS's help says).
pub static REQUEST_SIZE: Desc = desc(
    "coredns_dns_request_size_bytes",
    &["server", "zone", "view", "proto"],
    Kind::Histogram(SIZE_BUCKETS),
    "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
);

/// Response sizes in octets, uncompressed, before truncation.
pub static RESPONSE_SIZE: Desc = desc(
    "coredns_dns_response_size_bytes",
    &["server", "zone", "view", "proto"],
    Kind::Histogram(SIZE_BUCKETS),
    "Size of the returned response in bytes.",
);

/// Queries with the DO bit.
pub static DO_REQUESTS: Desc = desc(
    "coredns_dns_do_requests_total",
    &["server", "zone", "view"],
    Kind::Counter,
    "Counter of DNS requests with DO bit set per zone.",
);

/// Responses by rcode and the directive that wrote them.
pub static RESPONSES: Desc = desc(
    "coredns_dns_responses_total",
    &["server", "zone", "view", "rcode", "plugin"],
    Kind::Counter,
    "Counter of response status codes.",
);

// `cache`.

/// Entries in a store; set when something is stored.
pub static CACHE_ENTRIES: Desc = desc(
    "coredns_cache_entries",
    &["server", "type", "zones", "view"],
    Kind::Gauge,
    "The number of elements in the cache.",
);

/// Queries that reached the cache.
pub static CACHE_REQUESTS: Desc = desc(
    "coredns_cache_requests_total",
    &["server", "zones", "view"],
    Kind::Counter,
    "The count of cache requests.",
);

/// Queries answered from a store.
pub static CACHE_HITS: Desc = desc(
    "coredns_cache_hits_total",
    &["server", "type", "zones", "view"],
    Kind::Counter,
    "The count of cache hits.",
);

/// Queries that went below the cache.
pub static CACHE_MISSES: Desc = desc(
    "coredns_cache_misses_total",
    &["server", "zones", "view"],
    Kind::Counter,
    "The count of cache misses. Deprecated, derive misses from cache hits/requests counters.",
);

/// Prefetches begun.
pub static CACHE_PREFETCH: Desc = desc(
    "coredns_cache_prefetch_total",
    &["server", "zones", "view"],
    Kind::Counter,
    "The number of times the cache has prefetched a cached item.",
);

/// Responses not stored because they answer another question.
pub static CACHE_DROPS: Desc = desc(
    "coredns_cache_drops_total",
    &["server", "zones", "view"],
    Kind::Counter,
    "The number responses that are not cached, because the reply is malformed.",
);

/// Queries answered with an expired entry.
pub static CACHE_SERVED_STALE: Desc = desc(
    "coredns_cache_served_stale_total",
    &["server", "zones", "view"],
    Kind::Counter,
    "The number of requests served from stale cache entries.",
);

/// Entries that made room for others.
pub static CACHE_EVICTIONS: Desc = desc(
    "coredns_cache_evictions_total",
    &["server", "type", "zones", "view"],
    Kind::Counter,
    "The count of cache evictions.",
);

// `forward`.

/// Queries that found all upstreams down.
pub static HEALTHCHECK_BROKEN: Desc = desc(
    "coredns_forward_healthcheck_broken_total",
    &[],
    Kind::Counter,
    "Counter of the number of complete failures of the healthchecks.",
);

/// Queries refused by `max_concurrent`.
pub static MAX_CONCURRENT_REJECTS: Desc = desc(
    "coredns_forward_max_concurrent_rejects_total",
    &[],
    Kind::Counter,
    "Counter of the number of queries rejected because the concurrent queries were at maximum.",
);

/// Successful exchanges with an upstream, dialling included, in seconds.
pub static PROXY_REQUEST_DURATION: Desc = desc(
    "coredns_proxy_request_duration_seconds",
    &["proxy_name", "to", "rcode"],
    Kind::Histogram(TIME_BUCKETS),
    "Histogram of the time each request took.",
);

/// Failed health checks of an upstream.
pub static PROXY_HEALTHCHECK_FAILURES: Desc = desc(
    "coredns_proxy_healthcheck_failures_total",
    &["proxy_name", "to"],
    Kind::Counter,
    "Counter of the number of failed healthchecks.",
);

/// Exchanges over a connection that was there.
pub static PROXY_CONN_CACHE_HITS: Desc = desc(
    "coredns_proxy_conn_cache_hits_total",
    &["proxy_name", "to", "proto"],
    Kind::Counter,
    "Counter of connection cache hits per upstream and protocol.",
);

/// Exchanges that needed a new connection.
pub static PROXY_CONN_CACHE_MISSES: Desc = desc(
    "coredns_proxy_conn_cache_misses_total",
    &["proxy_name", "to", "proto"],
    Kind::Counter,
    "Counter of connection cache misses per upstream and protocol.",
);

// `health`.

/// The self-poll of /health, in seconds.
pub static HEALTH_DURATION: Desc = desc(
    "coredns_health_request_duration_seconds",
    &[],
    Kind::Histogram(SLIM_TIME_BUCKETS),
    "Histogram of the time (in seconds) each request took.",
);

/// Failed self-polls of /health.
pub static HEALTH_FAILURES: Desc = desc(
    "coredns_health_request_failures_total",
    &[],
    Kind::Counter,
    "The number of times the health check failed.",
);

// `reload`.

/// Reloads that left the old configuration in place.
pub static RELOAD_FAILED: Desc = desc(
    "coredns_reload_failed_total",
    &[],
    Kind::Counter,
    "Counter of the number of failed reload attempts.",
);

/// The Corefile's hash; absent until the first reload; always 1.
pub static RELOAD_VERSION: Desc = desc(
    "coredns_reload_version_info",
    &["hash", "value"],
    Kind::Gauge,
    "A metric with a constant '1' value labeled by hash, and value which type of hash generated.",
);

// `hosts`.

/// Entries of a hosts file and the Corefile, reverse entries included.
pub static HOSTS_ENTRIES: Desc = desc(
    "coredns_hosts_entries",
    &["hostsfile"],
    Kind::Gauge,
    "The combined number of entries in hosts and Corefile.",
);

/// When a hosts file was last read: its modification time, seconds since 1970.
pub static HOSTS_RELOAD: Desc = desc(
    "coredns_hosts_reload_timestamp_seconds",
    &[],
    Kind::Gauge,
    "The timestamp of the last reload of hosts file.",
);

// `template`.

/// Queries that a template's regular expression matched.
pub static TEMPLATE_MATCHES: Desc = desc(
    "coredns_template_matches_total",
    &["server", "zone", "view", "class", "type"],
    Kind::Counter,
    "Counter of template regex matches.",
);

/// Templates that could not be executed.
pub static TEMPLATE_FAILURES: Desc = desc(
    "coredns_template_template_failures_total",
    &["server", "zone", "view", "class", "type", "section", "template"],
    Kind::Counter,
    "Counter of go template failures.",
);

/// Texts that templates gave and that are no record.
pub static TEMPLATE_RR_FAILURES: Desc = desc(
    "coredns_template_rr_failures_total",
    &["server", "zone", "view", "class", "type", "section", "template"],
    Kind::Counter,
    "Counter of mis-templated RRs.",
);

// `dns64`.

/// Responses that were synthesised from A records.
pub static DNS64_TRANSLATED: Desc = desc(
    "coredns_dns64_requests_translated_total",
    &["server"],
    Kind::Counter,
    "Counter of DNS requests translated by dns64.",
);

// `acl`.

/// Queries that `acl` let pass.
pub static ACL_ALLOWED: Desc = desc(
    "coredns_acl_allowed_requests_total",
    &["server", "view"],
    Kind::Counter,
    "Counter of DNS requests being allowed.",
);

/// Queries that `acl` answered with REFUSED.
pub static ACL_BLOCKED: Desc = desc(
    "coredns_acl_blocked_requests_total",
    &["server", "zone", "view"],
    Kind::Counter,
    "Counter of DNS requests being blocked.",
);

/// Queries that `acl` answered with nothing in it.
pub static ACL_FILTERED: Desc = desc(
    "coredns_acl_filtered_requests_total",
    &["server", "zone", "view"],
    Kind::Counter,
    "Counter of DNS requests being filtered.",
);

/// Queries that `acl` left without a response.
pub static ACL_DROPPED: Desc = desc(
    "coredns_acl_dropped_requests_total",
    &["server", "zone", "view"],
    Kind::Counter,
    "Counter of DNS requests being dropped.",
);

// `local`.

/// Queries for names below `localhost` and, where that counts, before other zones.
pub static LOCAL_LOCALHOST: Desc = desc(
    "coredns_local_localhost_requests_total",
    &[],
    Kind::Counter,
    "Counter of special localhost subdomain requests.",
);

// node-cache's own, and the scrape's.

/// Errors while setting up the node, by [`SETUP_ERROR_KINDS`].
pub static SETUP_ERRORS: Desc = desc(
    "coredns_nodecache_setup_errors_total",
    &["errortype"],
    Kind::Counter,
    "The number of errors during periodic network setup for node-cache",
);

/// The label values of [`SETUP_ERRORS`].
pub const SETUP_ERROR_KINDS: [&str; 5] =
    ["iptables", "iptables_lock", "interface_add", "interface_check", "configmap"];

/// Scrapes being served.
pub static SCRAPES_IN_FLIGHT: Desc = desc(
    "promhttp_metric_handler_requests_in_flight",
    &[],
    Kind::Gauge,
    "Current number of scrapes being served.",
);

/// Scrapes by HTTP status, [`SCRAPE_CODES`].
pub static SCRAPES: Desc = desc(
    "promhttp_metric_handler_requests_total",
    &["code"],
    Kind::Counter,
    "Total number of scrapes by HTTP status code.",
);

/// The label values of [`SCRAPES`].
pub const SCRAPE_CODES: [&str; 3] = ["200", "500", "503"];

/// Responses of `https://` servers by status.
pub static HTTPS_RESPONSES: Desc = desc(
    "coredns_dns_https_responses_total",
    &["server", "status"],
    Kind::Counter,
    "Counter of DoH responses per server and http status code.",
);

/// Responses of `https3://` servers by status. Those with another status than 200 are hickory-server's, and not
/// counted.
pub static HTTPS3_RESPONSES: Desc = desc(
    "coredns_dns_https3_responses_total",
    &["server", "status"],
    Kind::Counter,
    "Counter of DoH3 responses per server and http status code.",
);

/// Responses of `quic://` servers, and connections that they end, by QUIC application code (RFC 9250 §4.3).
pub static QUIC_RESPONSES: Desc = desc(
    "coredns_dns_quic_responses_total",
    &["server", "status"],
    Kind::Counter,
    "Counter of DoQ responses per server and QUIC application code.",
);
