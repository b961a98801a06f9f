// SPDX-License-Identifier: Apache-2.0
/**
 * The key that seals this machine's files, from what the platform gives (16 bytes for this very code, or for this signer)
 * or from what an owner provisioned (32 bytes). Neither is used as it is (docs/keys.md).
 */
import assert from 'node:assert/strict'
import { hkdfSync } from 'node:crypto'

/** `mrenclave`: this very code on this machine; `mrsigner`: any code of its signer there; `provisioned`: by an owner. */
export type SealingKeySource = 'mrenclave' | 'mrsigner' | 'provisioned'

/** 32 bytes: the master key of sealed files, different for each source and purpose. */
export function deriveSealingKey(material: Uint8Array, source: SealingKeySource, purpose: string): Uint8Array {
  const expected = source === 'provisioned' ? 32 : 16
  assert.equal(material.length, expected, `key material of ${source}`)
  // RFC 5869, 3.1: the material is uniformly random, so no salt is needed; each file has one (sealed-file.ts).
  return new Uint8Array(hkdfSync('sha256', material, '', `cloister/sealing-key/v1/${source}/${purpose}`, 32))
}
