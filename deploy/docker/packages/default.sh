#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Any machine with a PCCS: Intel's own provider of collateral, told by /etc/sgx_default_qcnl.conf.
set -eu
exec sh "$(dirname "$0")/apt-sgx.sh" libsgx-dcap-default-qpl
