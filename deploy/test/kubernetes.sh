#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the chart renders for the simulated platform runs in `podman kube play`: servers (SERVERS, 2) and two workers train a small job to "training
# finished", while a follower, a worker and the leader are rolled in mid-job. No cluster is needed; what its controllers would do, kubernetes-pods.py does.
# Needs the image (containers.sh builds it), helm, and a Python with PyYAML (.ci/run brings both). Leaves nothing behind.
# Usage: kubernetes.sh [IMAGE]
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
cache="${CLOISTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cloister}"
export PATH="$PATH:$cache/test-kubernetes"
python="${CLOISTER_TEST_LINTERS_PYTHON:-$cache/test-linters/bin/python}"
image="${1:-localhost/horizontal_fl:default_image_classification_test}"
updates="${UPDATES:-1500}"
servers="${SERVERS:-2}"
release="kube$$"
name="$release-cloister"
network="$release-net"
work="$(mktemp -d)"
pods=()

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
fail() {
  printf 'kubernetes.sh: %s\n' "$1" >&2
  for pod in "${pods[@]}"; do
    printf -- '--- %s\n' "$pod" >&2
    podman pod logs --tail 15 "$pod" >&2 || true
  done
  exit 1
}
# shellcheck disable=SC2329 # called by the trap
clean() {
  for pod in "${pods[@]}"; do podman pod rm --force "$pod" >/dev/null 2>&1 || true; done
  podman volume ls --quiet | { grep -e "$name" || true; } | xargs --no-run-if-empty podman volume rm >/dev/null 2>&1 || true
  podman network rm "$network" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean EXIT
command -v helm >/dev/null || fail "helm is neither on the PATH nor in $cache/test-kubernetes"
podman image exists "$image" || fail "no image $image: deploy/test/containers.sh builds it"

# As a controller makes a pod; what it needs of the release is there.
play() { # POD
  local names
  names="$(sed 's/^/alias=/' "$work/$1.names" | paste -sd,)"
  podman kube play --quiet --network "$network:$names" --configmap "$work/configuration.json" "$work/$1.json" >"$work/play.log" 2>&1 || {
    cat "$work/play.log" >&2
    fail "$1 does not start"
  }
}
within() { # PARTY-ORDINAL COMMAND...
  podman exec "$name-$1-${1%-*}" "${@:2}"
}
await() { # PARTY-ORDINAL PATTERN SECONDS
  local until=$((SECONDS + $3))
  until podman logs "$name-$1-${1%-*}" 2>&1 | grep -q "$2"; do
    [ "$SECONDS" -lt "$until" ] || fail "$1: expected $2 in its log within $3 seconds"
    sleep 0.5
  done
}
# How far the job is, by the leader's log on its volume.
reached() { within server-0 sed -n 's/.* update: \([0-9]*\),.*/\1/p' server.log 2>/dev/null | tail -n 1; }
await_update() { # NUMBER SECONDS
  local until=$((SECONDS + $2))
  until [ "$(reached || true)" -ge "$1" ] 2>/dev/null; do
    [ "$SECONDS" -lt "$until" ] || fail "expected update $1 within $2 seconds, got $(reached || true)"
    sleep 0.5
  done
}
# What a rolling update does to each pod: asked to end, waited for, deleted, made anew with its name and its claim.
roll() { # PARTY-ORDINAL
  local container="$name-$1-${1%-*}" status
  podman stop --time 120 "$container" >/dev/null
  status="$(podman container inspect --format '{{ .State.ExitCode }}' "$container")"
  [ "$status" = 130 ] || fail "$1: expected status 130 of a process that was asked to end, got $status"
  podman pod rm --force "$name-$1" >/dev/null
  podman volume ls --quiet | { grep -e "^$name-$1-" || true; } | xargs --no-run-if-empty podman volume rm >/dev/null
  play "$name-$1"
  echo "$1 ended with status $status and is back"
}

step "the chart, rendered for $image"
job='{"workload": "image-classification", "seed": 3, "servers": '"$servers"', "workers": 2,
  "model": {"name": "resnet", "layers": 8}, "data": {"name": "cifar-10", "augment": false},
  "training": {"batchSize": 8, "updates": '"$updates"', "learningRate": {"schedule": "constant", "rate": 0.02}}}'
helm template "$release" "$here/../kubernetes/cloister" --namespace fl --kube-version 1.36.0 \
  --values "$here/../kubernetes/cloister/values-simulated.yaml" \
  --set "image.repository=${image%:*},image.tag=${image##*:}" --set jobSettings=null --set-json "job=$job" >"$work/release.yaml"
"$python" "$here/kubernetes-pods.py" fl cluster.local "$work" <"$work/release.yaml" >"$work/pods"

step 'the pods'
podman network create "$network" >/dev/null
podman kube play --quiet "$work/claims.json" >/dev/null
# The test is started when the others are well, as helm does.
mapfile -t pods < <(grep -v -e '-test$' "$work/pods")
for pod in "${pods[@]}"; do play "$pod"; done
mapfile -t parties < <(sed -n "s/^$name-\(\(server\|worker\)-[0-9]*\)\$/\1/p" "$work/pods")
await server-0 'listening on' 120

step 'a follower, a worker and the leader are rolled'
await_update $((updates / 10)) 180
[ "$servers" = 1 ] || roll server-1
await_update $((updates * 2 / 10)) 180
roll worker-1
await worker-1 'step: ' 120
before="$(reached)"
roll server-0
await_update $((before + updates / 10)) 180

step 'the end'
for party in "${parties[@]}"; do
  await "$party" 'training finished' 300
  podman logs "$name-$party-${party%-*}" 2>&1 | grep 'training finished'
done
steps="$(within server-0 node -p 'JSON.parse(fs.readFileSync("result.json")).steps')"
[ "$steps" = "$updates" ] || fail "expected $updates updates in result.json, got $steps"
within server-0 sed -n 's/.* update: \([0-9]*\),.*/\1/p' server.log >"$work/updates"
sort --numeric-sort --unique "$work/updates" | cmp - <(seq "$updates") || fail 'an update is missing in the log of the leader'
again=$(($(wc -l <"$work/updates") - updates))
echo "$steps updates, none missing, $again computed again"
# One server saves where it is when it is asked to end. Several go back to the newest step that all of them have.
[ "$servers" -gt 1 ] || [ "$again" = 0 ] || fail 'expected the only server to go on where it was'

step 'helm test'
pods+=("$name-test")
play "$name-test"
[ "$(podman wait "$name-test-health")" = 0 ] || fail 'helm test fails'
podman logs "$name-test-health"

step 'a pod that is done and comes back'
podman pod rm --force "$name-server-0" >/dev/null
play "$name-server-0"
await server-0 'finished this job before' 60
podman logs "$name-server-0-server"

step 'done'
