import { get } from 'node:http'
import { getCollateral, QuoteVerifier } from '@phala/dcap-qvl'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { testAuthority, testEnclave, testNow } from '../../test/simulated.ts'
import { type PccsServer, startPccsServer } from './pccs-server.ts'
import { rootCrlUrl, type SimulatedAuthority } from './platforms/simulated-authority.ts'
import { simulatedFmspc } from './platforms/simulated-tcb.ts'

let authority: SimulatedAuthority
let server: PccsServer
beforeAll(async () => {
  authority = await testAuthority()
  await testEnclave(authority)
  server = await startPccsServer({ authority, host: '127.0.0.1', port: 0, now: () => testNow })
})
afterAll(() => server.close())

function fetchText(path: string, method = 'GET') {
  return new Promise<{ status: number; header: (name: string) => string; body: string }>((resolve, reject) => {
    get(new URL(path, server.url), { method }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          header: (name) => String(response.headers[name.toLowerCase()]),
          body: Buffer.concat(chunks).toString('latin1'),
        }),
      )
    }).on('error', reject)
  })
}

describe("npm's dcap-qvl as client", () => {
  test.each([
    ['pckChain', 'with its PCK chain in it'],
    ['ppidRsa3072', 'that names its platform by encrypted PPID'],
  ] as const)('%s: fetches what it needs for a quote %s and accepts it', async (certificationData, _with) => {
    // The library always asks for the processor CRL when the quote holds its chain, so the machine has one.
    const machine = { name: `client ${certificationData}`, ca: 'processor' } as const
    const quote = Buffer.from(
      await (await testEnclave(authority, { machine, certificationData })).quote(Buffer.alloc(64)),
    )
    const collateral = await getCollateral(server.url, quote)
    const verifier = QuoteVerifier.newWithRootCa(authority.certificates.root.der)
    expect(verifier.verify(quote, collateral, testNow.getTime() / 1000).status).toBe('UpToDate')
  })
})

describe('the API', () => {
  const pemChain = /^-----BEGIN CERTIFICATE-----\n[^%]+-----END CERTIFICATE-----\n$/

  test('pckcrl: DER on request, else hex of it; chain percent-encoded in a header', async () => {
    const der = await fetchText('pckcrl?ca=platform&encoding=der')
    expect(der).toMatchObject({ status: 200 })
    expect(der.header('Content-Type')).toBe('application/pkix-crl')
    expect(der.header('SGX-PCK-CRL-Issuer-Chain')).not.toContain('\n')
    expect(decodeURIComponent(der.header('SGX-PCK-CRL-Issuer-Chain'))).toMatch(pemChain)
    const hex = await fetchText('pckcrl?ca=platform')
    expect(hex.body).toMatch(/^308[12][0-9a-f]+$/)
    expect(Buffer.from(hex.body, 'hex')).toEqual(Buffer.from(der.body, 'latin1'))
  })

  test('tcb: v4 has TCB info v3, v3 has v2 under its own header', async () => {
    const four = await fetchText(`tcb?fmspc=${simulatedFmspc}&update=early`)
    expect(JSON.parse(four.body).tcbInfo).toMatchObject({ id: 'SGX', version: 3, fmspc: simulatedFmspc })
    expect(decodeURIComponent(four.header('TCB-Info-Issuer-Chain'))).toMatch(pemChain)
    const three = await fetchText(`/sgx/certification/v3/tcb?fmspc=${simulatedFmspc.toUpperCase()}`)
    expect(JSON.parse(three.body).tcbInfo).toMatchObject({ version: 2 })
    expect(JSON.parse(three.body).tcbInfo.tcbLevels[0].tcb).toMatchObject({ sgxtcbcomp01svn: 16, sgxtcbcomp16svn: 0 })
    expect(decodeURIComponent(three.header('SGX-TCB-Info-Issuer-Chain'))).toMatch(pemChain)
  })

  test('qe/identity, rootcacrl, crl, version', async () => {
    const identity = await fetchText('qe/identity?update=standard')
    expect(JSON.parse(identity.body).enclaveIdentity).toMatchObject({ id: 'QE', version: 2 })
    expect(decodeURIComponent(identity.header('SGX-Enclave-Identity-Issuer-Chain'))).toMatch(pemChain)
    const root = await fetchText('rootcacrl')
    const same = await fetchText(`crl?uri=${encodeURIComponent(rootCrlUrl)}`)
    expect(Buffer.from(root.body, 'hex')).toEqual(Buffer.from(same.body, 'latin1'))
    expect((await fetchText('/version')).body).toBe('4')
  })

  test('pckcert answers with the level that the machine reaches', async () => {
    const id = `qeid=${authority.qeId('default')}&pceid=0000`
    const between = await fetchText(`pckcert?${id}&cpusvn=0d0d0303ffff00000000000000000000&pcesvn=0d00`)
    expect(between.status).toBe(200)
    expect(between.header('SGX-TCBm')).toBe('0C0C0303FFFF000000000000000000000D00')
    expect(between.header('SGX-FMSPC')).toBe(simulatedFmspc.toUpperCase())
    expect(between.header('SGX-PCK-Certificate-CA-Type')).toBe('PLATFORM')
    expect(decodeURIComponent(between.header('SGX-PCK-Certificate-Issuer-Chain'))).toMatch(pemChain)
    const again = await fetchText(`pckcert?${id}&cpusvn=0c0c0303ffff00000000000000000000&pcesvn=0d00`)
    expect(again.body).toBe(between.body)
    const none = await fetchText(`pckcert?${id}&cpusvn=01010303ffff00000000000000000000&pcesvn=0d00`)
    expect(none.status).toBe(462)
  })

  test.each([
    ['pckcrl', 400],
    ['pckcrl?ca=other', 400],
    ['tcb', 400],
    ['tcb?fmspc=00', 400],
    ['tcb?fmspc=00000000000g', 400],
    [`tcb?fmspc=${simulatedFmspc}&update=never`, 400],
    ['tcb?fmspc=000000000000', 404],
    ['qe/identity?update=x', 400],
    ['crl?uri=https://elsewhere.test/', 404],
    ['pckcert', 400],
    [`pckcert?qeid=${'0'.repeat(32)}&pceid=0000&cpusvn=${'f'.repeat(32)}&pcesvn=ffff`, 461],
    ['nothing', 404],
    ['/', 404],
    ['/sgx/certification/v2/rootcacrl', 404],
    ['/sgx/certification/v4/qe/../../../etc', 404],
  ])('%s: %i', async (path, status) => {
    expect((await fetchText(path)).status).toBe(status)
  })

  test('only GET', async () => {
    expect((await fetchText('rootcacrl', 'POST')).status).toBe(405)
  })

  test('variants show at once', async () => {
    const evaluation = async () =>
      JSON.parse((await fetchText(`tcb?fmspc=${simulatedFmspc}`)).body).tcbInfo.tcbEvaluationDataNumber
    expect(await evaluation()).toBe(18)
    await authority.setVariants(['tcb-recovery'])
    expect(await evaluation()).toBe(19)
    await authority.setVariants([])
    expect(await evaluation()).toBe(18)
  })
})
