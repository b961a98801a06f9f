import { describe, expect, test } from 'vitest'
import { forge, type Member, now, type Plan, pckExtension, refusalOf } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import { basicConstraints, keyUsage } from '../x509/write.ts'
import type { AttestationErrorCode } from './error.ts'
import { intelRootFingerprint, pckOids, pkiNames } from './format.ts'
import { trustCollateral, verifyQuote } from './verify.ts'

const pckExtensions = [basicConstraints({ ca: false }), keyUsage('digitalSignature', 'nonRepudiation')]

describe('§6.22 chains', () => {
  const chains: readonly [string, AttestationErrorCode, Member[]][] = [
    ['reordered', 'certificate-role-wrong', ['ca', 'pck', 'root']],
    ['without the CA', 'chain-malformed', ['pck', 'root']],
    ['without the root', 'chain-malformed', ['pck', 'ca']],
    ['with one more', 'chain-malformed', ['pck', 'ca', 'root', 'root']],
    ['with a foreign root', 'chain-broken', ['pck', 'ca', 'stranger']],
    ['empty', 'chain-malformed', []],
  ]
  test.each(chains)('PCK chain %s', (_, code, members) =>
    expect(refusalOf((plan) => (plan.pckChain = members))).toBe(code),
  )
  test('a whole chain of another PKI', () => {
    const { quote } = forge((plan) => (plan.certificates.root.name = 'Other root'))
    const { collateral, rootFingerprint } = forge()
    const verify = () => verifyQuote(quote, trustCollateral(collateral, rootFingerprint), { now })
    expect(codeOf(verify)).toBe('chain-untrusted-root')
    const { collateral: theirs } = forge((plan) => (plan.certificates.root.name = 'Other root'))
    expect(codeOf(() => trustCollateral(theirs, rootFingerprint))).toBe('chain-untrusted-root')
    expect(codeOf(() => trustCollateral(theirs, intelRootFingerprint))).toBe('chain-untrusted-root')
  })
  test.each([
    ['CA', (plan: Plan) => (plan.caChain = ['ca', 'stranger'])],
    ['TCB info', (plan: Plan) => (plan.tcbInfoChain = ['tcbSigner', 'stranger'])],
    ['QE identity', (plan: Plan) => (plan.qeIdentityChain = ['tcbSigner', 'stranger'])],
  ])('%s chain with a foreign root', (_, body) => expect(refusalOf(body)).toBe('chain-broken'))
  test.each(['ca', 'pck', 'tcbSigner', 'root'] as const)('%s signed by somebody else', (member) => {
    // The key identifier names the stranger too; verify-flips.test.ts has wrong signatures under right names.
    expect(refusalOf((plan) => (plan.certificates[member].signer = 'stranger'))).toBe('chain-broken')
  })
})

describe('§6.23 who may issue', () => {
  test.each([
    ['a CA without the CA bit', 'ca', [basicConstraints({ ca: false }), keyUsage('keyCertSign', 'cRLSign')]],
    ['a CA without basic constraints', 'ca', [keyUsage('keyCertSign', 'cRLSign')]],
    ['a CA without key usage', 'ca', [basicConstraints({ ca: true, pathLength: 0 })]],
    ['a CA that may not sign certificates', 'ca', [basicConstraints({ ca: true, pathLength: 0 }), keyUsage('cRLSign')]],
    ['a CA that may not sign CRLs', 'ca', [basicConstraints({ ca: true, pathLength: 0 }), keyUsage('keyCertSign')]],
    ['a CA of unbounded path length', 'ca', [basicConstraints({ ca: true }), keyUsage('keyCertSign', 'cRLSign')]],
    ['a PCK that is a CA', 'pck', [basicConstraints({ ca: true }), keyUsage('digitalSignature')]],
    [
      'a PCK that may sign certificates',
      'pck',
      [basicConstraints({ ca: false }), keyUsage('digitalSignature', 'keyCertSign')],
    ],
    ['a PCK that may not sign', 'pck', [basicConstraints({ ca: false }), keyUsage('keyEncipherment')]],
    ['a TCB signer that may not sign', 'tcbSigner', [basicConstraints({ ca: false }), keyUsage('nonRepudiation')]],
    [
      'a PCK with an unknown critical extension',
      'pck',
      [...pckExtensions, { oid: '1.2.3.4', critical: true, value: Buffer.from([5, 0]) }],
    ],
  ] as const)('%s', (_, member, extensions) =>
    expect(refusalOf((plan) => (plan.certificates[member].extensions = [...extensions]))).toBe(
      'certificate-role-wrong',
    ),
  )
  test.each(['ca', 'pck', 'tcbSigner'] as const)('%s under another name', (member) =>
    expect(refusalOf((plan) => (plan.certificates[member].name = 'Intel SGX Something'))).toBe(
      'certificate-role-wrong',
    ),
  )
  test('the Processor CA may issue as the Platform CA may', () => {
    const { quote, collateral, rootFingerprint } = forge((plan) => {
      plan.certificates.ca.name = pkiNames.processorCa
      plan.pck.instanceId = undefined
    })
    const { platform } = verifyQuote(quote, trustCollateral(collateral, rootFingerprint), { now })
    expect(platform).toMatchObject({ ca: 'processor', instanceId: undefined })
  })
})

describe('§6.24 who may sign collateral', () => {
  test('a PCK certificate signs TCB info or QE identity', () => {
    expect(
      refusalOf((plan) => {
        plan.tcbInfoChain = ['pck', 'ca', 'root']
        plan.tcbInfoSigner = 'pck'
      }),
    ).toBe('chain-malformed')
    expect(
      refusalOf((plan) => {
        plan.qeIdentityChain = ['pck', 'root']
        plan.qeIdentitySigner = 'pck'
      }),
    ).toBe('certificate-role-wrong')
  })
  test('a TCB signer issued by the PCK CA, or by a PCK certificate', () => {
    for (const issuer of ['ca', 'pck'] as const) {
      expect(
        refusalOf((plan) => {
          plan.certificates.tcbSigner.issuer = issuer
          plan.certificates.tcbSigner.signer = issuer
        }),
      ).toBe('chain-broken')
    }
  })
  test('a PCK certificate that is called TCB signer', () =>
    expect(
      refusalOf((plan) => {
        plan.certificates.tcbSigner.extensions.push({
          oid: pckOids.extension,
          critical: false,
          value: pckExtension(plan.pck),
        })
      }),
    ).toBe('certificate-role-wrong'))
  test.each(['root', 'ca', 'stranger'] as const)('%s signs in place of the TCB signer', (signer) => {
    expect(refusalOf((plan) => (plan.tcbInfoSigner = signer))).toBe('tcb-info-signature-invalid')
    expect(refusalOf((plan) => (plan.qeIdentitySigner = signer))).toBe('qe-identity-signature-invalid')
  })
})
