#!/usr/bin/env python3
"""The highest rate that a server carries under the limits of a stock deployment.

Puts the server into a cgroup of 100m CPU and 100 MiB and finds the highest rate at which less than
0.1 % of the queries are lost and 99 % are answered within 10 ms:

  W2  hits: Zipf over 20,000 cached names
  W4  misses: names that never come twice, over TCP to the upstream (dnsmasq: UDP, it has no TCP)

A quota of 100m is 10 ms of CPU in each 100 ms: a server that uses it up stands still for the rest of
the period, so such a rate is just below the one at which the quota is used up now and then. Arrivals
are random (exponential gaps), as those of many pods. Names are cached before the limit is set, and no run
begins within two seconds of that: a server may look for its limit now and then. Each run begins from rest,
and what its first tenth of a second keeps waiting counts. After a run that did not hold the server is started
anew: what an overload leaves behind (dnsmasq's table of questions) is not the next run's. A run in which the load
itself was late says nothing, and is made again, three times at most; the rows say how many runs were so, and how
many counted nonetheless. --verbose also shows how fast a walk through memory was beside the server, outside its group.

Then the same load beyond the limit for every server, misses and hits together (`--mode overload`: this
alone): which share of the hits is still answered with records, and how fast. An answer after more than
a second counts as none.

With `--repetitions` every server is started anew for each, one after the other in turn; medians are shown.

  benches/limits.py [--servers nodens,unbound,dnsmasq,hickory-dns] [--nodens PATH] [--json FILE]
  benches/limits.py --mode overload [--hits 2000] [--misses 12000] --repetitions 3
  benches/limits.py --server 'node-cache=/path/node-cache -localip 127.0.0.1 -basecorefile {dir}/base
    -conf {dir}/Corefile ...'

A start command of one's own may use {dir} (holds a Corefile, as `base` too), {port} and {up}, the upstream's port on
127.0.0.1. Needs root for the cgroups, and knotd and dnsperf.
"""
import contextlib
import statistics
import time

import cgroup
import lab
import servers

# How long a server has to notice its limit.
NOTICED = 2.0
# A load that sends a hundredth of its queries later than this was kept from its core, and how often it is tried again.
LATE_US = 2000
TRIES = 3


class Limited:
    """A server under its limits, started anew when it has to be; a context manager."""

    def __init__(self, place, options, name, warm):
        self.lab, self.options, self.name, self.warm = place, options, name, warm
        self.group = cgroup.Group(name, memory=options.memory << 20, weight=64)
        self.process = self.address = self.running = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.group.close()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        self.group.close()

    def start(self):
        """Starts it without a limit, has it cache the names, and limits it."""
        self.stop()
        self.group.limit(None)
        self.running = contextlib.ExitStack()
        self.process, self.address = self.running.enter_context(self.lab.server(
            self.name, group=self.group, given=self.options.given.get(self.name), nodens=self.options.nodens))
        self.lab.warm(self.address, self.warm)
        self.group.limit(self.options.cpu)
        time.sleep(NOTICED)

    def stop(self):
        if self.running:
            self.running.close()
            self.running = None

    def load(self, streams):
        """A run of this load: what was measured."""
        before = self.group.throttled()
        result = self.lab.rate(self.address, streams, self.options.seconds)
        result["throttled"] = self.group.throttled() - before
        return result


class Limits:
    def __init__(self, place, options):
        self.lab, self.options = place, options
        path, names = place.names(options.names)
        self.warm = path
        self.unclean = {"made again": 0, "counted": 0}
        self.sources = {"W2": place.queries("zipf", lab.zipf(names, 200_000)), "W4": f"unique={lab.UNIQUE}"}

    def trial(self, server, workload, rate):
        """One run at `rate`: (held, what was measured)."""
        for tries in range(TRIES):
            result = server.load([(workload, rate, self.sources[workload])])
            if result["late_p99_us"] < LATE_US:
                break
            self.unclean["made again" if tries + 1 < TRIES else "counted"] += 1
        got = result[workload]
        for key in ("throttled", "late_p99_us", "walk_us"):
            got[key] = result[key]
        held = got["lost"] < got["sent"] * 0.001 and got["p99_us"] < 10_000 and got["failed"] == 0
        if self.options.verbose:
            lab.say(f"    {workload} {rate:>8.0f}/s  {'held' if held else 'not '}  lost {got['lost']:>5}  p99 {got['p99_us'] / 1e3:>7.2f} ms"
                    f"  throttled {got['throttled']:>3}  generator late {got['late_p99_us'] / 1e3:.2f} ms"
                    f"  walk {got['walk_us']:.1f} µs")
        if not held:
            server.start()
        return held, got

    def holds(self, server, workload, rate):
        """Whether two of three runs at `rate` hold; the first run that did."""
        kept, fails = None, 0
        for _ in range(3):
            held, got = self.trial(server, workload, rate)
            if held and kept:
                return kept
            if held:
                kept = got
            else:
                fails += 1
            if fails == 2:
                return None
        return kept

    def highest(self, server, workload):
        """The highest rate that holds, to 4 %, and its measurement."""
        low, best, high = 0.0, None, None
        rate = 1000.0
        while high is None or high / max(low, 1) > 1.04:
            # On the way up one run that holds will do.
            held, got = self.trial(server, workload, rate) if high is None else (False, None)
            got = got if held else self.holds(server, workload, rate)
            if got:
                low, best = rate, got
            else:
                high = rate
            if high is None:
                rate *= 2
            elif low:
                rate = (low * high) ** 0.5
            else:
                rate /= 2
            if rate < 50 or rate > 2_000_000:
                break
        return low, best

    def beyond(self, server):
        """Hits and misses together, more than the quota can pay for."""
        result = server.load([("hits", self.options.hits, self.sources["W2"]),
                              ("misses", self.options.misses, self.sources["W4"])])
        for part in ("hits", "misses"):
            result[part]["share"] = share(result[part])
        return result

    def measure(self, name):
        row = {"server": name}
        self.unclean = dict.fromkeys(self.unclean, 0)
        with Limited(self.lab, self.options, name, self.warm) as server:
            for workload in self.options.workloads.split(",") if self.options.mode != "overload" else ():
                rate, got = self.highest(server, workload)
                row[workload] = {"rate": rate, **(got or {})}
                lab.say(f"  {name} {workload}: {rate:.0f} queries/s; runs that were not clean: {self.unclean}")
            if self.options.mode != "highest":
                server.start()
                row["beyond"] = beyond = self.beyond(server)
                lab.say(f"  {name}: {beyond['hits']['share']:.1f} % of the hits answered,"
                        f" {beyond['misses']['share']:.1f} % of the misses, hits' p99 {beyond['hits']['p99_us'] / 1e3:.1f} ms")
            row["unclean"] = self.unclean
            row["rss_mib"] = server.process.rss() / 2**20
            row["peak_mib"] = server.group.peak() / 2**20
        return row


def share(part):
    """Hundredths of what was sent that were answered with records."""
    return 100 * (part["answered"] - part["failed"]) / max(part["sent"], 1)


def medians(rows):
    """One row of all of a server: each number is the median of theirs."""
    first = rows[0]
    if isinstance(first, dict):
        return {key: medians([row[key] for row in rows if key in row]) for key in first}
    return statistics.median(rows) if isinstance(first, (int, float)) else first


def show(rows, options):
    if options.mode != "overload":
        show_highest(rows, options)
    if options.mode != "highest":
        show_beyond(rows, options)


def show_highest(rows, options):
    base = {row["server"]: row for row in rows}.get("nodens")

    def ratio(row, workload):
        if not base or not row[workload]["rate"]:
            return "–"
        return f"{base[workload]['rate'] / row[workload]['rate']:.2f}"

    lab.say(f"\nHighest rate with < 0.1 % lost and p99 < 10 ms; {options.cpu * 1000:.0f}m CPU, {options.memory} MiB:\n")
    workloads = options.workloads.split(",")
    head = [word for workload in workloads for word in (f"{workload} queries/s", "p99 ms", "nodens ×")]

    def cells(row, workload):
        return [f"{row[workload]['rate']:.0f}", f"{row[workload].get('p99_us', 0) / 1e3:.1f}", ratio(row, workload)]

    lab.table(["server", *head, "RSS MiB"],
              [[row["server"], *(cell for workload in workloads for cell in cells(row, workload)), f"{row['rss_mib']:.1f}"]
               for row in rows])


def show_beyond(rows, options):
    lab.say(f"\nBeyond the limit, {options.hits} hits/s and {options.misses} misses/s together; {options.cpu * 1000:.0f}m CPU:\n")
    lab.table(["server", "hits answered", "hits p50 ms", "hits p99 ms", "misses answered", "misses p50 ms", "periods throttled", "RSS MiB"],
              [[row["server"], f"{row['beyond']['hits']['share']:.1f} %", f"{row['beyond']['hits']['p50_us'] / 1e3:.1f}",
                f"{row['beyond']['hits']['p99_us'] / 1e3:.1f}", f"{row['beyond']['misses']['share']:.1f} %",
                f"{row['beyond']['misses']['p50_us'] / 1e3:.1f}", f"{row['beyond']['throttled']:.0f}", f"{row['rss_mib']:.1f}"]
               for row in rows])


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--servers", default="nodens,unbound,dnsmasq,hickory-dns")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--cpu", type=float, default=0.1, help="cores")
    parser.add_argument("--memory", type=int, default=100, help="MiB")
    parser.add_argument("--names", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--hits", type=int, default=2000, help="beyond the limit, a second")
    parser.add_argument("--misses", type=int, default=12000, help="beyond the limit, a second")
    parser.add_argument("--mode", choices=["both", "highest", "overload"], default="both")
    parser.add_argument("--workloads", default="W2,W4", help="of the highest rate: W2, W4 or both")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="a line for each run")
    options = parser.parse_args()
    options.given = dict(text.split("=", 1) for text in options.server)
    names = [name for name in options.servers.split(",") if name] + list(options.given)
    unknown = [name for name in names if name not in servers.SERVERS and name not in options.given]
    if unknown:
        lab.fail(f"unknown server {unknown[0]}; known: {', '.join(servers.SERVERS)}")
    if "nodens" in names:
        options.nodens = lab.nodens_binary(options.nodens)
    lab.load_generator()
    with lab.Lab() as place:
        limits = Limits(place, options)
        names = [name for name in names if lab.known_server(name, options.given)]
        rows = [limits.measure(name) for _ in range(options.repetitions) for name in names]
    show([medians([row for row in rows if row["server"] == name]) for name in names], options)
    lab.keep(options.json, "limits", rows, cpu=options.cpu, memory_mib=options.memory, hits=options.hits,
             misses=options.misses)


if __name__ == "__main__":
    main()
