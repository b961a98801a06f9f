import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { toBfloat16 } from '../models/bfloat16.ts'
import { FederationError } from './federation-error.ts'
import { manifestOf } from './manifest.ts'
import { Assembly, slicesOf, type TensorSlice, verifyFinite } from './slices.ts'
import type { Values } from './tensor-set.ts'

const manifest = manifestOf([
  { name: 'a', shape: [2, 3], role: 'weight' },
  { name: 'b', shape: [], role: 'weight' },
  { name: 'empty', shape: [0, 4], role: 'weight' },
  { name: 'c', shape: [5], role: 'statistic' },
])

function memory(): Float32Array[] {
  return manifest.map(({ elements }) => new Float32Array(elements))
}

function bytes(...values: number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer)
}

function codeOf(body: () => void): string {
  try {
    body()
  } catch (error) {
    if (error instanceof FederationError) return error.code
    throw error
  }
  return 'accepted'
}

test('what is cut up arrives bit for bit, whatever the bound and the alignment on the wire', () => {
  const finite = fc.float({ noNaN: true, min: -(2 ** 100), max: 2 ** 100 })
  fc.assert(
    fc.property(
      fc.array(fc.array(finite, { maxLength: 40 }), { maxLength: 8 }),
      fc.integer({ min: 4, max: 200 }),
      fc.nat({ max: 3 }),
      (tensors, maxBytes, misalignment) => {
        // Every second one as bfloat16 has it.
        const own = manifestOf(
          tensors.map((values, index) => ({ name: `t${index}`, shape: [values.length], role: 'weight' })),
        )
        const sources = tensors.map((values, index) => {
          const whole = Float32Array.from(values)
          return index % 2 === 0 ? whole : toBfloat16(whole)
        })
        const targets = sources.map((source) => source.slice().fill(0))
        const assembly = new Assembly(own, targets, verifyFinite)
        for (const group of slicesOf(sources, maxBytes)) {
          expect(group.reduce((sum, { values }) => sum + values.length, 0)).toBeLessThanOrEqual(maxBytes)
          expect(assembly.complete).toBe(false)
          assembly.accept(group.map((slice) => ({ ...slice, values: shifted(slice.values, misalignment) })))
        }
        expect(assembly.complete).toBe(true)
        // Bits, not numbers: −0 and subnormals count.
        expect(targets.map(bitsOf)).toEqual(sources.map(bitsOf))
      },
    ),
  )
})

/** The same bytes at another alignment, as protobuf hands them out. */
function shifted(values: Uint8Array, misalignment: number): Uint8Array {
  const room = new Uint8Array(values.length + misalignment)
  room.set(values, misalignment)
  return room.subarray(misalignment)
}

function bitsOf(values: Values): number[] {
  return [
    ...(values instanceof Uint16Array ? values : new Uint32Array(values.buffer, values.byteOffset, values.length)),
  ]
}

describe('a hostile sender', () => {
  const whole: TensorSlice[] = [
    { tensor: 0, offset: 0, values: bytes(1, 2, 3, 4, 5, 6) },
    { tensor: 1, offset: 0, values: bytes(7) },
    { tensor: 3, offset: 0, values: bytes(8, 9, 10, 11, 12) },
  ]
  const [a, b, c] = whole as [TensorSlice, TensorSlice, TensorSlice]

  test.each<[string, TensorSlice[], string]>([
    ['nothing wrong', whole, 'accepted'],
    ['an unknown tensor', [{ tensor: 4, offset: 0, values: bytes(1) }], 'tensor-unknown'],
    [
      'a tensor longer than its shape',
      [{ tensor: 0, offset: 0, values: bytes(1, 2, 3, 4, 5, 6, 7) }],
      'tensor-too-long',
    ],
    ['an offset past the end', [{ tensor: 0, offset: 4_294_967_295, values: bytes(1) }], 'tensor-too-long'],
    ['values for a tensor without elements', [a, b, { tensor: 2, offset: 0, values: bytes(1) }], 'tensor-too-long'],
    ['a shorter tensor', [{ ...a, values: bytes(1, 2, 3, 4, 5) }, b], 'slice-misplaced'],
    ['a missing tensor', [b], 'slice-misplaced'],
    ['a gap', [{ tensor: 0, offset: 1, values: bytes(1, 2) }], 'slice-misplaced'],
    [
      'an overlap',
      [
        { ...a, values: bytes(1, 2, 3) },
        { tensor: 0, offset: 2, values: bytes(3, 4, 5, 6) },
      ],
      'slice-misplaced',
    ],
    ['a duplicate', [a, a], 'slice-misplaced'],
    ['more after the end', [...whole, c], 'slice-misplaced'],
    ['no values', [{ tensor: 0, offset: 0, values: new Uint8Array() }], 'slice-malformed'],
    ['half a value', [{ tensor: 0, offset: 0, values: new Uint8Array(6) }], 'slice-malformed'],
    ['NaN', [a, { tensor: 1, offset: 0, values: bytes(Number.NaN) }], 'values-not-finite'],
    ['infinity', [a, { tensor: 1, offset: 0, values: bytes(Number.POSITIVE_INFINITY) }], 'values-not-finite'],
    ['negative infinity', [a, b, { ...c, values: bytes(1, 2, Number.NEGATIVE_INFINITY) }], 'values-not-finite'],
  ])('%s', (_, slices, expected) => {
    expect(codeOf(() => new Assembly(manifest, memory(), verifyFinite).accept(slices))).toBe(expected)
  })

  test('any sequence of slices either assembles exactly or is refused, and stays inside its memory', () => {
    const arena = new Float32Array(40).fill(-7)
    const values = fc.array(fc.float({ noDefaultInfinity: true, noNaN: true }), { maxLength: 8 })
    const slice = fc.record({ tensor: fc.nat({ max: 4 }), offset: fc.nat({ max: 7 }), values })
    fc.assert(
      fc.property(fc.array(slice, { maxLength: 6 }), (slices) => {
        arena.fill(-7)
        const targets = [arena.subarray(4, 10), arena.subarray(12, 13), arena.subarray(15, 15), arena.subarray(20, 25)]
        const assembly = new Assembly(manifest, targets, verifyFinite)
        codeOf(() => assembly.accept(slices.map((each) => ({ ...each, values: bytes(...each.values) }))))
        const outside = [...arena].filter(
          (_, index) => !(inside(index, 4, 10) || index === 12 || inside(index, 20, 25)),
        )
        expect(outside.every((value) => value === -7)).toBe(true)
      }),
    )
  })
})

function inside(index: number, from: number, to: number): boolean {
  return index >= from && index < to
}

test('the first value that is no number is named', () => {
  expect(() => verifyFinite('layer/kernel', Float32Array.of(1, 2, Number.NaN, 4), 10)).toThrow(
    /layer\/kernel.*NaN at 12/,
  )
  expect(codeOf(() => verifyFinite('w', Float32Array.of(3.4e38, -3.4e38, 1e-45, -0), 0))).toBe('accepted')
})

test('no bit pattern that is no number passes, whatever stands beside it', () => {
  const bits = fc.oneof(
    fc.nat(0xffff_ffff),
    fc.constantFrom(0x7f7f_ffff, 0x7f80_0000, 0xff7f_ffff, 0xff80_0000, 0x7fc0_0000),
  )
  fc.assert(
    fc.property(fc.array(bits, { maxLength: 5 }), (patterns) => {
      const values = new Float32Array(Uint32Array.from([0, ...patterns]).buffer).subarray(1)
      const finite = [...values].every((value) => Number.isFinite(value))
      expect(codeOf(() => verifyFinite('w', values, 0))).toBe(finite ? 'accepted' : 'values-not-finite')
    }),
    { numRuns: 1000 },
  )
})

test('half a bfloat16 is refused', () => {
  const targets = manifest.map(({ elements }) => new Uint16Array(elements))
  const slice = { tensor: 0, offset: 0, values: new Uint8Array(3) }
  expect(codeOf(() => new Assembly(manifest, targets).accept([slice]))).toBe('slice-malformed')
})

describe('bfloat16 that is no number is found', () => {
  const patterns = [0x7f80, 0xff80, 0x7f81, 0x7fc0, 0xffff]
  const finite = [0x7f7f, 0xff7f, 0x0000, 0x8000, 0x0001, 0x3f80]

  test('wherever it stands, at either alignment, whatever stands beside it', () => {
    for (const first of [0, 1]) {
      for (let length = 1; length <= 19; length++) {
        const halves = new Uint16Array(24).subarray(first, first + length)
        for (let at = 0; at < length; at++) {
          halves.forEach((_, index) => {
            halves[index] = finite[(index + at) % finite.length]!
          })
          expect(codeOf(() => verifyFinite('w', halves, 0))).toBe('accepted')
          for (const pattern of patterns) {
            halves[at] = pattern
            expect(
              codeOf(() => verifyFinite('w', halves, 0)),
              `${pattern} at ${at} of ${length}`,
            ).toBe('values-not-finite')
          }
        }
      }
    }
  })

  test('and named by its value and place', () => {
    const halves = toBfloat16(Float32Array.of(1, 2, Number.NEGATIVE_INFINITY))
    expect(() => verifyFinite('layer/kernel', halves, 10)).toThrow(/layer\/kernel.*-Infinity at 12/)
  })
})
