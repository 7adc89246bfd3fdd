#!/usr/bin/env python3
"""Tables and picture of docs/performance.md from the results of the side-by-side bench (JSON lines).

  benches/picture.py RESULTS.jsonl [...] [--svg docs/performance.svg] [--into docs/performance.md]

Without --into the tables are printed. With it they replace what stands between the two marks of that
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
# The picture: a row is a bar; text grows to the left of it.
WIDTH, ROW, LEFT, RIGHT = 760, 22, 150, 90


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
    table("99th percentile at a fixed rate, µs", "rate", "p99_us", "{:.0f}")
    lines.extend(["", "Start and memory:", "", "| server | start to first answer, ms | RSS after the start, MiB | RSS with 100,000 names, MiB |",
                  "|---|---|---|---|"])
    for name in results.servers:
        figures = [results.median(name, "start", "ready_ms"), results.median(name, "start", "rss_kb"),
                   results.median(name, "fill", "rss_kb")]
        figures[1:] = [None if value is None else value / 1024 for value in figures[1:]]
        lines.append(f"| {name} | " + " | ".join(cell(value, "{:.1f}") for value in figures) + " |")
    return "\n".join(lines).strip() + "\n"


def picture(results):
    """An SVG of bars in groups; its colours follow the reader's light or dark scheme."""
    groups = []

    def group(title, text, figures):
        figures = [(name, value) for name, value in figures if value is not None]
        if figures:
            groups.append((title, text, figures))

    for load in results.workloads():
        group(f"{WORKLOADS[load]}: thousand queries a second on one core (more is better)", "{:.0f}",
              [(name, rate and rate / 1000) for name in results.servers for rate in [results.median(name, "max", "qps", load)]])
        group(f"{WORKLOADS[load]}: CPU µs per query (less is better)", "{:.2f}",
              [(name, results.median(name, "max", "cpu_us", load)) for name in results.servers])
    group("memory with 100,000 names, MiB (less is better)", "{:.0f}",
          [(name, rss and rss / 1024) for name in results.servers for rss in [results.median(name, "fill", "rss_kb")]])
    body, y = [], 10
    for title, text, figures in groups:
        y += 22
        body.append(f'<text class="head" x="10" y="{y}">{escape(title)}</text>')
        y += 10
        most = max(value for _, value in figures) or 1
        for name, value in figures:
            kind = "own" if name == "nodens" else "limit" if name in results.limits else "peer"
            length = max(1, (WIDTH - LEFT - RIGHT) * value / most)
            body.append(f'<text class="name" x="{LEFT - 8}" y="{y + 14}">{escape(name)}</text>'
                        f'<rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{length:.1f}" height="{ROW - 6}" rx="2"/>'
                        f'<text x="{LEFT + length + 6:.1f}" y="{y + 14}">{text.format(value)}</text>')
            y += ROW
        y += 6
    style = ("text{font:13px sans-serif;fill:#222}.head{font-weight:bold}.name{text-anchor:end}.back{fill:#fff}"
             ".own{fill:#0a7d54}.peer{fill:#7a8ba0}.limit{fill:#c9a227}"
             "@media(prefers-color-scheme:dark){text{fill:#ddd}.back{fill:#16181d}.own{fill:#3fc48d}.peer{fill:#8fa3bd}}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 10}" width="{WIDTH}" height="{y + 10}" role="img">\n'
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
    parser.add_argument("--into")
    options = parser.parse_args()
    results = Results(options.results)
    if not results.servers:
        sys.exit("picture.py: no measurement in these files")
    if options.svg:
        with open(options.svg, "w") as file:
            file.write(picture(results))
    if options.into:
        put(options.into, tables(results))
    else:
        print(tables(results))


if __name__ == "__main__":
    main()
