// SPDX-License-Identifier: Apache-2.0
/**
 * The resources of a PCCS or PCS that collateral consists of: where each is and how it reads. Paths and headers are those of
 * Intel's PCS API v4; v3 differs in one header and in the version of TCB info.
 */
import {
  decodeHeader,
  parseChain,
  parseRevocation,
  parseSignedDocument,
  type RevocationDocument,
  refusePage,
  type SignedDocument,
  type Validity,
  validityOfDocument,
  validityOfRevocation,
} from './pccs-answers.ts'
import type { HttpAnswer } from './pccs-http.ts'
import type { QcnlConfig } from './qcnl.ts'
import type { CertificationData } from './quote.ts'

export type Document = Readonly<Record<string, string>>
export type PckCaKind = 'platform' | 'processor'
export type PckIdentifier = Exclude<CertificationData, { type: 'pck-chain' }>

export interface Resource<D extends Document = Document> {
  /** Also its name in the cache. */
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly maxAgeMs: number
  readonly fromAnswer: (answer: HttpAnswer) => D
  /** From the cache: checked as if it had come from the service. */
  readonly fromCache: (document: Document) => D
  /** Undefined for what holds until it is replaced. */
  validity(document: D): Validity | undefined
}

export type SignedResource = Resource<SignedDocument>
export type RevocationResource = Resource<RevocationDocument>
export type PckChainResource = Resource<{ chain: string }>

const hourMs = 3_600_000
const intelHost = new URL('https://api.trustedservices.intel.com').host
const intelRootCrlUrl = 'https://certificates.trustedservices.intel.com/IntelSGXRootCA.der'

export function tcbInfoResource(config: QcnlConfig, fmspc: string): SignedResource {
  return signedResource(config, `tcb?fmspc=${fmspc}`, 'tcbInfo', ['TCB-Info-Issuer-Chain', 'SGX-TCB-Info-Issuer-Chain'])
}

export function qeIdentityResource(config: QcnlConfig): SignedResource {
  return signedResource(config, 'qe/identity', 'enclaveIdentity', ['SGX-Enclave-Identity-Issuer-Chain'])
}

export function pckCrlResource(config: QcnlConfig, ca: PckCaKind): RevocationResource {
  const url = new URL(`pckcrl?ca=${ca}&encoding=der`, config.collateralUrl)
  return revocationResource(config, url, (answer) => chainHeader(answer, ['SGX-PCK-CRL-Issuer-Chain']))
}

/** Intel's PCS leaves it at the address that Intel's root certificate names; a PCCS has a copy. */
export function rootCrlResource(config: QcnlConfig): RevocationResource {
  const base = new URL(config.collateralUrl)
  const url = base.host === intelHost ? new URL(intelRootCrlUrl) : new URL('rootcacrl', base)
  return revocationResource(config, url, () => '')
}

/** The PCK certificate of the platform that a quote names. `base` is the service of this machine or the PCCS. */
export function pckChainResource(
  config: QcnlConfig,
  base: string,
  data: PckIdentifier,
  qeId: string,
): PckChainResource {
  const url = new URL('pckcert', base)
  const pceSvn = Buffer.alloc(2)
  pceSvn.writeUInt16LE(data.pceSvn)
  const query = {
    qeid: qeId,
    ...(data.type === 'ppid-plain' ? {} : { encrypted_ppid: data.ppid }),
    cpusvn: data.cpuSvn,
    pcesvn: pceSvn.toString('hex'),
    pceid: data.pceId ?? '0000',
    ...config.requestOptions.params,
  }
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  return {
    url,
    headers: config.requestOptions.headers,
    maxAgeMs: config.pckCacheHours * hourMs,
    fromAnswer: (answer) => {
      const leaf = contentOf(answer).toString('latin1').trim()
      return { chain: parseChain(`${leaf}\n${chainHeader(answer, ['SGX-PCK-Certificate-Issuer-Chain'])}`) }
    },
    fromCache: ({ chain = '' }) => ({ chain: parseChain(chain) }),
    validity: () => undefined,
  }
}

function signedResource(
  config: QcnlConfig,
  path: string,
  name: 'tcbInfo' | 'enclaveIdentity',
  chainHeaders: readonly string[],
): SignedResource {
  const url = new URL(path, config.collateralUrl)
  if (config.tcbUpdateType !== undefined) url.searchParams.set('update', config.tcbUpdateType)
  return {
    url,
    headers: {},
    maxAgeMs: config.collateralCacheHours * hourMs,
    fromAnswer: (answer) =>
      parseSignedDocument(name, contentOf(answer).toString('utf8'), chainHeader(answer, chainHeaders)),
    fromCache: ({ body = '', signature = '', issuerChain = '' }) =>
      parseSignedDocument(name, `{"${name}":${body},"signature":"${signature}"}`, issuerChain),
    validity: validityOfDocument,
  }
}

function revocationResource(
  config: QcnlConfig,
  url: URL,
  issuerChainOf: (answer: HttpAnswer) => string,
): RevocationResource {
  return {
    url,
    headers: {},
    maxAgeMs: config.collateralCacheHours * hourMs,
    fromAnswer: (answer) => parseRevocation(contentOf(answer), issuerChainOf(answer)),
    fromCache: ({ crl = '', issuerChain = '' }) => parseRevocation(Buffer.from(crl, 'latin1'), issuerChain),
    validity: validityOfRevocation,
  }
}

/** A page is what proxies, portals and wrong addresses answer, with status 200 too: say that, not that a header is missing. */
function contentOf({ body }: HttpAnswer): Buffer {
  refusePage(body)
  return body
}

function chainHeader(answer: HttpAnswer, names: readonly string[]): string {
  const present = names.find((name) => answer.header(name) !== undefined) ?? names[0]!
  return decodeHeader(present, answer.header(present))
}
