"""What the measuring scripts of this folder share: an upstream (Knot DNS), servers that are started,
CPU time and memory of a process, a load at a given rate.

All on 127.0.0.0/8. The server runs on one core; load and upstream on another, where there is one. Only processes that were
started here are ended, by their pid. Python's standard library alone.
"""
import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

from cgroup import Group
from servers import COREFILE, SERVERS

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
# Those that this process may use: a container may have others than the first.
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[min(1, len(CORES) - 1)]
UPSTREAM = ("127.0.0.1", 5391)
ZONE = "svc.cluster.local"
UNIQUE = "unique.example.test"

def say(text=""):
    print(text, flush=True)


def fail(text):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {text}")


def need(*tools):
    """Ends with a line that names what is missing."""
    for tool, package in tools:
        if not shutil.which(tool):
            fail(f"{tool} is missing (Debian: {package})")


def arguments(words: str) -> argparse.ArgumentParser:
    """A parser with what every script takes: the binary, and where its results go."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodens", help="the binary; target/release/nodens unless given")
    parser.add_argument("--json", help="writes the results there")
    return parser


def nodens_binary(given=None):
    path = given or os.path.join(TARGET, "release", "nodens")
    if not os.path.exists(path):
        fail(f"{path} is missing: cargo build --release, or --nodens PATH")
    return path


def load_generator():
    """The program of benches/load.rs, made when it is older than its source."""
    source, program = os.path.join(HERE, "load.rs"), os.path.join(TARGET, "load")
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        os.makedirs(TARGET, exist_ok=True)
        made = f"{program}.{os.getpid()}"
        subprocess.run(["rustc", "--edition", "2024", "-O", "-o", made, source], check=True)
        os.rename(made, program)
    return program


def query(name, qtype=1, qid=0x1234):
    """A query in wire form."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return struct.pack(">HHHHHH", qid, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", qtype, 1)


def zipf(names, draws, seed=1):
    """`draws` of `names`, the k-th with probability in proportion to 1/k."""
    weights = [1 / (k + 1) for k in range(len(names))]
    return random.Random(seed).choices(names, weights, k=draws)


class Process:
    """A process of our own, in its own session, ended with its children."""

    def __init__(self, command, directory, core, group=None, log="log"):
        self.log = os.path.join(directory, log)
        told, teller = os.pipe()

        def enter():
            os.sched_setaffinity(0, {core})
            if group:
                group.enter()
            # Changing the group takes tens of milliseconds, which are not the server's.
            os.write(teller, struct.pack("d", time.monotonic()))

        with open(self.log, "wb") as log_file:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file,
                                          cwd=directory, start_new_session=True, preexec_fn=enter)
        self.pid = self.child.pid
        # When the child became the server.
        (self.started,) = struct.unpack("d", os.read(told, 8))
        os.close(told)
        os.close(teller)

    def said(self):
        with open(self.log, errors="replace") as file:
            return file.read()[-1500:]

    def stop(self):
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(patience)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def cpu_ns(self):
        """CPU time of all threads of the process."""
        total = 0
        with contextlib.suppress(FileNotFoundError):
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{self.pid}/task/{task}/schedstat") as file:
                    total += int(file.read().split()[0])
        return total

    def rss(self):
        """Resident bytes."""
        with open(f"/proc/{self.pid}/status") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def anonymous(self):
        """Resident bytes that are no file's, counted page by page: text of the program that was needed for the
        first time is not among them, and what the kernel has yet to add up (`VmRSS` may be behind) is."""
        with open(f"/proc/{self.pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Anonymous:"):
                    return int(line.split()[1]) * 1024
        fail("the kernel told no anonymous memory in smaps_rollup")

    def first_answer(self, address, name, patience=60.0):
        """Seconds from the start until the server answers `name` with records."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(address)
            client.settimeout(0.002)
            while time.monotonic() - self.started < patience:
                if self.child.poll() is not None:
                    fail(f"the server ended with {self.child.returncode}: {self.said()}")
                try:
                    client.send(query(name))
                    answer = client.recv(4096)
                    if len(answer) > 12 and answer[3] & 15 == 0 and answer[6:8] != b"\0\0":
                        return time.monotonic() - self.started
                except ConnectionRefusedError:
                    time.sleep(0.0002)
                except TimeoutError:
                    pass
        fail(f"no answer from {address} within {patience} s: {self.said()}")


class Lab:
    """A directory, the upstream and a group of weight for load and upstream; a context manager."""

    def __init__(self, weighted=True):
        need(("knotd", "knot"), ("dnsperf", "dnsperf"), ("taskset", "util-linux"))
        self.dir = tempfile.mkdtemp(prefix="nodens-bench-")
        self.weighted = weighted
        self.open = contextlib.ExitStack()

    def __enter__(self):
        # A plain kill must still stop what was started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.open.callback(shutil.rmtree, self.dir, ignore_errors=True)
            self.group = Group("load", weight=64) if self.weighted and os.geteuid() == 0 else None
            if self.group:
                self.open.callback(self.group.close)
            self.upstream = self.knot()
            self.open.callback(self.upstream.stop)
        except BaseException:
            self.open.close()
            raise
        return self

    def __exit__(self, *_):
        self.open.close()

    def knot(self):
        directory = os.path.join(self.dir, "knot")
        os.mkdir(directory)
        zones = {ZONE.split(".", 1)[1]: "*.svc", UNIQUE.split(".", 1)[1]: "*.unique"}
        text = (f"server:\n    rundir: {directory}\n    listen: {UPSTREAM[0]}@{UPSTREAM[1]}\n    udp-workers: 1\n"
                f"    tcp-workers: 1\n    background-workers: 1\ndatabase:\n    storage: {directory}\nzone:\n")
        for zone, wild in zones.items():
            with open(os.path.join(directory, zone), "w") as file:
                file.write(f"$ORIGIN {zone}.\n@ 3600 SOA ns. hostmaster. 1 3600 600 86400 30\n@ 3600 NS ns.\n"
                           f"{wild} 3600 A 10.96.0.1\n{wild} 3600 AAAA fd00::1\n")
            text += f"  - domain: {zone}\n    file: {directory}/{zone}\n    zonefile-load: whole\n    journal-content: none\n"
        conf = os.path.join(directory, "knot.conf")
        with open(conf, "w") as file:
            file.write(text)
        knot = Process(["knotd", "-c", conf], directory, LOAD_CORE, self.group)
        try:
            knot.first_answer(UPSTREAM, f"probe.{ZONE}")
            # Knot pins its threads itself: back to the core of the load.
            for task in os.listdir(f"/proc/{knot.pid}/task"):
                os.sched_setaffinity(int(task), {LOAD_CORE})
        except BaseException:
            knot.stop()
            raise
        return knot

    @contextlib.contextmanager
    def server(self, name, entries=32768, group=None, given=None, nodens=None, files=None):
        """A running server: (process, address). `given` is a start command in place of the known one."""
        port, command, known = SERVERS.get(name, (5396, None, {"Corefile": COREFILE, "base": COREFILE}))
        directory = tempfile.mkdtemp(prefix=f"{name}-", dir=self.dir)
        os.chmod(directory, 0o755)
        words = {"dir": directory, "port": port, "up": UPSTREAM[1], "entries": entries, "half": entries * 512,
                 "full": entries * 640, "nodens": nodens or "", "hickory": shutil.which("hickory-dns") or "hickory-dns"}
        for file, text in (files or known).items():
            with open(os.path.join(directory, file), "w") as out:
                out.write(text.format(**words))
        process = Process((given or command).format(**words).split(), directory, SERVER_CORE, group)
        try:
            process.ready = process.first_answer(("127.0.0.1", port), f"probe.{ZONE}")
            yield process, ("127.0.0.1", port)
        finally:
            process.stop()

    def run_load(self, command, patience=120):
        """Runs a load generator to its end on the core of the load; what it printed."""
        def enter():
            os.sched_setaffinity(0, {LOAD_CORE})
            if self.group:
                self.group.enter()

        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience,
                              preexec_fn=enter)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr.strip()[:300]}")
        return done.stdout

    def names(self, count):
        """Names below the wildcard of the upstream, as a file of A queries; its path and the names."""
        names = [f"s{k}.ns-{k % 97}.{ZONE}" for k in range(count)]
        return self.queries(f"names-{count}", names), names

    def queries(self, label, names):
        path = os.path.join(self.dir, label)
        with open(path, "w") as file:
            file.writelines(f"{name} A\n" for name in names)
        return path

    def warm(self, address, path, window=64):
        """Asks every line of a file; twice, for what was lost."""
        for _ in range(2):
            self.run_load(["dnsperf", "-s", address[0], "-p", str(address[1]), "-d", path, "-n", "1", "-c", "4",
                           "-q", str(window), "-t", "1"], 600)

    def rate(self, address, streams, seconds):
        """Queries at a rate: `streams` of (label, queries a second, source of benches/load.rs)."""
        command = [load_generator(), "--server", f"{address[0]}:{address[1]}", "--seconds", str(seconds)]
        for label, rate, source in streams:
            command += ["--stream", f"{label}:{rate:.3f}:{source}"]
        # Beside the server and not in its group: how fast its core has memory, whatever the server does.
        walk = subprocess.Popen([load_generator(), "--walk", str(seconds)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                text=True, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}))
        try:
            walk.stdout.readline()
            result = json.loads(self.run_load(command, seconds + 60))
            result["walk_us"] = float(walk.communicate(timeout=60)[0])
        finally:
            walk.kill()
            walk.wait()
        return result


def known_server(name, given):
    """Whether the server can be started here; says so when not."""
    if name in given or name == "nodens":
        return True
    command = SERVERS[name][1].split()[0].replace("{hickory}", "hickory-dns")
    if shutil.which(command):
        return True
    say(f"{name}: not installed, left out")
    return False


def keep(path, kind, rows, **more):
    """Writes results to a file, where one was asked for."""
    if path:
        with open(path, "w") as file:
            json.dump({"kind": kind, **more, "rows": rows}, file, indent=1)
            file.write("\n")


def table(head, rows):
    """A Markdown table."""
    say("| " + " | ".join(head) + " |")
    say("|" + "---|" * len(head))
    for row in rows:
        say("| " + " | ".join(str(cell) for cell in row) + " |")
