// SPDX-License-Identifier: Apache-2.0
/**
 * The one error base class. A module declares a subclass whose type parameter is the closed union of its codes:
 *
 *     export class DataError extends CodedError<'data-truncated' | 'label-out-of-range'> {}
 *
 * Expected failures throw one of these; a bug throws an AssertionError. `code` is stable and documented in docs/errors.md,
 * `message` says what was expected and what came, `hint` says what to do. `cause` never crosses the wire.
 */
export class CodedError<Code extends string = string> extends Error {
  readonly code: Code
  readonly hint: string

  constructor(code: Code, message: string, options: { hint: string; cause?: unknown }) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = new.target.name
    this.code = code
    this.hint = options.hint
  }
}

/** What may be shown to a peer, a log or a terminal: never a stack, never a cause. */
export interface PublicError {
  readonly code: string
  readonly message: string
  readonly hint: string
}

/** The public part of anything thrown; what is not a CodedError is a bug and shows as `internal`. */
export function publicError(thrown: unknown): PublicError {
  if (thrown instanceof CodedError) return { code: thrown.code, message: thrown.message, hint: thrown.hint }
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return { code: 'internal', message, hint: 'This is a bug in Cloister: please report it with the log of this run.' }
}
