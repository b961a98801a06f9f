#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What Node and TensorFlow's libraries load, and certificates of public services.
set -eu

if command -v apt-get >/dev/null; then
  apt-get update
  apt-get install -y --no-install-recommends ca-certificates libgcc-s1 libstdc++6
  rm -rf /var/lib/apt/lists/*
elif command -v dnf >/dev/null; then
  dnf install -y ca-certificates libgcc libstdc++
  dnf clean all
else
  echo 'expected a base image with apt-get or dnf, got one with neither' >&2
  exit 1
fi
