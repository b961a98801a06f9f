// SPDX-License-Identifier: Apache-2.0
/** A snapshot as it is saved. */
import type { ModelFiles } from '../storage/model-files.ts'
import type { NamedTensor } from '../storage/safetensors.ts'
import type { Snapshot } from './model-state.ts'
import type { TensorSet } from './tensor-set.ts'

/** Views, not copies: valid until the snapshot is released. */
export function modelFilesOf(snapshot: Snapshot, jobDigest: Uint8Array): ModelFiles {
  const { version, parameters } = snapshot
  const variables = tensorsOf(parameters).map((tensor, index) => ({
    ...tensor,
    role: parameters.manifest[index]!.role,
  }))
  const slots = [...snapshot.slots].map(([slot, set]) => [slot, tensorsOf(set)] as const)
  return { version, jobDigest, variables, slots: new Map(slots) }
}

function tensorsOf({ manifest, tensors }: TensorSet): NamedTensor[] {
  return manifest.map(({ name, shape }, index) => ({ name, shape, data: tensors[index]! }))
}
