import { createHash, generateKeyPairSync, sign } from 'node:crypto'
import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { jobDigest, testPolicy } from '../../test/attested-credentials.ts'
import { testContext } from '../../test/cli-context.ts'
import {
  codeDigest,
  scratchDirectory,
  testAuthority,
  testCollateral,
  testEnclave,
  testNow,
} from '../../test/simulated.ts'
import type { Platform } from '../attestation/platforms/platform.ts'
import { type AuditLog, openAuditLog } from '../observability/audit-log.ts'
import { encodeRecord, lineHash, startReportData } from '../observability/audit-record.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { type AuditOptions, type AuditReport, verify } from './audit.ts'

const authority = await testAuthority()
const platform = await testEnclave(authority)
const collateral = await testCollateral(authority)
const job = jobDigest.toString('hex')
const peerQuote = Buffer.from('the quote of a peer')

const events: readonly CloisterEvent[] = [
  { kind: 'listening', address: '127.0.0.1:1' },
  {
    kind: 'peer-joined',
    peer: 'worker 0',
    evidence: {
      ...{ platform: 'simulated', detail: 'kept', file: 'server-peer-1' },
      quoteSha256: createHash('sha256').update(peerQuote).digest('hex'),
    },
  },
  {
    kind: 'peer-refused',
    address: '127.0.0.1:2',
    error: { code: 'policy-refused', message: '\u2028","signature":"', hint: 'h' },
  },
  { kind: 'step', worker: 0, step: 1, examples: 1, loss: 1, iterationMs: 1, computeMs: 1, waitMs: 0 },
  { kind: 'saved', what: 'checkpoint', path: 'checkpoint/10', step: 10 },
  { kind: 'exported', path: 'model.age', form: 'age', recipients: 2 },
  { kind: 'key-provisioned', name: 'data', owner: codeDigest('an owner') },
]

function open(path: string, on: Pick<Platform, 'kind' | 'quote'> = platform, source = 'server'): Promise<AuditLog> {
  return openAuditLog({
    ...{ path, source, role: 'server', job, platform: on.kind, warning: 'platform-simulated' },
    quote: (reportData) => on.quote(reportData),
    now: () => testNow,
    onFailure: (error) => {
      throw error
    },
  })
}

/** A run directory with a log of two starts, and all that it is judged by. */
async function run(source = 'server', result = 'result.json') {
  const directory = scratchDirectory()
  const path = join(directory, 'audit', `${source}.jsonl`)
  const first = await open(path, platform, source)
  for (const event of events) first.emit(event)
  first.close()
  const second = await open(path, platform, source)
  second.emit({ kind: 'resumed', step: 10 })
  const head = second.head
  second.emit({ kind: 'finished', steps: 20, examples: 200, seconds: 1 })
  second.close()
  mkdirSync(join(directory, 'evidence'))
  writeFileSync(join(directory, 'evidence', 'server-peer-1.quote'), peerQuote)
  for (const { start } of [first, second]) {
    const file = `${source}-start-${start.index}.collateral.json`
    writeFileSync(join(directory, 'evidence', file), JSON.stringify(collateral))
  }
  writeFileSync(join(directory, 'policy.json'), JSON.stringify(testPolicy(authority)))
  writeFileSync(join(directory, result), JSON.stringify({ audit: head }))
  return { directory, path, head }
}

async function judge(subject: string, options: Partial<AuditOptions> = {}) {
  const { context, printed } = testContext({ now: () => testNow })
  const directory = subject.endsWith('.jsonl') ? dirname(dirname(subject)) : subject
  const policy = join(directory, 'policy.json')
  const self = codeDigest('cloister')
  const status = await verify(context, { policy, self, json: true, ...options }, subject)
  const reports = JSON.parse(printed.out) as AuditReport[]
  const [report] = reports
  return { status, report: report!, reports, code: report!.error?.code }
}

describe('a log as enclaves wrote it', () => {
  test('is verified, with every start judged by the policy', async () => {
    const { directory, path, head } = await run()
    const { status, report } = await judge(directory)
    expect(report.error).toBeNull()
    expect(status).toBe(0)
    expect(report.ended).toBe(true)
    expect(report.starts.map((start) => start.measurements?.mrEnclave)).toEqual(Array(2).fill(codeDigest('cloister')))
    expect(report.evidence).toEqual({ matching: 1, missing: [] })
    const kinds = report.records.map((body) => (body.record === 'event' ? body.event.kind : body.record))
    const joined = ['peer-joined', 'peer-refused', 'saved', 'exported', 'key-provisioned']
    expect(kinds).toEqual(['start', ...joined, 'end', 'start', 'resumed', 'finished', 'end'])
    expect(head.index).toBe(8)

    const { context, printed } = testContext({ now: () => testNow })
    const options = { policy: join(directory, 'policy.json'), self: codeDigest('cloister') }
    expect(await verify(context, options, path)).toBe(0)
    expect(printed.out).toContain('VERIFIED')
    expect(printed.out).toContain('WARNING platform-simulated')
    expect(printed.out).not.toContain('NOTE')
  })

  test('is not verified by a policy that does not want the enclave', async () => {
    const { directory } = await run()
    expect(await judge(directory, { self: codeDigest('other code') })).toMatchObject({
      status: 1,
      code: 'audit-quote-refused',
    })
    writeFileSync(join(directory, 'other.json'), JSON.stringify(testPolicy(await testAuthority({ seed: 2 }))))
    const other = await judge(directory, { policy: join(directory, 'other.json') })
    expect(other.report.error?.message).toContain('chain-untrusted-root')
    expect((await judge(directory, { at: '2036-01-01T00:00:00Z' })).code).toBe('audit-quote-refused')
  })
})

describe('on the host nobody can', () => {
  let run1: Awaited<ReturnType<typeof run>>
  let whole: Buffer
  let lines: string[]
  beforeAll(async () => {
    run1 = await run()
    whole = readFileSync(run1.path)
    lines = whole.toString('utf8').trimEnd().split('\n')
  })
  const judged = async (content: string | Buffer) => {
    writeFileSync(run1.path, content)
    return (await judge(run1.directory)).code
  }
  const joined = (changed: readonly string[]) => changed.map((line) => `${line}\n`).join('')

  test('change a bit of it', async () => {
    for (let at = 0; at < whole.length; at += 211) {
      const changed = Buffer.from(whole)
      changed[at]! ^= 1 << (at % 7)
      expect(await judged(changed), `byte ${at}`).toMatch(/^audit-/)
    }
    // The last line has none behind it: its own signature must cover every byte.
    for (let at = whole.length - lines.at(-1)!.length - 1; at < whole.length; at += 4) {
      const changed = Buffer.from(whole)
      changed[at]! ^= 1
      expect(await judged(changed), `byte ${at}`).toMatch(/^audit-/)
    }
    expect(await judged(whole)).toBeUndefined()
  })

  test('remove, repeat, swap or insert a line', async () => {
    for (let at = 0; at < lines.length - 1; at++) {
      expect(await judged(joined(lines.toSpliced(at, 1))), `without line ${at + 1}`).toMatch(/^audit-(chain|record)/)
      expect(await judged(joined(lines.toSpliced(at, 0, lines[at]!))), `line ${at + 1} twice`).toBe(
        'audit-chain-broken',
      )
      expect(await judged(joined(lines.toSpliced(at, 2, lines[at + 1]!, lines[at]!)))).toBe('audit-chain-broken')
    }
    expect(await judged('')).toBe('audit-record-malformed')
    expect(await judged(joined([...lines, '']))).toBe('audit-record-malformed')
    expect(await judged(joined([...lines, '{}']))).toBe('audit-record-malformed')
    expect(await judged(`${whole}junk`)).toBe('audit-record-malformed')
  })

  test('cut away what is remembered elsewhere, and the rest not silently', async () => {
    for (let length = 1; length <= run1.head.index; length++) {
      expect(await judged(joined(lines.slice(0, length))), `${length} lines`).toBe('audit-log-truncated')
    }
    expect(await judged(joined(lines.slice(0, -1)))).toBeUndefined()
    expect((await judge(run1.directory)).report.ended).toBe(false)
    writeFileSync(run1.path, whole)
    const other = `${run1.head.index}:${'ab'.repeat(32)}`
    expect((await judge(run1.directory, { head: other })).code).toBe('audit-log-truncated')
    writeFileSync(join(dirname(run1.path), 'worker0.jsonl'), whole)
    await expect(judge(run1.directory, { head: other })).rejects.toMatchObject({ code: 'audit-head-ambiguous' })
    rmSync(join(dirname(run1.path), 'worker0.jsonl'))
    await expect(judge(run1.directory, { head: '7' })).rejects.toMatchObject({ code: 'audit-head-malformed' })
  })

  test.each([
    ['server1', 'result-server1.json'],
    ['server12', 'result-server12.json'],
  ])('cut away what the result of %s remembers', async (source, result) => {
    const { directory, path, head } = await run(source, result)
    expect((await judge(directory)).report.error).toBeNull()
    const kept = readFileSync(path, 'utf8').split('\n').slice(0, head.index)
    writeFileSync(path, `${kept.join('\n')}\n`)
    expect((await judge(directory)).code).toBe('audit-log-truncated')
    // Only its own result speaks for it.
    rmSync(join(directory, result))
    expect((await judge(directory)).report.error).toBeNull()
  })

  test.each([
    ['server', 'result.json', 'server1'],
    ['server1', 'result-server1.json', 'server'],
  ])('remove the log of %s whole, where its result remembers it', async (source, result, other) => {
    const { directory, path } = await run(source, result)
    renameSync(path, join(directory, 'audit', `${other}.jsonl`))
    const { reports, status } = await judge(directory)
    expect(status).toBe(1)
    expect(reports.map(({ verdict, error }) => [verdict, error?.code])).toEqual([
      ['verified', undefined],
      ['refused', 'audit-log-missing'],
    ])
  })

  test('write on with a key of their own, in a chain that is right', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519')
    const previous = lineHash(Buffer.from(lines.at(-1)!))
    const place = { index: lines.length, previous, time: testNow.toISOString() }
    const signed = (message: Uint8Array) => sign(null, message, privateKey)
    const event = { kind: 'resumed', step: 1 } as const
    const forged = encodeRecord({ ...place, record: 'event', event, lost: 0 }, signed).toString()
    expect(await judged(joined([...lines, forged]))).toBe('audit-signature-invalid')

    // With a start of their own: its quote is over something else, or of other code.
    const key = publicKey.export({ type: 'spki', format: 'der' }).subarray(-32).toString('hex')
    const start = {
      record: 'start',
      source: 'server',
      role: 'server',
      job,
      platform: 'simulated',
      publicKey: key,
    } as const
    const body = (quote: Uint8Array) =>
      encodeRecord({ ...place, ...start, torn: 0, quote: Buffer.from(quote).toString('base64') }, signed).toString()
    const copied = Buffer.from((JSON.parse(lines[0]!) as { body: { quote: string } }).body.quote, 'base64')
    const over = startReportData({ ...place, ...start, torn: 0, quote: '' })
    const own = await (await testEnclave(authority, { mrEnclave: codeDigest('a forger') })).quote(over)
    writeFileSync(
      join(run1.directory, 'evidence', `server-start-${lines.length}.collateral.json`),
      JSON.stringify(collateral),
    )
    expect(await judged(joined([...lines, body(copied)]))).toBe('audit-quote-mismatch')
    expect(await judged(joined([...lines, body(own)]))).toBe('audit-quote-refused')
    expect(await judged(joined([...lines, body(Buffer.from('no quote'))]))).toBe('audit-quote-refused')
    expect(await judged(joined([...lines, body(await platform.quote(over))]))).toBeUndefined()
  })

  test('replace evidence unseen; what is gone is said', async () => {
    writeFileSync(run1.path, whole)
    const file = join(run1.directory, 'evidence', 'server-peer-1.quote')
    writeFileSync(file, 'another quote')
    expect((await judge(run1.directory)).code).toBe('audit-evidence-mismatch')
    rmSync(file)
    expect((await judge(run1.directory)).report.evidence.missing).toEqual([file])
  })
})

test('what is missing around a log is said', async () => {
  const { directory, path } = await run()
  rmSync(join(directory, 'evidence', 'server-start-0.collateral.json'))
  expect((await judge(path)).code).toBe('audit-collateral-missing')
  const bundle = join(directory, 'bundle.json')
  writeFileSync(bundle, JSON.stringify(collateral))
  expect((await judge(path, { collateral: bundle })).code).toBeUndefined()
  expect((await judge(join(directory, 'none.jsonl'), { policy: join(directory, 'policy.json') })).code).toBe(
    'input-unreadable',
  )
  const empty = scratchDirectory()
  await expect(judge(empty, { policy: join(directory, 'policy.json') })).rejects.toMatchObject({
    code: 'audit-log-unreadable',
  })
})

describe('a process that starts again', () => {
  test('cuts away what a killed one left unfinished, and says how much', async () => {
    const { directory, path } = await run()
    appendFileSync(path, '{"body":{"ind')
    expect((await judge(directory)).code).toBe('audit-record-malformed')
    const log = await open(path)
    const { start } = log
    writeFileSync(
      join(directory, 'evidence', `server-start-${start.index}.collateral.json`),
      JSON.stringify(collateral),
    )
    log.close()
    const { report } = await judge(directory)
    expect(report.error).toBeNull()
    expect(report.records[start.index]).toMatchObject({ record: 'start', torn: 13 })
  })

  test('sees that its checkpoint remembers more than the log has, or other than it has', async () => {
    const { path, head } = await run()
    const log = await open(path)
    log.requireHead(head)
    expect(() => log.requireHead({ ...head, hash: 'ab'.repeat(32) })).toThrow(/expected record 8/)
    expect(() => log.requireHead({ ...head, index: 99 })).toThrow(/a log of 12 records/)
    log.close()
  })

  test('does not go on from a log that is damaged', async () => {
    const { path } = await run()
    const whole = readFileSync(path, 'utf8')
    writeFileSync(path, whole.replace('"peer-joined"', '"peer-jained"'))
    await expect(open(path)).rejects.toMatchObject({ code: 'audit-log-damaged' })
    writeFileSync(path, whole.replace('worker 0', 'worker 1'))
    await expect(open(path)).rejects.toMatchObject({ code: 'audit-log-damaged' })
    await expect(open(dirname(path))).rejects.toMatchObject({ code: 'audit-log-unreadable' })
  })

  test('says how many records could not be written, and goes on in the chain', async () => {
    const path = join(scratchDirectory(), 'audit', 'server.jsonl')
    const failures: unknown[] = []
    let broken = false
    const now = (): Date => {
      if (broken) throw new Error('as of a full disk')
      return testNow
    }
    const quote = (reportData: Uint8Array) => platform.quote(reportData)
    const onFailure = (error: unknown): void => void failures.push(error)
    const log = await openAuditLog({
      ...{ path, source: 'server', role: 'server', job, platform: 'simulated', quote, now, onFailure },
    })
    broken = true
    log.emit({ kind: 'resumed', step: 1 })
    log.emit({ kind: 'resumed', step: 2 })
    broken = false
    log.emit({ kind: 'resumed', step: 3 })
    log.close()
    expect(failures).toHaveLength(1)
    const bundle = join(dirname(path), 'bundle.json')
    writeFileSync(bundle, JSON.stringify(collateral))
    writeFileSync(join(dirname(dirname(path)), 'policy.json'), JSON.stringify(testPolicy(authority)))
    const { report } = await judge(path, { collateral: bundle })
    expect(report.error).toBeNull()
    expect(report.records.slice(1)).toMatchObject([
      { event: { step: 3 }, lost: 2 },
      { record: 'end', lost: 0 },
    ])
  })

  test('one that is refused a quote writes nothing', async () => {
    const path = join(scratchDirectory(), 'audit', 'server.jsonl')
    const quote = async () => Promise.reject(new Error('no quote'))
    await expect(open(path, { kind: 'simulated', quote })).rejects.toThrow('no quote')
    expect(existsSync(path) ? readFileSync(path, 'utf8') : '').toBe('')
  })
})
