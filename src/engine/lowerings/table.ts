// SPDX-License-Identifier: Apache-2.0
/** TensorFlow.js kernel → TensorFlow operations. What is not here cannot be traced, and says so by name while tracing. */
import type { Lowering } from '../lowering.ts'
import { arrays } from './arrays.ts'
import { convolution } from './convolution.ts'
import { elementwise } from './elementwise.ts'
import { images } from './images.ts'
import { matrices } from './matrices.ts'
import { normalization } from './normalization.ts'
import { operations } from './operations.ts'
import { pooling } from './pooling.ts'
import { random } from './random.ts'
import { reductions } from './reductions.ts'

export const lowerings: ReadonlyMap<string, Lowering> = new Map([
  ...elementwise,
  ...reductions,
  ...matrices,
  ...convolution,
  ...pooling,
  ...normalization,
  ...arrays,
  ...images,
  ...operations,
  ...random,
])
