// SPDX-License-Identifier: Apache-2.0
/**
 * What `cloister verify` can judge: a file with a quote, a file with an RA-TLS certificate (PEM or DER), or a peer that answers at
 * host:port with such a certificate. Everything in it is the peer's. A certificate binds its quote to a key, not to the
 * present: only a connection of a party to the job proves that the peer answers now.
 */
import { existsSync } from 'node:fs'
import { isIP } from 'node:net'
import { resolve } from 'node:path'
import { addAbortSignal } from 'node:stream'
import { connect } from 'node:tls'
import { parseQuote } from '../attestation/quote.ts'
import { CodedError, type PublicError, publicError } from '../errors.ts'
import { type CertificateEvidence, parseCertificateEvidence, verifyValidity } from '../ratls/certificate.ts'
import { RatlsError } from '../ratls/ratls-error.ts'
import { applicationProtocol } from '../transport/tls.ts'
import { derTags } from '../x509/der.ts'
import { splitPem } from '../x509/pem.ts'
import { readInput } from './input.ts'

export interface Subject {
  readonly quote: Uint8Array
  /** What speaks against it before the quote is looked at. */
  readonly reasons: readonly PublicError[]
}

/** What stands between us and a judgement, as opposed to what speaks against the subject. */
export class VerifyError extends CodedError<'verify-time-malformed' | 'verify-peer-unreachable'> {}

const handshakeTimeoutMs = 10_000

/** The bytes of a file, or of the certificate at host:port. */
export async function fetchSubject(text: string, cwd: string, signal: AbortSignal): Promise<Buffer> {
  const path = resolve(cwd, text)
  const address = /^(?:\[([0-9a-f:]+)\]|([^/:]+)):(\d{1,5})$/i.exec(text)
  if (existsSync(path) || !address) return readInput(path)
  const [, ipv6, name, port] = address
  return certificateOf((ipv6 ?? name)!, Number(port), signal)
}

/** Throws what the quote, certificate or evidence is refused for. */
export function readSubject(bytes: Buffer, now: number): Subject {
  const isPem = bytes.subarray(0, 10).toString('latin1') === '-----BEGIN'
  if (!isPem && bytes[0] !== derTags.sequence) return { quote: parseQuote(bytes).raw, reasons: [] }
  const evidence = parseCertificateEvidence(isPem ? onlyCertificate(bytes.toString('latin1')) : bytes)
  return { quote: evidence.quote.raw, reasons: datesAgainst(evidence, now) }
}

function onlyCertificate(pem: string): Buffer {
  const [certificate, ...rest] = splitPem(pem)
  if (rest.length === 0) return certificate!
  throw new RatlsError('ratls-evidence-absent', `expected one self-signed certificate, got ${rest.length + 1}`, {
    hint: 'An RA-TLS certificate stands alone: the quote in it carries the chain.',
  })
}

/** How long it lives is for connections to judge; here only whether it does. */
function datesAgainst(evidence: CertificateEvidence, now: number): PublicError[] {
  try {
    verifyValidity(evidence, { now, maxLifetimeMs: Number.POSITIVE_INFINITY })
    return []
  } catch (thrown) {
    if (thrown instanceof RatlsError) return [publicError(thrown)]
    throw thrown
  }
}

function certificateOf(host: string, port: number, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => {
      const got = cause instanceof Error ? cause.message : String(cause)
      const hint = 'Check address and network; the peer must speak TLS 1.3.'
      socket.destroy()
      reject(new VerifyError('verify-peer-unreachable', `Expected a peer at ${host}:${port}: ${got}.`, { hint, cause }))
    }
    // No authority vouches for an RA-TLS certificate: its quote does, which is what will be judged.
    const socket = connect({
      host,
      port,
      ...(isIP(host) ? {} : { servername: host }),
      rejectUnauthorized: false,
      minVersion: 'TLSv1.3',
      // Ours first; others serve RA-TLS too.
      ALPNProtocols: [applicationProtocol, 'h2', 'http/1.1'],
      timeout: handshakeTimeoutMs,
    })
    addAbortSignal(signal, socket)
    socket.once('error', fail)
    socket.once('timeout', () => fail(new Error(`no handshake within ${handshakeTimeoutMs} ms`)))
    socket.once('secureConnect', () => {
      const certificate = socket.getPeerX509Certificate()
      if (!certificate) return fail(new Error('no certificate'))
      socket.destroy()
      resolve(certificate.raw)
    })
  })
}
