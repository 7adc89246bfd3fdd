"""Cgroups of our own, of either version: limits of CPU time and memory, and what was used of them."""
import contextlib
import os
import sys
import time


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
            sys.exit(f"{os.path.basename(sys.argv[0])}: no cgroups with cpu and memory can be made here (needs root)")
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
