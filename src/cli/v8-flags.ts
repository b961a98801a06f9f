// SPDX-License-Identifier: Apache-2.0
/**
 * How V8 collects garbage in a process that passes tensors on. Their buffers lie outside of V8's heap but count towards its
 * limits, and with a heap as small as ours that meant a full collection for every other update of the model.
 */
import { setFlagsFromString } from 'node:v8'

/**
 * MiB; V8's own default is 16. Buffers that die young are freed by the cheap collection instead of the full one: the share of CPU
 * time in garbage collection of `simulate --job examples/recommendation.json` fell from 12 to 6 %, for 40 MiB of a server. V8
 * reads it only as it starts, so it stands on command lines: in main.ts, its children's and the manifest's.
 */
export const startFlags: readonly string[] = ['--max-semi-space-size=32']

/** Let the heap grow fivefold before a full collection. */
export function letHeapGrow(): void {
  setFlagsFromString('--heap-growing-percent=400')
}
