// SPDX-License-Identifier: Apache-2.0
/**
 * One large file over HTTP(S), resumed where an earlier attempt stopped. Neither the server nor the path is trusted: the
 * caller checks digests. Uses node:https, which works inside Gramine, where the global fetch does not.
 */
import { createWriteStream } from 'node:fs'
import { rm, stat } from 'node:fs/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { pipeline } from 'node:stream/promises'
import { FetchError, unwritable } from './fetch-error.ts'

export interface DownloadOptions {
  readonly address: string
  /** Grows while downloading, and is what a later attempt goes on from. */
  readonly path: string
  readonly maxBytes: number
  /** Without a byte for so long, an attempt has failed. */
  readonly idleTimeoutMs: number
  readonly attempts: number
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void
  readonly signal?: AbortSignal
}

/** Returns when `path` is as long as the server says the file is. */
export async function download(options: DownloadOptions): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await downloadRest(options)
    } catch (error) {
      options.signal?.throwIfAborted()
      const transient = error instanceof FetchError && error.code === 'data-download-failed' && isTransient(error.cause)
      if (!transient || attempt >= options.attempts) throw error
    }
  }
}

/** A broken connection, as opposed to an answer that says no. */
function isTransient(cause: unknown): boolean {
  return cause instanceof Error && 'code' in cause
}

async function downloadRest(options: DownloadOptions): Promise<void> {
  const { address, path, maxBytes, onProgress, signal } = options
  const present = await sizeOf(path)
  const response = await get(new URL(address), present, options)
  const failed = (message: string, cause?: unknown): FetchError =>
    new FetchError('data-download-failed', `${address}: ${message}`, {
      hint: 'try again, or get the files yourself and name their directory with --data',
      cause,
    })

  // 416: nothing is left to send, or what is present is longer than the file.
  const range = /^bytes (?:(\d+)-\d+|\*)\/(\d+)$/.exec(response.headers['content-range'] ?? '')
  if (response.statusCode === 416) {
    response.destroy()
    if (range !== null && Number(range[2]) === present) return
    await rm(path, { force: true })
    if (present > 0) return downloadRest(options)
  }
  const resumed = response.statusCode === 206 && range !== null && Number(range[1]) === present
  if (response.statusCode !== 200 && !resumed) {
    response.destroy()
    throw failed(`expected status 200, got ${response.statusCode} ${response.statusMessage ?? ''}`.trimEnd())
  }
  const length = Number(response.headers['content-length'] ?? Number.NaN)
  const total = resumed ? Number(range![2]) : length
  if (!(total <= maxBytes)) {
    response.destroy()
    throw failed(`expected a file of known length, at most ${maxBytes} bytes, got ${total}`)
  }

  let done = resumed ? present : 0
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      done += chunk.length
      if (done > total) throw failed(`expected ${total} bytes, got more`)
      onProgress?.(done, total)
      yield chunk
    }
  }
  try {
    await pipeline(counted, createWriteStream(path, { flags: resumed ? 'a' : 'w' }), signal ? { signal } : {})
  } catch (cause) {
    if (cause instanceof FetchError) throw cause
    throw unwritable(cause) ?? failed(`broken off after ${done} of ${total} bytes: ${cause}`, cause)
  }
  if (done < total) {
    const cause = Object.assign(new Error('connection closed early'), { code: 'ECONNRESET' })
    throw failed(`broken off after ${done} of ${total} bytes`, cause)
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size
  } catch {
    return 0
  }
}

/** The response to GET, redirections followed. */
async function get(url: URL, from: number, options: DownloadOptions, redirections = 5): Promise<IncomingMessage> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const send = url.protocol === 'http:' ? httpRequest : httpsRequest
    const { idleTimeoutMs, signal } = options
    const headers = from > 0 ? { range: `bytes=${from}-` } : {}
    const request = send(url, { headers, timeout: idleTimeoutMs, ...(signal && { signal }) })
    request.on('response', resolve)
    request.on('timeout', () => {
      request.destroy(Object.assign(new Error(`no byte for ${idleTimeoutMs} ms`), { code: 'ETIMEDOUT' }))
    })
    request.on('error', (cause) => {
      reject(
        new FetchError('data-offline', `${url.origin}: expected an answer, got ${cause.message}`, {
          hint: 'without a network, name a directory with --data, or go on with synthetic images',
          cause,
        }),
      )
    })
    request.end()
  })
  const location = response.headers.location
  if (response.statusCode !== undefined && [301, 302, 303, 307, 308].includes(response.statusCode) && location) {
    response.destroy()
    if (redirections > 0) return get(new URL(location, url), from, options, redirections - 1)
    throw new FetchError('data-download-failed', `${url.href}: too many redirections`, { hint: 'check the address' })
  }
  return response
}
