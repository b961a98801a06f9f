import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { negativeCodes, negatives, positives, vectorPath, vectors } from '../../test/attestation-vectors.ts'
import { testContext } from '../../test/cli-context.ts'
import { tcbStatuses } from '../attestation/tcb.ts'
import type { Judgement } from './judgement.ts'
import { run } from './program.ts'

/** The whole command as it is typed, so that options and exit statuses are tried too. */
vectors.describe('cloister verify --json, on real quotes of Intel’s PKI', () => {
  let policy: string
  beforeAll(() => {
    policy = join(mkdtempSync(join(tmpdir(), 'cloister-vectors-')), 'policy.json')
  })
  afterAll(() => rmSync(join(policy, '..'), { recursive: true }))

  /** Lets in what is proven about any enclave of one signer: the cases are about status, not about policy. */
  function writePolicy(signer: { mrSigner: string; productId: number; minimumSvn: number }): void {
    const acceptedStatuses = tcbStatuses.filter((status) => status !== 'Revoked')
    const content = {
      version: 1,
      root: 'intel',
      enclave: { signer },
      attributes: { allowDebug: true, allowProvisioningKeys: true },
      tcb: { acceptedStatuses, acceptedAdvisories: 'any', minimumEvaluationNumber: 0 },
      collateral: { graceHours: 0 },
      platforms: 'any',
      freshness: { maximumAgeMinutes: 1 },
    }
    writeFileSync(policy, JSON.stringify(content))
  }

  async function verify(it: { quote: string; collateral: string; now: number }) {
    const { context, printed } = testContext()
    const [quote, collateral] = [vectorPath(it.quote), vectorPath(it.collateral)]
    const given = ['--policy', policy, '--collateral', collateral, '--at', `${it.now}`, '--json']
    const status = await run(['verify', quote, ...given], context)
    const judgement = JSON.parse(printed.out) as Judgement
    return { status, judgement, codes: judgement.reasons.map(({ code }) => code) }
  }

  test.each(positives())('$quote with $collateral', async ({ vector, quote, collateral, now, expected, ...it }) => {
    writePolicy({ mrSigner: vector.mrsigner, productId: vector.isvProdId, minimumSvn: vector.isvSvn })
    const { status, judgement, codes } = await verify({ quote, collateral, now })
    expect(judgement).toMatchObject({
      verdict: it.crlsValidAtNow ? 'accepted' : 'refused',
      tcbStatus: expected.converged,
      platformStatus: expected.platform,
      qeStatus: expected.qe,
      advisories: expected.advisoryIDs,
      measurements: { mrEnclave: vector.mrenclave, mrSigner: vector.mrsigner },
    })
    expect(status).toBe(it.crlsValidAtNow ? 0 : 1)
    if (!it.crlsValidAtNow) expect(codes).toContainEqual(expect.stringMatching(/^crl-(expired|not-yet-valid)$/))
  })

  test.each(negatives())('$name is refused: 1', async ({ name, ...it }) => {
    writePolicy({ mrSigner: '00'.repeat(32), productId: 0, minimumSvn: 0 })
    const { status, judgement, codes } = await verify(it)
    expect([status, judgement.verdict]).toEqual([1, 'refused'])
    expect(codes).toContain(negativeCodes[name])
    expect(judgement.reasons.every(({ message, hint }) => message !== '' && hint !== '')).toBe(true)
  })
})
