#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts the container of one role, as the reference system's script of the same name does: SGX devices, aesmd's socket and the PCCS's
# address come from this host. The role itself is started in it with test-sgx.sh.
set -eu

name="$(basename "$0")"
docker="${CLOISTER_DOCKER:-docker}"
usage() {
  cat <<EOF
Usage: $name NAME IMAGE [PCCS_IP]
  NAME      container, and the role that will run in it: ps0, ps1, …, worker0, worker1, …; pccs for a simulated platform
  IMAGE     image id or name, as build_docker_image.sh printed it
  PCCS_IP   address of the PCCS that /etc/sgx_default_qcnl.conf calls pccs.service.com (default: 127.0.0.1)

Environment:
  CLOISTER_DATASET   directory on this host with this owner's data; the container reads it
  CLOISTER_JOB       job file on this host; the same for all parties
  CLOISTER_QCNL      configuration of the quoting library (default: /etc/sgx_default_qcnl.conf where it exists)
  CLOISTER_NETWORK   container network (default: host)
  CLOISTER_DOCKER    docker, or podman (default: docker)

Starting a container that runs already does nothing; one that was stopped is started again with all its files.
EOF
}

fail() {
  printf '%s: %s\n' "$name" "$1" >&2
  printf '  → %s\n' "$2" >&2
  exit "${3:-1}"
}

case "${1:-}" in
  -h | --help) usage && exit 0 ;;
esac
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  usage >&2
  exit 2
fi
container="$1"
image="$2"
pccs="${3:-127.0.0.1}"

case "$container" in
  pccs | ps[0-9] | ps[1-9][0-9] | ps[1-9][0-9][0-9]) ;;
  worker[0-9] | worker[1-9][0-9] | worker[1-9][0-9][0-9]) ;;
  *) fail "expected ps0, ps1, …, worker0, worker1, … as NAME, got $container" "$name --help lists the roles." 2 ;;
esac
case "$pccs" in
  *[!0-9a-fA-F.:]* | '') fail "expected an IP address as PCCS_IP, got $pccs" 'Names are not taken here: getent hosts NAME gives its address.' 2 ;;
esac
for setting in "CLOISTER_DATASET:${CLOISTER_DATASET:-}" "CLOISTER_JOB:${CLOISTER_JOB:-}" "CLOISTER_QCNL:${CLOISTER_QCNL:-}"; do
  path="${setting#*:}"
  [ -z "$path" ] || [ -r "$path" ] || fail "${setting%%:*}: expected a readable file or directory, got $path" 'Check the path.' 2
  case "$path" in
    '' | /*) ;;
    *) fail "${setting%%:*}: expected an absolute path, got $path" "For example: $(pwd)/$path" 2 ;;
  esac
done

command -v "$docker" >/dev/null || fail "$docker is not on PATH" 'Install Docker or Podman; CLOISTER_DOCKER=podman uses the latter.'
"$docker" info >/dev/null 2>&1 ||
  fail "$docker does not answer" 'Is its service running, and may this user use it? systemctl status docker; usermod -aG docker USER.'
"$docker" image inspect "$image" >/dev/null 2>&1 ||
  fail "no image $image on this machine" "Build it: build_docker_image.sh image_classification default; $docker images lists what is there."

label() { "$docker" image inspect --format "{{ index .Config.Labels \"$1\" }}" "$image"; }
platform="$(label cloister.platform)"
workload="$(label cloister.workload)"
case "$platform" in
  simulated | enclave) ;;
  *) fail "$image is no image of this project: it has no label cloister.platform" "Give the image that build_docker_image.sh printed." ;;
esac

case "$("$docker" container inspect --format '{{ .State.Status }}' "$container" 2>/dev/null || true)" in
  running)
    echo "$container runs already: $docker exec -it $container sh -c 'test-sgx.sh $container'"
    exit 0
    ;;
  '') ;;
  *)
    "$docker" start "$container" >/dev/null
    echo "$container was there and is started again: $docker exec -it $container sh -c 'test-sgx.sh $container'"
    exit 0
    ;;
esac

set -- run --detach --name "$container" --hostname "$container" --init --restart unless-stopped \
  --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
  --network "${CLOISTER_NETWORK:-host}" --add-host "pccs.service.com:$pccs" \
  --volume "cloister-$container-run:/$workload" --volume "cloister-$container-state:/var/lib/cloister"

if [ "$platform" = enclave ]; then
  [ "$container" != pccs ] || fail 'pccs is for simulated platforms' 'Use the PCCS of your cloud or your own: docs/deployment.md.'
  # Drivers of before Linux 5.11 have /dev/sgx/enclave; the kernel's own has /dev/sgx_enclave. Inside it is where the reference has it.
  for device in enclave provision; do
    found=''
    for path in "/dev/sgx_$device" "/dev/sgx/$device"; do
      [ ! -e "$path" ] || found="$path"
    done
    if [ -z "$found" ]; then
      [ ! -e /dev/isgx ] || fail 'only /dev/isgx: the driver of before DCAP' 'Remove it; Linux 5.11 or newer has the right one.'
      fail "no SGX device: neither /dev/sgx_$device nor /dev/sgx/$device" 'Enable SGX in firmware, take an instance type with it, Linux 5.11 or newer: cloister doctor tells more.'
    fi
    set -- "$@" --device "$found:/dev/sgx_$device" --device "$found:/dev/sgx/$device" --group-add "$(stat -c %g "$found")"
  done
  aesm=/var/run/aesmd/aesm.socket
  [ -S "$aesm" ] || fail "aesmd is down: no $aesm" 'Install sgx-aesm-service and start it: systemctl enable --now aesmd.'
  set -- "$@" --volume "$aesm:$aesm"
  qcnl="${CLOISTER_QCNL:-/etc/sgx_default_qcnl.conf}"
  if [ -r "$qcnl" ]; then set -- "$@" --volume "$qcnl:/etc/sgx_default_qcnl.conf:ro"; fi
else
  echo "$container: SIMULATED PLATFORM, nothing is protected from this host." >&2
  set -- "$@" --volume cloister-platform:/var/lib/cloister/platform
fi
if [ -n "${CLOISTER_DATASET:-}" ]; then set -- "$@" --volume "$CLOISTER_DATASET:/dataset:ro" --env CLOISTER_DATASET=/dataset; fi
if [ -n "${CLOISTER_JOB:-}" ]; then set -- "$@" --volume "$CLOISTER_JOB:/etc/cloister/job.json:ro" --env CLOISTER_JOB=/etc/cloister/job.json; fi

"$docker" "$@" --entrypoint sleep "$image" infinity >/dev/null ||
  fail "$docker could not start $container" "Its message is above; a half-made container goes with: $docker rm $container"
echo "$container is started; now its role: $docker exec -it $container sh -c 'test-sgx.sh $container'"
