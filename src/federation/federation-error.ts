// SPDX-License-Identifier: Apache-2.0
/**
 * What can go wrong between a server and its workers. A refusal crosses the wire as code, message and hint, and the side
 * that was refused throws it again under the same code.
 */
import { CodedError } from '../errors.ts'

const codes = [
  // The join.
  'protocol-unsupported',
  'hello-malformed',
  'hello-late',
  'job-mismatch',
  'plan-mismatch',
  'worker-index-unknown',
  'worker-index-taken',
  'worker-index-forbidden',
  'worker-without-examples',
  // The model's tensors.
  'tensor-unknown',
  'tensor-missing',
  'tensor-shape-mismatch',
  'tensor-role-mismatch',
  'tensor-too-long',
  'slice-malformed',
  'slice-misplaced',
  'values-not-finite',
  // Tables.
  'row-out-of-range',
  'rows-malformed',
  'table-full',
  'table-mismatch',
  // A pull and a push.
  'pull-unknown',
  'pull-too-many',
  'push-duplicate',
  'push-late',
  'push-stale',
  'push-replaced',
  'push-examples-out-of-range',
  'loss-not-finite',
  'training-finished',
  // Scores.
  'scores-malformed',
  'scores-version-mismatch',
  'scores-late',
  // Several servers, and checkpoints.
  'version-mismatch',
  'server-rolled-back',
  'server-index-unknown',
  'placement-mismatch',
  'checkpoint-unusable',
  'servers-scattered',
  // The stream and its ends.
  'message-unexpected',
  'peer-lost',
  'worker-left',
  'workers-gone',
  'peers-unheard',
  'server-stopping',
  'server-unreachable',
  'refused-by-server',
] as const

export type FederationErrorCode = (typeof codes)[number]

export class FederationError extends CodedError<FederationErrorCode> {}

/** A refusal that came over the wire, as an error of this side. */
export function refusalFromPeer(refusal: { code: string; message: string; hint: string }): FederationError {
  const code = codes.find((known) => known === refusal.code)
  const [message, hint] = [claim(refusal.message), claim(refusal.hint)]
  return code === undefined
    ? new FederationError('refused-by-server', `${claim(refusal.code)}: ${message}`, { hint })
    : new FederationError(code, message, { hint })
}

/** What a peer says, fit for a line of a log: bounded, and without anything that would begin another line. */
export function claim(text: string): string {
  return text.slice(0, 500).replace(/\p{Cc}+/gu, ' ')
}
