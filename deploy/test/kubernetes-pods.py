# SPDX-License-Identifier: Apache-2.0
"""Pods that a cluster's controllers would make of rendered manifests, for `podman kube play`, which knows pods, claims and configuration only.

Usage: helm template … | kubernetes-pods.py NAMESPACE CLUSTER_DOMAIN DIRECTORY
Writes claims.json, configuration.json, and for each pod NAME.json and NAME.names: by which names the Services' DNS has it. Prints the pods' names.
"""

import copy
import json
import sys
from pathlib import Path

import yaml


def pods_of_stateful_set(manifest):
    """Stable names, and a claim of its own for each pod and template, as the controller of stateful sets does it."""
    spec = manifest["spec"]
    for ordinal in range(spec["replicas"]):
        name = f"{manifest['metadata']['name']}-{ordinal}"
        pod = pod_of(name, spec["template"])
        pod["spec"]["subdomain"] = spec["serviceName"]
        claims = []
        for template in spec.get("volumeClaimTemplates", []):
            claim = copy.deepcopy(template)
            volume = claim["metadata"]["name"]
            claim["metadata"]["name"] = f"{volume}-{name}"
            claims.append(claim)
            source = {"persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
            pod["spec"]["volumes"].append({"name": volume, **source})
        yield pod, claims


def pod_of(name, template):
    metadata = {**copy.deepcopy(template["metadata"]), "name": name}
    spec = copy.deepcopy(template["spec"])
    # Podman 4.3 starts init containers for ever if it is to start the others so.
    spec.setdefault("restartPolicy", "OnFailure")
    # Podman makes volumes of empty directories, by their bare names; and it publishes ports on the host, where all pods share them.
    empty = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
    for volume in spec["volumes"]:
        if volume["name"] in empty:
            volume["name"] = f"{name}-{volume['name']}"
    for container in spec.get("initContainers", []) + spec["containers"]:
        container.pop("ports", None)
        for mount in container["volumeMounts"]:
            if mount["name"] in empty:
                mount["name"] = f"{name}-{mount['name']}"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def names_of(pod, services, domain):
    """Names that the cluster's DNS gives the pod: of itself under a headless service, of the others' services."""
    labels, name = pod["metadata"]["labels"], pod["metadata"]["name"]
    for service in services:
        spec = service["spec"]
        if not spec["selector"].items() <= labels.items():
            continue
        of_service = f"{service['metadata']['name']}.{domain}"
        if spec.get("clusterIP") == "None":
            if pod["spec"].get("subdomain") == service["metadata"]["name"]:
                yield f"{name}.{of_service}"
        else:
            yield of_service


def documents(manifests):
    return "\n---\n".join(json.dumps(manifest) for manifest in manifests)


def main(namespace, cluster_domain, directory):
    manifests = [manifest for manifest in yaml.safe_load_all(sys.stdin) if manifest]

    def of(kind):
        return [manifest for manifest in manifests if manifest["kind"] == kind]

    target = Path(directory)
    claims = of("PersistentVolumeClaim")
    pods = [pod_of(pod["metadata"]["name"], pod) for pod in of("Pod")]
    for deployment in of("Deployment"):
        pods.append(pod_of(deployment["metadata"]["name"], deployment["spec"]["template"]))
    for stateful_set in of("StatefulSet"):
        for pod, own in pods_of_stateful_set(stateful_set):
            pods.append(pod)
            claims += own
    (target / "claims.json").write_text(documents(claims))
    (target / "configuration.json").write_text(documents(of("ConfigMap")))
    for pod in pods:
        name = pod["metadata"]["name"]
        (target / f"{name}.json").write_text(json.dumps(pod))
        domain = f"{namespace}.svc.{cluster_domain}"
        (target / f"{name}.names").write_text("\n".join(names_of(pod, of("Service"), domain)))
        print(name)


main(*sys.argv[1:])
