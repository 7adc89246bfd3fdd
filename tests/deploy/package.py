#!/usr/bin/env python3
"""The Debian package and its unit as a machine has them: made twice and the same, looked at by
lintian and systemd-analyze, and installed on a machine of the test's own (machine.sh) with systemd as
its first process: it starts, is asked, reloaded, hangs, is upgraded, stopped, removed and purged.

Usage: package.py NODENS    NODENS is a program with shared libraries. Needs root, cargo-deb, dpkg-dev,
lintian, systemd, knotd and dig."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from waiting import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy/systemd/nodens.service"
NODENS = str(pathlib.Path(sys.argv.pop(1)).resolve()) if len(sys.argv) > 1 else ""
ADDRESS, UPSTREAM = "127.0.0.55", "192.0.2.53"


def run(*words: str, fails: str = "", **more) -> str:
    """What a command prints; it must succeed unless its output is expected to hold `fails`."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, **more)
    told = done.stdout + done.stderr
    if fails:
        assert done.returncode != 0 and re.search(fails, told), f"{' '.join(words)}: {done.returncode}: {told}"
    else:
        assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}: {told}"
    return told


class Machine:
    """A machine of the test's own, with an upstream at 192.0.2.53."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.after: list = []
        (folder / "machine").mkdir()
        self.log = folder / "machine.log"
        with open(self.log, "wb") as log:
            words = ["unshare", "--mount", str(ROOT / "tests/deploy/machine.sh"), str(folder / "machine")]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        self.after.append(self.kill)
        try:
            self.first = wait_for("systemd", self.find_first)
            wait_for("the machine", lambda: "running" in self.tries("systemctl", "is-system-running"))
            self.knot()
        except BaseException:
            self.close()
            raise

    def find_first(self) -> int:
        """The number of the machine's first process, here."""
        assert self.process.poll() is None, self.log.read_text()
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
                is_first = fields["Name"] == "systemd" and fields["NSpid"].split()[-1] == "1"
                if is_first and self.session_of(int(fields["Pid"])):
                    return int(fields["Pid"])
        return 0

    def session_of(self, pid: int) -> bool:
        """Whether a process has ours among its ancestors."""
        while pid > 1:
            if pid == self.process.pid:
                return True
            pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return False

    def words(self, *words: str) -> list[str]:
        return ["nsenter", f"--target={self.first}", "--mount", "--pid", "--net", "--uts", "--ipc", "--", *words]

    def does(self, *words: str, fails: str = "") -> str:
        return run(*self.words(*words), fails=fails)

    def tries(self, *words: str) -> str:
        return subprocess.run(self.words(*words), capture_output=True, text=True, timeout=60).stdout

    def knot(self):
        folder = self.folder / "knot"
        folder.mkdir()
        zone = "$ORIGIN example.org.\n$TTL 1\n@ SOA ns hostmaster 1 60 60 60 1\n@ NS ns\nns A 192.0.2.1\n"
        (folder / "zone").write_text(zone)
        (folder / "knot.conf").write_text(
            f"server:\n  rundir: {folder}\n  listen: {UPSTREAM}@53\n  udp-workers: 1\n  tcp-workers: 1\n"
            f"database:\n  storage: {folder}/db\nzone:\n  - domain: example.org\n    file: {folder}/zone\n"
        )
        words = ["nsenter", f"--target={self.first}", "--net", "--", "knotd", "-c", f"{folder}/knot.conf"]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        self.after.append(process.wait)
        self.after.append(process.terminate)
        wait_for("Knot", lambda: self.dig("ns.example.org", UPSTREAM))

    def dig(self, name: str, server: str = ADDRESS, *more: str) -> str:
        told = self.tries("dig", f"@{server}", "+short", "+time=3", "+tries=1", *more, name)
        return "\n".join(line for line in told.splitlines() if not line.startswith(";"))

    def answers(self):
        wait_for("an answer", lambda: self.dig("ns.example.org") == "192.0.2.1")
        assert self.dig("ns.example.org", ADDRESS, "+tcp") == "192.0.2.1"

    def metrics(self) -> str:
        words = "import urllib.request as r; print(r.urlopen('http://127.0.0.55:9253/metrics').read().decode())"
        return self.does("python3", "-c", words)

    def file(self, path: str) -> pathlib.Path:
        return pathlib.Path(f"/proc/{self.first}/root{path}")

    def property_of(self, name: str) -> str:
        return self.does("systemctl", "show", "--property", name, "--value", "nodens").strip()

    def journal(self, *words: str) -> str:
        return self.does("journalctl", "--no-pager", "--output=cat", *words)

    def files(self) -> set[str]:
        """What there is below /etc, /usr and /var, but for what dpkg and systemd keep about all packages."""
        kept = r"/var/(lib/dpkg|log|cache/man|cache/private|lib/systemd|backups|tmp|cache/ldconfig)(/|$)|/etc/ld\.so\.cache"
        listed = self.does("find", "/etc", "/usr", "/var", "-xdev").splitlines()
        return {path for path in listed if not re.match(kept, path)}

    def kill(self):
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)
        wait_for("the end of its cgroups", self.remove_cgroups)

    def remove_cgroups(self) -> bool:
        """Takes the script's cgroups away, once the last process is gone; true when none is left."""
        left = []
        for mounted in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]:
            top = pathlib.Path(mounted, f"nodens-machine-{self.process.pid}")
            for group in sorted([top, *top.rglob("*/")], reverse=True) if top.exists() else []:
                with contextlib.suppress(OSError):
                    group.rmdir()
            left.append(top.exists())
        return not any(left)

    def close(self):
        for step in reversed(self.after):
            step()


# Asks without pause from many sockets, each of which waits 5 s for its answer; at each line it reads it
# writes how many it has asked since the last one and how many of them were lost.
STREAM = """
import selectors, socket, sys, time
CLIENTS, PAUSE, PATIENCE = 16, 0.005, 5
poll = selectors.DefaultSelector()
poll.register(sys.stdin, selectors.EVENT_READ, None)
clients = []
for _ in range(CLIENTS):
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((sys.argv[1], 53))
    client.setblocking(False)
    poll.register(client, selectors.EVENT_READ, set())
    clients.append(client)
name = b"".join(bytes([len(word)]) + word for word in [b"ns", b"example", b"org"]) + bytes(1)
answered, count, end = set(), 0, time.monotonic() + 300

def take(wait):
    told = False
    for key, _ in poll.select(wait):
        if key.fileobj is sys.stdin:
            told = sys.stdin.readline()
            if not told:
                sys.exit()
            continue
        try:
            reply = key.fileobj.recv(512)
        except OSError:
            continue
        if reply[3] & 15 == 0 and reply.endswith(bytes([192, 0, 2, 1])):
            answered.add((clients.index(key.fileobj), reply[:2]))
    return told

while time.monotonic() < end:
    client = count % CLIENTS
    head = (count // CLIENTS).to_bytes(2, "big")
    count += 1
    try:
        clients[client].send(head + bytes([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + name + bytes([0, 1, 0, 1]))
    except OSError:
        pass
    if take(PAUSE):
        until = time.monotonic() + PATIENCE
        while len(answered) < count and time.monotonic() < until:
            take(PAUSE)
        print(count, count - len(answered), flush=True)
        answered, count = set(), 0
"""


class Unit(unittest.TestCase):
    def test_its_exposure_is_at_most_three(self):
        told = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT))
        exposure = float(re.search(r"exposure level for nodens.service: ([0-9.]+)", told)[1])
        self.assertLessEqual(exposure, 3.0, told)


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="nodens-package-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for name in ["first", "second"]:
            run(str(ROOT / "deploy/debian/build.sh"), str(cls.folder / name), NODENS)
        (cls.package,) = (cls.folder / "first").iterdir()

    def machine(self) -> Machine:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="machine-", dir=self.folder))
        machine = Machine(folder)
        self.addCleanup(machine.close)
        shutil.copy(self.package, machine.file("/tmp/nodens.deb"))
        return machine

    def test_the_same_program_gives_the_same_package(self):
        (second,) = (self.folder / "second").iterdir()
        self.assertEqual(self.package.name, second.name)
        self.assertEqual(self.package.read_bytes(), second.read_bytes())

    def test_it_holds_what_debian_expects_where_it_expects_it(self):
        listed = run("dpkg-deb", "--contents", str(self.package))
        files = {line.split()[5].removeprefix(".") for line in listed.splitlines() if not line.startswith("d")}
        doc = "/usr/share/doc/nodens/"
        self.assertLessEqual(
            {
                "/usr/bin/nodens",
                "/usr/lib/systemd/system/nodens.service",
                "/etc/nodens/Corefile",
                *[f"/usr/share/man/man1/nodens{page}.1.gz" for page in ["", "-check", "-query"]],
                "/usr/share/bash-completion/completions/nodens",
                "/usr/share/zsh/vendor-completions/_nodens",
                "/usr/share/fish/vendor_completions.d/nodens.fish",
                *[doc + name for name in ["copyright", "changelog.Debian.gz", "changelog.gz", "README.Debian", "third-party.txt.gz"]],
                *[doc + f"docs/plugins/{page}.md" for page in ["cache", "forward"]],
            },
            {path.removesuffix(".gz") if path.endswith(".md.gz") else path for path in files},
        )
        conffiles = run("dpkg-deb", "--info", str(self.package), "conffiles")
        self.assertEqual(conffiles.split(), ["/etc/nodens/Corefile"])
        fields = run("dpkg-deb", "--field", str(self.package))
        self.assertRegex(fields, r"Depends: .*libc6 \(>= ")
        version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertIn(f"\nVersion: {version}-1\n", fields)
        self.assertIn(f"nodens ({version}-1) ", (ROOT / "deploy/debian/changelog").read_text())

    def test_lintian_finds_no_error(self):
        told = run("lintian", "--allow-root", "--fail-on", "error", str(self.package))
        self.assertNotIn("W: ", told)

    def test_installed_it_serves_until_it_is_purged_and_leaves_nothing(self):
        machine = self.machine()
        before = machine.files()
        machine.does("systemctl", "log-level", "debug")
        machine.does("dpkg", "--install", "/tmp/nodens.deb")
        self.assertEqual(machine.property_of("ActiveState"), "active")
        self.assertEqual(machine.property_of("UnitFileState"), "enabled")
        self.assertEqual(machine.does("systemd-analyze", "verify", "/usr/lib/systemd/system/nodens.service"), "")
        machine.answers()
        self.is_confined(machine)
        self.takes_an_edit_at_a_reload_and_keeps_serving_after_a_mistake(machine)
        self.is_ended_when_it_hangs(machine)
        self.loses_no_query_over_restarts_an_upgrade_and_crashes(machine)
        self.keeps_its_edits_and_its_cache_over_an_upgrade(machine)
        machine.does("systemctl", "stop", "nodens")
        # Its sockets go with it: who asks is told at once that nobody is there.
        self.assertEqual(machine.property_of("NFileDescriptorStore"), "0")
        self.assertIn("refused", machine.tries("dig", f"@{ADDRESS}", "+time=5", "+tries=1", "ns.example.org"))
        self.assertEqual((machine.property_of("Result"), machine.property_of("ExecMainStatus")), ("success", "0"))
        heard = machine.journal("_PID=1")
        for word in ["READY=1", "RELOADING=1", "STOPPING=1", "WATCHDOG=1"]:
            self.assertRegex(heard, rf"nodens.service: Got notification message from PID [0-9]+ \({word}")
        machine.does("systemctl", "start", "nodens")
        machine.answers()
        machine.does("dpkg", "--remove", "nodens")
        self.assertEqual(machine.dig("ns.example.org"), "")
        self.assertTrue(machine.file("/etc/nodens/Corefile").exists(), "only a purge removes what was edited")
        machine.does("dpkg", "--purge", "nodens")
        self.assertEqual(machine.files() - before, set())
        self.assertEqual(before - machine.files(), set())

    def is_confined(self, machine: Machine):
        status = pathlib.Path(f"/proc/{machine.property_of('MainPID')}/status")
        status = machine.does("cat", str(status))
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        self.assertNotEqual(fields["Uid"].split()[0], "0")
        self.assertEqual((fields["NoNewPrivs"], fields["Seccomp"]), ("1", "2"))
        net_bind_service = 1 << 10
        for kind in ["CapEff", "CapPrm", "CapBnd"]:
            self.assertEqual(int(fields[kind], 16) & ~net_bind_service, 0, kind)
        # Nothing was asked for that the unit's settings refuse, and there is nothing to warn of.
        # It is said while queries are answered already.
        reduced = r"Privileges reduced to NET_BIND_SERVICE and [0-9]+ system calls"
        wait_for("its privileges", lambda: re.search(reduced, machine.journal("--identifier=nodens")))
        said = machine.journal("--identifier=nodens")
        self.assertIn("[INFO] plugin/reload: Running configuration", said)
        self.assertNotRegex(said, r"\[(WARNING|ERROR|FATAL)\]|(?i:permi|denied)")

    def takes_an_edit_at_a_reload_and_keeps_serving_after_a_mistake(self, machine: Machine):
        corefile = machine.file("/etc/nodens/Corefile")
        text = corefile.read_text()
        more = 'added.test:53 {\n    bind 127.0.0.55\n    template ANY A {\n        answer "{{ .Name }} 60 IN A 192.0.2.77"\n    }\n}\n'
        corefile.write_text(text + more)
        machine.does("systemctl", "reload", "nodens")
        wait_for("the edit", lambda: machine.dig("new.added.test") == "192.0.2.77")
        corefile.write_text(text + more + "wrong {\n    kache\n}\n")
        machine.does("systemctl", "reload", "nodens", fails="failed")
        wait_for("the mistake", lambda: re.search(r"Corefile:[0-9]+.*kache", machine.journal("--identifier=nodens")))
        self.assertEqual(machine.dig("new.added.test"), "192.0.2.77")
        self.assertEqual(machine.property_of("ActiveState"), "active")
        corefile.write_text(text + more)
        machine.does("systemctl", "reload", "nodens")

    def is_ended_when_it_hangs(self, machine: Machine):
        drop_in = machine.file("/run/systemd/system/nodens.service.d")
        drop_in.mkdir(parents=True)
        (drop_in / "quick.conf").write_text("[Service]\nWatchdogSec=3s\nTimeoutAbortSec=1s\n")
        machine.does("systemctl", "daemon-reload")
        machine.does("systemctl", "restart", "nodens")
        machine.answers()
        first = machine.property_of("WatchdogTimestampMonotonic")
        wait_for("a sign of life", lambda: machine.property_of("WatchdogTimestampMonotonic") != first)
        hung = machine.property_of("MainPID")
        machine.does("kill", "-STOP", hung)
        wait_for("another process", lambda: machine.property_of("MainPID") not in [hung, "0"])
        wait_for("its start", lambda: machine.property_of("ActiveState") == "active")
        machine.answers()
        self.assertEqual(machine.property_of("NRestarts"), "1")

    def loses_no_query_over_restarts_an_upgrade_and_crashes(self, machine: Machine):
        machine.answers()
        self.assertGreaterEqual(int(machine.property_of("NFileDescriptorStore")), 4)
        (machine.file("/tmp/stream.py")).write_text(STREAM)
        words = machine.words("python3", "/tmp/stream.py", ADDRESS)
        stream = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(stream.kill)
        processes = {machine.property_of("MainPID")}

        def is_another() -> bool:
            process = machine.property_of("MainPID")
            is_new = process not in processes | {"0"} and machine.property_of("ActiveState") == "active"
            processes.update([process] if is_new else [])
            return is_new

        ends = [["systemctl", "restart", "nodens"]] * 3 + [["dpkg", "--install", "/tmp/nodens.deb"]]
        for words in ends:
            machine.does("systemctl", "reset-failed", "nodens")
            machine.does(*words)
            wait_for("another process", is_another)
        asked, lost = self.heard(stream, "restarts and an upgrade")
        self.assertEqual(lost, 0, asked)
        for _ in range(2):
            machine.does("systemctl", "reset-failed", "nodens")
            machine.does("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "nodens")
            wait_for("another process", is_another)
        asked, lost = self.heard(stream, "crashes")
        # Only what was read and not answered at that moment.
        self.assertLessEqual(lost, 2 * 16, asked)
        stream.communicate(timeout=120)

    def heard(self, stream: subprocess.Popen, what: str) -> tuple[int, int]:
        """How many queries were asked since it was heard last, and how many of them got no answer."""
        stream.stdin.write("tell\n")
        stream.stdin.flush()
        asked, lost = map(int, stream.stdout.readline().split())
        print(f"{what}: {lost} of {asked} queries lost")
        self.assertGreater(asked, 100)
        return asked, lost

    def test_a_socket_unit_gives_it_port_53_without_any_capability(self):
        machine = self.machine()
        machine.does("dpkg", "--install", "/tmp/nodens.deb")
        machine.does("systemctl", "stop", "nodens")
        page = (ROOT / "docs/install.md").read_text()
        unit, drop_in = re.findall(r"```text\n# (/etc/systemd/system/\S+)\n(.*?)```", page, re.S)
        for path, text in [unit, drop_in]:
            machine.file(path).parent.mkdir(exist_ok=True)
            machine.file(path).write_text(text)
        machine.does("systemctl", "daemon-reload")
        machine.does("systemctl", "start", "nodens.socket")
        self.assertEqual(machine.property_of("ActiveState"), "inactive")
        machine.answers()
        status = machine.does("cat", f"/proc/{machine.property_of('MainPID')}/status")
        self.assertRegex(status, r"(?m)^CapEff:\t0+$")
        first = machine.property_of("MainPID")
        machine.does("systemctl", "restart", "nodens")
        self.assertNotEqual(machine.property_of("MainPID"), first)
        machine.answers()
        self.assertNotRegex(machine.journal("--identifier=nodens"), r"\[(WARNING|ERROR|FATAL)\]")

    def keeps_its_edits_and_its_cache_over_an_upgrade(self, machine: Machine):
        process = machine.property_of("MainPID")
        machine.does("dpkg", "--install", "/tmp/nodens.deb")
        self.assertNotEqual(machine.property_of("MainPID"), process)
        machine.answers()
        self.assertEqual(machine.dig("new.added.test"), "192.0.2.77")
        self.assertRegex(machine.metrics(), r"(?m)^nodens_cache_snapshot_entries_loaded_total [1-9]")

    def test_where_policy_forbids_starts_it_is_installed_and_not_started(self):
        machine = self.machine()
        policy = machine.file("/usr/sbin/policy-rc.d")
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        machine.does("dpkg", "--install", "/tmp/nodens.deb")
        self.assertEqual(machine.property_of("ActiveState"), "inactive")
        self.assertEqual(machine.dig("ns.example.org"), "")


if __name__ == "__main__":
    unittest.main()
