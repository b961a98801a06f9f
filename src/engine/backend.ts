// SPDX-License-Identifier: Apache-2.0
/** TensorFlow.js keeps one active backend for the whole process; what needs a certain one borrows it here. */
import assert from 'node:assert'
import * as tf from '@tensorflow/tfjs'

/** Runs `body`, which must not be asynchronous, on the named backend and restores the one before it, also on throw. */
export function withBackend<T>(name: string, body: () => T): T {
  const before = tf.getBackend()
  activate(name)
  try {
    return body()
  } catch (thrown) {
    releaseTape()
    throw thrown
  } finally {
    if (before) activate(before)
  }
}

/** `setBackend` is asynchronous in its type only: for a backend whose factory is synchronous it has switched on return. */
function activate(name: string): void {
  if (tf.getBackend() === name) return
  void tf.setBackend(name)
  assert.equal(tf.getBackend(), name, `TensorFlow.js has no backend '${name}'`)
}

/** A failed differentiation leaves what its forward pass saved for the backward pass; nobody else releases it. */
function releaseTape(): void {
  const { state } = tf.engine()
  if (state.gradientDepth > 0) return
  for (const { saved } of state.activeTape ?? []) for (const tensor of saved ?? []) tensor.dispose()
  state.activeTape = []
}

/** On first use in Node the CPU backend prints an advertisement for the abandoned tfjs-node package. */
export function silenceAdvertisement(): void {
  withBackend('cpu', () => {
    const backend = tf.backend() as { firstUse?: boolean }
    backend.firstUse = false
  })
}
