// SPDX-License-Identifier: Apache-2.0
/** Where a run on this machine takes its data from: named, cached, downloaded, or (said loudly) synthetic. */
import type { Deployment } from '../config/deployment.ts'
import type { Job } from '../config/job.ts'
import type { EventSink } from '../observability/events.ts'
import { type CliContext, cacheDirectory } from './context.ts'
import { workloadOf } from './wiring.ts'

export function dataForRun(
  context: CliContext,
  options: {
    readonly job: Job
    readonly deployment: Deployment
    readonly events: EventSink
    readonly signal: AbortSignal
  },
): Promise<{ readonly directory: string; readonly dataSource: string }> {
  const { job, deployment, events, signal } = options
  const { directory } = deployment.data
  return workloadOf(job).locate({ cacheDirectory: cacheDirectory(context.env), directory, events, signal })
}
