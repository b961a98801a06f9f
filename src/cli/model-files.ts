// SPDX-License-Identifier: Apache-2.0
/** What a run leaves under `model/`: values by the server (or train), the graph by worker 0. */
import { join } from 'node:path'
import type { Manifest } from '../federation/manifest.ts'
import type { Snapshot } from '../federation/model-state.ts'
import { writeFileAtomically } from '../storage/atomic-file.ts'
import { saveModel } from '../storage/model-files.ts'
import type { RoleSession } from './role.ts'

export async function saveVariables({ directory, digest, events }: RoleSession, snapshot: Snapshot): Promise<void> {
  const { version, parameters, slots } = snapshot
  const named = (manifest: Manifest, values: readonly Float32Array[]) =>
    manifest.map(({ name, shape, role }, index) => ({ name, shape, role, data: values[index] as Float32Array }))
  const path = await saveModel(join(directory, 'model'), {
    version,
    jobDigest: digest,
    variables: named(parameters.manifest, parameters.tensors),
    slots: new Map([...slots].map(([slot, { manifest, tensors }]) => [slot, named(manifest, tensors)])),
  })
  events({ kind: 'saved', what: 'model', path, step: version })
}

/** The training step as TensorFlow's GraphDef; the JavaScript engine has none. */
export async function saveGraph({ directory, events }: RoleSession, graph: Uint8Array | undefined): Promise<void> {
  if (graph === undefined) return
  const path = join(directory, 'model', 'graph.pb')
  await writeFileAtomically(path, [graph])
  events({ kind: 'saved', what: 'graph', path, step: 0 })
}
