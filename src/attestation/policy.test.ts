import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { at, forge, now, type Plan } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import { encodePem } from '../x509/pem.ts'
import { attributeFlags, intelRootFingerprint } from './format.ts'
import { authorize } from './policy.ts'
import { type MismatchCode, type Policy, PolicyError, parsePolicy, rootFingerprintOf } from './policy-format.ts'
import { type TcbStatus, tcbStatuses } from './tcb.ts'
import { type Evidence, examineQuote, trustCollateral } from './verify.ts'

const { rootFingerprint, certificates } = forge()
const [code, signer] = ['11'.repeat(32), '22'.repeat(32)]

const strict = {
  version: 1,
  root: { name: 'simulated', sha256: rootFingerprint },
  enclave: { mrEnclave: ['self'] },
  attributes: { allowDebug: false, allowProvisioningKeys: false },
  tcb: { acceptedStatuses: ['UpToDate'], acceptedAdvisories: [], minimumEvaluationNumber: 19 },
  collateral: { graceHours: 0 },
  platforms: 'any',
  freshness: { maximumAgeMinutes: 60 },
}
/** Two levels deep, as far as policies go. */
const policyWith = (change: Record<string, unknown>): Policy =>
  parsePolicy(
    Object.fromEntries(
      Object.entries(strict).map(([name, value]) => {
        const other = change[name]
        const merge =
          typeof other === 'object' && !Array.isArray(other) && typeof value === 'object' && name !== 'enclave'
        return [name, name in change ? (merge ? { ...value, ...other } : other) : value]
      }),
    ),
  )
const evidenceOf = (body: (plan: Plan) => void = () => {}): Evidence => {
  const forged = forge(body)
  return examineQuote(forged.quote, trustCollateral(forged.collateral, forged.rootFingerprint), now)
}
const reasonsOf = (
  evidence: Evidence,
  policy: Policy,
  context: { self?: string | undefined; now?: number } = {},
): string[] => {
  try {
    authorize(evidence, policy, { self: code, now, ...context })
    return []
  } catch (thrown) {
    if (!(thrown instanceof PolicyError)) throw thrown
    expect(thrown.code).toBe('policy-refused')
    for (const reason of thrown.reasons) {
      expect(reason.hint).not.toBe('')
      expect(reason.message).toMatch(/^Expected .*, got .*\.$/)
    }
    return thrown.reasons.map((reason) => reason.code)
  }
}
const healthy = evidenceOf()

describe('policies as data', () => {
  test('a policy comes back as it was written', () => expect(parsePolicy(strict)).toEqual(strict))

  test('§6.34 policy unset', () => {
    for (const nothing of [undefined, null]) expect(codeOf(() => parsePolicy(nothing))).toBe('policy-unset')
    for (const none of [{}, [], '', 'any', true]) expect(codeOf(() => parsePolicy(none))).toBe('policy-malformed')
  })

  test('every field is required', () => {
    const paths = (value: unknown, path: string[] = []): string[][] =>
      typeof value === 'object' && value !== null && !Array.isArray(value)
        ? Object.entries(value).flatMap(([name, inner]) => [[...path, name], ...paths(inner, [...path, name])])
        : []
    const without = (value: object, [first, ...rest]: string[]): object =>
      Object.fromEntries(
        Object.entries(value).flatMap(([name, inner]) =>
          name !== first ? [[name, inner]] : rest.length > 0 ? [[name, without(inner, rest)]] : [],
        ),
      )
    const all = paths(strict)
    expect(all).toHaveLength(18)
    for (const path of all) expect(codeOf(() => parsePolicy(without(strict, path)))).toBe('policy-malformed')
  })

  test('an unknown field is refused with its path', () => {
    expect(() => parsePolicy({ ...strict, tcb: { ...strict.tcb, acceptEverything: true } })).toThrow(
      /tcb\.acceptEverything/,
    )
    expect(() => parsePolicy({ ...strict, comment: 'x' })).toThrow(/comment/)
    expect(() => parsePolicy({ ...strict, enclave: { signer: { mrSigner: signer, productId: 1 } } })).toThrow(
      /enclave\.signer\.minimumSvn/,
    )
  })

  test.each([
    ['an enclave that may be any', { enclave: {} }],
    ['no MRENCLAVE', { enclave: { mrEnclave: [] } }],
    ['a short MRENCLAVE', { enclave: { mrEnclave: ['11'] } }],
    ['upper-case hex', { enclave: { mrEnclave: ['AA'.repeat(32)] } }],
    ['a signer without product and version', { enclave: { signer: { mrSigner: signer } } }],
    ['Revoked as a status', { tcb: { acceptedStatuses: ['Revoked'] } }],
    ['an unknown status', { tcb: { acceptedStatuses: ['Fine'] } }],
    ['no status', { tcb: { acceptedStatuses: [] } }],
    ['no advisory name', { tcb: { acceptedAdvisories: ['all'] } }],
    ['a negative evaluation number', { tcb: { minimumEvaluationNumber: -1 } }],
    ['grace without end', { collateral: { graceHours: Number.MAX_SAFE_INTEGER } }],
    ['grace in fractions', { collateral: { graceHours: 0.5 } }],
    ['an age of nothing', { freshness: { maximumAgeMinutes: 0 } }],
    ['no platforms', { platforms: [] }],
    ['a platform by nothing', { platforms: [{}] }],
    ['another root named Intel', { root: { name: 'Intel', sha256: '00'.repeat(32) } }],
    ['Intel’s root under another name', { root: { name: 'other', sha256: intelRootFingerprint } }],
    ['a root by name only', { root: { name: 'simulated' } }],
    ['a root in garbled PEM', { root: { name: 'simulated', pem: 'garbage' } }],
    ['version 2', { version: 2 }],
  ])('refuses %s', (_, change) => expect(codeOf(() => parsePolicy({ ...strict, ...change }))).toBe('policy-malformed'))

  test('the root: Intel’s, by fingerprint, or by certificate', () => {
    expect(rootFingerprintOf(policyWith({ root: 'intel' }))).toBe(intelRootFingerprint)
    const pem = encodePem(certificates.root)
    expect(rootFingerprintOf(parsePolicy({ ...strict, root: { name: 'lab', pem } }))).toBe(rootFingerprint)
  })

  test('any JSON parses or is refused', () => {
    const survives = (json: unknown): void => {
      const code = codeOf(() => parsePolicy(json))
      expect(['policy-malformed', 'policy-unset']).toContain(code)
    }
    fc.assert(fc.property(fc.jsonValue(), survives), { interruptAfterTimeLimit: 1000, numRuns: 1000 })
  })
})

describe('who is let in', () => {
  test('a healthy peer of the same code', () => {
    const peer = authorize(healthy, parsePolicy(strict), { self: code, now })
    expect(peer.evidence).toBe(healthy)
    expect(peer.root).toBe('simulated')
  })

  test('facts that verification did not make are a bug, not a peer', () => {
    const copy = { ...healthy } as Evidence
    expect(() => authorize(copy, parsePolicy(strict), { self: code, now })).toThrow(/did not make/)
  })

  const refused: readonly [string, readonly MismatchCode[], (plan: Plan) => void, Record<string, unknown>][] = [
    ['other code', ['measurement-mismatch'], (plan) => (plan.report.mrEnclave = '12'.repeat(32)), {}],
    ['§6.32 debug', ['debug-enclave'], (plan) => (plan.report.flags |= attributeFlags.debug), {}],
    ['§6.32 INIT clear', ['enclave-uninitialized'], (plan) => (plan.report.flags &= ~attributeFlags.init), {}],
    ['§6.32 32-bit', ['enclave-not-64-bit'], (plan) => (plan.report.flags &= ~attributeFlags.mode64Bit), {}],
    ['§6.32 PROVISION_KEY', ['provisioning-key'], (plan) => (plan.report.flags |= attributeFlags.provisionKey), {}],
    ['§6.32 EINITTOKEN_KEY', ['provisioning-key'], (plan) => (plan.report.flags |= attributeFlags.licenseKey), {}],
    [
      '§6.33 low SVN',
      ['svn-too-low'],
      () => {},
      { enclave: { signer: { mrSigner: signer, productId: 0, minimumSvn: 4 } } },
    ],
    [
      '§6.33 wrong product',
      ['product-mismatch'],
      () => {},
      { enclave: { signer: { mrSigner: signer, productId: 1, minimumSvn: 3 } } },
    ],
    [
      'another signer',
      ['signer-mismatch'],
      () => {},
      { enclave: { signer: { mrSigner: '23'.repeat(32), productId: 0, minimumSvn: 3 } } },
    ],
    [
      'the right signer of other code, where both are asked for',
      ['measurement-mismatch'],
      () => {},
      { enclave: { mrEnclave: ['33'.repeat(32)], signer: { mrSigner: signer, productId: 0, minimumSvn: 3 } } },
    ],
    [
      '§6.30 out of date, with its advisory',
      ['tcb-status-unaccepted', 'advisory-unaccepted'],
      (plan) => (plan.pck.svns[3] = 4),
      {},
    ],
    [
      '§6.30 advisory alone',
      ['advisory-unaccepted'],
      (plan) => (plan.pck.svns[3] = 4),
      { tcb: { acceptedStatuses: ['OutOfDate'], acceptedAdvisories: ['INTEL-SA-99999'] } },
    ],
    ['old quoting enclave', ['tcb-status-unaccepted', 'advisory-unaccepted'], (plan) => (plan.qeReport.svn = 7), {}],
    [
      'revoked quoting enclave, whatever is accepted',
      ['tcb-status-unaccepted'],
      (plan) => (plan.qeReport.svn = 4),
      { tcb: { acceptedStatuses: tcbStatuses.filter((it) => it !== 'Revoked'), acceptedAdvisories: 'any' } },
    ],
    [
      '§6.31 evaluation of TCB info',
      ['tcb-evaluation-too-low'],
      (plan) => (plan.tcbInfo.tcbEvaluationDataNumber = 18),
      {},
    ],
    [
      '§6.31 evaluation of QE identity',
      ['tcb-evaluation-too-low'],
      (plan) => (plan.qeIdentity.tcbEvaluationDataNumber = 18),
      {},
    ],
    [
      'another machine',
      ['platform-not-pinned'],
      () => {},
      { platforms: [{ ppid: '12'.repeat(16) }, { instanceId: '11'.repeat(16) }] },
    ],
    ['§6.42 a simulated root where Intel is trusted', ['root-unwanted'], () => {}, { root: 'intel' }],
  ]
  test.each(refused)('not %s', (_, codes, body, change) => {
    expect(reasonsOf(evidenceOf(body), policyWith(change))).toEqual(codes)
  })

  const accepted: readonly [string, (plan: Plan) => void, Record<string, unknown>][] = [
    [
      'debug where allowed',
      (plan) => (plan.report.flags |= attributeFlags.debug),
      { attributes: { allowDebug: true } },
    ],
    [
      'provisioning key where allowed',
      (plan) => (plan.report.flags |= attributeFlags.provisionKey),
      { attributes: { allowProvisioningKeys: true } },
    ],
    ['listed code', () => {}, { enclave: { mrEnclave: ['33'.repeat(32), code] } }],
    [
      'the signer at exactly the version',
      () => {},
      { enclave: { signer: { mrSigner: signer, productId: 0, minimumSvn: 3 } } },
    ],
    [
      'accepted status and advisory',
      (plan) => (plan.pck.svns[3] = 4),
      { tcb: { acceptedStatuses: ['UpToDate', 'OutOfDate'], acceptedAdvisories: ['INTEL-SA-00001'] } },
    ],
    [
      'accepted status and any advisory',
      (plan) => (plan.pck.svns[3] = 4),
      { tcb: { acceptedStatuses: ['OutOfDate'], acceptedAdvisories: 'any' } },
    ],
    ['a pinned PPID', () => {}, { platforms: [{ ppid: '11'.repeat(16) }] }],
    ['a pinned instance', () => {}, { platforms: [{ ppid: '00'.repeat(16) }, { instanceId: '22'.repeat(16) }] }],
  ]
  test.each(accepted)('%s', (_, body, change) => {
    expect(reasonsOf(evidenceOf(body), policyWith(change))).toEqual([])
  })

  test('self is nobody outside of an enclave', () => {
    expect(reasonsOf(healthy, parsePolicy(strict), { self: undefined })).toEqual(['measurement-mismatch'])
  })

  test('a platform without instance id is not pinned by one', () => {
    const evidence = evidenceOf((plan) => (plan.pck.instanceId = undefined))
    expect(reasonsOf(evidence, policyWith({ platforms: [{ instanceId: '22'.repeat(16) }] }))).toEqual([
      'platform-not-pinned',
    ])
  })

  test('every status is accepted by a policy that lists it, and by no other', () => {
    for (const status of tcbStatuses.filter((it): it is Exclude<TcbStatus, 'Revoked'> => it !== 'Revoked')) {
      const evidence = evidenceOf((plan) => {
        plan.tcbInfo.tcbLevels = [{ ...(plan.tcbInfo.tcbLevels as object[])[0], tcbStatus: status }]
      })
      const accepting = tcbStatuses.filter(
        (listed) =>
          listed !== 'Revoked' && reasonsOf(evidence, policyWith({ tcb: { acceptedStatuses: [listed] } })).length === 0,
      )
      expect(accepting).toEqual([status])
    }
  })

  test('everything that is wrong is listed', () => {
    const evidence = evidenceOf((plan) => {
      Object.assign(plan.report, { mrEnclave: '12'.repeat(32), flags: 0x12n })
      plan.pck.svns[0] = 3
      plan.tcbInfo.tcbEvaluationDataNumber = 1
      plan.pckCrl.nextUpdate = at(-1)
    })
    const policy = policyWith({ root: 'intel', platforms: [{ ppid: '12'.repeat(16) }] })
    expect(reasonsOf(evidence, policy)).toEqual([
      'root-unwanted',
      'measurement-mismatch',
      'enclave-uninitialized',
      'enclave-not-64-bit',
      'debug-enclave',
      'provisioning-key',
      'tcb-status-unaccepted',
      'advisory-unaccepted',
      'tcb-evaluation-too-low',
      'platform-not-pinned',
      'crl-expired',
    ])
  })
})

describe('time', () => {
  const minute = 60_000
  test('evidence ages', () => {
    const ages = [0, 60, 61].map((age) => reasonsOf(healthy, parsePolicy(strict), { now: now + age * minute }))
    expect(ages).toEqual([[], [], ['evidence-stale']])
  })
  test('§6.40 clock backwards: evidence is of the future', () => {
    expect(reasonsOf(healthy, parsePolicy(strict), { now: now - minute })).toEqual([])
    expect(reasonsOf(healthy, parsePolicy(strict), { now: now - 2 * minute })).toEqual(['evidence-from-future'])
    const before = reasonsOf(healthy, parsePolicy(strict), { now: at(-400).getTime() })
    expect(before).toContain('certificate-not-yet-valid')
    expect(before).toContain('crl-not-yet-valid')
    expect(before).toContain('tcb-info-not-yet-valid')
  })
  test('collateral that expired, with and without grace', () => {
    const evidence = evidenceOf((plan) => (plan.pckCrl.nextUpdate = at(-1)))
    expect(reasonsOf(evidence, parsePolicy(strict))).toEqual(['crl-expired'])
    expect(reasonsOf(evidence, policyWith({ collateral: { graceHours: 23 } }))).toEqual(['crl-expired'])
    expect(reasonsOf(evidence, policyWith({ collateral: { graceHours: 24 } }))).toEqual([])
  })
})
