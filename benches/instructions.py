#!/usr/bin/env python3
"""The instruction counts of hit_path.rs beside their baseline, hit_path.baseline: prints each change
and fails when a case needs 5 % more than its baseline, is new, or is gone.

Counts under callgrind do not depend on the machine's speed or load. They depend on the compiler: the
baseline says which one counted.

  benches/instructions.py                     count (cargo bench --bench hit_path) and compare
  benches/instructions.py --update REASON     count and write the baseline, with the reason
  benches/instructions.py --counted FILE      compare what `-- --output-format=json` printed before
"""
import argparse
import datetime
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BASELINE = os.path.join(HERE, "hit_path.baseline")
# A case may need so much more than its baseline.
MOST = 0.05
HEAD = """# Instructions of each case of hit_path.rs under callgrind; benches/instructions.py compares and updates.
# A commit that raises one by more than 5 % updates this file and says why.
"""


def count():
    """Runs the benchmark; the text that it prints."""
    command = ["cargo", "bench", "--quiet", "--bench", "hit_path", "--", "--output-format=json"]
    done = subprocess.run(command, cwd=os.path.dirname(HERE), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"instructions.py: {' '.join(command)} failed")
    return done.stdout


def instructions(summary):
    """The instructions of one benchmark's summary."""
    for profile in summary["profiles"]:
        if profile["tool"].lower() == "callgrind":
            return int(profile["data"]["total"]["metrics"]["Ir"]["values"]["new"])
    raise KeyError("callgrind")


def parse_counts(text):
    """Case and instructions, of one JSON object a line."""
    counts = {}
    for line in text.splitlines():
        if line.startswith("{"):
            summary = json.loads(line)
            counts[f"{summary['function_name']}.{summary.get('id', '')}".rstrip(".")] = instructions(summary)
    if not counts:
        sys.exit("instructions.py: no case was counted")
    return counts


def parse_baseline(text):
    """Case and instructions; and the lines with the reasons."""
    counts, reasons = {}, []
    for line in text.splitlines():
        if line.startswith("# 2"):
            reasons.append(line)
        elif line and not line.startswith("#"):
            case, number = line.split()
            counts[case] = int(number)
    return counts, reasons


def compare(counts, baseline):
    """Prints each case; the complaints."""
    complaints = []
    for case in [*counts, *(case for case in baseline if case not in counts)]:
        new, old = counts.get(case), baseline.get(case)
        if new is None:
            complaints.append(f"{case} is in the baseline and was not counted")
        elif old is None:
            complaints.append(f"{case} has no baseline")
            print(f"{case:<32} {new:>8}")
        else:
            change = new / old - 1
            print(f"{case:<32} {new:>8}  {100 * change:+6.2f} %")
            if change > MOST:
                complaints.append(f"{case} needs {100 * change:.1f} % more instructions than its baseline of {old}")
    return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", default=BASELINE)
    parser.add_argument("--counted", help="the benchmark's output from before")
    parser.add_argument("--update", metavar="REASON")
    options = parser.parse_args()
    if options.counted:
        with open(options.counted) as file:
            counts = parse_counts(file.read())
    else:
        counts = parse_counts(count())
    baseline, reasons = {}, []
    if os.path.exists(options.baseline):
        with open(options.baseline) as file:
            baseline, reasons = parse_baseline(file.read())
    complaints = compare(counts, baseline)
    if options.update:
        compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout
        compiler = " ".join(compiler.split()[:2])
        reasons.append(f"# {datetime.date.today()}, {compiler}: {options.update}")
        with open(options.baseline, "w") as file:
            file.write(HEAD + "\n".join(reasons) + "\n")
            file.writelines(f"{case} {number}\n" for case, number in counts.items())
        return
    for complaint in complaints:
        print(complaint)
    if complaints:
        if reasons:
            print(f"counted last: {reasons[-1].lstrip('# ')}")
        sys.exit("Where it must be so: benches/instructions.py --update 'the reason', in the same commit.")


if __name__ == "__main__":
    main()
