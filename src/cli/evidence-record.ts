// SPDX-License-Identifier: Apache-2.0
/**
 * Evidence of every peer, kept with all that it was judged by, so that anybody can judge it again without this run: quote,
 * collateral, policy, time, and what `self` meant. It lies on the host, who may change or remove it: quote and collateral are
 * signed, that nothing is missing is not proven.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { CollateralSource } from '../attestation/collateral-source.ts'
import type { AttestedPeer } from '../attestation/policy.ts'
import type { Policy } from '../attestation/policy-format.ts'
import { replaceFile } from '../attestation/text-file.ts'

/** In a run directory. */
export const evidenceDirectory = 'evidence'
export const auditDirectory = 'audit'

/** What the quote of the start at this place of an audit log is judged by. */
export const collateralFile = (source: string, index: number): string => `${source}-start-${index}.collateral.json`

export interface EvidenceRecordOptions {
  readonly directory: string
  /** Of the process that judged: processes of one run share the directory. */
  readonly source: string
  readonly policy: Policy
  /** MRENCLAVE, hex. */
  readonly self: string
  readonly collateral: CollateralSource
  readonly onFailure: (error: unknown) => void
}

export class EvidenceRecord {
  readonly #options: EvidenceRecordOptions
  readonly #names = new WeakMap<AttestedPeer, string>()
  #peers = 0

  constructor(options: EvidenceRecordOptions) {
    this.#options = options
  }

  /** Begins to write, and says under which name: NAME.json, NAME.quote and NAME.collateral.json. */
  keep(peer: AttestedPeer, quote: Uint8Array): string {
    const known = this.#names.get(peer)
    if (known !== undefined) return known
    const name = this.#newName()
    this.#names.set(peer, name)
    this.#write(name, peer, quote).catch(this.#options.onFailure)
    return name
  }

  /** Begins to write what our own quote is judged by, which the audit log holds. */
  keepOwn(file: string, quote: Uint8Array): void {
    const { directory, collateral, onFailure } = this.#options
    const write = async (): Promise<void> =>
      replaceFile(join(directory, file), `${JSON.stringify(await collateral.collateralFor(quote), null, 2)}\n`)
    write().catch(onFailure)
  }

  /** A process that resumes a run adds to what it recorded before. */
  #newName(): string {
    const { directory, source } = this.#options
    for (;;) {
      const name = `${source}-peer-${++this.#peers}`
      if (!existsSync(join(directory, `${name}.quote`))) return name
    }
  }

  async #write(name: string, { evidence, root }: AttestedPeer, quote: Uint8Array): Promise<void> {
    const { directory, policy, self, collateral } = this.#options
    const time = new Date(evidence.verifiedAt).toISOString()
    const write = (file: string, value: unknown) =>
      replaceFile(join(directory, file), `${JSON.stringify(value, null, 2)}\n`)
    await write('policy.json', policy)
    await replaceFile(join(directory, `${name}.quote`), quote)
    await write(`${name}.collateral.json`, await collateral.collateralFor(quote))
    await write(`${name}.json`, { time, root, self, evidence })
  }
}
