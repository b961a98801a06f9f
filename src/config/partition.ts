// SPDX-License-Identifier: Apache-2.0
/** Who holds which examples: data/partition.ts says what each scheme means. */
import * as v from 'valibot'
import { count, positive } from './numbers.ts'

export const partitionSchema = v.variant('scheme', [
  v.strictObject({ scheme: v.literal('iid') }),
  /** In the order of the files: by days, where a file is a day. */
  v.strictObject({ scheme: v.literal('contiguous') }),
  v.strictObject({ scheme: v.literal('dirichlet'), alpha: positive }),
  v.strictObject({ scheme: v.literal('dirichlet-by-class'), alpha: positive }),
  v.strictObject({ scheme: v.literal('by-label'), piecesPerWorker: v.optional(count, 2) }),
  v.strictObject({ scheme: v.literal('by-size'), proportions: v.array(positive) }),
  /** Every worker's data directory is its shard, whole: the case of real data owners. */
  v.strictObject({ scheme: v.literal('own') }),
])

export type PartitionOptions = v.InferOutput<typeof partitionSchema>
