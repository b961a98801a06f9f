// SPDX-License-Identifier: Apache-2.0
/**
 * Remembers results of pure functions over bytes: parsing a certificate, checking one signature, making a key object cost more than
 * looking them up, and every quote of a platform carries the same certificates. Only successes are kept, never time or trust;
 * what a peer can add is bounded, and the least recently used goes first.
 */
export function memoize<Input, Output>(
  limit: number,
  keyOf: (input: Input) => string,
  compute: (input: Input) => Output,
): (input: Input) => Output {
  const kept = new Map<string, { readonly output: Output }>()
  return (input) => {
    const key = keyOf(input)
    const hit = kept.get(key)
    const entry = hit ?? { output: compute(input) }
    if (hit) kept.delete(key)
    else if (kept.size >= limit) kept.delete(kept.keys().next().value!)
    kept.set(key, entry)
    return entry.output
  }
}
