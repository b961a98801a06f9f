// SPDX-License-Identifier: Apache-2.0
/** Where a process seals what it must remember: checkpoints of a server, the newest step that a worker was told of. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { publicError } from '../errors.ts'
import { serverName } from '../federation/server-name.ts'
import { CheckpointStore } from '../storage/checkpoint-store.ts'
import { NewestSeen } from '../storage/newest-seen.ts'
import { deriveSealingKey } from '../storage/sealing-key.ts'
import type { RoleSession } from './role.ts'

/** `provisioned`: material that an owner handed over, where the job wants that. */
export async function openCheckpoints(
  session: RoleSession,
  server: number,
  provisioned: () => Promise<Uint8Array>,
): Promise<CheckpointStore> {
  const { deployment, digest, directory, events, job } = session
  return await CheckpointStore.open({
    directory: join(directory, 'checkpoints', serverName(server)),
    key: await sealingKey(session, 'checkpoints', provisioned),
    context: { jobDigest: digest, server, servers: job.servers },
    keep: deployment.keepCheckpoints,
    onRefused: ({ error }) => events({ kind: 'warning', error: publicError(error) }),
  })
}

export async function openNewestSeen(session: RoleSession, worker: number): Promise<NewestSeen> {
  const { digest, directory, job } = session
  // A worker's memory is of its own machine, whatever seals the servers' checkpoints.
  assert(session.platform !== undefined)
  const key = deriveSealingKey(await session.platform.sealingKey('mrenclave'), 'mrenclave', 'newest-seen')
  return await NewestSeen.open({
    directory: join(directory, 'seen'),
    key,
    jobDigest: digest,
    worker,
    workers: job.workers,
  })
}

async function sealingKey(
  { job, platform }: RoleSession,
  purpose: string,
  provisioned: () => Promise<Uint8Array>,
): Promise<Uint8Array> {
  assert(platform !== undefined, 'a server or worker has a platform')
  const source = job.checkpoints.key
  const material = source === 'provisioned' ? await provisioned() : await platform.sealingKey(source)
  return deriveSealingKey(material, source, purpose)
}
