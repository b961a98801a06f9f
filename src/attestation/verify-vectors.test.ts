import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { codeOf } from '../../test/code-of.ts'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { splitPem } from '../x509/pem.ts'
import { parseCertificate } from '../x509/read.ts'
import { parseCollateral } from './collateral.ts'
import type { AttestationErrorCode } from './error.ts'
import { intelRootFingerprint } from './format.ts'
import { examineQuote, trustCollateral, verifyQuote } from './verify.ts'

/** Real quotes and collateral of Intel's PKI, gathered from other projects; see ../shared/attestation-vectors. */
const vectors = requires('attestation-vectors')
const read = (file: string) => readFileSync(join(sharedDirectory, 'attestation-vectors', file))
const readJson = (file: string): unknown => (vectors.available ? JSON.parse(read(file).toString()) : [])
const trust = (file: string) => trustCollateral(parseCollateral(readJson(file)), intelRootFingerprint)

interface Vector {
  readonly file: string
  readonly mrenclave: string
  readonly mrsigner: string
  readonly isvProdId: number
  readonly isvSvn: number
  readonly debug: boolean
  readonly reportData: string
  readonly fmspc: string
  readonly cases: readonly {
    readonly collateral: string
    readonly now: number
    readonly crlsValidAtNow: boolean
    readonly tcbEval: number
    readonly expected: { platform: string; qe: string; converged: string; advisoryIDs: string[] }
  }[]
}

vectors.describe('real quotes end in the status and advisories that Intel gives them', () => {
  const cases = (readJson('vectors.json') as Vector[]).flatMap((vector) =>
    vector.cases.map((it) => ({ ...it, vector, quote: vector.file })),
  )
  test('there are 60 cases', () => expect(cases).toHaveLength(60))

  test.each(cases)('$quote with $collateral', ({ vector, quote, collateral, now, expected, tcbEval, ...it }) => {
    const trusted = trust(collateral)
    const evidence = examineQuote(read(quote), trusted, now * 1000)
    expect({
      platform: evidence.platformStatus,
      qe: evidence.qeStatus,
      converged: evidence.tcbStatus,
      advisoryIDs: evidence.advisories,
    }).toEqual(expected)
    expect(evidence).toMatchObject({
      measurements: {
        mrEnclave: vector.mrenclave,
        mrSigner: vector.mrsigner,
        productId: vector.isvProdId,
        svn: vector.isvSvn,
      },
      attributes: { debug: vector.debug, init: true, mode64Bit: true },
      reportData: vector.reportData,
      platform: { fmspc: vector.fmspc },
      tcbEvaluationNumber: tcbEval,
      rootFingerprint: intelRootFingerprint,
    })
    const verify = () => verifyQuote(read(quote), trusted, { now: now * 1000 })
    // The three whose CRLs are of another time than their TCB info are proven but not current.
    if (it.crlsValidAtNow) expect(verify()).toEqual(evidence)
    else expect(codeOf(verify)).toMatch(/^crl-(expired|not-yet-valid)$/)
  })
})

/** What each case of negative.json is refused for; its `reason` is prose. */
const negativeCodes: Readonly<Record<string, AttestationErrorCode>> = {
  'truncated-header': 'quote-truncated',
  'truncated-sig': 'quote-truncated',
  'siglen-too-small': 'quote-trailing-bytes',
  'trailing-bytes': 'quote-trailing-bytes',
  'version-2-epid': 'quote-epid-unsupported',
  'teetype-tdx': 'quote-tdx-unsupported',
  'mrenclave-flip': 'quote-signature-invalid',
  'debug-bit-set': 'quote-signature-invalid',
  'quote-sig-zero': 'quote-signature-invalid',
  'attkey-zero': 'attestation-key-invalid',
  'qe-report-sig-flip': 'qe-report-signature-invalid',
  'certtype-6': 'quote-certification-unsupported',
  // The flipped byte lies in the issuer's name, which is compared before the signature.
  'pck-leaf-flip': 'chain-broken',
  'tcb-sig-flip': 'tcb-info-signature-invalid',
  'tcb-json-respaced': 'tcb-info-signature-invalid',
  'qe-identity-sig-flip': 'qe-identity-signature-invalid',
  'collateral-expired': 'crl-expired',
  'crl-garbage': 'crl-unreadable',
  'crl-wrong-ca': 'crl-issuer-wrong',
  'crl-older-expired': 'crl-expired',
}

vectors.describe('what must be refused is, for the right reason', () => {
  const cases = readJson('negative.json') as { name: string; quote: string; collateral: string; now: number }[]
  test('every case has a code', () => expect(cases.map((it) => it.name)).toEqual(Object.keys(negativeCodes)))
  test.each(cases)('$name', ({ name, quote, collateral, now }) => {
    const verify = () => verifyQuote(read(quote), trust(collateral), { now: now * 1000 })
    expect(codeOf(verify)).toBe(negativeCodes[name])
  })
})

vectors.describe("Intel's sample quote, under its own test root, names its PCK certificate by plain PPID", () => {
  const sample = (file: string) => read(`intel-qvl-sample/${file}`).toString('latin1')
  const signed = (file: string, key: string) => {
    const text = sample(file)
    const end = text.lastIndexOf(',"signature":"')
    return { text: text.slice(`{"${key}":`.length, end), signature: text.slice(end + 14, end + 14 + 128) }
  }
  const pem = (file: string) => sample(file).replace(/\n$/, '')
  const collateral = () => {
    const [tcbInfo, qeIdentity] = [signed('tcbInfo.json', 'tcbInfo'), signed('qeIdentity.json', 'enclaveIdentity')]
    return {
      pck_crl_issuer_chain: pem('pckSignChain.pem'),
      root_ca_crl: read('intel-qvl-sample/rootCaCrl.der').toString('hex'),
      pck_crl: read('intel-qvl-sample/intermediateCaCrl.der').toString('hex'),
      tcb_info_issuer_chain: pem('tcbSignChain.pem'),
      tcb_info: tcbInfo.text,
      tcb_info_signature: tcbInfo.signature,
      qe_identity_issuer_chain: pem('tcbSignChain.pem'),
      qe_identity: qeIdentity.text,
      qe_identity_signature: qeIdentity.signature,
      pck_certificate_chain: `${pem('pckCert.pem')}\n${pem('pckSignChain.pem')}`,
    }
  }
  const rootFingerprint = () => parseCertificate(splitPem(pem('trustedRootCaCert.pem'))[0]!).fingerprint
  const now = Date.parse('2020-06-01T00:00:00Z')
  const quote = () => read('intel-qvl-sample/quote.bin')

  test('it verifies', () => {
    const evidence = verifyQuote(quote(), trustCollateral(collateral(), rootFingerprint()), { now })
    expect(evidence).toMatchObject({ tcbStatus: 'UpToDate', platform: { fmspc: '00707f000000', ca: 'processor' } })
  })
  test('not under the root of Intel', () => {
    expect(codeOf(() => trustCollateral(collateral(), intelRootFingerprint))).toBe('chain-untrusted-root')
  })
  test('not without its PCK certificate', () => {
    const { pck_certificate_chain: _, ...rest } = collateral()
    const verify = () => verifyQuote(quote(), trustCollateral(rest, rootFingerprint()), { now })
    expect(codeOf(verify)).toBe('pck-missing')
  })
})
