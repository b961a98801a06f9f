import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeFrame, FrameDecoder } from './frame.ts'

/** Cuts `bytes` at the given places, as a network may. */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const cuts = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...cuts].map((from, index) => bytes.subarray(from, cuts[index] ?? bytes.length))
}

const type = 16

function decodeAll(decoder: FrameDecoder, chunks: readonly Uint8Array[]): Uint8Array[] {
  return chunks.flatMap((chunk) => [...decoder.push(chunk)].map(({ payload }) => Uint8Array.from(payload)))
}

function frame(...payloads: Uint8Array[]): Buffer {
  return Buffer.concat(payloads.map((payload) => encodeFrame(type, [payload], 2 ** 20)))
}

function decoderOf(maxBytes: number): FrameDecoder {
  return new FrameDecoder((got) => (got === type ? maxBytes : undefined))
}

describe('frames', () => {
  test('header: type, length big-endian', () => {
    expect(frame(Buffer.from('abc')).toString('hex')).toBe('1000000003616263')
    expect(frame(new Uint8Array(0x010203)).subarray(0, 5).toString('hex')).toBe('1000010203')
  })

  test('each type has its own bound, and comes with its payload', () => {
    const bounds = new Map([
      [1, 3],
      [200, 0],
    ])
    const decoder = new FrameDecoder((got) => bounds.get(got))
    const frames = [...decoder.push(Buffer.concat([encodeFrame(200, [], 0), encodeFrame(1, [Buffer.from('abc')], 3)]))]
    expect(frames.map(({ type: got, payload }) => [got, String(payload)])).toEqual([
      [200, ''],
      [1, 'abc'],
    ])
    expect(() => [...decoder.push(encodeFrame(200, [Buffer.from('a')], 1))]).toThrowError(
      expect.objectContaining({ code: 'message-too-large' }),
    )
  })

  test('pieces become one message, which does not change with them', () => {
    const [first, second] = [Buffer.from('ab'), Buffer.alloc(100_000, 'c')]
    const whole = encodeFrame(type, [first, new Uint8Array(), second], 100_002)
    second.fill('d')
    expect(Buffer.compare(whole, frame(Buffer.from(`ab${'c'.repeat(100_000)}`)))).toBe(0)
    expect(() => encodeFrame(type, [first, second], 100_001)).toThrowError(
      expect.objectContaining({ code: 'message-too-large', message: expect.stringContaining('100002') }),
    )
  })

  test('any messages, cut anywhere, come out as they went in', () => {
    const aroundTheJoin = fc.integer({ min: 16_380, max: 16_390 }).map((size) => new Uint8Array(size).fill(size))
    const payload = fc.oneof(fc.uint8Array({ maxLength: 40 }), aroundTheJoin)
    fc.assert(
      fc.property(fc.array(payload, { maxLength: 8 }), fc.array(fc.nat(), { maxLength: 20 }), (payloads, places) => {
        const decoder = decoderOf(20_000)
        const decoded = decodeAll(decoder, cut(frame(...payloads), places))
        expect(decoded.map(({ length }) => length)).toEqual(payloads.map(({ length }) => length))
        expect(Buffer.compare(Buffer.concat(decoded), Buffer.concat(payloads))).toBe(0)
        decoder.end()
      }),
      { numRuns: 200 },
    )
  })
})

describe('hostile frames', () => {
  test('a length above the bound is refused from the header alone', () => {
    const header = Buffer.from('10ffffffff', 'hex')
    expect(() => [...decoderOf(1000).push(header)]).toThrowError(
      expect.objectContaining({ code: 'message-too-large', message: expect.stringContaining('4294967295') }),
    )
    expect([...decoderOf(3).push(frame(new Uint8Array(3)))]).toHaveLength(1)
    expect(() => [...decoderOf(3).push(frame(new Uint8Array(4)))]).toThrowError(
      expect.objectContaining({ code: 'message-too-large' }),
    )
  })

  test.each([0, 1, 15, 17, 0x80, 0xff])('type %i, which has no place here, is refused', (other) => {
    expect(() => [...decoderOf(1000).push(Uint8Array.of(other, 0, 0, 0, 0))]).toThrowError(
      expect.objectContaining({ code: 'message-malformed' }),
    )
  })

  test('an end inside a message is an error at every byte', () => {
    const whole = frame(Buffer.from('first'), new Uint8Array(20))
    for (let length = 0; length <= whole.length; length++) {
      const decoder = decoderOf(100)
      decodeAll(decoder, [whole.subarray(0, length)])
      const atBoundary = length === 0 || length === 10 || length === whole.length
      if (atBoundary) decoder.end()
      else expect(() => decoder.end()).toThrowError(expect.objectContaining({ code: 'message-truncated' }))
    }
  })

  test('messages before a bad one are given first', () => {
    const got: number[] = []
    const chunk = Buffer.concat([frame(Uint8Array.of(7), Uint8Array.of(8)), Buffer.from('0100000000', 'hex')])
    expect(() => {
      for (const { payload } of decoderOf(10).push(chunk)) got.push(payload[0]!)
    }).toThrowError(expect.objectContaining({ code: 'message-malformed' }))
    expect(got).toEqual([7, 8])
  })

  test('garbage gives messages within the bound or a coded error, and nothing else', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 10 }), (chunks) => {
        const decoder = decoderOf(50)
        try {
          for (const message of decodeAll(decoder, chunks)) expect(message.length).toBeLessThanOrEqual(50)
          decoder.end()
        } catch (error) {
          expect(['message-too-large', 'message-malformed', 'message-truncated']).toContain(
            (error as { code: string }).code,
          )
        }
      }),
      { numRuns: 500 },
    )
  })
})
