import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type NamedTensor, parseSafetensors, streamSafetensors, tableTensors, wholeTensor } from './safetensors.ts'

async function encoded(metadata: Readonly<Record<string, string>>, tensors: readonly NamedTensor[]): Promise<Buffer[]> {
  const parts: Buffer[] = []
  for await (const part of streamSafetensors(metadata, tensors.map(wholeTensor))) parts.push(Buffer.from(part))
  return parts
}

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

test('the bytes of a small file, as the format describes them', async () => {
  const tensors = [{ name: 'w', shape: [2, 1], data: Float32Array.of(1, -2) }]
  const [length, header, data] = await encoded({ version: '7' }, tensors)
  expect(Buffer.from(header!).toString().trimEnd()).toBe(
    '{"__metadata__":{"version":"7"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}',
  )
  expect(header!.length % 8).toBe(0)
  expect(Buffer.from(length!).readBigUInt64LE()).toBe(BigInt(header!.length))
  expect(Buffer.from(data!).toString('hex')).toBe('0000803f000000c0')
})

test('what is written is read, bit for bit and in order', async () => {
  const values = fc.array(fc.float(), { maxLength: 20 })
  const tensors = fc.uniqueArray(fc.record({ name: fc.string({ minLength: 1 }), values }), {
    selector: ({ name }) => name,
    maxLength: 6,
  })
  // JSON objects order names like "0" first, and one name is the format's own.
  const usable = tensors.filter((all) => all.every(({ name }) => !/^\d+$|^__/.test(name)))
  await fc.assert(
    fc.asyncProperty(usable, async (all) => {
      const file = {
        metadata: { job: 'j' },
        tensors: all.map(({ name, values }) => ({ name, shape: [values.length], data: Float32Array.from(values) })),
        ids: [],
      }
      expect(parseSafetensors(Buffer.concat(await encoded(file.metadata, file.tensors)))).toEqual(file)
    }),
  )
})

describe('tensors that come in pieces', () => {
  const blocks = [
    {
      table: 'users',
      width: 2,
      slots: ['sum'],
      ids: Uint32Array.of(4294967295, 3),
      values: Float32Array.of(1, 2, 9, 9, 3, 4, 9, 9),
    },
    { table: 'users', width: 2, slots: ['sum'], ids: Uint32Array.of(7), values: Float32Array.of(5, 6, 9, 9) },
  ]
  const written = async (rows: number): Promise<Buffer> => {
    const parts: Uint8Array[] = []
    const tensors = tableTensors({ name: 'users', width: 2, rows }, () => blocks)
    for await (const part of streamSafetensors({ version: '7' }, tensors)) parts.push(part)
    return Buffer.concat(parts)
  }

  test('a table is its ids and their values, without the state of the optimizer', async () => {
    const bytes = await written(3)
    const end = 8 + Number(bytes.readBigUInt64LE())
    expect(JSON.parse(bytes.toString('utf8', 8, end))).toEqual({
      __metadata__: { version: '7' },
      'users/ids': { dtype: 'U32', shape: [3], data_offsets: [0, 12] },
      'users/values': { dtype: 'F32', shape: [3, 2], data_offsets: [12, 36] },
    })
    const data = Uint8Array.from(bytes.subarray(end)).buffer
    expect([...new Uint32Array(data, 0, 3)]).toEqual([4294967295, 3, 7])
    expect([...new Float32Array(data, 12)]).toEqual([1, 2, 3, 4, 5, 6])
  })

  test('rows that are not as many as was said are a mistake', async () => {
    await expect(written(4)).rejects.toThrow('bytes of users/ids')
  })

  test('what is written in pieces is the same file', async () => {
    const data = Float32Array.of(1, -2, 3)
    const bytes = new Uint8Array(data.buffer)
    const parts: Uint8Array[] = []
    const content = (): Uint8Array[] => [bytes.subarray(0, 5), bytes.subarray(5)]
    for await (const part of streamSafetensors({ a: 'b' }, [{ name: 'w', dtype: 'F32', shape: [3], content }]))
      parts.push(part)
    const whole = await encoded({ a: 'b' }, [{ name: 'w', shape: [3], data }])
    expect(Buffer.concat(parts)).toEqual(Buffer.concat(whole))
  })
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

  test('any damage to the header is refused or leaves a file of the same size', async () => {
    const data = Float32Array.of(1, 2)
    const whole = Buffer.concat(await encoded({}, [{ name: 'w', shape: [2], data }]))
    fc.assert(
      fc.property(fc.nat({ max: whole.length - 9 }), fc.nat({ max: 255 }), (at, byte) => {
        const damaged = Buffer.from(whole)
        damaged[at] = byte
        try {
          const { tensors, ids } = parseSafetensors(damaged)
          expect([...tensors, ...ids].map((each) => Buffer.from(each.data.buffer))).toEqual([Buffer.from(data.buffer)])
        } catch (error) {
          expect(error).toMatchObject({ code: 'model-malformed' })
        }
      }),
    )
  })
})
