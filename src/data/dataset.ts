// SPDX-License-Identifier: Apache-2.0
/** What a data set is to the rest of Cloister: numbered examples that are read in batches of a fixed schema. */
import { CodedError } from '../errors.ts'
import type { BatchSchema, DataType } from '../models/model.ts'

/** What is wrong with data at hand; what goes wrong with fetching them is a FetchError. */
export class DataError extends CodedError<
  | 'data-missing'
  | 'data-unreadable'
  | 'data-truncated'
  | 'data-oversized'
  | 'data-changed'
  | 'data-exists'
  | 'data-malformed'
  | 'data-empty'
  | 'data-cache-damaged'
  | 'contribution-malformed'
  | 'preparation-malformed'
  | 'vocabulary-full'
  | 'label-out-of-range'
  | 'shard-empty'
  | 'partition-invalid'
  | 'partition-mismatch'
> {}

/** One field of a batch in JavaScript memory; `shape` begins with the number of rows. */
export interface BatchTensor {
  readonly shape: readonly number[]
  readonly dtype: DataType
  readonly data: Float32Array | Int32Array | Uint8Array
}

export type Batch = Readonly<Record<string, BatchTensor>>

export interface Dataset {
  readonly name: string
  readonly examples: number
  readonly schema: BatchSchema
  /** Names of the classes; a label is an index into it. */
  readonly classes: readonly string[]
  /** Of all examples, in order: what partitions are made from. */
  labels(): Promise<Uint8Array>
  /** Rows in the order asked for; an index may repeat. */
  read(indices: ArrayLike<number>): Promise<Batch>
  close(): Promise<void>
}
