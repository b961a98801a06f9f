// SPDX-License-Identifier: Apache-2.0
/** What one process offers to whoever watches it besides its log: metrics and TensorBoard's file, as its deployment says. */
import { join } from 'node:path'
import type { Deployment } from '../config/deployment.ts'
import { CodedError, publicError } from '../errors.ts'
import type { CloisterEvent, EventSink } from '../observability/events.ts'
import { openTensorboardLog } from '../observability/tensorboard.ts'
import { serveMetrics } from './metrics-server.ts'

export class WatchError extends CodedError<'tensorboard-unwritable'> {}

export interface WatchOptions {
  readonly deployment: Deployment
  /** Run directory. */
  readonly directory: string
  readonly source: string
  readonly now: () => Date
  readonly events: EventSink
}

export interface Watch {
  emit(source: string, event: CloisterEvent): void
  /** A serialised GraphDef. */
  showGraph(definition: Uint8Array): void
  close(): Promise<void>
}

export async function openWatch(options: WatchOptions): Promise<Watch> {
  const { deployment, directory, source, now, events } = options
  const metrics = deployment.metrics && (await serveMetrics({ ...deployment.metrics, now }))
  if (metrics !== undefined) events({ kind: 'metrics-served', address: metrics.address })
  const tensorboard = deployment.tensorboard
    ? openTensorboardLog({
        directory: join(directory, 'tensorboard', source),
        now,
        onFailure: (cause) => events({ kind: 'warning', error: publicError(unwritable(cause)) }),
      })
    : undefined
  return {
    emit(from, event) {
      metrics?.observe(from, event)
      tensorboard?.emit(event)
    },
    showGraph: (definition) => tensorboard?.graph(definition),
    async close() {
      tensorboard?.close()
      await metrics?.close()
    },
  }
}

function unwritable(cause: unknown): WatchError {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new WatchError('tensorboard-unwritable', `expected to write TensorBoard's event file, got: ${reason}`, {
    hint: 'Training goes on without it; events.jsonl has the same numbers. Make room on the disk.',
    cause,
  })
}
