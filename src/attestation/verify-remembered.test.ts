import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { forge, now } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import { encodePem } from '../x509/pem.ts'
import { parseQuote } from './quote.ts'
import { type Evidence, isProven, reexamineQuote, trustCollateral, verifyQuote } from './verify.ts'

const { quote: bytes, collateral, rootFingerprint } = forge()
const trusted = trustCollateral(collateral, rootFingerprint)
const { verifiedAt: _, ...facts } = verifyQuote(bytes, trusted, { now })

describe('a quote that is examined again', () => {
  test('proves the same, at the time of now', () => {
    const quote = parseQuote(bytes)
    for (const at of [now, now + 1, now - 1]) {
      const evidence = reexamineQuote(quote, trusted, at)
      expect(evidence).toEqual({ ...facts, verifiedAt: at })
      expect(isProven(evidence)).toBe(true)
    }
  })

  test('under other collateral is judged by that, and by the first again when it returns', () => {
    const quote = parseQuote(bytes)
    const revoking = forge((plan) => plan.pckCrl.revoked.push(3n))
    const revoked = trustCollateral(revoking.collateral, rootFingerprint)
    for (let time = 0; time < 2; time++) {
      expect(reexamineQuote(quote, trusted, now).tcbStatus).toBe('UpToDate')
      expect(codeOf(() => reexamineQuote(quote, revoked, now))).toBe('certificate-revoked')
    }
  })

  test('a refusal is not remembered as anything', () => {
    const changed = Buffer.from(bytes)
    changed[100]! ^= 1
    const quote = parseQuote(changed)
    for (let time = 0; time < 2; time++) {
      expect(codeOf(() => reexamineQuote(quote, trusted, now))).toBe('quote-signature-invalid')
    }
  })
})

test('no part of what was proven can be changed afterwards', () => {
  const evidence: Evidence = verifyQuote(bytes, trusted, { now })
  const parts = [evidence, evidence.measurements, evidence.attributes, evidence.platform, evidence.advisories]
  for (const part of [...parts, evidence.validity]) expect(Object.isFrozen(part)).toBe(true)
})

test('a root is trusted for its bytes: one with another signature on itself is another root, to be named by its own fingerprint', () => {
  const { root } = forge().certificates
  const resigned = Buffer.from(root)
  resigned[resigned.length - 1]! ^= 1
  const replace = (chain: string) => chain.replace(encodePem(root), encodePem(resigned))
  const theirs = {
    ...collateral,
    pck_crl_issuer_chain: replace(collateral.pck_crl_issuer_chain),
    tcb_info_issuer_chain: replace(collateral.tcb_info_issuer_chain),
    qe_identity_issuer_chain: replace(collateral.qe_identity_issuer_chain),
  }
  const fingerprint = createHash('sha256').update(resigned).digest('hex')
  expect(codeOf(() => trustCollateral(theirs, rootFingerprint))).toBe('chain-untrusted-root')
  expect(trustCollateral(theirs, fingerprint).rootFingerprint).toBe(fingerprint)
  expect(codeOf(() => trustCollateral(collateral, fingerprint))).toBe('chain-untrusted-root')
})
