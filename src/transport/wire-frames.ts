// SPDX-License-Identifier: Apache-2.0
/**
 * What two authenticated peers write to each other: docs/protocol.md, section 6. The types differ from those of the
 * attestation exchange before (ratls/frame-socket.ts), so that no frame of one can be taken for one of the other.
 */
import { encodeFrame, FrameDecoder } from './frame.ts'
import { type CloseReason, TransportError } from './transport-error.ts'

export const frameTypes = {
  /** One protobuf message. */
  message: 16,
  /** The last of its sender but for `credit` and `heartbeat`; with a payload, the reason: `code: message` in UTF-8. */
  end: 17,
  /** Empty: the sender lives. */
  heartbeat: 18,
  /** How many bytes more, uint32, the receiver of this frame may send as messages (`messageCost`). The first is the window. */
  credit: 19,
} as const

const maxReasonBytes = 2048
/** Even an empty message costs its receiver memory while it waits to be read. */
const messageOverheadBytes = 256

/** What a message of so many bytes takes of the credit. */
export function messageCost(payloadBytes: number): number {
  return messageOverheadBytes + payloadBytes
}

export function wireDecoder(maxMessageBytes: number): FrameDecoder {
  const maxBytes: Readonly<Record<number, number>> = {
    [frameTypes.message]: maxMessageBytes,
    [frameTypes.end]: maxReasonBytes,
    [frameTypes.heartbeat]: 0,
    [frameTypes.credit]: 4,
  }
  return new FrameDecoder((type) => maxBytes[type])
}

export const heartbeatFrame = encodeFrame(frameTypes.heartbeat, [], 0)

export function creditFrame(bytes: number): Buffer {
  const payload = Buffer.alloc(4)
  payload.writeUInt32BE(bytes)
  return encodeFrame(frameTypes.credit, [payload], 4)
}

export function creditOf(payload: Uint8Array): number {
  if (payload.length !== 4)
    throw new TransportError('message-malformed', `expected 4 bytes of credit, got ${payload.length}`)
  return Buffer.from(payload).readUInt32BE()
}

export function endFrame(reason: CloseReason | undefined): Buffer {
  const text = reason === undefined ? '' : `${reason.code}: ${reason.message}`
  return encodeFrame(frameTypes.end, [Buffer.from(text).subarray(0, maxReasonBytes)], maxReasonBytes)
}

/** Undefined when the peer ended without complaint. */
export function reasonOf(payload: Uint8Array): CloseReason | undefined {
  if (payload.length === 0) return undefined
  const text = Buffer.from(payload).toString('utf8')
  const [, code, message] = /^([a-z][a-z0-9-]{0,63}): (.*)$/su.exec(text) ?? []
  return code === undefined ? cleanReason('reason-unreadable') : cleanReason(code, message)
}

const maxMessageCharacters = 1024

/** One line without control characters, so that a peer cannot forge lines of a log or drive a terminal. */
export function cleanReason(code: string, message = ''): CloseReason {
  return { code, message: message.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd').slice(0, maxMessageCharacters) }
}
