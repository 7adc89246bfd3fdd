#!/usr/bin/env python3
"""What a release says of what is in it: a bill of materials and the licences of all that is linked.

Usage: deploy/release/materials.py FOLDER
writes FOLDER/nodens.cdx.json (CycloneDX 1.5, reproducible: no time, no chance) and
FOLDER/THIRD-PARTY-LICENSES.txt. Both are made from Cargo.lock and the sources that cargo built
from; a crate without any licence text is an error unless its text is known here."""

import json
import pathlib
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = "x86_64-unknown-linux-gnu"
TEXTS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")

# Crates whose package has no licence file: the workspace of symbolic ships it beside the crates.
WITHOUT_TEXT = {
    "symbolic-common": "MIT License, Copyright Functional Software, Inc. d/b/a Sentry and contributors",
    "symbolic-demangle": "MIT License, Copyright Functional Software, Inc. d/b/a Sentry and contributors",
}

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def cargo(*arguments):
    """What cargo prints of the locked packages."""
    command = ["cargo", *arguments, "--locked"]
    return subprocess.check_output(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)


def linked():
    """The packages that are linked into the program, by name and version, and what each needs."""
    metadata = json.loads(cargo("metadata", "--format-version=1", "--filter-platform", TARGET))
    # The metadata also follow what only the tests' features ask for; the tree does not.
    tree = cargo("tree", "--edges=normal", "--prefix=none", "--format={p}", "--target", TARGET)
    names = {tuple(line.split(" ")[:2]) for line in tree.splitlines() if line}
    is_linked = {
        one["id"]
        for one in metadata["packages"]
        if (one["name"], f"v{one['version']}") in names
    }
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    needs, todo = {}, [metadata["resolve"]["root"]]
    while todo:
        package = todo.pop()
        if package in needs:
            continue
        needs[package] = sorted(
            dependency["pkg"]
            for dependency in nodes[package]["deps"]
            if dependency["pkg"] in is_linked
            and any(kind["kind"] is None for kind in dependency["dep_kinds"])
        )
        todo += needs[package]
    packages = {one["id"]: one for one in metadata["packages"] if one["id"] in needs}
    return metadata["resolve"]["root"], packages, needs


def expression(package):
    """The SPDX expression; older packages write a stroke for OR."""
    return (package["license"] or "").replace(" / ", " OR ").replace("/", " OR ")


def bill(root, packages, needs):
    """CycloneDX: each crate with version, licence, checksum and what it needs."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}

    def reference(identity):
        package = packages[identity]
        return f"pkg:cargo/{package['name']}@{package['version']}"

    def component(identity):
        package = packages[identity]
        one = {
            "type": "application" if identity == root else "library",
            "bom-ref": reference(identity),
            "name": package["name"],
            "version": package["version"],
            "purl": reference(identity),
            "licenses": [{"expression": expression(package)}],
        }
        if checksum := checksums.get((package["name"], package["version"])):
            one["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return one

    order = sorted(packages, key=reference)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(lock))}",
        "version": 1,
        "metadata": {"component": component(root)},
        "components": [component(one) for one in order if one != root],
        "dependencies": [
            {"ref": reference(one), "dependsOn": sorted(map(reference, needs[one]))} for one in order
        ],
    }


def licences(root, packages):
    """One section for each text, headed by the crates that it is of."""
    of_text = {}
    for identity, package in packages.items():
        if identity == root:
            continue
        title = f"{package['name']} {package['version']} ({expression(package)})"
        folder = pathlib.Path(package["manifest_path"]).parent
        files = sorted(one for one in folder.iterdir() if one.name.upper().startswith(TEXTS) and one.is_file())
        texts = [one.read_text(errors="replace").strip() for one in files]
        if not texts:
            if package["name"] not in WITHOUT_TEXT:
                raise SystemExit(f"{title}: its package has no licence text; see WITHOUT_TEXT")
            texts = [f"{WITHOUT_TEXT[package['name']]}\n\n{MIT.strip()}"]
        for text in texts:
            of_text.setdefault(text, []).append(title)
    sections = sorted((sorted(titles), text) for text, titles in of_text.items())
    rule = "=" * 80
    head = "nodens is linked with the crates below, each under the licence given with it.\n"
    return head + "".join(
        f"\n{rule}\n" + "\n".join(titles) + f"\n{rule}\n\n{text}\n" for titles, text in sections
    )


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    root, packages, needs = linked()
    text = json.dumps(bill(root, packages, needs), indent=1, sort_keys=True)
    (folder / "nodens.cdx.json").write_text(text + "\n")
    (folder / "THIRD-PARTY-LICENSES.txt").write_text(licences(root, packages))


if __name__ == "__main__":
    main()
