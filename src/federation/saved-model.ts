// SPDX-License-Identifier: Apache-2.0
/** One server's part of the model as it is released. */
import type { ModelPart } from '../storage/model-files.ts'
import type { ModelState, Snapshot } from './model-state.ts'

/** Views, not copies: valid until the snapshot is released and while nothing trains. */
export function modelPartOf(
  { tables }: Pick<ModelState, 'tables'>,
  { version, parameters }: Snapshot,
  origin: Pick<ModelPart, 'jobDigest' | 'server' | 'servers'>,
): ModelPart {
  const { manifest, tensors } = parameters
  return {
    ...origin,
    version,
    variables: manifest.map(({ name, shape, role }, index) => ({ name, shape, role, data: tensors[index]! })),
    tables: [...tables.values()].map((table) => ({
      name: table.spec.name,
      width: table.spec.width,
      rows: table.size,
      blocks: () => table.all(),
    })),
  }
}
