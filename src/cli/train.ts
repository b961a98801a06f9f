// SPDX-License-Identifier: Apache-2.0
/** `cloister train`: the same job in one process without federation. All workers' shares are one; batches are one worker's. */
import { systemClock } from '../federation/clock.ts'
import { trainLocally } from '../federation/local.ts'
import type { CliContext } from './context.ts'
import { dataForRun } from './data-source.ts'
import { saveVariables } from './model-files.ts'
import { type RoleOptions, type RoleSession, runRole } from './role.ts'
import { printSummary, resultOf, writeResult } from './summary.ts'
import { openTraining } from './training.ts'
import { createModelState, createSchedule } from './wiring.ts'

export function train(context: CliContext, options: RoleOptions): Promise<number> {
  return runRole(context, options, { role: 'train', source: 'train' }, async (session) => {
    const data = await dataForRun(context, session)
    const { deployment } = session
    await trainHere(context, { ...session, deployment: { ...deployment, data: { directory: data.directory } } })
  })
}

async function trainHere(context: CliContext, session: RoleSession): Promise<void> {
  // One party that holds everything.
  const job = { ...session.job, workers: 1, data: { ...session.job.data, partition: { scheme: 'own' as const } } }
  const opened = await openTraining({ ...session, job }, 0)
  const model = createModelState(session.engine, job, opened.model)
  try {
    const result = await trainLocally({
      engine: session.engine,
      model,
      training: opened.training,
      schedule: createSchedule(job),
      totalUpdates: job.training.updates,
      evaluateEvery: job.training.evaluateEvery,
      clock: systemClock,
      events: session.events,
      signal: session.signal,
    })
    const snapshot = model.snapshot()
    await saveVariables(session, snapshot).finally(snapshot.release)
    const { dataSource } = opened
    writeResult(session, resultOf(session, { ...result, mode: 'one process', dataSource, peers: [] }))
    printSummary(context.stdout, session.directory)
  } finally {
    await model.close()
    await opened.close()
  }
}
