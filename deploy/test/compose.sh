#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The job of compose.yaml, shortened, runs to its end with podman-compose while Prometheus scrapes it. Needs the image (containers.sh builds it)
# and Prometheus from apt, which stands in for its official image; leaves nothing behind but that image.
# Usage: compose.sh [IMAGE]
set -euo pipefail

cd "$(dirname "$0")/../.."
export CLOISTER_IMAGE="${1:-localhost/horizontal_fl:default_image_classification_test}"
export PROMETHEUS_IMAGE=localhost/cloister-prometheus
CLOISTER_JOB_SET="$(printf 'training.updates=150\ntraining.batchSize=8\ntraining.evaluateEvery=0')"
export CLOISTER_JOB_SET
project="cloister-compose-$$"
compose() { podman-compose --project-name "$project" "$@"; }
work="$(mktemp -d)"
trap 'compose down --volumes >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
fail() {
  echo "compose.sh: $1" >&2
  exit 1
}

# What the official image has: the programs in /bin, /prometheus for a user without rights.
programs="${CLOISTER_TEST_PROMETHEUS:-${CLOISTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cloister}/test-prometheus/usr/bin}"
[ -x "$programs/prometheus" ] || programs="$(dirname "$(command -v prometheus)")" || fail 'no prometheus: apt-get install prometheus, or run .ci/run once'
cp "$programs/prometheus" "$programs/promtool" "$work"
cat >"$work/Dockerfile" <<'EOF'
FROM localhost/cloister-base
COPY prometheus promtool /bin/
RUN mkdir /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
ENTRYPOINT ["/bin/prometheus"]
EOF
podman build --quiet --tag "$PROMETHEUS_IMAGE" "$work" >/dev/null

compose up --detach
for name in ps0 worker0 worker1; do
  status="$(timeout 300 podman wait "${project}_${name}_1")"
  [ "$status" = 0 ] || {
    podman logs --tail 20 "${project}_${name}_1" >&2
    fail "$name: expected to end with status 0, got $status"
  }
  echo "$name ended with status 0"
done

query() { # PROMQL: prints "{labels} => value"
  podman exec "${project}_prometheus_1" promtool query instant http://127.0.0.1:9090 "$1"
}
for name in ps0 worker0 worker1; do
  query "max_over_time(up{instance=\"$name:9464\"}[15m])" | grep -q ' => 1 ' || fail "Prometheus never reached $name"
done
step="$(query 'max_over_time(cloister_model_step{instance="ps0:9464"}[15m])')"
grep -Eq '=> [1-9][0-9]* ' <<<"$step" || fail "expected updates of ps0 in Prometheus, got: ${step:-nothing}"
echo "Prometheus: $step"
