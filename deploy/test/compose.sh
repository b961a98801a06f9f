#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The job of compose.yaml, shortened, runs to its end with podman-compose. Needs the image (containers.sh builds it); leaves nothing behind.
# Usage: compose.sh [IMAGE]
set -euo pipefail

cd "$(dirname "$0")/../.."
export CLOISTER_IMAGE="${1:-localhost/horizontal_fl:default_image_classification_test}"
CLOISTER_JOB_SET="$(printf 'training.updates=20\ntraining.batchSize=8\ntraining.evaluateEvery=0')"
export CLOISTER_JOB_SET
project="cloister-compose-$$"
compose() { podman-compose --project-name "$project" "$@"; }
trap 'compose down --volumes >/dev/null 2>&1' EXIT

compose up --detach pccs ps0 worker0 worker1
for name in ps0 worker0 worker1; do
  status="$(timeout 300 podman wait "${project}_${name}_1")"
  [ "$status" = 0 ] || {
    podman logs --tail 20 "${project}_${name}_1" >&2
    echo "compose.sh: $name: expected to end with status 0, got $status" >&2
    exit 1
  }
  echo "$name ended with status 0"
done
