// SPDX-License-Identifier: Apache-2.0
/**
 * The model's variables as server and workers number them: weights first, then what is trained without decay, then
 * statistics, each in the model's own order, so that each role is one contiguous stretch of memory on the server.
 */
import type { ModelVariable } from '../models/model.ts'
import { FederationError } from './federation-error.ts'

export type TensorRole = ModelVariable['role']

export interface ManifestEntry {
  readonly name: string
  readonly shape: readonly number[]
  readonly role: TensorRole
  /** Product of `shape`. */
  readonly elements: number
}

export type Manifest = readonly ManifestEntry[]

/** In the order of the manifest. */
export const tensorRoles = ['weight', 'unregularised', 'statistic'] as const satisfies readonly TensorRole[]

export function manifestOf(variables: readonly Pick<ModelVariable, 'name' | 'shape' | 'role'>[]): Manifest {
  return tensorRoles.flatMap((role) =>
    variables
      .filter((variable) => variable.role === role)
      .map(({ name, shape }) => ({ name, shape: [...shape], role, elements: shape.reduce((a, b) => a * b, 1) })),
  )
}

/** Throws the first difference between our model and the peer's, tensor by tensor. */
export function verifySameManifest(ours: Manifest, theirs: Manifest): void {
  const hint = 'Server and workers must run the same job with the same version of Cloister.'
  for (const [index, entry] of theirs.entries()) {
    const own = ours[index]
    if (own?.name !== entry.name) {
      const missing = own !== undefined && !theirs.some(({ name }) => name === own.name)
      throw missing
        ? new FederationError('tensor-missing', `expected tensor ${index} to be ${own.name}, got ${entry.name}`, {
            hint,
          })
        : new FederationError('tensor-unknown', `expected ${own?.name ?? 'no further tensor'}, got ${entry.name}`, {
            hint,
          })
    }
    if (own.shape.length !== entry.shape.length || own.shape.some((size, axis) => size !== entry.shape[axis])) {
      throw new FederationError(
        'tensor-shape-mismatch',
        `${entry.name}: expected shape [${own.shape}], got [${entry.shape}]`,
        { hint },
      )
    }
    if (own.role !== entry.role) {
      throw new FederationError('tensor-role-mismatch', `${entry.name}: expected role ${own.role}, got ${entry.role}`, {
        hint,
      })
    }
  }
  const next = ours[theirs.length]
  if (next !== undefined) {
    throw new FederationError(
      'tensor-missing',
      `expected ${ours.length} tensors, got ${theirs.length}: no ${next.name}`,
      {
        hint,
      },
    )
  }
}
