/** What takes long: every byte of a real certificate, and many handshakes. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { meetBoth, testCredentials } from '../../test/attested-credentials.ts'
import { codeDigest, testAuthority } from '../../test/simulated.ts'
import { tlsPair } from '../../test/tls-pair.ts'
import { CodedError } from '../errors.ts'
import { splitPem } from '../x509/pem.ts'
import { parseCertificateEvidence } from './certificate.ts'
import type { AttestedCredentials } from './credentials.ts'

let server: AttestedCredentials
let worker: AttestedCredentials
beforeAll(async () => {
  const authority = await testAuthority()
  server = await testCredentials(authority, 'server')
  worker = await testCredentials(authority, 'worker')
})
afterAll(() => {
  server.close()
  worker.close()
})

test('a certificate with real quotes: each flipped byte is refused, without exception', () => {
  const [der] = splitPem(server.identity().certificate.trimEnd()) as [Buffer]
  expect(der.length).toBeGreaterThan(8000)
  expect(parseCertificateEvidence(der).quote.report.mrEnclave).toBe(codeDigest('cloister'))
  const accepted: number[] = []
  for (let offset = 0; offset < der.length; offset++) {
    const flipped = Buffer.from(der)
    flipped[offset] = flipped[offset]! ^ (1 << (offset % 8))
    try {
      parseCertificateEvidence(flipped)
      accepted.push(offset)
    } catch (error) {
      expect(error).toBeInstanceOf(CodedError)
    }
  }
  expect(accepted).toEqual([])
})

test('a thousand handshakes leave memory flat', async () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const handshakes = async (count: number): Promise<number> => {
    for (let done = 0; done < count; done++) {
      await using pair = await tlsPair(server.identity(), worker.identity())
      const outcomes = await meetBoth(pair, server, worker)
      expect(outcomes.every((outcome) => 'peer' in outcome)).toBe(true)
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
    collect()
    await new Promise((resolve) => setTimeout(resolve, 100))
    collect()
    const { heapUsed, external } = process.memoryUsage()
    return heapUsed + external
  }
  await handshakes(200)
  const before = await handshakes(200)
  const after = await handshakes(1000)
  // A certificate has 10 kB, its quotes 9 kB more: a thousand kept would be tens of MB.
  expect(after - before).toBeLessThan(3_000_000)
})
