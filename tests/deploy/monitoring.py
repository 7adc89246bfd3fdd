#!/usr/bin/env python3
"""Shows that dashboards and alerts have something to show: nodens under a known load, scraped by
Prometheus, asked every query of our dashboard and rules and of those that others use.

Usage: monitoring.py NODENS    needs knotd, dig and prometheus with promtool; all on 127.0.0.1."""

import contextlib
import json
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request

import yaml

from waiting import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
NODENS = str(pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ROOT / "target/debug/nodens").resolve())
LOOPBACK = "127.0.0.1"


def free_ports(names: list[str]) -> dict[str, int]:
    """Ports that are free for UDP and TCP now, below those that the kernel gives to clients."""
    ports = {}
    for port in random.sample(range(10_000, 32_768), 2_000):
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram, contextlib.suppress(OSError):
            stream.bind((LOOPBACK, port))
            datagram.bind((LOOPBACK, port))
            ports[names[len(ports)]] = port
        if len(ports) == len(names):
            return ports
    raise AssertionError("no free ports")


class Watched:
    """nodens with its upstream, a Prometheus that scrapes it, and the load between them."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.started: list[subprocess.Popen] = []
        names = ["dns", "metrics", "setup", "health", "knot", "dead", "prometheus"]
        self.port = free_ports(names)
        self.start_knot()
        self.start_nodens()
        self.start_prometheus()

    def start(self, log: str, *command: str) -> subprocess.Popen:
        with open(self.folder / log, "wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, cwd=self.folder)
        self.started.append(process)
        return process

    def start_knot(self):
        records = "".join(f"n{i} A 192.0.2.{i % 250}\n" for i in range(4000))
        (self.folder / "zone").write_text(
            "$ORIGIN example.test.\n$TTL 2\n@ SOA ns hostmaster 1 60 60 60 2\n@ NS ns\nns A 192.0.2.1\n" + records
        )
        (self.folder / "knot.conf").write_text(
            f"server:\n  rundir: {self.folder}\n  listen: {LOOPBACK}@{self.port['knot']}\n"
            f"  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n"
            f"database:\n  storage: {self.folder}/db\n"
            f"zone:\n  - domain: example.test\n    file: {self.folder}/zone\n"
            # It has no file: SERVFAIL.
            f"  - domain: broken.test\n"
        )
        self.knot = self.start("knot.log", "knotd", "-c", str(self.folder / "knot.conf"))
        wait_for("Knot", lambda: "NOERROR" in self.dig("ns.example.test", port="knot"))

    def corefile(self) -> str:
        port = self.port
        (self.folder / "hosts").write_text("192.0.2.99 printer.example.test\n")
        return f"""example.test:{port['dns']} {{
    bind {LOOPBACK}
    errors
    log
    reload 2s 0s
    cache {{
        success 512 5
        denial 512 2
        prefetch 1 1s 90%
        serve_stale 1h immediate
    }}
    hosts {self.folder}/hosts {{
        fallthrough
    }}
    forward . {LOOPBACK}:{port['knot']} {{
        max_concurrent 2
        force_tcp
    }}
    prometheus {LOOPBACK}:{port['metrics']}
    health {LOOPBACK}:{port['health']}
}}
broken.test:{port['dns']} {{
    bind {LOOPBACK}
    errors
    forward . {LOOPBACK}:{port['knot']}
    prometheus {LOOPBACK}:{port['metrics']}
}}
.:{port['dns']} {{
    bind {LOOPBACK}
    errors
    cache 30
    forward . {LOOPBACK}:{port['dead']} {{
        max_fails 1
        health_check 100ms
    }}
    prometheus {LOOPBACK}:{port['metrics']}
}}
"""

    def start_nodens(self):
        (self.folder / "Corefile").write_text(self.corefile())
        self.start(
            "nodens.log",
            NODENS,
            f"-localip={LOOPBACK}",
            f"-conf={self.folder}/Corefile",
            f"-basecorefile={self.folder}/Corefile",
            f"-metrics-listen-address={LOOPBACK}:{self.port['setup']}",
            "-setupinterface=false",
            "-setupiptables=false",
        )
        wait_for("nodens", lambda: "NOERROR" in self.dig("ns.example.test"))

    def start_prometheus(self):
        (self.folder / "prometheus.yml").write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(MONITORING / name) for name in ["rules.yaml", "old-names.yaml"]],
                    "scrape_configs": [
                        {
                            "job_name": "nodens",
                            "static_configs": [{"targets": [f"{LOOPBACK}:{self.port['metrics']}"]}],
                        }
                    ],
                }
            )
        )
        self.start(
            "prometheus.log",
            "prometheus",
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/tsdb",
            f"--web.listen-address={LOOPBACK}:{self.port['prometheus']}",
        )
        wait_for("Prometheus", lambda: self.ask("up == 1"))

    def dig(self, *words: str, port: str = "dns") -> str:
        run = subprocess.run(
            ["dig", f"@{LOOPBACK}", "-p", str(self.port[port]), "+time=1", "+tries=1", *words],
            capture_output=True,
            text=True,
            timeout=300,
        )
        return run.stdout

    def dig_many(self, names: list[str], *words: str):
        batch = self.folder / f"batch{threading.get_ident()}"
        batch.write_text("".join(f"{name}\n" for name in names))
        self.dig(*words, "-f", str(batch))

    def ask(self, query: str) -> list:
        url = f"http://{LOOPBACK}:{self.port['prometheus']}/api/v1/query?"
        with urllib.request.urlopen(url + urllib.parse.urlencode({"query": query}), timeout=60) as reply:
            return json.load(reply)["data"]["result"]

    def load(self):
        """Each kind of event that a metric counts, twice with a scrape between, for rates."""
        self.dig("printer.example.test")
        for round_ in range(2):
            names = [f"n{i}.example.test" for i in range(round_ * 900, round_ * 900 + 900)]
            # More than the store holds, then more at a time than max_concurrent lets through.
            for clients, asked in [(2, names[:700]), (9, names[700:])]:
                parts = [asked[i::clients] for i in range(clients)]
                threads = [threading.Thread(target=self.dig_many, args=(part,)) for part in parts]
                for one in threads:
                    one.start()
                for one in threads:
                    one.join()
            self.dig_many(["n1.example.test"] * 40, "+tcp")
            self.dig_many(["missing.example.test", "n2.example.test"] * 5, "+dnssec")
            self.dig("n3.example.test", "TXT")
            self.dig("n3.example.test", "AAAA")
            # Asked again when little of its TTL is left: renewed in good time.
            for _ in range(8):
                self.dig("n4.example.test")
                time.sleep(0.25)
            self.dig("of.the.dead.upstream")
            self.dig("name.broken.test")
            time.sleep(1.1)
            # No answer renews what expired: it is served as it is.
            self.knot.send_signal(signal.SIGSTOP)
            time.sleep(2.2)
            self.dig("n4.example.test")
            self.knot.send_signal(signal.SIGCONT)
            with open(self.folder / "Corefile", "a") as corefile:
                corefile.write("wrong {\n    kache\n}\n")
            time.sleep(3)
            (self.folder / "Corefile").write_text(self.corefile())
            time.sleep(2.5)

    def stop(self):
        for process in reversed(self.started):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def without_thresholds(expression: str) -> str:
    """An alert's expression without the comparison that ends it: what it watches."""
    return re.sub(r"\s*[<>=!]=?\s*[0-9.]+\s*$", "", expression.strip())


class Monitoring(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="nodens-monitoring-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.watched = Watched(pathlib.Path(cls.folder.name))
        cls.addClassCleanup(cls.watched.stop)
        cls.watched.load()

    # What a busy machine does not bring about at once (many queries at a time, an expiry that nobody
    # renews) is tried again.
    loads = 4

    def shows(self, query: str):
        with self.subTest(query=query):
            while not self.watched.ask(query) and Monitoring.loads > 0:
                Monitoring.loads -= 1
                self.watched.load()
            self.assertNotEqual(self.watched.ask(query), [], "no series")

    def test_every_query_of_the_dashboard_returns_series(self):
        board = json.loads((MONITORING / "dashboard.json").read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                self.shows(target["expr"].replace("$job", ".*").replace("$instance", ".*"))

    def test_every_rule_watches_something_that_is_there(self):
        for group in yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]:
            for rule in group["rules"]:
                self.shows(without_thresholds(rule["expr"]))

    def test_every_old_name_has_series(self):
        for group in yaml.safe_load((MONITORING / "old-names.yaml").read_text())["groups"]:
            for rule in group["rules"]:
                self.shows(rule["record"])

    def test_every_query_that_others_use_returns_series(self):
        lines = (pathlib.Path(__file__).parent / "queries.txt").read_text().splitlines()
        for line in lines:
            if line and not line.startswith("#"):
                self.shows(line)

    def test_the_text_of_the_metrics_is_what_promtool_accepts(self):
        url = f"http://{LOOPBACK}:{self.watched.port['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=60) as reply:
            text = reply.read()
        run = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
        told = run.stdout.decode() + run.stderr.decode()
        # promtool also has opinions on names, and CoreDNS's stay as they are.
        self.assertNotRegex(told, r"error while linting|text format parsing error", told)


class Files(unittest.TestCase):
    def test_the_dashboard_is_what_its_script_writes(self):
        run = subprocess.run([sys.executable, MONITORING / "make_dashboard.py"], capture_output=True, text=True)
        self.assertEqual(run.stdout, (MONITORING / "dashboard.json").read_text())

    def test_every_alert_is_explained(self):
        groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
        alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
        explained = re.findall(r"^### ((?:Nodens|High)\w+)$", (ROOT / "docs/operating.md").read_text(), re.M)
        self.assertEqual(explained, alerts)

    def test_every_alert_is_tested(self):
        groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
        tests = yaml.safe_load((MONITORING / "rules_test.yaml").read_text())["tests"]
        fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
        self.assertEqual(fired, {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule})

    def test_the_rules_and_their_tests_pass(self):
        for words in [["check", "rules", "rules.yaml", "old-names.yaml"], ["test", "rules", "rules_test.yaml"]]:
            run = subprocess.run(["promtool", *words], cwd=MONITORING, capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)


if __name__ == "__main__":
    unittest.main()
