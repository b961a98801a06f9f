// SPDX-License-Identifier: Apache-2.0
/**
 * An enclave's side of attestation, wired: its platform, where collateral comes from, the job's policy, credentials for the
 * transport, and the watch over connected peers. A peer that falls out of the policy when collateral changes is dropped.
 */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
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
import { type AuditLog, openAuditLog } from '../observability/audit-log.ts'
import type { EventSink, PeerEvidence, Role } from '../observability/events.ts'
import type { AttestedRole } from '../ratls/attestation-exchange.ts'
import { AttestedCredentials } from '../ratls/credentials.ts'
import { PeerWatch } from '../ratls/peer-watch.ts'
import { chooseService } from './collateral-service.ts'
import type { CliContext } from './context.ts'
import { auditDirectory, collateralFile, EvidenceRecord, evidenceDirectory } from './evidence-record.ts'
import { image } from './image.ts'
import { simulatedQcnlFile } from './platform.ts'
import type { RoleSession } from './role.ts'

export interface Attestation {
  readonly credentials: AttestedCredentials
  readonly describe: (peer: AttestedPeer) => {
    name: string
    role: AttestedRole
    evidence: PeerEvidence
    withdrawn: AbortSignal
  }
  close(): void
}

export async function openPlatform(
  context: Pick<CliContext, 'self' | 'now'>,
  { platform = { kind: 'gramine' } }: Deployment,
): Promise<Platform> {
  if (platform.kind === 'gramine') return openGraminePlatform({ directory: '/dev/attestation' })
  const authority = await openAuthority(platform.directory, context.now)
  const { mrEnclave } = await measureBuild(context.self.at(-1) as string)
  const machine = { name: platform.machine, ca: 'platform' } as const
  return openSimulatedPlatform({ authority, mrEnclave, machine, image })
}

export function openAuthority(directory: string, now: () => Date) {
  return openSimulatedAuthority({ directory, now, secret: () => randomBytes(32) })
}

/** Of this process; its quote attests the key that signs it. */
export function openAudit(options: {
  readonly directory: string
  readonly source: string
  readonly role: Role
  /** Digest, hex. */
  readonly job: string
  readonly platform: Platform
  readonly context: Pick<CliContext, 'now'>
  readonly events: EventSink
}): Promise<AuditLog> {
  const { directory, source, role, job, platform, context, events } = options
  return openAuditLog({
    path: join(directory, auditDirectory, `${source}.jsonl`),
    ...{ source, role, job, platform: platform.kind },
    ...(platform.warning === undefined ? {} : { warning: platform.warning.code }),
    quote: (reportData) => platform.quote(reportData),
    now: context.now,
    onFailure: (error) => events({ kind: 'warning', error: publicError(error) }),
  })
}

/** The job's policy decides; without one nobody is let in. */
export async function openAttestation(session: RoleSession, role: AttestedRole): Promise<Attestation> {
  const { context, platform, job, digest, directory, events, source, audit } = session
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
  const record = new EvidenceRecord({
    directory: join(directory, evidenceDirectory),
    source,
    policy,
    self: platform.self.mrEnclave,
    collateral,
    onFailure: (error) => events({ kind: 'warning', error: publicError(error) }),
  })
  if (audit !== undefined) record.keepOwn(collateralFile(source, audit.start.index), audit.start.quote)
  return {
    credentials,
    describe(peer) {
      const { withdrawn } = watch.signalFor(peer)
      const quote = credentials.quoteOf(peer).raw
      const file = record.keep(peer, quote)
      const evidence = evidenceOf(peer)
      const quoteSha256 = createHash('sha256').update(quote).digest('hex')
      const peerRole = credentials.roleOf(peer)
      const name = `${peerRole} ${evidence.mrEnclave?.slice(0, 8)}`
      const detail = `${evidence.detail}, kept as ${file}`
      return { name, role: peerRole, evidence: { ...evidence, detail, quoteSha256, file }, withdrawn }
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
  const { config } = await chooseService(context, {
    ...(collateral.pccs !== undefined && { pccs: collateral.pccs }),
    ...(collateral.qcnl !== undefined
      ? { qcnl: collateral.qcnl }
      : simulated !== undefined && existsSync(simulated) && { qcnl: simulated }),
  })
  return new PccsClient({
    config: { ...config, collateralCacheHours: Math.min(config.collateralCacheHours, collateral.refreshMinutes / 60) },
    rootFingerprint: rootFingerprintOf(policy),
    ...(collateral.cacheDirectory !== undefined && { cacheDirectory: collateral.cacheDirectory }),
    now: context.now,
    random: Math.random,
    report: events,
  })
}
