// SPDX-License-Identifier: Apache-2.0
/** ResNets on CIFAR-10 (He et al. 2016). */
import type { ImageClassificationJob } from '../../config/job.ts'
import { identifyImages, locateImages, openHeldOut, openTraining } from '../../data/locate.ts'
import { referenceAugmentation } from '../../models/augment.ts'
import { imageClassification as imageModel } from '../../models/image-classification.ts'
import { bottleneckResNet, cifarResNet } from '../../models/resnet.ts'
import type { Workload } from './workload.ts'

export function imageClassification({ model, data }: ImageClassificationJob): Workload {
  return {
    createModel() {
      const network =
        model.name === 'resnet'
          ? cifarResNet({ depth: model.layers, version: model.version, imageSize: data.crop })
          : bottleneckResNet({ depth: model.layers, imageSize: data.crop })
      // Crops of the whole image need room to move: four pixels on each side, as in the paper.
      const padding = data.crop === 32 ? 4 : 0
      const augmentation = data.augment ? { ...referenceAugmentation, padding } : undefined
      return imageModel({ name: network.name, network, augmentation })
    },
    locate: ({ directory, ...options }) => locateImages({ ...options, ...(directory !== undefined && { directory }) }),
    async open(directory) {
      const files = await identifyImages(directory)
      const training = await openTraining(files)
      const heldOut = await openHeldOut(files).catch(async (error: unknown) => {
        await training.close()
        throw error
      })
      return {
        training,
        heldOut,
        dataSource: files.dataSource,
        async close() {
          await Promise.all([training.close(), heldOut.close()])
        },
      }
    },
  }
}
