// SPDX-License-Identifier: Apache-2.0
/**
 * An enclave's side of attestation, wired: its platform, where collateral comes from, the job's policy, credentials for the
 * transport, and the watch over connected peers. A peer that falls out of the policy when collateral changes is dropped.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CollateralSource } from '../attestation/collateral-source.ts'
import { openOfflineCollateral } from '../attestation/offline-collateral.ts'
import { PccsClient } from '../attestation/pccs.ts'
import { measureBuild } from '../attestation/platforms/application-digest.ts'
import { openGraminePlatform } from '../attestation/platforms/gramine.ts'
import type { Platform } from '../attestation/platforms/platform.ts'
import { openSimulatedPlatform } from '../attestation/platforms/simulated.ts'
import { openSimulatedAuthority } from '../attestation/platforms/simulated-authority.ts'
import type { AttestedPeer } from '../attestation/policy.ts'
import { type Policy, parsePolicy, rootFingerprintOf } from '../attestation/policy-format.ts'
import { MonotonicClock } from '../attestation/validity.ts'
import type { Deployment } from '../config/deployment.ts'
import { publicError } from '../errors.ts'
import type { PeerEvidence } from '../observability/events.ts'
import { AttestedCredentials } from '../ratls/credentials.ts'
import { PeerWatch } from '../ratls/peer-watch.ts'
import { chooseService } from './collateral-service.ts'
import type { CliContext } from './context.ts'
import { simulatedQcnlFile } from './platform.ts'
import type { RoleSession } from './role.ts'

export interface Attestation {
  readonly credentials: AttestedCredentials
  readonly describe: (peer: AttestedPeer) => { name: string; evidence: PeerEvidence; withdrawn: AbortSignal }
  close(): void
}

export async function openPlatform(
  context: Pick<CliContext, 'self' | 'now'>,
  { platform = { kind: 'gramine' } }: Deployment,
): Promise<Platform> {
  if (platform.kind === 'gramine') return openGraminePlatform({ directory: '/dev/attestation' })
  const authority = await openAuthority(platform.directory, context.now)
  const { mrEnclave } = await measureBuild(context.self.at(-1) as string)
  return openSimulatedPlatform({ authority, mrEnclave, image: 'development' })
}

export function openAuthority(directory: string, now: () => Date) {
  return openSimulatedAuthority({ directory, now, secret: () => randomBytes(32) })
}

/** The job's policy decides; without one nobody is let in. */
export async function openAttestation(session: RoleSession, role: 'server' | 'worker'): Promise<Attestation> {
  const { context, platform, job, digest, directory, events } = session
  assert(platform !== undefined, 'a server or worker has a platform')
  const policy = parsePolicy(job.admission)
  const collateral = await openCollateral(session, policy)
  const credentials = await AttestedCredentials.create({
    platform,
    role,
    policy,
    collateral,
    clock: new MonotonicClock(() => context.now().getTime()),
    jobDigest: digest,
    report: events,
  })
  const watch = new PeerWatch({
    credentials,
    maximumAgeMinutes: policy.freshness.maximumAgeMinutes,
    elapsedMs: () => performance.now(),
    report: events,
  })
  if (collateral instanceof PccsClient) collateral.keepFresh(() => void watch.reverify())
  const kept = join(directory, 'evidence')
  let peers = 0
  return {
    credentials,
    describe(peer) {
      const { withdrawn, isNew } = watch.signalFor(peer)
      const evidence = evidenceOf(peer)
      const name = `${role === 'server' ? 'worker' : 'server'} ${evidence.mrEnclave?.slice(0, 8)}`
      if (isNew) {
        const file = join(kept, `${role}-peer-${++peers}.json`)
        keepEvidence(file, peer, credentials, context.now()).catch((error: unknown) =>
          events({ kind: 'warning', error: publicError(error) }),
        )
      }
      return { name, evidence, withdrawn }
    },
    close() {
      watch.close()
      credentials.close()
      if (collateral instanceof PccsClient) collateral.close()
    },
  }
}

/** What was proven about a peer, for logs, terminals and results. */
export function evidenceOf({ evidence, root }: AttestedPeer): PeerEvidence {
  const { measurements, platform } = evidence
  return {
    platform: root === 'intel' ? 'SGX' : `${root} (NOT PROTECTED)`,
    mrEnclave: measurements.mrEnclave,
    mrSigner: measurements.mrSigner,
    tcbStatus: evidence.tcbStatus,
    advisories: evidence.advisories,
    detail: `PPID ${platform.ppid}, TCB evaluation ${evidence.tcbEvaluationNumber}`,
  }
}

async function openCollateral({ context, deployment, events }: RoleSession, policy: Policy): Promise<CollateralSource> {
  const { collateral, platform } = deployment
  if (collateral.bundles !== undefined) return openOfflineCollateral(collateral.bundles)
  const simulated = platform?.kind === 'simulated' ? join(platform.directory, simulatedQcnlFile) : undefined
  const service = await chooseService(context, {
    ...(collateral.pccs !== undefined && { pccs: collateral.pccs }),
    ...(collateral.qcnl !== undefined
      ? { qcnl: collateral.qcnl }
      : simulated !== undefined && existsSync(simulated) && { qcnl: simulated }),
  })
  return new PccsClient({
    config: service.config,
    rootFingerprint: rootFingerprintOf(policy),
    ...(collateral.cacheDirectory !== undefined && { cacheDirectory: collateral.cacheDirectory }),
    now: context.now,
    random: Math.random,
    report: events,
  })
}

/** For the audit: what was shown, and what was read from it, so that anyone can judge it again. */
async function keepEvidence(
  file: string,
  peer: AttestedPeer,
  credentials: AttestedCredentials,
  now: Date,
): Promise<void> {
  const quote = Buffer.from(credentials.quoteOf(peer).raw).toString('base64')
  const record = { time: now.toISOString(), root: peer.root, evidence: peer.evidence, quote }
  await mkdir(join(file, '..'), { recursive: true })
  await writeFile(file, `${JSON.stringify(record, null, 2)}\n`)
}
