#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Anolis OS 8: Intel's packages from the archive of the distribution's mirror, Gramine from its own repository.
set -eu

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
curl --fail --silent --show-error --location --retry 3 --output "$work/sgx.tar.gz" "$ANOLIS_SGX_RPMS" || {
  echo "$ANOLIS_SGX_RPMS cannot be fetched: behind a proxy give it as PROXY, a mirror as --build-arg" >&2
  exit 1
}
tar -xzf "$work/sgx.tar.gz" -C "$work"
curl --fail --silent --show-error --location --retry 3 --output /etc/yum.repos.d/gramine.repo "$GRAMINE_REPOSITORY/rpm/gramine.repo"
# The archive carries no signatures: its transport and the digest of what was built vouch for it.
dnf install -y --repofrompath "sgx,file://$work/sgx_rpm_local_repo" --setopt sgx.gpgcheck=0 \
  "gramine-$GRAMINE_VERSION*" sgx-aesm-service libsgx-aesm-launch-plugin libsgx-aesm-quote-ex-plugin libsgx-aesm-ecdsa-plugin \
  libsgx-dcap-ql libsgx-dcap-quote-verify libsgx-dcap-default-qpl
dnf clean all
