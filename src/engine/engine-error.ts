// SPDX-License-Identifier: Apache-2.0
import { CodedError } from '../errors.ts'

/** What can go wrong between a program and the engine that runs it. */
export class EngineError extends CodedError<
  | 'engine-checksum'
  | 'engine-conflict'
  | 'engine-directory'
  | 'engine-disk-full'
  | 'engine-download'
  | 'engine-fallback'
  | 'engine-library'
  | 'engine-missing'
  | 'engine-platform'
  | 'engine-python'
  | 'kernel-unsupported'
  | 'program-closed'
  | 'program-failed'
  | 'program-input'
  | 'program-output'
  | 'tensor-disposed'
  | 'tensor-size'
  | 'trace-failed'
  | 'trace-random'
  | 'trace-read'
  | 'trace-variable'
> {}
