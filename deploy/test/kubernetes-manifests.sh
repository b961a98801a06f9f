#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the chart renders with each values file is what Kubernetes takes: helm lint, kubeconform, kubernetes-validate.
# Usage: kubernetes-manifests.sh PYTHON: one with what deploy/test/requirements.txt lists. Needs helm and kubeconform on the PATH.
set -euo pipefail

[ $# -eq 1 ] || {
  echo 'Usage: kubernetes-manifests.sh PYTHON' >&2
  exit 2
}
python="$1"
validate="$(dirname "$python")/kubernetes-validate"
here="$(cd "$(dirname "$0")" && pwd)"
chart="$here/../kubernetes/cloister"
# The oldest that the chart takes, and a newer one.
versions=(1.29.0 1.36.0)
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# What no values file turns on.
everything='--set provisioning.enabled=true,metrics.serviceMonitor.enabled=true,networkPolicy.clients[0]=192.0.2.0/24'
# The operator's kind, which Kubernetes has no schema of; vitest looks at it.
skip=(-skip ServiceMonitor)
for version in "${versions[@]}"; do
  "$python" "$here/kubernetes-schemas.py" "$version" "$work/schemas/v$version-standalone-strict"
done
helm lint --strict --quiet "$chart"
for values in "$chart"/values*.yaml; do
  name="$(basename "$values" .yaml)"
  helm lint --strict --quiet "$chart" --values "$values"
  for version in "${versions[@]}"; do
    : >"$work/$name.yaml"
    for options in '' "$everything"; do
      # shellcheck disable=SC2086 # words
      helm template trial "$chart" --namespace trial --values "$values" --kube-version "$version" $options >>"$work/$name.yaml"
      echo --- >>"$work/$name.yaml"
    done
    kubeconform -strict -summary -kubernetes-version "$version" "${skip[@]}" \
      -schema-location "$work/schemas/{{ .NormalizedKubernetesVersion }}-standalone{{ .StrictSuffix }}/{{ .ResourceKind }}{{ .KindSuffix }}.json" \
      "$work/$name.yaml" >"$work/summary" || {
      cat "$work/summary" >&2
      exit 1
    }
    "$validate" --strict --quiet --no-warn --kubernetes-version "$version" "$work/$name.yaml"
    echo "$name, Kubernetes $version: $(cat "$work/summary")"
  done
done
