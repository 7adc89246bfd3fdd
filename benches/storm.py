#!/usr/bin/env python3
"""A storm of misses: 10,000 names within 5 s to an upstream that never answers, while hits go on.

What the server holds for queries that wait: its memory and descriptors before, at their most, and
10 s after the last answer; how long the slowest SERVFAIL took; and the latency of hits without the
storm, beside one that goes elsewhere (the load's core is as busy then), and in it. The upstream is silent over UDP (`udp`), takes connections and is silent on them
(`tcp`), or does not even take them (`dial`).

  benches/storm.py [--nodens PATH] [--kinds udp,tcp,dial] [--queries 10000] [--seconds 5]
                   [--hits 5000] [--cores 1] [--json FILE]

Targets: memory grows by at most 16 MiB, at most 256 descriptors, all of it back within 10 s, answers
within 4 s, hits not slowed by more than a tenth.
"""
import contextlib
import json
import os
import select
import socket
import subprocess
import threading
import time

import lab

SILENT = 5398
ZONE = "storm.test"
COREFILE = """storm.test:{{port}} {{{{
    errors
    cache 30
    bind 127.0.0.1
    forward . 127.0.0.1:{silent} {{{{
        {words}
    }}}}
}}}}
"""


@contextlib.contextmanager
def silent(kind):
    """An upstream that never answers."""
    with contextlib.ExitStack() as held:
        if kind == "udp":
            taken = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            taken.bind(("127.0.0.1", SILENT))
        else:
            taken = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", SILENT))
            taken.listen(0 if kind == "dial" else 4096)
            if kind == "dial":
                # The queue of connections is full: nothing answers a further SYN.
                for _ in range(4):
                    one = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                    one.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        one.connect(("127.0.0.1", SILENT))
        yield


class Watch(threading.Thread):
    """Memory and descriptors of a process, the most of each, until told to end."""

    def __init__(self, process):
        super().__init__()
        self.process, self.over = process, threading.Event()
        self.rss = self.fds = 0

    def run(self):
        while not self.over.wait(0.05):
            self.rss = max(self.rss, self.process.rss())
            self.fds = max(self.fds, descriptors(self.process))

    def end(self):
        self.over.set()
        self.join()


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def storm(address, count, seconds, patience=8):
    """Asks `count` names at an even rate, UDP, and waits for their answers for so many seconds more; the
    latencies in seconds and rcodes of the answers."""
    asked, took, rcodes = {}, [], {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        client.connect(address)
        client.setblocking(False)
        began = time.monotonic()
        sent = 0
        while sent < count or (asked and time.monotonic() - began < seconds + patience):
            now = time.monotonic()
            while sent < count and sent * seconds / count <= now - began:
                asked[sent] = now
                client.send(lab.query(f"n{sent}.{ZONE}", qid=sent))
                sent += 1
            select.select([client], [], [], 0.001)
            with contextlib.suppress(BlockingIOError):
                while True:
                    answer = client.recv(4096)
                    begun = asked.pop(int.from_bytes(answer[:2], "big"), None)
                    if begun is not None:
                        took.append(time.monotonic() - begun)
                        rcodes[answer[3] & 15] = rcodes.get(answer[3] & 15, 0) + 1
    return took, rcodes


def start_hits(address, path, rate, seconds):
    command = [lab.load_generator(), "--server", f"{address[0]}:{address[1]}", "--seconds", str(seconds),
               "--stream", f"hits:{rate}:{path}"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def measured(place, options, kind):
    words = "force_tcp" if kind != "udp" else "prefer_udp"
    files = {"base": COREFILE.format(silent=SILENT, words=words) + lab.BESIDE}
    with silent(kind), place.server("nodens", nodens=options.nodens, files=files) as (process, address):
        if options.cores > 1:
            for task in os.listdir(f"/proc/{process.pid}/task"):
                os.sched_setaffinity(int(task), set(range(os.cpu_count() or 1)))
        path, _ = place.names(1000)
        place.warm(address, path)
        time.sleep(2)
        row = {"kind": kind, "idle_mib": process.rss() / 2**20, "idle_fds": descriptors(process)}
        hits = start_hits(address, path, options.hits, options.seconds)
        quiet = json.loads(hits.communicate()[0])["hits"]
        # The load's own core is busier in a storm: the same storm, to a socket that nobody reads.
        hits = start_hits(address, path, options.hits, options.seconds)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            storm(nobody.getsockname(), options.queries, options.seconds, patience=0)
        control = json.loads(hits.communicate()[0])["hits"]
        watch = Watch(process)
        watch.start()
        hits = start_hits(address, path, options.hits, options.seconds)
        took, rcodes = storm(address, options.queries, options.seconds)
        stormy = json.loads(hits.communicate()[0])["hits"]
        time.sleep(10)
        row["after_mib"], row["after_fds"] = process.rss() / 2**20, descriptors(process)
        watch.end()
        row["peak_mib"], row["peak_fds"] = watch.rss / 2**20, watch.fds
        row["answers"], row["rcodes"], row["slowest_s"] = len(took), rcodes, max(took, default=0)
        row["quiet"], row["control"], row["stormy"] = quiet, control, stormy
        return row


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--kinds", default="udp,tcp,dial")
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--hits", type=int, default=5_000, help="hits a second")
    parser.add_argument("--cores", type=int, default=1)
    options = parser.parse_args()
    options.nodens = lab.nodens_binary(options.nodens)
    lab.load_generator()
    rows = []
    with lab.Lab() as place:
        for kind in options.kinds.split(","):
            rows.append(measured(place, options, kind))
    lab.say(f"{options.queries} names in {options.seconds:g} s to a silent upstream, beside {options.hits} hits/s:\n")
    lab.table(["upstream", "RSS before, MiB", "most", "grown", "10 s after", "fds before/most/after", "answered",
               "slowest s", "hits p50/p99 µs quiet", "beside a storm elsewhere", "in the storm"],
              [[row["kind"], f"{row['idle_mib']:.1f}", f"{row['peak_mib']:.1f}",
                f"{row['peak_mib'] - row['idle_mib']:+.1f}", f"{row['after_mib']:.1f}",
                f"{row['idle_fds']}/{row['peak_fds']}/{row['after_fds']}",
                f"{row['answers']} {row['rcodes']}", f"{row['slowest_s']:.2f}",
                f"{row['quiet']['p50_us']:.0f}/{row['quiet']['p99_us']:.0f}",
                f"{row['control']['p50_us']:.0f}/{row['control']['p99_us']:.0f}",
                f"{row['stormy']['p50_us']:.0f}/{row['stormy']['p99_us']:.0f}"] for row in rows])
    lab.keep(options.json, "storm", rows)


if __name__ == "__main__":
    main()
