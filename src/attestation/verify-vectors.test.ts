import { expect, test } from 'vitest'
import {
  negativeCodes,
  negatives,
  positives,
  readVector,
  readVectorJson,
  vectors,
} from '../../test/attestation-vectors.ts'
import { codeOf } from '../../test/code-of.ts'
import { splitPem } from '../x509/pem.ts'
import { parseCertificate } from '../x509/read.ts'
import { parseCollateral } from './collateral.ts'
import { intelRootFingerprint } from './format.ts'
import { examineQuote, trustCollateral, verifyQuote } from './verify.ts'

const trust = (file: string) => trustCollateral(parseCollateral(readVectorJson(file)), intelRootFingerprint)

vectors.describe('real quotes end in the status and advisories that Intel gives them', () => {
  const cases = positives()
  test('there are 60 cases', () => expect(cases).toHaveLength(60))

  test.each(cases)('$quote with $collateral', ({ vector, quote, collateral, now, expected, tcbEval, ...it }) => {
    const trusted = trust(collateral)
    const evidence = examineQuote(readVector(quote), trusted, now * 1000)
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
    const verify = () => verifyQuote(readVector(quote), trusted, { now: now * 1000 })
    // The three whose CRLs are of another time than their TCB info are proven but not current.
    if (it.crlsValidAtNow) expect(verify()).toEqual(evidence)
    else expect(codeOf(verify)).toMatch(/^crl-(expired|not-yet-valid)$/)
  })
})

vectors.describe('what must be refused is, for the right reason', () => {
  const cases = negatives()
  test('every case has a code', () => expect(cases.map((it) => it.name)).toEqual(Object.keys(negativeCodes)))
  test.each(cases)('$name', ({ name, quote, collateral, now }) => {
    const verify = () => verifyQuote(readVector(quote), trust(collateral), { now: now * 1000 })
    expect(codeOf(verify)).toBe(negativeCodes[name])
  })
})

vectors.describe("Intel's sample quote, under its own test root, names its PCK certificate by plain PPID", () => {
  const sample = (file: string) => readVector(`intel-qvl-sample/${file}`).toString('latin1')
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
      root_ca_crl: readVector('intel-qvl-sample/rootCaCrl.der').toString('hex'),
      pck_crl: readVector('intel-qvl-sample/intermediateCaCrl.der').toString('hex'),
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
  const quote = () => readVector('intel-qvl-sample/quote.bin')

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
