// SPDX-License-Identifier: Apache-2.0
/**
 * What a PCCS or PCS answers, bytes → value (Intel PCS API v4 and v3). Only the form is checked, so that an HTML page with status 200 or a
 * damaged cache file does not pass for collateral; signatures, issuers and dates are the verifier's.
 * The inner JSON objects stay the very bytes that were sent: their signature is over those.
 */
import * as v from 'valibot'
import { splitPem } from '../x509/pem.ts'
import { parseCertificate, parseRevocationList } from '../x509/read.ts'
import { PccsError } from './pccs-error.ts'

/** One document with the chain that vouches for it, as a cache file holds it. */
export type SignedDocument = {
  readonly body: string
  /** Hex. */
  readonly signature: string
  readonly issuerChain: string
}

export type RevocationDocument = {
  /** DER in hex. */
  readonly crl: string
  /** Empty for the root CRL: its issuer is the root itself. */
  readonly issuerChain: string
}

/** From when to when a document says that it holds. */
export interface Validity {
  readonly issued: Date
  readonly nextUpdate: Date
}

const maxChainCertificates = 4
const dated = v.object({
  issueDate: v.pipe(v.string(), v.isoTimestamp()),
  nextUpdate: v.pipe(v.string(), v.isoTimestamp()),
})

/** `{"tcbInfo":{…},"signature":"…"}`, or `enclaveIdentity`. No expression here looks at a blank twice: answers may have millions. */
export function parseSignedDocument(name: 'tcbInfo' | 'enclaveIdentity', text: string, chain: string): SignedDocument {
  const start = new RegExp(`^\\s*\\{\\s*"${name}"\\s*:\\s*`).exec(text)
  const signatureAt = text.lastIndexOf('"signature"')
  const end = /^"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*$/.exec(text.slice(Math.max(signatureAt, 0)))
  const middle = text.slice(start?.[0].length ?? 0, signatureAt).trimEnd()
  if (start === null || end === null || !middle.endsWith(',')) {
    throw malformed(`{"${name}": …, "signature": …}`, excerpt(text))
  }
  const document = {
    body: middle.slice(0, -1).trimEnd(),
    signature: end[1]!.toLowerCase(),
    issuerChain: parseChain(chain),
  }
  validityOfDocument(document)
  return document
}

export function validityOfDocument({ body }: SignedDocument): Validity {
  try {
    const { issueDate, nextUpdate } = v.parse(dated, JSON.parse(body))
    return { issued: new Date(issueDate), nextUpdate: new Date(nextUpdate) }
  } catch (cause) {
    throw malformed('a JSON object with issueDate and nextUpdate', excerpt(body), cause)
  }
}

/** DER, hex of it (PCCS) or PEM (PCS): services differ, and so do their versions. */
export function parseRevocation(bytes: Buffer, chain: string): RevocationDocument {
  const document = {
    crl: revocationDer(bytes).toString('hex'),
    issuerChain: chain === '' ? '' : parseChain(chain),
  }
  validityOfRevocation(document)
  return document
}

export function validityOfRevocation({ crl }: RevocationDocument): Validity {
  try {
    const { thisUpdate, nextUpdate } = parseRevocationList(Buffer.from(crl, 'hex'))
    return { issued: new Date(thisUpdate), nextUpdate: new Date(nextUpdate) }
  } catch (cause) {
    throw malformed('a certificate revocation list', excerpt(crl), cause)
  }
}

function revocationDer(bytes: Buffer): Buffer {
  const sequenceTag = 0x30
  const longForm = 0x80
  // The text of a hex CRL begins with "30" too: 0x33 0x30.
  if (bytes[0] === sequenceTag && (bytes[1] ?? 0) > longForm) return bytes
  const text = bytes.toString('latin1').trim()
  if (text.length % 2 === 0 && /^[0-9a-fA-F]+$/.test(text)) return Buffer.from(text, 'hex')
  const pem = /^-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]+)-----END X509 CRL-----$/.exec(text)
  if (pem !== null) return Buffer.from(pem[1]!, 'base64')
  throw malformed('a CRL in DER, hex or PEM', excerpt(text))
}

/** Leaf first, root last, in the strict PEM that our reader takes: services put blank lines and other line ends between certificates. */
export function parseChain(text: string): string {
  try {
    const lines = text.split('\n').map((line) => line.trim())
    const pem = `${lines.filter((line) => line !== '').join('\n')}\n`
    const certificates = splitPem(pem)
    if (certificates.length > maxChainCertificates) throw new Error(`${certificates.length} certificates`)
    for (const der of certificates) parseCertificate(der)
    return pem
  } catch (cause) {
    throw malformed('a chain of certificates in PEM', excerpt(text), cause)
  }
}

export function decodeHeader(name: string, value: string | undefined): string {
  if (value === undefined) throw malformed(`a header ${name}`, 'none')
  try {
    return decodeURIComponent(value)
  } catch (cause) {
    throw malformed(`a percent-encoded header ${name}`, excerpt(value), cause)
  }
}

export function refusePage(body: Buffer): void {
  const text = body.toString('latin1', 0, 200)
  if (text.trimStart().startsWith('<')) throw malformed('collateral', excerpt(text))
}

function excerpt(text: string): string {
  const start = text.slice(0, 60).replace(/[^\x20-\x7e]+/g, ' ')
  return text.length === 0 ? 'nothing' : `"${start}${text.length > 60 ? '…' : ''}"`
}

function malformed(expected: string, got: string, cause?: unknown): PccsError {
  return new PccsError('pccs-answer-malformed', `expected ${expected}, got ${got}`, {
    hint: 'What answers is no PCCS, or a proxy stands before it: check pccs_url.',
    ...(cause === undefined ? {} : { cause }),
  })
}
