/** Whatever is shown of a handshake, accepted or refused, has no key in it: events, errors with their causes, log lines, peers. */
import { createPrivateKey } from 'node:crypto'
import { inspect } from 'node:util'
import { afterEach, expect, test, vi } from 'vitest'
import { meetBoth, type Outcome, testCredentials } from '../../test/attested-credentials.ts'
import { codeDigest, testAuthority, testEnclave } from '../../test/simulated.ts'
import { tlsPair } from '../../test/tls-pair.ts'
import { publicError } from '../errors.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { formatEvent } from '../observability/log.ts'
import { exporterLabel } from './attestation-exchange.ts'

afterEach(() => vi.restoreAllMocks())

/** A secret in each form in which text could carry it. */
function formsOf(secret: Uint8Array): string[] {
  const bytes = Buffer.from(secret)
  // As one stream of characters base64 depends on where it begins: the middle of the secret, at each of three offsets.
  const base64 = [0, 1, 2].map((offset) => bytes.subarray(offset, offset + 12).toString('base64'))
  const listed = [...bytes.subarray(0, 8)]
  return [bytes.toString('hex'), bytes.toString('base64url'), ...base64, listed.join(', '), listed.join(',')].concat(
    [...bytes.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join(' '),
  )
}

const shownIn = (text: string, secrets: readonly Uint8Array[]) =>
  secrets.flatMap(formsOf).filter((form) => text.toLowerCase().includes(form.toLowerCase()))

const privateScalar = (pem: string) => Buffer.from(createPrivateKey(pem).export({ format: 'jwk' }).d ?? '', 'base64url')

test('no private key, sealing key or TLS secret in anything that is shown', async () => {
  const shown: string[] = []
  const show = (...values: unknown[]) => {
    for (const value of values) shown.push(inspect(value, { depth: 20, showHidden: true }), String(value))
  }
  for (const stream of [process.stdout, process.stderr]) {
    vi.spyOn(stream, 'write').mockImplementation((text) => {
      shown.push(String(text))
      return true
    })
  }
  const report = (event: CloisterEvent) => show(event, formatEvent(event), JSON.stringify(event))
  const authority = await testAuthority()
  let broken = false
  const enclave = await testEnclave(authority)
  const platform = {
    ...enclave,
    quote: async (reportData: Uint8Array) => {
      if (broken) throw new Error('the quoting enclave is gone')
      return enclave.quote(reportData)
    },
  }
  const server = await testCredentials(authority, 'server', { report, platform })
  const parties = [
    await testCredentials(authority, 'worker', { report }),
    await testCredentials(authority, 'server', { report }),
    await testCredentials(authority, 'worker', { report, jobDigest: Buffer.alloc(32, 9) }),
    await testCredentials(authority, 'worker', { report, enclave: { mrEnclave: codeDigest('other') } }),
  ]
  const secrets: Uint8Array[] = [await enclave.sealingKey('mrenclave'), await enclave.sealingKey('mrsigner')]
  secrets.push(...[server, ...parties].map((party) => privateScalar(party.identity().privateKey)))
  const outcomes: Outcome[] = []
  for (const party of parties) {
    await using pair = await tlsPair(server.identity(), party.identity())
    secrets.push(pair.client.exportKeyingMaterial(32, exporterLabel, Buffer.alloc(0)))
    outcomes.push(...(await meetBoth(pair, server, party)))
  }
  expect(outcomes.filter((outcome) => 'peer' in outcome)).toHaveLength(2)
  for (const outcome of outcomes) {
    if ('peer' in outcome) show(outcome.peer, JSON.stringify(outcome.peer))
    else show(outcome.error, (outcome.error as Error).stack, JSON.stringify(publicError(outcome.error)))
  }
  broken = true
  await server.renew().catch((error: unknown) => show(error, publicError(error)))
  show(server, enclave, parties)
  vi.restoreAllMocks()

  const everything = shown.join('\n')
  expect(everything).toContain('ratls-job-mismatch')
  expect(everything).toContain('the quoting enclave is gone')
  expect(shownIn(everything, secrets)).toEqual([])
  expect(everything).not.toContain('PRIVATE KEY')
  // The search finds what is there.
  expect(shownIn(inspect(secrets[0]), [secrets[0]!])).not.toEqual([])
  expect(shownIn(server.identity().privateKey.replaceAll('\n', ''), [secrets[2]!])).not.toEqual([])
  for (const party of [server, ...parties]) party.close()
})
