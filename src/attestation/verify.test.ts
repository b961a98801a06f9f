import { describe, expect, test } from 'vitest'
import { at, forge, now, type Plan, refusalOf } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import { parseCollateral } from './collateral.ts'
import type { AttestationErrorCode } from './error.ts'
import { pkiNames, quoteFields } from './format.ts'
import { isProven, trustCollateral, verifyQuote } from './verify.ts'

const change = (code: AttestationErrorCode, body: (plan: Plan) => void) => ({ code, body })
const level = (svn: number, tcbStatus: string) => ({
  tcb: { sgxtcbcomponents: Array.from({ length: 16 }, () => ({ svn })), pcesvn: 13 },
  tcbDate: '2026-05-13T00:00:00Z',
  tcbStatus,
})

test('the unchanged forgery verifies as UpToDate', () => {
  const { quote, collateral, rootFingerprint } = forge()
  const evidence = verifyQuote(quote, trustCollateral(collateral, rootFingerprint), { now })
  expect(evidence).toMatchObject({ tcbStatus: 'UpToDate', platformStatus: 'UpToDate', qeStatus: 'UpToDate' })
  expect(isProven(evidence)).toBe(true)
  expect(isProven({ ...evidence })).toBe(false)
  expect(Object.isFrozen(evidence)).toBe(true)
})

describe('§6 of attestation-facts, the parts of a quote', () => {
  test.each([
    [
      '§6.18 attestation key that is another',
      change('quote-signature-invalid', (plan) => (plan.quoteSigner = 'stranger')),
    ],
    [
      '§6.21 QE report bound to another key',
      change('qe-binding-invalid', (plan) => (plan.qeReportData = Buffer.alloc(64, 1))),
    ],
    [
      '§6.21 QE report data with a tail',
      change('qe-binding-invalid', (plan) => (plan.qeReportData = bindingWithTail(plan))),
    ],
    [
      '§6.21 QE report signed by another key',
      change('qe-report-signature-invalid', (plan) => (plan.qeReportSigner = 'stranger')),
    ],
    [
      '§6.29 QE of another signer',
      change('qe-identity-mismatch', (plan) => (plan.qeReport.mrSigner = 'ab'.repeat(32))),
    ],
    ['§6.29 QE of another product', change('qe-identity-mismatch', (plan) => (plan.qeReport.productId = 2))],
    ['§6.29 QE with other attributes', change('qe-identity-mismatch', (plan) => (plan.qeReport.flags = 0x05n))],
    [
      '§6.29 QE with other MISCSELECT',
      change('qe-identity-mismatch', (plan) => (plan.qeReport.miscSelect = '01000000')),
    ],
    ['§6.29 debug QE', change('qe-identity-mismatch', (plan) => (plan.qeReport.flags = 0x17n))],
    [
      '§6.29 debug QE that the identity does not mask out',
      change('qe-identity-mismatch', (plan) => {
        plan.qeReport.flags = 0x17n
        plan.qeIdentity.attributesMask = `f9${'ff'.repeat(7)}${'00'.repeat(8)}`
      }),
    ],
    ['§6.29 QE below all levels', change('qe-tcb-level-unknown', (plan) => (plan.qeReport.svn = 3))],
    [
      'platform below all levels',
      change('tcb-level-unknown', (plan) => (plan.pck.svns = [5, 5, 2, ...Array<number>(13).fill(5)])),
    ],
    ['PCE below all levels', change('tcb-level-unknown', (plan) => (plan.pck.pceSvn = 12))],
  ])('%s', (_, { code, body }) => expect(refusalOf(body)).toBe(code))

  test('QE authentication data may have any length', () => {
    for (const size of [0, 1, 33, 2000])
      expect(refusalOf((plan) => (plan.qeAuthData = Buffer.alloc(size, 3)))).toBe(undefined)
  })
})

function bindingWithTail(plan: Plan): Buffer {
  const { quote } = forge()
  plan.qeAuthData = Buffer.alloc(32, 7)
  const bound = Buffer.from(quote.subarray(564 + 320, 564 + 384))
  bound[63] = 1
  return bound
}

describe('keys and signatures that are none', () => {
  const { quote, collateral, rootFingerprint } = forge()
  const trusted = trustCollateral(collateral, rootFingerprint)
  const withBytes = (offset: number, hex: string) => {
    const changed = Buffer.from(quote)
    changed.write(hex, offset, 'hex')
    return codeOf(() => verifyQuote(changed, trusted, { now }))
  }
  const { signature, attestationKey, qeReportSignature } = quoteFields
  /** The order of P-256. */
  const order = 'ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551'
  const key = quote.toString('hex', attestationKey.offset, attestationKey.offset + 32)

  test.each([
    ['zero', '00'.repeat(64)],
    ['all ones', 'ff'.repeat(64)],
    ['off the curve', `${key}${'01'.repeat(32)}`],
  ])('§6.18 attestation key %s', (_, hex) =>
    expect(withBytes(attestationKey.offset, hex)).toBe('attestation-key-invalid'),
  )
  test.each([
    ['r = 0', 0, '00'.repeat(32)],
    ['s = 0', 32, '00'.repeat(32)],
    ['r = s = 0', 0, '00'.repeat(64)],
    ['r = n', 0, order],
    ['s = n', 32, order],
    ['r > n', 0, 'ff'.repeat(32)],
    ['s > n', 32, 'ff'.repeat(32)],
  ])('§6.19 signatures with %s', (_, offset, hex) => {
    expect(withBytes(signature.offset + offset, hex)).toBe('quote-signature-invalid')
    expect(withBytes(qeReportSignature.offset + offset, hex)).toBe('qe-report-signature-invalid')
  })
})

describe('§6.25 CRLs', () => {
  test.each([
    ['root CRL garbage', change('crl-unreadable', (plan) => (plan.rootCrl.bytes = Buffer.from('garbage')))],
    ['PCK CRL a certificate', change('crl-unreadable', (plan) => (plan.pckCrl.bytes = forge().certificates.ca))],
    [
      'root CRL in place of the PCK CRL',
      change('crl-issuer-wrong', (plan) => Object.assign(plan.pckCrl, { issuer: 'root', signer: 'root' })),
    ],
    [
      'PCK CRL in place of the root CRL',
      change('crl-issuer-wrong', (plan) => Object.assign(plan.rootCrl, { issuer: 'ca', signer: 'ca' })),
    ],
    [
      'foreign PCK CRL',
      change('crl-issuer-wrong', (plan) => Object.assign(plan.pckCrl, { issuer: 'stranger', signer: 'stranger' })),
    ],
    ['PCK CRL signed by a stranger', change('crl-issuer-wrong', (plan) => (plan.pckCrl.signer = 'stranger'))],
    ['root CRL expired', change('crl-expired', (plan) => (plan.rootCrl.nextUpdate = at(-1)))],
    ['PCK CRL expired', change('crl-expired', (plan) => (plan.pckCrl.nextUpdate = at(-1)))],
    ['root CRL of the future', change('crl-not-yet-valid', (plan) => (plan.rootCrl.thisUpdate = at(1)))],
    ['PCK CRL of the future', change('crl-not-yet-valid', (plan) => (plan.pckCrl.thisUpdate = at(1)))],
  ])('%s', (_, { code, body }) => expect(refusalOf(body)).toBe(code))
  test('a CRL with a bad signature', () => {
    const { collateral, rootFingerprint } = forge()
    for (const field of ['root_ca_crl', 'pck_crl'] as const) {
      const changed = {
        ...collateral,
        [field]: collateral[field].replace(/..$/, (hex) => (hex === '00' ? '01' : '00')),
      }
      expect(codeOf(() => trustCollateral(changed, rootFingerprint))).toBe('crl-signature-invalid')
    }
  })
  test('a missing CRL', () => {
    const { root_ca_crl: _, ...rest } = forge().collateral
    expect(codeOf(() => parseCollateral(rest))).toBe('collateral-malformed')
    expect(codeOf(() => parseCollateral({ ...rest, root_ca_crl: '' }))).toBe('collateral-malformed')
  })
})

describe('§6.26 revocation', () => {
  test.each([
    ['PCK certificate', (plan: Plan) => plan.pckCrl.revoked.push(7n, 3n)],
    ['PCK CA', (plan: Plan) => plan.rootCrl.revoked.push(2n)],
    ['TCB signer', (plan: Plan) => plan.rootCrl.revoked.push(4n)],
  ])('revoked %s', (_, body) => expect(refusalOf(body)).toBe('certificate-revoked'))
  test('revocation of others, or of the same number by another CA, changes nothing', () => {
    expect(refusalOf((plan) => plan.pckCrl.revoked.push(2n, 4n, 99n))).toBe(undefined)
    expect(refusalOf((plan) => plan.rootCrl.revoked.push(3n, 99n))).toBe(undefined)
  })
  test('a quote under another PCK CA than the collateral’s: its CRL does not count', () => {
    const { quote } = forge((plan) => (plan.certificates.ca.name = pkiNames.processorCa))
    const { collateral, rootFingerprint } = forge()
    const verify = () => verifyQuote(quote, trustCollateral(collateral, rootFingerprint), { now })
    expect(codeOf(verify)).toBe('crl-issuer-wrong')
  })
})

describe('§6.27 TCB info and QE identity', () => {
  const { quote, collateral, rootFingerprint } = forge()
  const edits: readonly [string, (text: string) => string][] = [
    ['edited', (text) => text.replace('19', '20')],
    ['respaced', (text) => text.replace(',', ', ')],
    ['reordered', (text) => JSON.stringify(Object.fromEntries(Object.entries(JSON.parse(text)).reverse()))],
    ['longer', (text) => `${text}\n`],
  ]
  test.each(edits)('%s', (_, edit) => {
    const tcb = { ...collateral, tcb_info: edit(collateral.tcb_info) }
    expect(codeOf(() => trustCollateral(tcb, rootFingerprint))).toBe('tcb-info-signature-invalid')
    const qe = { ...collateral, qe_identity: edit(collateral.qe_identity) }
    expect(codeOf(() => trustCollateral(qe, rootFingerprint))).toBe('qe-identity-signature-invalid')
  })
  test('one signed in place of the other', () => {
    const swapped = {
      ...collateral,
      tcb_info: collateral.qe_identity,
      tcb_info_signature: collateral.qe_identity_signature,
    }
    expect(codeOf(() => trustCollateral(swapped, rootFingerprint))).toBe('tcb-info-malformed')
  })
  test.each([
    ['TCB info expired', change('tcb-info-expired', (plan) => (plan.tcbInfo.nextUpdate = '2026-10-31T23:59:59Z'))],
    [
      'TCB info of the future',
      change('tcb-info-not-yet-valid', (plan) => (plan.tcbInfo.issueDate = '2026-11-01T00:00:01Z')),
    ],
    [
      'QE identity expired',
      change('qe-identity-expired', (plan) => (plan.qeIdentity.nextUpdate = '2026-10-31T23:59:59Z')),
    ],
    [
      'QE identity of the future',
      change('qe-identity-not-yet-valid', (plan) => (plan.qeIdentity.issueDate = '2026-11-01T00:00:01Z')),
    ],
    ['an unknown status', change('tcb-info-malformed', (plan) => (plan.tcbInfo.tcbLevels = [level(5, 'Splendid')]))],
    ['version 4', change('tcb-info-malformed', (plan) => (plan.tcbInfo.version = 4))],
    [
      '15 components',
      change(
        'tcb-info-malformed',
        (plan) =>
          (plan.tcbInfo.tcbLevels = [
            { ...level(5, 'UpToDate'), tcb: { sgxtcbcomponents: Array(15).fill({ svn: 1 }), pcesvn: 1 } },
          ]),
      ),
    ],
    [
      'a date that does not exist',
      change('tcb-info-malformed', (plan) => (plan.tcbInfo.issueDate = '2026-13-01T00:00:00Z')),
    ],
    ['QE identity of the TDX QE', change('qe-identity-malformed', (plan) => (plan.qeIdentity.id = 'TD_QE'))],
    ['QE identity without a mask', change('qe-identity-malformed', (plan) => delete plan.qeIdentity.attributesMask)],
  ])('%s', (_, { code, body }) => expect(refusalOf(body)).toBe(code))
  test('grace extends collateral, not certificates, and never the past', () => {
    const graceMs = 2 * 86_400_000
    expect(refusalOf((plan) => (plan.pckCrl.nextUpdate = at(-1)), { graceMs })).toBe(undefined)
    expect(refusalOf((plan) => (plan.pckCrl.nextUpdate = at(-3)), { graceMs })).toBe('crl-expired')
    expect(refusalOf((plan) => (plan.certificates.pck.notAfter = at(-1)), { graceMs })).toBe('certificate-expired')
    expect(refusalOf((plan) => (plan.pckCrl.thisUpdate = at(1)), { graceMs })).toBe('crl-not-yet-valid')
  })
  test.each(['root', 'ca', 'pck', 'tcbSigner'] as const)('the certificate of %s expired or not yet valid', (member) => {
    expect(refusalOf((plan) => (plan.certificates[member].notAfter = at(-1)))).toBe('certificate-expired')
    expect(refusalOf((plan) => (plan.certificates[member].notBefore = at(1)))).toBe('certificate-not-yet-valid')
  })
  test('the last and the first second count', () => {
    const verify = (now: number) =>
      codeOf(() => verifyQuote(quote, trustCollateral(collateral, rootFingerprint), { now }))
    const [first, last] = [at(-10).getTime(), Date.parse('2026-11-14T00:00:00Z')]
    expect([first - 1, first, last, last + 1].map(verify)).toEqual([
      'crl-not-yet-valid',
      undefined,
      undefined,
      'tcb-info-expired',
    ])
  })
})

describe('§6.28 collateral of another platform', () => {
  test.each([
    ['FMSPC', change('fmspc-mismatch', (plan) => (plan.tcbInfo.fmspc = '00c101570e01'))],
    ['PCEID', change('pce-id-mismatch', (plan) => (plan.tcbInfo.pceId = '0001'))],
    ['TDX', change('tcb-info-malformed', (plan) => (plan.tcbInfo.id = 'TDX'))],
    ['TCB type', change('tcb-info-malformed', (plan) => (plan.tcbInfo.tcbType = 1))],
  ])('%s', (_, { code, body }) => expect(refusalOf(body)).toBe(code))
  test('the case of the hex does not matter', () =>
    expect(refusalOf((plan) => (plan.tcbInfo.fmspc = '00C101570E00'))).toBe(undefined))
})

describe('PCK certificates', () => {
  test.each([
    ['without the extension', change('certificate-role-wrong', (plan) => (plan.pckExtension = () => undefined))],
    ['with an empty one', change('pck-malformed', (plan) => (plan.pckExtension = () => Buffer.from([0x30, 0])))],
    ['with no DER', change('pck-malformed', (plan) => (plan.pckExtension = () => Buffer.from('garbage')))],
    ['with a short PPID', change('pck-malformed', (plan) => (plan.pck.ppid = Buffer.alloc(15)))],
    ['with an SVN of 256', change('pck-malformed', (plan) => (plan.pck.svns[0] = 256))],
    ['with a component too few', change('pck-malformed', (plan) => plan.pck.svns.pop())],
  ])('%s', (_, { code, body }) => expect(refusalOf(body)).toBe(code))

  const identifier = (type: number, ppid: Buffer, pceId: string) => ({
    type,
    data: Buffer.concat([ppid, Buffer.alloc(16), Buffer.from([13, 0]), Buffer.from(pceId, 'hex')]),
  })
  const named = (type: number, ppid: Buffer, pceId = '0000', withChain = true) =>
    refusalOf((plan) => {
      plan.certification = identifier(type, ppid, pceId)
      if (withChain) plan.collateralExtra = { pck_certificate_chain: pckChainOf() }
    })
  const pckChainOf = () => {
    const { quote } = forge()
    return quote.toString('latin1').slice(quote.toString('latin1').indexOf('-----BEGIN'))
  }
  test('named by type 1, 2 or 3, and given with the collateral', () => {
    expect(named(1, Buffer.alloc(16, 0x11))).toBe(undefined)
    expect(named(1, Buffer.alloc(16, 0x11), '')).toBe(undefined)
    expect(named(2, Buffer.alloc(256))).toBe(undefined)
    expect(named(3, Buffer.alloc(384))).toBe(undefined)
  })
  test('named, and not given, or another', () => {
    expect(named(3, Buffer.alloc(384), '0000', false)).toBe('pck-missing')
    expect(named(1, Buffer.alloc(16, 0x12))).toBe('pck-mismatch')
    expect(named(3, Buffer.alloc(384), '0100')).toBe('pck-mismatch')
  })
})
