// SPDX-License-Identifier: Apache-2.0
/**
 * Client of a PCCS or of Intel's PCS (API v4 and v3): for a quote, the collateral that judges it.
 *
 * The host decides which service is asked and holds the disk cache, so it can withhold collateral or keep an old one alive until that
 * expires; policies bound this by evaluation number and dates. A peer decides which quote is asked about: nothing is fetched for a
 * quote whose PCK certificate does not chain to the trusted root, so that strangers cannot make us ask for platforms that do not exist.
 */
import type { EventSink } from '../observability/events.ts'
import { verifyPckChain } from './chain.ts'
import type { QuoteCollateral } from './collateral.ts'
import type { CollateralSource } from './collateral-source.ts'
import { AttestationError } from './error.ts'
import { pkiNames } from './format.ts'
import type { RevocationDocument, SignedDocument } from './pccs-answers.ts'
import { CollateralCache } from './pccs-cache.ts'
import { PccsError } from './pccs-error.ts'
import type { HttpLimits } from './pccs-http.ts'
import {
  type PckCaKind,
  type PckIdentifier,
  pckChainResource,
  pckCrlResource,
  qeIdentityResource,
  rootCrlResource,
  tcbInfoResource,
} from './pccs-resources.ts'
import { CollateralStore, type Held } from './pccs-store.ts'
import { parsePckIdentity } from './pck.ts'
import type { QcnlConfig } from './qcnl.ts'
import { parseQuote } from './quote.ts'
import { trustCollateral } from './verify.ts'

export interface PccsOptions {
  readonly config: QcnlConfig
  /** SHA-256 of the root certificate, hex: what the policy trusts. */
  readonly rootFingerprint: string
  /** Without one, collateral lives as long as the process. */
  readonly cacheDirectory?: string
  readonly now: () => Date
  /** In [0, 1): spreads the retries of many clients. */
  readonly random: () => number
  readonly report: EventSink
  readonly limits?: Partial<HttpLimits>
}

/** TCB info has some 30 KB, CRLs of PCK CAs grow to hundreds. */
const maxAnswerBytes = 4_000_000
/** A CRL is hex on disk. */
const maxCacheFileBytes = 2 * maxAnswerBytes + 100_000
const timeoutMs = 15_000

export class PccsClient implements CollateralSource {
  readonly #config: QcnlConfig
  readonly #rootFingerprint: string
  readonly #store: CollateralStore

  constructor({ config, rootFingerprint, cacheDirectory, limits, ...store }: PccsOptions) {
    this.#config = config
    this.#rootFingerprint = rootFingerprint
    const { retryTimes: retries, retryDelayMs } = config
    this.#store = new CollateralStore({
      ...store,
      cache: cacheDirectory === undefined ? undefined : new CollateralCache(cacheDirectory, maxCacheFileBytes),
      cacheOnly: config.localCacheOnly,
      secureCertificate: config.useSecureCert,
      limits: { timeoutMs, maxBytes: maxAnswerBytes, retries, retryDelayMs, ...limits },
    })
  }

  async collateralFor(bytes: Uint8Array): Promise<QuoteCollateral> {
    const { certification, userData } = parseQuote(bytes)
    if (certification.type === 'pck-chain') return this.#collateral(this.#platformOf(certification.pem), {})
    const qeId = userData.slice(0, 32)
    const chain = await this.#pckChain(certification, qeId)
    return this.#collateral(this.#platformOf(chain), { pck_certificate_chain: chain })
  }

  /** From now on collateral is renewed before it expires; `onChange` says that some is different from before. */
  keepFresh(onChange: () => void): void {
    this.#store.keepFresh(onChange)
  }

  /** Asks again for all that was asked so far. True if anything is different. */
  refresh(): Promise<boolean> {
    return this.#store.refresh()
  }

  /** Asks for what does not depend on a platform, past every cache: is the service there, and what has it. */
  async probe(): Promise<{ readonly qeIdentity: SignedDocument; readonly rootCrl: RevocationDocument }> {
    const [qeIdentity, rootCrl] = await Promise.all([
      this.#store.fetch(qeIdentityResource(this.#config)),
      this.#store.fetch(rootCrlResource(this.#config)),
    ])
    return { qeIdentity: qeIdentity.document, rootCrl: rootCrl.document }
  }

  close(): void {
    this.#store.close()
  }

  #platformOf(pckChain: string): { fmspc: string; ca: PckCaKind } {
    const chain = verifyPckChain(pckChain)
    if (chain.root.fingerprint !== this.#rootFingerprint) {
      throw new AttestationError(
        'chain-untrusted-root',
        `Expected a chain to the root with SHA-256 ${this.#rootFingerprint}, got ${chain.root.fingerprint}.`,
        {
          hint: 'The policy names the root it trusts. A simulated platform has a root of its own, never that of Intel.',
        },
      )
    }
    const ca = chain.leaf.issuer.commonName === pkiNames.platformCa ? 'platform' : 'processor'
    return { fmspc: parsePckIdentity(chain.leaf).fmspc, ca }
  }

  /** The PCK certificate that a quote names but does not carry: from this machine's own service, else from the PCCS. */
  async #pckChain(data: PckIdentifier, qeId: string): Promise<string> {
    const from = async (base: string) =>
      (await this.#store.load(pckChainResource(this.#config, base, data, qeId))).document.chain
    const { localPckUrl, pccsUrl } = this.#config
    if (localPckUrl === undefined) return from(pccsUrl)
    return from(localPckUrl).catch((thrown: unknown) => {
      if (thrown instanceof PccsError) return from(pccsUrl)
      throw thrown
    })
  }

  async #collateral(
    platform: { fmspc: string; ca: PckCaKind },
    pck: Pick<QuoteCollateral, 'pck_certificate_chain'>,
  ): Promise<QuoteCollateral> {
    const documents = await Promise.all([
      this.#store.load(pckCrlResource(this.#config, platform.ca)),
      this.#store.load(rootCrlResource(this.#config)),
      this.#store.load(tcbInfoResource(this.#config, platform.fmspc)),
      this.#store.load(qeIdentityResource(this.#config)),
    ] as const)
    const collateral = bundle(documents, pck)
    const suspect = documents.some((held) => held.fromCache) && !this.#config.localCacheOnly
    if (!suspect || this.#isTrusted(collateral)) return collateral
    // What was on disk is not what was signed: ask again rather than fail until it would be due.
    const [pckCrl, rootCrl, tcbInfo, qeIdentity] = documents
    return bundle(
      await Promise.all([
        this.#store.fetch(pckCrl.resource),
        this.#store.fetch(rootCrl.resource),
        this.#store.fetch(tcbInfo.resource),
        this.#store.fetch(qeIdentity.resource),
      ] as const),
      pck,
    )
  }

  #isTrusted(collateral: QuoteCollateral): boolean {
    try {
      trustCollateral(collateral, this.#rootFingerprint)
      return true
    } catch (thrown) {
      if (thrown instanceof AttestationError) return false
      throw thrown
    }
  }
}

function bundle(
  [pckCrl, rootCrl, tcbInfo, qeIdentity]: readonly [
    Held<RevocationDocument>,
    Held<RevocationDocument>,
    Held<SignedDocument>,
    Held<SignedDocument>,
  ],
  pck: Pick<QuoteCollateral, 'pck_certificate_chain'>,
): QuoteCollateral {
  return {
    pck_crl_issuer_chain: pckCrl.document.issuerChain,
    root_ca_crl: rootCrl.document.crl,
    pck_crl: pckCrl.document.crl,
    tcb_info_issuer_chain: tcbInfo.document.issuerChain,
    tcb_info: tcbInfo.document.body,
    tcb_info_signature: tcbInfo.document.signature,
    qe_identity_issuer_chain: qeIdentity.document.issuerChain,
    qe_identity: qeIdentity.document.body,
    qe_identity_signature: qeIdentity.document.signature,
    ...pck,
  }
}
