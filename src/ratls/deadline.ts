// SPDX-License-Identifier: Apache-2.0
/** Every wait for a peer, its platform or its collateral ends: by a deadline of our own or when the caller gives up. */
import { RatlsError } from './ratls-error.ts'

/** A signal that also aborts after `timeoutMs`. `release` it, or the timer and the listener outlive the connection. */
export function withDeadline(signal: AbortSignal, timeoutMs: number): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController()
  const onAbort = (): void => controller.abort(signal.reason)
  const onTimeout = (): void => controller.abort(new DOMException(`${timeoutMs} ms have passed`, 'TimeoutError'))
  const timer = setTimeout(onTimeout, timeoutMs)
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort)
  const release = (): void => {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
  }
  return { signal: controller.signal, release }
}

/** Waits for `work` or for the abort, whichever is first: a platform that hangs must not hold a connection for ever. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort = (): void => {}
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(cancelled(signal.reason))
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort)
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** The reason of an aborted signal as a refusal. */
export function cancelled(cause: unknown): RatlsError {
  const timedOut = cause instanceof Error && cause.name === 'TimeoutError'
  return timedOut
    ? new RatlsError('ratls-exchange-timeout', `expected the attestation exchange to end in time: ${cause.message}`, {
        hint: 'The peer is slow or silent: look at its log, and at how long its platform takes to make a quote.',
        cause,
      })
    : new RatlsError('ratls-exchange-cancelled', 'the attestation exchange was cancelled', {
        hint: 'The process is stopping, or the connection took too long as a whole.',
        cause,
      })
}
