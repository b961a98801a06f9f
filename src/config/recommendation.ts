// SPDX-License-Identifier: Apache-2.0
/** The fields that are recommendation's own: DLRM (Naumov et al. 2019) on click logs in Criteo's format. */
import * as v from 'valibot'
import { count, countOrZero, positive } from './numbers.ts'
import { partitionSchema } from './partition.ts'

const width = v.pipe(count, v.maxValue(65_536))
const widths = v.pipe(v.array(width), v.maxLength(32))
/** Every column owns a range of row ids of this size in one table. */
const valuesPerColumn = v.pipe(count, v.maxValue(2 ** 26))

/** How a categorical value becomes a row of the embedding table; docs/data.md says what each choice gives away. */
const categories = v.variant('scheme', [
  v.strictObject({
    scheme: v.literal('vocabulary'),
    /** Values in fewer rows than this, over all owners, share the out-of-vocabulary row. */
    minimumCount: v.optional(count, 4),
    /** Values that fewer owners than this hold share it too, so that no one's own values are told to others. */
    minimumOwners: v.optional(count, 1),
    /** Most values of one column, the commonest; the rest is out of vocabulary. */
    maximumValues: v.optional(valuesPerColumn, 1_000_000),
  }),
  v.strictObject({ scheme: v.literal('hash'), buckets: valuesPerColumn }),
])

const heldOut = v.strictObject({
  /** Rows in the order of the files: the first ones, the last ones, or drawn by the job's seed. */
  scheme: v.optional(v.picklist(['first', 'last', 'random']), 'first'),
  fraction: v.optional(v.pipe(v.number(), v.gtValue(0), v.ltValue(1)), 1 / 7),
})

export const recommendationFields = {
  workload: v.literal('recommendation'),
  model: v.strictObject({
    name: v.literal('dlrm'),
    /** Width of an embedding and of the bottom network's output. */
    embeddingWidth: v.optional(width, 16),
    /** Hidden layers of the bottom network; one of `embeddingWidth` follows. */
    bottom: v.optional(widths, [512, 256, 64]),
    /** Hidden layers of the top network; one of width 1, the logit, follows. */
    top: v.optional(widths, [512, 256]),
    /** Embeddings start uniform in ± this. */
    embeddingScale: v.optional(positive, 0.05),
  }),
  data: v.strictObject({
    name: v.literal('criteo'),
    /** `log`: log(1 + x); `standardised`: minus the mean, over the standard deviation, of all owners' rows. */
    dense: v.optional(v.picklist(['log', 'standardised']), 'log'),
    categories: v.optional(categories, {
      scheme: 'vocabulary',
      minimumCount: 4,
      minimumOwners: 1,
      maximumValues: 1_000_000,
    }),
    heldOut: v.optional(heldOut, { scheme: 'first', fraction: 1 / 7 }),
    partition: v.optional(partitionSchema, { scheme: 'iid' }),
    /** Lines that are left out because they are malformed; one more and the data set is refused. */
    malformedLines: v.optional(countOrZero, 0),
  }),
  /** Rows that one server holds at most; it refuses what would make more. */
  tables: v.optional(v.strictObject({ maximumRows: v.optional(count, 40_000_000) }), { maximumRows: 40_000_000 }),
}
