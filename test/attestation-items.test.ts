/**
 * What must be refused is a numbered list of 43 items (§6 of the attestation facts that this project was designed by). Tests name
 * the item that they show in their titles as `§6.N`; an item without a test fails here, by name.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'

const items: readonly string[] = [
  'no extension',
  'both OIDs disagree',
  'duplicate extension',
  'OID bytes hidden in another extension',
  "other key's quote",
  'REPORTDATA tail nonzero',
  'claims lack pubkey-hash',
  'duplicate claim key',
  'wrong tag, indefinite or trailing CBOR',
  'unknown hash algorithm or length',
  'RSA or P-256K key',
  'expired or century-long certificate',
  'bad self-signature',
  'truncated quote at every boundary',
  'length overflow',
  'trailing bytes',
  'version 2 or 4, TDX, EPID',
  'attestation key off-curve or zero',
  'r or s 0 or ≥ n',
  'bit flip in each region',
  'QE binding',
  'chain reordered, extra, missing, foreign root',
  'non-CA issuer',
  'PCK signs collateral',
  'CRL missing, garbage, foreign, bad signature, expired, future',
  'revoked leaf, intermediate, TCB signer',
  'TCB info edited, respaced, expired, future',
  'FMSPC, PCEID, TEE mismatch',
  'QE identity MRSIGNER, product, attributes, debug QE',
  'status outside policy, unknown status, unaccepted advisory',
  'evaluation number below minimum',
  'DEBUG, INIT, PROVISION_KEY bits',
  'MRSIGNER only with low SVN, wrong product',
  'policy unset',
  'worker quote as server (role)',
  'one side unattested',
  'TLS resumption skipping verification',
  'data before verification',
  "replayed nonce, other channel's exporter",
  'clock backwards',
  'PCCS hang, redirect, 200 with HTML, oversize',
  'simulated root in production',
  'concurrent user_report_data writes',
]

const sources = resolve(import.meta.dirname, '../src')
const titles = readdirSync(sources, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.test.ts'))
  // A title is a string literal: a comment that mentions an item shows nothing.
  .flatMap((file) => readFileSync(join(sources, file), 'utf8').match(/(['"`])§6\.\d.*?\1/g) ?? [])

function numbersIn(title: string): number[] {
  const [first, last] = [...title.matchAll(/§6\.(\d+)/g)].map(([, number]) => Number(number))
  if (first === undefined) return []
  const isRange = last !== undefined && title.includes(`§6.${first} to §6.${last}`)
  return isRange ? Array.from({ length: last - first + 1 }, (_, index) => first + index) : [first]
}

describe('every item of what must be refused has a test', () => {
  const shown = new Set(titles.flatMap(numbersIn))
  test.each(items.map((item, index) => [index + 1, item] as const))('§6.%i %s', (number) => {
    expect(shown).toContain(number)
  })
  test('and no test names an item that is not there', () => {
    expect([...shown].filter((number) => number > items.length)).toEqual([])
  })
})
