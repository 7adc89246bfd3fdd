#!/usr/bin/env python3
"""What a release is made of: the bill of materials against its schema and against cargo, licences of
every crate, workflows against GitHub's schema, and one least Rust version in all places.

Its tools are in requirements.txt."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFEST = tomllib.loads((ROOT / "Cargo.toml").read_text())
MAKE = ROOT / "deploy/release/materials.py"


def tree():
    """The crates that cargo itself says are linked, as `name version`."""
    command = ["cargo", "tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}", "--target=x86_64-unknown-linux-gnu"]
    lines = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    return {" v".join(re.match(r"(\S+) v(\S+)", line).groups()) for line in lines if line}


class Materials(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        subprocess.run([MAKE, cls.folder.name], check=True)
        cls.text = pathlib.Path(cls.folder.name, "nodens.cdx.json").read_text()
        cls.licences = pathlib.Path(cls.folder.name, "THIRD-PARTY-LICENSES.txt").read_text()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_the_bill_of_materials_is_valid(self):
        self.assertIsNone(JsonStrictValidator(SchemaVersion.V1_5).validate_str(self.text))

    def test_it_lists_what_cargo_links_and_nothing_else(self):
        bill = json.loads(self.text)
        parts = bill["components"] + [bill["metadata"]["component"]]
        self.assertEqual({f"{one['name']} v{one['version']}" for one in parts}, tree())
        known = {one["bom-ref"] for one in parts}
        for edge in bill["dependencies"]:
            self.assertLessEqual({edge["ref"], *edge["dependsOn"]}, known)

    def test_every_crate_stands_above_a_licence_text(self):
        own = f"nodens v{MANIFEST['package']['version']}"
        for crate in tree() - {own}:
            self.assertIn(f"\n{crate.replace(' v', ' ')} (", self.licences)

    def test_the_same_sources_give_the_same_files(self):
        with tempfile.TemporaryDirectory() as again:
            subprocess.run([MAKE, again], check=True)
            self.assertEqual(pathlib.Path(again, "nodens.cdx.json").read_text(), self.text)
            self.assertEqual(pathlib.Path(again, "THIRD-PARTY-LICENSES.txt").read_text(), self.licences)

    def test_wrong_arguments_are_told_its_use(self):
        for arguments in [[], ["a", "b"]]:
            ran = subprocess.run([MAKE, *arguments], capture_output=True, text=True)
            self.assertEqual(ran.returncode, 1)
            self.assertIn("Usage: ", ran.stderr)


class Workflows(unittest.TestCase):
    FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))

    def test_they_follow_the_schema(self):
        self.assertTrue(self.FILES)
        tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
        ran = subprocess.run([*tool, *self.FILES], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)

    def test_ci_runs_every_step_but_the_conformance_suite(self):
        steps = re.search(r'^ALL="(.*)"$', (ROOT / ".ci/run").read_text(), re.MULTILINE)[1].split()
        run = re.search(r"run: \.ci/run (.*)", (ROOT / ".github/workflows/ci.yml").read_text())[1].split()
        self.assertEqual(run, [step for step in steps if step != "conformance"])

    def test_releases_pack_with_the_tool_that_ci_tests(self):
        pinned = re.search(r"tool cargo-deb (\S+)", (ROOT / ".ci/run").read_text())[1]
        self.assertIn(f"cargo-deb --version {pinned}\n", (ROOT / ".github/workflows/release.yml").read_text())

    def test_the_least_rust_version_is_the_same_everywhere(self):
        least = MANIFEST["package"]["rust-version"]
        self.assertIn(f'rust: ["{least}", "stable"]', (ROOT / ".github/workflows/ci.yml").read_text())
        self.assertIn(f"--default-toolchain {least}\n", (ROOT / ".github/workflows/release.yml").read_text())
        self.assertIn(f"Rust {least}", (ROOT / "CONTRIBUTING.md").read_text())


if __name__ == "__main__":
    unittest.main()
