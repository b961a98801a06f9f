// SPDX-License-Identifier: Apache-2.0
/** Where the verifier of a quote gets its collateral. What comes is unverified; that there is none is an error, never an empty bundle. */
import type { QuoteCollateral } from './collateral.ts'

export interface CollateralSource {
  collateralFor(quote: Uint8Array): Promise<QuoteCollateral>
}
