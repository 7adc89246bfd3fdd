#!/usr/bin/env python3
"""nodens on a kernel that has what a node's has: Debian's cloud kernel, in an emulator, with real
dummy interfaces, nf_tables, x_tables and IPVS, which the kernel of a machine that runs tests may lack.

Usage: run.py NODENS    NODENS is a static program (deploy/image/compile.sh). Needs qemu-system-x86_64,
busybox-static, iproute2, iptables, nftables, ipvsadm, depmod and cpio; takes the kernel's package from apt
and keeps it in target/kernel.

Packs a file system that is node.sh and what it calls, boots it, and reads the serial console. Each
`check 'sentence'` of node.sh must be told as ok, once: what is not told of has failed."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
KEPT = HERE.parents[1] / "target" / "kernel"
PACKAGE = "linux-image-cloud-amd64"
# Programs of the guest beside busybox, by their places there.
PROGRAMS = ["usr/sbin/xtables-nft-multi", "usr/sbin/xtables-legacy-multi", "usr/sbin/nft", "usr/sbin/ip", "usr/sbin/ipvsadm"]
# What a node's kernel has or loads on demand, with all that it needs.
MODULES = ["drivers/net/dummy.ko", "drivers/net/veth.ko", "net/netfilter", "net/ipv4/netfilter", "net/ipv6/netfilter", "lib"]
# An emulated processor under load is slow, and nothing here measures speed.
LONGEST = 1740


def run(*words: str, **more) -> str:
    done = subprocess.run(words, capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def kernel() -> pathlib.Path:
    """The unpacked package of the kernel; fetched when it is not there."""
    found = re.search(r"Depends: (linux-image-\S+)", run("apt-cache", "depends", PACKAGE))
    if found is None:
        sys.exit(f"apt does not know the package {PACKAGE}: apt-get update")
    folder = KEPT / found[1]
    if not folder.is_dir():
        KEPT.mkdir(parents=True, exist_ok=True)
        # Never installed: its hooks would make it this system's kernel.
        with tempfile.TemporaryDirectory(dir=KEPT) as fresh:
            run("apt-get", "download", "-qq", found[1], cwd=fresh)
            (package,) = pathlib.Path(fresh).glob("*.deb")
            run("dpkg-deb", "--extract", str(package), f"{fresh}/unpacked")
            os.rename(f"{fresh}/unpacked", folder)
    return folder


def copy(source: pathlib.Path, root: pathlib.Path, place: str):
    target = root / place.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source, target)


def program(root: pathlib.Path, place: str):
    """A program of this machine with its libraries."""
    found = shutil.which(pathlib.Path(place).name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        sys.exit(f"missing: {pathlib.Path(place).name}")
    copy(pathlib.Path(found), root, place)
    for library in re.findall(r"(/\S+) \(0x", run("ldd", found)):
        copy(pathlib.Path(library), root, library)


def modules(root: pathlib.Path, unpacked: pathlib.Path):
    (source,) = (unpacked / "lib/modules").iterdir()
    target = root / "lib/modules" / source.name
    for name in MODULES:
        whole = source / "kernel" / name
        if whole.is_dir():
            shutil.copytree(whole, target / "kernel" / name)
        else:
            copy(whole, target, f"kernel/{name}")
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"]:
        copy(source / name, target, name)
    run("depmod", "--basedir", str(root), source.name)


def file_system(root: pathlib.Path, nodens: pathlib.Path, unpacked: pathlib.Path):
    for folder in ["proc", "sys", "dev", "run", "tmp", "etc", "bin"]:
        (root / folder).mkdir()
    copy(pathlib.Path(shutil.which("busybox") or sys.exit("missing: busybox")), root, "bin/busybox")
    copy(nodens, root, "bin/nodens")
    copy(HERE / "node.sh", root, "init")
    copy(HERE.parent / "lab" / "kube-proxy.nft", root, "kube-proxy.nft")
    (root / "init").chmod(0o755)
    for place in PROGRAMS:
        program(root, place)
    # iptables as one kind and as the other: a node has one of these folders.
    for kind in ["nft", "legacy"]:
        for family in ["iptables", "ip6tables"]:
            for ending in ["", "-save", "-restore"]:
                link = root / kind / f"{family}{ending}"
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(f"/usr/sbin/xtables-{kind}-multi")
    (extensions,) = pathlib.Path("/usr/lib").glob("*/xtables")
    shutil.copytree(extensions, root / str(extensions).lstrip("/"))
    modules(root, unpacked)


def boot(unpacked: pathlib.Path, archive: pathlib.Path):
    """The console's lines as they come, until the guest ends or its time does."""
    (image,) = (unpacked / "boot").glob("vmlinuz-*")
    # This processor has instructions for chance; without them the guest's programs wait for entropy.
    words = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "512", "-nographic", "-no-reboot", "-nic", "none"]
    words += ["-kernel", str(image), "-initrd", str(archive), "-append", "console=ttyS0 quiet panic=-1"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    end = threading.Timer(LONGEST, process.kill)
    end.start()
    try:
        for line in process.stdout:
            yield line.decode(errors="replace").replace("\r", "").rstrip("\n")
    finally:
        end.cancel()
        process.kill()
        process.wait()


def sentences(script: str) -> list[str]:
    """What the script is to tell of; a sentence with $kind once for each kind of iptables."""
    found = [sentence for _, sentence in re.findall(r"""^ *check (['"])(.*?)\1""", script, re.MULTILINE)]
    kinds = ["nft", "legacy"]
    return sorted(one for sentence in found for one in {sentence.replace("$kind", kind) for kind in kinds})


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    nodens = pathlib.Path(sys.argv[1]).resolve()
    expected = sentences((HERE / "node.sh").read_text())
    unpacked = kernel()
    with tempfile.TemporaryDirectory(prefix="nodens-kernel-") as folder:
        root, archive = pathlib.Path(folder) / "root", pathlib.Path(folder) / "archive"
        root.mkdir()
        file_system(root, nodens, unpacked)
        names = "\0".join(str(one.relative_to(root)) for one in sorted(root.rglob("*")))
        with open(archive, "wb") as output:
            subprocess.run(["cpio", "--create", "--format=newc", "--null", "--quiet", "--owner=0:0"], cwd=root, input=names.encode(), stdout=output, check=True)
        told, lines = [], []
        for line in boot(unpacked, archive):
            lines.append(line)
            if line.startswith(("ok ", "FAILED ", "| ", "on Linux ")):
                print(line, flush=True)
            if line.startswith("ok "):
                told.append(line[3:].split(" (")[0])
    if sorted(told) != expected or lines.count("end") != 1:
        missing = [sentence for sentence in expected if sentence not in told]
        print("the console's last lines:", *lines[-30:], sep="\n")
        sys.exit(f"failed or not told of: {missing or 'told twice'}")
    print(f"{len(told)} checks on {unpacked.name.removeprefix('linux-image-')}")


if __name__ == "__main__":
    main()
