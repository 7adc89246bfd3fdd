#!/usr/bin/env python3
"""What a hit costs as the cache and the Corefile grow: CPU per hit of nodens at 1,000, 100,000 and
1,000,000 cached names; with one and with four server blocks; with errors, log and prometheus; over TCP.

dnsperf keeps 128 queries in flight from 16 clients over names in random order, each of them cached;
UDP and TCP are compared with that load and with 100 in flight from 50 clients. CPU is that of
the process, system calls included, over the answered queries. The kinds are measured in turn, as often as
--rounds says, and the median counts: what the machine does meanwhile hits all alike.

  benches/growth.py [--nodens PATH] [--seconds 3] [--rounds 3] [--names 1000,100000,1000000] [--json FILE]
"""
import random
import re
import statistics

import lab

# `class` sampled off: the directive stands in the chain and decides for each query to write nothing.
BLOCK = """{zone}:{{port}} {{{{
    {words}
    cache {{{{
        success {entries} 3600
        denial 1000 3600
    }}}}
    bind 127.0.0.1
    forward . 127.0.0.1:{{up}} {{{{
        force_tcp
    }}}}
}}}}
"""
ONE = ["."]
FOUR = ["cluster.local", "in-addr.arpa", "ip6.arpa", "."]
LOG_OFF = "errors\n    log . {{\n        class denial\n    }}\n    prometheus 127.0.0.1:9395"


def corefile(zones, words, entries):
    return "".join(BLOCK.format(zone=zone, words=words, entries=entries) for zone in zones)


def shuffled(place, count):
    """The names in random order: (file to warm with, file to ask with)."""
    path, names = place.names(count)
    random.Random(2).shuffle(names)
    return path, place.queries(f"shuffled-{count}", names)


# Clients and queries in flight, as dnsperf has them.
USUAL = ["-c", "16", "-q", "128"]
MANY = ["-c", "50", "-q", "100"]


def cost(place, options, files, paths, load):
    """CPU in microseconds per hit, a figure for each round of one process; and its memory in MiB."""
    warm, asked = paths
    with place.server("nodens", nodens=options.nodens, files={"base": files}) as (process, address):
        place.warm(address, warm, window=256)
        figures = []
        for _ in range(options.tries):
            before = process.cpu_ns()
            text = place.run_load(["dnsperf", "-s", address[0], "-p", str(address[1]), "-d", asked,
                                   "-l", str(options.seconds), "-t", "1", *load], 300)
            done = int(re.search(r"Queries completed:\s+(\d+)", text).group(1))
            figures.append((process.cpu_ns() - before) / 1e3 / max(done, 1))
        return min(figures), process.rss() / 2**20


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--names", default="1000,100000,1000000")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tries", type=int, default=2, help="measurements of a process; the least counts")
    options = parser.parse_args()
    options.nodens = lab.nodens_binary(options.nodens)
    counts = [int(word) for word in options.names.split(",")]
    kinds = {f"{count:,} names": (corefile(ONE, "errors", count * 5 // 4), count, USUAL) for count in counts}
    kinds["4 server blocks"] = (corefile(FOUR, "errors", 10_000), 1000, USUAL)
    kinds["no errors"] = (corefile(ONE, "", 10_000), 1000, USUAL)
    kinds["errors, log (nothing to write), prometheus"] = (corefile(ONE, LOG_OFF, 10_000), 1000, USUAL)
    kinds["TCP"] = (corefile(ONE, "errors", 10_000), 1000, [*USUAL, "-m", "tcp"])
    kinds["50 clients"] = (corefile(ONE, "errors", 10_000), 1000, MANY)
    kinds["50 clients, TCP"] = (corefile(ONE, "errors", 10_000), 1000, [*MANY, "-m", "tcp"])
    figures = {kind: [] for kind in kinds}
    memory = {}
    with lab.Lab() as place:
        paths = {count: shuffled(place, count) for count in {count for _, count, _ in kinds.values()}}
        for _ in range(options.rounds):
            for kind, (files, count, load) in kinds.items():
                figure, memory[kind] = cost(place, options, files, paths[count], load)
                figures[kind].append(figure)
                lab.say(f"  {kind}: {figure:.2f} µs")
    medians = {kind: statistics.median(values) for kind, values in figures.items()}
    base = {kind: f"{counts[0]:,} names" for kind in kinds}
    base["errors, log (nothing to write), prometheus"] = "no errors"
    base["50 clients, TCP"] = "50 clients"
    rows = [{"kind": kind, "cpu_us": medians[kind], "beside": base[kind], "ratio": medians[kind] / medians[base[kind]],
             "rss_mib": memory[kind]} for kind in kinds]
    lab.say(f"\nCPU per hit, median of {options.rounds}:\n")
    lab.table(["", "µs per hit", "ratio", "to", "RSS MiB"],
              [[row["kind"], f"{row['cpu_us']:.2f}", f"{row['ratio']:.2f}", row["beside"], f"{row['rss_mib']:.0f}"] for row in rows])
    lab.keep(options.json, "growth", rows)


if __name__ == "__main__":
    main()
