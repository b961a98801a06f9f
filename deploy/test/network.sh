#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Server and two workers in three network namespaces: first over links of 25 ms ± 5 ms with 2 % loss, then with a link that is cut for half
# a minute. Both jobs finish. Needs root, ip, /dev/net/tun, python3 and a build (npm run build).
# Usage: network.sh TUNLINK: a program that links two namespaces; arguments NS_A CIDR_A NS_B CIDR_B DELAY_MS JITTER_MS LOSS_% SECONDS.
set -euo pipefail

[ $# -eq 1 ] || {
  echo 'Usage: network.sh TUNLINK.py' >&2
  exit 2
}
tunlink="$1"
root="$(cd "$(dirname "$0")/../.." && pwd)"
main="$root/dist/main.js"
prefix="cl$$"
work="$(mktemp -d)"
children=()
updates="${UPDATES:-60}"

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
fail() {
  printf 'network.sh: %s\n' "$1" >&2
  tail -n 15 "$work"/*/*.log >&2 || true
  exit 1
}
# shellcheck disable=SC2329 # called by the trap
clean() {
  for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
  wait 2>/dev/null || true
  for name in s a b; do ip netns delete "$prefix$name" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean EXIT

for name in s a b; do
  ip netns add "$prefix$name"
  ip -n "$prefix$name" link set lo up
done
node "$main" data synthesize cifar10 "$work/data" --records 200
cat >"$work/job.json" <<EOF
{"workload": "image-classification", "seed": 3, "workers": 2,
 "model": {"name": "resnet", "layers": 8}, "data": {"name": "cifar-10", "augment": false},
 "training": {"batchSize": 8, "updates": $updates, "learningRate": {"schedule": "constant", "rate": 0.02}}}
EOF

within() { ip netns exec "$prefix$1" "${@:2}"; }
background() { # FILE COMMAND...
  "${@:2}" >"$1" 2>&1 </dev/null &
  children+=("$!")
}
await() { # FILE PATTERN SECONDS
  local until=$((SECONDS + $3))
  until grep -q "$2" "$1" 2>/dev/null; do
    ! grep -h FAILED "$work"/*/*.log 2>/dev/null || fail 'a process failed'
    [ "$SECONDS" -lt "$until" ] || fail "expected $2 in $1 within $3 seconds"
    sleep 0.2
  done
}
link() { # WORKER NUMBER DELAY JITTER LOSS SECONDS
  background "$work/link$1" python3 "$tunlink" "${prefix}s" "10.99.$2.1/24" "$prefix$1" "10.99.$2.2/24" "$3" "$4" "$5" "$6"
  await "$work/link$1" ready 10
}
# Every namespace serves the platform's collateral to its own process: what is tested is the job's connection.
platform() { # NAMESPACE
  background "$work/pccs$1" ip netns exec "$prefix$1" node "$main" platform serve "$work/platform" --port 8081
  await "$work/pccs$1" PCCS 20
}
platform s
platform a
platform b
node "$main" policy init --root "$work/platform/root.pem" --root-name simulated >"$work/policy.json"

train() { # NAME
  local out="$work/$1" job
  job=(--job "$work/job.json" --set "admission=$(cat "$work/policy.json")" --set "training.updates=$updates"
    --platform simulated --platform-directory "$work/platform" --pccs http://127.0.0.1:8081/sgx/certification/v4/
    --data "$work/data" --threads 1)
  background "$work/$1.s" ip netns exec "${prefix}s" node "$main" server "${job[@]}" --listen 0.0.0.0:9000 --out "$out/s"
  server="${children[-1]}"
  background "$work/$1.a" ip netns exec "${prefix}a" node "$main" worker "${job[@]}" --index 0 --connect 10.99.1.1:9000 --out "$out/a"
  background "$work/$1.b" ip netns exec "${prefix}b" node "$main" worker "${job[@]}" --index 1 --connect 10.99.2.1:9000 --out "$out/b"
}
finished() { # NAME SECONDS
  local until=$((SECONDS + $2))
  while kill -0 "$server" 2>/dev/null; do
    [ "$SECONDS" -lt "$until" ] || { tail -n 15 "$work/$1"/*/*.log >&2; fail "$1: expected the end within $2 seconds"; }
    sleep 0.5
  done
  wait "$server" || { tail -n 15 "$work/$1"/*/*.log >&2; fail "$1: the server ended with status $?"; }
  # shellcheck disable=SC2016 # a template of JavaScript
  node -e '
    const { steps, seconds } = JSON.parse(require("fs").readFileSync(process.argv[1]))
    if (steps !== Number(process.argv[2])) throw new Error(`expected ${process.argv[2]} updates, got ${steps}`)
    console.log(`${steps} updates in ${seconds.toFixed(1)} s`)' "$work/$1/s/result.json" "$updates"
}

step '25 ms ± 5 ms, 2 % loss'
link a 1 25 5 2 1200
link b 2 25 5 2 1200
within a ping -q -c 20 -i 0.2 -W 1 10.99.1.1 2>/dev/null | tail -n 2 || true
train slow
finished slow 600

step 'a link cut for 30 s'
updates="${CUT_UPDATES:-400}"
train cut
await "$work/cut/b/worker1.log" 'step: ' 120
device="$(ip -n "${prefix}b" -br link show type tun | awk '{ print $1; exit }')"
ip -n "${prefix}b" link set "$device" down
echo "cut after $(grep -c 'step: ' "$work/cut/b/worker1.log") steps of this worker"
sleep 30
ip -n "${prefix}b" link set "$device" up
before="$(grep -c 'step: ' "$work/cut/b/worker1.log")"
finished cut 600
after="$(grep -c 'step: ' "$work/cut/b/worker1.log")"
echo "worker 1 after the cut: $((after - before)) steps"
step 'done'
