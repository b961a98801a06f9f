#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a command of an image's build with the build's secrets in its environment, so that no layer and no history holds them.
set -eu

secrets=/run/secrets
if [ -s "$secrets/proxy" ]; then
  proxy="$(tr -d '[:space:]' <"$secrets/proxy")"
  export http_proxy="$proxy" https_proxy="$proxy" HTTP_PROXY="$proxy" HTTPS_PROXY="$proxy"
fi
if [ -s "$secrets/ca" ]; then
  export NODE_EXTRA_CA_CERTS="$secrets/ca" PIP_CERT="$secrets/ca" SSL_CERT_FILE="$secrets/ca" CURL_CA_BUNDLE="$secrets/ca"
  # apt and dnf read no variable for it.
  APT_CONFIG="$(mktemp)"
  export APT_CONFIG
  trap 'rm -f "$APT_CONFIG"' EXIT
  printf 'Acquire::https::CaInfo "%s";\n' "$secrets/ca" >"$APT_CONFIG"
fi
if [ -s "$secrets/npmrc" ]; then export NPM_CONFIG_USERCONFIG="$secrets/npmrc"; fi
if [ -s "$secrets/pip" ]; then export PIP_CONFIG_FILE="$secrets/pip"; fi
export DEBIAN_FRONTEND=noninteractive
"$@"
