// SPDX-License-Identifier: Apache-2.0
/**
 * The finaliser of MurmurHash3 (Appleby, public domain): a bijection of 32 bits under which neighbours land anywhere. Low
 * bits choose a row's server, high bits its place in that server's index, so that neither disturbs the other.
 */
export function mix32(value: number): number {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
