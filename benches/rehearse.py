#!/usr/bin/env python3
"""Runs each script that measures once, in a form of few queries and a second or so, and looks whether
what it kept makes sense. It measures nothing: a script that has not been run for a while must not fail
on the day that it is needed.

  benches/rehearse.py [--nodens PATH] [SCRIPT ...]

Needs what they need: knotd, dnsperf, rustc, and for limits.py root and cgroups. What is missing is said;
with NODENS_TEST_ALL=1 it is a failure.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import cgroup
import lab

# Each script: how it is called, and how many rows it keeps. The search for the highest rate has no end that
# can be foretold: it is left out.
FORMS = {
    "dnsperf.py": ("--servers nodens --seconds 1", 1),
    "start.py": ("--servers nodens --runs 1", 1),
    "growth.py": ("--names 100 --rounds 1 --tries 1 --seconds 1", 7),
    "serial.py": ("--rates 200 --seconds 0.5 --slow 0.1", 2),
    "storm.py": ("--kinds clients,stale,one --queries 200 --seconds 0.5 --hits 200 --settle 0.2", 3),
    "lone.py": ("--servers nodens --rounds 1 --seconds 0.5 --hits 200 --misses 200", 2),
    "abuse.py": ("--seconds 0.5 --hits 200 --settle 0.2", 3),
    "limits.py": ("--servers nodens --names 100 --mode overload --hits 200 --misses 200 --seconds 0.5", 1),
}


# The longest that one may take, on a machine that does other things beside.
LONGEST = 900


def said_by(value, name):
    """All that a row says under this name, at any depth."""
    for key, inner in value.items():
        if key == name:
            yield inner
        if isinstance(inner, dict):
            yield from said_by(inner, name)


def doubts(row):
    """What is wrong with a row, whatever the speed of the machine."""
    found = []
    for name in ("sent", "answered", "answers", "cpu_us", "median_ms", "rss_mib", "idle_mib", "before_mib"):
        found += [f"{name} is {value}" for value in said_by(row, name) if not value > 0]
    for name in ("fast", "hits", "quiet", "control"):
        found += [f"all of {name} failed: {value}" for value in said_by(row, name) if value["failed"] == value["answered"]]
    if row.get("kind") == "one" and row["asked"] != 1:
        found.append(f"one name was asked for {row['asked']} times")
    return found


def rehearse(script, nodens):
    """Runs it; what is wrong."""
    words, rows = FORMS[script]
    with tempfile.NamedTemporaryFile() as kept:
        command = [sys.executable, os.path.join(lab.HERE, script), "--nodens", nodens, "--json", kept.name, *words.split()]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONGEST)
        if done.returncode:
            return [f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-2000:]}"]
        found = json.load(kept)["rows"]
    wrong = [] if len(found) == rows else [f"{len(found)} rows, not {rows}"]
    if "|---|" not in done.stdout:
        wrong.append("it printed no table")
    return wrong + [doubt for row in found for doubt in doubts(row)]


def lacks(script):
    """What this script needs and cannot have here."""
    if script == "limits.py":
        try:
            cgroup.Group("rehearsal", cpu=0.1, memory=100 << 20).close()
        except (SystemExit, OSError) as why:
            return str(why)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodens", help="the binary; target/release/nodens unless given")
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", default=list(FORMS))
    options = parser.parse_args()
    if unknown := [script for script in options.scripts if script not in FORMS]:
        lab.fail(f"unknown script {unknown[0]}; known: {', '.join(FORMS)}")
    nodens, failed = lab.nodens_binary(options.nodens), False
    for script in options.scripts:
        began = time.monotonic()
        if missing := lacks(script):
            lab.say(f"{script}: NOT RUN, missing: {missing}")
            failed |= os.environ.get("NODENS_TEST_ALL") == "1"
            continue
        wrong = rehearse(script, nodens)
        failed |= bool(wrong)
        for doubt in wrong:
            lab.say(f"{script}: {doubt}")
        if not wrong:
            lab.say(f"{script}: ran, {time.monotonic() - began:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
