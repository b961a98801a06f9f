// SPDX-License-Identifier: Apache-2.0
/**
 * Certificates in PEM (RFC 7468, the strict form of section 3): lines of 64 characters, one kind of line end, nothing before,
 * between or after. Each certificate has exactly one spelling, so no byte of a chain can be changed without being noticed.
 */
import { X509Error } from './der.ts'

const begin = '-----BEGIN CERTIFICATE-----'
const end = '-----END CERTIFICATE-----'
const lineLength = 64

/** DER of each certificate in order. One NUL may end the text: Intel's quoting library writes it. */
export function splitPem(text: string): Buffer[] {
  const body = text.endsWith('\0') ? text.slice(0, -1) : text
  const lineEnd = body.startsWith(`${begin}\r\n`) ? '\r\n' : '\n'
  const certificates: Buffer[] = []
  for (let at = 0; at < body.length; ) {
    const stop = body.indexOf(end, at)
    const start = at + begin.length + lineEnd.length
    if (stop < start) throw malformed(`"${end}" after offset ${at}`)
    const der = Buffer.from(body.slice(start, stop), 'base64')
    if (der.length === 0 || !isEncodedAt(body, at, der, lineEnd))
      throw malformed(`a certificate in strict PEM at offset ${at}`)
    certificates.push(der)
    at = stop + end.length
    if (at < body.length) {
      if (!body.startsWith(lineEnd, at)) throw malformed(`a line end at offset ${at}`)
      at += lineEnd.length
    }
  }
  if (certificates.length === 0) throw malformed('at least one certificate')
  return certificates
}

/** Whether this is the one spelling of these bytes: what `encodePem` writes, compared without writing it. */
function isEncodedAt(text: string, at: number, der: Buffer, lineEnd: '\n' | '\r\n'): boolean {
  const base64 = der.toString('base64')
  let offset = at + begin.length
  for (let from = 0; from < base64.length; from += lineLength) {
    const line = lineEnd + base64.slice(from, from + lineLength)
    if (!text.startsWith(line, offset)) return false
    offset += line.length
  }
  return text.startsWith(begin, at) && text.startsWith(lineEnd + end, offset)
}

/** Without a line end after the last line. */
export function encodePem(der: Uint8Array, lineEnd: '\n' | '\r\n' = '\n'): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64')
  return [begin, ...(base64.match(/.{1,64}/g) ?? []), end].join(lineEnd)
}

function malformed(expected: string): X509Error {
  return new X509Error('pem-malformed', `Expected ${expected} in the PEM text, got something else.`, {
    hint: 'Export the certificates anew, for instance with openssl x509, without text around them.',
  })
}
