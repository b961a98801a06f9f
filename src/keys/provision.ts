// SPDX-License-Identifier: Apache-2.0
/**
 * The owner's side of provisioning, on the owner's own machine: connects to an enclave, judges its certificate and then a quote
 * made for this very connection by the owner's policy, and only then sends the secret. Whoever answers is hostile until then.
 */
import { isIP } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import type { AttestedPeer } from '../attestation/policy.ts'
import { refusePeer } from '../ratls/attestation-exchange.ts'
import { parseCertificateEvidence, verifyValidity } from '../ratls/certificate.ts'
import { requireChannel } from '../ratls/credentials.ts'
import { orAborted, withDeadline } from '../ratls/deadline.ts'
import type { PeerJudge } from '../ratls/peer.ts'
import { KeysError } from './keys-error.ts'
import type { OwnerKey } from './owner-key.ts'
import { handOverKey, type ProvisionedRole, provisioningProtocol, requireKey } from './provisioning-exchange.ts'

export interface ProvisionOptions {
  readonly host: string
  readonly port: number
  readonly judge: Pick<PeerJudge, 'judge'>
  readonly now: () => number
  readonly jobDigest: Uint8Array
  readonly owner: OwnerKey
  readonly name: string
  readonly secret: Uint8Array
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

export interface Provisioned {
  readonly role: ProvisionedRole
  /** The enclave that has the key now. */
  readonly peer: AttestedPeer
}

/** A week: what transport connections accept too. */
const maxLifetimeMs = 7 * 24 * 3_600_000

export async function provisionKey(options: ProvisionOptions): Promise<Provisioned> {
  requireKey(options.name, options.secret)
  const deadline = withDeadline(options.signal, options.timeoutMs)
  let socket: TLSSocket | undefined
  try {
    socket = await connectTo(options, deadline.signal)
    const shown = await admit(socket, options, deadline.signal)
    const { jobDigest, owner, name, secret, judge } = options
    let peer: AttestedPeer | undefined
    const { role } = await handOverKey({
      ...{ socket, jobDigest, owner, name, secret, shown },
      judge: async (quote) => {
        peer = await judge.judge(quote)
      },
      signal: deadline.signal,
    })
    return { role, peer: peer as AttestedPeer }
  } finally {
    deadline.release()
    socket?.destroy()
  }
}

/** Channel, certificate, the quote in it, policy: before we say anything, even who we are. */
async function admit(socket: TLSSocket, { judge, now }: ProvisionOptions, signal: AbortSignal) {
  try {
    requireChannel(socket)
    const certificate = socket.getPeerX509Certificate()
    const shown = parseCertificateEvidence(certificate?.raw ?? Buffer.alloc(0))
    verifyValidity(shown, { now: now(), maxLifetimeMs })
    await orAborted(judge.judge(shown.quote), signal)
    return shown
  } catch (error) {
    await refusePeer(socket, signal, error)
    throw error
  }
}

function connectTo({ host, port }: ProvisionOptions, signal: AbortSignal): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => {
      const got = cause instanceof Error ? cause.message : String(cause)
      socket.destroy()
      reject(
        new KeysError('provision-unreachable', `expected an enclave that takes keys at ${host}:${port}, got: ${got}`, {
          hint: 'The address is in the log of the enclave; it is not the port for workers.',
          cause,
        }),
      )
    }
    // No authority vouches for an RA-TLS certificate: its quote does, which is judged next.
    const socket = connect({
      ...{ host, port },
      ...(isIP(host) ? {} : { servername: host }),
      rejectUnauthorized: false,
      minVersion: 'TLSv1.3',
      ALPNProtocols: [provisioningProtocol],
    })
    const abort = (): void => fail(signal.reason)
    signal.addEventListener('abort', abort)
    socket.once('error', fail)
    socket.once('secureConnect', () => {
      signal.removeEventListener('abort', abort)
      socket.off('error', fail)
      socket.on('error', () => socket.destroy())
      resolve(socket)
    })
  })
}
