import { afterEach, expect, test, vi } from 'vitest'
import { meetBoth, testCredentials, testPolicy } from '../../test/attested-credentials.ts'
import { testAuthority, testCollateral, testNow } from '../../test/simulated.ts'
import { tlsPair } from '../../test/tls-pair.ts'
import type { AttestedPeer } from '../attestation/policy.ts'
import { PolicyError } from '../attestation/policy-format.ts'
import { MonotonicClock } from '../attestation/validity.ts'
import type { CloisterEvent } from '../observability/events.ts'
import { PeerWatch } from './peer-watch.ts'

const cleanups: (() => void)[] = []
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup()
  vi.useRealTimers()
})

/** A server that watches a worker which it attested over TLS; collateral is what the authority says now. */
async function watching({ maximumAgeMinutes = 60, seed = 11 } = {}) {
  const authority = await testAuthority({ seed })
  const host = { offsetMs: 0, elapsedMs: 0, reachable: true }
  const clock = new MonotonicClock(() => testNow.getTime() + host.offsetMs)
  const source = {
    collateralFor: async () => {
      if (!host.reachable) throw new Error('no collateral to be had')
      return testCollateral(authority)
    },
  }
  const policy = testPolicy(authority, { freshness: { maximumAgeMinutes } })
  const server = await testCredentials(authority, 'server', { collateral: source, clock, policy })
  const worker = await testCredentials(authority, 'worker')
  const pair = await tlsPair(server.identity(), worker.identity())
  const [atServer] = await meetBoth(pair, server, worker)
  await pair[Symbol.asyncDispose]()
  if (!atServer || !('peer' in atServer)) throw atServer?.error
  const events: CloisterEvent[] = []
  const start = () => {
    const watch = new PeerWatch({
      credentials: server,
      maximumAgeMinutes,
      elapsedMs: () => host.elapsedMs,
      report: (event) => events.push(event),
    })
    cleanups.push(() => watch.close())
    return watch
  }
  cleanups.push(
    () => server.close(),
    () => worker.close(),
  )
  const warnings = () => events.map((event) => (event.kind === 'warning' ? event.error.code : event.kind))
  return { authority, host, peer: atServer.peer, server, start, warnings }
}
const reasonsOf = (signal: AbortSignal) =>
  signal.reason instanceof PolicyError ? signal.reason.reasons.map(({ code }) => code) : signal.reason?.code

test('a peer that stays acceptable stays, and keeps one signal', async () => {
  const { peer, start, warnings } = await watching()
  const watch = start()
  const { withdrawn, isNew } = watch.signalFor(peer)
  await watch.reverify()
  expect(isNew).toBe(true)
  expect(withdrawn.aborted).toBe(false)
  expect(warnings()).toEqual([])
  expect(watch.signalFor(peer)).toEqual({ withdrawn, isNew: false })
})

test.each([
  ['tcb-recovery', ['tcb-status-unaccepted', 'advisory-unaccepted']],
  ['revoked-pck@default', 'certificate-revoked'],
  ['revoked-ca', 'certificate-revoked'],
  ['expired-collateral', expect.arrayContaining(['tcb-info-expired', 'qe-identity-expired', 'crl-expired'])],
])('%s while connected: withdrawn, once, with the coded reason', async (variant, reasons) => {
  const { authority, peer, server, start, warnings } = await watching()
  const watch = start()
  const { withdrawn } = watch.signalFor(peer)
  await authority.setVariants([variant])
  await watch.reverify()
  expect(reasonsOf(withdrawn)).toEqual(reasons)
  expect(warnings()).toEqual([])
  const asked = vi.spyOn(server, 'reverify')
  await watch.reverify()
  expect(asked).not.toHaveBeenCalled()
})

test('a clock that ran back is a warning, and drops nobody while the evidence is fresh', async () => {
  const { host, peer, start, warnings } = await watching()
  const watch = start()
  const { withdrawn } = watch.signalFor(peer)
  host.offsetMs = -3 * 3_600_000
  await watch.reverify()
  expect(withdrawn.aborted).toBe(false)
  expect(warnings()).toEqual(['clock-backwards'])
})

test.each([
  ['a host that sets its clock back', { offsetMs: -3 * 3_600_000 }, 'clock-backwards'],
  ['a host that withholds collateral', { reachable: false }, 'internal'],
])('%s cannot keep a peer for longer than the policy’s freshness', async (_title, change, warning) => {
  const { host, peer, start, warnings } = await watching()
  const watch = start()
  const { withdrawn } = watch.signalFor(peer)
  Object.assign(host, change, { elapsedMs: 60 * 60_000 })
  await watch.reverify()
  expect(withdrawn.aborted).toBe(false)
  host.elapsedMs += 1
  await watch.reverify()
  expect(reasonsOf(withdrawn)).toEqual(['evidence-stale'])
  expect(warnings()).toEqual([warning, warning])
})

test('freshness counts from the last judgement that succeeded', async () => {
  const { host, peer, start } = await watching()
  const watch = start()
  const { withdrawn } = watch.signalFor(peer)
  host.elapsedMs = 40 * 60_000
  await watch.reverify()
  host.reachable = false
  host.elapsedMs = 99 * 60_000
  await watch.reverify()
  expect(withdrawn.aborted).toBe(false)
  host.elapsedMs = 101 * 60_000
  await watch.reverify()
  expect(reasonsOf(withdrawn)).toEqual(['evidence-stale'])
})

test.each([
  [1, 60_000],
  [2, 60_000],
  [60, 30 * 60_000],
  [60 * 24 * 365, 24 * 3_600_000],
])(
  'of evidence that may be %i minutes old: judged again every %i ms, until closed',
  async (maximumAgeMinutes, periodMs) => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    const reverify = vi.fn(async (peer: AttestedPeer) => peer)
    const credentials = { reverify, reconsider: () => {} }
    const watch = new PeerWatch({ credentials, maximumAgeMinutes, elapsedMs: () => 0, report: () => {} })
    const peer = { root: 'simulated' } as AttestedPeer
    watch.signalFor(peer)
    await vi.advanceTimersByTimeAsync(periodMs - 1)
    expect(reverify).toHaveBeenCalledTimes(0)
    await vi.advanceTimersByTimeAsync(1)
    expect(reverify).toHaveBeenCalledTimes(1)
    await vi.advanceTimersByTimeAsync(periodMs)
    expect(reverify).toHaveBeenCalledTimes(2)
    watch.close()
    await vi.advanceTimersByTimeAsync(3 * periodMs)
    expect(reverify).toHaveBeenCalledTimes(2)
  },
)
