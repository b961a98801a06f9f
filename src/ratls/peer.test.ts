import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { testPolicy } from '../../test/attested-credentials.ts'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { codeDigest, testAuthority, testCollateral, testEnclave, testNow } from '../../test/simulated.ts'
import { parseCollateral } from '../attestation/collateral.ts'
import { type PolicyError, parsePolicy } from '../attestation/policy-format.ts'
import { parseQuote } from '../attestation/quote.ts'
import { MonotonicClock } from '../attestation/validity.ts'
import { parseCertificateEvidence } from './certificate.ts'
import { PeerJudge } from './peer.ts'

test('collateral that comes again as another object is not verified again, changed collateral is', async () => {
  const authority = await testAuthority()
  const collateral = await testCollateral(authority)
  const served = [collateral, { ...collateral }, { ...collateral, tcb_info: `${collateral.tcb_info} ` }]
  const judge = new PeerJudge({
    policy: testPolicy(authority),
    self: codeDigest('cloister'),
    collateral: { collateralFor: async () => served.shift()! },
    clock: new MonotonicClock(() => testNow.getTime()),
  })
  const quote = parseQuote(await (await testEnclave(authority)).quote(Buffer.alloc(64)))
  expect((await judge.judge(quote)).evidence.tcbStatus).toBe('UpToDate')
  expect((await judge.judge(quote)).evidence.tcbStatus).toBe('UpToDate')
  await expect(judge.judge(quote)).rejects.toMatchObject({ code: 'tcb-info-signature-invalid' })
})

test('§6.40 clock backwards: below what signed collateral proves to be past', async () => {
  const authority = await testAuthority()
  const collateral = await testCollateral(authority)
  let now = testNow.getTime()
  const judge = new PeerJudge({
    policy: testPolicy(authority),
    self: codeDigest('cloister'),
    collateral: { collateralFor: async () => collateral },
    clock: new MonotonicClock(() => now),
  })
  const quote = parseQuote(await (await testEnclave(authority)).quote(Buffer.alloc(64)))
  await judge.judge(quote)
  now -= 2 * 3_600_000
  await expect(judge.judge(quote)).rejects.toMatchObject({ code: 'clock-backwards' })
})

const vectors = requires('attestation-vectors')
vectors.describe('real certificates (interoperable RA-TLS test results), with Intel’s collateral of their time', () => {
  const read = (name: string) => readFileSync(join(sharedDirectory, 'attestation-vectors', name), 'utf8')
  const derOf = (name: string) => Buffer.from(read(name).replaceAll(/-----[A-Z ]+-----|\s/g, ''), 'base64')
  type Case = {
    collateral: string
    now: number
    crlsValidAtNow: boolean
    expected: { converged: string; advisoryIDs: string[] }
  }
  const cases = vectors.available
    ? (JSON.parse(read('vectors.json')) as { file: string; cases: Case[] }[]).flatMap(({ file, cases }) => {
        const certificate = { gramine: 'gramine-evidence-quote-debug.bin', 'rats-tls': 'rats-tls-quote-debug.bin' }
        const name = Object.entries(certificate).find(([, quote]) => file === `ccc-interop-ratls/${quote}`)?.[0]
        return name ? cases.map((it) => ({ ...it, name: `ccc-interop-ratls/${name}-cert.pem` })) : []
      })
    : []

  const judge = ({ name, collateral, now }: Case & { name: string }, allowDebug: boolean) => {
    const { quote } = parseCertificateEvidence(derOf(name))
    const bundle = parseCollateral(JSON.parse(read(collateral)))
    return new PeerJudge({
      policy: parsePolicy({
        version: 1,
        root: 'intel',
        enclave: { mrEnclave: [quote.report.mrEnclave] },
        attributes: { allowDebug, allowProvisioningKeys: false },
        tcb: {
          acceptedStatuses: ['UpToDate', 'SWHardeningNeeded', 'OutOfDate'],
          acceptedAdvisories: 'any',
          minimumEvaluationNumber: 0,
        },
        collateral: { graceHours: 0 },
        platforms: 'any',
        freshness: { maximumAgeMinutes: 1 },
      }),
      self: codeDigest('cloister'),
      collateral: { collateralFor: async () => bundle },
      clock: new MonotonicClock(() => now * 1000),
    }).judge(quote)
  }

  test('there are cases', () => expect(cases.length).toBeGreaterThan(5))
  test.each(cases.filter(({ crlsValidAtNow }) => crlsValidAtNow))('$name, $collateral', async (it) => {
    const peer = await judge(it, true)
    expect(peer.root).toBe('intel')
    expect({ converged: peer.evidence.tcbStatus, advisoryIDs: peer.evidence.advisories }).toMatchObject({
      converged: it.expected.converged,
      advisoryIDs: it.expected.advisoryIDs,
    })
    // Debug enclaves, all of them: only a policy that says so lets them in.
    const refusal = (await judge(it, false).catch((error: unknown) => error)) as PolicyError
    expect(refusal.reasons.map(({ code }) => code)).toEqual(['debug-enclave'])
  })
})
