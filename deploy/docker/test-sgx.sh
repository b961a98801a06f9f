#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts one role of the job in this container, as the reference system's script of the same name does: in the background, with its
# log and model/ in the workload's directory. It only finds the files and calls `cloister`.
set -eu

name="$(basename "$0")"
usage() {
  cat <<EOF
Usage: $name ROLE [SERVER_ADDRESS...]
  ROLE             ps0, ps1, …, worker0, worker1, …; pccs serves the collateral of a simulated platform;
                   make prints the job as this container would run it, and its digest
  SERVER_ADDRESS   host:port of ps0, then of ps1, … where the job has several servers (default: localhost:9000);
                   a server listens on the port of its own, or of the last that is named

Environment:
  CLOISTER_JOB         job file (default: job.json in the workload's directory, else the workload's example)
  CLOISTER_JOB_SET     changes to it, one PATH=VALUE a line, e.g. training.updates=200
  CLOISTER_DATASET     data directory (default: the reference's place, else what \`cloister\` finds)
  CLOISTER_FOREGROUND  1: stay in the foreground and end with the role's exit status
  CLOISTER_METRICS     host:port for Prometheus (default: no metrics)
  CLOISTER_HEALTH_LISTEN  host:port for gRPC probes (default: ps0 0.0.0.0:9001, ps1 0.0.0.0:9011, …, workers none)
  CLOISTER_THREADS     threads of this process (default: all cores)
  CLOISTER_PCCS        URL of the PCCS (default: /etc/sgx_default_qcnl.conf; simulated: that of pccs.service.com)

A role that runs already is left alone; one that ran before goes on from what it saved.
EOF
}

fail() {
  printf '%s: %s\n' "$name" "$1" >&2
  printf '  → %s\n' "$2" >&2
  exit "${3:-1}"
}

case "${1:-}" in
  -h | --help) usage && exit 0 ;;
  '') usage >&2 && exit 2 ;;
esac

role="$1"
shift
[ $# -gt 0 ] || set -- localhost:9000
workload="${CLOISTER_WORKLOAD:-image_classification}"
platform="${CLOISTER_PLATFORM:-enclave}"
home="${CLOISTER_DIRECTORY:-/$workload}"
state="${CLOISTER_PLATFORM_DIRECTORY:-/var/lib/cloister/platform}"
enclave="${CLOISTER_ENCLAVE_DIRECTORY:-/opt/enclave}"
root="${CLOISTER_TEST_ROOT:-}"

index=''
case "$role" in
  ps0) index=0 && source=server ;;
  ps[1-9] | ps[1-9][0-9] | ps[1-9][0-9][0-9]) index="${role#ps}" && source="server$index" ;;
  worker[0-9] | worker[1-9][0-9] | worker[1-9][0-9][0-9]) index="${role#worker}" && source="$role" ;;
  pccs | make) source="$role" ;;
  *) fail "expected ps0, ps1, …, worker0, worker1, … as ROLE, got $role" "$name --help lists the roles." 2 ;;
esac
leader="$1"
addresses=''
port=''
position=0
for address in "$@"; do
  case "$address" in
    *[!][a-zA-Z0-9.:_-]*) valid=no ;;
    *:*[0-9]) valid=yes ;;
    *) valid=no ;;
  esac
  [ "$valid" = yes ] || fail "expected host:port as SERVER_ADDRESS, got $address" "For example: $name $role ps0.example:9000" 2
  addresses="$addresses${addresses:+ }$address"
  [ "$position" -gt "${index:-0}" ] || port="${address##*:}"
  position=$((position + 1))
done
case "$platform" in
  simulated | enclave) ;;
  *) fail "CLOISTER_PLATFORM: expected simulated or enclave, got $platform" 'The image sets it: do not change it.' 2 ;;
esac
command -v cloister >/dev/null || fail 'cloister is not on PATH' 'Run this inside a container of the image: docker exec -it NAME bash.'
[ -w "$home" ] || mkdir -p "$home" 2>/dev/null || true
[ -w "$home" ] ||
  fail "$home cannot be written by user $(id -u)" "Mount a volume there that this user may write: start_container.sh does."
cd "$home"

# What runs already stays.
pid_file="$home/.$role.pid"
if [ "$role" != make ] && [ -s "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null &&
  grep -qsz "^CLOISTER_ROLE=$role\$" "/proc/$(cat "$pid_file")/environ"; then
  echo "$role runs already (process $(cat "$pid_file")); its log: $home/$source.log"
  exit 0
fi

if [ "$platform" = enclave ] && [ "$role" != make ]; then
  [ "$role" != pccs ] || fail 'this image has no simulated platform' 'Use the PCCS of your cloud or your own: docs/deployment.md.'
  [ -e "$root/dev/sgx/enclave" ] || [ -e "$root/dev/sgx_enclave" ] ||
    fail 'no SGX device in this container' 'Start it with start_container.sh on a machine for which cloister doctor finds nothing missing.'
  [ -e "$root/var/run/aesmd/aesm.socket" ] ||
    fail 'no /var/run/aesmd/aesm.socket in this container' 'On the host: systemctl start aesmd; then start the container anew.'
fi

# --- the job: the same for all, with a policy
case "$workload" in
  image_classification) example=image-classification.json && dataset="$home/cifar-10-batches-bin" ;;
  recommendation_system) example=recommendation.json && dataset="$home/dataset" ;;
  *) fail "CLOISTER_WORKLOAD: expected image_classification or recommendation_system, got $workload" 'The image sets it.' 2 ;;
esac
job="${CLOISTER_JOB:-$home/job.json}"
[ -n "${CLOISTER_JOB:-}" ] || [ -e "$job" ] || job="/opt/cloister/examples/$example"
[ -r "$job" ] || fail "$job: expected the job file, it cannot be read" 'Mount it, or name another with CLOISTER_JOB.'
if [ "$platform" = simulated ] && [ "$role" != pccs ]; then
  tries=0
  until [ -s "$state/root.pem" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 30 ] ||
      fail "no simulated platform in $state" "Start it first: $name pccs, in a container with the same volume there."
    sleep 1
  done
fi

set --
while IFS= read -r setting; do
  [ -z "$setting" ] || set -- "$@" --set "$setting"
done <<EOF
${CLOISTER_JOB_SET:-}
EOF
if ! grep -q '"admission"' "$job"; then
  if [ "$platform" = simulated ] && [ "$role" != pccs ]; then
    policy="$(cloister policy init --root "$state/root.pem" --root-name simulated)"
  else
    policy="$(cloister policy init)"
  fi
  set -- "$@" --set "admission=$policy"
fi
if [ "$role" = make ]; then
  exec cloister job check "$job" "$@"
fi

health="${CLOISTER_HEALTH_LISTEN:-}"
case "$role" in ps*) health="${health:-0.0.0.0:$((9001 + 10 * index))}" ;; esac

# --- the deployment: what this host decides. An enclave reads it from files; its arguments are fixed
qcnl=/etc/sgx_default_qcnl.conf
if [ "$platform" = enclave ]; then
  mkdir -p config model checkpoints
  cloister job check "$job" "$@" --out config/job.json >/dev/null
  collateral=''
  if [ -n "${CLOISTER_PCCS:-}" ]; then
    collateral="$(printf ', "collateral": {"pccs": "%s"}' "$CLOISTER_PCCS")"
  elif [ -r "$qcnl" ]; then
    cp "$qcnl" config/sgx_default_qcnl.conf
    collateral=', "collateral": {"qcnl": "config/sgx_default_qcnl.conf"}'
  fi
  metrics=''
  if [ -n "${CLOISTER_METRICS:-}" ]; then
    metrics="$(printf ', "metrics": {"host": "%s", "port": %s}' "${CLOISTER_METRICS%:*}" "${CLOISTER_METRICS##*:}")"
  fi
  kind=worker
  server=''
  case "$role" in
    ps*)
      kind=server
      server="$(printf ', "listen": {"host": "0.0.0.0", "port": %s}' "$port")"
      ;;
  esac
  if [ -n "$health" ]; then
    server="$server$(printf ', "health": {"host": "%s", "port": %s}' "${health%:*}" "${health##*:}")"
  fi
  # shellcheck disable=SC2086 # addresses have no blanks
  quoted="$(printf '"%s", ' $addresses)"
  printf '{"process": {"role": "%s", "index": %s}, "server": {"addresses": [%s]%s}%s%s}\n' \
    "$kind" "$index" "${quoted%, }" "$server" "$collateral" "$metrics" >config/deployment.json
  cd "$enclave"
  set -- gramine-sgx cloister
else
  set -- --job "$job" "$@" --out "$home"
  dataset="${CLOISTER_DATASET:-$dataset}"
  [ ! -d "$dataset" ] || set -- "$@" --data "$dataset"
  [ -z "${CLOISTER_THREADS:-}" ] || set -- "$@" --threads "$CLOISTER_THREADS"
  [ -z "${CLOISTER_METRICS:-}" ] || set -- "$@" --metrics "$CLOISTER_METRICS"
  [ -z "$health" ] || set -- "$@" --health "$health"
  set -- "$@" --pccs "${CLOISTER_PCCS:-http://pccs.service.com:${CLOISTER_PCCS_PORT:-8081}/sgx/certification/v4/}"
  set -- "$@" --platform simulated --platform-directory "$state" --platform-machine "$source"
  [ ! -e "$home/$source.log" ] || set -- "$@" --resume
  case "$role" in
    ps*)
      set -- cloister server "$@" --index "$index" --listen "0.0.0.0:$port"
      [ "$index" -eq 0 ] || set -- "$@" --connect "$leader"
      ;;
    pccs) set -- cloister platform serve "$state" --host 0.0.0.0 --port "${CLOISTER_PCCS_PORT:-8081}" ;;
    *)
      set -- cloister worker "$@" --index "$index"
      for address in $addresses; do set -- "$@" --connect "$address"; done
      ;;
  esac
fi

# --- the reference's names of the logs
if [ "$role" != pccs ]; then
  [ "$source" = "$role" ] || ln -sf "$source.log" "$home/$role.log"
  [ "$workload" != image_classification ] || ln -sf "$source.log" "$home/$role-gramine-python.log"
fi

if [ "${CLOISTER_FOREGROUND:-0}" = 1 ]; then
  echo "$$" >"$pid_file"
  exec env "CLOISTER_ROLE=$role" ${health:+"CLOISTER_HEALTH_LISTEN=$health"} "$@"
fi
output="$home/$role.out"
env "CLOISTER_ROLE=$role" ${health:+"CLOISTER_HEALTH_LISTEN=$health"} nohup "$@" >"$output" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pid_file"
# A role that cannot start says so within seconds: a port that is taken, a job that is refused, an enclave that does not load.
waited=0
while [ "$waited" -lt "${CLOISTER_START_SECONDS:-5}" ]; do
  sleep 1
  waited=$((waited + 1))
  kill -0 "$pid" 2>/dev/null || break
done
if ! kill -0 "$pid" 2>/dev/null; then
  status=0
  wait "$pid" || status=$?
  rm -f "$pid_file"
  tail -n 5 "$output" >&2
  [ "$status" -eq 0 ] || fail "$role ended with status $status" "The lines above say why; all of it: $output"
fi
if [ "$role" = pccs ]; then
  echo "$role started; what it says: $output"
else
  echo "$role started; its log: $home/$source.log (tail -f), its model: $home/model"
fi
