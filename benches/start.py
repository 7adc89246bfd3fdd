#!/usr/bin/env python3
"""From the start of the process to the first answer, and what the server is before any load: the
size of the program and its memory.

nodens runs the Corefile of a stock deployment (config/node-local-dns.Corefile: four server blocks,
health, metrics, reload, loop), with the addresses of this test; Unbound and dnsmasq what
benches/lab.py gives them. A client asks from the beginning, every 2 ms at the latest, and only an
answer with records counts. The time begins where the process becomes the server (its exec).

  benches/start.py [--servers nodens,unbound,dnsmasq] [--runs 20] [--nodens PATH] [--json FILE]
"""
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time

import cgroup
import lab


def seed_corefile():
    """The stock Corefile on addresses of this test, with the words that lab.py fills in."""
    with open(os.path.join(lab.ROOT, "config/node-local-dns.Corefile")) as file:
        text = file.read()
    text = text.replace("{", "{{").replace("}", "}}")
    text = re.sub(r":53 ", ":{port} ", text)
    text = re.sub(r"bind .*", "bind 127.0.0.1", text)
    text = re.sub(r"forward \. [\d.]+", "forward . 127.0.0.1:{up}", text)
    text = text.replace("prometheus :9253", "prometheus 127.0.0.1:9395")
    return re.sub(r"health .*", "health 127.0.0.1:9397", text)


def stripped_size(program):
    """Bytes of the program without symbols."""
    with tempfile.NamedTemporaryFile() as file:
        if not shutil.which("strip"):
            return os.path.getsize(program)
        subprocess.run(["strip", "-o", file.name, program], check=True)
        return os.path.getsize(file.name)


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--servers", default="nodens,unbound,dnsmasq")
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    names = options.servers.split(",")
    if "nodens" in names:
        options.nodens = lab.nodens_binary(options.nodens)
    rows = []
    with lab.Lab() as place:
        # Weighed like the load, so that other work on the machine is not what is measured.
        group = cgroup.Group("start", weight=64) if place.weighted and os.geteuid() == 0 else None
        try:
            for name in names:
                if not lab.known_server(name, {}):
                    continue
                times, memory = [], []
                files = {"base": seed_corefile()} if name == "nodens" else None
                for _ in range(options.runs):
                    with place.server(name, nodens=options.nodens, files=files, group=group) as (process, _):
                        times.append(process.ready * 1e3)
                        time.sleep(0.1)
                        memory.append(process.rss() / 2**20)
                program = options.nodens if name == "nodens" else shutil.which(name)
                rows.append({"server": name, "median_ms": statistics.median(times), "least_ms": min(times),
                             "most_ms": max(times), "runs": options.runs, "rss_mib": statistics.median(memory),
                             "program_mib": stripped_size(program) / 2**20})
        finally:
            if group:
                group.close()
    lab.say(f"Start to first answer, {options.runs} runs; resident memory 0.1 s later; the stripped program:\n")
    lab.table(["server", "median ms", "least", "most", "RSS MiB", "program MiB"],
              [[row["server"], f"{row['median_ms']:.1f}", f"{row['least_ms']:.1f}", f"{row['most_ms']:.1f}",
                f"{row['rss_mib']:.1f}", f"{row['program_mib']:.2f}"] for row in rows])
    lab.keep(options.json, "start", rows)


if __name__ == "__main__":
    main()
