#!/usr/bin/env python3
"""Tables and picture of docs/performance.md from the results of the side-by-side bench (JSON lines).

  benches/picture.py RESULTS.jsonl [...] [--svg docs/performance.svg] [--brief docs/gain.svg] [--into docs/performance.md]

--brief is the picture of the README: what a node feels most. Without --into the tables are printed. With it they replace what stands between the two marks of that
file. Each figure is the median of the repetitions; measurements that other work disturbed are left out
where at least two clean ones remain. Python's standard library alone.
"""
import argparse
import json
import statistics
import sys
from html import escape

WORKLOADS = {"W1": "hits, 1,000 names", "W2": "hits, Zipf over 20,000 names", "W3": "hits, ndots:5 pattern",
             "W4": "misses", "W5": "hits over TCP"}
BEGIN, END = "<!-- figures: made by benches/picture.py -->", "<!-- end of figures -->"
# What the brief picture shows.
BRIEF = [("W2", "rate"), ("W4", "cpu"), "memory"]
# The picture: a row is a bar; its name stands to the left of it, its figure to the right.
WIDTH, ROW, LEFT, RIGHT = 560, 22, 110, 60


class Results:
    def __init__(self, paths):
        self.rows = []
        for path in paths:
            with open(path) as file:
                self.rows += [json.loads(line) for line in file if line.strip()]
        self.servers = list(dict.fromkeys(row["peer"] for row in self.rows if "workload" in row))
        self.limits = {row["peer"] for row in self.rows if row.get("limit")}
        # nodens first, what only sends back last.
        self.servers.sort(key=lambda name: (name in self.limits, name != "nodens"))

    def median(self, server, kind, field, workload=None):
        """The median, or None where it was not measured."""
        found = [row for row in self.rows if row["peer"] == server and row["kind"] == kind
                 and row.get("workload") == workload]
        clean = [row for row in found if not row.get("dirty")]
        values = [row[field] for row in (clean if len(clean) >= 2 else found)]
        return statistics.median(values) if values else None

    def workloads(self):
        return [name for name in WORKLOADS if any(row.get("workload") == name for row in self.rows)]


def cell(value, text):
    return "–" if value is None else text.format(value)


def tables(results):
    workloads, lines = results.workloads(), []

    def table(title, kind, field, text, scale=1.0):
        rows = [(name, [results.median(name, kind, field, load) for load in workloads]) for name in results.servers]
        rows = [(name, values) for name, values in rows if any(value is not None for value in values)]
        if not rows:
            return
        lines.extend(["", f"{title}:", "", "| server | " + " | ".join(f"{w} {WORKLOADS[w]}" for w in workloads) + " |",
                      "|---|" + "---|" * len(workloads)])
        for name, values in rows:
            shown = [cell(None if value is None else value / scale, text) for value in values]
            lines.append(f"| {name} | " + " | ".join(shown) + " |")

    table("Most queries a second on one core, thousands", "max", "qps", "{:.0f}", 1000)
    table("CPU of the server per query at that rate, µs", "max", "cpu_us", "{:.2f}")
    table("CPU of the server per query at a fixed rate, which wakes it for nearly every query, µs", "rate", "cpu_us", "{:.1f}")
    table("99th percentile at a fixed rate, µs", "rate", "p99_us", "{:.0f}")
    lines.extend(["", "Start and memory:", "", "| server | start to first answer, ms | RSS after the start, MiB | RSS with 100,000 names, MiB |",
                  "|---|---|---|---|"])
    for name in results.servers:
        figures = [results.median(name, "start", "ready_ms"), results.median(name, "start", "rss_kb"),
                   results.median(name, "fill", "rss_kb")]
        figures[1:] = [None if value is None else value / 1024 for value in figures[1:]]
        lines.append(f"| {name} | " + " | ".join(cell(value, "{:.1f}") for value in figures) + " |")
    return "\n".join(lines).strip() + "\n"


def groups(results):
    """Title, format and figures of every group of bars, by what it shows."""
    found = {}

    def group(key, title, text, figures):
        figures = [(name, value) for name, value in figures if value is not None]
        if figures:
            found[key] = (title, text, figures)

    for load in results.workloads():
        rates = [(name, results.median(name, "max", "qps", load)) for name in results.servers]
        group((load, "rate"), f"{WORKLOADS[load]}: thousand queries a second on one core", "{:.0f}",
              [(name, rate and rate / 1000) for name, rate in rates])
        group((load, "cpu"), f"{WORKLOADS[load]}: CPU µs per query (less is better)", "{:.2f}",
              [(name, results.median(name, "max", "cpu_us", load)) for name in results.servers])
    sizes = [(name, results.median(name, "fill", "rss_kb")) for name in results.servers]
    group("memory", "memory with 100,000 names, MiB (less is better)", "{:.0f}", [(name, size and size / 1024) for name, size in sizes])
    starts = [(name, results.median(name, "start", "ready_ms")) for name in results.servers]
    group("start", "start to first answer, ms (less is better)", "{:.1f}", starts)
    return found


def without_limits(results, group):
    """For readers who have not been told what a limit is."""
    title, text, figures = group
    return title, text, [(name, value) for name, value in figures if name not in results.limits]


def picture(results, shown, columns):
    """An SVG of bars in groups, line by line; its colours follow the reader's light or dark scheme."""
    body, top = [], 10
    for first in range(0, len(shown), columns):
        bottom = top
        for column, (title, text, figures) in enumerate(shown[first:first + columns]):
            x, y = column * WIDTH, top + 22
            body.append(f'<text class="head" x="{x + 10}" y="{y}">{escape(title)}</text>')
            y += 10
            most = max(value for _, value in figures) or 1
            for name, value in figures:
                kind = "own" if name == "nodens" else "limit" if name in results.limits else "peer"
                length = max(1, (WIDTH - LEFT - RIGHT) * value / most)
                body.append(f'<text class="name" x="{x + LEFT - 8}" y="{y + 14}">{escape(name)}</text>'
                            f'<rect class="{kind}" x="{x + LEFT}" y="{y + 2}" width="{length:.1f}" height="{ROW - 6}" rx="2"/>'
                            f'<text x="{x + LEFT + length + 6:.1f}" y="{y + 14}">{text.format(value)}</text>')
                y += ROW
            bottom = max(bottom, y + 6)
        top = bottom
    style = ("text{font:13px sans-serif;fill:#222}.head{font-weight:bold}.name{text-anchor:end}.back{fill:#fff}"
             ".own{fill:#0a7d54}.peer{fill:#7a8ba0}.limit{fill:#c9a227}"
             "@media(prefers-color-scheme:dark){text{fill:#ddd}.back{fill:#16181d}.own{fill:#3fc48d}.peer{fill:#8fa3bd}}")
    width, height = columns * WIDTH, top + 10
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">\n'
            f'<title>nodens beside other servers</title>\n<style>{style}</style>\n'
            f'<rect class="back" width="100%" height="100%"/>\n' + "\n".join(body) + "\n</svg>\n")


def put(path, text):
    """Replaces what stands between the marks of a file."""
    with open(path) as file:
        before, begin, rest = file.read().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"picture.py: {path} lacks the marks {BEGIN} and {END}")
    with open(path, "w") as file:
        file.write(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+")
    parser.add_argument("--svg")
    parser.add_argument("--brief")
    parser.add_argument("--into")
    options = parser.parse_args()
    results = Results(options.results)
    if not results.servers:
        sys.exit("picture.py: no measurement in these files")
    found = groups(results)
    if options.svg:
        with open(options.svg, "w") as file:
            file.write(picture(results, list(found.values()), 2))
    if options.brief:
        with open(options.brief, "w") as file:
            file.write(picture(results, [without_limits(results, found[key]) for key in BRIEF if key in found], 1))
    if options.into:
        put(options.into, tables(results))
    else:
        print(tables(results))


if __name__ == "__main__":
    main()
