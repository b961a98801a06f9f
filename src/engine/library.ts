// SPDX-License-Identifier: Apache-2.0
/**
 * TensorFlow's C API (tensorflow/c/c_api.h of 2.21) through koffi: the only file that crosses into native code. Callers check
 * sizes, shapes and lifetimes before they call; nothing here can. Inside an enclave both library files are trusted (measured)
 * files: the host can withhold them but not change them.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import koffi, { type LibraryHandle } from 'koffi'
import { EngineError } from './engine-error.ts'
import { libraryFiles, tensorflowVersion } from './locate.ts'

export type Pointer = bigint

/** `TF_Output`, passed by value. */
export interface NativeOutput {
  readonly oper: Pointer
  readonly index: number
}

const output = koffi.struct({ oper: 'void *', index: 'int' })
const pointer = 'void *'

/** name → result, parameters. The interface below says the same to TypeScript. */
const signatures = {
  TF_Version: ['str', []],
  TF_NewStatus: [pointer, []],
  TF_DeleteStatus: ['void', [pointer]],
  TF_GetCode: ['int', [pointer]],
  TF_Message: ['str', [pointer]],
  TF_AllocateTensor: [pointer, ['int', 'int64_t *', 'int', 'size_t']],
  TF_DeleteTensor: ['void', [pointer]],
  TF_TensorData: [pointer, [pointer]],
  TF_TensorByteSize: ['size_t', [pointer]],
  TF_NewGraph: [pointer, []],
  TF_DeleteGraph: ['void', [pointer]],
  TF_NewOperation: [pointer, [pointer, 'str', 'str']],
  TF_AddInput: ['void', [pointer, output]],
  TF_AddInputList: ['void', [pointer, koffi.pointer(output), 'int']],
  TF_SetAttrInt: ['void', [pointer, 'str', 'int64_t']],
  TF_SetAttrIntList: ['void', [pointer, 'str', 'int64_t *', 'int']],
  TF_SetAttrFloat: ['void', [pointer, 'str', 'float']],
  TF_SetAttrBool: ['void', [pointer, 'str', 'uint8_t']],
  TF_SetAttrString: ['void', [pointer, 'str', 'str', 'size_t']],
  TF_SetAttrType: ['void', [pointer, 'str', 'int']],
  TF_SetAttrShape: ['void', [pointer, 'str', 'int64_t *', 'int']],
  TF_SetAttrTensor: ['void', [pointer, 'str', pointer, pointer]],
  TF_FinishOperation: [pointer, [pointer, pointer]],
  TF_OperationNumOutputs: ['int', [pointer]],
  TF_OperationOutputType: ['int', [output]],
  TF_GraphGetTensorNumDims: ['int', [pointer, output, pointer]],
  TF_GraphGetTensorShape: ['void', [pointer, output, koffi.out('int64_t *'), 'int', pointer]],
  TF_GraphToGraphDef: ['void', [pointer, pointer, pointer]],
  TF_NewBuffer: [pointer, []],
  TF_DeleteBuffer: ['void', [pointer]],
  TF_NewSessionOptions: [pointer, []],
  TF_DeleteSessionOptions: ['void', [pointer]],
  TF_SetConfig: ['void', [pointer, 'uint8_t *', 'size_t', pointer]],
  TF_NewSession: [pointer, [pointer, pointer, pointer]],
  TF_CloseSession: ['void', [pointer, pointer]],
  TF_DeleteSession: ['void', [pointer, pointer]],
  TF_SessionRun: [
    'void',
    [pointer, pointer, pointer, pointer, 'int', pointer, pointer, 'int', pointer, 'int', pointer, pointer],
  ],
} as const

export interface CApi {
  TF_Version(): string
  TF_NewStatus(): Pointer
  TF_DeleteStatus(status: Pointer): void
  TF_GetCode(status: Pointer): number
  TF_Message(status: Pointer): string
  TF_AllocateTensor(type: number, shape: readonly number[], rank: number, bytes: number): Pointer
  TF_DeleteTensor(tensor: Pointer): void
  TF_TensorData(tensor: Pointer): Pointer | null
  TF_TensorByteSize(tensor: Pointer): number
  TF_NewGraph(): Pointer
  TF_DeleteGraph(graph: Pointer): void
  TF_NewOperation(graph: Pointer, type: string, name: string): Pointer
  TF_AddInput(description: Pointer, input: NativeOutput): void
  TF_AddInputList(description: Pointer, inputs: readonly NativeOutput[], count: number): void
  TF_SetAttrInt(description: Pointer, name: string, value: number): void
  TF_SetAttrIntList(description: Pointer, name: string, values: readonly number[], count: number): void
  TF_SetAttrFloat(description: Pointer, name: string, value: number): void
  TF_SetAttrBool(description: Pointer, name: string, value: number): void
  TF_SetAttrString(description: Pointer, name: string, value: string, length: number): void
  TF_SetAttrType(description: Pointer, name: string, value: number): void
  TF_SetAttrShape(description: Pointer, name: string, dimensions: readonly number[], rank: number): void
  TF_SetAttrTensor(description: Pointer, name: string, tensor: Pointer, status: Pointer): void
  TF_FinishOperation(description: Pointer, status: Pointer): Pointer | null
  TF_OperationNumOutputs(operation: Pointer): number
  TF_OperationOutputType(output: NativeOutput): number
  TF_GraphGetTensorNumDims(graph: Pointer, output: NativeOutput, status: Pointer): number
  TF_GraphGetTensorShape(graph: Pointer, output: NativeOutput, shape: number[], rank: number, status: Pointer): void
  TF_GraphToGraphDef(graph: Pointer, buffer: Pointer, status: Pointer): void
  TF_NewBuffer(): Pointer
  TF_DeleteBuffer(buffer: Pointer): void
  TF_NewSessionOptions(): Pointer
  TF_DeleteSessionOptions(options: Pointer): void
  TF_SetConfig(options: Pointer, config: Uint8Array, length: number, status: Pointer): void
  TF_NewSession(graph: Pointer, options: Pointer, status: Pointer): Pointer | null
  TF_CloseSession(session: Pointer, status: Pointer): void
  TF_DeleteSession(session: Pointer, status: Pointer): void
  /** Session, run options, feeds ×3, fetches ×3, targets ×2, metadata, status: runs on a thread of koffi's. */
  TF_SessionRun: { async(...args: [...(Pointer | number | null)[], (error: unknown) => void]): void }
}

export interface Library {
  readonly directory: string
  readonly version: string
  readonly api: CApi
  /** Calls with a status of its own and returns the result, or the status's message as `failure`. */
  attempt<T>(call: (status: Pointer) => T): { readonly result: T; readonly failure: string | undefined }
  /** `bytes` of native memory as an ArrayBuffer, without a copy and without ownership. */
  view(address: Pointer, bytes: number): ArrayBuffer
  allocate(bytes: number): Pointer
  free(address: Pointer): void
}

/** Native code is loaded once a process and never unloaded. */
let loaded: Library | undefined

export function loadLibrary(directory: string): Library {
  const location = resolve(directory)
  if (loaded === undefined) loaded = load(location)
  if (loaded.directory !== location)
    throw new EngineError(
      'engine-conflict',
      `This process runs TensorFlow from ${loaded.directory} and cannot load another from ${location}`,
      { hint: 'Use one library directory in a process.' },
    )
  return loaded
}

function load(directory: string): Library {
  const files = libraryFiles()
  const paths = [files.framework, files.api].map((file) => join(directory, file))
  for (const path of paths)
    if (!existsSync(path))
      throw new EngineError('engine-missing', `TensorFlow ${tensorflowVersion} is not there: no file ${path}`, {
        hint: 'Run `cloister engine install`, or name the directory that holds both library files.',
      })
  // TensorFlow leaves oneDNN off where the CPU lacks AVX-512 VNNI, at half the speed; it reads this while it is loaded.
  // The C function, because in a worker thread process.env is a copy that native code does not see.
  const c = standardLibrary()
  const setEnvironment = c.func('setenv', 'int', ['str', 'str', 'int'])
  setEnvironment('TF_ENABLE_ONEDNN_OPTS', '1', 1)
  setEnvironment('TF_CPP_MIN_LOG_LEVEL', '2', 0)
  quietly(c, () => {
    for (const path of paths) openForever(c, path)
  })
  const library = koffi.load(paths[1]!)
  const api = bind(library, directory)
  const version = api.TF_Version()
  if (version !== tensorflowVersion)
    throw new EngineError('engine-library', `${directory} holds TensorFlow ${version}, expected ${tensorflowVersion}`, {
      hint: 'Run `cloister engine install` and leave the engine directory out of the configuration.',
    })
  return {
    directory,
    version,
    api,
    attempt(call) {
      const status = api.TF_NewStatus()
      try {
        const result = call(status)
        return { result, failure: api.TF_GetCode(status) === 0 ? undefined : api.TF_Message(status) }
      } finally {
        api.TF_DeleteStatus(status)
      }
    },
    view: (address, bytes) => koffi.view(address, bytes),
    allocate: (bytes) => koffi.alloc('uint8_t', bytes) as Pointer,
    free: (address) => koffi.free(address),
  }
}

let c: LibraryHandle | undefined

/** The functions of C that this process has anyway. koffi must be configured before it loads anything, once. */
function standardLibrary(): LibraryHandle {
  if (c === undefined) {
    // TensorFlow's kernels may run on the calling thread: koffi's default of 128 KiB is too little for them.
    koffi.config({ async_stack_size: 4 * 1024 * 1024, resident_async_pools: 2 })
    c = koffi.load(null)
  }
  return c
}

/** RTLD_NODELETE: unloading TensorFlow, as koffi does when the process ends, crashes in its destructors. */
function openForever(c: LibraryHandle, path: string): void {
  const flags = process.platform === 'darwin' ? 0x2 | 0x8 | 0x80 : 0x2 | 0x100 | 0x1000
  const handle: unknown = c.func('dlopen', 'void *', ['str', 'int'])(path, flags)
  if (handle) return
  const reason: unknown = c.func('dlerror', 'str', [])()
  throw new EngineError('engine-library', `${path} could not be loaded: ${reason}`, {
    hint: 'The file is damaged, or made for another system. Run `cloister engine install`.',
  })
}

/**
 * TensorFlow greets on standard error in the middle of being loaded, before it looks at its log level; what goes wrong comes back
 * as dlerror and statuses. So standard error points nowhere for that moment.
 */
function quietly<T>(c: LibraryHandle, body: () => T): T {
  const duplicate = c.func('dup', 'int', ['int'])
  const redirect = c.func('dup2', 'int', ['int', 'int'])
  const close = c.func('close', 'int', ['int'])
  const nowhere: number = c.func('open', 'int', ['str', 'int'])('/dev/null', 1)
  const kept: number = duplicate(2)
  if (nowhere >= 0 && kept >= 0) redirect(nowhere, 2)
  try {
    return body()
  } finally {
    if (kept >= 0) redirect(kept, 2)
    for (const descriptor of [nowhere, kept]) if (descriptor >= 0) close(descriptor)
  }
}

function bind(library: LibraryHandle, directory: string): CApi {
  try {
    return Object.fromEntries(
      Object.entries(signatures).map(([name, [result, parameters]]) => [
        name,
        library.func(name, result, [...parameters]),
      ]),
    ) as unknown as CApi
  } catch (cause) {
    throw new EngineError('engine-library', `The library in ${directory} lacks a function of TensorFlow's C API`, {
      hint: 'Run `cloister engine install` and leave the engine directory out of the configuration.',
      cause,
    })
  }
}
