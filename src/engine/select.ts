// SPDX-License-Identifier: Apache-2.0
/** Which engine a process runs on. Inside an enclave the choice is measured or agreed with the job, never the host's alone. */
import { type CodedError, type PublicError, publicError } from '../errors.ts'
import type { Engine } from './engine.ts'
import { EngineError } from './engine-error.ts'
import { createJavascriptEngine } from './javascript.ts'
import { createTensorflowEngine } from './tensorflow.ts'

export interface EngineChoice {
  /** `auto`: TensorFlow where its library can be had, else JavaScript with a warning. */
  readonly choice: 'auto' | 'tensorflow' | 'javascript'
  /** Of TensorFlow's library. */
  readonly directory: string
  readonly threads: number
  readonly onWarning: (warning: PublicError) => void
}

export function openEngine({ choice, directory, threads, onWarning }: EngineChoice): Engine {
  if (choice === 'javascript') return createJavascriptEngine()
  try {
    return createTensorflowEngine({ directory, threads })
  } catch (thrown) {
    if (choice === 'tensorflow' || !isUnavailable(thrown)) throw thrown
    const engine = createJavascriptEngine()
    onWarning(
      publicError(
        new EngineError('engine-fallback', `Running in JavaScript, many times slower: ${thrown.message}`, {
          hint: thrown.hint,
          cause: thrown,
        }),
      ),
    )
    return engine
  }
}

/** That the library cannot be had; anything else is a failure, which a slower engine must not hide. */
function isUnavailable(thrown: unknown): thrown is CodedError {
  return thrown instanceof EngineError && (thrown.code === 'engine-missing' || thrown.code === 'engine-library')
}
