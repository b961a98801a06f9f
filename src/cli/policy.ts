// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister policy init|check`: a policy to start from, and what a policy says, above all where it is weak. Both work on any machine,
 * before anybody joins anything.
 */
import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Policy, parsePolicy, rootFingerprintOf, rootNameOf } from '../attestation/policy-format.ts'
import { CodedError } from '../errors.ts'
import { rootFingerprintOfFile } from './collateral-service.ts'
import { type CliContext, exitStatus } from './context.ts'
import { readJsonInput } from './input.ts'

export interface PolicyInitOptions {
  /** Certificate of a root that is not Intel's, and what to call it. */
  readonly root?: string
  readonly rootName?: string
  /** MRENCLAVEs in hex; `self` when none is given. */
  readonly mrenclave?: readonly string[]
}

export class PolicyFileError extends CodedError<'policy-file-exists'> {}

/** The strictest policy that a healthy platform passes. TCB evaluation 19 is of May 2025. */
export function strictPolicy(root: Policy['root'] = 'intel', mrEnclave: readonly string[] = ['self']): Policy {
  return parsePolicy({
    version: 1,
    root,
    enclave: { mrEnclave },
    attributes: { allowDebug: false, allowProvisioningKeys: false },
    tcb: { acceptedStatuses: ['UpToDate'], acceptedAdvisories: [], minimumEvaluationNumber: root === 'intel' ? 19 : 1 },
    collateral: { graceHours: 0 },
    platforms: 'any',
    freshness: { maximumAgeMinutes: 24 * 60 },
  })
}

export async function init(
  context: Pick<CliContext, 'cwd' | 'stdout'>,
  options: PolicyInitOptions,
  file?: string,
): Promise<number> {
  const policy = strictPolicy(rootOf(context.cwd, options), options.mrenclave)
  const text = `${JSON.stringify(policy, null, 2)}\n`
  if (file === undefined) {
    context.stdout.write(text)
    return exitStatus.ok
  }
  const path = resolve(context.cwd, file)
  try {
    writeFileSync(path, text, { flag: 'wx' })
  } catch (cause) {
    const hint = 'A policy is never overwritten: choose another name, or remove the old one yourself.'
    const got = cause instanceof Error ? cause.message : String(cause)
    throw new PolicyFileError('policy-file-exists', `Expected to create ${path}: ${got}.`, { hint, cause })
  }
  context.stdout.write(`${path}\n${summary(policy)}`)
  return exitStatus.ok
}

export async function check(
  context: Pick<CliContext, 'cwd' | 'stdout'>,
  options: { readonly json?: boolean },
  file: string,
): Promise<number> {
  const policy = readPolicy(resolve(context.cwd, file))
  const found = weaknesses(policy)
  context.stdout.write(options.json ? `${JSON.stringify({ policy, weaknesses: found }, null, 2)}\n` : summary(policy))
  return exitStatus.ok
}

export function readPolicy(path: string): Policy {
  return parsePolicy(readJsonInput(path, 'A policy is a JSON file: cloister policy init FILE writes one.'))
}

/** Every field that accepts more than a healthy machine of one's own needs, and what that means. */
export function weaknesses(policy: Policy): string[] {
  const { attributes, tcb, collateral, platforms, enclave } = policy
  const found: readonly [boolean, string][] = [
    [policy.root !== 'intel', `root: "${rootNameOf(policy)}" is not Intel's: no hardware need stand behind its quotes`],
    [attributes.allowDebug, 'attributes.allowDebug: the host of a debug enclave reads everything in it'],
    [attributes.allowProvisioningKeys, 'attributes.allowProvisioningKeys: such an enclave can track the platform'],
    [
      enclave.mrEnclave === undefined,
      'enclave: everything that the signer signs under this product id is let in, reviewed or not',
    ],
    ...tcb.acceptedStatuses
      .filter((status) => status !== 'UpToDate')
      .map((status): [boolean, string] => [true, `tcb.acceptedStatuses: ${status}: known weaknesses may be open`]),
    [
      tcb.acceptedAdvisories === 'any',
      'tcb.acceptedAdvisories: any: weaknesses that are not yet known are accepted too',
    ],
    [tcb.minimumEvaluationNumber === 0, 'tcb.minimumEvaluationNumber: 0: collateral may be as old as its dates allow'],
    [collateral.graceHours > 0, `collateral.graceHours: revocations may go unseen for ${collateral.graceHours} hours`],
    [platforms === 'any', 'platforms: any: a key stolen from any one machine of the world lets a forger in'],
  ]
  return found.filter(([present]) => present).map(([, text]) => text)
}

function summary(policy: Policy): string {
  const { mrEnclave, signer } = policy.enclave
  const lines = [
    `root         ${rootNameOf(policy)} (${rootFingerprintOf(policy)})`,
    ...(mrEnclave ? [`MRENCLAVE    ${mrEnclave.join(' or ')}`] : []),
    ...(signer ? [`MRSIGNER     ${signer.mrSigner}, product ${signer.productId}, SVN ≥ ${signer.minimumSvn}`] : []),
    `TCB          ${policy.tcb.acceptedStatuses.join(' or ')}, evaluation ≥ ${policy.tcb.minimumEvaluationNumber}`,
    ...weaknesses(policy).map((text) => `weakness     ${text}`),
  ]
  return `${lines.join('\n')}\n`
}

function rootOf(cwd: string, { root, rootName }: PolicyInitOptions): Policy['root'] {
  if (root === undefined) return 'intel'
  return { name: rootName ?? 'simulated', sha256: rootFingerprintOfFile(resolve(cwd, root)) }
}
