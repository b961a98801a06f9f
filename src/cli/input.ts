// SPDX-License-Identifier: Apache-2.0
/** Files that the user of a command names; what cannot be read says which and why. */
import { readFileSync } from 'node:fs'
import { CodedError } from '../errors.ts'

export class InputError extends CodedError<'input-unreadable' | 'input-not-json'> {}

export function readInput(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    const got = cause instanceof Error ? cause.message : String(cause)
    const hint = 'Check the path and that you may read the file.'
    throw new InputError('input-unreadable', `Expected a file at ${path}: ${got}.`, { hint, cause })
  }
}

/** `hint` says what writes such a file. */
export function readJsonInput(path: string, hint: string): unknown {
  const bytes = readInput(path)
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    const got = cause instanceof Error ? cause.message : String(cause)
    throw new InputError('input-not-json', `Expected JSON in ${path}: ${got}.`, { hint, cause })
  }
}
