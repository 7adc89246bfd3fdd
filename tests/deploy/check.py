#!/usr/bin/env python3
"""What deploy/ ships, checked without a cluster: every object strictly against the schemas of
Kubernetes 1.28 to 1.37, the chart by Helm's own engine, the drop-in against the add-on, and all
Corefiles by `nodens check`.

Usage: check.py NODENS    Its tools are in requirements.txt."""

import copy
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import unittest

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml

import kustomize
from chart_values import DE_FACTO, VALUES
from schemas import OTHERS

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
NODENS = str(pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ROOT / "target/debug/nodens").resolve())
CHART = DEPLOY / "helm" / "nodens"
VERSIONS = [f"1.{minor}" for minor in range(28, 38)]

class OnceLoader(yaml.SafeLoader):
    """A reader that takes no key twice, as Kubernetes' own does not."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"keys stand twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def objects_of(text: str) -> list[dict]:
    return [one for one in yaml.load_all(text, OnceLoader) if one]


def digest_of(objects: list[dict]) -> str:
    """Of everything but images and the white space in Corefiles."""
    objects = copy.deepcopy(objects)
    for one in objects:
        if one["kind"] == "ConfigMap":
            one["data"] = {name: text.split() for name, text in one["data"].items()}
        if one["kind"] == "DaemonSet":
            del container_of(one)["image"]
    text = json.dumps(objects, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# The add-on's manifest: cluster/addons/dns/nodelocaldns/nodelocaldns.yaml of kubernetes/kubernetes at
# 028f956d2f934d6c82ca815e3f8d622da7e480cb, with cluster.local, 169.254.20.10 and 10.96.0.10 for its
# variables, as digest_of has it.
ADDON = "2e10e52ee8bf1a643a0fd43b22651a46335c64216364fc991e00269c2f73bace"

def only(objects: list[dict], kind: str, name: str | None = None) -> dict:
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}"
    return found[0]


def container_of(daemonset: dict) -> dict:
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    return container


class Deploy(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.sets = {"drop-in": objects_of((DEPLOY / "kubernetes/drop-in.yaml").read_text())}
        cls.sets["pod-monitor"] = objects_of((DEPLOY / "kubernetes/pod-monitor.yaml").read_text())
        for folder in sorted((DEPLOY / "kustomize").rglob("kustomization.yaml")):
            name = str(folder.parent.relative_to(DEPLOY))
            cls.sets[name] = kustomize.build(folder.parent)
        for rules in sorted((DEPLOY / "monitoring").glob("*.yaml")):
            found = objects_of(rules.read_text())
            if all("kind" in one for one in found):
                cls.sets[str(rules.relative_to(DEPLOY))] = found
        with helm.Chart.load(str(CHART)) as chart:
            for name, values in VALUES.items():
                files = chart.render(values, name="node-local-dns", namespace="kube-system")
                cls.sets[f"chart, {name}"] = [
                    one
                    for path, text in files.items()
                    if not path.endswith("NOTES.txt")
                    for one in objects_of(text)
                ]

    def each(self, kind: str):
        for name, objects in self.sets.items():
            for one in objects:
                if one["kind"] == kind:
                    yield name, objects, one

    def test_every_object_is_strictly_valid_in_every_release(self):
        for name, objects in self.sets.items():
            for one in objects:
                own = OTHERS.get((one["apiVersion"], one["kind"]))
                with self.subTest(set=name, kind=one["kind"]):
                    if own:
                        jsonschema.validate(one["spec"], own)
                        continue
                    for version in VERSIONS:
                        kubernetes_validate.validate(one, version, strict=True)

    def test_the_validation_finds_a_misspelt_field(self):
        wrong = copy.deepcopy(only(self.sets["drop-in"], "DaemonSet"))
        container_of(wrong)["livenesProbe"] = container_of(wrong).pop("livenessProbe")
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)

    def test_against_the_add_on_only_the_image_of_the_drop_in_differs(self):
        addon = json.loads((ROOT / "tests/deployments/addon-iptables/pod.json").read_text())["spec"]
        ours = copy.deepcopy(only(self.sets["drop-in"], "DaemonSet")["spec"]["template"]["spec"])
        (theirs,), (container,) = addon["containers"], ours["containers"]
        self.assertNotEqual(container["image"].split(":")[0], theirs["image"].split(":")[0])
        for mount in container["volumeMounts"]:
            if mount.get("readOnly") is False:
                del mount["readOnly"]
        sort = lambda items: sorted(items, key=lambda item: item["name"])
        # The addresses are a cluster's own.
        theirs["args"] = [re.sub(r"10\.\d+\.0\.10", "10.96.0.10", word) for word in theirs["args"]]
        for field in ["name", "args", "securityContext", "livenessProbe"]:
            self.assertEqual(container[field], theirs[field], field)
        self.assertEqual(sort(container["volumeMounts"]), sort(theirs["volumeMounts"]))
        self.assertEqual(sort(ours["volumes"]), sort(addon["volumes"]))
        for field in ["hostNetwork", "dnsPolicy"]:
            self.assertEqual(ours[field], addon[field], field)
        extra = set(container) - set(theirs) - {"ports", "resources"}
        self.assertEqual(extra, set(), "fields that the add-on does not have")

    def test_the_whole_drop_in_is_the_add_on_but_for_the_image(self):
        self.assertEqual(digest_of(self.sets["drop-in"]), ADDON)
        changed = copy.deepcopy(self.sets["drop-in"])
        only(changed, "Service", "kube-dns-upstream")["spec"]["ports"][0]["port"] = 54
        self.assertNotEqual(digest_of(changed), ADDON)

    def test_the_overlays_are_there(self):
        made = {name.rpartition("/")[2] for name in self.sets if name.startswith("kustomize/overlays/")}
        self.assertEqual(made, {"iptables", "nftables", "ipvs", "cilium-local-redirect", "dual-stack"})

    def test_no_capability_is_there_that_is_not_needed(self):
        for name, _, daemonset in self.each("DaemonSet"):
            if name in ["drop-in", "chart, values of another chart"]:
                continue
            container = container_of(daemonset)
            context = container["securityContext"]
            needed = {"NET_ADMIN", "NET_BIND_SERVICE"}
            if "-firewall=iptables" in container["args"]:
                needed.add("NET_RAW")
            if name == "kustomize/overlays/cilium-local-redirect":
                needed = set()
            with self.subTest(set=name):
                capabilities = context["capabilities"]
                self.assertEqual((capabilities["drop"], set(capabilities.get("add", []))), (["ALL"], needed))
                self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertTrue(context["readOnlyRootFilesystem"])
                self.assertFalse(context["allowPrivilegeEscalation"])
                mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
                self.assertEqual("/run/xtables.lock" in mounts, "NET_RAW" in needed)
                self.assertEqual("-guardian" in container["args"], "NET_RAW" in needed)
                self.assertEqual(container["image"].endswith("-iptables"), "NET_RAW" in needed)

    def test_behind_cilium_the_pod_is_restricted_and_waits_for_no_successor(self):
        pod = only(self.sets["kustomize/overlays/cilium-local-redirect"], "DaemonSet")["spec"]["template"]["spec"]
        container = pod["containers"][0]
        # As the Pod Security Standard `restricted` has it; only the settings that it knows are safe.
        self.assertFalse(any(pod.get(field) for field in ["hostNetwork", "hostPID", "hostIPC"]))
        self.assertLessEqual({next(iter(set(one) - {"name"})) for one in pod["volumes"]}, {"configMap", "emptyDir"})
        self.assertEqual([one["name"] for one in pod["securityContext"]["sysctls"]], ["net.ipv4.ip_unprivileged_port_start"])
        context = container["securityContext"]
        self.assertTrue(context["runAsNonRoot"] and context["runAsUser"] > 0)
        self.assertNotIn("hostPort", json.dumps(container["ports"]))
        # Its network goes with it.
        self.assertIn("-handover=false", container["args"])

    def test_the_chart_makes_what_the_manifest_says(self):
        chart = only(self.sets["chart, as it is"], "DaemonSet")["spec"]
        plain = only(self.sets["kustomize/base"], "DaemonSet")["spec"]
        for field in ["securityContext", "resources", "startupProbe", "readinessProbe", "livenessProbe"]:
            self.assertEqual(*[container_of({"spec": one})[field] for one in [chart, plain]], field)
        for field in ["volumes", "tolerations", "hostNetwork", "dnsPolicy", "priorityClassName", "terminationGracePeriodSeconds"]:
            values = [one["template"]["spec"][field] for one in [chart, plain]]
            if field == "volumes":
                values = [sorted(value, key=lambda volume: volume["name"]) for value in values]
                for value in values:
                    self.assertIn("node-local-dns", value[0]["configMap"].pop("name"))
            self.assertEqual(*values, field)
        self.assertEqual(chart["updateStrategy"], plain["updateStrategy"])

    def test_requests_cover_what_was_measured(self):
        text = (ROOT / "docs/performance.md").read_text()
        cpu = re.search(r"CPU of the server per query.*?\| nodens \| ([0-9.]+) ", text, re.S)
        memory = re.search(r"RSS with 100,000 names, MiB \|.*?\| nodens \|[^|]+\| ([0-9.]+) \| ([0-9.]+) \|", text, re.S)
        idle, full = (float(figure) for figure in memory.groups())
        # The stores of the Corefile: two in each of four blocks.
        names = 4 * 2 * 9984
        requests = container_of(only(self.sets["kustomize/base"], "DaemonSet"))["resources"]["requests"]
        self.assertGreaterEqual(float(requests["memory"].removesuffix("Mi")), idle + (full - idle) * names / 100_000)
        share = float(requests["cpu"].removesuffix("m")) / 1000
        self.assertGreaterEqual(share / (float(cpu[1]) / 1e6), 5000, "hits a second")

    def test_two_pods_fit_on_a_node_wherever_one_overlaps_the_next(self):
        for name, _, daemonset in self.each("DaemonSet"):
            surge = daemonset["spec"]["updateStrategy"].get("rollingUpdate", {}).get("maxSurge", 0)
            with self.subTest(set=name):
                if surge:
                    self.assertNotIn("ports", container_of(daemonset))

    def test_selectors_meet_their_pods_and_volumes_their_mounts(self):
        for name, objects, daemonset in self.each("DaemonSet"):
            template = daemonset["spec"]["template"]
            labels = template["metadata"]["labels"].items()
            with self.subTest(set=name):
                self.assertLessEqual(daemonset["spec"]["selector"]["matchLabels"].items(), labels)
                volumes = {volume["name"] for volume in template["spec"]["volumes"]}
                mounts = {mount["name"] for mount in container_of(daemonset)["volumeMounts"]}
                self.assertEqual(volumes, mounts)
                made = {o["metadata"]["name"] for o in objects if o["kind"] == "ConfigMap"}
                for volume in template["spec"]["volumes"]:
                    source = volume.get("configMap")
                    if source and not source.get("optional"):
                        self.assertIn(source["name"], made)
                accounts = {o["metadata"]["name"] for o in objects if o["kind"] == "ServiceAccount"}
                self.assertIn(template["spec"]["serviceAccountName"], accounts)
                for _, _, service in ((n, o, s) for n, o, s in self.each("Service") if n == name):
                    if service["spec"].get("clusterIP") == "None":
                        self.assertLessEqual(service["spec"]["selector"].items(), labels)

    def test_what_the_command_line_names_is_there(self):
        for name, objects, daemonset in self.each("DaemonSet"):
            args = container_of(daemonset)["args"]
            words = dict(zip(args, args[1:])) | dict(a.split("=", 1) for a in args if "=" in a)
            with self.subTest(set=name):
                services = {o["metadata"]["name"] for o in objects if o["kind"] == "Service"}
                self.assertIn(words["-upstreamsvc"], services | {"kube-dns"})
                corefile = next(o for o in objects if "Corefile" in o.get("data", {}))
                text = corefile["data"]["Corefile"]
                if "bind" in text and words["-localip"] != "0.0.0.0":
                    bound = set(re.search(r"bind (.*)", text).group(1).split())
                    if bound != {"0.0.0.0"}:
                        self.assertEqual(bound, set(words["-localip"].split(",")))
                for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
                    asked = container_of(daemonset).get(probe, {}).get("httpGet")
                    if not asked or "bind" not in text:
                        continue
                    word = asked["path"].strip("/")
                    host = asked.get("host", "")
                    host = f"[{host}]" if ":" in host else host
                    self.assertRegex(text, rf"{word} {re.escape(host)}:{asked['port']}\b")

    def test_the_chart_has_every_value_of_the_one_in_use(self):
        values = yaml.load((CHART / "values.yaml").read_text(), OnceLoader)
        schema = json.loads((CHART / "values.schema.json").read_text())
        for key in DE_FACTO:
            with self.subTest(key=key):
                here, known = values, schema
                for part in key.split("."):
                    here, known = here[part], known["properties"][part]

    def test_what_others_values_say_is_done(self):
        objects = self.sets["chart, values of another chart"]
        corefile = only(objects, "ConfigMap")["data"]["Corefile"]
        self.assertIn(
            "forward . __PILLAR__UPSTREAM__SERVERS__ {\n        max_concurrent 1000\n        policy sequential\n    }", corefile
        )
        self.assertEqual(only(objects, "ConfigMap")["metadata"]["annotations"], {"q": "r"})
        self.assertEqual(set(re.findall(r"bind (.*)", corefile)), {"0.0.0.0"})
        container = container_of(only(objects, "DaemonSet"))
        self.assertIn("-localip=169.254.20.10,10.96.0.10", container["args"])
        self.assertEqual(container["livenessProbe"]["initialDelaySeconds"], 60)
        self.assertEqual(container["livenessProbe"]["httpGet"]["host"], "169.254.20.10")
        self.assertEqual(container["resources"]["limits"], {"memory": "128Mi"})
        monitor = only(objects, "ServiceMonitor")
        self.assertEqual(monitor["metadata"]["namespace"], "monitoring")
        self.assertEqual(monitor["spec"]["namespaceSelector"], {"matchNames": ["kube-system"]})

    def test_the_chart_brings_dashboard_and_rules_as_they_are(self):
        objects = self.sets["chart, everything around it"]
        rules = yaml.load((DEPLOY / "monitoring/rules.yaml").read_text(), OnceLoader)
        self.assertEqual(only(objects, "PrometheusRule")["spec"], rules)
        board = only(objects, "ConfigMap", "dns-cache-dashboard")["data"]["nodens.json"]
        self.assertEqual(json.loads(board), json.loads((DEPLOY / "monitoring/dashboard.json").read_text()))

    def test_the_notes_say_who_asks_it(self):
        with helm.Chart.load(str(CHART)) as chart:
            for values, said in [({}, "10.96.0.10"), ({"config": {"dnsServer": ""}}, "--cluster-dns=169.254.20.10")]:
                files = chart.render(values, name="node-local-dns", namespace="kube-system")
                (notes,) = (text for path, text in files.items() if path.endswith("NOTES.txt"))
                self.assertIn(said, notes)

    def test_every_corefile_is_what_nodens_takes_without_a_warning(self):
        checked = 0
        for name, _, config in self.each("ConfigMap"):
            if "Corefile" in config["data"]:
                with self.subTest(set=name):
                    words = [NODENS, "check", "--strict", "--elsewhere", "-"]
                    ran = subprocess.run(words, input=config["data"]["Corefile"], capture_output=True, text=True)
                    self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
                checked += 1
        self.assertGreater(checked, 15)

    def test_the_chart_lints_and_refuses_unknown_and_wrong_values(self):
        found = helm.lint(str(CHART))
        # Severity 1 only recommends.
        worse = [one for one in found["messages"] if one["severity"] > 1]
        self.assertEqual((worse, found["errors"]), ([], []))
        with helm.Chart.load(str(CHART)) as chart:
            for wrong in [
                {"config": {"localdns": "169.254.20.10"}},
                {"config": {"commProtocol": "tcp"}},
                {"config": {"healthPort": 0}},
                {"image": "nodens"},
            ]:
                with self.subTest(values=wrong), self.assertRaises(helm.HelmError):
                    chart.validate_schema(wrong)


if __name__ == "__main__":
    unittest.main(verbosity=1)
