import * as tf from '@tensorflow/tfjs'
import { describe, expect, test } from 'vitest'
import { classification } from './classification.ts'
import { fromLayersModel } from './layers-model.ts'
import type { ModelVariable } from './model.ts'
import { bottleneckResNet, cifarResNet } from './resnet.ts'

const modelOf = (network: tf.LayersModel) =>
  fromLayersModel(network, { name: network.name, batch: {}, objective: classification })

const parameters = (variables: readonly ModelVariable[], ...roles: ModelVariable['role'][]) =>
  variables
    .filter(({ role }) => roles.includes(role))
    .reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0)

/** Built once: drawing 23.5 million values that nobody reads takes TensorFlow.js a second. */
const bottleneck = bottleneckResNet({ depth: 50, imageSize: 16 })

describe('parameter counts', () => {
  // He et al. 2016a, table 6, in millions: 0.27, 0.46, 0.66, 0.85, 1.7. The exact figure of 20 layers with projections is what
  // public Keras and PyTorch reimplementations of option B have.
  test.each([
    [20, 'identity', 269_722],
    [20, 'projection', 272_474],
    [32, 'identity', 464_154],
    [44, 'identity', 658_586],
    [56, 'identity', 853_018],
    [110, 'identity', 1_727_962],
  ] as const)('version 1, %i layers, %s', (depth, shortcut, expected) => {
    const { variables } = modelOf(cifarResNet({ depth, version: 1, imageSize: 32, shortcut }))
    expect(parameters(variables, 'weight', 'unregularised')).toBe(expected)
  })

  // 272,538 is what TensorFlow counts for tf_resnet20_cifar.py (TensorFlow's official version 2, trainable variables); 0.86 M
  // for 56 layers is what the reference system reports.
  test.each([
    [20, 272_538],
    [56, 855_834],
  ])('version 2, %i layers', (depth, expected) => {
    const { variables } = modelOf(cifarResNet({ depth, version: 2, imageSize: 24 }))
    expect(parameters(variables, 'weight', 'unregularised')).toBe(expected)
  })

  test('bottleneck, 50 layers', () => {
    const { variables } = modelOf(bottleneck)
    // ImageNet's 25,557,032 (torchvision) with 10 instead of 1,000 classes and a 3×3 instead of a 7×7 stem.
    expect(parameters(variables, 'weight', 'unregularised')).toBe(25_557_032 - 990 * 2049 - 3 * 64 * (49 - 9))
    // One mean and one variance a normalised channel: 53,120 buffers in torchvision, its batch counters left out.
    expect(parameters(variables, 'statistic')).toBe(53_120)
  })

  test('weights that decay are the kernels', () => {
    const { variables } = modelOf(cifarResNet({ depth: 8, version: 2, imageSize: 8 }))
    for (const { name, role } of variables) {
      const expected = name.endsWith('/kernel')
        ? 'weight'
        : /\/(gamma|beta|bias)$/.test(name)
          ? 'unregularised'
          : 'statistic'
      expect([name, role]).toEqual([name, expected])
    }
  })
})

describe('structure', () => {
  const sizeAfter = (network: tf.LayersModel, layer: string) =>
    (network.getLayer(layer).output as tf.SymbolicTensor).shape.slice(1)

  test('stages halve the image and double the filters', () => {
    for (const version of [1, 2] as const) {
      const network = cifarResNet({ depth: 20, version, imageSize: 24 })
      expect(sizeAfter(network, 'conv2_3/add')).toEqual([24, 24, 16])
      expect(sizeAfter(network, 'conv3_1/add')).toEqual([12, 12, 32])
      expect(sizeAfter(network, 'conv4_3/add')).toEqual([6, 6, 64])
      expect(network.outputs[0]!.shape).toEqual([null, 10])
      // 6n + 2 layers with weights, projections not counted.
      const counted = network.layers.filter(
        (layer) => /Conv2D|Dense/.test(layer.getClassName()) && !layer.name.includes('shortcut'),
      )
      expect(counted).toHaveLength(20)
    }
  })

  test('the shortcut of option A is the subsampled input with zero channels', () => {
    const network = cifarResNet({ depth: 8, version: 1, imageSize: 8 })
    const x = tf.randomUniform([2, 8, 8, 16], -1, 1, 'float32', 5) as tf.Tensor4D
    const y = network.getLayer('conv3_1/shortcut').apply(x) as tf.Tensor4D
    expect(y.shape).toEqual([2, 4, 4, 32])
    expect(y.slice([0, 0, 0, 16]).abs().max().dataSync()[0]).toBe(0)
    const [given, taken] = [x.arraySync(), y.arraySync()]
    for (const [row, column] of [
      [0, 0],
      [1, 3],
      [3, 2],
    ] as const) {
      expect(taken[1]![row]![column]!.slice(0, 16)).toEqual(given[1]![2 * row]![2 * column]!)
    }
  })

  test('bottleneck stages quadruple their filters, and the stride stands in the 3×3 convolution', () => {
    expect(sizeAfter(bottleneck, 'conv2_3/add')).toEqual([16, 16, 256])
    expect(sizeAfter(bottleneck, 'conv3_1/conv1')).toEqual([16, 16, 128])
    expect(sizeAfter(bottleneck, 'conv3_1/conv2')).toEqual([8, 8, 128])
    expect(sizeAfter(bottleneck, 'conv5_3/add')).toEqual([2, 2, 2048])
    expect(bottleneck.layers.filter((layer) => /^conv[2-5]_\d+\/add$/.test(layer.name))).toHaveLength(3 + 4 + 6 + 3)
  })

  test('depths that no paper has are refused', () => {
    for (const depth of [2, 18, 55, 20.5]) {
      expect(() => cifarResNet({ depth, version: 1, imageSize: 32 })).toThrow(/6n \+ 2/)
    }
  })
})

describe('initial values', () => {
  const model = modelOf(cifarResNet({ depth: 8, version: 2, imageSize: 24 }))
  const values = model.initialValues(11)

  test('depend on the seed and the variable alone', () => {
    const again = modelOf(cifarResNet({ depth: 8, version: 2, imageSize: 32 }))
    expect(again.variables.map(({ name }) => name)).toEqual(model.variables.map(({ name }) => name))
    expect(again.initialValues(11)).toEqual(values)
    expect(again.initialValues(12).get('conv1/kernel')).not.toEqual(values.get('conv1/kernel'))
    // Same shape, other name.
    expect(values.get('conv2_1/conv1/kernel')).not.toEqual(values.get('conv2_1/conv2/kernel'))
  })

  test('convolutions have variance 2/fan-in (He et al. 2015), normalisation starts as identity', () => {
    for (const { name, shape, role } of model.variables) {
      const drawn = values.get(name)!
      expect(drawn).toHaveLength(shape.reduce((product, size) => product * size, 1))
      if (role === 'weight') {
        const expected = 2 / shape.slice(0, -1).reduce((product, size) => product * size, 1)
        const mean = drawn.reduce((sum, value) => sum + value, 0) / drawn.length
        const variance = drawn.reduce((sum, value) => sum + (value - mean) ** 2, 0) / drawn.length
        // Five standard errors; the fourth moment of a truncated normal is below the normal's 3.
        expect(Math.abs(variance / expected - 1)).toBeLessThan(5 * Math.sqrt(2 / drawn.length))
        expect(Math.abs(mean)).toBeLessThan(5 * Math.sqrt(expected / drawn.length))
      } else {
        expect(new Set(drawn)).toEqual(new Set([/gamma|variance/.test(name) ? 1 : 0]))
      }
    }
  })
})
