import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeSafetensors, parseSafetensors } from './safetensors.ts'

function fileOf(header: unknown, data = 0): Buffer {
  const json = typeof header === 'string' ? Buffer.from(header) : Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json, Buffer.alloc(data, 1)])
}

const tensor = (begin: number, end: number, shape: unknown = [(end - begin) / 4]) => ({
  dtype: 'F32',
  shape,
  data_offsets: [begin, end],
})

test('the bytes of a small file, as the format describes them', () => {
  const [length, header, data] = encodeSafetensors({
    metadata: { version: '7' },
    tensors: [{ name: 'w', shape: [2, 1], data: Float32Array.of(1, -2) }],
  })
  expect(Buffer.from(header!).toString().trimEnd()).toBe(
    '{"__metadata__":{"version":"7"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}',
  )
  expect(header!.length % 8).toBe(0)
  expect(Buffer.from(length!).readBigUInt64LE()).toBe(BigInt(header!.length))
  expect(Buffer.from(data!).toString('hex')).toBe('0000803f000000c0')
})

test('what is written is read, bit for bit and in order', () => {
  const values = fc.array(fc.float(), { maxLength: 20 })
  const tensors = fc.uniqueArray(fc.record({ name: fc.string({ minLength: 1 }), values }), {
    selector: ({ name }) => name,
    maxLength: 6,
  })
  // JSON objects order names like "0" first, and one name is the format's own.
  const usable = tensors.filter((all) => all.every(({ name }) => !/^\d+$|^__/.test(name)))
  fc.assert(
    fc.property(usable, (all) => {
      const file = {
        metadata: { job: 'j' },
        tensors: all.map(({ name, values }) => ({ name, shape: [values.length], data: Float32Array.from(values) })),
      }
      expect(parseSafetensors(Buffer.concat(encodeSafetensors(file)))).toEqual(file)
    }),
  )
})

describe('a file that does not fit is refused', () => {
  test.each<[string, Buffer]>([
    ['empty', Buffer.alloc(0)],
    ['seven bytes', Buffer.alloc(7)],
    ['a header longer than the file', Buffer.concat([Buffer.from([255, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{}')])],
    ['a header of 2⁶⁴ − 1 bytes', Buffer.concat([Buffer.alloc(8, 255), Buffer.from('{}')])],
    ['no JSON', fileOf('{"w":')],
    ['no UTF-8', fileOf(Buffer.from([0x22, 0xff, 0x22]).toString('latin1'))],
    ['an array', fileOf([])],
    ['null', fileOf('null')],
    ['a tensor that is none', fileOf({ w: 3 })],
    ['another type', fileOf({ w: { ...tensor(0, 4), dtype: 'F16' } }, 4)],
    ['an unknown field', fileOf({ w: { ...tensor(0, 4), extra: 1 } }, 4)],
    ['a negative size', fileOf({ w: tensor(0, 4, [-1, -1]) }, 4)],
    ['a fractional size', fileOf({ w: tensor(0, 4, [0.5, 2]) }, 4)],
    ['no shape', fileOf({ w: { dtype: 'F32', data_offsets: [0, 4] } }, 4)],
    ['three offsets', fileOf({ w: { dtype: 'F32', shape: [1], data_offsets: [0, 4, 8] } }, 4)],
    ['a shape of another size', fileOf({ w: tensor(0, 8, [3]) }, 8)],
    ['sizes whose product overflows', fileOf({ w: tensor(0, 4, [2 ** 40, 2 ** 40]) }, 4)],
    ['offsets backwards', fileOf({ w: tensor(8, 4, [1]) }, 8)],
    ['an overlap', fileOf({ a: tensor(0, 8), b: tensor(4, 12) }, 12)],
    ['a hole', fileOf({ a: tensor(0, 4), b: tensor(8, 12) }, 12)],
    ['a hole at the beginning', fileOf({ a: tensor(4, 8) }, 8)],
    ['too little data', fileOf({ a: tensor(0, 8) }, 4)],
    ['more data than tensors', fileOf({ a: tensor(0, 4) }, 8)],
    ['metadata that are no strings', fileOf({ __metadata__: { version: 3 } })],
    ['metadata that are a string', fileOf({ __metadata__: 'x' })],
  ])('%s', (_, bytes) => {
    expect(() => parseSafetensors(bytes)).toThrow(expect.objectContaining({ code: 'model-malformed' }))
  })

  test('any damage to the header is refused or leaves a file of the same size', () => {
    const whole = Buffer.concat(
      encodeSafetensors({ metadata: {}, tensors: [{ name: 'w', shape: [2], data: Float32Array.of(1, 2) }] }),
    )
    fc.assert(
      fc.property(fc.nat({ max: whole.length - 9 }), fc.nat({ max: 255 }), (at, byte) => {
        const damaged = Buffer.from(whole)
        damaged[at] = byte
        try {
          const { tensors } = parseSafetensors(damaged)
          expect(tensors.map(({ data }) => [...data])).toEqual([[1, 2]])
        } catch (error) {
          expect(error).toMatchObject({ code: 'model-malformed' })
        }
      }),
    )
  })
})
