#!/usr/bin/env python3
"""Queries that come alone: latency and CPU at a low fixed rate, servers by turns, in an order by chance.

At such rates repetitions of one server differ more than servers do: other work on the machine keeps a core
for milliseconds, which one hundredth of the queries of a second notice. So rounds are many and short, and
the median of a round's figures stands between their quartiles. Latencies are by the kernel's clock
(hits.py): what the client waits for its core is left out. Hits are asked of 1,000 names; each miss has a
name of its own below a wildcard of the upstream.

  benches/lone.py [--nodens PATH] [--builds NAME=PATH,...] [--servers nodens,unbound,dnsmasq,hickory-dns]
                  [--kinds hits,misses] [--rounds 9] [--seconds 0.5] [--hits 5000] [--misses 2000] [--json FILE]

Builds are further programs of nodens, to be compared with the first.
"""
import json
import os
import random
import statistics
import subprocess
import sys

import cgroup
import lab

FIGURES = ("p50_us", "p95_us", "p99_us", "cpu_us")


def asked(address, rate, seconds, path):
    """What hits.py met, which is in the load's cgroup as this process is."""
    command = [sys.executable, os.path.join(lab.HERE, "hits.py"), address[0], str(address[1]), str(rate), str(seconds), path]
    urgent = (lambda: os.setpriority(os.PRIO_PROCESS, 0, -15)) if os.geteuid() == 0 else None
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, preexec_fn=urgent)
    return json.loads(done.stdout)


def measured(place, group, server, program, kind, number, options):
    """One round of a server."""
    rate = {"hits": options.hits, "misses": options.misses}[kind]
    with place.server(server, group=group, nodens=program) as (process, address):
        if kind == "hits":
            path, _ = place.names(1000)
            place.warm(address, path)
        else:
            count = int(2 * rate * options.seconds) + 100
            path = place.queries("misses", [f"m{number}-{k}.{lab.UNIQUE}" for k in range(count)])
        before = process.cpu_ns()
        found = asked(address, rate, options.seconds, path)
        return {**found, "cpu_us": (process.cpu_ns() - before) / 1e3 / max(found["answered"], 1)}


def summed_up(kind, name, rounds):
    """One row of all rounds: of each figure the median and the quartiles."""
    row = {"kind": kind, "name": name}
    for word in ("sent", "answered", "failed", "lost"):
        row[word] = sum(one[word] for one in rounds)
    for word in FIGURES:
        values = sorted(one[word] for one in rounds)
        row[word] = statistics.median(values)
        row[f"{word}_quartiles"] = [values[len(values) // 4], values[len(values) * 3 // 4]]
    return row


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--builds", default="", metavar="NAME=PATH,...")
    parser.add_argument("--servers", default="nodens,unbound,dnsmasq,hickory-dns")
    parser.add_argument("--kinds", default="hits,misses")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--hits", type=float, default=5000, help="a second")
    parser.add_argument("--misses", type=float, default=2000, help="a second")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in ("hits", "misses")]:
        lab.fail(f"unknown kind {unknown[0]}; known: hits, misses")
    servers = [(name, name, None) for name in options.servers.split(",") if lab.known_server(name, {})]
    if any(name == "nodens" for name, _, _ in servers):
        first = lab.nodens_binary(options.nodens)
        servers = [(name, server, first if server == "nodens" else None) for name, server, _ in servers]
    for word in filter(None, options.builds.split(",")):
        name, path = word.split("=", 1)
        servers.append((name, "nodens", lab.nodens_binary(path)))
    # Beside the load: on the server's core they would be in its way.
    os.sched_setaffinity(0, {lab.LOAD_CORE})
    rounds = {(kind, name): [] for kind in kinds for name, _, _ in servers}
    with lab.Lab() as place:
        # Of weight, as the load's, so that other work on the machine takes little of the cores.
        group = cgroup.Group("lone", weight=64) if place.group else None
        if place.group:
            place.group.enter()
        try:
            for number in range(options.rounds):
                for name, server, program in random.sample(servers, len(servers)):
                    for kind in kinds:
                        found = measured(place, group, server, program, kind, number, options)
                        rounds[kind, name].append(found)
        finally:
            if place.group:
                place.group.leave()
            if group:
                group.close()
    rows = [summed_up(kind, name, found) for (kind, name), found in rounds.items()]
    lab.say(f"{options.hits:g} hits, {options.misses:g} misses a second, {options.rounds} rounds of {options.seconds:g} s:\n")
    shown = lambda row, word: f"{row[word]:.1f} ({row[f'{word}_quartiles'][0]:.1f}–{row[f'{word}_quartiles'][1]:.1f})"
    lab.table(["", "server", "p50 µs", "p95 µs", "p99 µs", "CPU µs", "lost"],
              [[row["kind"], row["name"], *(shown(row, word) for word in FIGURES), row["lost"]] for row in rows])
    lab.keep(options.json, "lone", rows)


if __name__ == "__main__":
    main()
