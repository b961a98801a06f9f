// SPDX-License-Identifier: Apache-2.0
/**
 * The image workload: 32×32 colour images and their labels, augmented in training, centre crops in evaluation, mean softmax
 * cross-entropy. Weight decay is not here: the optimizer on the server decays the variables of role `weight`.
 */
import type * as tf from '@tensorflow/tfjs'
import { type Augmentation, augment, centreCrop, standardise } from './augment.ts'
import { classification } from './classification.ts'
import { field, fromLayersModel } from './layers-model.ts'
import type { Model } from './model.ts'

export interface ImageClassificationOptions {
  readonly name: string
  /** Takes standardised square crops, gives logits. Its input shape says the size of the crops. */
  readonly network: tf.LayersModel
  /** Centre crops in training too when there is none. */
  readonly augmentation: Augmentation | undefined
}

export function imageClassification({ name, network, augmentation }: ImageClassificationOptions): Model {
  const size = network.inputs[0]!.shape[1]!
  return fromLayersModel(network, {
    name,
    batch: { images: { shape: [32, 32, 3], dtype: 'uint8' }, labels: { shape: [], dtype: 'int32' } },
    objective: classification,
    inputs(batch, random) {
      const images = field(batch, 'images') as tf.Tensor4D
      return random && augmentation
        ? augment(images, size, augmentation, random)
        : standardise(centreCrop(images, size))
    },
  })
}
