"""Builds the overlays of deploy/kustomize as kustomize does, for the part of it that they use:
resources, images, and JSON patches (RFC 6902) with a target. Anything else is an error."""

import copy
import pathlib

import yaml


class Wrong(Exception):
    """What a kustomization has and this reader, or kustomize, would not take."""


def build(folder: pathlib.Path) -> list[dict]:
    """All objects of a kustomization, patched."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(said) - {"apiVersion", "kind", "resources", "patches", "images"}
    if unknown:
        raise Wrong(f"{folder}: not understood: {sorted(unknown)}")
    objects: list[dict] = []
    for resource in said["resources"]:
        path = (folder / resource).resolve()
        if path.is_dir():
            objects += build(path)
        elif folder.resolve() in path.parents:
            objects += [one for one in yaml.safe_load_all(path.read_text()) if one]
        else:
            raise Wrong(f"{folder}: {resource} is a file outside of it")
    for patch in said.get("patches", []):
        apply(objects, patch, folder)
    for image in said.get("images", []):
        if not rename(objects, image):
            raise Wrong(f"{folder}: no container has the image {image['name']}")
    return objects


def apply(objects: list[dict], patch: dict, folder: pathlib.Path) -> None:
    target = patch["target"]
    found = [
        one
        for one in objects
        if one["kind"] == target["kind"] and one["metadata"]["name"] == target["name"]
    ]
    if len(found) != 1:
        raise Wrong(f"{folder}: {len(found)} objects are {target}")
    text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
    for operation in yaml.safe_load(text):
        change(found[0], operation, folder)


def change(document, operation: dict, folder: pathlib.Path) -> None:
    """One operation of RFC 6902, section 4."""
    *parents, last = [
        part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
    ]
    here = document
    for part in parents:
        here = here[int(part)] if isinstance(here, list) else here[part]
    key = last
    if isinstance(here, list):
        key = len(here) if last == "-" else int(last)
    there = key < len(here) if isinstance(here, list) else key in here
    kind = operation["op"]
    if kind == "add":
        value = copy.deepcopy(operation["value"])
        if isinstance(here, list):
            here.insert(key, value)
        else:
            here[key] = value
        return
    if not there:
        raise Wrong(f"{folder}: nothing at {operation['path']}")
    if kind == "replace":
        here[key] = copy.deepcopy(operation["value"])
    elif kind == "remove":
        del here[key]
    elif kind == "test":
        if here[key] != operation["value"]:
            raise Wrong(f"{folder}: {operation['path']} is {here[key]!r}")
    else:
        raise Wrong(f"{folder}: operation {kind}")


def rename(objects: list[dict], image: dict) -> bool:
    done = False
    for one in objects:
        pod = one.get("spec", {}).get("template", {}).get("spec", {}) if one["kind"] == "DaemonSet" else {}
        for container in pod.get("containers", []) + pod.get("initContainers", []):
            if container["image"].rsplit(":", 1)[0] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
                done = True
    return done
