// SPDX-License-Identifier: Apache-2.0
/**
 * Everything that a run may tell the outside: a closed list of events whose fields are counts, times, names and measured
 * scalars. No parameter, gradient, example, label or key fits in one; that is the point of the list.
 */
import type { PublicError } from '../errors.ts'

/** Units: times in ms or s as named, sizes in bytes. `step` counts updates of the model applied by the server. */
export type CloisterEvent =
  | { kind: 'process-started'; role: Role; engine: string; job: string; platform: string }
  | { kind: 'listening'; address: string }
  | { kind: 'metrics-served'; address: string }
  | { kind: 'progress'; activity: Activity; done: number; total: number }
  | { kind: 'peer-joined'; peer: string; evidence: PeerEvidence }
  | { kind: 'peer-left'; peer: string; reason: 'finished' | 'lost' | 'refused' | 'replaced'; error?: PublicError }
  | { kind: 'peer-refused'; address: string; error: PublicError }
  | { kind: 'connection-lost'; attempt: number; retryInMs: number; error: PublicError }
  | {
      kind: 'step'
      worker: number
      step: number
      examples: number
      loss: number
      iterationMs: number
      computeMs: number
      waitMs: number
    }
  | {
      kind: 'update'
      step: number
      examples: number
      loss: number
      learningRate: number
      staleness: number
      contributions: number
      applyMs: number
    }
  | { kind: 'update-refused'; worker: number; step: number; error: PublicError }
  | { kind: 'traffic'; peer: string; bytesSent: number; bytesReceived: number }
  | { kind: 'evaluation'; step: number; examples: number; scores: Readonly<Record<string, number>> }
  | { kind: 'saved'; what: 'model' | 'graph' | 'checkpoint' | 'result'; path: string; step: number }
  /** A checkpoint is on disk at every server; `bytes` and `ms` are this server's own. */
  | { kind: 'checkpointed'; step: number; bytes: number; ms: number }
  | { kind: 'resumed'; step: number }
  /** A shard of the training data is computed by another worker from now on. */
  | { kind: 'reassigned'; shard: number; from: number; to: number }
  | { kind: 'exported'; path: string; form: 'sealed' | 'plain' | 'age'; recipients: number }
  /** An owner must run `cloister provision` with this address. */
  | { kind: 'key-awaited'; name: string; address: string }
  | { kind: 'key-provisioned'; name: string; owner: string }
  | { kind: 'warning'; error: PublicError }
  | { kind: 'failed'; error: PublicError }
  | { kind: 'finished'; steps: number; examples: number; seconds: number }

export type Role = 'server' | 'worker' | 'train'
export type Activity = 'fetch-engine' | 'fetch-data' | 'prepare-data' | 'trace' | 'train' | 'evaluate' | 'save'

/** What was proven about a peer, in words: what an operator and the audit record see. */
export interface PeerEvidence {
  readonly platform: string
  readonly mrEnclave?: string
  readonly mrSigner?: string
  readonly tcbStatus?: string
  readonly advisories?: readonly string[]
  readonly detail: string
  /** Of the quote that it was let in by, hex, and the name under which that is kept in the run's `evidence/`. */
  readonly quoteSha256?: string
  readonly file?: string
}

/** Given to whatever may report; writing an event must never throw. */
export type EventSink = (event: CloisterEvent) => void
