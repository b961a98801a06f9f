// SPDX-License-Identifier: Apache-2.0
/**
 * The engine without native code: TensorFlow.js's own CPU backend. Slow, but the same programs with the same results: the
 * oracle of every kernel test, and what is left where TensorFlow's library cannot be had.
 */
import { setImmediate } from 'node:timers/promises'
import * as tf from '@tensorflow/tfjs'
import { fromBfloat16, toBfloat16 } from '../models/bfloat16.ts'
import { silenceAdvertisement, withBackend } from './backend.ts'
import type {
  Engine,
  EngineTensor,
  HostTensor,
  Program,
  ProgramDefinition,
  RunOptions,
  TensorSpec,
  TypedArray,
} from './engine.ts'
import { EngineError } from './engine-error.ts'
import { mendGradients } from './kernels/gradients.ts'
import { mendResizing } from './kernels/resizing.ts'
import { bytesOf, checkInputs, checkTensor, selectOutputs, viewOf } from './signature.ts'

export function createJavascriptEngine(): Engine {
  silenceAdvertisement()
  mendGradients()
  mendResizing()
  const programs = new Set<Program>()
  return {
    kind: 'javascript',
    description: `TensorFlow.js ${tf.version_core} in JavaScript, one thread`,
    compile(definition) {
      const program = compile(definition)
      programs.add(program)
      return program
    },
    tensor(spec, data) {
      checkTensor(spec, data)
      return arrayTensor(spec, data?.slice() ?? zeros(spec))
    },
    async close() {
      await Promise.all([...programs].map((program) => program.close()))
      programs.clear()
    },
  }
}

function compile(definition: ProgramDefinition): Program {
  const { name, inputs: signature } = definition
  const running = new Set<Promise<unknown>>()
  let closed = false
  return {
    name,
    inputs: signature,
    async run(inputs, { outputs: wanted, signal } = {}) {
      signal?.throwIfAborted()
      checkInputs(name, signature, inputs)
      if (closed)
        throw new EngineError('program-closed', `Program '${name}' was used after it had been closed`, {
          hint: 'Close a program only when nothing uses it any more.',
        })
      // A step holds the thread from start to end: whoever waits for the event loop gets it between two of them.
      const turn = setImmediate()
      running.add(turn)
      await turn
      running.delete(turn)
      signal?.throwIfAborted()
      return compute(definition, inputs, wanted)
    },
    graphDef: () => undefined,
    async close() {
      closed = true
      await Promise.all(running)
    },
  }
}

function compute(
  { name, build, rounded }: ProgramDefinition,
  inputs: Readonly<Record<string, HostTensor>>,
  wanted: RunOptions['outputs'],
): Record<string, EngineTensor> {
  return withBackend('cpu', () => {
    const tensors = tf.tidy(() => {
      const bound = Object.entries(inputs).map(([field, { data, shape, dtype }]) => {
        if (data instanceof Uint16Array) return [field, tf.tensor(fromBfloat16(data), [...shape])] as const
        const values = dtype === 'uint8' ? Int32Array.from(data) : data
        return [field, tf.tensor(values, [...shape], dtype === 'float32' ? 'float32' : 'int32')] as const
      })
      return build(Object.fromEntries(bound))
    })
    try {
      const chosen = selectOutputs(name, Object.keys(tensors), wanted)
      return Object.fromEntries(
        chosen.map((output) => [output, copyOut(tensors[output]!, rounded?.has(output) === true)]),
      )
    } finally {
      tf.dispose(tensors)
    }
  })
}

/** Truth values become int32, as the traced program gives them. */
function copyOut(tensor: tf.Tensor, round: boolean): EngineTensor {
  const { shape } = tensor
  const dtype = tensor.dtype === 'float32' ? 'float32' : 'int32'
  const values = tensor.dataSync()
  if (round) return arrayTensor({ shape, dtype: 'bfloat16' }, toBfloat16(Float32Array.from(values)))
  return arrayTensor({ shape, dtype }, dtype === 'float32' ? Float32Array.from(values) : Int32Array.from(values))
}

function zeros(spec: TensorSpec): TypedArray {
  return viewOf(spec.dtype, new ArrayBuffer(bytesOf(spec)))
}

function arrayTensor({ shape, dtype }: TensorSpec, data: TypedArray): EngineTensor {
  return { shape, dtype, data, dispose() {} }
}
