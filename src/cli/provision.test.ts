import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { testCredentials, testPolicy } from '../../test/attested-credentials.ts'
import { testContext } from '../../test/cli-context.ts'
import { smallJob } from '../../test/e2e/program.ts'
import {
  codeDigest,
  scratchDirectory,
  testAuthority,
  testCollateral,
  testEnclave,
  testNow,
} from '../../test/simulated.ts'
import { jobDigest } from '../config/job.ts'
import { loadJob } from '../config/load.ts'
import { parseIdentities } from '../keys/age.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { formatEvent } from '../observability/log.ts'
import { run } from './program.ts'
import { openProvisioning } from './provisioning.ts'

const authority = await testAuthority()
const platform = await testEnclave(authority)

/** An owner's machine, and a worker that waits for their key. */
async function parties() {
  const directory = scratchDirectory()
  const file = (name: string): string => join(directory, name)
  writeFileSync(file('job.json'), JSON.stringify(smallJob()))
  writeFileSync(file('policy.json'), JSON.stringify(testPolicy(authority)))
  writeFileSync(file('bundle.json'), JSON.stringify(await testCollateral(authority)))
  const command = async (...argv: string[]) => {
    const { context, printed } = testContext({ cwd: directory, now: () => testNow })
    const status = await run(argv, context)
    return { status, ...printed }
  }
  const owners = [(await command('keygen', 'owner', 'me.key')).out.trim()]
  await command('keygen', 'age', 'data.key')
  await command('keygen', 'sealing', 'seal.key')
  const events: CloisterEvent[] = []
  const digest = jobDigest(loadJob(file('job.json')))
  const open = async (role: 'server' | 'worker', index = 0) =>
    openProvisioning(
      {
        ...{ platform, digest, directory, source: `${role}${index}`, signal: new AbortController().signal },
        events: (event) => void events.push(event),
      },
      {
        ...{ role, index, count: 2, owners, listen: { host: '127.0.0.1', port: 0 } },
        credentials: await testCredentials(authority, role, { jobDigest: digest }),
      },
    )
  const provision = (address: string, ...more: string[]) =>
    command(
      ...['provision', address, '--job', 'job.json', '--policy', 'policy.json', '--owner', 'me.key'],
      ...['--collateral', 'bundle.json', '--self', codeDigest('cloister'), ...more],
    )
  return { directory, file, events, open, provision, command }
}

describe('cloister provision', () => {
  test('gives a worker what opens its data, which outlives a restart', async () => {
    const { file, events, open, provision } = await parties()
    const worker = await open('worker')
    const waiting = worker.dataIdentities()
    const { status, out, err } = await provision(worker.address, '--name', 'data', '--key', 'data.key')
    expect(err).toBe('')
    expect(status).toBe(0)
    expect(out).toContain('The worker at')
    const secret = parseIdentities(readFileSync(file('data.key'), 'utf8'))
    expect(await waiting).toEqual(secret)
    expect(events.map(({ kind }) => kind)).toEqual(['key-awaited', 'key-provisioned'])
    await worker.close()

    const again = await open('worker')
    expect(await again.dataIdentities()).toEqual(secret)
    expect(events).toHaveLength(2)
    await again.close()
    const seen = [out, ...events.map(formatEvent), readFileSync(file('worker0.keys')).toString('latin1')].join('\n')
    expect(seen).not.toContain(secret[0]!.slice(16, 40))
  })

  test('gives a server what seals checkpoints', async () => {
    const { file, open, provision } = await parties()
    const server = await open('server')
    const { status, out } = await provision(server.address, '--name', 'checkpoint', '--key', 'seal.key', '--json')
    expect(status).toBe(0)
    expect(JSON.parse(out)).toMatchObject({ provisioned: 'checkpoint', role: 'server', address: server.address })
    expect(Buffer.from(await server.checkpointKey()).equals(readFileSync(file('seal.key')))).toBe(true)
    await server.close()
  })

  test('refuses, with the reason', async () => {
    const { command, events, open, provision } = await parties()
    const worker = await open('worker')
    const data = ['--name', 'data', '--key', 'data.key']
    const refused = async (...more: string[]): Promise<string> => {
      const { status, out, err } = await provision(worker.address, ...data, ...more)
      expect({ status, out }).toEqual({ status: 1, out: '' })
      return /^cloister: (.*)/.exec(err)![1]!
    }
    expect(await refused('--self', codeDigest('other code'))).toContain('policy-refused: Expected MRENCLAVE')
    expect(await refused('--set', 'training.updates=7')).toMatch(/ratls-(job-mismatch|refused-by-peer)/)
    expect(await refused('--name', 'checkpoint')).toContain('key-not-wanted')
    expect(await refused('--key', 'me.key')).toContain('age-identity-malformed')
    await command('keygen', 'owner', 'stranger.key')
    expect(await refused('--owner', 'stranger.key')).toContain('key-owner-unknown')
    expect(events.every(({ kind }) => kind === 'peer-refused')).toBe(true)
    await worker.close()
  })
})
