// SPDX-License-Identifier: Apache-2.0
/** HTTP/2 settings of both sides, bounded against a hostile peer. */
import type { SessionOptions } from 'node:http2'
import type { TransportLimits } from './limits.ts'

const maxHeaderListBytes = 16_384
/** DATA frames of up to 1 MiB: a sixty-fourth of the default's frame headers and callbacks. */
const maxFrameBytes = 2 ** 20

export function http2Options(limits: TransportLimits, maxConcurrentStreams = 0): SessionOptions {
  return {
    // In MB. Node refuses the peer's headers, even trailers, while more than this is queued for either direction.
    maxSessionMemory: Math.ceil(
      (limits.sendBufferBytes + limits.maxMessageBytes + limits.sessionWindowBytes + 16 * 2 ** 20) / 1e6,
    ),
    maxHeaderListPairs: 64,
    maxOutstandingPings: 4,
    maxSettings: 16,
    settings: {
      enablePush: false,
      initialWindowSize: limits.streamWindowBytes,
      maxFrameSize: maxFrameBytes,
      maxHeaderListSize: maxHeaderListBytes,
      maxConcurrentStreams,
    },
  }
}
