/** Training that stops in the middle of a chosen step. */
import type { Engine } from '../../src/engine/engine.ts'
import type { Training } from '../../src/federation/training.ts'
import { batchSize, linearTraining } from './federation.ts'
import { linearStep } from './linear-training.ts'

/** Training whose step number `step` (from 0) waits for `gate` before it computes, after telling `reached`. */
export function heldAt(
  engine: Engine,
  step: number,
  party: number,
  gate: Promise<unknown>,
  reached: () => void,
): Training {
  const sound = linearStep(engine, batchSize)
  let next = 0
  return linearTraining(engine, party, 2, {
    step: {
      async run(...input) {
        if (next++ === step) {
          reached()
          await gate
        }
        return await sound.run(...input)
      },
    },
  })
}
