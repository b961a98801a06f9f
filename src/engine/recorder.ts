// SPDX-License-Identifier: Apache-2.0
/**
 * A TensorFlow.js backend that computes nothing: each kernel that a program runs on it becomes operations of a TensorFlow
 * graph, through the table of lowerings. TensorFlow.js differentiates above this seam, so gradients are recorded alike.
 */
import assert from 'node:assert'
import * as tf from '@tensorflow/tfjs'
import { CodedError } from '../errors.ts'
import { withBackend } from './backend.ts'
import type { ProgramDefinition } from './engine.ts'
import { EngineError } from './engine-error.ts'
import type { Graph } from './graph.ts'
import { mendGradients } from './kernels/gradients.ts'
import type { GraphDataType, GraphOutput } from './lowering.ts'
import { lowerings } from './lowerings/table.ts'

const backendName = 'cloister-recorder'

export interface Recording {
  readonly inputs: ReadonlyMap<string, GraphOutput>
  readonly outputs: ReadonlyMap<string, GraphOutput>
}

/** Traces the program into the graph. Synchronous; whatever TensorFlow.js held for it is released when it returns. */
export function record(graph: Graph, definition: ProgramDefinition): Recording {
  const recorder = install()
  return withBackend(backendName, () => recorder.trace(graph, definition))
}

let installed: Recorder | undefined

function install(): Recorder {
  if (installed === undefined) {
    const recorder = new Recorder()
    tf.registerBackend(backendName, () => recorder, 0)
    mendGradients()
    installed = recorder
  }
  const recorder = installed
  // Kernels that exist but cannot be lowered are registered too, so that they fail by name. Looked at in each trace
  // because anyone may have registered more.
  const names = [...lowerings.keys(), ...tf.getKernelsForBackend('cpu').map(({ kernelName }) => kernelName)]
  for (const kernelName of new Set(names))
    if (tf.getKernel(kernelName, backendName) === undefined)
      tf.registerKernel({
        kernelName,
        backendName,
        kernelFunc: ({ inputs, attrs }) => recorder.kernel(kernelName, inputs, attrs ?? {}),
      })
  return recorder
}

/** A tensor of the trace: an output of the graph, or values given by JavaScript that become a constant when used. */
interface Entry {
  output?: GraphOutput
  readonly values?: ArrayLike<number>
  readonly shape: readonly number[]
  readonly dtype: tf.DataType
  /** The named scopes that it was made in. */
  readonly scope: string
  references: number
}

interface Trace {
  readonly program: string
  readonly graph: Graph
  readonly entries: Map<object, Entry>
  /** Tensors of other backends, captured as constants once. */
  readonly captured: Map<object, GraphOutput>
}

/** Operations that draw random numbers in JavaScript, where a trace would freeze them. */
const random = /^(random\w*|truncatedNormal|rand)__op$/

class Recorder implements tf.KernelBackend {
  #trace: Trace | undefined

  trace(graph: Graph, { name, inputs, build, rounded }: ProgramDefinition): Recording {
    assert(this.#trace === undefined, 'a trace inside a trace')
    const trace: Trace = { program: name, graph, entries: new Map(), captured: new Map() }
    this.#trace = trace
    try {
      const placeholders = new Map<string, GraphOutput>()
      const outputs = new Map<string, GraphOutput>()
      tf.tidy(() => {
        const bound = Object.entries(inputs).map(([input, { shape, dtype }]) => {
          const placeholder = graph.placeholder(input, shape, dtype)
          placeholders.set(input, placeholder)
          // TensorFlow.js has no uint8 and no bfloat16: the program sees int32 and float32.
          const seen = { uint8: 'int32', bfloat16: 'float32', int32: undefined, float32: undefined } as const
          const wider = seen[dtype]
          const value = wider === undefined ? placeholder : cast(graph, placeholder, wider)
          return [input, tf.engine().makeTensorFromTensorInfo(this.#keep(value, ''))] as const
        })
        for (const [output, tensor] of Object.entries(build(Object.fromEntries(bound)))) {
          const value = this.#resolve(tensor)
          const given = value.dtype === 'bool' ? 'int32' : rounded?.has(output) ? 'bfloat16' : value.dtype
          outputs.set(output, graph.output(output, given === value.dtype ? value : cast(graph, value, given)))
        }
      })
      this.#checkVariables(trace)
      return { inputs: placeholders, outputs }
    } catch (thrown) {
      if (thrown instanceof CodedError || thrown instanceof assert.AssertionError) throw thrown
      const message = thrown instanceof Error ? thrown.message : String(thrown)
      throw new EngineError('trace-failed', `Program '${name}' could not be traced: ${message}`, {
        hint: 'The function of the program itself failed: check the shapes and types that it is given.',
        cause: thrown,
      })
    } finally {
      this.#trace = undefined
    }
  }

  kernel(name: string, inputs: tf.NamedTensorInfoMap, attributes: object): tf.TensorInfo | tf.TensorInfo[] {
    const { graph, program } = this.#current()
    const lowering = lowerings.get(name)
    if (lowering === undefined)
      throw new EngineError(
        'kernel-unsupported',
        `Program '${program}' uses kernel '${name}', which cannot be traced`,
        {
          hint: 'Write it with other TensorFlow.js operations, or run with `--engine javascript`.',
        },
      )
    const given = Object.entries(inputs).filter(([, tensor]) => tensor !== undefined && tensor !== null)
    const resolved = Object.fromEntries(given.map(([input, tensor]) => [input, this.#resolve(tensor!)]))
    const scope = this.#scope(given.map(([, tensor]) => tensor!))
    const outputs = graph.within([program, scope].filter(Boolean).join('/'), () =>
      lowering(graph, resolved, { ...attributes }),
    )
    return Array.isArray(outputs)
      ? outputs.map((output) => this.#keep(output, scope))
      : this.#keep(outputs as GraphOutput, scope)
  }

  /**
   * The box of TensorBoard: layers and the scopes that the program names (`tf.tidy('block1', …)`), below the `forward` and `backward` of
   * TensorFlow.js. It names nothing else in the backward pass; there an operation goes where what it reads was made.
   */
  #scope(inputs: readonly tf.TensorInfo[]): string {
    const named = scopeNames().filter((name) => name !== 'unnamed scope' && !name.endsWith('__op'))
    if (named.at(-1) !== 'backward') return named.join('/')
    const { entries } = this.#current()
    const origins = inputs.map(({ dataId }) => entries.get(dataId)?.scope ?? '')
    const origin =
      origins.find((scope) => scope.includes('forward/')) ?? origins.find((scope) => scope.includes('backward/'))
    return [...named, ...(origin?.replace(/.*?(forward|backward)\//, '').split('/') ?? [])].join('/')
  }

  #current(): Trace {
    assert(this.#trace !== undefined, 'the recording backend is active only inside a trace')
    return this.#trace
  }

  #resolve(tensor: tf.TensorInfo): GraphOutput {
    const { graph, entries, captured, program } = this.#current()
    const entry = entries.get(tensor.dataId)
    if (entry !== undefined) {
      entry.output ??= graph.within(program, () => graph.constant(entry.values!, entry.shape, graphType(entry.dtype)))
      return entry.output
    }
    if (tensor instanceof tf.Variable)
      throw new EngineError(
        'trace-variable',
        `Program '${program}' reads the variable '${tensor.name}', not an input`,
        {
          hint: 'Its value would be frozen in the graph: list it among the variables of the model, or make it an input.',
        },
      )
    let constant = captured.get(tensor.dataId)
    if (constant === undefined) {
      const values = tf.engine().readSync(tensor.dataId) as ArrayLike<number>
      constant = graph.within(program, () => graph.constant(values, tensor.shape, graphType(tensor.dtype)))
      captured.set(tensor.dataId, constant)
    }
    return constant
  }

  #keep(output: GraphOutput, scope: string): tf.TensorInfo {
    if (output.shape.some((size) => size < 0))
      throw new EngineError('trace-failed', `The shape of a result depends on values: [${output.shape}]`, {
        hint: 'A traced program has fixed shapes: use a form of the operation whose result does not depend on data.',
      })
    assert(
      output.dtype === 'float32' || output.dtype === 'int32' || output.dtype === 'bool',
      `${output.dtype} in a trace`,
    )
    const { shape, dtype } = output
    const dataId = {}
    this.#current().entries.set(dataId, { output, shape, dtype, scope, references: 1 })
    return { dataId, shape: [...shape], dtype }
  }

  /** A variable that is not an input but holds a value of the trace has lost its own: say so rather than break it later. */
  #checkVariables({ program, entries }: Trace): void {
    for (const variable of Object.values(tf.engine().state.registeredVariables))
      if (entries.has(variable.dataId))
        throw new EngineError(
          'trace-variable',
          `Program '${program}' made or assigned the variable '${variable.name}'`,
          {
            hint: 'Make variables before tracing, and list those that the program assigns among the variables of the model.',
          },
        )
  }

  // What TensorFlow.js expects of a backend.

  write(values: tf.BackendValues, shape: number[], dtype: tf.DataType): object {
    const { entries, program } = this.#current()
    const scopes: readonly { name: string }[] = tf.engine().state.scopeStack
    const drawing = scopes.find(({ name }) => random.test(name))
    if (drawing !== undefined)
      throw new EngineError(
        'trace-random',
        `Program '${program}' draws random numbers with ${drawing.name.slice(0, -4)}`,
        {
          hint: 'They would be the same in every run: draw from the `Random` that the model is given.',
        },
      )
    const dataId = {}
    entries.set(dataId, { values: values as ArrayLike<number>, shape, dtype, scope: '', references: 1 })
    return dataId
  }

  readSync(dataId: object): tf.BackendValues {
    const values = this.#trace?.entries.get(dataId)?.values
    if (values !== undefined) return values as tf.BackendValues
    const where = this.#trace === undefined ? 'after its trace' : `while '${this.#trace.program}' is traced`
    throw new EngineError('trace-read', `A tensor's value was read ${where}, when it has none`, {
      hint: 'A traced program is recorded, not run: remove dataSync(), data(), arraySync() and print() from its function.',
    })
  }

  async read(dataId: object): Promise<tf.BackendValues> {
    return this.readSync(dataId)
  }

  move(): never {
    throw new assert.AssertionError({ message: 'tensors of other backends are captured, never moved' })
  }

  disposeData(dataId: object, force = false): boolean {
    const entry = this.#trace?.entries.get(dataId)
    if (entry === undefined) return true
    entry.references--
    if (!force && entry.references > 0) return false
    this.#trace?.entries.delete(dataId)
    return true
  }

  incRef(dataId: object): void {
    const entry = this.#trace?.entries.get(dataId)
    if (entry !== undefined) entry.references++
  }

  refCount(dataId: object): number {
    return this.#trace?.entries.get(dataId)?.references ?? 0
  }

  numDataIds(): number {
    return this.#trace?.entries.size ?? 0
  }

  memory(): { unreliable: boolean } {
    return { unreliable: false }
  }

  floatPrecision(): 32 {
    return 32
  }

  epsilon(): number {
    return 1e-7
  }

  timerAvailable(): boolean {
    return false
  }

  time(): never {
    throw new assert.AssertionError({ message: 'a trace takes no time to measure' })
  }

  readToGPU(): never {
    throw new assert.AssertionError({ message: 'no GPU' })
  }

  createTensorFromGPUData(): never {
    throw new assert.AssertionError({ message: 'no GPU' })
  }

  dispose(): void {}
}

/** Of TensorFlow.js: explicit ones, and one for each operation under way. */
function scopeNames(): string[] {
  const scopes: readonly { name: string }[] = tf.engine().state.scopeStack
  return scopes.map(({ name }) => name)
}

function cast(graph: Graph, value: GraphOutput, to: GraphDataType): GraphOutput {
  return graph.add('Cast', [value], { DstT: { type: to } })[0]!
}

function graphType(dtype: tf.DataType): GraphDataType {
  if (dtype === 'float32' || dtype === 'int32' || dtype === 'bool') return dtype
  throw new EngineError('trace-failed', `A traced program cannot hold elements of type ${dtype}`, {
    hint: 'Use float32, int32 and bool.',
  })
}
