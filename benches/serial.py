#!/usr/bin/env python3
"""Misses to an upstream that answers a connection's queries one after the other, as CoreDNS does over
TCP, and that takes 100 ms for one in a hundred (benches/serial.rs).

How long the fast names take, and how many connections that needs:

  pool     nodens as it is: connections are kept and shared
  fresh    a connection for each query: nodens with `expire 1ns`, which keeps none

Both in turn at each rate. A rate that the upstream, the load and the connections' cost leave no room
for on this machine shows by its lost queries and by its p50.

  benches/serial.py [--nodens PATH] [--rates 2000,5000,20000] [--kinds pool,fresh] [--seconds 5]
                    [--slow 0.01] [--json FILE]

Targets: p99 of the fast names in the pool at most twice that of `fresh`, with a tenth of its
connections or fewer.
"""
import contextlib
import os
import subprocess

import lab
import servers

ADDRESS = ("127.0.0.1", 5399)
ZONE = "serial.test"
COREFILE = """{zone}:{{port}} {{{{
    errors
    cache 30
    bind 127.0.0.1
    forward . {address}:{port} {{{{
        force_tcp
        {words}
    }}}}
}}}}
"""
KINDS = {"pool": "", "fresh": "expire 1ns"}


class Upstream:
    """The serial upstream; a context manager."""

    def __init__(self, place):
        source, program = os.path.join(lab.HERE, "serial.rs"), os.path.join(place.dir, "serial")
        subprocess.run(["rustc", "--edition", "2024", "-O", "-o", program, source], check=True)
        self.group, self.program = place.group, program

    def __enter__(self):
        def enter():
            os.sched_setaffinity(0, {lab.LOAD_CORE})
            if self.group:
                self.group.enter()

        self.child = subprocess.Popen([self.program, f"{ADDRESS[0]}:{ADDRESS[1]}"], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True, preexec_fn=enter)
        if self.child.stdout.readline() != "ready\n":
            lab.fail("the upstream did not start")
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(5)
            return
        self.child.kill()
        self.child.wait()

    def counts(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        taken, now, most, queries = map(int, self.child.stdout.readline().split())
        return {"taken": taken, "open": now, "most": most, "queries": queries}


def measured(place, options, kind, rate):
    files = {"base": COREFILE.format(zone=ZONE, address=ADDRESS[0], port=ADDRESS[1], words=KINDS[kind]) + servers.BESIDE}
    slow = max(rate * options.slow, 0.001)
    streams = [("fast", rate - slow, f"unique=f.{ZONE}"), ("slow", slow, f"unique=slow.{ZONE}")]
    with Upstream(place) as upstream, place.server("nodens", nodens=options.nodens, files=files) as (process, address):
        # What the pool learns first is learned from traffic like this.
        place.rate(address, streams, 2)
        before, cpu = upstream.counts(), process.cpu_ns()
        got = place.rate(address, streams, options.seconds)
        after, cpu = upstream.counts(), process.cpu_ns() - cpu
        asked = got["fast"]["answered"] + got["slow"]["answered"]
        return {"kind": kind, "rate": rate, "fast": got["fast"], "slow": got["slow"], "late_p99_us": got["late_p99_us"],
                "taken": after["taken"] - before["taken"], "open": after["open"], "most": after["most"],
                "cpu_us": cpu / 1e3 / max(asked, 1)}


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--rates", default="2000,5000,20000")
    parser.add_argument("--kinds", default="pool,fresh")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--slow", type=float, default=0.01, help="the share of slow names")
    options = parser.parse_args()
    options.nodens = lab.nodens_binary(options.nodens)
    lab.load_generator()
    rows = []
    with lab.Lab() as place:
        for rate in (float(word) for word in options.rates.split(",")):
            for kind in options.kinds.split(","):
                rows.append(measured(place, options, kind, rate))
    lab.say(f"Misses to a serial upstream, {100 * options.slow:g} % of them 100 ms late, {options.seconds:g} s each:\n")
    lab.table(["", "queries/s", "fast: p50 ms", "p90 ms", "p99 ms", "slow: p50 ms", "lost", "failed",
               "connections opened", "most open", "CPU µs a query", "generator late, p99 ms"],
              [[row["kind"], f"{row['rate']:.0f}", f"{row['fast']['p50_us'] / 1e3:.2f}", f"{row['fast']['p90_us'] / 1e3:.2f}",
                f"{row['fast']['p99_us'] / 1e3:.2f}", f"{row['slow']['p50_us'] / 1e3:.1f}", row["fast"]["lost"] + row["slow"]["lost"],
                row["fast"]["failed"] + row["slow"]["failed"], row["taken"], row["most"], f"{row['cpu_us']:.1f}",
                f"{row['late_p99_us'] / 1e3:.2f}"] for row in rows])
    lab.keep(options.json, "serial", rows, slow=options.slow)


if __name__ == "__main__":
    main()
