#!/usr/bin/env python3
"""Writes dashboard.json for Grafana from the panels below: make_dashboard.py > dashboard.json"""

import json

SELECT = '{job=~"$job",instance=~"$instance"}'


def select(text: str) -> str:
    """`name[5m]` and `name{label="x"}` with the dashboard's choices put in."""
    return text.replace("{}", SELECT).replace("{,", SELECT[:-1] + ",")


# Title, unit, what it says, and its queries: expression and legend.
ROWS = [
    (
        "Service",
        [
            ("Queries by node", "reqps", "Queries that were answered.", [("sum by (instance) (rate(coredns_dns_requests_total{}[5m]))", "{{instance}}")]),
            ("Queries by zone", "reqps", "Queries by the server block's zone.", [("sum by (zone) (rate(coredns_dns_requests_total{}[5m]))", "{{zone}}")]),
            ("Queries by type", "reqps", "Queries by record type.", [("sum by (type) (rate(coredns_dns_requests_total{}[5m]))", "{{type}}")]),
            ("Answers by code", "reqps", "NXDOMAIN is common with search domains; SERVFAIL is a failure.", [("sum by (rcode) (rate(coredns_dns_responses_total{}[5m]))", "{{rcode}}")]),
            (
                "Time to answer",
                "s",
                "Quantiles over the chosen nodes.",
                [
                    (f"histogram_quantile({q}, sum by (le) (rate(coredns_dns_request_duration_seconds_bucket{{}}[5m])))", f"p{name}")
                    for q, name in [(0.5, 50), (0.95, 95), (0.99, 99)]
                ],
            ),
            ("Queries by protocol", "reqps", "UDP and TCP, by address family.", [("sum by (proto, family) (rate(coredns_dns_requests_total{}[5m]))", "{{proto}} {{family}}")]),
        ],
    ),
    (
        "Cache",
        [
            ("Hit ratio", "percentunit", "Answers from the cache of all that it was asked.", [("sum by (instance) (rate(coredns_cache_hits_total{}[5m])) / sum by (instance) (rate(coredns_cache_requests_total{}[5m]))", "{{instance}}")]),
            ("Hits by kind", "reqps", "success: answers; denial: NXDOMAIN and no data.", [("sum by (type) (rate(coredns_cache_hits_total{}[5m]))", "{{type}}"), ("sum(rate(coredns_cache_misses_total{}[5m]))", "miss")]),
            ("Entries", "short", "What the cache holds.", [("sum by (type) (coredns_cache_entries{})", "{{type}}")]),
            ("Prefetches, stale answers, evictions", "reqps", "Renewed before expiry; served after it; pushed out.", [("sum(rate(coredns_cache_prefetch_total{}[5m]))", "prefetch"), ("sum(rate(coredns_cache_served_stale_total{}[5m]))", "stale"), ("sum(rate(coredns_cache_evictions_total{}[5m]))", "evicted")]),
        ],
    ),
    (
        "Upstreams",
        [
            ("Queries by upstream", "reqps", "What was asked upstream.", [("sum by (to) (rate(coredns_proxy_request_duration_seconds_count{}[5m]))", "{{to}}")]),
            ("Time to answer by upstream, p95", "s", "From question to answer.", [("histogram_quantile(0.95, sum by (to, le) (rate(coredns_proxy_request_duration_seconds_bucket{}[5m])))", "{{to}}")]),
            ("Failed health checks", "reqps", "An upstream whose checks fail is passed over.", [("sum by (to) (rate(coredns_proxy_healthcheck_failures_total{}[5m]))", "{{to}}"), ("sum(rate(coredns_forward_healthcheck_broken_total{}[5m]))", "all down")]),
            ("Connections found open", "percentunit", "Queries that needed no new connection.", [("sum by (to) (rate(coredns_proxy_conn_cache_hits_total{}[5m])) / (sum by (to) (rate(coredns_proxy_conn_cache_hits_total{}[5m])) + sum by (to) (rate(coredns_proxy_conn_cache_misses_total{}[5m])))", "{{to}}")]),
            ("Queries in flight", "short", "Queries that wait for an upstream.", [("nodens_queries_in_flight{}", "{{instance}}")]),
            ("Questions shared and refused", "reqps", "Joined: waited for the same question of another client. Refused: over a bound.", [("sum(rate(nodens_queries_joined_total{}[5m]))", "joined"), ("sum(rate(nodens_queries_shed_total{}[5m]))", "refused"), ("sum(rate(coredns_forward_max_concurrent_rejects_total{}[5m]))", "max_concurrent")]),
        ],
    ),
    (
        "Process",
        [
            ("Memory", "bytes", "Resident.", [("process_resident_memory_bytes{}", "{{instance}}")]),
            ("CPU", "short", "Cores.", [("rate(process_cpu_seconds_total{}[5m])", "{{instance}}")]),
            ("Open files", "short", "Sockets among them.", [("process_open_fds{}", "{{instance}}")]),
            ("Set-up errors, failed reloads, panics", "short", "In the last hour. Each has a line in the log.", [("sum by (errortype) (increase(coredns_nodecache_setup_errors_total{}[1h]))", "{{errortype}}"), ("sum(increase(coredns_reload_failed_total{}[1h]))", "reload"), ("sum(increase(coredns_panics_total{}[1h]))", "panic")]),
        ],
    ),
]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variable(name: str, label: str, query: str) -> dict:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "sort": 1,
        "current": {"text": "All", "value": "$__all"},
    }


def panels():
    number, top = 0, 0
    for title, row in ROWS:
        number += 1
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}}
        top += 1
        for place, (name, unit, says, queries) in enumerate(row):
            number += 1
            yield {
                "id": number,
                "type": "timeseries",
                "title": name,
                "description": says,
                "datasource": SOURCE,
                "gridPos": {"h": 8, "w": 8, "x": 8 * (place % 3), "y": top + 8 * (place // 3)},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
                "targets": [
                    {"refId": chr(65 + index), "datasource": SOURCE, "expr": select(query), "legendFormat": legend}
                    for index, (query, legend) in enumerate(queries)
                ],
            }
        top += 8 * -(-len(row) // 3)


print(
    json.dumps(
        {
            "uid": "nodens",
            "title": "nodens: DNS on every node",
            "tags": ["dns", "nodens"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "templating": {
                "list": [
                    {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                    variable("job", "Job", "label_values(coredns_build_info, job)"),
                    variable("instance", "Node", 'label_values(coredns_build_info{job=~"$job"}, instance)'),
                ]
            },
            "panels": list(panels()),
        },
        indent=1,
    )
)
