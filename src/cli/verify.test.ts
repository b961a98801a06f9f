import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { forge, now } from '../../test/attestation-pki.ts'
import { codeOf } from '../../test/code-of.ts'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { createAttestedIdentity } from '../ratls/certificate.ts'
import { encodePem } from '../x509/pem.ts'
import type { Judgement } from './judgement.ts'
import { check, init, strictPolicy, weaknesses } from './policy.ts'
import { type VerifyOptions, verify } from './verify.ts'

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

type Given = { [Name in keyof VerifyOptions]?: VerifyOptions[Name] | undefined }

async function run(subject: string, options: Given) {
  let output = ''
  const write = (text: string) => (output += text)
  const context = {
    cwd,
    env: { CLOISTER_CACHE: join(cwd, 'cache') },
    stdout: { write },
    stderr: { write: () => {} },
    now: () => new Date(now),
    signal: new AbortController().signal,
  }
  const given = { policy: 'policy.json', collateral: 'collateral.json', json: true, ...options }
  const status = await verify(context, given as VerifyOptions, subject)
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
    ['no such quote', 'absent.bin', {}, 'input-unreadable'],
    ['no such policy', 'quote.bin', { policy: 'absent.json' }, 'input-unreadable'],
    ['a policy that is no JSON', 'quote.bin', { policy: 'broken.json' }, 'input-not-json'],
    ['a policy that is none', 'quote.bin', { policy: 'collateral.json' }, 'policy-malformed'],
    ['a bundle that is no JSON', 'quote.bin', { collateral: 'broken.json' }, 'input-not-json'],
    ['a root that is no certificate', 'quote.bin', { root: 'policy.json' }, 'pem-malformed'],
    ['no time', 'quote.bin', { at: 'yesterday' }, 'verify-time-malformed'],
    ['a date that does not exist', 'quote.bin', { at: '2026-13-01' }, 'verify-time-malformed'],
  ])('could not be judged: 2: %s', async (_, subject, options, code) => {
    const { status, judgement } = await run(subject, options)
    expect(judgement).toMatchObject({ verdict: 'unjudged', tcbStatus: null, measurements: null })
    expect(reasons(judgement)).toEqual([code])
    expect(status).toBe(2)
  })

  test('without a bundle a PCCS is asked, and that it has nothing is no judgement', async () => {
    const paths: string[] = []
    const pccs = createHttpServer((request, response) => {
      paths.push(request.url ?? '')
      response.writeHead(404).end()
    })
    await new Promise<void>((resolve) => pccs.listen(0, '127.0.0.1', resolve))
    const { port } = pccs.address() as AddressInfo
    const { status, judgement } = await run('quote.bin', { collateral: undefined, pccs: `http://127.0.0.1:${port}/` })
    pccs.close()
    expect(paths[0]).toContain('ca=platform')
    expect([status, judgement?.verdict]).toEqual([2, 'unjudged'])
    expect(reasons(judgement)?.[0]).toMatch(/^pccs-/)
  })

  test('for people', async () => {
    const { output } = await run('quote.bin', { json: false, policy: 'self.json' })
    expect(output).toContain('REFUSED\n  measurement-mismatch: Expected MRENCLAVE self (unknown outside of an enclave)')
    expect(output).toContain(`MRENCLAVE   ${code}`)
    expect(output).toContain('TCB         UpToDate (platform UpToDate, quoting enclave UpToDate), evaluation 19')
  })
})

describe('cloister verify, certificates', () => {
  const identity = () =>
    createAttestedIdentity({
      quote: async (reportData) => forge((plan) => (plan.report.reportData = Buffer.from(reportData))).quote,
      now,
      lifetimeMs: 3_600_000,
    })

  test('in PEM and DER, and what is wrong with one', async () => {
    const { certificate } = await identity()
    const der = Buffer.from(certificate.replace(/-----.*-----/g, ''), 'base64')
    writeFileSync(join(cwd, 'peer.pem'), certificate)
    writeFileSync(join(cwd, 'peer.der'), der)
    writeFileSync(join(cwd, 'two.pem'), certificate + certificate)
    der[der.length - 1]! ^= 1
    writeFileSync(join(cwd, 'flipped.der'), der)
    expect((await run('peer.pem', {})).status).toBe(0)
    expect((await run('peer.der', {})).status).toBe(0)
    const expired = await run('peer.pem', { at: '2026-11-01T01:00:01Z' })
    expect([expired.status, reasons(expired.judgement)]).toEqual([1, ['ratls-certificate-expired']])
    expect(expired.judgement?.tcbStatus).toBe('UpToDate')
    for (const subject of ['two.pem', 'flipped.der', 'root.der']) {
      const { status, judgement } = await run(subject, {})
      expect([subject, status, judgement?.tcbStatus]).toEqual([subject, 1, null])
    }
  })

  test('from a peer that asks for a certificate of ours, and from none', async () => {
    const { certificate: cert, privateKey: key } = await identity()
    const server = createServer({ cert, key, requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.3' })
    server.on('tlsClientError', () => {})
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const found = await run(`127.0.0.1:${port}`, {})
    expect([found.status, found.judgement?.measurements?.mrEnclave]).toEqual([0, code])
    await new Promise((resolve) => server.close(resolve))
    const gone = await run(`127.0.0.1:${port}`, {})
    expect([gone.status, reasons(gone.judgement)]).toEqual([2, ['verify-peer-unreachable']])
  })

  requires('attestation-vectors').describe('of other implementations', () => {
    const vectors = join(sharedDirectory, 'attestation-vectors')
    const interop = (file: string, collateral: string, at: number) =>
      run(join(vectors, 'ccc-interop-ratls', file), {
        policy: join(cwd, 'lenient.json'),
        collateral: join(vectors, collateral),
        at: `${at}`,
      })
    beforeAll(() => {
      const policy = {
        ...strictPolicy('intel', ['self']),
        enclave: { mrEnclave: ['self'] },
        attributes: { allowDebug: true, allowProvisioningKeys: false },
        tcb: { acceptedStatuses: ['OutOfDate'], acceptedAdvisories: 'any', minimumEvaluationNumber: 17 },
      }
      writeFileSync(join(cwd, 'lenient.json'), JSON.stringify(policy))
    })
    // Their MRENCLAVEs are nobody's policy here: that is all that speaks against Gramine's.
    test('Gramine', async () => {
      const { judgement } = await interop(
        'gramine-cert.pem',
        'ccc-interop-ratls/gramine-evidence-quote-debug.case3.collateral.json',
        1756530546,
      )
      expect(reasons(judgement)).toEqual(['measurement-mismatch'])
      expect(judgement).toMatchObject({ tcbStatus: 'OutOfDate', attributes: { debug: true } })
    })
    test('RATS-TLS, whose certificate lived for a year', async () => {
      const { judgement } = await interop(
        'rats-tls-cert.pem',
        'ccc-interop-ratls/rats-tls-quote-debug.case3.collateral.json',
        1756530546,
      )
      expect(reasons(judgement)).toEqual(['ratls-certificate-expired', 'measurement-mismatch'])
      expect(judgement?.tcbStatus).toBe('OutOfDate')
    })
    test('Intel SDK, for whose platform there is no collateral', async () => {
      const { judgement } = await interop('intel-sgxsdk-cert.pem', 'phala/sgx_quote.case1.collateral.json', 1751624924)
      expect(reasons(judgement)).toEqual(['fmspc-mismatch'])
    })
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
    await expect(check(it, {}, 'broken.json')).rejects.toMatchObject({ code: 'input-not-json' })
    await expect(check(it, {}, 'absent.json')).rejects.toMatchObject({ code: 'input-unreadable' })
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
