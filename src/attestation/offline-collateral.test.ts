import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { scratchDirectory, testAuthority, testCollateral, testEnclave } from '../../test/simulated.ts'
import type { QuoteCollateral } from './collateral.ts'
import { OfflineCollateral, openOfflineCollateral, readCollateralBundle } from './offline-collateral.ts'
import type { SimulatedAuthority } from './platforms/simulated-authority.ts'
import { readTextFile } from './text-file.ts'

let authority: SimulatedAuthority
let bundles: Record<'platform' | 'processor', QuoteCollateral>
const quoteOf = async (ca: 'platform' | 'processor', certificationData: 'pckChain' | 'ppidRsa3072' = 'pckChain') =>
  (await testEnclave(authority, { machine: { name: ca, ca }, certificationData })).quote(Buffer.alloc(64))

beforeAll(async () => {
  authority = await testAuthority()
  bundles = {
    platform: await testCollateral(authority, undefined, 'platform'),
    processor: await testCollateral(authority, undefined, 'processor'),
  }
})

test('the bundle of the right PCK CA is picked', async () => {
  const offline = new OfflineCollateral([bundles.processor, bundles.platform])
  expect(await offline.collateralFor(await quoteOf('platform'))).toBe(bundles.platform)
  expect(await offline.collateralFor(await quoteOf('processor'))).toBe(bundles.processor)
})

test('another authority, another CA or another family of machines is not taken', async () => {
  const strange = await testCollateral(await testAuthority({ seed: 8 }))
  const offline = new OfflineCollateral([bundles.processor, strange])
  const refused = { code: 'collateral-bundle-unsuitable' }
  await expect(offline.collateralFor(await quoteOf('platform'))).rejects.toMatchObject(refused)
  const other = { ...bundles.platform, tcb_info: bundles.platform.tcb_info.replace(/"fmspc":"00/, '"fmspc":"01') }
  await expect(new OfflineCollateral([other]).collateralFor(await quoteOf('platform'))).rejects.toMatchObject(refused)
})

test('a quote that only names its PCK certificate needs the one bundle that has a chain', async () => {
  const quote = await quoteOf('platform', 'ppidRsa3072')
  const withChain = { ...bundles.platform, pck_certificate_chain: bundles.platform.pck_crl_issuer_chain }
  expect(await new OfflineCollateral([bundles.processor, withChain]).collateralFor(quote)).toBe(withChain)
  for (const ambiguous of [[bundles.platform], [withChain, withChain]]) {
    const refusal = new OfflineCollateral(ambiguous).collateralFor(quote)
    await expect(refusal).rejects.toMatchObject({ code: 'collateral-bundle-unsuitable' })
  }
})

describe('files', () => {
  const file = (text: string) => {
    const path = join(scratchDirectory(), 'bundle.json')
    writeFileSync(path, text)
    return path
  }

  test('are read whole', async () => {
    const path = file(JSON.stringify(bundles.platform))
    expect(await readCollateralBundle(path)).toEqual(bundles.platform)
    const offline = await openOfflineCollateral([path])
    expect(await offline.collateralFor(await quoteOf('platform'))).toEqual(bundles.platform)
  })

  test.each([
    ['', 'collateral-bundle-malformed'],
    ['<html>', 'collateral-bundle-malformed'],
    ['[]', 'collateral-malformed'],
    ['{"pck_crl":""}', 'collateral-malformed'],
  ])('%j is refused', async (text, code) => {
    await expect(readCollateralBundle(file(text))).rejects.toMatchObject({ code })
  })

  test('that are too large are not read', async () => {
    const path = file('x'.repeat(101))
    await expect(readTextFile(path, 100)).rejects.toThrow('more than 100')
    expect(await readTextFile(path, 101)).toHaveLength(101)
    await expect(readCollateralBundle('/dev/zero')).rejects.toMatchObject({ code: 'collateral-bundle-malformed' })
  })
})

requires('attestation-vectors').describe('real bundles', () => {
  test('Intel’s collateral is found for a real quote', async () => {
    const directory = join(sharedDirectory, 'attestation-vectors/phala')
    const offline = await openOfflineCollateral([join(directory, 'sgx_quote.case1.collateral.json')])
    const collateral = await offline.collateralFor(readFileSync(join(directory, 'sgx_quote.bin')))
    expect(JSON.parse(collateral.tcb_info).fmspc).toBe('00A067110000')
  })
})
