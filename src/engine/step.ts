// SPDX-License-Identifier: Apache-2.0
/**
 * A model's training step and its evaluation as programs: parameters, a batch and a seed go in; loss, gradients and new
 * statistics come out. The model's variables hold the parameters only while the program runs or is traced.
 */
import assert from 'node:assert'
import * as tf from '@tensorflow/tfjs'
import { type Transfer, transferOf } from '../models/bfloat16.ts'
import type { Model, ModelTable, ModelVariable } from '../models/model.ts'
import type { Engine, EngineTensor, HostTensor, Program, TensorSpec } from './engine.ts'
import { withLayerNames } from './layer-names.ts'
import { withLayerOverrides } from './layer-overrides.ts'
import { createRandom } from './random.ts'
import { elementCount } from './signature.ts'

export interface StepResult {
  readonly loss: number
  readonly metrics: Readonly<Record<string, number>>
  /** By variable name, of every variable that is trained; zero where the loss does not depend on it. */
  readonly gradients: ReadonlyMap<string, EngineTensor>
  /**
   * By table name, [capacity, width]: the gradient of each row of the batch's `rows/<name>`, summed over all its uses; zero
   * for rows that no index names.
   */
  readonly rowGradients: ReadonlyMap<string, EngineTensor>
  /** By variable name, the new values of every statistic. */
  readonly statistics: ReadonlyMap<string, EngineTensor>
  /** Frees gradients and statistics. */
  dispose(): void
}

export interface TrainingStep {
  run(
    parameters: ReadonlyMap<string, HostTensor>,
    batch: Readonly<Record<string, HostTensor>>,
    seed: readonly [number, number],
    options?: { readonly signal?: AbortSignal },
  ): Promise<StepResult>
  /** What TensorBoard draws; undefined on the JavaScript engine. */
  graphDef(): Uint8Array | undefined
  close(): Promise<void>
}

export interface EvaluationStep {
  /** The model's sums over the batch; a vector is a histogram. */
  run(
    parameters: ReadonlyMap<string, HostTensor>,
    batch: Readonly<Record<string, HostTensor>>,
    options?: { readonly signal?: AbortSignal },
  ): Promise<Record<string, number | Float64Array>>
  graphDef(): Uint8Array | undefined
  close(): Promise<void>
}

type Tensors = Record<string, tf.Tensor>

/** Rows in a batch's `rows/<name>`: as many as its examples can touch at most. */
export function rowCapacity(model: Pick<Model, 'batch'>, { name, field }: ModelTable, batchSize: number): number {
  const ids = model.batch[field]
  assert(ids?.dtype === 'int32', `table ${name}: expected an int32 field ${field} in the batch`)
  return batchSize * elementCount(ids.shape)
}

/** `transfer`: how parameters and rows go in and their gradients come out; statistics are float32 always. */
export function compileTraining(
  engine: Engine,
  model: Model,
  batchSize: number,
  transfer: Transfer = 'float32',
): TrainingStep {
  const trained = model.variables.filter(({ role }) => role !== 'statistic')
  const gradients = [
    ...trained.map(({ name }) => `gradient/${name}`),
    ...model.tables.map(({ name }) => `rowGradient/${name}`),
  ]
  const program = engine.compile({
    name: 'train',
    inputs: {
      ...parameterSpecs(model.variables, transfer),
      ...batchSpecs(model, batchSize, transfer),
      seed: { shape: [2], dtype: 'int32' },
    },
    build: (inputs) => binding(model.variables, inputs, () => train(model, inputs)),
    ...(transfer === 'bfloat16' && { rounded: new Set(gradients) }),
  })
  return {
    async run(parameters, batch, seed, options = {}) {
      const inputs = { ...prefixed('parameter/', parameters), ...prefixed('batch/', Object.entries(batch)) }
      inputs.seed = { shape: [2], dtype: 'int32', data: Int32Array.of(...seed) }
      const outputs = await program.run(inputs, options)
      const { loss } = outputs
      assert(loss !== undefined)
      return {
        loss: scalar(loss),
        metrics: Object.fromEntries(Array.from(under('metric/', outputs), ([name, value]) => [name, scalar(value)])),
        gradients: under('gradient/', outputs),
        rowGradients: under('rowGradient/', outputs),
        statistics: under('statistic/', outputs),
        dispose: () => dispose(outputs),
      }
    },
    graphDef: () => program.graphDef(),
    close: () => program.close(),
  }
}

export function compileEvaluation(engine: Engine, model: Model, batchSize: number): EvaluationStep {
  const program: Program = engine.compile({
    name: 'evaluate',
    inputs: { ...parameterSpecs(model.variables, 'float32'), ...batchSpecs(model, batchSize, 'float32') },
    build: (inputs) =>
      binding(model.variables, inputs, () => withLayerNames(() => model.evaluate(batchOf(model, inputs)))),
  })
  return {
    async run(parameters, batch, options = {}) {
      const inputs = { ...prefixed('parameter/', parameters), ...prefixed('batch/', Object.entries(batch)) }
      const outputs = await program.run(inputs, options)
      const sums = Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, sum(value)]))
      dispose(outputs)
      return sums
    },
    graphDef: () => program.graphDef(),
    close: () => program.close(),
  }
}

export interface TrainedValues {
  /** By variable name. */
  readonly parameters: ReadonlyMap<string, HostTensor>
  /** By table name, [rows, width]: every row. */
  readonly tables: ReadonlyMap<string, HostTensor>
}

/**
 * The trained model as a program of its own: what it predicts of a batch, its values constants of the graph. Ids are row ids
 * of the whole table. What is exported is its `graphDef`.
 */
export function compilePrediction(
  engine: Engine,
  model: Model,
  batchSize: number,
  { parameters, tables }: TrainedValues,
): Program {
  const { predict } = model
  assert(predict !== undefined, `${model.name} predicts nothing`)
  for (const { name } of model.tables) assert(tables.has(name), `no values of table ${name}`)
  const fields = Object.entries(model.batch).filter(([field]) => field !== 'labels')
  return engine.compile({
    name: 'predict',
    inputs: Object.fromEntries(
      fields.map(([field, { shape, dtype }]) => [field, { shape: [batchSize, ...shape], dtype }]),
    ),
    build(inputs) {
      const constants = (prefix: string, values: Iterable<readonly [string, HostTensor]>): Tensors =>
        Object.fromEntries(
          Array.from(values, ([name, { data, shape }]) => [prefix + name, tf.tensor(data, [...shape])]),
        )
      const bound = constants('parameter/', parameters)
      const batch = { ...inputs, ...constants('rows/', tables) }
      return binding(model.variables, bound, () => withLayerNames(() => predict(batch)))
    },
  })
}

function train(model: Model, inputs: Tensors): Tensors {
  const random = createRandom(inputs.seed as tf.Tensor1D)
  const trained = model.variables.filter(({ role }) => role !== 'statistic')
  const batch = batchOf(model, inputs)
  const rows = model.tables.map(({ name }) => batch[`rows/${name}`]!)
  const metrics = new Map<string, tf.Tensor>()
  try {
    // What `variableGrads` calls, which takes variables only: rows are differentiated by as well.
    const { value: loss, grads } = tf.engine().gradients<tf.Tensor>(
      () => {
        const step = withLayerOverrides(random, () => withLayerNames(() => model.train(batch, random)))
        // The scope of the differentiation would dispose of what it does not return.
        for (const [name, value] of Object.entries(step.metrics)) metrics.set(name, tf.keep(value.clone()))
        return step.loss
      },
      [...trained.map(({ tensor }) => tensor), ...rows],
      undefined,
      true,
    )
    const outputs: Tensors = { loss }
    for (const [name, value] of metrics) outputs[`metric/${name}`] = value.clone()
    for (const [index, { name, shape }] of trained.entries())
      outputs[`gradient/${name}`] = grads[index] ?? tf.zeros([...shape])
    for (const [index, { name }] of model.tables.entries())
      outputs[`rowGradient/${name}`] = grads[trained.length + index] ?? tf.zerosLike(rows[index]!)
    for (const { name, role, tensor } of model.variables)
      if (role === 'statistic') outputs[`statistic/${name}`] = tensor.clone()
    return outputs
  } finally {
    tf.dispose([...metrics.values()])
  }
}

/**
 * Puts the inputs `parameter/<name>` in the place of the variables' own values while `body` runs, and puts those back, also
 * on throw. The references that TensorFlow.js counts are kept right on both sides: the own value is neither read nor freed.
 */
function binding<T>(variables: readonly ModelVariable[], inputs: Tensors, body: () => T): T {
  const engine = tf.engine()
  const own = variables.map(({ tensor }) => tensor.dataId)
  for (const { name, tensor } of variables) {
    tensor.dataId = inputs[`parameter/${name}`]!.dataId
    engine.incRef(tensor, engine.backend)
  }
  try {
    return body()
  } finally {
    variables.forEach(({ tensor }, index) => {
      engine.disposeTensor(tensor)
      tensor.dataId = own[index]!
    })
  }
}

function parameterSpecs(variables: readonly ModelVariable[], transfer: Transfer): Record<string, TensorSpec> {
  const names = new Set(variables.map(({ name }) => name))
  assert.equal(names.size, variables.length, 'the names of a model’s variables must differ')
  const specs = variables.map(({ name, shape, role }): [string, TensorSpec] => [
    `parameter/${name}`,
    { shape, dtype: transferOf(role, transfer) },
  ])
  return Object.fromEntries(specs)
}

function batchSpecs(model: Model, batchSize: number, transfer: Transfer): Record<string, TensorSpec> {
  const fields = Object.entries(model.batch).map(([field, { shape, dtype }]): [string, TensorSpec] => [
    `batch/${field}`,
    { shape: [batchSize, ...shape], dtype },
  ])
  const rows = model.tables.map((table): [string, TensorSpec] => [
    `batch/rows/${table.name}`,
    { shape: [rowCapacity(model, table, batchSize), table.width], dtype: transfer },
  ])
  return Object.fromEntries([...fields, ...rows])
}

function batchOf({ batch, tables }: Model, inputs: Tensors): Tensors {
  const fields = [...Object.keys(batch), ...tables.map(({ name }) => `rows/${name}`)]
  return Object.fromEntries(fields.map((field) => [field, inputs[`batch/${field}`]!]))
}

function prefixed(prefix: string, tensors: Iterable<readonly [string, HostTensor]>): Record<string, HostTensor> {
  return Object.fromEntries(Array.from(tensors, ([name, tensor]) => [prefix + name, tensor]))
}

function under(prefix: string, outputs: Readonly<Record<string, EngineTensor>>): Map<string, EngineTensor> {
  const chosen = Object.entries(outputs).filter(([name]) => name.startsWith(prefix))
  return new Map(chosen.map(([name, tensor]) => [name.slice(prefix.length), tensor]))
}

function scalar(tensor: EngineTensor): number {
  assert.equal(tensor.data.length, 1, 'a loss and a metric are scalars')
  return tensor.data[0]!
}

function sum(tensor: EngineTensor): number | Float64Array {
  return tensor.shape.length === 0 ? scalar(tensor) : Float64Array.from(tensor.data)
}

function dispose(outputs: Readonly<Record<string, EngineTensor>>): void {
  for (const tensor of Object.values(outputs)) tensor.dispose()
}
