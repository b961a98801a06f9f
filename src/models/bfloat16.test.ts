import fc from 'fast-check'
import { expect, test } from 'vitest'
import { fromBfloat16, toBfloat16 } from './bfloat16.ts'

/** float32 bits → bfloat16 bits, by the rule; what TensorFlow's Cast gives for the same bits is in engine.test.ts. */
const vectors: [string, number, number][] = [
  ['zero', 0x0000_0000, 0x0000],
  ['minus zero', 0x8000_0000, 0x8000],
  ['one', 0x3f80_0000, 0x3f80],
  ['just below half a unit', 0x3f80_7fff, 0x3f80],
  ['a tie to the even one below', 0x3f80_8000, 0x3f80],
  ['a tie to the even one above', 0x3f81_8000, 0x3f82],
  ['just above half a unit', 0x3f80_8001, 0x3f81],
  ['a carry into the exponent', 0x3fff_8000, 0x4000],
  ['π', 0x4049_0fdb, 0x4049],
  ['the least subnormal', 0x0000_0001, 0x0000],
  ['a subnormal', 0x007f_8001, 0x0080],
  ['the largest that stays finite', 0x7f7f_7fff, 0x7f7f],
  ['the largest float32', 0x7f7f_ffff, 0x7f80],
  ['its negative', 0xff7f_ffff, 0xff80],
  ['infinity', 0x7f80_0000, 0x7f80],
]

test.each(vectors)('%s', (_, from, to) => {
  expect(toBfloat16(new Float32Array(Uint32Array.of(from).buffer))).toEqual(Uint16Array.of(to))
})

test.each([0x7f80_0001, 0x7fff_ffff, 0x7fc0_0000, 0xff80_0001, 0xffff_ffff])('NaN %i stays one', (bits) => {
  const [half] = fromBfloat16(toBfloat16(new Float32Array(Uint32Array.of(bits).buffer)))
  expect(half).toBeNaN()
})

test('of the two neighbours the nearer one, within 1/256', () => {
  fc.assert(
    fc.property(fc.float({ noNaN: true, noDefaultInfinity: true, min: -(2 ** 100), max: 2 ** 100 }), (value) => {
      const rounded = toBfloat16(Float32Array.of(value))
      const distance = Math.abs(fromBfloat16(rounded)[0]! - value)
      const neighbours = [rounded[0]! - 1, rounded[0]! + 1].map((half) => fromBfloat16(Uint16Array.of(half))[0]!)
      for (const other of neighbours) {
        if (Number.isFinite(other)) expect(Math.abs(other - value)).toBeGreaterThanOrEqual(distance)
      }
      if (Math.abs(value) >= 2 ** -126) expect(distance).toBeLessThanOrEqual(Math.abs(value) / 256)
    }),
  )
})

test('what is bfloat16 already comes back as it was', () => {
  const all = Uint16Array.from({ length: 2 ** 16 }, (_, half) => half)
  const values = fromBfloat16(all)
  const back = toBfloat16(values)
  const differing = all.filter((half) => back[half] !== half && !Number.isNaN(values[half]))
  expect([...differing]).toEqual([])
})

test('memory of another length is refused', () => {
  expect(() => toBfloat16(new Float32Array(3), new Uint16Array(2))).toThrow()
})
