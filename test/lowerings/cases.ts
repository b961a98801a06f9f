/** All cases of lowerings, family by family. */
import { arrays } from './arrays.ts'
import { convolution } from './convolution.ts'
import type { Case } from './differential.ts'
import { elementwise } from './elementwise.ts'
import { images } from './images.ts'
import { matrices } from './matrices.ts'
import { normalization } from './normalization.ts'
import { operations } from './operations.ts'
import { pooling } from './pooling.ts'
import { reductions } from './reductions.ts'

export const families: Readonly<Record<string, readonly Case[]>> = {
  elementwise,
  reductions,
  matrices,
  convolution,
  pooling,
  normalization,
  arrays,
  images,
  operations,
}
