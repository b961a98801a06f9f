// SPDX-License-Identifier: Apache-2.0
/** The fields that are image classification's own. */
import * as v from 'valibot'
import { count } from './numbers.ts'
import { partitionSchema } from './partition.ts'

/** `resnet`: the CIFAR networks of He et al. 2016, 6n+2 layers. `resnet-bottleneck`: the true ResNet-50/101, CIFAR stem. */
const model = v.variant('name', [
  v.strictObject({
    name: v.literal('resnet'),
    layers: v.pipe(
      count,
      v.maxValue(1202),
      v.check(
        (layers) => layers >= 8 && (layers - 2) % 6 === 0,
        'expected 6n+2 layers (8, 14, 20, 32, 44, 56, 110, …)',
      ),
    ),
    version: v.optional(v.picklist([1, 2]), 2),
  }),
  v.strictObject({ name: v.literal('resnet-bottleneck'), layers: v.picklist([50, 101]) }),
])

export const imageClassificationFields = {
  workload: v.literal('image-classification'),
  model,
  data: v.strictObject({
    name: v.literal('cifar-10'),
    /** Side of the square crops in pixels; evaluation takes the centre. */
    crop: v.optional(v.picklist([24, 32]), 24),
    /** Random crop, flip, brightness and contrast while training; without it every image is its centre crop. */
    augment: v.optional(v.boolean(), true),
    partition: v.optional(partitionSchema, { scheme: 'iid' }),
  }),
}
