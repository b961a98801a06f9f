# SPDX-License-Identifier: Apache-2.0
"""Kubernetes' schemas for kubeconform, which takes files that stand alone, from those inside pip's kubernetes-validate, which refer to one.

Usage: kubernetes-schemas.py VERSION DIRECTORY, e.g. 1.29.0
"""

import json
import sys
from pathlib import Path

import kubernetes_validate

# What the chart renders.
KINDS = [
    "configmap-v1",
    "deployment-apps-v1",
    "networkpolicy-networking-v1",
    "persistentvolumeclaim-v1",
    "pod-v1",
    "poddisruptionbudget-policy-v1",
    "service-v1",
    "statefulset-apps-v1",
]


def standing_alone(schema, shared):
    """The schema with all that it refers to among its own definitions."""
    definitions = {}

    def local(node):
        if isinstance(node, list):
            return [local(item) for item in node]
        if not isinstance(node, dict):
            return node
        target = node.get("$ref")
        if not isinstance(target, str):
            return {key: local(value) for key, value in node.items()}
        name = target.rsplit("/", 1)[1]
        if name not in definitions:
            definitions[name] = None
            definitions[name] = local(shared[name])
        return {**node, "$ref": f"#/definitions/{name}"}

    return {**local({key: value for key, value in schema.items() if key != "$id"}), "definitions": definitions}


def main(version, directory):
    source = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{version}-local-strict"
    shared = json.loads((source / "_definitions.json").read_text())["$defs"]
    target = Path(directory)
    target.mkdir(parents=True)
    for kind in KINDS:
        schema = json.loads((source / f"{kind}.json").read_text())
        (target / f"{kind}.json").write_text(json.dumps(standing_alone(schema, shared)))


main(*sys.argv[1:])
