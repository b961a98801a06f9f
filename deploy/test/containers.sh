#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Servers and two workers in containers of their own on a bridge network, started with the scripts of deploy/docker, train a small job to its
# end on the simulated platform; a worker and the last server are killed on the way and come back. Needs podman and no image registry: the
# base is made with mmdebstrap.
# Usage: [SERVERS=2] containers.sh [IMAGE]: builds the image unless one is named. Leaves nothing behind but images.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
docker="$here/../docker"
export CLOISTER_DOCKER="${CLOISTER_DOCKER:-podman}"
cache="${CLOISTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cloister}/containers"
ours="cloister-test-$$"
updates="${UPDATES:-6000}"
count="${SERVERS:-1}"
servers=()
addresses=()
for ((number = 0; number < count; number++)); do
  servers+=("ps$number")
  addresses+=("ps$number:9000")
done
last="ps$((count - 1))"
parties=("${servers[@]}" worker0 worker1)

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
fail() {
  printf 'containers.sh: %s\n' "$1" >&2
  for name in pccs "${parties[@]}"; do
    printf -- '--- %s\n' "$name" >&2
    "$CLOISTER_DOCKER" exec "$name" sh -c 'tail -n 20 ./*.log ./*.out' >&2 || true
  done
  exit 1
}

work="$(mktemp -d)"
created=()
# shellcheck disable=SC2329 # called by the trap
clean() {
  for name in "${created[@]}"; do
    "$CLOISTER_DOCKER" rm --force --volumes "$name" >/dev/null 2>&1 || true
    "$CLOISTER_DOCKER" volume rm "cloister-$name-run" "cloister-$name-state" >/dev/null 2>&1 || true
  done
  "$CLOISTER_DOCKER" volume rm cloister-platform >/dev/null 2>&1 || true
  "$CLOISTER_DOCKER" network rm "$ours" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean EXIT

for name in pccs "${parties[@]}"; do
  if "$CLOISTER_DOCKER" container inspect "$name" >/dev/null 2>&1; then
    trap 'rm -rf "$work"' EXIT
    echo "containers.sh: a container $name is there already; this test would replace it" >&2
    exit 1
  fi
done

if [ $# -ge 1 ]; then
  image="$1"
else
  step 'base images, of packages alone'
  mkdir -p "$cache"
  if ! "$CLOISTER_DOCKER" image inspect localhost/cloister-base >/dev/null 2>&1; then
    [ -s "$cache/base.tar" ] || mmdebstrap --quiet --variant=minbase --include=ca-certificates,libstdc++6 bookworm "$cache/base.tar"
    "$CLOISTER_DOCKER" import "$cache/base.tar" localhost/cloister-base >/dev/null
  fi
  # What the official image of Node has: node and npm under /usr/local.
  context="$work/node"
  mkdir -p "$context/lib/node_modules" "$context/bin"
  cp "$(node -p process.execPath)" "$context/bin/node"
  cp -rL "$(npm root --global)/npm" "$context/lib/node_modules/npm"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$context/bin/npm"
  printf 'FROM localhost/cloister-base\nCOPY . /usr/local/\n' >"$work/Dockerfile"
  "$CLOISTER_DOCKER" build --quiet --file "$work/Dockerfile" --tag localhost/cloister-node "$context" >/dev/null

  step 'image'
  export CLOISTER_PLATFORM=simulated CLOISTER_TAG=test CLOISTER_BUILD_OPTIONS='--network host'
  export CLOISTER_BASE_IMAGE=localhost/cloister-base CLOISTER_NODE_IMAGE=localhost/cloister-node
  if [ -n "${NODE_EXTRA_CA_CERTS:-}" ]; then export CLOISTER_CA="$NODE_EXTRA_CA_CERTS"; fi
  "$docker/build_docker_image.sh" image_classification default
  image=localhost/horizontal_fl:default_image_classification_test
fi

step "$((count + 2)) containers and the platform"
"$CLOISTER_DOCKER" network create "$ours" >/dev/null
export CLOISTER_NETWORK="$ours" CLOISTER_DATASET="$work/data/images" CLOISTER_JOB="$work/job.json"
cat >"$CLOISTER_JOB" <<EOF
{"workload": "image-classification", "seed": 3, "workers": 2, "servers": $count,
 "model": {"name": "resnet", "layers": 8}, "data": {"name": "cifar-10", "augment": false},
 "training": {"batchSize": 8, "updates": $updates, "learningRate": {"schedule": "constant", "rate": 0.02}}}
EOF
mkdir "$work/data"
chmod 755 "$work"
chmod 777 "$work/data"
"$CLOISTER_DOCKER" run --rm --network none --volume "$work/data:/dataset" "$image" data synthesize cifar10 /dataset/images --records 400
created+=(pccs)
"$docker/start_container.sh" pccs "$image"
pccs_ip="$("$CLOISTER_DOCKER" container inspect --format "{{ (index .NetworkSettings.Networks \"$ours\").IPAddress }}" pccs)"
for name in "${parties[@]}"; do
  created+=("$name")
  "$docker/start_container.sh" "$name" "$image" "$pccs_ip"
done
"$docker/start_container.sh" ps0 "$image" | grep -q 'runs already' || fail 'a second start is not harmless'

run() { "$CLOISTER_DOCKER" exec "$1" test-sgx.sh "$1" "${addresses[@]}"; }
run pccs
began="$(date +%s%N)"
for name in "${parties[@]}"; do run "$name"; done
run worker1 | grep -q 'runs already' || fail 'a second test-sgx.sh is not harmless'

# Waits until a file of a container matches.
await() { # CONTAINER FILE PATTERN SECONDS
  local until=$((SECONDS + $4))
  until "$CLOISTER_DOCKER" exec "$1" grep -q "$3" "$2" 2>/dev/null; do
    "$CLOISTER_DOCKER" exec "$1" sh -c '! grep -h FAILED ./*.log' || fail "$1 failed"
    [ "$SECONDS" -lt "$until" ] || fail "$1: expected $3 in $2 within $4 seconds"
    sleep 0.2
  done
}
await worker0 worker0.log 'step: ' 120
echo "first step $((($(date +%s%N) - began) / 1000000)) ms after the server's start"

step 'worker1 is killed and restarted'
await worker1 worker1.log 'step: ' 60
for name in "${servers[@]}"; do "$CLOISTER_DOCKER" exec "$name" container-health.sh; done
"$CLOISTER_DOCKER" kill worker1 >/dev/null
"$docker/start_container.sh" worker1 "$image"
run worker1

step "$last is killed and restarted"
log="server${last#ps}.log"
[ "$last" != ps0 ] || log=server.log
await "$last" "$log" 'checkpoint of step' 60
"$CLOISTER_DOCKER" kill --signal KILL "$last" >/dev/null
"$docker/start_container.sh" "$last" "$image"
run "$last"
await "$last" "$log" 'resumed at step' 60

step 'the end'
await ps0 server.log 'finished' 240
await worker0 worker0.log 'finished: ' 60
await worker1 worker1.log 'finished: ' 60

step 'files lie where the reference has them'
variables=variables.safetensors
[ "$count" = 1 ] || variables="variables-$count-of-$count.safetensors"
for file in ps0:ps0-gramine-python.log "$last:model/$variables" worker0:worker0-gramine-python.log \
  worker0:model/graph.pb worker1:worker1-gramine-python.log ps0:result.json; do
  "$CLOISTER_DOCKER" exec "${file%%:*}" test -s "/image_classification/${file#*:}" || fail "no /image_classification/${file#*:} in ${file%%:*}"
  echo "${file%%:*}: /image_classification/${file#*:}"
done
steps="$("$CLOISTER_DOCKER" exec ps0 node -p 'JSON.parse(fs.readFileSync("result.json")).steps')"
[ "$steps" = "$updates" ] || fail "expected $updates updates in result.json, got $steps"

step 'done'
"$CLOISTER_DOCKER" image inspect --format '{{ .Size }}' "$image" | awk '{ printf "image: %.0f MB\n", $1 / 1e6 }'
