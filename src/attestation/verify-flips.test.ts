import { describe, expect, test } from 'vitest'
import { forge, now } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import { encodePem, splitPem } from '../x509/pem.ts'
import { parseCollateral, type QuoteCollateral } from './collateral.ts'
import { trustCollateral, verifyQuote } from './verify.ts'

/**
 * §6.20: bytes of a quote and of each part of its collateral are changed in turn, and everything is refused: no byte is without
 * meaning. All bytes of real quotes and of whole bundles, in more ways: verify-flips.slow.test.ts.
 */
const { quote, collateral, rootFingerprint } = forge()
const trusted = trustCollateral(collateral, rootFingerprint)

test('§6.20 every byte of a quote, and every seventh of the certificates in it', () => {
  expect(verifyQuote(quote, trusted, { now }).tcbStatus).toBe('UpToDate')
  const accepted: number[] = []
  const certificates = quote.indexOf('-----BEGIN')
  for (let offset = 0; offset < quote.length; offset += offset < certificates ? 1 : 7) {
    const changed = Buffer.from(quote)
    changed[offset]! ^= 0x01
    if (codeOf(() => verifyQuote(changed, trusted, { now })) === undefined) accepted.push(offset)
  }
  expect(accepted).toEqual([])
})

const parts = Object.keys(collateral) as (keyof QuoteCollateral)[]
describe('§6.20 every 23rd character of each part of collateral', () => {
  test.each(parts)('%s', (part) => {
    const text = collateral[part]!
    const accepted: number[] = []
    for (let offset = 0; offset < text.length; offset += 23) {
      const other = String.fromCharCode(text.charCodeAt(offset) ^ 0x01)
      const changed = { ...collateral, [part]: text.slice(0, offset) + other + text.slice(offset + 1) }
      if (codeOf(() => trustCollateral(parseCollateral(changed), rootFingerprint)) === undefined) accepted.push(offset)
    }
    expect(accepted).toEqual([])
  })
})

test('§6.20 a certificate with another signature under the right names', () => {
  for (const part of ['pck_crl_issuer_chain', 'tcb_info_issuer_chain'] as const) {
    const [leaf, root] = splitPem(collateral[part]) as [Buffer, Buffer]
    leaf[leaf.length - 1]! ^= 1
    const changed = { ...collateral, [part]: `${encodePem(leaf)}\n${encodePem(root)}` }
    expect(codeOf(() => trustCollateral(changed, rootFingerprint))).toBe('certificate-signature-invalid')
  }
})
