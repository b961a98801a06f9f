// SPDX-License-Identifier: Apache-2.0
/**
 * Credentials of an enclave for the transport: who we are, by a certificate that our platform attests and that is renewed
 * before it expires, and whom we accept, by the whole of docs/protocol.md from its step 2 on. The peer, the network and the host
 * between are hostile until `authenticate` has returned.
 */
import assert from 'node:assert/strict'
import { randomBytes, type X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import { reportFields } from '../attestation/format.ts'
import type { Platform } from '../attestation/platforms/platform.ts'
import type { AttestedPeer } from '../attestation/policy.ts'
import { parseQuote, type Quote } from '../attestation/quote.ts'
import { publicError } from '../errors.ts'
import type { EventSink } from '../observability/events.ts'
import type { Credentials, Handshake, TlsIdentity } from '../transport/connection.ts'
import { splitPem } from '../x509/pem.ts'
import { type AttestedRole, exchangeQuotes, refusePeer } from './attestation-exchange.ts'
import {
  type AttestedIdentity,
  createAttestedIdentity,
  parseCertificateEvidence,
  verifyValidity,
} from './certificate.ts'
import { orAborted, withDeadline } from './deadline.ts'
import { PeerJudge, type PeerJudgeOptions } from './peer.ts'
import { RatlsError } from './ratls-error.ts'

export interface AttestedCredentialsOptions extends Omit<PeerJudgeOptions, 'self'> {
  /** Makes our quotes, and is what the policy calls `self`. */
  readonly platform: Platform
  readonly role: AttestedRole
  /** SHA-256 over the canonical JSON of the job. */
  readonly jobDigest: Uint8Array
  /** Hears of renewals that failed. */
  readonly report: EventSink
  readonly limits?: Partial<CredentialLimits>
}

export interface CredentialLimits {
  /** Of our certificates. */
  readonly lifetimeMs: number
  /** Of certificates that we accept. */
  readonly maxLifetimeMs: number
  /** From the end of the handshake to an attested peer: two quotes, and collateral from a PCCS. */
  readonly exchangeTimeoutMs: number
  /** After a renewal that failed. */
  readonly renewalRetryMs: number
}

const hourMs = 3_600_000
const defaultLimits: CredentialLimits = {
  lifetimeMs: 24 * hourMs,
  maxLifetimeMs: 7 * 24 * hourMs,
  exchangeTimeoutMs: 20_000,
  renewalRetryMs: 60_000,
}
/** A third of its life is left when a certificate is replaced: time for a platform that is out of order to be repaired. */
const renewedAfter = 2 / 3
const nonceBytes = 32

export class AttestedCredentials implements Credentials<AttestedPeer> {
  readonly #options: AttestedCredentialsOptions
  readonly #limits: CredentialLimits
  readonly #judge: PeerJudge
  /** The quote that each peer stands on, and what it stated to be, for as long as anyone holds the peer. */
  readonly #known = new WeakMap<AttestedPeer, { readonly quote: Quote; readonly role: AttestedRole }>()
  #identity: AttestedIdentity
  #renewal: NodeJS.Timeout | undefined
  #closed = false

  private constructor(options: AttestedCredentialsOptions, limits: CredentialLimits, identity: AttestedIdentity) {
    this.#options = options
    this.#limits = limits
    this.#judge = new PeerJudge({ ...options, self: options.platform.self.mrEnclave })
    this.#identity = identity
    this.#renewAfter(limits.lifetimeMs * renewedAfter)
  }

  /** `close` it, or renewals go on. */
  static async create(options: AttestedCredentialsOptions): Promise<AttestedCredentials> {
    const limits = { ...defaultLimits, ...options.limits }
    return new AttestedCredentials(options, limits, await newIdentity(options, limits))
  }

  identity(): AttestedIdentity {
    return this.#identity
  }

  /** A new key, new quotes, a new certificate: for handshakes from now on. */
  async renew(): Promise<void> {
    this.#identity = await newIdentity(this.#options, this.#limits)
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#renewal)
  }

  async authenticate({ socket, certificate, identity }: Handshake, signal: AbortSignal): Promise<AttestedPeer> {
    const deadline = withDeadline(signal, this.#limits.exchangeTimeoutMs)
    try {
      const shown = await this.#admit(socket, certificate, deadline.signal)
      const { proven, role } = await this.#exchange(socket, identity, shown, deadline.signal)
      const { peer, quote } = proven
      this.#known.set(peer, { quote, role })
      return peer
    } finally {
      deadline.release()
    }
  }

  /**
   * Judges a connected peer again, by the collateral of now. Resolves to it with newer evidence; rejects with an
   * AttestationError or PolicyError when it must be dropped, and with what the source threw when nothing could be learnt.
   */
  async reverify(peer: AttestedPeer): Promise<AttestedPeer> {
    const known = this.#knownOf(peer)
    const again = await this.#judge.judge(known.quote)
    this.#known.set(again, known)
    return again
  }

  /** Without collateral or clock: throws a PolicyError when what was proven `elapsedMs` ago has become too old by itself. */
  reconsider(peer: AttestedPeer, elapsedMs: number): void {
    this.#judge.reconsider(peer, elapsedMs)
  }

  /** The fresh quote of a peer that these credentials authenticated: what collateral must be fetched for, and the audit record keeps. */
  quoteOf(peer: AttestedPeer): Quote {
    return this.#knownOf(peer).quote
  }

  /** What the peer's attested code stated to be. */
  roleOf(peer: AttestedPeer): AttestedRole {
    return this.#knownOf(peer).role
  }

  #knownOf(peer: AttestedPeer) {
    const known = this.#known.get(peer)
    assert(known, 'a peer that these credentials did not authenticate')
    return known
  }

  /** Step 2: channel, certificate, the quote in it, policy. */
  async #admit(socket: TLSSocket, certificate: X509Certificate, signal: AbortSignal) {
    try {
      requireChannel(socket)
      const shown = parseCertificateEvidence(certificate.raw)
      verifyValidity(shown, { now: this.#options.clock.now(), maxLifetimeMs: this.#limits.maxLifetimeMs })
      await orAborted(this.#judge.judge(shown.quote), signal)
      return shown
    } catch (error) {
      await refusePeer(socket, signal, error)
      throw error
    }
  }

  /** Steps 3 to 5: roles, job, fresh quotes, policy again. */
  #exchange(
    socket: TLSSocket,
    identity: TlsIdentity,
    shown: { readonly quote: Quote; readonly publicKeyHash: Buffer },
    signal: AbortSignal,
  ) {
    const { role, jobDigest, platform } = this.#options
    return exchangeQuotes({
      socket,
      own: { role, nonce: randomBytes(nonceBytes), publicKeyHash: keyHashOf(identity) },
      peerRoles: role === 'server' ? ['worker', 'follower'] : ['server'],
      peerPublicKeyHash: shown.publicKeyHash,
      jobDigest,
      quote: (reportData) => platform.quote(reportData),
      verify: async (bytes, reportData) => {
        const quote = parseQuote(bytes)
        requireFresh(quote, reportData, shown.quote)
        return { quote, peer: await this.#judge.judge(quote) }
      },
      signal,
    })
  }

  #renewAfter(delayMs: number): void {
    if (this.#closed) return
    const renew = async (): Promise<void> => {
      try {
        await this.renew()
        this.#renewAfter(this.#limits.lifetimeMs * renewedAfter)
      } catch (error) {
        this.#options.report({ kind: 'warning', error: publicError(error) })
        this.#renewAfter(this.#limits.renewalRetryMs)
      }
    }
    this.#renewal = setTimeout(() => void renew(), delayMs).unref()
  }
}

const keyHashes = new WeakMap<TlsIdentity, Buffer>()

/** Of the certificate that we showed, which is read once. */
function keyHashOf(identity: TlsIdentity): Buffer {
  const known = keyHashes.get(identity)
  if (known !== undefined) return known
  const [der] = splitPem(identity.certificate)
  assert(der, 'an identity has a certificate')
  const { publicKeyHash } = parseCertificateEvidence(der)
  keyHashes.set(identity, publicKeyHash)
  return publicKeyHash
}

function newIdentity(options: AttestedCredentialsOptions, { lifetimeMs }: CredentialLimits): Promise<AttestedIdentity> {
  const { platform, clock } = options
  return createAttestedIdentity({ quote: (reportData) => platform.quote(reportData), now: clock.now(), lifetimeMs })
}

/** The exporter binds a quote to a channel in TLS 1.3 only; and a resumed session is older than its nonces. */
export function requireChannel(socket: TLSSocket): void {
  const [protocol, resumed] = [socket.getProtocol(), socket.isSessionReused()]
  if (protocol === 'TLSv1.3' && !resumed) return
  throw new RatlsError(
    'ratls-channel-unsuitable',
    `expected a full handshake of TLSv1.3, got ${resumed ? 'a resumed session of ' : ''}${protocol}`,
    { hint: 'RA-TLS connections are TLS 1.3 without resumption on both sides.' },
  )
}

/** The quote is of this connection, and of the enclave that the certificate showed. */
export function requireFresh(quote: Quote, reportData: Uint8Array, shown: Quote): void {
  if (!quote.report.reportData.equals(reportData))
    throw new RatlsError(
      'ratls-quote-not-fresh',
      'expected REPORTDATA over the nonces, channel, role, keys and job of this connection, got another value',
      { hint: 'The quote was made for another connection or in another role: a relay or a replay looks like this.' },
    )
  const enclaveOf = ({ report }: Quote): Buffer => report.raw.subarray(0, reportFields.reportData.offset)
  if (!enclaveOf(quote).equals(enclaveOf(shown)))
    throw new RatlsError(
      'ratls-enclave-changed',
      'expected the fresh quote from the enclave in the certificate, got one from another',
      { hint: 'Certificate and fresh quote must come from one process. Do not trust this peer.' },
    )
}
