#!/usr/bin/env python3
"""The image as a node runs it: made twice and the same, unpacked, and started by crun as the shipped
DaemonSets say (arguments, security context, volumes, host network), asked, reloaded and stopped.

Usage: image.py NODENS    NODENS is a static program (deploy/image/compile.sh). Needs root, umoci,
crun, the seccomp profile of containers-common, readelf, ip, knotd and dig."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

import kustomize
from pod import LOCAL, SERVICE, Node, Pod, run
from waiting import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
NODENS = str(pathlib.Path(sys.argv.pop(1)).resolve()) if len(sys.argv) > 1 else ""


def daemonset_of(objects: list[dict]) -> tuple[dict, dict, str]:
    """The DaemonSet's pod, its container, and the Corefile of its ConfigMap."""
    pod = next(one for one in objects if one["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    corefile = next(one for one in objects if one["kind"] == "ConfigMap")["data"]["Corefile"]
    return pod, pod["containers"][0], corefile


SCRAPE = f"import urllib.request as r; print(r.urlopen('http://{LOCAL}:9253/metrics').read().decode())"

ASKER = """
import socket, sys, itertools, threading
end = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), end.set()), daemon=True).start()
name = b"".join(bytes([len(word)]) + word for word in [b"ns", b"cluster", b"local"]) + bytes(1)
answered = lost = 0
for number, server in zip(itertools.count(1), itertools.cycle(sys.argv[1:])):
    if end.is_set():
        break
    with socket.socket(type=socket.SOCK_DGRAM) as asker:
        asker.settimeout(10)
        asker.connect((server, 53))
        query = (number % 65536).to_bytes(2, "big") + bytes.fromhex("01000001000000000000") + name + bytes.fromhex("00010001")
        try:
            asker.send(query)
            reply = asker.recv(512)
            good = reply[:2] == query[:2] and reply[3] & 15 == 0
        except OSError:
            good = False
    answered, lost = answered + good, lost + (not good)
print(answered, lost)
"""


class Asking:
    """Asks servers of a node, one query after the other, each from a port of its own."""

    def __init__(self, node: Node, servers: list[str]):
        words = ["ip", "netns", "exec", node.name, "python3", "-c", ASKER, *servers]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        told, _ = self.process.communicate("", timeout=60)
        self.answered, self.lost = (int(word) for word in told.split())


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="nodens-image-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.layouts = [cls.folder / "first", cls.folder / "second"]
        # The same octets, written at another time.
        later = cls.folder / "nodens"
        shutil.copyfile(NODENS, later)
        os.utime(later, (1, 1))
        for layout, program in zip(cls.layouts, [NODENS, str(later)]):
            run(str(DEPLOY / "image/build.sh"), str(layout), program)
        cls.tag = json.loads((cls.layouts[0] / "index.json").read_text())["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        run("umoci", "unpack", "--image", f"{cls.layouts[0]}:{cls.tag}", str(cls.folder / "unpacked"))

    def node(self, pod: dict, container: dict, corefile: str) -> Node:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="node-", dir=self.folder))
        node = Node(folder, pod, container, corefile)
        self.addCleanup(node.close)
        return node

    def test_the_same_program_gives_the_same_image(self):
        # The index names everything else by its hash.
        first, second = ((layout / "index.json").read_bytes() for layout in self.layouts)
        self.assertEqual(first, second)

    def test_the_program_needs_no_other_file(self):
        headers = run("readelf", "--program-headers", NODENS).stdout
        self.assertNotIn("INTERP", headers, "NODENS is not a static program")
        papers = {f"usr/share/doc/nodens/{name}" for name in ["LICENSE", "THIRD-PARTY-LICENSES.txt", "nodens.cdx.json"]}
        files = {str(one.relative_to(self.folder / "unpacked/rootfs")) for one in (self.folder / "unpacked/rootfs").rglob("*") if not one.is_dir()}
        self.assertEqual(files, {"nodens", "node-cache", "etc/ssl/certs/ca-certificates.crt", *papers})

    def test_the_image_says_what_it_is_and_names_its_user_by_number(self):
        config = next(
            blob
            for blob in (json.loads(one.read_bytes()) for one in (self.layouts[0] / "blobs/sha256").iterdir() if one.read_bytes()[:1] == b"{")
            if "rootfs" in blob
        )
        self.assertEqual(config["config"]["Entrypoint"], ["/node-cache"])
        self.assertRegex(config["config"]["User"], r"^\d+:\d+$")
        labels = config["config"]["Labels"]
        self.assertEqual(labels["org.opencontainers.image.version"], self.tag)
        dockerfile = (DEPLOY / "image/Dockerfile").read_text()
        for name, value in labels.items():
            self.assertIn(f'{name}="{value}"', dockerfile)
        for daemonset in ["drop-in.yaml", "node-local-dns.yaml"]:
            self.assertIn(f"/nodens:{self.tag}\n", (DEPLOY / "kubernetes" / daemonset).read_text())

    def test_the_shipped_daemonsets_run_are_asked_reloaded_and_stopped(self):
        shipped = {
            "drop-in": list(yaml.safe_load_all((DEPLOY / "kubernetes/drop-in.yaml").read_text())),
            "recommended": kustomize.build(DEPLOY / "kubernetes"),
            "both families": kustomize.build(DEPLOY / "kustomize/overlays/dual-stack"),
            "iptables": kustomize.build(DEPLOY / "kustomize/overlays/iptables"),
            "nftables": kustomize.build(DEPLOY / "kustomize/overlays/nftables"),
        }
        for name, objects in shipped.items():
            with self.subTest(daemonset=name):
                self.live(self.node(*daemonset_of(objects)))

    def is_confined(self, node: Node, pod: Pod):
        context, status = node.container["securityContext"], pod.status()
        if context.get("seccompProfile"):
            self.assertEqual(status["Seccomp"], "2")
        if context.get("allowPrivilegeEscalation") is False:
            self.assertEqual(status["NoNewPrivs"], "1")
        if "drop" in context["capabilities"]:
            numbers = {"NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "NET_RAW": 13}
            given = sum(1 << numbers[name] for name in context["capabilities"]["add"])
            self.assertEqual(int(status["CapBnd"], 16) & ~given, 0)

        wait_for("less", lambda: re.search(r"Privileges reduced to .*NET_ADMIN.* and [0-9]+ system calls", pod.log.read_text()))

    def live(self, node: Node):
        pod = node.start()
        for server in [LOCAL, SERVICE]:
            self.assertEqual(node.dig("ns.cluster.local", server), "192.0.2.1", pod.log.read_text())
            self.assertEqual(node.dig("ns.example.org", server), "192.0.2.1")
        self.is_confined(node, pod)
        by_iptables = "-firewall=iptables" in node.container["args"]
        wait_for("rules", lambda: node.rules() == ((True, False) if by_iptables else (False, True)))
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
            if probe in node.container:
                wait_for(probe, lambda: node.probe(probe))
        more = "added.test:53 {\n    bind 169.254.20.10\n    template ANY A {\n        answer \"{{ .Name }} 60 IN A 192.0.2.77\"\n    }\n}\n"
        node.put_corefile(node.corefile + more)
        wait_for("the edit", lambda: node.dig("new.added.test") == "192.0.2.77")
        self.assertEqual(pod.stop(), 0, pod.log.read_text())
        addresses = node.within("ip", "address")
        self.assertNotIn(f"{LOCAL}/32", addresses, pod.log.read_text())
        self.assertEqual(node.rules(), (False, False))

    def test_an_upgrade_of_the_recommended_daemonset_loses_no_query(self):
        node = self.node(*daemonset_of(kustomize.build(DEPLOY / "kubernetes")))
        first = node.start()
        with Asking(node, [LOCAL, SERVICE]) as asking:
            # maxSurge 1: the new pod is there, and ready, before the old one ends.
            second = node.start()
            wait_for("readiness", lambda: node.probe("readinessProbe"))
            self.assertEqual(first.stop(), 0, first.log.read_text())
            wait_for("more answers", lambda: node.dig("ns.cluster.local", SERVICE) == "192.0.2.1")
        handed = r'nodens_handover_total\{.*result="done".*\} 1'
        wait_for("a handover", lambda: re.search(handed, node.within("python3", "-c", SCRAPE)))
        self.assertEqual((asking.lost, asking.answered > 20), (0, True), second.log.read_text())
        self.assertEqual(node.rules(), (False, True))
        self.assertIn(f"{LOCAL}/32", node.within("ip", "address"))
        self.assertEqual(second.stop(), 0, second.log.read_text())
        self.assertEqual(node.rules(), (False, False))


if __name__ == "__main__":
    unittest.main()
