// SPDX-License-Identifier: Apache-2.0
/** What a run leaves under `model/`: values by the server (or train), the graph by worker 0. */
import { join } from 'node:path'
import { publicError } from '../errors.ts'
import type { Snapshot } from '../federation/model-state.ts'
import { modelFilesOf } from '../federation/saved-model.ts'
import { writeFileAtomically } from '../storage/atomic-file.ts'
import { type LoadedModel, loadModel, saveModel } from '../storage/model-files.ts'
import { StorageError } from '../storage/storage-error.ts'
import type { RoleSession } from './role.ts'

export async function saveVariables({ directory, digest, events }: RoleSession, snapshot: Snapshot): Promise<void> {
  const path = await saveModel(join(directory, 'model'), modelFilesOf(snapshot, digest))
  events({ kind: 'saved', what: 'model', path, step: snapshot.version })
}

/** What an earlier server of the same job saved here; nothing when there is none. That optimizer state is lost is said. */
export async function savedVariables({
  directory,
  digest,
  job,
  events,
}: RoleSession): Promise<LoadedModel | undefined> {
  const saved = await loadModel(join(directory, 'model'), digest)
  if (saved !== undefined && saved.slots.size === 0 && job.training.optimizer.name !== 'sgd') {
    const error = new StorageError(
      'optimizer-state-lost',
      `expected optimizer state of update ${saved.version} beside the values, got none: training goes on with fresh state`,
      { hint: 'Nothing to do: the server was killed while it saved. The loss may rise for some updates.' },
    )
    events({ kind: 'warning', error: publicError(error) })
  }
  return saved
}

/** The training step as TensorFlow's GraphDef; the JavaScript engine has none. */
export async function saveGraph({ directory, events }: RoleSession, graph: Uint8Array | undefined): Promise<void> {
  if (graph === undefined) return
  const path = join(directory, 'model', 'graph.pb')
  await writeFileAtomically(path, [graph])
  events({ kind: 'saved', what: 'graph', path, step: 0 })
}
