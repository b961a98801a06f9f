/**
 * Expected values: Keras 3.15 on TensorFlow 2.21 (keras.optimizers.*, ResourceApplyMomentum), three steps from `start` with
 * changing gradients and rates; Yogi by its paper's algorithm 2 in double precision.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cacheDirectory, requires } from '../../../test/requirements.ts'
import type { Engine } from '../../engine/engine.ts'
import { createJavascriptEngine } from '../../engine/javascript.ts'
import { engineDirectory } from '../../engine/locate.ts'
import { createTensorflowEngine } from '../../engine/tensorflow.ts'
import { mean } from '../aggregators/mean.ts'
import { manifestOf } from '../manifest.ts'
import { ModelState } from '../model-state.ts'
import { TensorSet } from '../tensor-set.ts'
import { adagrad } from './adagrad.ts'
import { adam } from './adam.ts'
import { momentum } from './momentum.ts'
import type { Optimizer } from './optimizer.ts'
import { sgd } from './sgd.ts'
import { yogi } from './yogi.ts'

const directory = process.env.CLOISTER_ENGINE ?? engineDirectory(cacheDirectory)

const start = [0.5, -1.25, 2.0, 0.03]
const gradients = [
  [0.1, -0.7, 0.0, 3.0],
  [-0.4, 0.2, 0.05, -1.5],
  [0.3, 0.3, -2.5, 0.25],
]
const rates = [0.1, 0.07, 0.02]

async function train(
  engine: Engine,
  optimizer: Optimizer,
): Promise<{ parameters: number[]; slots: Record<string, number[]> }> {
  const manifest = manifestOf([{ name: 'w', shape: [4], role: 'weight' }])
  const values = new Map([['w', Float32Array.from(start)]])
  const model = new ModelState({ engine, manifest, optimizer, aggregator: mean, weightDecay: 0, values })
  for (const [index, gradient] of gradients.entries()) {
    const update = TensorSet.allocate(engine, manifest)
    update.tensors[0]!.set(gradient)
    await model.apply([{ worker: 0, examples: 8, values: update }], rates[index]!)
  }
  const snapshot = model.snapshot()
  return {
    parameters: [...snapshot.parameters.tensors[0]!],
    slots: Object.fromEntries([...snapshot.slots].map(([slot, set]) => [slot, [...set.tensors[0]!]])),
  }
}

const references: [string, Optimizer, number[]][] = [
  ['sgd', sgd(), [0.5120000243186951, -1.2000000476837158, 2.0464999675750732, -0.17000000178813934]],
  [
    'momentum',
    momentum({ momentum: 0.9 }),
    [0.5112800598144531, -1.1481599807739258, 2.045599937438965, -0.3806000053882599],
  ],
  ['adagrad', adagrad(), [0.5137348771095276, -1.183577060699463, 2.0089058876037598, -0.039762359112501144]],
  [
    'adagrad from zero, with a large epsilon',
    adagrad({ initialAccumulator: 0, epsilon: 1e-3 }),
    [0.4606204330921173, -1.176928162574768, 1.9608335494995117, -0.04017740860581398],
  ],
  ['adam', adam(), [0.4386419951915741, -1.1178078651428223, 1.9604579210281372, -0.09369928389787674]],
  [
    'adam with other constants',
    adam({ beta1: 0.8, beta2: 0.95, epsilon: 1e-3 }),
    [0.44483137130737305, -1.1235284805297852, 1.9637484550476074, -0.0888768807053566],
  ],
  ['yogi', yogi(), [0.42004480878500583, -0.815832348133226, 1.9393983779769013, -0.386140126531906]],
]

function followsTheReferences(open: () => Engine): void {
  let engine: Engine
  beforeAll(() => {
    engine = open()
  })
  afterAll(() => engine.close())

  test.each(references)('%s follows the reference over three steps', async (_, optimizer, expected) => {
    const { parameters } = await train(engine, optimizer)
    for (const [index, value] of expected.entries()) {
      // Keras computes Adam's correction in float32, which is off by up to 5e-5 relative in the first steps.
      expect(Math.abs(parameters[index]! - value)).toBeLessThan(optimizer.name === 'adam' ? 2e-5 : 2e-6)
    }
  })

  test('momentum keeps the velocity without the rate', async () => {
    const { slots } = await train(engine, momentum({ momentum: 0.9 }))
    const expected = [0.021000027656555176, -0.08699998259544373, -2.4549999237060547, 1.3299998044967651]
    for (const [index, value] of expected.entries()) expect(slots.velocity![index]).toBeCloseTo(value, 6)
  })
}

describe('in JavaScript', () => followsTheReferences(createJavascriptEngine))

requires('tensorflow-library').describe('in TensorFlow', () => {
  followsTheReferences(() => createTensorflowEngine({ directory, threads: 1 }))
})
