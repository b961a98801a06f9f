// SPDX-License-Identifier: Apache-2.0
/** What a run leaves under `model/`: values by the servers (or train), the graph by worker 0. */
import { join } from 'node:path'
import type { ModelState } from '../federation/model-state.ts'
import { modelPartOf } from '../federation/saved-model.ts'
import { releaseFile } from '../keys/release.ts'
import { writeFileAtomically } from '../storage/atomic-file.ts'
import { descriptionOf, partNames, valuesOf } from '../storage/model-files.ts'
import { seal } from '../storage/sealed-file.ts'
import { deriveSealingKey } from '../storage/sealing-key.ts'
import type { RoleSession } from './role.ts'
import { UsageError } from './usage-error.ts'

/** The final model, or what was learnt until the run was stopped, in the form that the job says. */
export async function releaseModel(session: RoleSession, server: number, model: ModelState): Promise<void> {
  const { directory, digest, events, job, platform } = session
  const { release, servers } = job
  const snapshot = model.snapshot()
  try {
    const part = modelPartOf(model, snapshot, { jobDigest: digest, server, servers })
    const names = partNames(part)
    const key = release.form === 'sealed' ? await releaseKey(platform) : undefined
    const context = { kind: 'model', jobDigest: digest, server, servers, step: snapshot.version }
    await writeFileAtomically(join(directory, 'model', names.json), [descriptionOf(part)])
    const path = await releaseFile(join(directory, 'model', names.values), valuesOf(part), {
      release,
      seal: (source) => seal(source, { key: key!, context }),
    })
    events({ kind: 'saved', what: 'model', path, step: snapshot.version })
    const recipients = release.form === 'age' ? release.recipients.length : 0
    events({ kind: 'exported', path, form: release.form, recipients })
  } finally {
    snapshot.release()
  }
}

async function releaseKey(platform: RoleSession['platform']): Promise<Uint8Array> {
  if (platform !== undefined) return deriveSealingKey(await platform.sealingKey('mrenclave'), 'mrenclave', 'release')
  throw new UsageError('release-needs-platform', 'expected an enclave, whose key seals the model, got none', {
    hint: '`cloister train` runs in no enclave: set release to plain or age, e.g. --set \'release={"form":"plain"}\'.',
  })
}

/** The training step as TensorFlow's GraphDef; the JavaScript engine has none. */
export async function saveGraph(
  { directory, events, showGraph }: RoleSession,
  graph: Uint8Array | undefined,
): Promise<void> {
  if (graph === undefined) return
  const path = join(directory, 'model', 'graph.pb')
  await writeFileAtomically(path, [graph])
  events({ kind: 'saved', what: 'graph', path, step: 0 })
  showGraph(graph)
}
