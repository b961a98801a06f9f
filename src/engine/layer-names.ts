// SPDX-License-Identifier: Apache-2.0
/** Lets a traced graph show the layers of a `tf.LayersModel`: while `body` runs, each computes in a scope of its name. */
import * as tf from '@tensorflow/tfjs'

interface Layer {
  readonly name: string
}

type Call = (this: Layer, inputs: unknown, kwargs: unknown) => tf.Tensor | tf.Tensor[]

/** Runs `body`, which must be synchronous; the layers' own methods come back, also on throw. */
export function withLayerNames<T>(body: () => T): T {
  const restore: (() => void)[] = []
  try {
    for (const prototype of layerPrototypes()) {
      const original = prototype.call
      prototype.call = function (inputs, kwargs) {
        const call = () => original.call(this, inputs, kwargs)
        // A class that asks its base class is one layer still.
        return tf.engine().state.activeScope?.name === this.name ? call() : tf.tidy(this.name, call)
      }
      restore.push(() => {
        prototype.call = original
      })
    }
    return body()
  } finally {
    for (const undo of restore) undo()
  }
}

/** Of all registered classes and those that they extend, the ones with a `call` of their own. */
function layerPrototypes(): Set<{ call: Call }> {
  const found = new Set<{ call: Call }>()
  for (const [layerClass] of Object.values(tf.serialization.SerializationMap.getMap().classNameMap)) {
    let prototype: object | null = layerClass.prototype as object
    while (prototype instanceof tf.layers.Layer) {
      if (Object.hasOwn(prototype, 'call')) found.add(prototype as unknown as { call: Call })
      prototype = Object.getPrototypeOf(prototype) as object | null
    }
  }
  return found
}
