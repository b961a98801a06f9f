import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { forge, now } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import { encodePem } from '../x509/pem.ts'
import type { Judgement } from './judgement.ts'
import { check, init, strictPolicy, weaknesses } from './policy.ts'
import { type LookUpCollateral, type VerifyOptions, verify } from './verify.ts'

const code = '11'.repeat(32)
const good = forge()
const root = { name: 'simulated', sha256: good.rootFingerprint }
let cwd: string

beforeAll(() => {
  cwd = mkdtempSync(join(tmpdir(), 'cloister-verify-'))
  const write = (name: string, content: string | Uint8Array) => writeFileSync(join(cwd, name), content)
  write('quote.bin', good.quote)
  write('flipped.bin', Buffer.from(good.quote).fill(1, 200, 201))
  write('collateral.json', JSON.stringify(good.collateral))
  write('lacking.json', JSON.stringify({ ...good.collateral, root_ca_crl: undefined }))
  write('broken.json', '{')
  write('root.pem', encodePem(good.certificates.root))
  write('root.der', good.certificates.root)
  write('self.json', JSON.stringify(strictPolicy(root)))
  write('policy.json', JSON.stringify(strictPolicy(root, [code])))
  write('intel.json', JSON.stringify(strictPolicy('intel', [code])))
})
afterAll(() => rmSync(cwd, { recursive: true }))

async function run(subject: string, options: Partial<VerifyOptions>, lookUp?: LookUpCollateral) {
  let output = ''
  const stdout = { write: (text: string) => (output += text) }
  const context = { cwd, stdout, now: () => new Date(now) }
  const given = { policy: 'policy.json', collateral: 'collateral.json', json: true, ...options }
  const status = await verify(context, given, subject, lookUp)
  return { status, output, judgement: given.json ? (JSON.parse(output) as Judgement) : undefined }
}
const reasons = (judgement: Judgement | undefined) => judgement?.reasons.map((reason) => reason.code)

describe('cloister verify', () => {
  test('accepted: 0', async () => {
    const { status, judgement } = await run('quote.bin', {})
    expect(status).toBe(0)
    expect(judgement).toMatchObject({
      verdict: 'accepted',
      tcbStatus: 'UpToDate',
      platformStatus: 'UpToDate',
      qeStatus: 'UpToDate',
      advisories: [],
      measurements: { mrEnclave: code },
      reasons: [],
      judgedAt: '2026-11-01T00:00:00.000Z',
      validUntil: '2026-11-14T00:00:00.000Z',
    })
  })

  test.each([
    [
      'unwanted: everything is shown all the same',
      'quote.bin',
      { policy: 'self.json' },
      ['measurement-mismatch'],
      'UpToDate',
    ],
    [
      'self as given',
      'quote.bin',
      { policy: 'self.json', self: '12'.repeat(32) },
      ['measurement-mismatch'],
      'UpToDate',
    ],
    ['not proven: nothing is shown', 'flipped.bin', {}, ['quote-signature-invalid'], null],
    [
      'under a root that the policy does not name',
      'quote.bin',
      { policy: 'intel.json' },
      ['chain-untrusted-root'],
      null,
    ],
    [
      'that root named on the command line: shown, and refused',
      'quote.bin',
      { policy: 'intel.json', root: 'root.pem' },
      ['root-unwanted'],
      'UpToDate',
    ],
    [
      'a collateral bundle that lacks a CRL',
      'quote.bin',
      { collateral: 'lacking.json' },
      ['collateral-malformed'],
      null,
    ],
    ['something that is no quote', 'policy.json', {}, ['quote-version-unsupported'], null],
    [
      'later, when collateral has expired',
      'quote.bin',
      { at: '2026-11-20T00:00:00Z' },
      ['tcb-info-expired', 'qe-identity-expired'],
      'UpToDate',
    ],
    ['earlier, in seconds', 'quote.bin', { at: '1793000000' }, [], 'UpToDate'],
    ['the root as DER', 'quote.bin', { root: 'root.der' }, [], 'UpToDate'],
    ['self as given and right', 'quote.bin', { policy: 'self.json', self: code }, [], 'UpToDate'],
  ])('%s', async (_, subject, options, codes, tcbStatus) => {
    const { status, judgement } = await run(subject, options)
    expect(reasons(judgement)).toEqual(codes)
    expect(judgement?.tcbStatus).toBe(tcbStatus)
    expect(status).toBe(codes.length === 0 ? 0 : 1)
  })

  test.each([
    ['no such quote', 'absent.bin', {}, 'verify-input-unreadable'],
    ['no such policy', 'quote.bin', { policy: 'absent.json' }, 'verify-input-unreadable'],
    ['a policy that is no JSON', 'quote.bin', { policy: 'broken.json' }, 'verify-json-malformed'],
    ['a policy that is none', 'quote.bin', { policy: 'collateral.json' }, 'policy-malformed'],
    ['a bundle that is no JSON', 'quote.bin', { collateral: 'broken.json' }, 'verify-json-malformed'],
    ['a root that is no certificate', 'quote.bin', { root: 'policy.json' }, 'pem-malformed'],
    ['no time', 'quote.bin', { at: 'yesterday' }, 'verify-time-malformed'],
    ['a date that does not exist', 'quote.bin', { at: '2026-13-01' }, 'verify-time-malformed'],
  ])('could not be judged: 2: %s', async (_, subject, options, code) => {
    const { status, judgement } = await run(subject, options)
    expect(judgement).toMatchObject({ verdict: 'unjudged', tcbStatus: null, measurements: null })
    expect(reasons(judgement)).toEqual([code])
    expect(status).toBe(2)
  })

  test('without a bundle a PCCS is asked, or says why not', async () => {
    const { collateral: _, ...rest } = { collateral: '', policy: 'policy.json', json: true }
    const context = (write: (text: string) => void) => ({ cwd, stdout: { write }, now: () => new Date(now) })
    let text = ''
    const asked = await verify(
      context((it) => (text += it)),
      rest,
      'quote.bin',
      async (quote) => {
        expect(good.quote.equals(quote)).toBe(true)
        return good.collateral
      },
    )
    expect([asked, JSON.parse(text).verdict]).toEqual([0, 'accepted'])
    text = ''
    expect(
      await verify(
        context((it) => (text += it)),
        rest,
        'quote.bin',
      ),
    ).toBe(2)
    expect(JSON.parse(text).reasons[0].code).toBe('verify-collateral-unknown')
  })

  test('for people', async () => {
    const { output } = await run('quote.bin', { json: false, policy: 'self.json' })
    expect(output).toContain('REFUSED\n  measurement-mismatch: Expected MRENCLAVE self (unknown outside of an enclave)')
    expect(output).toContain(`MRENCLAVE   ${code}`)
    expect(output).toContain('TCB         UpToDate (platform UpToDate, quoting enclave UpToDate), evaluation 19')
  })
})

describe('cloister policy', () => {
  const context = () => {
    const written: string[] = []
    return { written, cwd, stdout: { write: (text: string) => written.push(text) } }
  }
  test('init writes the strictest policy, once', async () => {
    const { written, ...it } = context()
    expect(await init(it, {})).toBe(0)
    expect(JSON.parse(written.join(''))).toEqual(strictPolicy())
    expect(await init(it, { root: 'root.pem', rootName: 'lab', mrenclave: [code] }, 'new.json')).toBe(0)
    await expect(init(it, {}, 'new.json')).rejects.toMatchObject({ code: 'policy-file-exists' })
    written.length = 0
    expect(await check(it, { json: true }, 'new.json')).toBe(0)
    expect(JSON.parse(written.join('')).policy).toEqual(strictPolicy({ ...root, name: 'lab' }, [code]))
  })
  test('check says what is weak', async () => {
    const { written, ...it } = context()
    expect(await check(it, {}, 'policy.json')).toBe(0)
    expect(written.join('')).toContain(`weakness     root: "simulated" is not Intel's`)
    await expect(check(it, {}, 'broken.json')).rejects.toMatchObject({ code: 'policy-malformed' })
    await expect(check(it, {}, 'absent.json')).rejects.toMatchObject({ code: 'policy-file-unreadable' })
  })
  test('each weakness has its line', () => {
    const strongest = { ...strictPolicy('intel', [code]), platforms: [{ ppid: '11'.repeat(16) }] }
    expect(weaknesses(strongest)).toEqual([])
    const weak = {
      ...strongest,
      root,
      enclave: { signer: { mrSigner: code, productId: 0, minimumSvn: 0 } },
      attributes: { allowDebug: true, allowProvisioningKeys: true },
      tcb: { acceptedStatuses: ['OutOfDate' as const], acceptedAdvisories: 'any' as const, minimumEvaluationNumber: 0 },
      collateral: { graceHours: 1 },
      platforms: 'any' as const,
    }
    expect(weaknesses(weak).map((line) => line.split(':')[0])).toEqual([
      'root',
      'attributes.allowDebug',
      'attributes.allowProvisioningKeys',
      'enclave',
      'tcb.acceptedStatuses',
      'tcb.acceptedAdvisories',
      'tcb.minimumEvaluationNumber',
      'collateral.graceHours',
      'platforms',
    ])
  })
  test('a strict policy cannot be made for nothing', () =>
    expect(codeOf(() => strictPolicy('intel', []))).toBe('policy-malformed'))
})
