#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Azure DCsv3: the provider of collateral that asks Azure's own cache.
set -eu
exec sh "$(dirname "$0")/apt-sgx.sh" az-dcap-client
