#!/usr/bin/env python3
"""A storm of misses: 10,000 names within 5 s to an upstream that never answers, while hits go on.

What the server holds for queries that wait: its memory and descriptors before, at their most, and
10 s after the last answer; how long the slowest answer took; and the latency of hits, by the kernel's clock
(hits.py), beside a storm that goes elsewhere (the load's core is as busy then) and in it. Server and load stand
in cgroups of weight, so that other work on the machine takes little of their cores. Kinds:

  udp      the upstream is silent over UDP
  tcp      it takes connections and is silent on them
  dial     it does not even take them
  refused  it refuses them, as a Service without endpoints does
  clients  as tcp, and the queries come over 200 TCP connections, whose descriptors are left out
  stale    as tcp, but the names were answered once and have expired: `serve_stale`
  verify   the same with `serve_stale 1h verify`, which asks the upstream first
  one      no storm: 1,000 clients ask one name that nobody knows, whose answer takes a second

  benches/storm.py [--nodens PATH] [--kinds udp,tcp,dial,refused,clients,stale,verify,one] [--queries 10000]
                   [--seconds 5] [--hits 5000] [--cores 1] [--repetitions 1] [--settle 10] [--json FILE]
  benches/storm.py --server 'NAME=COMMAND with {dir}/base, {dir}/Corefile and {port}' ...

A start command of one's own is measured instead of nodens; both files hold the same Corefile.

Targets: memory grows by at most 16 MiB, at most 256 descriptors, all of it back within 10 s, answers
within 4 s, hits not slowed by more than a tenth; one question upstream for `one`.
"""
import contextlib
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time

import cgroup
import lab
import servers

SILENT = 5398
ZONE = "storm.test"
CLIENTS = 200
ASKERS = 1000
COREFILE = """storm.test:{{port}} {{{{
    errors
    cache {cache}
    bind 127.0.0.1
    forward . 127.0.0.1:{silent} {{{{
        {words}
    }}}}
}}}}
"""
# Names that were answered once expire after a second.
STALE = "{{{{\n        success 20000 30 0\n        serve_stale 1h {mode}\n    }}}}"
KINDS = {
    "udp": {"words": "prefer_udp"},
    "tcp": {},
    "dial": {},
    "refused": {},
    "clients": {},
    "stale": {"cache": STALE.format(mode="")},
    "verify": {"cache": STALE.format(mode="verify")},
    "one": {},
}


@contextlib.contextmanager
def silent(kind):
    """An upstream that never answers."""
    with contextlib.ExitStack() as held:
        if kind == "udp":
            taken = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            taken.bind(("127.0.0.1", SILENT))
        else:
            backlog = {"dial": 0, "refused": None}.get(kind, 4096)
            taken = held.enter_context(listening(backlog))
            if kind == "dial":
                # The queue of connections is full: nothing answers a further SYN.
                for _ in range(4):
                    one = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                    one.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        one.connect(("127.0.0.1", SILENT))
        yield None


def listening(backlog):
    """The upstream's socket; connections to it are refused without a backlog."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", SILENT))
    if backlog is not None:
        taken.listen(backlog)
    return taken


class Answering(threading.Thread):
    """An upstream over TCP that answers each question with an address that lasts a second, `delay`
    seconds later, until it falls silent. A context manager."""

    def __init__(self, delay=0.0):
        super().__init__()
        self.delay, self.over, self.asked, self.due = delay, threading.Event(), 0, []
        self.socket, self.ready, self.held = listening(4096), selectors.DefaultSelector(), []

    def __enter__(self):
        self.ready.register(self.socket, selectors.EVENT_READ)
        self.start()
        return self

    def __exit__(self, *_):
        self.silence()
        for one in [self.socket, *self.held]:
            one.close()
        self.ready.close()

    def silence(self):
        """Answers no more; connections stay, and new ones are taken by the kernel."""
        self.over.set()
        self.join()

    def run(self):
        unread = {}
        while not self.over.is_set():
            for key, _ in self.ready.select(0.01):
                if key.fileobj is self.socket:
                    one, _ = self.socket.accept()
                    self.held.append(one)
                    self.ready.register(one, selectors.EVENT_READ)
                    continue
                octets = key.fileobj.recv(65536)
                if not octets:
                    self.ready.unregister(key.fileobj)
                    continue
                unread[key.fileobj] = self.answer(key.fileobj, unread.get(key.fileobj, b"") + octets)
            while self.due and self.due[0][0] <= time.monotonic():
                _, one, answer = self.due.pop(0)
                with contextlib.suppress(OSError):
                    one.sendall(answer)

    def answer(self, one, octets):
        while len(octets) > 2 and len(octets) >= 2 + int.from_bytes(octets[:2], "big"):
            length = int.from_bytes(octets[:2], "big")
            query, octets = octets[2:2 + length], octets[2 + length:]
            self.asked += 1
            end = query.index(b"\0", 12) + 5
            answer = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:end]
            answer += b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x0a\x60\0\1"
            self.due.append((time.monotonic() + self.delay, one, len(answer).to_bytes(2, "big") + answer))
        return octets


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


def load(address, stream, seconds, *more):
    """Starts the load generator with one stream, in this process's cgroup."""
    command = [lab.load_generator(), "--server", f"{address[0]}:{address[1]}", "--seconds", str(seconds), *more,
               "--stream", stream]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def hits_beside(address, path, options):
    """Starts the hits. What else the load's core does shall not be in their way."""
    urgent = (lambda: os.setpriority(os.PRIO_PROCESS, 0, -15)) if os.geteuid() == 0 else None
    command = [sys.executable, os.path.join(lab.HERE, "hits.py"), address[0], str(address[1]), str(options.hits),
               str(options.seconds), path]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=urgent)


def hits_met(process):
    """What the hits met (hits.py)."""
    return json.loads(process.communicate()[0])


def result(process):
    """What its stream met."""
    found = json.loads(process.communicate()[0])
    del found["late_p99_us"]
    (found,) = found.values()
    return found


def over_udp(address, source, options, patience=8):
    """Asks at a rate and waits for the answers for so many seconds; how many came, with and without
    records, and how long the slowest took."""
    rate = options.queries / options.seconds
    more = ["--sockets", "8", "--patience", str(patience)]
    found = result(load(address, f"storm:{rate}:{source}", options.seconds, *more))
    return {"sent": found["sent"], "answers": found["answered"], "without": found["failed"],
            "slowest_s": found["slowest_us"] / 1e6}


def over_tcp(address, options, patience=8):
    """The same over as many connections as there are clients, by turns."""
    count, seconds = options.queries, options.seconds
    asked, slowest, answers, without = {}, 0.0, 0, 0
    with contextlib.ExitStack() as held:
        ready = held.enter_context(selectors.DefaultSelector())
        clients, unread = [], {}
        for _ in range(CLIENTS):
            clients.append(held.enter_context(socket.create_connection(address)))
            clients[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ready.register(clients[-1], selectors.EVENT_READ)
        began, sent = time.monotonic(), 0
        while sent < count or (asked and time.monotonic() - began < seconds + patience):
            now = time.monotonic()
            while sent < count and sent * seconds / count <= now - began:
                asked[sent] = now
                query = lab.query(f"n{sent}.{ZONE}", qid=sent)
                clients[sent % CLIENTS].sendall(len(query).to_bytes(2, "big") + query)
                sent += 1
            for key, _ in ready.select(0.001):
                octets = unread.get(key.fd, b"") + key.fileobj.recv(65536)
                while len(octets) > 2 and len(octets) >= 2 + int.from_bytes(octets[:2], "big"):
                    answer, octets = octets[2:], octets[2 + int.from_bytes(octets[:2], "big"):]
                    begun = asked.pop(int.from_bytes(answer[:2], "big"), None)
                    if begun is not None:
                        answers, slowest = answers + 1, max(slowest, time.monotonic() - begun)
                        without += answer[3] & 15 != 0
                unread[key.fd] = octets
    return {"sent": sent, "answers": answers, "without": without, "slowest_s": slowest}


def one_name(address, patience=8):
    """Many clients ask for one name at the same moment."""
    slowest, answers, without = 0.0, 0, 0
    with contextlib.ExitStack() as held:
        ready = held.enter_context(selectors.DefaultSelector())
        clients = [held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(ASKERS)]
        for client in clients:
            client.connect(address)
            ready.register(client, selectors.EVENT_READ)
        began = time.monotonic()
        for number, client in enumerate(clients):
            client.send(lab.query(f"cold.{ZONE}", qid=number))
        while answers < ASKERS and time.monotonic() - began < patience:
            for key, _ in ready.select(0.1):
                answer = key.fileobj.recv(4096)
                answers, slowest = answers + 1, time.monotonic() - began
                without += answer[3] & 15 != 0
    return {"sent": ASKERS, "answers": answers, "without": without, "slowest_s": slowest}


def asked(address, kind, source, options):
    """The storm of this kind."""
    if kind == "clients":
        return over_tcp(address, options)
    if kind == "one":
        return one_name(address)
    return over_udp(address, source, options)


def elsewhere(kind, source, options):
    """The same storm to a socket that nobody reads: its clients are as busy."""
    if kind == "one":
        return
    over = socket.SOCK_STREAM if kind == "clients" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, over) as nobody:
        nobody.bind(("127.0.0.1", 0))
        if kind == "clients":
            nobody.listen(CLIENTS)
            over_tcp(nobody.getsockname(), options, patience=0.001)
        else:
            over_udp(nobody.getsockname(), source, options, patience=0.001)


@contextlib.contextmanager
def weighted(name):
    """A cgroup of weight, where one can be made."""
    group = cgroup.Group(name, weight=64) if os.geteuid() == 0 else None
    try:
        yield group
    finally:
        if group:
            group.close()


@contextlib.contextmanager
def inside(group):
    """This process and the children that it starts are in a cgroup: the load, and the storm over TCP."""
    if group:
        group.enter()
    try:
        yield
    finally:
        if group:
            group.leave()


@contextlib.contextmanager
def started(place, options, name):
    """The server and its upstream for a kind: (process, address, the upstream if it answers)."""
    kind = KINDS[name]
    text = COREFILE.format(silent=SILENT, words=kind.get("words", "force_tcp"), cache=kind.get("cache", "30")) + servers.BESIDE
    files = {"base": text, "Corefile": text}
    answers = {"stale": 0.0, "verify": 0.0, "one": 1.0}
    upstream = Answering(answers[name]) if name in answers else silent(name)
    with weighted(f"storm-{name}") as group, upstream as upstream, place.server(
            options.name, group=group, nodens=options.nodens, given=options.given, files=files) as (process, address):
        if options.cores > 1:
            for task in os.listdir(f"/proc/{process.pid}/task"):
                os.sched_setaffinity(int(task), set(range(os.cpu_count() or 1)))
        yield process, address, upstream


def measured(place, options, kind):
    with started(place, options, kind) as (process, address, upstream):
        path, _ = place.names(1000)
        place.warm(address, path)
        source = f"unique={ZONE}"
        if kind in ("stale", "verify"):
            source = place.queries("expiring", [f"n{number}.{ZONE}" for number in range(options.queries)])
            place.warm(address, source)
            upstream.silence()
        time.sleep(min(2, options.settle))
        row = {"kind": kind, "idle_mib": process.rss() / 2**20, "idle_fds": descriptors(process),
               "idle_anonymous_mib": process.anonymous() / 2**20}
        watch = Watch(process)
        watch.start()
        # The load's own core is busier in a storm.
        hits = hits_beside(address, path, options)
        elsewhere(kind, source, options)
        row["control"] = hits_met(hits)
        hits = hits_beside(address, path, options)
        row.update(asked(address, kind, source, options))
        row["stormy"] = hits_met(hits)
        time.sleep(options.settle)
        row["after_mib"], row["after_fds"] = process.rss() / 2**20, descriptors(process)
        row["after_anonymous_mib"] = process.anonymous() / 2**20
        watch.end()
        row["peak_mib"], row["peak_fds"] = watch.rss / 2**20, watch.fds - (CLIENTS if kind == "clients" else 0)
        if kind == "one":
            row["asked"] = upstream.asked
        return row


def medians(rows):
    """One row of all of a kind: each number is the median of theirs."""
    first = rows[0]
    if isinstance(first, dict):
        return {key: medians([row[key] for row in rows]) for key in first}
    return statistics.median(rows) if isinstance(first, (int, float)) else first


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--server", metavar="NAME=COMMAND")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--hits", type=int, default=5_000, help="hits a second")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--settle", type=float, default=10, help="seconds after the last answer until memory is looked at")
    options = parser.parse_args()
    options.name, options.given = options.server.split("=", 1) if options.server else ("nodens", None)
    options.nodens = None if options.given else lab.nodens_binary(options.nodens)
    kinds = options.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        lab.fail(f"unknown kind {unknown[0]}; known: {', '.join(KINDS)}")
    lab.load_generator()
    # Beside the load: on the server's core they would be in its way.
    os.sched_setaffinity(0, {lab.LOAD_CORE})
    with lab.Lab() as place:
        with inside(place.group):
            runs = [measured(place, options, kind) for _ in range(options.repetitions) for kind in kinds]
    rows = [medians([row for row in runs if row["kind"] == kind]) for kind in dict.fromkeys(kinds)]
    lab.say(f"{options.name}: {options.queries} names in {options.seconds:g} s, beside {options.hits} hits/s:\n")
    lab.table(["kind", "RSS before, MiB", "most", "grown", f"{options.settle:g} s after", "anonymous before/after", "fds before/most/after", "answered",
               "without records", "slowest s", "hits p50/p99 µs beside a storm elsewhere", "in the storm"],
              [[row["kind"], f"{row['idle_mib']:.1f}", f"{row['peak_mib']:.1f}",
                f"{row['peak_mib'] - row['idle_mib']:+.1f}", f"{row['after_mib']:.1f}",
                f"{row['idle_anonymous_mib']:.2f}/{row['after_anonymous_mib']:.2f}",
                f"{row['idle_fds']:.0f}/{row['peak_fds']:.0f}/{row['after_fds']:.0f}",
                f"{row['answers']:.0f} of {row['sent']:.0f}", f"{row['without']:.0f}", f"{row['slowest_s']:.2f}",
                f"{row['control']['p50_us']:.0f}/{row['control']['p99_us']:.0f}",
                f"{row['stormy']['p50_us']:.0f}/{row['stormy']['p99_us']:.0f}"] for row in rows])
    for row in rows:
        if "asked" in row:
            lab.say(f"\nQuestions upstream for one name of {ASKERS} clients: {row['asked']:.0f}")
    lab.keep(options.json, "storm", runs)


if __name__ == "__main__":
    main()
