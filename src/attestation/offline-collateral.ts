// SPDX-License-Identifier: Apache-2.0
/**
 * Collateral from bundles in files, for machines without a way to a PCCS: `cloister collateral fetch` makes them, in the shape that DCAP
 * libraries exchange. Whoever carries the files can leave one out or bring an old one, nothing else: all of it is signed.
 */

import { verifyPckCaChain, verifyPckChain } from './chain.ts'
import { parseCollateral, type QuoteCollateral } from './collateral.ts'
import type { CollateralSource } from './collateral-source.ts'
import { PccsError } from './pccs-error.ts'
import { parsePckIdentity } from './pck.ts'
import { parseQuote } from './quote.ts'
import { parseTcbInfo } from './tcb.ts'
import { readTextFile } from './text-file.ts'

const maxBundleBytes = 16_000_000

interface Bundle {
  readonly collateral: QuoteCollateral
  readonly fmspc: string
  /** Fingerprint of the PCK CA whose CRL this is. */
  readonly pckCa: string
}

export class OfflineCollateral implements CollateralSource {
  readonly #bundles: readonly Bundle[]

  constructor(collateral: readonly QuoteCollateral[]) {
    this.#bundles = collateral.map((one) => ({
      collateral: one,
      fmspc: parseTcbInfo(one.tcb_info).fmspc,
      pckCa: verifyPckCaChain(one.pck_crl_issuer_chain).leaf.fingerprint,
    }))
  }

  async collateralFor(bytes: Uint8Array): Promise<QuoteCollateral> {
    const { certification } = parseQuote(bytes)
    if (certification.type !== 'pck-chain') return this.#withPckChain()
    const chain = verifyPckChain(certification.pem)
    const { fmspc } = parsePckIdentity(chain.leaf)
    const pckCa = chain.certificates[1]!.fingerprint
    const found = this.#bundles.find((bundle) => bundle.fmspc === fmspc && bundle.pckCa === pckCa)
    if (found !== undefined) return found.collateral
    throw unsuitable(`expected a bundle for FMSPC ${fmspc} under "${chain.leaf.issuer.commonName}", got none of that`)
  }

  /** A quote that only names its PCK certificate cannot say which bundle is its own, unless there is one. */
  #withPckChain(): QuoteCollateral {
    const [found, ...others] = this.#bundles.filter(({ collateral }) => collateral.pck_certificate_chain !== undefined)
    if (found !== undefined && others.length === 0) return found.collateral
    throw unsuitable(
      `expected one bundle with a PCK certificate chain, got ${found === undefined ? 0 : others.length + 1}`,
    )
  }
}

export async function openOfflineCollateral(paths: readonly string[]): Promise<OfflineCollateral> {
  return new OfflineCollateral(await Promise.all(paths.map(readCollateralBundle)))
}

export async function readCollateralBundle(path: string): Promise<QuoteCollateral> {
  let value: unknown
  try {
    value = JSON.parse(await readTextFile(path, maxBundleBytes))
  } catch (cause) {
    throw new PccsError(
      'collateral-bundle-malformed',
      `${path}: expected a bundle in JSON: ${cause instanceof Error ? cause.message : cause}`,
      {
        hint: 'Make the bundle anew: cloister collateral fetch.',
        cause,
      },
    )
  }
  return parseCollateral(value)
}

function unsuitable(message: string): PccsError {
  return new PccsError('collateral-bundle-unsuitable', message, {
    hint: 'Fetch a bundle for a quote of this platform: cloister collateral fetch.',
  })
}
