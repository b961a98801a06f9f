import { describe, expect, test } from 'vitest'
import { codeOf } from '../../test/code-of.ts'
import { MonotonicClock, validityProblems } from './validity.ts'

describe('validity windows', () => {
  const window = (kind: 'certificate' | 'crl') => ({ what: 'it', kind, notBefore: 1000, notAfter: 2000 })
  const codes = (kind: 'certificate' | 'crl', now: number, grace: number) =>
    validityProblems([window(kind)], now, grace).map((it) => it.code)
  test.each([
    [999, 0, 'crl-not-yet-valid'],
    [1000, 0, undefined],
    [2000, 0, undefined],
    [2001, 0, 'crl-expired'],
    [2100, 100, undefined],
    [2101, 100, 'crl-expired'],
    [999, 1e9, 'crl-not-yet-valid'],
  ])('a CRL at %i with grace %i', (now, grace, code) => expect(codes('crl', now, grace)).toEqual(code ? [code] : []))
  test('a certificate has no grace', () => expect(codes('certificate', 2001, 1e9)).toEqual(['certificate-expired']))
})

describe('§6.40 clock backwards', () => {
  test('not behind what Intel signed, nor behind itself', () => {
    let reading = 1_000_000
    const clock = new MonotonicClock(() => reading, 100)
    expect(clock.now()).toBe(1_000_000)
    reading = 999_900
    expect(clock.now()).toBe(999_900)
    reading = 999_899
    expect(codeOf(() => clock.now())).toBe('clock-backwards')
    clock.observe(2_000_000)
    reading = 1_500_000
    expect(codeOf(() => clock.now())).toBe('clock-backwards')
    clock.observe(1)
    reading = 1_999_900
    expect(clock.now()).toBe(1_999_900)
  })
})
