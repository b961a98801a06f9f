// SPDX-License-Identifier: Apache-2.0
/** `cloister measure`: the MRENCLAVE that this build has on the simulated platform, and the files that make it. */
import { type ApplicationMeasurement, measureBuild } from '../attestation/platforms/application-digest.ts'
import { simulatedMrSigner } from '../attestation/platforms/simulated.ts'
import { type CliContext, exitStatus } from './context.ts'

export async function measure(
  context: Pick<CliContext, 'self' | 'stdout'>,
  options: { readonly json?: boolean },
): Promise<number> {
  const measured = await measureBuild(context.self.at(-1)!)
  context.stdout.write(options.json ? `${JSON.stringify(jsonOf(measured), undefined, 2)}\n` : textOf(measured))
  return exitStatus.ok
}

function jsonOf({ mrEnclave, files }: ApplicationMeasurement) {
  return { platform: 'simulated', mrEnclave, mrSigner: simulatedMrSigner, files }
}

function textOf({ mrEnclave, files }: ApplicationMeasurement): string {
  const lines = [
    `MRENCLAVE  ${mrEnclave}`,
    `MRSIGNER   ${simulatedMrSigner}`,
    `of this build on the simulated platform: ${files.length} files, --json lists them.`,
    'On SGX the measurement is that of the signed image: gramine-sgx-sigstruct-view prints it.',
  ]
  return `${lines.join('\n')}\n`
}
