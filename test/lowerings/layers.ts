/**
 * Every common layer of the layers API by itself, as a small network over a given input. Left out are those that
 * TensorFlow.js itself cannot train: causal convolution, and Resizing inside a model.
 */
import * as tf from '@tensorflow/tfjs'
import type { BatchField } from '../../src/models/model.ts'

export interface LayerCase {
  readonly name: string
  readonly input: BatchField
  readonly layers: () => tf.layers.Layer[]
}

const rows: BatchField = { shape: [6], dtype: 'float32' }
const sequences: BatchField = { shape: [5, 4], dtype: 'float32' }
const images: BatchField = { shape: [6, 5, 3], dtype: 'float32' }
const volumes: BatchField = { shape: [4, 4, 3, 2], dtype: 'float32' }
const films: BatchField = { shape: [3, 5, 4, 2], dtype: 'float32' }
const words: BatchField = { shape: [5], dtype: 'int32' }

function over(
  input: BatchField,
  cases: Readonly<Record<string, () => tf.layers.Layer | tf.layers.Layer[]>>,
): LayerCase[] {
  return Object.entries(cases).map(([name, create]) => ({ name, input, layers: () => [create()].flat() }))
}

const l = tf.layers
const stackedCells = () => [l.lstmCell({ units: 3 }), l.gruCell({ units: 2 })] as never

const activations = [
  'elu',
  'hardSigmoid',
  'linear',
  'relu',
  'relu6',
  'selu',
  'sigmoid',
  'softmax',
  'softplus',
  'softsign',
  'tanh',
  'swish',
  'mish',
  'gelu',
  'gelu_new',
] as const

export const layerCases: readonly LayerCase[] = [
  ...over(rows, {
    dense: () => l.dense({ units: 4, activation: 'relu' }),
    'dense, regularised': () => l.dense({ units: 4, activation: 'tanh', kernelRegularizer: 'l1l2' }),
    ...Object.fromEntries(
      activations.map((activation) => [
        `activation ${activation}`,
        () => [l.dense({ units: 4 }), l.activation({ activation })],
      ]),
    ),
    reLU: () => [l.dense({ units: 4 }), l.reLU({ maxValue: 1 })],
    leakyReLU: () => [l.dense({ units: 4 }), l.leakyReLU({ alpha: 0.2 })],
    prelu: () => l.prelu({ alphaInitializer: 'ones' }),
    elu: () => [l.dense({ units: 4 }), l.elu()],
    thresholdedReLU: () => [l.dense({ units: 4 }), l.thresholdedReLU({ theta: 0.1 })],
    softmax: () => [l.dense({ units: 4 }), l.softmax()],
    dropout: () => [l.dense({ units: 9 }), l.dropout({ rate: 0.4 })],
    gaussianNoise: () => [l.dense({ units: 9 }), l.gaussianNoise({ stddev: 0.3 })],
    gaussianDropout: () => [l.dense({ units: 9 }), l.gaussianDropout({ rate: 0.3 })],
    alphaDropout: () => [l.dense({ units: 9 }), l.alphaDropout({ rate: 0.3 })],
    'batchNormalization of rows': () => [l.dense({ units: 4 }), l.batchNormalization()],
    layerNormalization: () => [l.dense({ units: 4 }), l.layerNormalization()],
    repeatVector: () => [l.dense({ units: 4 }), l.repeatVector({ n: 3 })],
    reshape: () => [l.dense({ units: 6 }), l.reshape({ targetShape: [2, 3] })],
  }),
  ...over(words, {
    embedding: () => l.embedding({ inputDim: 7, outputDim: 3 }),
    'embedding, masked': () => [l.embedding({ inputDim: 7, outputDim: 3, maskZero: true }), l.lstm({ units: 2 })],
  }),
  ...over(sequences, {
    conv1d: () => l.conv1d({ filters: 3, kernelSize: 2, padding: 'same', activation: 'sigmoid' }),
    maxPooling1d: () => [l.conv1d({ filters: 3, kernelSize: 1 }), l.maxPooling1d({ poolSize: 2 })],
    averagePooling1d: () => [
      l.conv1d({ filters: 3, kernelSize: 1 }),
      l.averagePooling1d({ poolSize: 2, padding: 'same' }),
    ],
    globalMaxPooling1d: () => [l.conv1d({ filters: 3, kernelSize: 1 }), l.globalMaxPooling1d()],
    globalAveragePooling1d: () => [l.conv1d({ filters: 3, kernelSize: 1 }), l.globalAveragePooling1d({})],
    spatialDropout1d: () => [l.conv1d({ filters: 3, kernelSize: 1 }), l.spatialDropout1d({ rate: 0.4 })],
    permute: () => [l.permute({ dims: [2, 1] }), l.dense({ units: 2 })],
    flatten: () => [l.flatten(), l.dense({ units: 2 })],
    masking: () => [l.masking({ maskValue: 0 }), l.simpleRNN({ units: 2 })],
    'batchNormalization of sequences': () => [l.dense({ units: 4 }), l.batchNormalization({ momentum: 0.8 })],
    simpleRNN: () => l.simpleRNN({ units: 3, dropout: 0.3, recurrentDropout: 0.3 }),
    gru: () => l.gru({ units: 3, dropout: 0.3 }),
    lstm: () => l.lstm({ units: 3, recurrentDropout: 0.3, returnSequences: true }),
    'rnn of stacked cells': () => l.rnn({ cell: stackedCells() }),
    bidirectional: () => l.bidirectional({ layer: l.lstm({ units: 2 }) as tf.RNN, mergeMode: 'concat' }),
    timeDistributed: () => l.timeDistributed({ layer: l.dense({ units: 3 }) }),
  }),
  ...over(images, {
    conv2d: () => l.conv2d({ filters: 4, kernelSize: 3, strides: 2, padding: 'same', activation: 'elu' }),
    conv2dTranspose: () => l.conv2dTranspose({ filters: 2, kernelSize: 3, strides: 2, padding: 'same' }),
    depthwiseConv2d: () => l.depthwiseConv2d({ kernelSize: 3, depthMultiplier: 2, activation: 'relu6' }),
    separableConv2d: () => l.separableConv2d({ filters: 4, kernelSize: 3, padding: 'same' }),
    'conv2d with channels first': () => l.conv2d({ filters: 2, kernelSize: 2, dataFormat: 'channelsFirst' }),
    maxPooling2d: () => [l.conv2d({ filters: 3, kernelSize: 1 }), l.maxPooling2d({ poolSize: 2, padding: 'same' })],
    averagePooling2d: () => [
      l.conv2d({ filters: 3, kernelSize: 1 }),
      l.averagePooling2d({ poolSize: 2, padding: 'same' }),
    ],
    globalMaxPooling2d: () => [l.conv2d({ filters: 3, kernelSize: 1 }), l.globalMaxPooling2d({})],
    globalAveragePooling2d: () => [l.conv2d({ filters: 3, kernelSize: 1 }), l.globalAveragePooling2d({})],
    'upSampling2d by nearest': () => [l.conv2d({ filters: 2, kernelSize: 1 }), l.upSampling2d({ size: [2, 3] })],
    'upSampling2d bilinear': () => [
      l.conv2d({ filters: 2, kernelSize: 1 }),
      l.upSampling2d({ size: [2, 2], interpolation: 'bilinear' }),
    ],
    zeroPadding2d: () => [l.zeroPadding2d({ padding: [1, 2] }), l.conv2d({ filters: 2, kernelSize: 3 })],
    cropping2D: () => [
      l.conv2d({ filters: 2, kernelSize: 1 }),
      l.cropping2D({
        cropping: [
          [1, 0],
          [1, 1],
        ],
      }),
    ],
    rescaling: () => [l.rescaling({ scale: 0.5, offset: 1 }), l.conv2d({ filters: 2, kernelSize: 1 })],
    centerCrop: () => [l.centerCrop({ height: 3, width: 3 }), l.conv2d({ filters: 2, kernelSize: 1 })],
    'batchNormalization of images': () => [
      l.conv2d({ filters: 4, kernelSize: 3 }),
      l.batchNormalization({ momentum: 0.9 }),
      l.reLU(),
    ],
  }),
  ...over(volumes, {
    conv3d: () => l.conv3d({ filters: 2, kernelSize: 2, padding: 'same' }),
    conv3dTranspose: () => l.conv3dTranspose({ filters: 2, kernelSize: 2 }),
    maxPooling3d: () => [l.conv3d({ filters: 2, kernelSize: 1 }), l.maxPooling3d({ poolSize: 2, strides: 1 })],
    averagePooling3d: () => [
      l.conv3d({ filters: 2, kernelSize: 1 }),
      l.averagePooling3d({ poolSize: 2, strides: 1, padding: 'same' }),
    ],
  }),
  ...over(films, {
    convLstm2d: () => l.convLstm2d({ filters: 2, kernelSize: 2, padding: 'same', dropout: 0.3 }),
  }),
]

/** Layers that join two tensors. */
export const joiningLayers: Readonly<Record<string, () => tf.layers.Layer>> = {
  add: () => l.add(),
  multiply: () => l.multiply(),
  average: () => l.average(),
  maximum: () => l.maximum(),
  minimum: () => l.minimum(),
  concatenate: () => l.concatenate({ axis: -1 }),
  dot: () => l.dot({ axes: -1 }),
}
