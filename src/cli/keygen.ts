// SPDX-License-Identifier: Apache-2.0
/** `cloister keygen owner|age|sealing FILE`: keys that a data owner makes on their own machine. Only public halves are printed. */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { generateX25519Identity, identityToRecipient } from 'age-encryption'
import { CodedError } from '../errors.ts'
import { generateOwnerKey, parseOwnerKey } from '../keys/owner-key.ts'
import { type CliContext, exitStatus } from './context.ts'

export class KeyFileError extends CodedError<'key-file-exists'> {}

type Context = Pick<CliContext, 'cwd' | 'stdout' | 'now'>

/** Ed25519: its public half goes into jobs, and it signs what its holder hands to an enclave. */
export async function owner(context: Context, _options: unknown, file: string): Promise<number> {
  const pem = generateOwnerKey()
  write(context, file, pem)
  context.stdout.write(`${parseOwnerKey(pem, file).publicKey.toString('base64')}\n`)
  return exitStatus.ok
}

/** As age-keygen writes it. */
export async function age(context: Context, _options: unknown, file: string): Promise<number> {
  const identity = await generateX25519Identity()
  const recipient = await identityToRecipient(identity)
  write(context, file, `# created: ${context.now().toISOString()}\n# public key: ${recipient}\n${identity}\n`)
  context.stdout.write(`${recipient}\n`)
  return exitStatus.ok
}

/** 32 random bytes that seal checkpoints, so that another machine can go on from them. */
export async function sealing(context: Context, _options: unknown, file: string): Promise<number> {
  write(context, file, randomBytes(32))
  context.stdout.write(`${resolve(context.cwd, file)}\n`)
  return exitStatus.ok
}

function write({ cwd }: Context, file: string, content: string | Uint8Array): void {
  const path = resolve(cwd, file)
  try {
    writeFileSync(path, content, { flag: 'wx', mode: 0o600 })
  } catch (cause) {
    const got = cause instanceof Error ? cause.message : String(cause)
    const hint = 'A key is never overwritten: choose another name, or remove the old one yourself.'
    throw new KeyFileError('key-file-exists', `Expected to create ${path}: ${got}.`, { hint, cause })
  }
}
