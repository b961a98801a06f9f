// SPDX-License-Identifier: Apache-2.0
/**
 * What the enclave image runs: server or worker, by two files that the host writes. `config/job.json` is what all parties agreed on: peers
 * refuse another digest. `config/deployment.json` says which process of the job this is, where its peers are and how many threads
 * it takes. Where code and data lie is the image's, not the host's: a library directory of the host's choice would be
 * the host's code inside the enclave, and a file of its choice could be quoted in an error message.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import type { Deployment } from '../config/deployment.ts'
import { loadDeployment, validate } from '../config/load.ts'
import { CodedError } from '../errors.ts'
import { type CliContext, exitStatus, failureStatus, printError } from './context.ts'
import { image } from './image.ts'
import type { RoleOptions } from './role.ts'
import { server } from './server.ts'
import { worker } from './worker.ts'

export class EnclaveError extends CodedError<'enclave-path-chosen' | 'enclave-process-missing'> {}

/** Below the working directory, which the manifest fixes. */
export const enclavePaths = {
  /** Measured: how many threads the enclave's size allows. */
  image: 'app/image.json',
  /** There if the image was built for one job alone; the manifest makes it, no host can. */
  measuredJob: 'measured/job.json',
  job: 'config/job.json',
  deployment: 'config/deployment.json',
  engine: 'engine',
  data: 'data',
  run: 'run',
  /** Of the simulated platform; a production image refuses to simulate. */
  platform: 'platform',
} as const

/** The files of a host's configuration lie beside each other. */
const configurationFile = /^config\/[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/

export async function enclave(context: CliContext): Promise<number> {
  try {
    const deployment = loadDeployment(join(context.cwd, enclavePaths.deployment))
    refuseChosenPaths(deployment)
    const { process } = deployment
    if (process === undefined) {
      throw new EnclaveError('enclave-process-missing', `${enclavePaths.deployment}: expected "process", got none`, {
        hint: 'Write "process": {"role": "server"} or {"role": "worker", "index": 0}.',
      })
    }
    const options = { ...roleOptions(context.cwd, deployment), index: process.index }
    return await (process.role === 'server' ? server(context, options) : worker(context, options))
  } catch (thrown) {
    if (context.signal.aborted) return exitStatus.interrupted
    printError(context, thrown)
    return failureStatus(thrown)
  }
}

/** What the command line would have said. */
export function roleOptions(directory: string, { engine }: Deployment): RoleOptions {
  const at = (path: string) => join(directory, path)
  const { tensorflowThreads } = readImage(at(enclavePaths.image))
  return {
    job: at(existsSync(at(enclavePaths.measuredJob)) ? enclavePaths.measuredJob : enclavePaths.job),
    deployment: at(enclavePaths.deployment),
    out: at(enclavePaths.run),
    data: at(enclavePaths.data),
    engineDirectory: at(enclavePaths.engine),
    threads: Math.min(engine.threads || tensorflowThreads, tensorflowThreads),
    // That a production image computes elsewhere than in its measured library is not for the host to say.
    ...(image === 'production' && { engine: 'tensorflow' }),
    // Whatever an earlier process left in the run directory: an enclave is restarted, never started by hand.
    resume: true,
  }
}

const imageSchema = v.strictObject({
  tensorflowThreads: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(127)),
})

function readImage(file: string) {
  return validate(imageSchema, JSON.parse(readFileSync(file, 'utf8')), file)
}

function refuseChosenPaths({ collateral, data, engine, out, platform }: Deployment): void {
  const refuse = (field: string, expected: string, got: string) => {
    throw new EnclaveError('enclave-path-chosen', `${field}: expected ${expected}, got ${JSON.stringify(got)}`, {
      hint: 'Inside the enclave the image says where things lie: docs/gramine.md lists its directories.',
    })
  }
  const fixed = { 'data.directory': data.directory, 'engine.directory': engine.directory, out }
  for (const [field, got] of Object.entries(fixed)) if (got !== undefined) refuse(field, 'none', got)
  if (platform?.kind === 'simulated' && platform.directory !== enclavePaths.platform) {
    refuse('platform.directory', enclavePaths.platform, platform.directory)
  }
  const read = [...(collateral.bundles ?? []), ...(collateral.qcnl === undefined ? [] : [collateral.qcnl])]
  for (const path of read) {
    if (!configurationFile.test(path)) refuse('collateral', 'a file in config/', path)
  }
  if (collateral.cacheDirectory !== undefined && collateral.cacheDirectory !== 'run/collateral') {
    refuse('collateral.cacheDirectory', 'run/collateral', collateral.cacheDirectory)
  }
}
