// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister measure`: the MRENCLAVE that a policy is to name. Of this build on the simulated platform, and the files that make it; with --enclave
 * of an image for SGX; with --description of a released one, compared with the image where there is one.
 */
import { accessSync, constants } from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import { type ApplicationMeasurement, measureBuild } from '../attestation/platforms/application-digest.ts'
import { simulatedMrSigner } from '../attestation/platforms/simulated.ts'
import { type CliContext, exitStatus } from './context.ts'
import { compareDescriptions, type EnclaveDescription, measureEnclave, readDescription } from './measure-enclave.ts'

export interface MeasureOptions {
  readonly json?: boolean
  /** Directory of an image: what `npm run build:enclave` made. */
  readonly enclave?: string
  /** File that a release states its image in. */
  readonly description?: string
}

type Context = Pick<CliContext, 'cwd' | 'env' | 'self' | 'stdout'>

export async function measure(context: Context, options: MeasureOptions): Promise<number> {
  const { enclave, description } = options
  const released = description && (await readDescription(resolve(context.cwd, description)))
  if (enclave !== undefined) {
    const signer = onPath('gramine-sgx-sign', context.env.PATH ?? '')
    const measured = await measureEnclave(resolve(context.cwd, enclave), signer)
    if (released) compareDescriptions(released, measured.description)
    const by = measured.by === 'signature' ? 'as its signature says' : 'as gramine-sgx-sign measures it'
    write(context, options, measured.description, `of ${enclave}, ${by}${released ? ': the released image' : ''}`)
  } else if (released) {
    write(context, options, released, `as ${description} says; --enclave DIR compares an image with it`)
  } else {
    const measured = await measureBuild(context.self.at(-1)!)
    context.stdout.write(options.json ? jsonText(jsonOf(measured)) : textOf(measured))
  }
  return exitStatus.ok
}

function write({ stdout }: Context, { json }: MeasureOptions, measured: EnclaveDescription, whence: string): void {
  const { mrEnclave, mrSigner = 'not signed yet', productId, svn, debug, files } = measured
  const lines = [
    `MRENCLAVE  ${mrEnclave}`,
    `MRSIGNER   ${mrSigner}`,
    `product ${productId}, SVN ${svn}${debug ? ', DEBUG: nothing in it is protected' : ''}`,
    `${whence}: ${files.length} files, --json lists them.`,
  ]
  stdout.write(json ? jsonText(measured) : `${lines.join('\n')}\n`)
}

function onPath(program: string, searchPath: string): string | undefined {
  const directories = searchPath.split(delimiter).filter((directory) => directory !== '')
  return directories
    .map((directory) => join(directory, program))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

function jsonText(value: object): string {
  return `${JSON.stringify(value, undefined, 2)}\n`
}

function jsonOf({ mrEnclave, files }: ApplicationMeasurement) {
  return { platform: 'simulated', mrEnclave, mrSigner: simulatedMrSigner, files }
}

function textOf({ mrEnclave, files }: ApplicationMeasurement): string {
  const lines = [
    `MRENCLAVE  ${mrEnclave}`,
    `MRSIGNER   ${simulatedMrSigner}`,
    `of this build on the simulated platform: ${files.length} files, --json lists them.`,
    'On SGX the measurement is that of the image: cloister measure --enclave DIR.',
  ]
  return `${lines.join('\n')}\n`
}
