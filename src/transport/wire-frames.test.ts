import { describe, expect, test } from 'vitest'
import { reasonFor, TransportError } from './transport-error.ts'
import { creditFrame, creditOf, endFrame, heartbeatFrame, messageCost, reasonOf, wireDecoder } from './wire-frames.ts'

function payloadOf(frame: Buffer): Uint8Array {
  const [only, ...others] = [...wireDecoder(1000).push(frame)]
  expect(others).toEqual([])
  return only!.payload
}

describe('as docs/protocol.md writes them', () => {
  test.each([
    ['heartbeat', heartbeatFrame, '1200000000'],
    ['credit of 16 MiB', creditFrame(2 ** 24), '130000000401000000'],
    ['an orderly end', endFrame(undefined), '1100000000'],
    ['an end with a reason', endFrame({ code: 'a', message: 'b' }), '1100000004613a2062'],
  ])('%s', (_name, frame, hex) => {
    expect(frame.toString('hex')).toBe(hex)
  })

  test('a message costs its bytes and 256', () => {
    expect([messageCost(0), messageCost(1000)]).toEqual([256, 1256])
  })
})

describe('credit', () => {
  test.each([0, 1, 65_536, 0xffff_ffff])('%i there and back', (bytes) => {
    expect(creditOf(payloadOf(creditFrame(bytes)))).toBe(bytes)
  })

  test.each([0, 1, 3])('of %i bytes is refused', (length) => {
    expect(() => creditOf(new Uint8Array(length))).toThrowError(expect.objectContaining({ code: 'message-malformed' }))
  })
})

describe('reasons', () => {
  test('there and back, cut to what a frame holds', () => {
    const reason = { code: 'update-refused', message: 'expected ≤ 3 %, got ☺: no' }
    expect(reasonOf(payloadOf(endFrame(reason)))).toEqual(reason)
    expect(reasonOf(payloadOf(endFrame({ code: 'long', message: 'x'.repeat(5000) })))?.message).toHaveLength(1024)
    expect(reasonOf(payloadOf(endFrame(undefined)))).toBeUndefined()
  })

  test.each(['no colon', 'Bad Code: x', `${'x'.repeat(65)}: y`, ': y', '-a: y', '\u0000'])('%j is none', (text) => {
    expect(reasonOf(Buffer.from(text))).toEqual({ code: 'reason-unreadable', message: '' })
  })

  test('invalid UTF-8 is shown as such', () => {
    expect(reasonOf(Buffer.from('613a20ff', 'hex'))).toEqual({ code: 'a', message: '\ufffd' })
  })

  test('a message from the peer is one bounded line without control characters', () => {
    const { message } = reasonOf(Buffer.from(`a: ok\n2026 forged\u001b[2J\u202e\u2028${'x'.repeat(5000)}`))!
    expect(message).toHaveLength(1024)
    expect(message).toMatch(/^ok�2026 forged�\[2J��x+$/)
  })

  test('of a bug the peer learns only that there is one', () => {
    const bug = new Error('ENOENT: /secret/path')
    expect(JSON.stringify(reasonFor(bug))).not.toContain('secret')
    expect(reasonFor(new TransportError('message-too-large', 'a', { cause: bug }))).toEqual({
      code: 'message-too-large',
      message: 'a',
    })
  })
})
