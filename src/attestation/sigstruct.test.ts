/** What an enclave's author signed: read back, and refused when any byte of it is another. */
import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import { codeOf } from '../../test/code-of.ts'
import { makeSigstruct, mrSigner, signer } from '../../test/sigstruct.ts'
import { verifySigstruct } from './sigstruct.ts'

const mrEnclave = '0123456789abcdef'.repeat(4)
const good = makeSigstruct({ mrEnclave, productId: 258, svn: 772 })

test('says what was signed', () => {
  expect(verifySigstruct(good)).toEqual({
    mrEnclave,
    mrSigner,
    productId: 258,
    svn: 772,
    debug: false,
    date: '20260102',
  })
  expect(verifySigstruct(makeSigstruct({ mrEnclave, debug: true })).debug).toBe(true)
})

test('every byte that is signed, or signs, counts', () => {
  // Q1 and Q2 behind them only help the processor to compute; the rest of the attributes and masks is inside.
  const accepted: number[] = []
  for (let at = 0; at < 1028; at++) {
    const changed = Buffer.from(good)
    changed[at]! ^= 1
    const code = codeOf(() => verifySigstruct(changed))
    if (code !== 'sigstruct-malformed' && code !== 'sigstruct-signature-invalid') accepted.push(at)
  }
  expect(accepted).toEqual([])
})

test('what is too short, too long or no SIGSTRUCT is refused', () => {
  for (const bytes of [Buffer.alloc(0), Buffer.alloc(1808), good.subarray(1), Buffer.concat([good, Buffer.alloc(1)])]) {
    expect(codeOf(() => verifySigstruct(bytes))).toBe('sigstruct-malformed')
  }
})

test('an exponent that is not SGX’s is refused', () => {
  const other = generateKeyPairSync('rsa', { modulusLength: 3072, publicExponent: 65_537 })
  expect(codeOf(() => verifySigstruct(makeSigstruct({ mrEnclave }, other)))).toBe('sigstruct-signature-invalid')
  const named = Buffer.from(good)
  named.writeUInt32LE(65_537, 512)
  expect(codeOf(() => verifySigstruct(named))).toBe('sigstruct-malformed')
  expect(signer.publicKey.asymmetricKeyDetails?.publicExponent).toBe(3n)
})
