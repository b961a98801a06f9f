/** Every variant of the simulated platform, judged by our own verifier and policy: what a demonstration of it will show. */
import { beforeEach, describe, expect, test } from 'vitest'
import { codeDigest, testAuthority, testCollateral, testEnclave, testNow } from '../../../test/simulated.ts'
import { intelRootFingerprint } from '../format.ts'
import { authorize } from '../policy.ts'
import { parsePolicy } from '../policy-format.ts'
import { trustCollateral, verifyQuote } from '../verify.ts'
import type { SimulatedOptions } from './simulated.ts'
import { fingerprintOf, type SimulatedAuthority } from './simulated-authority.ts'
import { simulatedFmspc } from './simulated-tcb.ts'

let authority: SimulatedAuthority
beforeEach(async () => {
  authority = await testAuthority()
})
const now = testNow.getTime()

async function verify(options: Partial<SimulatedOptions> = {}) {
  const quote = await (await testEnclave(authority, options)).quote(Buffer.alloc(64, 3))
  const collateral = await testCollateral(authority, testNow, options.machine?.ca)
  return verifyQuote(quote, trustCollateral(collateral, fingerprintOf(authority.certificates.root)), { now })
}

function policy(changes: object = {}) {
  return parsePolicy({
    version: 1,
    root: { name: 'simulated', sha256: fingerprintOf(authority.certificates.root) },
    enclave: { mrEnclave: ['self'] },
    attributes: { allowDebug: false, allowProvisioningKeys: false },
    tcb: { acceptedStatuses: ['UpToDate'], acceptedAdvisories: [], minimumEvaluationNumber: 18 },
    collateral: { graceHours: 0 },
    platforms: 'any',
    freshness: { maximumAgeMinutes: 60 },
    ...changes,
  })
}
const self = codeDigest('cloister')

describe.each(['platform', 'processor'] as const)('under the %s CA', (ca) => {
  const machine = { name: 'one', ca }

  test('up to date, and all that its certificate says', async () => {
    const evidence = await verify({ machine })
    expect(evidence).toMatchObject({
      tcbStatus: 'UpToDate',
      advisories: [],
      tcbEvaluationNumber: 18,
      measurements: { mrEnclave: self, productId: 1, svn: 1 },
      attributes: { init: true, mode64Bit: true, debug: false, provisionKey: false },
      platform: { fmspc: simulatedFmspc, pceId: '0000', ca, sgxType: ca === 'platform' ? 'Scalable' : 'Standard' },
    })
    expect(evidence.platform.instanceId === undefined).toBe(ca === 'processor')
    expect(authorize(evidence, policy(), { self, now }).root).toBe('simulated')
  })

  test.each([
    [['up-to-date'], 'UpToDate', 'UpToDate', 'UpToDate', 0],
    [['sw-hardening-needed'], 'SWHardeningNeeded', 'UpToDate', 'SWHardeningNeeded', 1],
    [['configuration-needed'], 'ConfigurationNeeded', 'UpToDate', 'ConfigurationNeeded', 2],
    [
      ['configuration-and-sw-hardening-needed'],
      'ConfigurationAndSWHardeningNeeded',
      'UpToDate',
      'ConfigurationAndSWHardeningNeeded',
      2,
    ],
    [['out-of-date'], 'OutOfDate', 'UpToDate', 'OutOfDate', 2],
    [
      ['out-of-date-configuration-needed'],
      'OutOfDateConfigurationNeeded',
      'UpToDate',
      'OutOfDateConfigurationNeeded',
      2,
    ],
    [['tcb-revoked'], 'Revoked', 'UpToDate', 'Revoked', 2],
    [['qe-out-of-date'], 'UpToDate', 'OutOfDate', 'OutOfDate', 1],
    [['configuration-needed', 'qe-out-of-date'], 'ConfigurationNeeded', 'OutOfDate', 'OutOfDateConfigurationNeeded', 3],
    [['qe-revoked'], 'UpToDate', 'Revoked', 'Revoked', 1],
    [['tcb-recovery'], 'OutOfDate', 'UpToDate', 'OutOfDate', 1],
  ] as const)('%o: platform %s, QE %s, together %s', async (variants, platform, qe, together, advisories) => {
    await authority.setVariants(variants)
    const evidence = await verify({ machine })
    expect([evidence.platformStatus, evidence.qeStatus, evidence.tcbStatus]).toEqual([platform, qe, together])
    expect(evidence.advisories).toHaveLength(advisories)
    if (together !== 'UpToDate') {
      expect(() => authorize(evidence, policy(), { self, now })).toThrow(together)
    }
  })

  test.each([
    ['revoked-pck', 'certificate-revoked'],
    ['revoked-ca', 'certificate-revoked'],
    ['revoked-tcb-signer', 'certificate-revoked'],
    ['expired-collateral', 'crl-expired'],
  ])('%s: refused as %s', async (variant, code) => {
    await authority.setVariants([variant])
    await expect(verify({ machine })).rejects.toMatchObject({ code })
  })

  test('a debug enclave is proven to be one, and unwanted', async () => {
    await authority.setVariants(['debug'])
    const evidence = await verify({ machine })
    expect(evidence.attributes.debug).toBe(true)
    const codes = (thrown: { reasons: { code: string }[] }) => thrown.reasons.map(({ code }) => code)
    try {
      authorize(evidence, policy(), { self, now })
      expect.unreachable()
    } catch (thrown) {
      expect(codes(thrown as { reasons: { code: string }[] })).toEqual(['debug-enclave'])
    }
  })
})

test('a machine is revoked or out of date alone', async () => {
  await authority.setVariants(['revoked-pck@b', 'out-of-date@c'])
  const machine = (name: string) => ({ machine: { name, ca: 'platform' as const } })
  await verify(machine('b')).catch(() => undefined)
  expect((await verify(machine('a'))).tcbStatus).toBe('UpToDate')
  await expect(verify(machine('b'))).rejects.toMatchObject({ code: 'certificate-revoked' })
  expect((await verify(machine('c'))).tcbStatus).toBe('OutOfDate')
})

test('a quote made before falls with newer collateral', async () => {
  const quote = await (await testEnclave(authority)).quote(Buffer.alloc(64))
  const root = fingerprintOf(authority.certificates.root)
  const judge = async () => verifyQuote(quote, trustCollateral(await testCollateral(authority), root), { now })
  expect((await judge()).tcbStatus).toBe('UpToDate')
  await authority.setVariants(['tcb-recovery'])
  expect((await judge()).tcbStatus).toBe('OutOfDate')
  await authority.setVariants(['revoked-pck'])
  await expect(judge()).rejects.toMatchObject({ code: 'certificate-revoked' })
})

test('changed code, another signer or too low a version is refused under `self` and under a signer', async () => {
  const changed = await verify({ mrEnclave: codeDigest('cloister, patched') })
  expect(() => authorize(changed, policy(), { self, now })).toThrow(/MRENCLAVE/)
  const enclave = { signer: { mrSigner: changed.measurements.mrSigner, productId: 1, minimumSvn: 2 } }
  expect(() => authorize(changed, policy({ enclave }), { self, now })).toThrow(/ISVSVN/)
  const newer = await verify({ mrEnclave: codeDigest('cloister, patched'), svn: 2 })
  expect(authorize(newer, policy({ enclave }), { self, now }).evidence).toBe(newer)
})

describe('§6.42 simulated root in production', () => {
  test('no quote or collateral of it chains to the root of Intel', async () => {
    const collateral = await testCollateral(authority)
    expect(() => trustCollateral(collateral, intelRootFingerprint)).toThrow(
      expect.objectContaining({ code: 'chain-untrusted-root' }),
    )
  })

  test('evidence proven under it is refused by a policy that names Intel, by its root alone', async () => {
    const evidence = await verify()
    try {
      authorize(evidence, policy({ root: 'intel' }), { self, now })
      expect.unreachable()
    } catch (thrown) {
      expect(thrown).toMatchObject({ code: 'policy-refused', reasons: [{ code: 'root-unwanted' }] })
    }
  })

  test('its root certificate has the name of Intel’s and is another', () => {
    expect(fingerprintOf(authority.certificates.root)).not.toBe(intelRootFingerprint)
  })
})
