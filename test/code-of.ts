import { CodedError } from '../src/errors.ts'

/** The code with which `run` refuses; undefined if it does not. Anything else that is thrown is a bug and passes through. */
export function codeOf(run: () => unknown): string | undefined {
  try {
    run()
    return undefined
  } catch (thrown) {
    if (thrown instanceof CodedError) return thrown.code
    throw thrown
  }
}
