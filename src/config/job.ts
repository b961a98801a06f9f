// SPDX-License-Identifier: Apache-2.0
/**
 * A job is what all parties agree on: model, data schema, partition, training. Its digest is SHA-256 over its canonical
 * JSON (RFC 8785); every peer states the digest when it connects and is refused on any difference. Nothing that one host
 * decides (paths, addresses, threads) belongs here: that is deployment.ts.
 */
import { createHash } from 'node:crypto'
import canonicalize from 'canonicalize'
import * as v from 'valibot'
import { policySchema } from '../attestation/policy-format.ts'
import { imageClassificationFields } from './image-classification.ts'
import { count, countOrZero } from './numbers.ts'
import { recommendationFields } from './recommendation.ts'
import { trainingSchema } from './training.ts'

/** What becomes of the final model, and in which form it reaches the host's disk. */
const release = v.variant('form', [
  v.strictObject({ form: v.literal('plain') }),
  /** Readable by this enclave only. */
  v.strictObject({ form: v.literal('sealed') }),
  /** Encrypted to these owners: the `age` tool opens it with their identities. */
  v.strictObject({
    form: v.literal('age'),
    recipients: v.pipe(v.array(v.pipe(v.string(), v.regex(/^age1[0-9a-z]{58}$/, 'expected age1…'))), v.minLength(1)),
  }),
])

/** The same for every workload. */
const commonFields = {
  $schema: v.optional(v.string()),
  /** Every random choice of the run derives from it: initial values, partition, order, augmentation. */
  seed: v.optional(countOrZero, 1),
  /** Parameter servers: big tables are split among them by rows, dense tensors placed by size. */
  servers: v.optional(v.pipe(count, v.maxValue(256)), 1),
  workers: v.pipe(count, v.maxValue(1024)),
  /** Who may take part: server and workers judge each other by it. `cloister simulate` adds its own where it is absent. */
  admission: v.optional(policySchema),
  training: trainingSchema,
  /**
   * What seals checkpoints: a key that only this very code gets on this machine, one that any code of its signer gets there, or
   * one that an owner provisions and that works on any machine.
   */
  checkpoints: v.optional(
    v.strictObject({ key: v.optional(v.picklist(['mrenclave', 'mrsigner', 'provisioned']), 'mrenclave') }),
    { key: 'mrenclave' },
  ),
  /** A server that comes back older than a checkpoint it told workers of is refused, unless all parties accept that here. */
  rollback: v.optional(v.picklist(['refuse', 'accept']), 'refuse'),
  release: v.optional(release, { form: 'plain' }),
  /** Who may provision keys to the enclaves: Ed25519 public keys, base64. */
  owners: v.optional(
    v.pipe(
      v.array(v.pipe(v.string(), v.regex(/^[A-Za-z0-9+/]{43}=$/, 'expected 32 bytes in base64'))),
      v.maxLength(64),
    ),
    [],
  ),
}

export const jobSchema = v.variant('workload', [
  v.strictObject({ ...commonFields, ...imageClassificationFields }),
  v.strictObject({ ...commonFields, ...recommendationFields }),
])

export type Job = v.InferOutput<typeof jobSchema>
export type ImageClassificationJob = Extract<Job, { workload: 'image-classification' }>
export type RecommendationJob = Extract<Job, { workload: 'recommendation' }>

/** SHA-256 over the RFC 8785 form of the job with all defaults filled in, 32 bytes. */
export function jobDigest(job: Job): Uint8Array {
  const { $schema: _, ...agreed } = job
  const text = canonicalize(agreed)
  if (text === undefined) throw new TypeError('a parsed job always has a canonical form')
  return createHash('sha256').update(text).digest()
}
