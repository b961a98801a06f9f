// SPDX-License-Identifier: Apache-2.0
/** Messages to bytes and back, by their protobuf descriptors. */
import {
  type DescMessage,
  type DescMethod,
  type DescMethodBiDiStreaming,
  fromBinary,
  type MessageShape,
} from '@bufbuild/protobuf'
import { encodePieces } from './encode.ts'
import { TransportError } from './transport-error.ts'

export interface Codec<Outgoing, Incoming> {
  /** Pieces of one message; views of it where it holds much. */
  encode(message: Outgoing): readonly Uint8Array[]
  decode(bytes: Uint8Array): Incoming
}

export function clientCodec<I extends DescMessage, O extends DescMessage>(
  method: DescMethodBiDiStreaming<I, O>,
): Codec<MessageShape<I>, MessageShape<O>> {
  return codec(method.input, method.output)
}

export function serverCodec<I extends DescMessage, O extends DescMessage>(
  method: DescMethodBiDiStreaming<I, O>,
): Codec<MessageShape<O>, MessageShape<I>> {
  return codec(method.output, method.input)
}

export function codec<Out extends DescMessage, In extends DescMessage>(
  outgoing: Out,
  incoming: In,
): Codec<MessageShape<Out>, MessageShape<In>> {
  return {
    encode: (message) => encodePieces(outgoing, message),
    decode: (bytes) => {
      try {
        // Unknown fields are dropped: keeping them would let a peer fill our memory with what nobody reads.
        return fromBinary(incoming, bytes, { readUnknownFields: false })
      } catch (cause) {
        throw new TransportError('message-malformed', `expected a ${incoming.typeName}, got bytes that are none`, {
          cause,
        })
      }
    },
  }
}

export function methodPath(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`
}
