// SPDX-License-Identifier: Apache-2.0
/**
 * An enclave's side of `cloister provision`, wired: the port where owners reach this process, the keys that its role may be handed, and
 * the sealed file in which they outlive a restart. Which owners there are is in the job; where it listens, the host decides.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { parseIdentities } from '../keys/age.ts'
import { ProvisionedKeys } from '../keys/provisioned-keys.ts'
import { listenForKeys } from '../keys/provisioning-listener.ts'
import { deriveSealingKey } from '../storage/sealing-key.ts'
import type { Attestation } from './attestation.ts'
import type { RoleSession } from './role.ts'
import { UsageError } from './usage-error.ts'

/** Nothing to wait for where the job has no owners. */
export async function provisioningOf(
  session: RoleSession,
  party: Pick<ProvisioningOptions, 'role' | 'index' | 'count' | 'credentials'>,
): Promise<Provisioning> {
  const { owners } = session.job
  const listen = session.deployment.provisioning
  if (owners.length > 0) return await openProvisioning(session, { ...party, owners, listen })
  const refuse = async (): Promise<never> => {
    throw new UsageError('owners-missing', 'expected owners in the job, who provision keys, got none', {
      hint: 'List their public keys under owners (`cloister keygen owner` makes one), or use neither encrypted data nor a provisioned checkpoint key.',
    })
  }
  return { address: '', dataIdentities: refuse, checkpointKey: refuse, close: async () => {} }
}

export interface ProvisioningOptions {
  readonly role: 'server' | 'worker'
  /** Number of this server or worker, and how many there are. */
  readonly index: number
  readonly count: number
  /** From the job: Ed25519 public keys, base64. */
  readonly owners: readonly string[]
  /** From the deployment. */
  readonly listen: { readonly host: string; readonly port: number }
  readonly credentials: Attestation['credentials']
}

export interface Provisioning {
  /** host:port as bound. */
  readonly address: string
  /** What opens data files: waits for an owner. */
  dataIdentities(): Promise<readonly string[]>
  /** 32 bytes, material for `deriveSealingKey(…, 'provisioned', …)`: waits for an owner. */
  checkpointKey(): Promise<Uint8Array>
  close(): Promise<void>
}

/** Owners are people: they have this long, then the process gives up and says what it waits for. */
const keyWaitMs = 600_000

type Session = Pick<RoleSession, 'platform' | 'digest' | 'directory' | 'source' | 'events' | 'signal'>

export async function openProvisioning(session: Session, options: ProvisioningOptions): Promise<Provisioning> {
  const { platform, digest, directory, source, events, signal } = session
  const { role, index, count, owners, listen, credentials } = options
  assert(platform !== undefined, 'a server or worker has a platform')
  const material = await platform.sealingKey('mrenclave')
  const keys = await ProvisionedKeys.open({
    wanted: [
      role === 'worker'
        ? { name: 'data', kind: 'age-identity', owners }
        : { name: 'checkpoint', kind: 'sealing-key', owners },
    ],
    store: {
      path: join(directory, `${source}.keys`),
      sealing: {
        key: deriveSealingKey(material, 'mrenclave', 'provisioned-keys'),
        context: { kind: `${role}-keys`, jobDigest: digest, server: index, servers: count, step: 0 },
      },
    },
    report: events,
  })
  const listener = await listenForKeys({
    ...listen,
    ...{ role, credentials, keys, jobDigest: digest, report: events },
    quote: (reportData) => platform.quote(reportData),
  })
  const { address } = listener
  const waitFor = (name: string): Promise<Uint8Array> => {
    if (keys.missing.includes(name)) events({ kind: 'key-awaited', name, address })
    return keys.waitFor(name, { timeoutMs: keyWaitMs, signal, address })
  }
  return {
    address,
    dataIdentities: async () => parseIdentities(Buffer.from(await waitFor('data')).toString('utf8')),
    checkpointKey: () => waitFor('checkpoint'),
    close: () => listener.close(),
  }
}
