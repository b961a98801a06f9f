// SPDX-License-Identifier: Apache-2.0
/** `cloister train`: the same job in one process without federation. All workers' shares are one; batches are one worker's. */
import type { Job } from '../config/job.ts'
import { systemClock } from '../federation/clock.ts'
import { trainLocally } from '../federation/local.ts'
import type { PreparationServer, PreparationWorker } from '../federation/preparation.ts'
import type { CliContext } from './context.ts'
import { dataForRun } from './data-source.ts'
import { releaseModel } from './model-files.ts'
import { writePlots } from './plots.ts'
import { type RoleOptions, type RoleSession, runRole } from './role.ts'
import { printSummary, resultOf, writeResult } from './summary.ts'
import { openTraining } from './training.ts'
import { UsageError } from './usage-error.ts'
import { createModelState, createSchedule, layoutOf, workloadOf } from './wiring.ts'

export function train(context: CliContext, options: RoleOptions): Promise<number> {
  return runRole(context, options, { role: 'train', source: 'train' }, async (session) => {
    const data = await dataForRun(context, session)
    const { deployment } = session
    await trainHere(context, options, {
      ...session,
      deployment: { ...deployment, data: { directory: data.directory } },
    })
  })
}

/** Training without attestation is for data that nobody encrypted. */
async function noIdentities(): Promise<never> {
  throw new UsageError('owners-missing', 'expected data in the clear, got encrypted files', {
    hint: 'Keys are provisioned to attested enclaves only: run the job with `cloister server` and `cloister worker`.',
  })
}

/** One party that holds everything, and sends nothing. */
function ofOneParty(job: Job): Job {
  const own = { partition: { scheme: 'own' } } as const
  // A spread of one union in another: TypeScript does not follow which variant it is.
  const training = { ...job.training, transfer: 'float32' }
  return { ...job, servers: 1, workers: 1, training, data: { ...job.data, ...own } } as Job
}

/** What a federation agrees on before training, agreed on by one. */
async function prepareAlone(
  server: PreparationServer | undefined,
  party: PreparationWorker | undefined,
): Promise<void> {
  if (server === undefined || party === undefined) return
  const input = server.begin(0)
  for await (const part of party.contribution()) input.accept(part)
  input.end()
  const output = party.begin()
  for (const part of server.result()) output.accept(part)
  output.end()
}

async function trainHere(context: CliContext, { json }: RoleOptions, session: RoleSession): Promise<void> {
  const job = ofOneParty(session.job)
  const opened = await openTraining({ ...session, job }, 0, noIdentities)
  await prepareAlone(workloadOf(job).preparation?.(), opened.preparation)
  const layout = layoutOf(job, opened.model)
  const model = createModelState(session.engine, job, opened.model, { layout, server: 0, saved: undefined })
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
    await releaseModel(session, 0, model)
    const { dataSource } = opened
    writeResult(session, resultOf(session, { ...result, mode: 'one process', dataSource, peers: [] }))
    await writePlots(session.directory)
    if (json !== true) printSummary(context.stdout, session.directory)
  } finally {
    await model.close()
    await opened.close()
  }
}
