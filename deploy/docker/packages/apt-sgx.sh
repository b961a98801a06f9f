#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Gramine, aesmd and the DCAP libraries on Ubuntu. Arguments: the packages that bring quotes their collateral.
set -eu

root="${CLOISTER_TEST_ROOT:-}"
# shellcheck source=/dev/null
. "$root/etc/os-release"
codename="${VERSION_CODENAME:?expected Ubuntu or Debian}"
if [ "$codename" = focal ] && [ "$(printf '%s\n' "$GRAMINE_VERSION" 1.9 | sort -V | head -n 1)" = 1.9 ]; then
  echo "Gramine $GRAMINE_VERSION has no packages for Ubuntu 20.04: the last that had was 1.8" >&2
  echo '  → Take a base of Ubuntu 22.04 or 24.04 (CLOISTER_BASE_IMAGE): a host with Ubuntu 20.04 and Linux 5.11 or newer runs it.' >&2
  exit 1
fi
apt-get update
apt-get install -y --no-install-recommends curl
keyring() { # URL FILE
  curl --fail --silent --show-error --location --retry 3 --output "/usr/share/keyrings/$2" "$1" || {
    echo "$1 cannot be fetched: behind a proxy give it as PROXY, a mirror as --build-arg" >&2
    exit 1
  }
}
repository() { # NAME KEYRING URL SUITE
  echo "deb [arch=amd64 signed-by=/usr/share/keyrings/$2] $3 $4 main" >"/etc/apt/sources.list.d/$1.list"
}
keyring "$GRAMINE_REPOSITORY/gramine-keyring-$codename.gpg" gramine.gpg
repository gramine gramine.gpg "$GRAMINE_REPOSITORY/" "$codename"
keyring "$INTEL_REPOSITORY/intel-sgx-deb.key" intel-sgx.asc
repository intel-sgx intel-sgx.asc "$INTEL_REPOSITORY" "$codename"
case " $* " in
  *' az-dcap-client '*)
    keyring "$MICROSOFT_REPOSITORY/keys/microsoft.asc" microsoft.asc
    repository microsoft microsoft.asc "$MICROSOFT_REPOSITORY/ubuntu/$VERSION_ID/prod" "$codename"
    ;;
esac
apt-get update
# "=1.9*" takes the newest revision of that version: another Gramine is another MRENCLAVE.
apt-get install -y --no-install-recommends "gramine=$GRAMINE_VERSION*" \
  sgx-aesm-service libsgx-aesm-launch-plugin libsgx-aesm-quote-ex-plugin libsgx-aesm-ecdsa-plugin \
  libsgx-dcap-ql libsgx-dcap-quote-verify "$@"
apt-get purge -y curl
apt-get autoremove -y
rm -rf /var/lib/apt/lists/*
