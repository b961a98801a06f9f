// SPDX-License-Identifier: Apache-2.0
/**
 * A PCCS for the simulated authority: the HTTP interface of Intel's Provisioning Certificate Caching Service (PCCS API v3 and v4), so that
 * any DCAP client can be pointed at it. Answers are signed or public; whoever can reach the port learns nothing else.
 *
 *     GET /sgx/certification/v4/{pckcert,pckcrl,tcb,qe/identity,rootcacrl,crl}     likewise v3;  GET /version
 */
import { randomUUID } from 'node:crypto'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PccsError } from './pccs-error.ts'
import { caMember, rootCrlUrl, type SimulatedAuthority } from './platforms/simulated-authority.ts'
import { collateralTerms, issueCollateral, type SimulatedCollateral } from './platforms/simulated-collateral.ts'
import { issuePckCertificate } from './platforms/simulated-pck.ts'
import { simulatedFmspc, simulatedPceId, type TcbLevel, tcbLevels } from './platforms/simulated-tcb.ts'

export interface PccsServerOptions {
  readonly authority: SimulatedAuthority
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  readonly now: () => Date
}

export interface PccsServer {
  /** What goes into `pccs_url`: ends in `/sgx/certification/v4/`. */
  readonly url: string
  close(): Promise<void>
}

interface Answer {
  readonly status: number
  readonly type?: string
  readonly body: string | Uint8Array
  readonly headers?: Readonly<Record<string, string>>
}

/** Statuses and texts of Intel's PCCS (constants/pccs_status_code.js). */
const refusals = {
  invalid: { status: 400, body: 'Invalid request parameters.' },
  unknownPlatform: { status: 461, body: 'The platform was not found in the cache.' },
  noCertificate: { status: 462, body: 'Certificates are not available for certain TCBs.' },
  noData: { status: 404, body: 'No cache data for this platform.' },
  notFound: { status: 404, body: 'Not found.' },
  wrongMethod: { status: 405, body: 'Method not allowed.' },
  failed: { status: 500, body: 'Internal server error occurred.' },
} as const satisfies Record<string, Answer>

export async function startPccsServer(options: PccsServerOptions): Promise<PccsServer> {
  const service = new PccsService(options)
  const server = createServer((request, response) => {
    if (request.method !== 'GET') return send(response, refusals.wrongMethod)
    service.answer(request.url ?? '/').then(
      (answer) => send(response, answer),
      () => send(response, refusals.failed),
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      const where = `${options.host}:${options.port}`
      const message = `expected to serve collateral on ${where}, got: ${cause.message}`
      const hint = 'Choose another address or port, or end what uses it; port 0 takes a free one.'
      reject(new PccsError('pccs-address-unusable', message, { hint, cause }))
    })
    server.listen(options.port, options.host, resolve)
  })
  const { address, family, port } = server.address() as AddressInfo
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/sgx/certification/v4/`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function send(response: ServerResponse, { status, type, body, headers }: Answer): void {
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  response.writeHead(status, {
    'Content-Type': type ?? 'text/plain',
    'Content-Length': bytes.length,
    'Request-ID': randomUUID().replaceAll('-', ''),
    ...headers,
  })
  response.end(bytes)
}

class PccsService {
  readonly #authority: SimulatedAuthority
  readonly #now: () => Date
  /** A PCK certificate is issued once, as Intel does. */
  readonly #issued = new Map<string, string>()
  #signed: { readonly id: string; readonly collateral: SimulatedCollateral } | undefined

  constructor({ authority, now }: PccsServerOptions) {
    this.#authority = authority
    this.#now = now
  }

  async answer(target: string): Promise<Answer> {
    const url = new URL(target, 'http://pccs')
    if (url.pathname === '/version') return { status: 200, body: '4' }
    const [, version, resource] = /^\/sgx\/certification\/v([34])\/([a-z/]+)$/.exec(url.pathname) ?? []
    const query = (name: string) => url.searchParams.get(name)?.toLowerCase()
    if (resource === 'pckcert') return this.#pckCertificate(query)
    if (resource === 'pckcrl') return this.#pckCrl(query('ca'), query('encoding'))
    if (resource === 'tcb') return this.#tcbInfo(version === '3', query)
    if (resource === 'qe/identity') return this.#qeIdentity(query('update'))
    if (resource === 'rootcacrl') return { status: 200, body: (await this.#collateral()).rootCrl.der.toString('hex') }
    if (resource === 'crl') return this.#crlAt(url.searchParams.get('uri'))
    return refusals.notFound
  }

  /** Signed again only when there is something else to say: a document has one signature. */
  async #collateral(): Promise<SimulatedCollateral> {
    const terms = await collateralTerms(this.#authority, this.#now())
    const id = JSON.stringify(terms)
    if (this.#signed?.id !== id) this.#signed = { id, collateral: issueCollateral(this.#authority, terms) }
    return this.#signed.collateral
  }

  async #pckCertificate(query: (name: string) => string | undefined): Promise<Answer> {
    const [qeId, cpuSvn, pceSvn, pceId] = ['qeid', 'cpusvn', 'pcesvn', 'pceid'].map(query)
    if (!isHex(qeId, 16) || !isHex(cpuSvn, 16) || !isHex(pceSvn, 2) || !isHex(pceId, 2)) return refusals.invalid
    const encryptedPpid = query('encrypted_ppid')
    if (encryptedPpid !== undefined && encryptedPpid !== '' && !isHex(encryptedPpid, 384)) return refusals.invalid
    const machine = (await this.#authority.machines()).find(({ name }) => this.#authority.qeId(name) === qeId)
    if (machine === undefined || pceId !== simulatedPceId) return refusals.unknownPlatform
    const level = highestLevel(Buffer.from(cpuSvn, 'hex'), Buffer.from(pceSvn, 'hex').readUInt16LE())
    if (level === undefined) return refusals.noCertificate
    const id = `${qeId} ${level.status}`
    const pem = this.#issued.get(id) ?? issuePckCertificate(this.#authority, machine, level).pem
    this.#issued.set(id, pem)
    const { certificates } = this.#authority
    const pceSvnBytes = Uint8Array.of(level.pceSvn & 0xff, level.pceSvn >> 8)
    return {
      status: 200,
      type: 'application/x-pem-file',
      body: pem,
      headers: {
        'SGX-TCBm': Buffer.concat([Uint8Array.from(level.components), pceSvnBytes])
          .toString('hex')
          .toUpperCase(),
        'SGX-FMSPC': simulatedFmspc.toUpperCase(),
        'SGX-PCK-Certificate-CA-Type': machine.ca.toUpperCase(),
        'SGX-PCK-Certificate-Issuer-Chain': encodeURIComponent(
          certificates[caMember(machine.ca)].pem + certificates.root.pem,
        ),
      },
    }
  }

  async #pckCrl(ca: string | undefined, encoding: string | undefined): Promise<Answer> {
    if (ca !== 'platform' && ca !== 'processor') return refusals.invalid
    const { pckCrls, pckCaChains } = await this.#collateral()
    const headers = { 'SGX-PCK-CRL-Issuer-Chain': encodeURIComponent(pckCaChains[ca]) }
    const { der } = pckCrls[ca]
    if (encoding === 'der') return { status: 200, type: 'application/pkix-crl', body: der, headers }
    return { status: 200, body: der.toString('hex'), headers }
  }

  async #tcbInfo(version3: boolean, query: (name: string) => string | undefined): Promise<Answer> {
    const fmspc = query('fmspc')
    if (!isHex(fmspc, 6) || !isUpdate(query('update'))) return refusals.invalid
    if (fmspc !== simulatedFmspc) return refusals.noData
    const { tcbInfo, tcbInfoV2, tcbSignerChain } = await this.#collateral()
    const chain = encodeURIComponent(tcbSignerChain)
    return version3
      ? json(tcbInfoV2.document, { 'SGX-TCB-Info-Issuer-Chain': chain })
      : json(tcbInfo.document, { 'TCB-Info-Issuer-Chain': chain })
  }

  async #qeIdentity(update: string | undefined): Promise<Answer> {
    if (!isUpdate(update)) return refusals.invalid
    const { qeIdentity, tcbSignerChain } = await this.#collateral()
    return json(qeIdentity.document, { 'SGX-Enclave-Identity-Issuer-Chain': encodeURIComponent(tcbSignerChain) })
  }

  async #crlAt(uri: string | null): Promise<Answer> {
    if (uri !== rootCrlUrl) return refusals.noData
    return { status: 200, type: 'application/pkix-crl', body: (await this.#collateral()).rootCrl.der }
  }
}

/** The newest level that a machine with these SVNs reaches: for what Intel would issue the certificate. */
function highestLevel(cpuSvn: Buffer, pceSvn: number): TcbLevel | undefined {
  return tcbLevels.find(
    (level) => level.pceSvn <= pceSvn && level.components.every((component, index) => component <= cpuSvn[index]!),
  )
}

function isHex(text: string | undefined, bytes: number): text is string {
  return text !== undefined && text.length === 2 * bytes && /^[0-9a-f]*$/.test(text)
}

function isUpdate(update: string | undefined): boolean {
  return update === undefined || update === 'early' || update === 'standard'
}

function json(document: string, headers: Readonly<Record<string, string>>): Answer {
  return { status: 200, type: 'application/json', body: document, headers }
}
