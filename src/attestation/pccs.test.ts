import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, get, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { scratchDirectory, testAuthority, testEnclave, testNow } from '../../test/simulated.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { parseCollateral } from './collateral.ts'
import { PccsClient, type PccsOptions } from './pccs.ts'
import { type PccsServer, startPccsServer } from './pccs-server.ts'
import { fingerprintOf, type SimulatedAuthority } from './platforms/simulated-authority.ts'
import { qcnlFor } from './qcnl.ts'
import { trustCollateral, verifyQuote } from './verify.ts'

const dayMs = 86_400_000
let authority: SimulatedAuthority
let quote: Uint8Array
let server: PccsServer
let now = testNow
const cleanups: (() => unknown)[] = []

beforeAll(async () => {
  authority = await testAuthority()
  quote = await (await testEnclave(authority)).quote(Buffer.alloc(64, 7))
})
beforeEach(async () => {
  now = testNow
  await authority.setVariants([])
  server = await startPccsServer({ authority, host: '127.0.0.1', port: 0, now: () => now })
  cleanups.push(() => server.close())
})
afterEach(async () => {
  vi.useRealTimers()
  for (const cleanup of cleanups.splice(0)) await cleanup()
})

type ClientOptions = Partial<Omit<PccsOptions, 'config'>> & { readonly config?: Partial<PccsOptions['config']> }

function client(url: string, options: ClientOptions = {}) {
  const events: CloisterEvent[] = []
  const { config, ...rest } = options
  const made = new PccsClient({
    rootFingerprint: fingerprintOf(authority.certificates.root),
    now: () => now,
    random: () => 0,
    report: (event) => events.push(event),
    limits: { timeoutMs: 2000, retries: 0, retryDelayMs: 1 },
    ...rest,
    config: qcnlFor(url, config ?? {}),
  })
  cleanups.push(() => made.close())
  return Object.assign(made, {
    events,
    codes: () => events.map((event) => ('error' in event ? event.error?.code : '')),
  })
}

type Forward = (changedHeaders?: Readonly<Record<string, string | undefined>>) => void

/** A server of our own before or instead of the PCCS; `forward` passes the request on to the real one. */
async function listen(answer: (path: string, response: ServerResponse, forward: Forward) => void) {
  const requests: string[] = []
  const http = createServer((request, response) => {
    const path = request.url!
    requests.push(path)
    answer(path, response, (changedHeaders = {}) => {
      get(new URL(path, server.url), { agent: false }, (real) => {
        const headers = Object.entries({ ...real.headers, ...changedHeaders }).filter(
          ([, value]) => value !== undefined,
        )
        response.writeHead(real.statusCode!, Object.fromEntries(headers))
        real.pipe(response)
      }).on('error', () => response.destroy())
    })
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    http.closeAllConnections()
    http.close()
  })
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/sgx/certification/v4/`, requests }
}

const counting = () => listen((_path, _response, forward) => forward())
const htmlPage = (response: ServerResponse) =>
  response.writeHead(200, { 'Content-Type': 'text/html' }).end('<html>Sign in</html>')

describe('collateral for a quote', () => {
  test.each(['v3', 'v4'])('from a PCCS of API %s judges the quote', async (version) => {
    const collateral = await client(server.url.replace('v4', version)).collateralFor(quote)
    expect(parseCollateral(collateral)).toEqual(collateral)
    const trusted = trustCollateral(collateral, fingerprintOf(authority.certificates.root))
    expect(verifyQuote(quote, trusted, { now: now.getTime() }).tcbStatus).toBe('UpToDate')
  })

  test('under the processor CA it holds the CRL of that CA', async () => {
    const machine = { name: 'small', ca: 'processor' } as const
    const other = await (await testEnclave(authority, { machine })).quote(Buffer.alloc(64))
    const trusted = trustCollateral(
      await client(server.url).collateralFor(other),
      fingerprintOf(authority.certificates.root),
    )
    expect(verifyQuote(other, trusted, { now: now.getTime() }).platform.ca).toBe('processor')
  })

  test('that names its platform by encrypted PPID: with the PCK chain, from the local service first', async () => {
    const named = await (await testEnclave(authority, { certificationData: 'ppidRsa3072' })).quote(Buffer.alloc(64))
    const local = await counting()
    const far = await counting()
    const config = {
      localPckUrl: local.url,
      requestOptions: { headers: { metadata: 'true' }, params: { 'api-version': '2021-07-22-preview' } },
    }
    const collateral = await client(far.url, { config }).collateralFor(named)
    const trusted = trustCollateral(collateral, fingerprintOf(authority.certificates.root))
    expect(verifyQuote(named, trusted, { now: now.getTime() }).tcbStatus).toBe('UpToDate')
    expect(local.requests).toHaveLength(1)
    expect(local.requests[0]).toMatch(
      /pckcert\?qeid=[0-9a-f]{32}&encrypted_ppid=[0-9a-f]{768}&cpusvn=.*api-version=2021/,
    )
    expect(far.requests.some((path) => path.includes('pckcert'))).toBe(false)
    const broken = await listen((_path, response) => htmlPage(response))
    const second = client(far.url, { config: { ...config, localPckUrl: broken.url } })
    expect((await second.collateralFor(named)).pck_certificate_chain).toContain('BEGIN CERTIFICATE')
    expect(far.requests.some((path) => path.includes('pckcert'))).toBe(true)
  })

  test('of a stranger nothing is fetched', async () => {
    const strange = await (await testEnclave(await testAuthority({ seed: 9 }))).quote(Buffer.alloc(64))
    const service = await counting()
    const asked = client(service.url)
    await expect(asked.collateralFor(strange)).rejects.toMatchObject({ code: 'chain-untrusted-root' })
    await expect(asked.collateralFor(quote.subarray(0, 600))).rejects.toMatchObject({ code: 'quote-truncated' })
    expect(service.requests).toEqual([])
  })

  test('is asked for once, however many want it', async () => {
    const service = await counting()
    const asked = client(service.url)
    const bundles = await Promise.all(Array.from({ length: 10 }, () => asked.collateralFor(quote)))
    await asked.collateralFor(quote)
    expect(service.requests).toHaveLength(4)
    expect(new Set(bundles.map((one) => JSON.stringify(one))).size).toBe(1)
  })
})

describe('§6.41 PCCS hang, redirect, 200 with HTML, oversize', () => {
  test.each([
    ['never answers', (_response: ServerResponse) => undefined],
    [
      'stops in the middle',
      (response: ServerResponse) => void response.writeHead(200, { 'Content-Length': 100 }).write('{"tcbInfo"'),
    ],
    [
      'drips',
      (response: ServerResponse) => {
        response.writeHead(200)
        const drip = setInterval(() => response.write(' '), 20)
        response.on('close', () => clearInterval(drip))
      },
    ],
  ])('a service that %s', async (_what, answer) => {
    const service = await listen((_path, response) => answer(response))
    const asked = client(service.url, { limits: { timeoutMs: 150, retries: 1, retryDelayMs: 1 } })
    await expect(asked.collateralFor(quote)).rejects.toMatchObject({ code: 'pccs-timeout' })
    // Each of the four, twice.
    expect(service.requests.length).toBeGreaterThanOrEqual(5)
  })

  test('a redirect to another host is not followed', async () => {
    const elsewhere = await counting()
    const service = await listen((path, response) => {
      response.writeHead(302, { Location: new URL(path, elsewhere.url).href }).end()
    })
    await expect(client(service.url).collateralFor(quote)).rejects.toMatchObject({ code: 'pccs-redirect-refused' })
    expect(elsewhere.requests).toEqual([])
  })

  test.each(['file:///etc/passwd', 'https://[', ''])('a redirect to %j is not followed', async (location) => {
    const service = await listen((_path, response) => void response.writeHead(301, { Location: location }).end())
    await expect(client(service.url).collateralFor(quote)).rejects.toMatchObject({ code: 'pccs-redirect-refused' })
  })

  test('redirects on the same host are followed, but not for ever', async () => {
    const moved = await listen((path, response, forward) => {
      if (path.includes('moved')) {
        response.writeHead(307, { Location: path.replace('/moved', '') }).end()
      } else forward()
    })
    const url = moved.url.replace('/sgx', '/moved/sgx')
    await expect(client(url).collateralFor(quote)).resolves.toBeDefined()
    const loop = await listen((path, response) => void response.writeHead(302, { Location: `${path}` }).end())
    await expect(client(loop.url).collateralFor(quote)).rejects.toMatchObject({ code: 'pccs-redirect-refused' })
    expect(loop.requests.length).toBeLessThanOrEqual(16)
  })

  test('HTML with status 200', async () => {
    const service = await listen((_path, response) => htmlPage(response))
    await expect(client(service.url).collateralFor(quote)).rejects.toMatchObject({
      code: 'pccs-answer-malformed',
      message: expect.stringContaining('<html>'),
    })
  })

  test.each([
    [
      'that says so',
      (response: ServerResponse) => void response.writeHead(200, { 'Content-Length': 10_001 }).flushHeaders(),
    ],
    ['that does not', (response: ServerResponse) => void response.writeHead(200).end(Buffer.alloc(10_001, 0x20))],
  ])('an answer of too many bytes %s', async (_what, answer) => {
    const service = await listen((_path, response) => answer(response))
    const asked = client(service.url, { limits: { maxBytes: 10_000, timeoutMs: 2000, retries: 0 } })
    await expect(asked.collateralFor(quote)).rejects.toMatchObject({ code: 'pccs-answer-too-large' })
  })

  test.each([
    [404, 'pccs-platform-unknown', 1],
    [461, 'pccs-platform-unknown', 1],
    [462, 'pccs-platform-unknown', 1],
    [410, 'pccs-version-retired', 1],
    [401, 'pccs-refused', 1],
    [429, 'pccs-refused', 3],
    [503, 'pccs-refused', 3],
  ])('status %i: %s after %i attempts', async (status, code, attempts) => {
    const service = await listen((_path, response) => void response.writeHead(status).end('why\nnot'))
    const asked = client(service.url, { limits: { timeoutMs: 2000, retries: 2, retryDelayMs: 1 } })
    const message = expect.stringContaining(`${status} (why not)`)
    await expect(asked.collateralFor(quote)).rejects.toMatchObject({ code, message })
    await vi.waitFor(() =>
      expect(service.requests.filter((path) => path.includes('qe/identity'))).toHaveLength(attempts),
    )
  })

  test('what passes is tried again', async () => {
    const seen = new Set<string>()
    const flaky = await listen((path, response, forward) => {
      if (seen.has(path)) return forward()
      seen.add(path)
      if (path.includes('tcb')) response.destroy()
      else response.writeHead(500).end()
    })
    const asked = client(flaky.url, { limits: { timeoutMs: 2000, retries: 1, retryDelayMs: 1 } })
    await expect(asked.collateralFor(quote)).resolves.toBeDefined()
    expect(flaky.requests).toHaveLength(8)
  })

  test('nobody there', async () => {
    await server.close()
    await expect(client(server.url).collateralFor(quote)).rejects.toMatchObject({ code: 'pccs-unreachable' })
  })

  test.each(['TCB-Info-Issuer-Chain', 'SGX-PCK-CRL-Issuer-Chain', 'SGX-Enclave-Identity-Issuer-Chain'])(
    'a missing or broken header %s',
    async (name) => {
      for (const value of [undefined, '%', 'no%20certificate']) {
        const service = await listen((_path, _response, forward) => forward({ [name.toLowerCase()]: value }))
        await expect(client(service.url).collateralFor(quote)).rejects.toMatchObject({ code: 'pccs-answer-malformed' })
      }
    },
  )
})

describe('the cache on disk', () => {
  test('survives a restart without the service', async () => {
    const cacheDirectory = scratchDirectory()
    const first = await client(server.url, { cacheDirectory }).collateralFor(quote)
    await server.close()
    expect(await client(server.url, { cacheDirectory }).collateralFor(quote)).toEqual(first)
    const only = client(server.url, { cacheDirectory, config: { localCacheOnly: true } })
    expect(await only.collateralFor(quote)).toEqual(first)
    const empty = client(server.url, { cacheDirectory: scratchDirectory(), config: { localCacheOnly: true } })
    await expect(empty.collateralFor(quote)).rejects.toMatchObject({ code: 'collateral-not-cached' })
  })

  test('two processes may write it at once', async () => {
    const cacheDirectory = scratchDirectory()
    const clients = Array.from({ length: 6 }, () => client(server.url, { cacheDirectory }))
    await Promise.all(clients.map((one) => one.collateralFor(quote)))
    expect(readdirSync(cacheDirectory)).toHaveLength(4)
    for (const name of readdirSync(cacheDirectory)) {
      expect(JSON.parse(readFileSync(join(cacheDirectory, name), 'utf8'))).toMatchObject({ format: 1 })
    }
  })

  test.each([
    ['empty', () => ''],
    ['cut', (text: string) => text.slice(0, text.length / 2)],
    ['of another format', (text: string) => text.replace('"format":1', '"format":2')],
    ['with another field', (text: string) => text.replace('{', '{"more":"","format":1,')],
    [
      'with other content',
      (text: string) => text.replace('"document":{', '"document":{"x":"').replace(/"x":""/, '"x":"y","'),
    ],
    ['huge', () => ' '.repeat(9_000_000)],
    [
      'signed by nobody',
      (text: string) => text.replace(/(signature":"|"crl":"(?:[0-9a-f]{2}){100})[0-9a-f]{4}/, '$10000'),
    ],
  ])('files that are %s are replaced from the service', async (_what, damage) => {
    const cacheDirectory = scratchDirectory()
    const first = await client(server.url, { cacheDirectory }).collateralFor(quote)
    for (const name of readdirSync(cacheDirectory)) {
      const path = join(cacheDirectory, name)
      writeFileSync(path, damage(readFileSync(path, 'utf8')))
    }
    expect(await client(server.url, { cacheDirectory }).collateralFor(quote)).toEqual(first)
    await server.close()
    expect(await client(server.url, { cacheDirectory }).collateralFor(quote)).toEqual(first)
  })

  test('swapped files count as absent', async () => {
    const cacheDirectory = scratchDirectory()
    await client(server.url, { cacheDirectory }).collateralFor(quote)
    const [one, two] = readdirSync(cacheDirectory).map((name) => join(cacheDirectory, name))
    const [textOne, textTwo] = [readFileSync(one!), readFileSync(two!)]
    writeFileSync(one!, textTwo)
    writeFileSync(two!, textOne)
    const service = await counting()
    await client(server.url, { cacheDirectory }).collateralFor(quote)
    expect(service.requests).toEqual([])
    await server.close()
    await expect(client(server.url, { cacheDirectory }).collateralFor(quote)).resolves.toBeDefined()
  })

  test('a directory that cannot be written is reported and does without', async () => {
    const file = join(scratchDirectory(), 'file')
    writeFileSync(file, '')
    const asked = client(server.url, { cacheDirectory: join(file, 'below') })
    await expect(asked.collateralFor(quote)).resolves.toBeDefined()
    expect(asked.events.map(({ kind }) => kind)).toEqual(['warning', 'warning', 'warning', 'warning'])
  })

  test('a file dated in the future is asked for again', async () => {
    const cacheDirectory = scratchDirectory()
    mkdirSync(cacheDirectory, { recursive: true })
    await client(server.url, { cacheDirectory }).collateralFor(quote)
    now = new Date(testNow.getTime() - dayMs)
    const service = await counting()
    await client(service.url, { cacheDirectory }).collateralFor(quote)
    await client(service.url, { cacheDirectory }).collateralFor(quote)
    now = new Date(testNow.getTime() - 2 * dayMs)
    await client(service.url, { cacheDirectory }).collateralFor(quote)
    expect(service.requests).toHaveLength(8)
  })
})

describe('freshness', () => {
  test('what is a week old is asked for again, and served old when nobody answers', async () => {
    const service = await counting()
    const asked = client(service.url)
    const first = await asked.collateralFor(quote)
    now = new Date(testNow.getTime() + 6.9 * dayMs)
    expect(await asked.collateralFor(quote)).toEqual(first)
    expect(service.requests).toHaveLength(4)
    now = new Date(testNow.getTime() + 7.1 * dayMs)
    const second = await asked.collateralFor(quote)
    expect(service.requests).toHaveLength(8)
    expect(second.tcb_info).not.toBe(first.tcb_info)
    await server.close()
    now = new Date(testNow.getTime() + 50 * dayMs)
    const down = client('http://127.0.0.1:9/sgx/certification/v4/')
    await expect(down.collateralFor(quote)).rejects.toMatchObject({ code: 'pccs-unreachable' })
  })

  test('old collateral is kept while the service is down, aloud, and not asked for each time', async () => {
    let up = true
    const service = await listen((_path, response, forward) => {
      if (up) forward()
      else response.writeHead(503).end()
    })
    const asked = client(service.url)
    const first = await asked.collateralFor(quote)
    up = false
    now = new Date(testNow.getTime() + 8 * dayMs)
    expect(await asked.collateralFor(quote)).toEqual(first)
    expect(await asked.collateralFor(quote)).toEqual(first)
    expect(service.requests).toHaveLength(8)
    expect(asked.codes()).toEqual(['pccs-refused', 'pccs-refused', 'pccs-refused', 'pccs-refused'])
    up = true
    now = new Date(now.getTime() + 61_000)
    expect(await asked.collateralFor(quote)).not.toEqual(first)
  })

  test('refresh says whether anything is different', async () => {
    const asked = client(server.url)
    const onChange = vi.fn()
    asked.keepFresh(onChange)
    await asked.collateralFor(quote)
    expect(await asked.refresh()).toBe(false)
    expect(onChange).not.toHaveBeenCalled()
    await authority.setVariants(['tcb-recovery'])
    expect(await asked.refresh()).toBe(true)
    expect(onChange).toHaveBeenCalledTimes(1)
    const trusted = trustCollateral(await asked.collateralFor(quote), fingerprintOf(authority.certificates.root))
    expect(verifyQuote(quote, trusted, { now: now.getTime() }).tcbStatus).toBe('OutOfDate')
    await server.close()
    expect(await asked.refresh()).toBe(false)
    expect(asked.codes()).toContain('pccs-unreachable')
  })

  test('in the background it is renewed before it is due to expire', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const asked = client(server.url, { config: { collateralCacheHours: 1000 } })
    const changed = new Promise<void>((resolve) => asked.keepFresh(resolve))
    const first = await asked.collateralFor(quote)
    // Nine tenths of thirty days; timers wake at least daily.
    for (let day = 0; day < 28; day += 1) {
      now = new Date(testNow.getTime() + (day + 1) * dayMs)
      await vi.advanceTimersByTimeAsync(dayMs)
    }
    await changed
    expect(
      JSON.parse((await asked.collateralFor(quote)).tcb_info).issueDate > JSON.parse(first.tcb_info).issueDate,
    ).toBe(true)
  })

  test('closing ends what is under way', async () => {
    const service = await listen(() => undefined)
    const asked = client(service.url)
    const pending = asked.collateralFor(quote)
    await vi.waitFor(() => expect(service.requests).toHaveLength(4))
    asked.close()
    await expect(pending).rejects.toMatchObject({ code: 'pccs-unreachable', message: 'closed while asking' })
  })
})
