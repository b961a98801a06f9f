// SPDX-License-Identifier: Apache-2.0
/** What the commands need of a workload: its model and its data. To add one: a file here and a line in wiring.ts. */
import type { Dataset } from '../../data/dataset.ts'
import type { PreparationServer, PreparationWorker } from '../../federation/preparation.ts'
import type { Model } from '../../models/model.ts'
import type { EventSink } from '../../observability/events.ts'

export interface Workload {
  /** From the job alone: what a server knows too. */
  createModel(): Model
  /** Rows of its tables that one server holds at most. */
  readonly maximumRows?: number
  /** What data must agree on before training. */
  readonly preparation?: () => PreparationServer
  /** Where a run on this machine takes its data from; ready to be opened by several processes. */
  locate(options: DataOptions): Promise<{ readonly directory: string; readonly dataSource: string }>
  open(directory: string, options: OpenOptions): Promise<OpenedData>
}

export interface DataOptions {
  /** `--data` or CLOISTER_DATA. */
  readonly directory: string | undefined
  /** Of this user: downloads and what is made of data once. */
  readonly cacheDirectory: string
  readonly events: EventSink
  readonly signal: AbortSignal
}

export interface OpenOptions extends Omit<DataOptions, 'directory'> {
  /** What opens files that their owner encrypted; waits for the owner. */
  readonly identities: () => Promise<readonly string[]>
}

export interface OpenedData {
  readonly training: Dataset
  readonly heldOut: Dataset
  /** `synthetic` is in it where the data are. */
  readonly dataSource: string
  /** For who trains on these of the training examples. */
  readonly preparation?: (examples: Uint32Array) => PreparationWorker
  close(): Promise<void>
}
