import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { CodedError } from '../errors.ts'
import { parseCollateral } from './collateral.ts'
import { intelRootFingerprint } from './format.ts'
import { trustCollateral, verifyQuote } from './verify.ts'

/**
 * §6.20 on real files: each byte of a quote and of a collateral bundle, as they lie on disk, is changed in each of three ways (one bit, the
 * bit that is the case of a letter, all bits), and all are refused: these files have no byte without meaning. White space between
 * the tokens of a bundle's JSON has none when it becomes other white space, which none of these changes does.
 */
const vectors = requires('attestation-vectors')
const read = (file: string) => readFileSync(join(sharedDirectory, 'attestation-vectors', file))
const masks = [0x01, 0x20, 0xff]

const accepts = (quote: Uint8Array, bundle: Uint8Array, now: number): boolean => {
  try {
    const json: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bundle))
    verifyQuote(quote, trustCollateral(parseCollateral(json), intelRootFingerprint), { now })
    return true
  } catch (thrown) {
    if (thrown instanceof CodedError || thrown instanceof SyntaxError || thrown instanceof TypeError) return false
    throw thrown
  }
}

function acceptedFlips(bytes: Buffer, accept: (changed: Buffer) => boolean): string[] {
  const accepted: string[] = []
  for (const mask of masks) {
    for (let offset = 0; offset < bytes.length; offset++) {
      const changed = Buffer.from(bytes)
      changed[offset]! ^= mask
      if (accept(changed)) accepted.push(`${offset}: ${bytes[offset]!.toString(16)} → ${changed[offset]!.toString(16)}`)
    }
  }
  return accepted
}

vectors.describe('§6.20 every byte of real files', () => {
  const cases = [
    {
      quote: 'automata-attestation/quotev3.bin',
      collateral: 'automata-attestation/quotev3.case3.collateral.json',
      now: 1756530546,
    },
    { quote: 'phala/sgx_quote.bin', collateral: 'phala/sgx_quote.case1.collateral.json', now: 1751624924 },
  ]
  test.each(cases)('$quote', ({ quote, collateral, now }) => {
    const trusted = trustCollateral(parseCollateral(JSON.parse(read(collateral).toString())), intelRootFingerprint)
    const accept = (changed: Buffer) => {
      try {
        verifyQuote(changed, trusted, { now: now * 1000 })
        return true
      } catch (thrown) {
        if (thrown instanceof CodedError) return false
        throw thrown
      }
    }
    expect(accept(read(quote))).toBe(true)
    expect(acceptedFlips(read(quote), accept)).toEqual([])
  })
  test.each(cases)('$collateral', ({ quote, collateral, now }) => {
    const bytes = read(quote)
    expect(accepts(bytes, read(collateral), now * 1000)).toBe(true)
    expect(acceptedFlips(read(collateral), (changed) => accepts(bytes, changed, now * 1000))).toEqual([])
  })
})
