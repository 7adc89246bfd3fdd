#!/usr/bin/env python3
"""The load test that a user would run: dnsperf over 1,000 cached names, against each server in turn.

  benches/dnsperf.py [--nodens PATH] [--servers nodens,unbound,dnsmasq] [--seconds 10] [--tcp] [--json FILE]

Needs dnsperf and knotd; a server that is not installed is left out with a line that says so.
"""
import re

import lab


def measured(place, name, options):
    """What dnsperf got of a server whose cache has all names, and what that cost it."""
    mode = "tcp" if options.tcp else "udp"
    with place.server(name, nodens=options.nodens) as (process, address):
        path, _ = place.names(1000)
        place.warm(address, path)
        command = ["dnsperf", "-s", address[0], "-p", str(address[1]), "-m", mode, "-d", path, "-l", str(options.seconds),
                   "-c", "16", "-q", "128"]
        before = process.cpu_ns()
        text = place.run_load(command, options.seconds + 60)
        cpu_us = (process.cpu_ns() - before) / 1e3
        found = {word: float(re.search(rf"Queries {word}:\s+([\d.]+)", text).group(1))
                 for word in ("completed", "lost", "per second")}
        return {"name": name, "answered": int(found["completed"]), "lost": int(found["lost"]),
                "queries_s": found["per second"], "cpu_us": cpu_us / max(found["completed"], 1),
                "rss_mib": process.rss() / 2**20}


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--servers", default="nodens,unbound,dnsmasq")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--tcp", action="store_true")
    options = parser.parse_args()
    names = [name for name in options.servers.split(",") if lab.known_server(name, {})]
    if "nodens" in names:
        options.nodens = lab.nodens_binary(options.nodens)
    with lab.Lab() as place:
        rows = [measured(place, name, options) for name in names]
    lab.table(["server", "queries/s", "CPU µs/query", "lost", "RSS MiB"],
              [[row["name"], f"{row['queries_s']:.0f}", f"{row['cpu_us']:.2f}", row["lost"], f"{row['rss_mib']:.1f}"]
               for row in rows])
    lab.keep(options.json, "dnsperf", rows)


if __name__ == "__main__":
    main()
