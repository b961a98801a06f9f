// SPDX-License-Identifier: Apache-2.0
/**
 * GET for collateral, on node:http and node:https (fetch needs WebAssembly, which costs an enclave gigabytes of address space).
 *
 * The other end and the network are hostile: sizes and times are bounded, redirects stay on the host that was configured, and nothing that
 * arrives is believed before it is parsed and, later, verified. TLS here keeps collateral private, it is no root of trust.
 */
import { get as httpGet, type IncomingMessage } from 'node:http'
import { get as httpsGet } from 'node:https'
import { PccsError } from './pccs-error.ts'

export interface HttpLimits {
  /** For one attempt, from connecting to the last byte. */
  readonly timeoutMs: number
  readonly maxBytes: number
  /** Attempts after the first, for what may pass: no connection, time-out, 429, 5xx. */
  readonly retries: number
  /** Before the first retry; doubled for each further one, up to a minute. */
  readonly retryDelayMs: number
}

export interface HttpOptions extends HttpLimits {
  /** False accepts any TLS certificate. */
  readonly secureCertificate: boolean
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
  /** Waits; a parameter so that tests need not. */
  readonly sleep: (delayMs: number, signal?: AbortSignal) => Promise<void>
  /** In [0, 1): spreads the retries of many clients. */
  readonly random: () => number
}

export interface HttpAnswer {
  readonly body: Buffer
  readonly header: (name: string) => string | undefined
}

const maxRedirects = 3
const maxRetryDelayMs = 60_000
/** Chains of certificates come percent-encoded in headers: some 7 KB. */
const maxHeaderSize = 65_536

export async function getCollateral(url: URL, options: HttpOptions): Promise<HttpAnswer> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await getOnce(url, options)
    } catch (thrown) {
      if (!(thrown instanceof PassingFailure) || attempt >= options.retries || options.signal?.aborted) {
        throw thrown instanceof PassingFailure ? thrown.error : thrown
      }
      const delayMs = Math.min(options.retryDelayMs * 2 ** attempt, maxRetryDelayMs)
      await options.sleep(delayMs * (0.5 + options.random() / 2), options.signal)
    }
  }
}

/** What a retry may mend. */
class PassingFailure {
  readonly error: PccsError

  constructor(error: PccsError) {
    this.error = error
  }
}

async function getOnce(start: URL, options: HttpOptions): Promise<HttpAnswer> {
  const deadline = AbortSignal.timeout(options.timeoutMs)
  const signal = options.signal ? AbortSignal.any([deadline, options.signal]) : deadline
  try {
    let url = start
    for (let redirects = 0; ; redirects += 1) {
      const response = await request(url, options, signal)
      const status = response.statusCode ?? 0
      if (status >= 300 && status < 400) {
        response.destroy()
        url = redirectTarget(url, response.headers.location, redirects)
        continue
      }
      const body = await readBody(response, url, options.maxBytes)
      if (status !== 200) throw refusedBy(url, status, body)
      return { body, header: (name) => single(response.headers[name.toLowerCase()]) }
    }
  } catch (cause) {
    if (cause instanceof PccsError || cause instanceof PassingFailure) throw cause
    if (options.signal?.aborted) throw options.signal.reason
    if (deadline.aborted) {
      throw new PassingFailure(
        new PccsError('pccs-timeout', `${start.host}: expected an answer within ${options.timeoutMs} ms, got none`, {
          hint: 'Check that the PCCS is well and reachable from here: `cloister doctor`.',
          cause,
        }),
      )
    }
    throw new PassingFailure(
      new PccsError('pccs-unreachable', `${start.host}: ${cause instanceof Error ? cause.message : cause}`, {
        hint: 'Check pccs_url, name resolution and firewall. A PCCS with a certificate of its own needs use_secure_cert: false.',
        cause,
      }),
    )
  }
}

function request(url: URL, options: HttpOptions, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const common = { headers: options.headers ?? {}, signal, maxHeaderSize, agent: false as const }
    const started =
      url.protocol === 'https:'
        ? httpsGet(url, { ...common, rejectUnauthorized: options.secureCertificate }, resolve)
        : httpGet(url, common, resolve)
    started.on('error', reject)
  })
}

function redirectTarget(from: URL, location: string | undefined, redirects: number): URL {
  const refuse = (why: string) =>
    new PccsError('pccs-redirect-refused', `${from.host}: ${why}`, {
      hint: 'Set pccs_url to the address where the service is now.',
    })
  if (redirects >= maxRedirects)
    throw refuse(`expected an answer after ${maxRedirects} redirects, got another redirect`)
  const target = location !== undefined && URL.canParse(location, from.href) ? new URL(location, from) : undefined
  if (target?.origin !== from.origin)
    throw refuse(`expected a redirect to the same host, got one to ${target?.origin ?? location}`)
  return target
}

async function readBody(response: IncomingMessage, url: URL, maxBytes: number): Promise<Buffer> {
  const tooLarge = (size: string) =>
    new PccsError(
      'pccs-answer-too-large',
      `${url.host}${url.pathname}: expected at most ${maxBytes} bytes, got ${size}`,
      {
        hint: 'This is no PCCS, or a broken one: check pccs_url.',
      },
    )
  const declared = Number(response.headers['content-length'] ?? 0)
  if (declared > maxBytes) {
    response.destroy()
    throw tooLarge(`${declared}`)
  }
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length
    // Leaving the loop destroys the response.
    if (size > maxBytes) throw tooLarge('more')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** Statuses of PCS and PCCS: 404 no data; 410 retired; 460 to 462 of PCCS: integrity, platform unknown, no certificate for this TCB. */
function refusedBy(url: URL, status: number, body: Buffer): PccsError | PassingFailure {
  const said = body
    .toString('latin1', 0, 200)
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
  const message = `${url.host}${url.pathname}: expected 200, got ${status}${said === '' ? '' : ` (${said})`}`
  if (status === 410) {
    return new PccsError('pccs-version-retired', message, {
      hint: 'This version of the API is gone: use /sgx/certification/v4/ in pccs_url.',
    })
  }
  if (status === 404 || status === 461 || status === 462) {
    return new PccsError('pccs-platform-unknown', message, {
      hint: 'The service has no data for this platform: register the platform with it, or ask another service.',
    })
  }
  const error = new PccsError('pccs-refused', message, {
    hint: 'Look into the log of the PCCS; 401 asks for a subscription key of Intel.',
  })
  return status === 429 || status >= 500 ? new PassingFailure(error) : error
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value
}
