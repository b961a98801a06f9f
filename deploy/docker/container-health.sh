#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Health of a container: a server that runs in it must answer grpc.health.v1; a worker lives as long as its process,
# and a container in which nothing was started yet is well.
set -eu

address="${CLOISTER_HEALTH:-}"
if [ -z "$address" ]; then
  # Where test-sgx.sh told a server to answer stands in that server's own environment.
  environ="$(grep -lsz '^CLOISTER_ROLE=ps[0-9]*$' /proc/[0-9]*/environ | head -n 1)"
  if [ -n "$environ" ]; then
    address="127.0.0.1:$(tr '\0' '\n' <"$environ" | sed -n 's/^CLOISTER_HEALTH_LISTEN=.*://p')"
  elif grep -qsz '^server$' /proc/[0-9]*/cmdline; then
    address=127.0.0.1:9001
  else
    exit 0
  fi
fi
exec cloister health "$address"
