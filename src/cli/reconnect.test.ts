import { expect, test } from 'vitest'
import { FederationError } from '../federation/federation-error.ts'
import { RatlsError } from '../ratls/ratls-error.ts'
import { TransportError } from '../transport/transport-error.ts'
import { mayRetry } from './reconnect.ts'

test.each([
  'connect-failed',
  'connection-lost',
  'handshake-timeout',
  'authentication-timeout',
  'authentication-failed',
] as const)('a server that is away or slow may come back: %s', (code) => {
  expect(mayRetry(new TransportError(code, 'gone'))).toBe(true)
})

test('a server that dies while both sides prove themselves may come back', () => {
  expect(mayRetry(new RatlsError('ratls-exchange-closed', 'gone', { hint: '' }))).toBe(true)
})

test('a server that is not what it should be is given up at once', () => {
  expect(mayRetry(new TransportError('handshake-failed', 'TLS 1.2'))).toBe(false)
  expect(mayRetry(new TransportError('closed-by-peer', 'refused'))).toBe(false)
  expect(mayRetry(new RatlsError('ratls-job-mismatch', 'another job', { hint: '' }))).toBe(false)
  expect(mayRetry(new FederationError('job-mismatch', 'another job', { hint: '' }))).toBe(false)
  expect(mayRetry(new Error('connect-failed'))).toBe(false)
})
