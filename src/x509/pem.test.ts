import fc from 'fast-check'
import { expect, test } from 'vitest'
import { codeOf } from '../../test/code-of.ts'
import { encodePem, splitPem } from './pem.ts'

const one = encodePem(Buffer.alloc(100, 1))
const two = encodePem(Buffer.alloc(7, 2))

test('certificates come back as they went in', () => {
  const some = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(some, fc.constantFrom('\n', '\r\n'), fc.constantFrom('', 'end'), (ders, lineEnd, last) => {
      const text = ders.map((der) => encodePem(der, lineEnd)).join(lineEnd) + (last && lineEnd)
      expect(splitPem(text).map((der) => der.toString('hex'))).toEqual(
        ders.map((der) => Buffer.from(der).toString('hex')),
      )
      expect(splitPem(`${text}\0`)).toEqual(splitPem(text))
    }),
  )
})

test.each([
  ['nothing', ''],
  ['a NUL', '\0'],
  ['text before', `x${one}`],
  ['a line before', `\n${one}`],
  ['text between', `${one}\nSubject: CN=x\n${two}`],
  ['no line end between', `${one}${two}`],
  ['two line ends between', `${one}\n\n${two}`],
  ['text after', `${one}\nx`],
  ['two line ends after', `${one}\n\n`],
  ['two NULs', `${one}\0\0`],
  ['a NUL between', `${one}\n\0${two}`],
  ['mixed line ends', `${one}\r\n${two}`],
  ['another label', one.replaceAll('CERTIFICATE', 'X509 CRL')],
  ['no end', one.slice(0, -10)],
  ['no begin', one.slice(10)],
  ['an empty certificate', '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----'],
  ['longer lines', one.replace(/(?<=[A-Za-z0-9+/=]{64})\n/, '')],
  ['spaces', one.replace('\n', ' \n')],
  ['base64 of another alphabet', encodePem(Buffer.alloc(48, 0xff)).replaceAll('/', '_')],
  ['padding bits set', encodePem(Buffer.from([1])).replace('AQ==', 'AR==')],
])('refuses %s', (_, text) => expect(codeOf(() => splitPem(text))).toBe('pem-malformed'))
