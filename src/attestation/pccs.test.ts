import { describe, expect, test, vi } from 'vitest'
import { htmlPage, testPccs } from '../../test/pccs-service.ts'
import { testAuthority, testEnclave, testNow } from '../../test/simulated.ts'
import { parseCollateral } from './collateral.ts'
import { fingerprintOf } from './platforms/simulated-authority.ts'
import { trustCollateral, verifyQuote } from './verify.ts'

const dayMs = 86_400_000
const pccs = testPccs()

describe('collateral for a quote', () => {
  test.each(['v3', 'v4'])('from a PCCS of API %s judges the quote', async (version) => {
    const collateral = await pccs.client(pccs.server.url.replace('v4', version)).collateralFor(pccs.quote)
    expect(parseCollateral(collateral)).toEqual(collateral)
    const trusted = trustCollateral(collateral, fingerprintOf(pccs.authority.certificates.root))
    expect(verifyQuote(pccs.quote, trusted, { now: pccs.now.getTime() }).tcbStatus).toBe('UpToDate')
  })

  test('under the processor CA it holds the CRL of that CA', async () => {
    const machine = { name: 'small', ca: 'processor' } as const
    const other = await (await testEnclave(pccs.authority, { machine })).quote(Buffer.alloc(64))
    const trusted = trustCollateral(
      await pccs.client(pccs.server.url).collateralFor(other),
      fingerprintOf(pccs.authority.certificates.root),
    )
    expect(verifyQuote(other, trusted, { now: pccs.now.getTime() }).platform.ca).toBe('processor')
  })

  test('that names its platform by encrypted PPID: with the PCK chain, from the local service first', async () => {
    const named = await (await testEnclave(pccs.authority, { certificationData: 'ppidRsa3072' })).quote(
      Buffer.alloc(64),
    )
    const local = await pccs.intercept()
    const far = await pccs.intercept()
    const config = {
      localPckUrl: local.url,
      requestOptions: { headers: { metadata: 'true' }, params: { 'api-version': '2021-07-22-preview' } },
    }
    const collateral = await pccs.client(far.url, { config }).collateralFor(named)
    const trusted = trustCollateral(collateral, fingerprintOf(pccs.authority.certificates.root))
    expect(verifyQuote(named, trusted, { now: pccs.now.getTime() }).tcbStatus).toBe('UpToDate')
    expect(local.requests).toHaveLength(1)
    expect(local.requests[0]).toMatch(
      /pckcert\?qeid=[0-9a-f]{32}&encrypted_ppid=[0-9a-f]{768}&cpusvn=.*api-version=2021/,
    )
    expect(far.requests.some((path) => path.includes('pckcert'))).toBe(false)
    const broken = await pccs.intercept((_path, response) => htmlPage(response))
    const second = pccs.client(far.url, { config: { ...config, localPckUrl: broken.url } })
    expect((await second.collateralFor(named)).pck_certificate_chain).toContain('BEGIN CERTIFICATE')
    expect(far.requests.some((path) => path.includes('pckcert'))).toBe(true)
  })

  test('of a stranger nothing is fetched', async () => {
    const strange = await (await testEnclave(await testAuthority({ seed: 9 }))).quote(Buffer.alloc(64))
    const service = await pccs.intercept()
    const asked = pccs.client(service.url)
    await expect(asked.collateralFor(strange)).rejects.toMatchObject({ code: 'chain-untrusted-root' })
    await expect(asked.collateralFor(pccs.quote.subarray(0, 600))).rejects.toMatchObject({ code: 'quote-truncated' })
    expect(service.requests).toEqual([])
  })

  test('is asked for once, however many want it', async () => {
    const service = await pccs.intercept()
    const asked = pccs.client(service.url)
    const bundles = await Promise.all(Array.from({ length: 10 }, () => asked.collateralFor(pccs.quote)))
    await asked.collateralFor(pccs.quote)
    expect(service.requests).toHaveLength(4)
    expect(new Set(bundles.map((one) => JSON.stringify(one))).size).toBe(1)
  })
})

describe('freshness', () => {
  test('what is a week old is asked for again, and served old when nobody answers', async () => {
    const service = await pccs.intercept()
    const asked = pccs.client(service.url)
    const first = await asked.collateralFor(pccs.quote)
    pccs.now = new Date(testNow.getTime() + 6.9 * dayMs)
    expect(await asked.collateralFor(pccs.quote)).toEqual(first)
    expect(service.requests).toHaveLength(4)
    pccs.now = new Date(testNow.getTime() + 7.1 * dayMs)
    const second = await asked.collateralFor(pccs.quote)
    expect(service.requests).toHaveLength(8)
    expect(second.tcb_info).not.toBe(first.tcb_info)
    await pccs.server.close()
    pccs.now = new Date(testNow.getTime() + 50 * dayMs)
    const down = pccs.client('http://127.0.0.1:9/sgx/certification/v4/')
    await expect(down.collateralFor(pccs.quote)).rejects.toMatchObject({ code: 'pccs-unreachable' })
  })

  test('old collateral is kept while the service is down, aloud, and not asked for each time', async () => {
    let up = true
    const service = await pccs.intercept((_path, response, forward) => {
      if (up) forward()
      else response.writeHead(503).end()
    })
    const asked = pccs.client(service.url)
    const first = await asked.collateralFor(pccs.quote)
    up = false
    pccs.now = new Date(testNow.getTime() + 8 * dayMs)
    expect(await asked.collateralFor(pccs.quote)).toEqual(first)
    expect(await asked.collateralFor(pccs.quote)).toEqual(first)
    expect(service.requests).toHaveLength(8)
    expect(asked.codes()).toEqual(['pccs-refused', 'pccs-refused', 'pccs-refused', 'pccs-refused'])
    up = true
    pccs.now = new Date(pccs.now.getTime() + 61_000)
    expect(await asked.collateralFor(pccs.quote)).not.toEqual(first)
  })

  test('refresh says whether anything is different', async () => {
    const asked = pccs.client(pccs.server.url)
    const onChange = vi.fn()
    asked.keepFresh(onChange)
    await asked.collateralFor(pccs.quote)
    expect(await asked.refresh()).toBe(false)
    expect(onChange).not.toHaveBeenCalled()
    await pccs.authority.setVariants(['tcb-recovery'])
    expect(await asked.refresh()).toBe(true)
    expect(onChange).toHaveBeenCalledTimes(1)
    const trusted = trustCollateral(
      await asked.collateralFor(pccs.quote),
      fingerprintOf(pccs.authority.certificates.root),
    )
    expect(verifyQuote(pccs.quote, trusted, { now: pccs.now.getTime() }).tcbStatus).toBe('OutOfDate')
    await pccs.server.close()
    expect(await asked.refresh()).toBe(false)
    expect(asked.codes()).toContain('pccs-unreachable')
  })

  test('in the background it is renewed before it is due to expire', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const asked = pccs.client(pccs.server.url, { config: { collateralCacheHours: 1000 } })
    const changed = new Promise<void>((resolve) => asked.keepFresh(resolve))
    const first = await asked.collateralFor(pccs.quote)
    // Nine tenths of thirty days; timers wake at least daily.
    for (let day = 0; day < 28; day += 1) {
      pccs.now = new Date(testNow.getTime() + (day + 1) * dayMs)
      await vi.advanceTimersByTimeAsync(dayMs)
    }
    await changed
    expect(
      JSON.parse((await asked.collateralFor(pccs.quote)).tcb_info).issueDate > JSON.parse(first.tcb_info).issueDate,
    ).toBe(true)
  })

  test('closing ends what is under way', async () => {
    const service = await pccs.intercept(() => undefined)
    const asked = pccs.client(service.url)
    const pending = asked.collateralFor(pccs.quote)
    await vi.waitFor(() => expect(service.requests).toHaveLength(4))
    asked.close()
    await expect(pending).rejects.toMatchObject({ code: 'pccs-unreachable', message: 'closed while asking' })
  })
})
