#!/usr/bin/env python3
"""The image as a node runs it: made twice and the same, unpacked, and started by crun as the shipped
DaemonSets say (arguments, security context, volumes, host network), asked, reloaded and stopped.

Usage: image.py NODENS    NODENS is a static program (deploy/image/compile.sh). Needs root, umoci,
crun, the seccomp profile of containers-common, readelf, ip, knotd and dig."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import yaml

import kustomize
from waiting import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
NODENS = str(pathlib.Path(sys.argv.pop(1)).resolve()) if len(sys.argv) > 1 else ""
LOCAL, SERVICE, UPSTREAM = "169.254.20.10", "10.96.0.10", "10.96.0.20"
# What Kubernetes gives a container before its securityContext adds and drops.
DEFAULT_CAPABILITIES = """CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD
    CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT""".split()

# What container runtimes allow unless told otherwise, as Debian has it.
SECCOMP = pathlib.Path("/usr/share/containers/seccomp.json")


def runtime_default(capabilities: list[str]) -> dict:
    """The system calls of `RuntimeDefault`, for a container with these capabilities on x86-64."""

    def holds(wanted: dict) -> bool:
        return set(wanted.get("caps") or []) <= set(capabilities) and "amd64" in (wanted.get("arches") or ["amd64"])

    profile = json.loads(SECCOMP.read_text())
    rules = []
    for rule in profile["syscalls"]:
        excluded = rule.get("excludes") or {}
        if holds(rule.get("includes") or {}) and not (excluded and holds(excluded)):
            taken = {key: rule[key] for key in ["names", "action", "args"] if rule.get(key)}
            if rule["action"] == "SCMP_ACT_ERRNO":
                taken["errnoRet"] = rule["errnoRet"]
            rules.append(taken)
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }


def run(*words: str, **more) -> subprocess.CompletedProcess:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done


def daemonset_of(objects: list[dict]) -> tuple[dict, dict, str]:
    """The DaemonSet's pod, its container, and the Corefile of its ConfigMap."""
    pod = next(one for one in objects if one["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    corefile = next(one for one in objects if one["kind"] == "ConfigMap")["data"]["Corefile"]
    return pod, pod["containers"][0], corefile


class Volume:
    """A ConfigMap as the kubelet mounts it: files behind `..data`, swapped at once."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.version = folder, 0
        folder.mkdir(parents=True)

    def write(self, files: dict[str, str]):
        self.version += 1
        data = self.folder / f"..{self.version}"
        data.mkdir()
        for name, text in files.items():
            (data / name).write_text(text)
            with contextlib.suppress(FileExistsError):
                (self.folder / name).symlink_to(f"..data/{name}")
        link = self.folder / "..data_tmp"
        link.symlink_to(data.name)
        link.rename(self.folder / "..data")


class Node:
    """A network namespace with the cluster DNS behind its Service's address, and a DaemonSet's pods."""

    def __init__(self, folder: pathlib.Path, pod: dict, container: dict, corefile: str):
        self.folder, self.pod, self.container = folder, pod, container
        self.name = f"nodens-image-{os.getpid()}-{folder.name[-6:]}"
        self.config = Volume(folder / "corefile")
        self.corefile = corefile
        self.put_corefile(corefile)
        self.pods: list[Pod] = []
        self.after: list = []
        try:
            self.network()
            self.knot()
        except BaseException:
            self.close()
            raise

    def network(self):
        run("ip", "netns", "add", self.name)
        self.after.append(lambda: subprocess.run(["ip", "netns", "del", self.name], capture_output=True))
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        run("ip", "-n", self.name, "address", "add", f"{UPSTREAM}/32", "dev", "lo")
        # Where the kernel has no dummy driver, a bridge stands in for the interface of that name.
        made = subprocess.run(["ip", "-n", self.name, "link", "add", "probe", "type", "dummy"], capture_output=True)
        if made.returncode != 0:
            run("ip", "-n", self.name, "link", "add", "nodelocaldns", "type", "bridge")
        else:
            run("ip", "-n", self.name, "link", "del", "probe")

    def knot(self):
        folder = self.folder / "knot"
        folder.mkdir()
        zone = "$ORIGIN {0}.\n$TTL 1\n@ SOA ns hostmaster 1 60 60 60 1\n@ NS ns\nns A 192.0.2.1\n"
        zones = ""
        for name in ["cluster.local", "example.org"]:
            (folder / name).write_text(zone.format(name))
            zones += f"  - domain: {name}\n    file: {folder}/{name}\n"
        (folder / "knot.conf").write_text(
            f"server:\n  rundir: {folder}\n  listen: {UPSTREAM}@53\n  udp-workers: 1\n  tcp-workers: 1\n"
            f"database:\n  storage: {folder}/db\nzone:\n{zones}"
        )
        with open(folder / "log", "wb") as log:
            words = ["ip", "netns", "exec", self.name, "knotd", "-c", f"{folder}/knot.conf"]
            process = subprocess.Popen(words, stdout=log, stderr=log)
        self.after.append(process.wait)
        self.after.append(process.terminate)
        wait_for("Knot", lambda: self.dig("ns.cluster.local", UPSTREAM))

    def put_corefile(self, text: str):
        # Looked at every two seconds, so that the test need not wait for thirty.
        text = re.sub(r"reload\n", "reload 2s 0s\n", text)
        self.config.write({"Corefile.base": text})

    def start(self) -> "Pod":
        """One more pod, serving."""
        pod = Pod(self, len(self.pods))
        self.pods.append(pod)
        self.after.append(pod.kill)
        pod.start()
        return pod

    def within(self, *words: str) -> str:
        return run("ip", "netns", "exec", self.name, *words).stdout

    def dig(self, name: str, server: str = LOCAL) -> str:
        words = ["ip", "netns", "exec", self.name, "dig", f"@{server}", "+short", "+time=15", "+tries=1", name]
        return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout.strip()

    def rules(self) -> tuple[bool, bool]:
        """Whether there are rules of iptables, and a table of nftables of our own."""
        saved = self.within("iptables-save")
        return "NodeLocal DNS Cache" in saved, "table inet nodens" in self.within("nft", "list", "tables")

    def probe(self, name: str) -> bool:
        """Whether a probe of the container succeeds, asked as the kubelet does."""
        asked = self.container[name]["httpGet"]
        host = asked["host"]
        url = f"http://{f'[{host}]' if ':' in host else host}:{asked['port']}{asked['path']}"
        words = f"import urllib.request as r; print(r.urlopen('{url}', timeout={self.container[name].get('timeoutSeconds', 1)}).status)"
        done = subprocess.run(["ip", "netns", "exec", self.name, "python3", "-c", words], capture_output=True, text=True)
        return done.stdout == "200\n"

    def close(self):
        for step in reversed(self.after):
            step()


class Pod:
    """One pod of the DaemonSet: the image's container, started by crun as its spec says."""

    def __init__(self, node: Node, number: int):
        self.node, self.name, self.folder = node, f"{node.name}-{number}", node.folder / f"pod{number}"
        self.process = None
        self.folder.mkdir()
        self.bundle()

    def bundle(self):
        bundle = self.folder / "bundle"
        shutil.copytree(self.node.folder.parent / "unpacked", bundle, symlinks=True)
        if self.node.container["image"].endswith("-iptables"):
            self.iptables(bundle / "rootfs")
        config = json.loads((bundle / "config.json").read_text())
        process, context = config["process"], self.node.container["securityContext"]
        process["terminal"] = False
        process["args"] = ["/node-cache", *self.node.container["args"]]
        process["noNewPrivileges"] = not context.get("allowPrivilegeEscalation", True)
        process["env"] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "KUBERNETES_SERVICE_HOST=10.96.0.1"]
        for service, address in [("KUBE_DNS_UPSTREAM", UPSTREAM), ("KUBE_DNS", UPSTREAM)]:
            process["env"].append(f"{service}_SERVICE_HOST={address}")
        wanted = context.get("capabilities", {})
        has = set() if "ALL" in wanted.get("drop", []) else set(DEFAULT_CAPABILITIES)
        has = sorted(has | {f"CAP_{name}" for name in wanted.get("add", [])})
        # As Kubernetes does it: nothing ambient, nothing inheritable.
        process["capabilities"] = {"bounding": has, "effective": has, "permitted": has}
        process["user"] = {"uid": context.get("runAsUser", 0), "gid": 0}
        config["root"] = {"path": "rootfs", "readonly": context.get("readOnlyRootFilesystem", False)}
        kinds = {space["type"]: space for space in config["linux"]["namespaces"]}
        kinds["network"] = {"type": "network", "path": f"/run/netns/{self.node.name}"}
        # The node's own cgroups stay as they are: they say nothing about what is tested here.
        kinds.pop("user", None)
        kinds.pop("cgroup", None)
        config["linux"].pop("resources", None)
        config["mounts"] = [one for one in config["mounts"] if one["type"] != "cgroup"]
        config["linux"]["namespaces"] = list(kinds.values())
        config["linux"].pop("seccomp", None)
        if context.get("seccompProfile", {}).get("type") == "RuntimeDefault":
            config["linux"]["seccomp"] = runtime_default(has)
        config["mounts"] += [self.mount(one) for one in self.node.container["volumeMounts"]]
        resolv = self.folder / "resolv.conf"
        resolv.write_text(f"nameserver {UPSTREAM}\n")
        config["mounts"].append({"destination": "/etc/resolv.conf", "type": "bind", "source": str(resolv), "options": ["rbind", "ro"]})
        (bundle / "config.json").write_text(json.dumps(config))

    def iptables(self, rootfs: pathlib.Path):
        """The programs that the image with the suffix -iptables has; this machine's stand in for them."""
        programs = [one for kind in ["iptables", "ip6tables", "xtables"] for one in pathlib.Path("/usr/sbin").glob(f"{kind}*")]
        programs += pathlib.Path("/etc/alternatives").glob("ip*tables*")
        listed = run("ldd", *[f"/usr/sbin/xtables-{kind}-multi" for kind in ["nft", "legacy"]]).stdout
        needed = {pathlib.Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+)", listed, re.M)}
        for one in [*programs, *needed]:
            to = rootfs / str(one).lstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(one, to, follow_symlinks=one in needed)
        shutil.copytree("/usr/lib/x86_64-linux-gnu/xtables", rootfs / "usr/lib/x86_64-linux-gnu/xtables")

    def mount(self, wanted: dict) -> dict:
        volume = next(one for one in self.node.pod["volumes"] if one["name"] == wanted["name"])
        # What is the node's is there for all of its pods.
        owner = self.node.folder / "host" if "hostPath" in volume else self.folder / "volumes"
        source, options = owner / wanted["name"], ["rbind", "rw"]
        source.parent.mkdir(exist_ok=True)
        if "configMap" in volume:
            options = ["rbind", "ro"]
            if volume["configMap"].get("optional"):
                source.mkdir()
            else:
                source = self.node.config.folder
        elif volume.get("hostPath", {}).get("type") == "FileOrCreate":
            source.touch()
        else:
            source.mkdir(exist_ok=True)
        return {"destination": wanted["mountPath"], "type": "bind", "source": str(source), "options": options}

    def start(self):
        self.log = self.folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    # crun refuses machines that have cgroups of both versions, so it sees the second alone,
                    # in a mount namespace of its own.
                    *["unshare", "--mount", "sh", "-c", 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"', "sh"],
                    *["crun", "--root", str(self.folder / "crun"), "--cgroup-manager=disabled"],
                    *["run", "--bundle", str(self.folder / "bundle"), self.name],
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for("listeners", lambda: "Running configuration" in self.log.read_text())
            wait_for("an answer", lambda: self.node.dig("ns.cluster.local") == "192.0.2.1")
        except AssertionError as failed:
            raise AssertionError(f"{failed}\n{self.log.read_text()}") from None

    def kill(self):
        if self.process and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            subprocess.run(["crun", "--root", str(self.folder / "crun"), "delete", "-f", self.name], capture_output=True)
            self.process.wait(60)

    def crun(self, *words: str):
        return run("crun", "--root", str(self.folder / "crun"), *words)

    def status(self) -> dict[str, str]:
        """What the kernel says of the process."""
        number = json.loads(self.crun("state", self.name).stdout)["pid"]
        lines = pathlib.Path(f"/proc/{number}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines)

    def stop(self) -> int:
        """As the kubelet ends it; gives its exit code."""
        self.crun("kill", self.name, "TERM")
        return self.process.wait(120)


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
