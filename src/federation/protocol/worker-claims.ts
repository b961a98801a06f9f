// SPDX-License-Identifier: Apache-2.0
/** What a worker says of itself and of its scores, checked for form: a hello, and sums. Everything here is the worker's word. */
import { claim, FederationError } from '../federation-error.ts'
import type { Sums } from '../metrics.ts'
import type { Hello as WireHello, Scores as WireScores } from './gen/cloister/v1/federation_pb.ts'
import { digestBytes, protocolVersion, sessionBytes } from './messages.ts'

/** Names in one worker's scores; models have a handful. */
const maxScores = 64
const maxHistogramClasses = 1 << 16
/** Reports stay short, whoever writes them. */
const maxDataSourceCharacters = 32

export interface Hello {
  readonly jobDigest: Uint8Array
  readonly planDigest: Uint8Array
  readonly worker: number
  readonly examples: number
  readonly session: Uint8Array
  /** What the worker found its data to be; for reports only. */
  readonly dataSource: string
  /** Which server of the job is meant. */
  readonly server: number
  readonly placementDigest: Uint8Array
}

/** A worker's first message, in form. */
export function parseHello(hello: WireHello): Hello {
  verifyProtocol(hello.protocol)
  verifyLength('the job digest', hello.jobDigest, digestBytes)
  verifyLength('the data-plan digest', hello.planDigest, digestBytes)
  verifyLength('the session', hello.session, sessionBytes)
  verifyLength('the placement digest', hello.placementDigest, digestBytes)
  verifyShort('the data source', hello.dataSource, maxDataSourceCharacters)
  return hello
}

export function verifyProtocol(protocol: number): void {
  if (protocol === protocolVersion) return
  throw new FederationError('protocol-unsupported', `expected protocol version ${protocolVersion}, got ${protocol}`, {
    hint: 'Server and workers must run the same version of Cloister.',
  })
}

export function verifiedSums({ sums, histograms }: WireScores): Sums {
  const refuse = (expected: string, got: string): never => {
    throw new FederationError('scores-malformed', `expected ${expected}, got ${got}`, {
      hint: 'The worker does not follow the protocol, or its model scored with values that are not numbers.',
    })
  }
  const [scalars, classes] = [Object.entries(sums), Object.entries(histograms)]
  if (scalars.length + classes.length > maxScores)
    refuse(`at most ${maxScores} sums`, `${scalars.length + classes.length}`)
  for (const [name, sum] of scalars) if (!Number.isFinite(sum)) refuse(`${claim(name)} to be finite`, `${sum}`)
  for (const [name, { counts }] of classes) {
    if (counts.length > maxHistogramClasses) refuse(`at most ${maxHistogramClasses} classes`, `${counts.length}`)
    if (!counts.every((count) => Number.isFinite(count) && count >= 0))
      refuse(`${claim(name)} to count`, 'another number')
  }
  return { ...sums, ...Object.fromEntries(classes.map(([name, { counts }]) => [name, Float64Array.from(counts)])) }
}

function verifyShort(what: string, text: string, most: number): void {
  if (text.length <= most) return
  throw new FederationError('hello-malformed', `${what}: expected at most ${most} characters, got ${text.length}`, {
    hint: 'The worker does not follow the protocol: compare its version with ours.',
  })
}

function verifyLength(what: string, bytes: Uint8Array, expected: number): void {
  if (bytes.length === expected) return
  throw new FederationError('hello-malformed', `${what}: expected ${expected} bytes, got ${bytes.length}`, {
    hint: 'The peer does not follow the protocol: compare its version with ours.',
  })
}
