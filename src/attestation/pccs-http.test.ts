import type { ServerResponse } from 'node:http'
import { describe, expect, test, vi } from 'vitest'
import { htmlPage, testPccs } from '../../test/pccs-service.ts'

const pccs = testPccs()

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
    const service = await pccs.intercept((_path, response) => answer(response))
    const asked = pccs.client(service.url, { limits: { timeoutMs: 500, retries: 1, retryDelayMs: 1 } })
    await expect(asked.collateralFor(pccs.quote)).rejects.toMatchObject({ code: 'pccs-timeout' })
    // Each of the four, twice.
    expect(service.requests.length).toBeGreaterThanOrEqual(5)
  })

  test('a redirect to another host is not followed', async () => {
    const elsewhere = await pccs.intercept()
    const service = await pccs.intercept((path, response) => {
      response.writeHead(302, { Location: new URL(path, elsewhere.url).href }).end()
    })
    await expect(pccs.client(service.url).collateralFor(pccs.quote)).rejects.toMatchObject({
      code: 'pccs-redirect-refused',
    })
    expect(elsewhere.requests).toEqual([])
  })

  test.each(['file:///etc/passwd', 'https://[', ''])('a redirect to %j is not followed', async (location) => {
    const service = await pccs.intercept(
      (_path, response) => void response.writeHead(301, { Location: location }).end(),
    )
    await expect(pccs.client(service.url).collateralFor(pccs.quote)).rejects.toMatchObject({
      code: 'pccs-redirect-refused',
    })
  })

  test('redirects on the same host are followed, but not for ever', async () => {
    const moved = await pccs.intercept((path, response, forward) => {
      if (path.includes('moved')) {
        response.writeHead(307, { Location: path.replace('/moved', '') }).end()
      } else forward()
    })
    const url = moved.url.replace('/sgx', '/moved/sgx')
    await expect(pccs.client(url).collateralFor(pccs.quote)).resolves.toBeDefined()
    const loop = await pccs.intercept((path, response) => void response.writeHead(302, { Location: `${path}` }).end())
    await expect(pccs.client(loop.url).collateralFor(pccs.quote)).rejects.toMatchObject({
      code: 'pccs-redirect-refused',
    })
    expect(loop.requests.length).toBeLessThanOrEqual(16)
  })

  test('HTML with status 200', async () => {
    const service = await pccs.intercept((_path, response) => htmlPage(response))
    await expect(pccs.client(service.url).collateralFor(pccs.quote)).rejects.toMatchObject({
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
    const service = await pccs.intercept((_path, response) => answer(response))
    const asked = pccs.client(service.url, { limits: { maxBytes: 10_000, timeoutMs: 2000, retries: 0 } })
    await expect(asked.collateralFor(pccs.quote)).rejects.toMatchObject({ code: 'pccs-answer-too-large' })
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
    const service = await pccs.intercept((_path, response) => void response.writeHead(status).end('why\nnot'))
    const asked = pccs.client(service.url, { limits: { timeoutMs: 2000, retries: 2, retryDelayMs: 1 } })
    const message = expect.stringContaining(`${status} (why not)`)
    await expect(asked.collateralFor(pccs.quote)).rejects.toMatchObject({ code, message })
    await vi.waitFor(() =>
      expect(service.requests.filter((path) => path.includes('qe/identity'))).toHaveLength(attempts),
    )
  })

  test('what passes is tried again', async () => {
    const seen = new Set<string>()
    const flaky = await pccs.intercept((path, response, forward) => {
      if (seen.has(path)) return forward()
      seen.add(path)
      if (path.includes('tcb')) response.destroy()
      else response.writeHead(500).end()
    })
    const asked = pccs.client(flaky.url, { limits: { timeoutMs: 2000, retries: 1, retryDelayMs: 1 } })
    await expect(asked.collateralFor(pccs.quote)).resolves.toBeDefined()
    expect(flaky.requests).toHaveLength(8)
  })

  test('nobody there', async () => {
    await pccs.server.close()
    await expect(pccs.client(pccs.server.url).collateralFor(pccs.quote)).rejects.toMatchObject({
      code: 'pccs-unreachable',
    })
  })

  test.each(['TCB-Info-Issuer-Chain', 'SGX-PCK-CRL-Issuer-Chain', 'SGX-Enclave-Identity-Issuer-Chain'])(
    'a missing or broken header %s',
    async (name) => {
      for (const value of [undefined, '%', 'no%20certificate']) {
        const service = await pccs.intercept((_path, _response, forward) => forward({ [name.toLowerCase()]: value }))
        await expect(pccs.client(service.url).collateralFor(pccs.quote)).rejects.toMatchObject({
          code: 'pccs-answer-malformed',
        })
      }
    },
  )
})
