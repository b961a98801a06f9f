import { X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { testAuthority, testCollateral } from '../../test/simulated.ts'
import type { QuoteCollateral } from './collateral.ts'
import {
  decodeHeader,
  parseChain,
  parseRevocation,
  parseSignedDocument,
  refusePage,
  validityOfDocument,
  validityOfRevocation,
} from './pccs-answers.ts'
import { PccsError } from './pccs-error.ts'

let collateral: QuoteCollateral
beforeAll(async () => {
  collateral = await testCollateral(await testAuthority())
})
const malformed = expect.objectContaining({ code: 'pccs-answer-malformed' })

describe('signed JSON', () => {
  const signature = 'ab'.repeat(64)
  const body = '{"issueDate":"2026-01-02T03:04:05Z","nextUpdate":"2026-02-02T03:04:05Z","x":"\\"}, \\"signature\\""}'
  const chain = () => collateral.tcb_info_issuer_chain
  const document = (inner = body, signed = signature) => `{"tcbInfo":${inner},"signature":"${signed}"}`

  test('the inner object stays as it was sent, byte for byte', () => {
    const spaced = `{ "issueDate" : "2026-01-02T03:04:05Z",\n "nextUpdate":"2026-02-02T03:04:05Z" }`
    for (const inner of [body, spaced]) {
      const parsed = parseSignedDocument('tcbInfo', document(inner, signature.toUpperCase()), chain())
      expect(parsed).toEqual({ body: inner, signature, issuerChain: chain() })
    }
    const loose = `\n{ "tcbInfo" : ${body} , "signature" : "${signature}" }\n`
    expect(parseSignedDocument('tcbInfo', loose, chain()).body).toBe(body)
    expect(validityOfDocument({ body, signature, issuerChain: chain() })).toEqual({
      issued: new Date('2026-01-02T03:04:05Z'),
      nextUpdate: new Date('2026-02-02T03:04:05Z'),
    })
  })

  test.each([
    ['another object', `{"enclaveIdentity":${body},"signature":"${signature}"}`],
    ['no signature', `{"tcbInfo":${body}}`],
    ['a short signature', document(body, signature.slice(2))],
    ['a third member', `{"tcbInfo":${body},"x":1,"signature":"${signature}"}`],
    ['an array', document('[]')],
    ['no dates', document('{}')],
    ['a date that is none', document(body.replace('2026-01', '2026-13'))],
    ['broken JSON inside', document('{"issueDate":"2026-01-02T03:04:05Z"')],
    ['something after', `${document()}x`],
    ['nothing', ''],
  ])('%s is refused', (_what, text) => {
    expect(() => parseSignedDocument('tcbInfo', text, chain())).toThrow(malformed)
  })
})

describe('CRLs', () => {
  test('DER, hex in either case and PEM are the same', () => {
    const der = Buffer.from(collateral.pck_crl, 'hex')
    const pem = `-----BEGIN X509 CRL-----\n${der.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END X509 CRL-----\n`
    for (const bytes of [der, collateral.pck_crl, collateral.pck_crl.toUpperCase(), `${collateral.pck_crl}\n`, pem]) {
      expect(parseRevocation(Buffer.from(bytes), '').crl).toBe(collateral.pck_crl)
    }
  })

  test.each(['', '30', '3', 'zz', '-----BEGIN X509 CRL-----\n\n-----END X509 CRL-----', '{"crl":""}'])(
    '%j is refused',
    (text) => {
      expect(() => parseRevocation(Buffer.from(text), '')).toThrow(malformed)
    },
  )

  test('a certificate is no CRL', () => {
    const { raw } = new X509Certificate(collateral.pck_crl_issuer_chain)
    expect(() => parseRevocation(raw, '')).toThrow(malformed)
  })
})

describe('chains', () => {
  test('with either line end, with or without the last one, with blank lines', () => {
    const chain = collateral.tcb_info_issuer_chain
    for (const text of [
      chain,
      chain.trim(),
      chain.replaceAll('\n', '\r\n'),
      `${chain}\n`,
      chain.replace('\n---', '\n\n---'),
    ])
      expect(parseChain(text)).toBe(chain)
    expect(decodeHeader('X', encodeURIComponent(chain))).toBe(chain)
  })

  test.each(['', 'x', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'])('%j is refused', (text) => {
    expect(() => parseChain(text)).toThrow(malformed)
  })

  test('endless ones are refused', () => {
    expect(() => parseChain(collateral.tcb_info_issuer_chain.repeat(3))).toThrow(malformed)
  })

  test('a header that is missing or not percent-encoded', () => {
    expect(() => decodeHeader('X', undefined)).toThrow('header X')
    expect(() => decodeHeader('X', '%E0%A4%A')).toThrow(malformed)
  })
})

test('pages are named as such', () => {
  for (const page of ['<!DOCTYPE html>', ' \n<html>', '<?xml version="1.0"?>']) {
    expect(() => refusePage(Buffer.from(page))).toThrow(malformed)
  }
  refusePage(Buffer.from('{"tcbInfo":{}}'))
})

test('millions of blanks are refused in linear work: quadratic would take hours here', () => {
  const blanks = ' \t'.repeat(1_000_000)
  for (const text of [
    blanks,
    `{"tcbInfo":${blanks}`,
    `-----BEGIN X509 CRL-----${blanks}`,
    `-----BEGIN CERTIFICATE-----${blanks}`,
  ]) {
    expect(() => parseSignedDocument('tcbInfo', text, '')).toThrow(malformed)
    expect(() => parseRevocation(Buffer.from(text), '')).toThrow(malformed)
    expect(() => parseChain(text)).toThrow(malformed)
  }
})

test('whatever comes: a value or this error', () => {
  const hostile = fc.oneof(
    fc.string(),
    fc.uint8Array().map((bytes) => Buffer.from(bytes).toString('latin1')),
    fc.constantFrom(...(['tcb_info', 'pck_crl', 'tcb_info_issuer_chain'] as const)).chain((key) =>
      fc.tuple(fc.nat(3000), fc.string({ maxLength: 5 })).map(([at, text]) => {
        const value = collateral[key]
        return value.slice(0, at % value.length) + text + value.slice((at % value.length) + text.length)
      }),
    ),
  )
  const parsers: ((text: string) => unknown)[] = [
    (text) => parseSignedDocument('tcbInfo', text, text),
    (text) =>
      parseSignedDocument(
        'tcbInfo',
        `{"tcbInfo":${text},"signature":"${'0'.repeat(128)}"}`,
        collateral.tcb_info_issuer_chain,
      ),
    (text) => parseRevocation(Buffer.from(text, 'latin1'), ''),
    (text) => parseRevocation(Buffer.from(text, 'hex'), text),
    parseChain,
    (text) => decodeHeader('X', text),
  ]
  fc.assert(
    fc.property(hostile, fc.constantFrom(...parsers), (text, parse) => {
      try {
        parse(text)
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(PccsError)
      }
    }),
    { numRuns: 500 },
  )
})

requires('attestation-vectors').describe('what Intel really sent', () => {
  const directory = join(sharedDirectory, 'attestation-vectors/collateral')
  const files = (kind: string) =>
    readdirSync(join(directory, kind)).map((name) => readFileSync(join(directory, kind, name)))

  test('TCB info, QE identities and CRLs parse', () => {
    for (const [kind, name] of [
      ['tcb', 'tcbInfo'],
      ['qe', 'enclaveIdentity'],
    ] as const) {
      for (const file of files(kind)) {
        const { body } = parseSignedDocument(name, file.toString('utf8'), collateral.tcb_info_issuer_chain)
        expect(file.includes(body)).toBe(true)
      }
    }
    for (const file of files('crl')) {
      const { issued, nextUpdate } = validityOfRevocation(parseRevocation(file, ''))
      expect(nextUpdate.getTime() - issued.getTime()).toBeGreaterThan(20 * 86_400_000)
    }
  })

  test('chains of the TCB signer parse', () => {
    for (const file of files('chains')) expect(parseChain(file.toString('latin1'))).toContain('BEGIN CERTIFICATE')
  })
})
