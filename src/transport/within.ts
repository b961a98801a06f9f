// SPDX-License-Identifier: Apache-2.0
import { TransportError, type TransportErrorCode } from './transport-error.ts'

/** Settles by the deadline even when `run` heeds neither its signal nor an end of the socket. */
export function within<T>(
  timeoutMs: number,
  code: TransportErrorCode,
  what: string,
  run: (signal: AbortSignal, abort: (error: TransportError) => void) => Promise<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const controller = new AbortController()
    const abort = (error: TransportError) => {
      clearTimeout(timer)
      reject(error)
      controller.abort(error)
    }
    const timer = setTimeout(() => {
      abort(new TransportError(code, `expected ${what} within ${timeoutMs} ms, got none`))
    }, timeoutMs)
    run(controller.signal, abort)
      .then(resolve, reject)
      .finally(() => clearTimeout(timer))
  })
}
