// SPDX-License-Identifier: Apache-2.0
/**
 * The secrets that owners have handed to this enclave. They are in its memory, and, so that a restart need not ask again, in one
 * sealed file (docs/storage-format.md) that only this code on this machine opens, for this job. The host can delete that file or bring back an older one, and so make owners provision again; nothing more.
 */
import { existsSync } from 'node:fs'
import type { EventSink } from '../observability/events.ts'
import { readSealed, type SealingOptions, writeSealed } from '../storage/sealed-file.ts'
import { StorageError } from '../storage/storage-error.ts'
import { parseIdentities } from './age.ts'
import { KeysError } from './keys-error.ts'
import type { ProvidedKey } from './provisioning-exchange.ts'

/** `age-identity`: text with identities that open data files. `sealing-key`: 32 bytes for checkpoints. */
export type KeyKind = 'age-identity' | 'sealing-key'

export interface WantedKey {
  readonly name: string
  readonly kind: KeyKind
  /** Ed25519 public keys, base64, of those who may provide it. */
  readonly owners: readonly string[]
}

export interface KeyStore {
  readonly path: string
  /** Key from the platform, for MRENCLAVE; job and process: a file of another one does not open. */
  readonly sealing: SealingOptions
}

export interface ProvisionedKeysOptions {
  readonly wanted: readonly WantedKey[]
  readonly store: KeyStore
  readonly report: EventSink
}

const sealingKeyBytes = 32

export class ProvisionedKeys {
  readonly #options: ProvisionedKeysOptions
  readonly #held: Map<string, Buffer>
  readonly #waiting = new Set<() => void>()
  #writing: Promise<void> = Promise.resolve()

  private constructor(options: ProvisionedKeysOptions, held: Map<string, Buffer>) {
    this.#options = options
    this.#held = held
  }

  /** Takes up what an earlier process of this enclave was given. */
  static async open(options: ProvisionedKeysOptions): Promise<ProvisionedKeys> {
    const wanted = new Set(options.wanted.map(({ name }) => name))
    return new ProvisionedKeys(
      options,
      new Map([...(await unseal(options.store))].filter(([name]) => wanted.has(name))),
    )
  }

  isOwner(publicKey: string): boolean {
    return this.#options.wanted.some(({ owners }) => owners.includes(publicKey))
  }

  /** Names that nobody has provided yet. */
  get missing(): readonly string[] {
    return this.#options.wanted.map(({ name }) => name).filter((name) => !this.#held.has(name))
  }

  /** Resolves when the key is sealed on disk. The same value again changes nothing; another one is refused. */
  async accept({ owner, name, secret }: ProvidedKey): Promise<void> {
    const wanted = this.#options.wanted.find((one) => one.name === name)
    if (!wanted?.owners.includes(owner)) {
      const theirs = this.#options.wanted.filter(({ owners }) => owners.includes(owner)).map((one) => one.name)
      throw new KeysError('key-not-wanted', `expected one of the keys ${theirs.join(', ')}, got "${name}"`, {
        hint: 'The job says which keys an enclave takes, and from whom.',
      })
    }
    requireKind(wanted.kind, secret)
    const held = this.#held.get(name)
    if (held !== undefined && !held.equals(secret)) {
      throw new KeysError('key-already-provisioned', `expected the key ${name} that is held already, got another`, {
        hint: 'A key is not replaced while a job runs: start the enclave anew without its file of provisioned keys.',
      })
    }
    if (held === undefined) {
      this.#held.set(name, Buffer.from(secret))
      await this.#save().catch((error) => {
        this.#held.delete(name)
        throw error
      })
      this.#options.report({ kind: 'key-provisioned', name, owner })
    }
    for (const wake of this.#waiting) wake()
  }

  /** The key, as soon as it is there. `address`: where owners reach this enclave, for the message. */
  async waitFor(
    name: string,
    {
      timeoutMs,
      signal,
      address,
    }: { readonly timeoutMs: number; readonly signal: AbortSignal; readonly address: string },
  ): Promise<Uint8Array> {
    const late = AbortSignal.timeout(timeoutMs)
    const over = AbortSignal.any([signal, late])
    for (;;) {
      const held = this.#held.get(name)
      if (held !== undefined) return Buffer.from(held)
      if (over.aborted) {
        const got = late.aborted ? `none within ${timeoutMs / 1000} s` : 'a stop while waiting for it'
        throw new KeysError('key-not-provisioned', `expected the key ${name}, got ${got}`, {
          hint: `Its owner runs: cloister provision ${address} --job FILE --policy FILE --owner FILE --name ${name} --key FILE`,
          cause: over.reason,
        })
      }
      await this.#change(over)
    }
  }

  #change(over: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake)
        over.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      over.addEventListener('abort', wake)
    })
  }

  /** One after the other, each with all that is held by then. */
  #save(): Promise<void> {
    const { path, sealing } = this.#options.store
    const write = async (): Promise<void> => {
      const keys = [...this.#held].map(([name, key]) => [name, key.toString('base64')])
      await writeSealed(path, [Buffer.from(JSON.stringify(Object.fromEntries(keys)))], sealing)
    }
    this.#writing = this.#writing.then(write, write)
    return this.#writing
  }
}

function requireKind(kind: KeyKind, secret: Buffer): void {
  if (kind === 'age-identity') parseIdentities(secret.toString('utf8'))
  else if (secret.length !== sealingKeyBytes) {
    throw new KeysError('sealing-key-malformed', `expected ${sealingKeyBytes} bytes, got ${secret.length}`, {
      hint: 'cloister keygen sealing FILE writes such a key.',
    })
  }
}

async function unseal({ path, sealing }: KeyStore): Promise<ReadonlyMap<string, Buffer>> {
  if (!existsSync(path)) return new Map()
  try {
    const parts: Buffer[] = []
    for await (const part of readSealed(path, sealing)) parts.push(part)
    const keys = Object.entries(JSON.parse(Buffer.concat(parts).toString('utf8')) as Record<string, string>)
    return new Map(keys.map(([name, key]) => [name, Buffer.from(key, 'base64')]))
  } catch (cause) {
    const got = cause instanceof StorageError ? cause.message : 'another content'
    throw new KeysError('key-store-damaged', `${path}: expected keys that this enclave sealed, got: ${got}`, {
      hint: 'It was changed, or is of another build, machine or job: delete it and provision the keys again.',
      cause,
    })
  }
}
