#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the image of a workload, as the reference system's script of the same name does.
set -eu

name="$(basename "$0")"
docker="${CLOISTER_DOCKER:-docker}"
usage() {
  cat <<EOF
Usage: $name WORKLOAD FLAVOUR [PROXY]
  WORKLOAD   recommendation_system or image_classification
  FLAVOUR    azure, anolisos or default: the base image, and whose packages of Gramine, aesmd and DCAP
  PROXY      http://host:port for downloads while building (default: the variable proxy_server); stays out of the image

Environment:
  CLOISTER_PLATFORM       enclave, or simulated for a trial on any machine (default: enclave)
  CLOISTER_TAG            suffix of the tag (default: latest)
  CLOISTER_BASE_IMAGE     instead of the flavour's base image, NAME:TAG@sha256:… for a build that can be repeated
  CLOISTER_NODE_IMAGE     image with Node.js and npm on Debian
  CLOISTER_CA             file with further certificate authorities in PEM
  CLOISTER_ENCLAVE_KEY    key that signs the enclave (default: ~/.config/gramine/enclave-key.pem)
  CLOISTER_NPMRC          npm's configuration, for a private registry
  CLOISTER_PIP_CONF       pip's configuration, for a private index
  CLOISTER_BUILD_OPTIONS  further words for "$docker build", e.g. --build-arg GRAMINE_VERSION=1.9
  CLOISTER_DOCKER         docker, or podman (default: docker)

The image is horizontal_fl:FLAVOUR_WORKLOAD_TAG.
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
workload="$1"
flavour="$2"
proxy="${3:-${proxy_server:-}}"
platform="${CLOISTER_PLATFORM:-enclave}"

case "$workload" in
  recommendation_system | image_classification) ;;
  *) fail "expected recommendation_system or image_classification as WORKLOAD, got $workload" "$name --help" 2 ;;
esac
case "$flavour" in
  default | azure) base='' ;; # the Dockerfile's
  anolisos) base=docker.io/openanolis/anolisos:8.10 ;;
  *) fail "expected azure, anolisos or default as FLAVOUR, got $flavour" "$name --help" 2 ;;
esac
case "$platform" in
  simulated | enclave) ;;
  *) fail "CLOISTER_PLATFORM: expected simulated or enclave, got $platform" "$name --help" 2 ;;
esac
case "$proxy" in
  '' | http://?* | https://?*) ;;
  *) fail "expected http://host:port as PROXY, got $proxy" "For example: $name $workload $flavour http://proxy.example:3128" 2 ;;
esac
base="${CLOISTER_BASE_IMAGE:-$base}"
tag="horizontal_fl:${flavour}_${workload}_${CLOISTER_TAG:-latest}"

command -v "$docker" >/dev/null || fail "$docker is not on PATH" 'Install Docker or Podman; CLOISTER_DOCKER=podman uses the latter.'
"$docker" info >/dev/null 2>&1 ||
  fail "$docker does not answer" 'Is its service running, and may this user use it? systemctl status docker; usermod -aG docker USER.'
root="$(cd "$(dirname "$0")/../.." && pwd)"
[ -e "$root/package-lock.json" ] || fail "$root is no checkout of the project" 'Run the script where it lies in a checkout.'

set -- build --file "$root/deploy/docker/Dockerfile" --tag "$tag" \
  --build-arg "PLATFORM=$platform" --build-arg "FLAVOUR=$flavour" --build-arg "WORKLOAD=$workload"
[ -z "$base" ] || set -- "$@" --build-arg "BASE_IMAGE=$base"
key=''
if [ "$platform" = enclave ]; then
  key="${CLOISTER_ENCLAVE_KEY:-$HOME/.config/gramine/enclave-key.pem}"
  [ -r "$key" ] || fail "$key: expected the key that signs the enclave" "Make one: mkdir -p $(dirname "$key"); openssl genrsa -3 -out $key 3072" 2
  case "$workload" in
    image_classification) set -- "$@" --build-arg ENCLAVE_SIZES=image-classification ;;
    recommendation_system) set -- "$@" --build-arg ENCLAVE_SIZES=recommendation ;;
  esac
  [ "$flavour" != anolisos ] || set -- "$@" --build-arg LIBRARY_DIRECTORY=/usr/lib64
fi
[ -z "${CLOISTER_NODE_IMAGE:-}" ] || set -- "$@" --build-arg "NODE_IMAGE=$CLOISTER_NODE_IMAGE"
for secret in "ca:${CLOISTER_CA:-}" "npmrc:${CLOISTER_NPMRC:-}" "pip:${CLOISTER_PIP_CONF:-}" "enclave_key:$key"; do
  file="${secret#*:}"
  [ -n "$file" ] || continue
  [ -r "$file" ] || fail "$file: expected a readable file for the build's secret ${secret%%:*}" 'Check the path.' 2
  set -- "$@" --secret "id=${secret%%:*},src=$file"
done
if [ -n "$proxy" ]; then
  # In a file, so that it stands in no argument list and no history of the image.
  proxy_file="$(mktemp)"
  trap 'rm -f "$proxy_file"' EXIT
  trap 'exit 130' INT TERM
  printf '%s\n' "$proxy" >"$proxy_file"
  set -- "$@" --secret "id=proxy,src=$proxy_file"
fi
# Podman's own format has no health check.
case "$("$docker" --version)" in podman*) set -- "$@" --format docker ;; esac

# shellcheck disable=SC2086 # words are wanted
DOCKER_BUILDKIT=1 "$docker" "$@" ${CLOISTER_BUILD_OPTIONS:-} "$root" ||
  fail 'the build failed' 'Its message is above. Repositories out of reach: PROXY, CLOISTER_CA; without Gramine'\''s and Intel'\''s: CLOISTER_PLATFORM=simulated.'
echo "image: $tag"
