import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { parseCollateral } from './collateral.ts'
import { intelRootFingerprint } from './format.ts'
import { examineQuote, trustCollateral, verifyQuote } from './verify.ts'

/** Real quotes and collateral of Intel's PKI, gathered from other projects; see ../shared/attestation-vectors. */
const vectors = requires('attestation-vectors')
const read = (file: string) => readFileSync(join(sharedDirectory, 'attestation-vectors', file))
const readJson = (file: string): unknown => (vectors.available ? JSON.parse(read(file).toString()) : [])
const trust = (file: string) => trustCollateral(parseCollateral(readJson(file)), intelRootFingerprint)

interface Vector {
  readonly file: string
  readonly cases: readonly {
    readonly collateral: string
    readonly now: number
    readonly crlsValidAtNow: boolean
    readonly expected: { platform: string; qe: string; converged: string; advisoryIDs: string[] }
  }[]
}

vectors.describe('real quotes end in the status and advisories that Intel gives them', () => {
  const cases = (readJson('vectors.json') as Vector[]).flatMap((vector) =>
    vector.cases.map((it) => ({ ...it, quote: vector.file })),
  )
  test.each(cases)('$collateral at $now', ({ quote, collateral, now, expected, crlsValidAtNow }) => {
    const trusted = trust(collateral)
    const evidence = examineQuote(read(quote), trusted, now * 1000)
    expect({
      platform: evidence.platformStatus,
      qe: evidence.qeStatus,
      converged: evidence.tcbStatus,
      advisoryIDs: evidence.advisories,
    }).toEqual(expected)
    const verify = () => verifyQuote(read(quote), trusted, { now: now * 1000 })
    if (crlsValidAtNow) expect(verify()).toEqual(evidence)
    else expect(verify).toThrow(/CRL of the .* CA to be valid/)
  })
  test('there are 60 cases', () => expect(cases).toHaveLength(60))
})
