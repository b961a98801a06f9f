// SPDX-License-Identifier: Apache-2.0
/** A server's state as its checkpoints hold it, and back: everything that training needs to go on with the same numbers. */
import * as v from 'valibot'
import type { PeerEvidence } from '../observability/events.ts'
import type { RowsBlock } from '../storage/rows-block.ts'
import type { Capture } from './embedding-table.ts'
import { FederationError } from './federation-error.ts'
import type { Snapshot } from './model-state.ts'
import type { WorkerSummary } from './server-options.ts'
import type { TensorSet } from './tensor-set.ts'

/** Implemented by storage/checkpoint-store.ts. */
export interface Checkpoints {
  /** Of intact ones, ascending. */
  readonly steps: readonly number[]
  /** The newest step of which it was said that every server has it on disk; 0 when there is none. */
  readonly durableStep: number
  declareDurable(step: number): Promise<void>
  write(content: CheckpointContent): Promise<{ readonly path: string; readonly bytes: number }>
  read(step: number): Promise<SavedCheckpoint>
  /** Newer ones belong to a past that did not happen. */
  discardAfter(step: number): Promise<void>
}

export interface CheckpointContent {
  readonly step: number
  readonly since?: number | undefined
  readonly header: unknown
  readonly tensors: readonly { readonly name: string; readonly shape: readonly number[]; readonly data: Float32Array }[]
  readonly blobs: ReadonlyMap<string, Uint8Array>
  readonly rows: Iterable<RowsBlock>
}

export interface SavedCheckpoint extends Omit<CheckpointContent, 'rows' | 'since'> {
  readonly rows: AsyncIterable<RowsBlock>
}

/** Besides the model. */
export interface Progress {
  /** Updates of this server's part of the model. */
  readonly version: number
  /** In applied updates. */
  readonly examples: number
  readonly seconds: number
  /** Of each data shard, the next batch. */
  readonly positions: readonly number[]
  readonly planDigest: Uint8Array | undefined
  readonly workers: readonly WorkerSummary[]
  /** What was agreed before training. */
  readonly prepared: Uint8Array | undefined
  /** How far the audit log had come: one that ends before it was cut. */
  readonly auditHead: AuditHead | undefined
}

export interface AuditHead {
  readonly index: number
  readonly hash: string
}

export interface RestoredModel {
  readonly version: number
  readonly values: ReadonlyMap<string, Float32Array>
  readonly slots: ReadonlyMap<string, ReadonlyMap<string, Float32Array>>
}

export function contentOf(
  { snapshot, capture, since }: { snapshot: Snapshot; capture: Capture; since: number | undefined },
  step: number,
  progress: Progress,
): CheckpointContent {
  const { prepared, planDigest, ...header } = progress
  const tensors = [
    ...tensorsOf('parameter', snapshot.parameters),
    ...[...snapshot.slots].flatMap(([slot, set]) => tensorsOf(`slot/${slot}`, set)),
  ]
  return {
    step,
    since,
    header: { ...header, planDigest: planDigest && Buffer.from(planDigest).toString('hex') },
    tensors,
    blobs: new Map(prepared === undefined ? [] : [['prepared', prepared]]),
    rows: capture.blocks(),
  }
}

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const headerSchema = v.strictObject({
  version: count,
  examples: count,
  seconds: v.number(),
  positions: v.array(count),
  planDigest: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))),
  auditHead: v.optional(v.strictObject({ index: count, hash: v.string() })),
  workers: v.array(
    v.object({ worker: count, name: v.string(), evidence: v.unknown(), examples: count, dataSource: v.string() }),
  ),
})

export function progressOf({ header, blobs, step }: Pick<SavedCheckpoint, 'header' | 'blobs' | 'step'>): Progress {
  const parsed = v.safeParse(headerSchema, header)
  if (!parsed.success) {
    throw new FederationError('checkpoint-unusable', `checkpoint ${step}: expected our header, got another`, {
      hint: 'It was written by another version of Cloister: go on with that one, or begin anew in another directory.',
    })
  }
  const { auditHead, planDigest, workers, ...rest } = parsed.output
  return {
    ...rest,
    planDigest: planDigest === undefined ? undefined : Buffer.from(planDigest, 'hex'),
    // Sealed by this code: what it says is what was written.
    workers: workers.map((worker) => ({ ...worker, evidence: worker.evidence as PeerEvidence })),
    prepared: blobs.get('prepared'),
    auditHead,
  }
}

export function modelOf({ tensors }: Pick<SavedCheckpoint, 'tensors'>, version: number): RestoredModel {
  const values = new Map<string, Float32Array>()
  const slots = new Map<string, Map<string, Float32Array>>()
  for (const { name, data } of tensors) {
    const [kind, slot, ...rest] = name.split('/') as [string, string, ...string[]]
    if (kind === 'parameter') values.set([slot, ...rest].join('/'), data)
    else {
      const of = slots.get(slot) ?? new Map<string, Float32Array>()
      slots.set(slot, of.set(rest.join('/'), data))
    }
  }
  return { version, values, slots }
}

function tensorsOf(prefix: string, { manifest, tensors }: TensorSet): CheckpointContent['tensors'] {
  return manifest.map(({ name, shape }, index) => ({ name: `${prefix}/${name}`, shape, data: tensors[index]! }))
}
