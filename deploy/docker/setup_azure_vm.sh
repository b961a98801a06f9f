#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prepares an Azure DCsv3 machine for the containers: aesmd, the DCAP libraries and Azure's provider of collateral, as the reference system's
# script of the same name does; from packages where that one compiles. Running it again changes nothing.
set -eu

name="$(basename "$0")"
intel="${INTEL_REPOSITORY:-https://download.01.org/intel-sgx/sgx_repo/ubuntu}"
microsoft="${MICROSOFT_REPOSITORY:-https://packages.microsoft.com}"
root="${CLOISTER_TEST_ROOT:-}"
usage() {
  cat <<EOF
Usage: sudo $name
Installs aesmd, the DCAP libraries and az-dcap-client on an Azure DCsv3 machine (Ubuntu 20.04, 22.04 or 24.04).

Environment:
  INTEL_REPOSITORY, MICROSOFT_REPOSITORY   mirrors of the package repositories
  http_proxy, https_proxy                  as usual; sudo -E keeps them
EOF
}

fail() {
  printf '%s: %s\n' "$name" "$1" >&2
  printf '  → %s\n' "$2" >&2
  exit "${3:-1}"
}

case "${1:-}" in
  -h | --help) usage && exit 0 ;;
  '') ;;
  *) fail "expected no arguments, got $1" "$name --help" 2 ;;
esac
# shellcheck source=/dev/null
[ -r "$root/etc/os-release" ] && . "$root/etc/os-release"
case "${ID:-}-${VERSION_ID:-}" in
  ubuntu-20.04 | ubuntu-22.04 | ubuntu-24.04) ;;
  *) fail "expected Ubuntu 20.04, 22.04 or 24.04, got ${PRETTY_NAME:-no /etc/os-release}" 'Take one of these images for the machine; other systems: docs/deployment.md.' ;;
esac
[ -e "$root/dev/sgx_enclave" ] || [ -e "$root/dev/sgx/enclave" ] ||
  fail 'no SGX device: neither /dev/sgx_enclave nor /dev/sgx/enclave' 'Take a machine of the DCsv3 series (Standard_DC16s_v3, …) of generation 2, with Linux 5.11 or newer.'
[ "$(id -u)" -eq 0 ] || fail "expected root, got user $(id -un)" "sudo $0"

installed() { dpkg-query --show --showformat '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }
packages='sgx-aesm-service libsgx-aesm-launch-plugin libsgx-aesm-quote-ex-plugin libsgx-aesm-ecdsa-plugin libsgx-dcap-ql libsgx-dcap-quote-verify az-dcap-client'
missing=''
for package in $packages; do
  installed "$package" || missing="$missing $package"
done

if [ -n "$missing" ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  apt-get install -y --no-install-recommends ca-certificates curl
  keyring() { # URL FILE
    curl --fail --silent --show-error --location --retry 3 --output "$root/usr/share/keyrings/$2" "$1" ||
      fail "$1 cannot be fetched" 'Check network and proxy (sudo -E keeps https_proxy), or name a mirror: --help.'
  }
  keyring "$intel/intel-sgx-deb.key" intel-sgx.asc
  keyring "$microsoft/keys/microsoft.asc" microsoft.asc
  echo "deb [arch=amd64 signed-by=/usr/share/keyrings/intel-sgx.asc] $intel $VERSION_CODENAME main" >"$root/etc/apt/sources.list.d/intel-sgx.list"
  echo "deb [arch=amd64 signed-by=/usr/share/keyrings/microsoft.asc] $microsoft/ubuntu/$VERSION_ID/prod $VERSION_CODENAME main" \
    >"$root/etc/apt/sources.list.d/microsoft-prod.list"
  apt-get update
  # shellcheck disable=SC2086 # words are wanted
  apt-get install -y $missing ||
    fail "not all of these could be installed:$missing" 'A package that conflicts (libsgx-dcap-default-qpl) must go first: apt-get remove libsgx-dcap-default-qpl.'
fi
systemctl enable --now aesmd >/dev/null 2>&1 || fail 'aesmd does not start' 'journalctl -u aesmd says why.'
systemctl is-active --quiet aesmd || fail 'aesmd is not running' 'journalctl -u aesmd says why.'
echo 'aesmd is active. Next: build_docker_image.sh image_classification azure'
