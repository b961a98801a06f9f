// SPDX-License-Identifier: Apache-2.0
/**
 * Collateral: what Intel signs about platforms and quoting enclaves, as one bundle (the QuoteCollateralV3 shape that DCAP
 * libraries exchange). It comes through the host or over the network: until verify.ts has checked the signatures it says nothing.
 * `tcb_info` and `qe_identity` hold the very text that was signed; parsing and writing it again would change it.
 */
import * as v from 'valibot'
import { AttestationError } from './error.ts'

/** One spelling only, so that no byte of a bundle can be changed without being noticed. */
const hex = v.pipe(
  v.string(),
  v.regex(/^(?:[0-9a-f]{2})+$/, 'expected bytes in lower-case hex'),
  v.maxLength(4_000_000),
)
const signature = v.pipe(v.string(), v.regex(/^[0-9a-f]{128}$/, 'expected 64 bytes in lower-case hex'))
const chain = v.pipe(v.string(), v.maxLength(65_536))
const signedText = v.pipe(v.string(), v.maxLength(1_000_000))

const bundle = v.strictObject({
  /** PEM: the CA that issued the PCK certificate and signs its CRL, then the root. */
  pck_crl_issuer_chain: chain,
  /** DER in hex. */
  root_ca_crl: hex,
  pck_crl: hex,
  tcb_info_issuer_chain: chain,
  tcb_info: signedText,
  tcb_info_signature: signature,
  qe_identity_issuer_chain: chain,
  qe_identity: signedText,
  qe_identity_signature: signature,
  /** PEM, leaf first: only for quotes that name their PCK certificate without carrying it (certification data 1 to 3). */
  pck_certificate_chain: v.exactOptional(chain),
})

export type QuoteCollateral = Readonly<v.InferOutput<typeof bundle>>

/** From parsed JSON. Unknown fields are refused: a bundle that says more than we read may mean more than we check. */
export function parseCollateral(value: unknown): QuoteCollateral {
  const result = v.safeParse(bundle, value, { abortEarly: true })
  if (result.success) return result.output
  const [issue] = result.issues
  const path = v.getDotPath(issue) ?? 'the bundle'
  throw new AttestationError('collateral-malformed', `Collateral: ${path}: ${issue.message}.`, {
    hint: 'Fetch it again: cloister collateral fetch.',
  })
}
