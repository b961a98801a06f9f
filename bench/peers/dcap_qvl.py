# SPDX-License-Identifier: Apache-2.0
"""CPU ms of one full verification by PyPI's dcap-qvl (Rust): chains, CRLs, TCB info, QE identity and quote, nothing remembered.

    python dcap_qvl.py QUOTE COLLATERAL UNIX_SECONDS RUNS
"""

import importlib.metadata
import json
import pathlib
import sys
import time

# This file has the name of the module that it measures.
sys.path.pop(0)
import dcap_qvl


def main(quote_file: str, collateral_file: str, now: str, runs: str) -> None:
    quote = pathlib.Path(quote_file).read_bytes()
    collateral = dcap_qvl.QuoteCollateralV3.from_json(pathlib.Path(collateral_file).read_text())
    for _ in range(20):
        dcap_qvl.verify(quote, collateral, int(now))
    before = time.process_time()
    for _ in range(int(runs)):
        dcap_qvl.verify(quote, collateral, int(now))
    cpu_ms = (time.process_time() - before) / int(runs) * 1e3
    print(json.dumps({"cpuMs": cpu_ms, "version": importlib.metadata.version("dcap-qvl")}))


main(*sys.argv[1:])
