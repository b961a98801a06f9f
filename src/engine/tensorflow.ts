// SPDX-License-Identifier: Apache-2.0
/** The engine that runs programs in TensorFlow's C library: traced once, then run as a graph. */
import { silenceAdvertisement } from './backend.ts'
import type { Engine, EngineTensor, HostTensor, Program, ProgramDefinition, RunOptions } from './engine.ts'
import { EngineError } from './engine-error.ts'
import { Graph } from './graph.ts'
import { type Library, loadLibrary, type Pointer } from './library.ts'
import type { GraphOutput } from './lowering.ts'
import { record } from './recorder.ts'
import { Session } from './session.ts'
import { checkInputs, checkTensor, selectOutputs } from './signature.ts'
import { NativeTensor, toNative } from './tensor.ts'

export interface TensorflowOptions {
  readonly directory: string
  /** Of TensorFlow's pools, which the first engine of a process sizes for all. */
  readonly threads: number
}

export function createTensorflowEngine({ directory, threads }: TensorflowOptions): Engine {
  const library = loadLibrary(directory)
  silenceAdvertisement()
  const programs = new Set<Program>()
  return {
    kind: 'tensorflow',
    description: `TensorFlow ${library.version} with oneDNN, ${threads} ${threads === 1 ? 'thread' : 'threads'}`,
    compile(definition) {
      const program = compile(library, threads, definition, () => programs.delete(program))
      programs.add(program)
      return program
    },
    tensor(spec, data) {
      checkTensor(spec, data)
      return NativeTensor.allocate(library, spec, data)
    },
    async close() {
      await Promise.all([...programs].map((program) => program.close()))
    },
  }
}

function compile(library: Library, threads: number, definition: ProgramDefinition, onClose: () => void): Program {
  const { name, inputs: signature } = definition
  for (const spec of Object.values(signature)) checkTensor(spec)
  const graph = new Graph(library)
  const { recording, session } = attempt(() => {
    const recording = record(graph, definition)
    return { recording, session: new Session(library, graph, threads) }
  }, graph)
  const known = [...recording.outputs.keys()]
  let closing: Promise<void> | undefined

  function checkOpen(): void {
    if (closing !== undefined)
      throw new EngineError('program-closed', `Program '${name}' was used after it had been closed`, {
        hint: 'Close a program only when nothing uses it any more.',
      })
  }

  async function run(
    inputs: Readonly<Record<string, HostTensor>>,
    { outputs: wanted, signal }: RunOptions = {},
  ): Promise<Record<string, EngineTensor>> {
    signal?.throwIfAborted()
    checkInputs(name, signature, inputs)
    const chosen = selectOutputs(name, known, wanted)
    checkOpen()
    const fetches = chosen.map((output) => recording.outputs.get(output)!)
    const results = runPinned(inputs, fetches).then((pointers) => adopt(library, chosen, fetches, pointers))
    return signal === undefined ? results : orAborted(results, signal)
  }

  function runPinned(inputs: Readonly<Record<string, HostTensor>>, fetches: GraphOutput[]): Promise<Pointer[]> {
    const copies: NativeTensor[] = []
    try {
      const feeds = Object.entries(inputs).map(([input, tensor]) => {
        const { native, copied } = toNative(library, tensor)
        if (copied) copies.push(native)
        return [recording.inputs.get(input)!, native] as const
      })
      return session.run(feeds, fetches)
    } finally {
      for (const copy of copies) copy.dispose()
    }
  }

  return {
    name,
    inputs: signature,
    run,
    graphDef() {
      checkOpen()
      return graph.toGraphDef()
    },
    close() {
      closing ??= session.close().then(() => {
        graph.delete()
        onClose()
      })
      return closing
    },
  }
}

function attempt<T>(body: () => T, graph: Graph): T {
  try {
    return body()
  } catch (thrown) {
    graph.delete()
    throw thrown
  }
}

function adopt(
  library: Library,
  names: readonly string[],
  fetches: readonly GraphOutput[],
  pointers: readonly Pointer[],
): Record<string, EngineTensor> {
  const tensors = names.map((name, position) => {
    const { shape, dtype } = fetches[position]!
    return [
      name,
      new NativeTensor(library, { shape, dtype: dtype as HostTensor['dtype'] }, pointers[position]!),
    ] as const
  })
  return Object.fromEntries(tensors)
}

/**
 * A run cannot be interrupted inside TensorFlow. An abort rejects at once; the run goes on by itself, and what it gives is
 * disposed of.
 */
function orAborted(
  results: Promise<Record<string, EngineTensor>>,
  signal: AbortSignal,
): Promise<Record<string, EngineTensor>> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      reject(signal.reason)
      results.then(discard, () => {})
    }
    signal.addEventListener('abort', abort, { once: true })
    const settled = () => signal.removeEventListener('abort', abort)
    results.then(resolve, reject).finally(settled)
  })
}

function discard(results: Readonly<Record<string, EngineTensor>>): void {
  for (const tensor of Object.values(results)) tensor.dispose()
}
