// SPDX-License-Identifier: Apache-2.0
/** Nothing but counts, names and single measured numbers fits into an event: by type, and again at run time. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { CloisterEvent } from './events.ts'
import { parseEvent, publishable, type ShapeOf } from './publishable.ts'

// A field of such a type could not be put into the table of shapes: these lines compile only as long as that is so.
type HasNone<T> = [ShapeOf<T>] extends [never] ? true : false
const refusedByType: [
  HasNone<Float32Array>,
  HasNone<Uint8Array>,
  HasNone<number[]>,
  HasNone<ReadonlyMap<string, number>>,
  HasNone<{ values: Float32Array }>,
  HasNone<unknown>,
  HasNone<readonly string[]>,
] = [true, true, true, true, true, true, true]
const acceptedByType: [ShapeOf<number>, ShapeOf<'a' | 'b'>, ShapeOf<Readonly<Record<string, number>>>] = [
  'number',
  'text',
  'scores',
]

const update: CloisterEvent = {
  kind: 'update',
  step: 4,
  examples: 16,
  loss: 2.5,
  learningRate: 0.1,
  staleness: 0,
  contributions: 1,
  applyMs: 1,
}
const evidence = { platform: 'simulated', mrEnclave: 'ab', tcbStatus: 'UpToDate', advisories: ['A-1'], detail: 'd' }
const error = { code: 'some-code', message: 'a word', hint: 'Do it.' }
const good: readonly CloisterEvent[] = [
  update,
  { kind: 'peer-joined', peer: 'worker0', evidence },
  { kind: 'peer-left', peer: 'worker0', reason: 'finished' },
  { kind: 'peer-left', peer: 'worker0', reason: 'lost', error },
  { kind: 'evaluation', step: 4, examples: 10, scores: { auc: 0.75, logLoss: 0.4 } },
  { kind: 'checkpointed', step: 4, bytes: 100, ms: 2 },
]
const forged = (fields: object): CloisterEvent => ({ ...update, ...fields }) as unknown as CloisterEvent
const secret = 0.123456

describe('what is emitted', () => {
  test('fits as it is, and survives JSON', () => {
    expect([refusedByType.every(Boolean), acceptedByType.length]).toEqual([true, 3])
    for (const event of good) {
      expect(publishable(event)).toEqual(event)
      expect(parseEvent(JSON.parse(JSON.stringify(event)))).toEqual(event)
    }
  })

  test.each([
    ['an array for a number', forged({ loss: [secret, secret] })],
    ['a typed array for a number', forged({ loss: Float32Array.of(secret) })],
    ['an object for a number', forged({ step: { 0: secret } })],
    ['a number as text', forged({ loss: String(secret) })],
    ['nothing for a number', forged({ loss: undefined })],
    ['bytes for a name', { ...good[1], peer: Buffer.from('0.123456') } as unknown as CloisterEvent],
    ['an array for scores', { ...good[4], scores: [secret] } as unknown as CloisterEvent],
    ['a typed array for scores', { ...good[4], scores: Float32Array.of(secret) } as unknown as CloisterEvent],
    ['numbers for names of scores', { ...good[4], scores: { 0: secret } } as unknown as CloisterEvent],
    ['arrays in scores', { ...good[4], scores: { auc: [secret] } } as unknown as CloisterEvent],
    ['an unknown kind', { kind: 'row', step: secret } as unknown as CloisterEvent],
    ['a kind that every object has', { kind: 'constructor' } as unknown as CloisterEvent],
  ])('%s becomes a warning without the value', (_, event) => {
    const published = publishable(event)
    expect(published).toMatchObject({ kind: 'warning', error: { code: 'internal' } })
    expect(JSON.stringify(published)).not.toContain('0.123')
    expect(parseEvent(event)).toBeUndefined()
  })

  test('a field that is none of its kind is left out', () => {
    expect(publishable(forged({ gradients: Float32Array.of(secret), labels: [1] }))).toEqual(update)
    const withKey = { ...good[1], evidence: { ...evidence, key: 'k' } } as unknown as CloisterEvent
    expect(publishable(withKey)).toEqual(good[1])
  })

  test('text and lists end at a bound', () => {
    const long = publishable({ kind: 'warning', error: { ...error, message: 'm'.repeat(1e6) } })
    expect(JSON.stringify(long).length).toBeLessThan(5000)
    const scores = Object.fromEntries(Array.from({ length: 65 }, (__, index) => [`s${index}`, 1]))
    expect(publishable({ kind: 'evaluation', step: 1, examples: 1, scores })).toMatchObject({ kind: 'warning' })
    const advisories = Array.from({ length: 1000 }, () => 'x'.repeat(1000))
    const joined = publishable({ kind: 'peer-joined', peer: 'p', evidence: { ...evidence, advisories } })
    expect(JSON.stringify(joined).length).toBeLessThan(6000)
  })
})

describe('what another process wrote', () => {
  test('a loss that left the finite numbers is null in JSON and no number again', () => {
    const back = parseEvent(JSON.parse(JSON.stringify({ ...update, loss: Number.NaN })))
    expect(back).toEqual({ ...update, loss: Number.NaN })
  })

  test('anything may come; what passes is a bounded copy that passes again', () => {
    const anything = fc.anything({ withTypedArray: true, withBigInt: true })
    fc.assert(
      fc.property(
        fc.constantFrom(...good),
        fc.dictionary(fc.constantFrom(...Object.keys(update)), anything),
        (event, junk) => {
          const parsed = parseEvent({ ...event, ...junk })
          if (parsed === undefined) return
          expect(JSON.stringify(parsed).length).toBeLessThan(20_000)
          expect(parseEvent(parsed)).toEqual(parsed)
        },
      ),
    )
    for (const value of [null, undefined, 1, 'text', [], new Uint8Array(3)]) expect(parseEvent(value)).toBeUndefined()
  })
})
