// SPDX-License-Identifier: Apache-2.0
/** A TensorFlow graph under construction: operations, attributes, constants. Shapes are TensorFlow's own inference. */
import assert from 'node:assert'
import { EngineError } from './engine-error.ts'
import type { Library, NativeOutput, Pointer } from './library.ts'
import type { Attribute, GraphBuilder, GraphDataType, GraphOutput } from './lowering.ts'
import { elementCount } from './signature.ts'
import { nativeTypes } from './tensor.ts'

const dataTypes = new Map(Object.entries(nativeTypes).map(([name, number]) => [number, name as GraphDataType]))

/** Constants up to this many elements are shared when equal; larger ones of a single value are filled at run time. */
const smallConstant = 64

export class Graph implements GraphBuilder {
  readonly pointer: Pointer
  readonly #library: Library
  readonly #names = new Map<string, number>()
  readonly #constants = new Map<string, GraphOutput>()
  #scope = ''

  constructor(library: Library) {
    this.#library = library
    this.pointer = library.api.TF_NewGraph()
  }

  delete(): void {
    this.#library.api.TF_DeleteGraph(this.pointer)
  }

  /** Prefixes the names of what `body` adds, so that TensorBoard draws it as one box. */
  within<T>(scope: string, body: () => T): T {
    const before = this.#scope
    this.#scope = `${scope}/`
    try {
      return body()
    } finally {
      this.#scope = before
    }
  }

  add(
    type: string,
    inputs: readonly (GraphOutput | readonly GraphOutput[])[],
    attributes: Readonly<Record<string, Attribute>> = {},
  ): readonly GraphOutput[] {
    return this.#operation(type, this.#scope + type, inputs, attributes)
  }

  constant(values: ArrayLike<number>, shape: readonly number[], dtype: GraphDataType): GraphOutput {
    assert.equal(values.length, elementCount(shape), 'a constant must fill its shape')
    if (values.length > smallConstant) {
      const first = values[0]!
      if (!Array.prototype.every.call(values, (value) => Object.is(value, first)))
        return this.#constant(values, shape, dtype)
      const dimensions = this.constant(shape, [shape.length], 'int32')
      return this.add('Fill', [dimensions, this.constant([first], [], dtype)])[0]!
    }
    const key = `${dtype}[${shape}]${Array.prototype.map.call(values, (value) => (Object.is(value, -0) ? '-0' : value))}`
    let constant = this.#constants.get(key)
    if (constant === undefined) {
      constant = this.#constant(values, shape, dtype)
      this.#constants.set(key, constant)
    }
    return constant
  }

  /** A fed value. Its name, and `output`'s, are what a reader of the GraphDef feeds and fetches. */
  placeholder(name: string, shape: readonly number[], dtype: GraphDataType): GraphOutput {
    return this.#operation('Placeholder', name, [], { dtype: { type: dtype }, shape: { shape } })[0]!
  }

  output(name: string, value: GraphOutput): GraphOutput {
    return this.#operation('Identity', name, [value], {})[0]!
  }

  toGraphDef(): Uint8Array {
    const { api, attempt, view } = this.#library
    const buffer = api.TF_NewBuffer()
    try {
      const { failure } = attempt((status) => api.TF_GraphToGraphDef(this.pointer, buffer, status))
      assert.equal(failure, undefined)
      // struct TF_Buffer { const void* data; size_t length; … }
      const [data, length] = new BigUint64Array(view(buffer, 16))
      return new Uint8Array(view(data!, Number(length))).slice()
    } finally {
      api.TF_DeleteBuffer(buffer)
    }
  }

  #constant(values: ArrayLike<number>, shape: readonly number[], dtype: GraphDataType): GraphOutput {
    const { api, view } = this.#library
    const bytes = values.length * elementBytes[dtype]
    const tensor = api.TF_AllocateTensor(nativeTypes[dtype], shape, shape.length, bytes)
    try {
      const data = bytes === 0 ? null : api.TF_TensorData(tensor)
      if (data !== null) fill(view(data, bytes), values, dtype)
      return this.#operation('Const', `${this.#scope}Const`, [], { dtype: { type: dtype } }, tensor)[0]!
    } finally {
      api.TF_DeleteTensor(tensor)
    }
  }

  #operation(
    type: string,
    name: string,
    inputs: readonly (GraphOutput | readonly GraphOutput[])[],
    attributes: Readonly<Record<string, Attribute>>,
    value?: Pointer,
  ): readonly GraphOutput[] {
    const { api, attempt } = this.#library
    // From here to TF_FinishOperation nothing may throw: only finishing frees the description.
    const description = api.TF_NewOperation(this.pointer, type, this.#unique(name))
    for (const input of inputs) {
      if (isOutput(input)) api.TF_AddInput(description, native(input))
      else api.TF_AddInputList(description, input.map(native), input.length)
    }
    for (const [attribute, setting] of Object.entries(attributes)) this.#setAttribute(description, attribute, setting)
    const { result: operation, failure } = attempt((status) => {
      if (value !== undefined) api.TF_SetAttrTensor(description, 'value', value, status)
      return api.TF_FinishOperation(description, status)
    })
    if (operation === null || failure !== undefined)
      throw new EngineError('trace-failed', `TensorFlow refused operation ${type} (${name}): ${failure}`, {
        hint: 'The shapes, element types or attributes given to this operation do not fit together.',
      })
    return Array.from({ length: api.TF_OperationNumOutputs(operation) }, (_, index) =>
      this.#describe(type, operation, index),
    )
  }

  #describe(type: string, operation: Pointer, index: number): GraphOutput {
    const { api, attempt } = this.#library
    const output = { oper: operation, index }
    const number = api.TF_OperationOutputType(output)
    const dtype = dataTypes.get(number)
    if (dtype === undefined)
      throw new EngineError('trace-failed', `${type} gives elements of TensorFlow type ${number}`, {
        hint: `Traced programs know ${Object.keys(nativeTypes).join(', ')}.`,
      })
    const { result: rank } = attempt((status) => api.TF_GraphGetTensorNumDims(this.pointer, output, status))
    // -1 where inference knows nothing: an output that is scratch of its operation may be so, a tensor of the trace not.
    const shape = Array<number>(rank < 0 ? 1 : rank).fill(-1)
    if (rank > 0) attempt((status) => api.TF_GraphGetTensorShape(this.pointer, output, shape, rank, status))
    return { operation, index, shape, dtype }
  }

  #setAttribute(description: Pointer, name: string, setting: Attribute): void {
    const { api } = this.#library
    if ('int' in setting) api.TF_SetAttrInt(description, name, setting.int)
    else if ('float' in setting) api.TF_SetAttrFloat(description, name, setting.float)
    else if ('bool' in setting) api.TF_SetAttrBool(description, name, setting.bool ? 1 : 0)
    else if ('string' in setting)
      api.TF_SetAttrString(description, name, setting.string, Buffer.byteLength(setting.string))
    else if ('type' in setting) api.TF_SetAttrType(description, name, nativeTypes[setting.type])
    else if ('ints' in setting) api.TF_SetAttrIntList(description, name, setting.ints, setting.ints.length)
    else api.TF_SetAttrShape(description, name, setting.shape, setting.shape.length)
  }

  /** TensorFlow's names: unique in the graph, of letters, digits and `_./-`, starting with a letter or digit. */
  #unique(name: string): string {
    const valid = name.replace(/[^A-Za-z0-9_./-]/g, '_').replace(/^[^A-Za-z0-9.]/, '.$&')
    const count = this.#names.get(valid) ?? 0
    this.#names.set(valid, count + 1)
    return count === 0 ? valid : this.#unique(`${valid}_${count}`)
  }
}

function isOutput(input: GraphOutput | readonly GraphOutput[]): input is GraphOutput {
  return !Array.isArray(input)
}

/** As the C API takes it; `operation` is opaque to lowerings and always comes from `#describe`. */
export function native({ operation, index }: GraphOutput): NativeOutput {
  return { oper: operation as Pointer, index }
}

const elementBytes: Readonly<Record<GraphDataType, number>> = {
  float32: 4,
  bfloat16: 2,
  int32: 4,
  uint8: 1,
  int64: 8,
  bool: 1,
  uint64: 8,
}

function fill(memory: ArrayBuffer, values: ArrayLike<number>, dtype: GraphDataType): void {
  if (dtype === 'int64' || dtype === 'uint64') {
    const wide = Array.from(values, BigInt)
    if (dtype === 'int64') new BigInt64Array(memory).set(wide)
    else new BigUint64Array(memory).set(wide)
  } else if (dtype === 'float32') new Float32Array(memory).set(values)
  else if (dtype === 'int32') new Int32Array(memory).set(values)
  else new Uint8Array(memory).set(values)
}
