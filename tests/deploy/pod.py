"""A node and its pods as Kubernetes makes them of a DaemonSet: volumes, the network, the container that
crun starts as its spec says."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

from waiting import wait_for

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
