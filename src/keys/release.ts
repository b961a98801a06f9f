// SPDX-License-Identifier: Apache-2.0
/**
 * How the final model leaves the enclave, as the job says: `sealed` for this code on this machine, `plain` for everybody with
 * access to the host's disk, or `age` for the owners whose public keys are in the job, and nobody else. A file appears under
 * its name when it is whole and on disk; nothing in the clear is ever written beside one that is not plain.
 */
import { writeFileAtomically } from '../storage/atomic-file.ts'
import { encryptAge } from './age.ts'

/** `recipients`: public keys of age, of those who can open it. */
export type Release =
  | { readonly form: 'sealed' | 'plain' }
  | { readonly form: 'age'; readonly recipients: readonly string[] }

export interface ReleaseOptions {
  readonly release: Release
  /** Seals a stream as storage seals checkpoints. */
  readonly seal: (source: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>
}

const suffixes = { sealed: '.sealed', plain: '', age: '.age' } as const satisfies Record<Release['form'], string>

/** Writes `path` with the form's suffix, and returns that path. */
export async function releaseFile(
  path: string,
  source: AsyncIterable<Uint8Array>,
  { release, seal }: ReleaseOptions,
): Promise<string> {
  const target = path + suffixes[release.form]
  const content =
    release.form === 'age' ? encryptAge(source, release.recipients) : release.form === 'sealed' ? seal(source) : source
  await writeFileAtomically(target, content)
  return target
}
