// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister provision HOST:PORT --job FILE --policy FILE --owner FILE --name NAME --key FILE`: a data owner hands a secret to an enclave
 * that runs the job they agreed to, if the owner's own policy accepts it. Runs on the owner's machine, outside of any enclave.
 */
import { resolve } from 'node:path'
import type { CollateralSource } from '../attestation/collateral-source.ts'
import { openOfflineCollateral } from '../attestation/offline-collateral.ts'
import { rootFingerprintOf } from '../attestation/policy-format.ts'
import { MonotonicClock } from '../attestation/validity.ts'
import { jobDigest } from '../config/job.ts'
import { loadJob } from '../config/load.ts'
import { parseOwnerKey } from '../keys/owner-key.ts'
import { provisionKey } from '../keys/provision.ts'
import { formatEvidence } from '../observability/log.ts'
import { PeerJudge } from '../ratls/peer.ts'
import { evidenceOf } from './attestation.ts'
import { chooseService, openService, type ServiceOptions } from './collateral-service.ts'
import { type CliContext, exitStatus } from './context.ts'
import { readInput } from './input.ts'
import { parseAddress } from './options.ts'
import { readPolicy } from './policy.ts'

export interface ProvisionCommandOptions extends ServiceOptions {
  readonly job: string
  readonly set?: readonly string[]
  readonly policy: string
  /** File with the owner's Ed25519 private key. */
  readonly owner: string
  readonly name: string
  /** File with the secret. */
  readonly key: string
  readonly collateral?: string
  readonly self?: string
  readonly json?: boolean
}

/** The enclave's quote, and collateral for it. */
const timeoutMs = 60_000

type Context = Pick<CliContext, 'cwd' | 'env' | 'now' | 'stdout' | 'stderr' | 'signal'>

export async function provision(context: Context, options: ProvisionCommandOptions, address: string): Promise<number> {
  const file = (path: string): string => resolve(context.cwd, path)
  const policy = readPolicy(file(options.policy))
  const owner = parseOwnerKey(readInput(file(options.owner)).toString('latin1'), options.owner)
  const secret = readInput(file(options.key))
  const job = loadJob(file(options.job), options.set)
  const collateral = await openCollateral(context, options, rootFingerprintOf(policy))
  const now = (): number => context.now().getTime()
  try {
    const { role, peer } = await provisionKey({
      ...parseAddress(address),
      judge: new PeerJudge({
        policy,
        self: options.self,
        collateral: collateral.source,
        clock: new MonotonicClock(now),
      }),
      now,
      jobDigest: jobDigest(job),
      owner,
      name: options.name,
      secret,
      timeoutMs,
      signal: context.signal,
    })
    const evidence = evidenceOf(peer)
    const result = { provisioned: options.name, role, address, evidence }
    context.stdout.write(
      options.json
        ? `${JSON.stringify(result, null, 2)}\n`
        : `The ${role} at ${address} has the key ${options.name}: ${formatEvidence(evidence)}\n`,
    )
    return exitStatus.ok
  } finally {
    collateral.close()
  }
}

async function openCollateral(
  context: Context,
  options: ProvisionCommandOptions,
  rootFingerprint: string,
): Promise<{ readonly source: CollateralSource; close(): void }> {
  if (options.collateral !== undefined) {
    return { source: await openOfflineCollateral([resolve(context.cwd, options.collateral)]), close: () => {} }
  }
  const { config } = await chooseService(context, options)
  const source = openService(context, config, rootFingerprint)
  return { source, close: () => source.close() }
}
