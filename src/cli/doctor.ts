// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister doctor`: what this machine has and lacks for attested enclaves, each finding with what to do. It only looks: it changes
 * nothing, and it trusts nothing that it is told. Exit status 1 when anything is missing that production needs.
 */
import { resolve } from 'node:path'
import { intelRootFingerprint } from '../attestation/format.ts'
import { defaultQcnlPath } from '../attestation/qcnl.ts'
import { publicError } from '../errors.ts'
import { platformFinding, serviceFindings } from './collateral-checks.ts'
import { chooseService, openService, rootFingerprintOfFile, type ServiceOptions } from './collateral-service.ts'
import { type CliContext, exitStatus } from './context.ts'
import { readInput } from './input.ts'
import { type Finding, type MachinePaths, machineFindings } from './machine-checks.ts'

export interface DoctorOptions extends ServiceOptions {
  /** A quote of an enclave on this machine, to judge the platform by. */
  readonly quote?: string
  readonly root?: string
  readonly json?: boolean
}

type Context = Pick<CliContext, 'cwd' | 'env' | 'now' | 'stdout' | 'stderr' | 'signal'>

export const linuxPaths: MachinePaths = {
  cpuinfo: '/proc/cpuinfo',
  devices: '/dev',
  aesmSocket: '/var/run/aesmd/aesm.socket',
  qcnl: defaultQcnlPath,
}

const impatient = { timeoutMs: 5000, retries: 0 }

export async function doctor(context: Context, options: DoctorOptions, paths = linuxPaths): Promise<number> {
  const findings = [
    ...(await machineFindings(paths, context.env.PATH ?? '')),
    ...(await collateralFindings(context, options, paths.qcnl)),
  ]
  context.stdout.write(options.json ? `${JSON.stringify(findings, undefined, 2)}\n` : textOf(findings))
  return findings.some(({ state }) => state === 'missing') ? exitStatus.failed : exitStatus.ok
}

async function collateralFindings(context: Context, options: DoctorOptions, qcnlPath: string): Promise<Finding[]> {
  let client: ReturnType<typeof openService> | undefined
  const stop = () => client?.close()
  context.signal.addEventListener('abort', stop)
  try {
    const service = await chooseService(context, options, qcnlPath)
    const { cwd } = context
    const root = options.root === undefined ? intelRootFingerprint : rootFingerprintOfFile(resolve(cwd, options.root))
    const quote = options.quote === undefined ? undefined : readInput(resolve(cwd, options.quote))
    client = openService(context, service.config, root, impatient)
    const now = context.now()
    return [...(await serviceFindings(client, service, now)), await platformFinding(client, quote, root, now)]
  } catch (thrown) {
    const { code, message, hint } = publicError(thrown)
    return [{ check: 'collateral service', state: 'missing', found: `${code}: ${message}`, advice: hint }]
  } finally {
    context.signal.removeEventListener('abort', stop)
    client?.close()
  }
}

function textOf(findings: readonly Finding[]): string {
  const marks = { ok: 'ok', warning: 'warning', missing: 'MISSING', unknown: 'unknown' }
  const lines = findings.flatMap(({ check, state, found, advice }) => [
    `${marks[state].padEnd(8)} ${check.padEnd(22)} ${found}`,
    ...(advice === undefined ? [] : [`${' '.repeat(9)}→ ${advice}`]),
  ])
  const missing = findings.filter(({ state }) => state === 'missing').length
  const verdict =
    missing === 0
      ? 'Ready for attested enclaves.'
      : `${missing} missing: SGX will not run here as it is; the simulated platform will (cloister platform serve).`
  return `${lines.join('\n')}\n${verdict}\n`
}
