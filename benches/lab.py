"""What the measuring scripts of this folder share: an upstream (Knot DNS), the servers and their
start commands, cgroups with limits, CPU time and memory of a process, a load at a given rate.

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

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
# Those that this process may use: a container may have others than the first.
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[min(1, len(CORES) - 1)]
UPSTREAM = ("127.0.0.1", 5391)
ZONE = "svc.cluster.local"
UNIQUE = "unique.example.test"

# The block beside the one that is under load: {port} and {up} as below.
BESIDE = """.:{port} {{
    errors
    cache 3600
    bind 127.0.0.1
    forward . 127.0.0.1:{up} {{
        force_tcp
    }}
    prometheus 127.0.0.1:9395
}}
"""

# Each: port, the command, the files that it reads. {dir} is a fresh directory, {port} the port,
# {up} the upstream's port, {entries} how many names the cache must hold.
COREFILE = """.:{port} {{
    errors
    cache {{
        success {entries} 3600
        denial {entries} 3600
    }}
    bind 127.0.0.1
    forward . 127.0.0.1:{up} {{
        force_tcp
    }}
    prometheus 127.0.0.1:9395
}}
"""
UNBOUND = """server:
    interface: 127.0.0.1@{port}
    do-ip6: no
    num-threads: 1
    use-syslog: no
    logfile: ""
    username: ""
    chroot: ""
    directory: "{dir}"
    pidfile: ""
    do-not-query-localhost: no
    module-config: "iterator"
    msg-cache-size: {half}
    rrset-cache-size: {full}
    msg-cache-slabs: 1
    rrset-cache-slabs: 1
    infra-cache-slabs: 1
    key-cache-slabs: 1
    num-queries-per-thread: 4096
    outgoing-range: 8192
    outgoing-num-tcp: 64
    max-reuse-tcp-queries: 100000
    tcp-reuse-timeout: 60000
    minimal-responses: yes
    qname-minimisation: no
    unblock-lan-zones: yes
    insecure-lan-zones: yes
    local-zone: "test." nodefault
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{up}
    forward-tcp-upstream: yes
"""
HICKORY = """listen_addrs_ipv4 = ["127.0.0.1"]
listen_addrs_ipv6 = []
listen_port = {port}
user = "root"
group = "root"
[[zones]]
zone = "."
zone_type = "External"
[zones.stores]
type = "forward"
[[zones.stores.name_servers]]
ip = "127.0.0.1"
trust_negative_responses = true
connections = [{{ protocol = {{ type = "tcp" }}, port = {up} }}]
[zones.stores.options]
cache_size = {entries}
edns0 = false
"""
SERVERS = {
    "nodens": (
        5392,
        "{nodens} -localip 127.0.0.1 -setupinterface=false -setupiptables=false -basecorefile {dir}/base"
        " -conf {dir}/Corefile -metrics-listen-address 127.0.0.1:9396",
        {"base": COREFILE},
    ),
    "unbound": (5393, "unbound -d -p -c {dir}/unbound.conf", {"unbound.conf": UNBOUND}),
    "dnsmasq": (
        5394,
        "dnsmasq --keep-in-foreground --no-hosts --no-resolv --no-poll --conf-file=/dev/null --user=root --pid-file="
        " --listen-address=127.0.0.1 --bind-interfaces --port={port} --server=127.0.0.1#{up}"
        " --cache-size={entries} --dns-forward-max=10000 --log-facility=-",
        {},
    ),
    "hickory-dns": (5395, "{hickory} -q --workers 1 -c {dir}/named.toml", {"named.toml": HICKORY}),
}


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


# ------------------------------------------------------------------------------------- cgroups

def mounts(kind):
    with open("/proc/self/mounts") as file:
        rows = [line.split()[1:4] for line in file]
    return [(place, options.split(",")) for place, fs, options in rows if fs == kind]


def own_group(controller):
    """The path of this process below a hierarchy; the unified one where `controller` is empty."""
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, names, path = line.strip().split(":", 2)
            if controller in names.split(","):
                return path.lstrip("/")
    return ""


class Group:
    """A cgroup of our own, below the one we are in; version 2 where it has the controllers, else 1.

    `cpu`: cores (0.1 is 100m), None for no limit. `memory`: bytes. `weight`: 1 is as everybody else;
    more keeps other work on the machine from a share of the measured one.
    """

    PERIOD_US = 100_000  # Kubernetes' own

    def __init__(self, name, cpu=None, memory=None, weight=1):
        self.places, self.unified = {}, False
        name = f"nodens-bench-{name}-{os.getpid()}"
        for place, _ in mounts("cgroup2"):
            with contextlib.suppress(OSError), open(os.path.join(place, "cgroup.controllers")) as file:
                if {"cpu", "memory"} <= set(file.read().split()):
                    # Processes stand in leaves only: below the root, beside our own.
                    path = os.path.join(place, name)
                    with open(os.path.join(place, "cgroup.subtree_control"), "w") as control:
                        control.write("+cpu +memory")
                    os.mkdir(path)
                    self.places = {"cpu": path, "memory": path}
                    self.unified = True
        if not self.unified:
            for controller in ("cpu", "memory"):
                for place, options in mounts("cgroup"):
                    if controller in options:
                        path = os.path.join(place, own_group(controller), name)
                        with contextlib.suppress(OSError):
                            os.mkdir(path)
                            self.places[controller] = path
        if set(self.places) != {"cpu", "memory"}:
            self.close()
            fail("no cgroups with cpu and memory can be made here (needs root)")
        if memory:
            self.write("memory", "memory.max" if self.unified else "memory.limit_in_bytes", memory)
        if weight != 1:
            if self.unified:
                self.write("cpu", "cpu.weight", min(100 * weight, 10_000))
            else:
                self.write("cpu", "cpu.shares", 1024 * weight)
        self.limit(cpu)

    def write(self, controller, file, value):
        with open(os.path.join(self.places[controller], file), "w") as out:
            out.write(str(value))

    def read(self, controller, file):
        with open(os.path.join(self.places[controller], file)) as text:
            return text.read()

    def limit(self, cpu):
        """Sets the CPU limit in cores, or takes it away with None."""
        quota = int(cpu * self.PERIOD_US) if cpu else None
        if self.unified:
            self.write("cpu", "cpu.max", f"{quota or 'max'} {self.PERIOD_US}")
        else:
            self.write("cpu", "cpu.cfs_period_us", self.PERIOD_US)
            self.write("cpu", "cpu.cfs_quota_us", quota or -1)

    def throttled(self):
        """Periods in which the group had to wait."""
        rows = dict(line.split() for line in self.read("cpu", "cpu.stat").splitlines())
        return int(rows["nr_throttled"])

    def peak(self):
        """The most memory that the group ever had, in bytes, page cache included; 0 if unknown."""
        with contextlib.suppress(OSError):
            return int(self.read("memory", "memory.peak" if self.unified else "memory.max_usage_in_bytes"))
        return 0

    def enter(self):
        """Moves this process in; for a child before it becomes the server."""
        self.move(self.places.values())

    def leave(self):
        """Moves this process to the group above."""
        self.move(map(os.path.dirname, self.places.values()))

    @staticmethod
    def move(places):
        for path in set(places):
            with open(os.path.join(path, "cgroup.procs"), "w") as file:
                file.write(str(os.getpid()))

    def close(self):
        """Removes the group once its processes have ended."""
        for path in set(self.places.values()):
            for _ in range(100):
                try:
                    os.rmdir(path)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)


# ------------------------------------------------------------------------------------- processes

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
