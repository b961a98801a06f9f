#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Before a role starts in its pod: what all parties agreed on, what this pod is, and synthetic data where they are wanted.
# Prints the job and its digest: the parties compare it. PARTY is server or worker, POD_NAME ends with the ordinal.
set -eu

fail() {
  printf 'prepare: %s\n  → %s\n' "$1" "$2" >&2
  exit 1
}
platform="${CLOISTER_PLATFORM:-none}"
[ "$platform" = "$WANTED_PLATFORM" ] ||
  fail "expected an image for $WANTED_PLATFORM, got one for $platform" 'Set image or platform: build_docker_image.sh builds enclave or simulated.'
[ -w . ] || fail "$(pwd) cannot be written by user $(id -u)" 'Its volume must take fsGroup, or belong to this user.'
index=$((${POD_NAME##*-} + FIRST_INDEX))

mkdir -p config model checkpoints
root=/var/lib/cloister/platform/root.pem
if [ "$platform" = simulated ]; then
  tries=0
  until [ -s "$root" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 120 ] || fail "no simulated platform in ${root%/*}" 'Does the pod of its PCCS run, and do all pods share its volume?'
    sleep 1
  done
  set -- --root "$root" --root-name simulated
else
  set --
fi

job=/etc/cloister/job.json
if [ ! -e "$job" ]; then
  case "$CLOISTER_WORKLOAD" in
    recommendation_system) job=/opt/cloister/examples/recommendation.json ;;
    *) job=/opt/cloister/examples/image-classification.json ;;
  esac
fi
admission=''
if [ -e /etc/cloister/policy.json ]; then
  admission="$(cat /etc/cloister/policy.json)"
elif ! grep -q '"admission"' "$job"; then
  admission="$(cloister policy init "$@")"
fi
set --
while IFS= read -r setting; do
  [ -z "$setting" ] || set -- "$@" --set "$setting"
done </etc/cloister/settings
[ -z "$admission" ] || set -- "$@" --set "admission=$admission"
cloister job check "$job" "$@" --out config/job.json

sed "s/\"@INDEX@\"/$index/; s/@MACHINE@/$PARTY$index/" "/etc/cloister/deployment-$PARTY.json" >config/deployment.json
[ ! -e /etc/cloister/qcnl.conf ] || cp /etc/cloister/qcnl.conf config/sgx_default_qcnl.conf

if [ "$PARTY" = worker ] && [ "${SYNTHETIC_RECORDS:-0}" -gt 0 ]; then
  # A set is made beside its place and then moved there, which a mount point does not allow.
  rm -rf /tmp/synthetic
  case "$CLOISTER_WORKLOAD" in
    recommendation_system) cloister data synthesize criteo /tmp/synthetic --rows "$SYNTHETIC_RECORDS" ;;
    *) cloister data synthesize cifar10 /tmp/synthetic --records "$SYNTHETIC_RECORDS" ;;
  esac
  cp -r /tmp/synthetic/. /dataset/
  rm -rf /tmp/synthetic
fi
