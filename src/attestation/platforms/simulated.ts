// SPDX-License-Identifier: Apache-2.0
/**
 * A software stand-in for SGX: quotes, measurements and sealing keys in the real formats, under a root of its own. It protects nothing:
 * the host sees all memory and owns all keys. It exists so that everything around a quote runs on any machine as it runs on SGX.
 *
 * Refused by every policy that names Intel's root, refused here in production images, and said aloud by `warning` at every start.
 */
import assert from 'node:assert/strict'
import { createHash, type KeyObject, sign } from 'node:crypto'
import type { PublicError } from '../../errors.ts'
import {
  attestationKeyTypeEcdsaP256,
  attributeFlags,
  certificationDataTypes,
  type Field,
  intelQeVendorId,
  quoteFields,
  quoteSignedSize,
  quoteVersion3,
  reportFields,
} from '../format.ts'
import { measurementOf, type Platform, PlatformError, reportDataBytes } from './platform.ts'
import { caMember, type SimulatedAuthority, type SimulatedMachine } from './simulated-authority.ts'
import { issuePckCertificate, pckKeys } from './simulated-pck.ts'
import { qeMrEnclave, qeMrSigner, qeProductId, qeSvns, type TcbLevel, tcbLevels } from './simulated-tcb.ts'
import { type MachineVariant, tcbVariants } from './simulated-variants.ts'

export interface SimulatedOptions {
  readonly authority: SimulatedAuthority
  /** MRENCLAVE in hex, from measureApplication. */
  readonly mrEnclave: string
  readonly machine?: SimulatedMachine
  readonly productId?: number
  readonly svn?: number
  /** How the quote names its PCK certificate: with it, or by an encrypted PPID for which a PCCS knows it. */
  readonly certificationData?: 'pckChain' | 'ppidRsa3072'
  /** What this build is for; a production image refuses to simulate. */
  readonly image: 'development' | 'production'
}

export interface SimulatedPlatform extends Platform {
  readonly kind: 'simulated'
  readonly warning: PublicError
}

/** Cloister's simulated signer: a name, no key. */
export const simulatedMrSigner = createHash('sha256').update('Cloister simulated signer').digest('hex')

const warning: PublicError = {
  code: 'platform-simulated',
  message: 'this enclave is simulated: its attestation is real in form only, nothing is protected from this host',
  hint: 'For trials and tests. On SGX machines run the production image, whose policy names the root of Intel.',
}

const sealingKeyBytes = 16
const encryptedPpidBytes = 384

export async function openSimulatedPlatform(options: SimulatedOptions): Promise<SimulatedPlatform> {
  if (options.image === 'production') {
    throw new PlatformError('platform-simulated-refused', 'expected SGX, a production image does not simulate it', {
      hint: 'Choose the gramine platform, or use a development image for trials.',
    })
  }
  const machine = options.machine ?? { name: 'default', ca: 'platform' }
  const { authority } = options
  await authority.register(machine)
  const debug = (await authority.variants()).ofMachine(machine.name).has('debug')
  const self = measurementOf(applicationReport(options, tcbLevels[0]!, debug, new Uint8Array(reportDataBytes)))
  const quotingEnclave = new QuotingEnclave(authority, machine, options.certificationData ?? 'pckChain')
  return {
    kind: 'simulated',
    self,
    warning,
    async quote(reportData) {
      assert.equal(reportData.byteLength, reportDataBytes, 'report data is 64 bytes')
      const wanted = Uint8Array.from(reportData)
      const variants = (await authority.variants()).ofMachine(machine.name)
      return quotingEnclave.quote((level) => applicationReport(options, level, debug, wanted), variants)
    },
    async sealingKey(kind) {
      // As on SGX: a debug enclave gets other keys than a real one.
      const identity = kind === 'mrenclave' ? self.mrEnclave : `${self.mrSigner} ${self.productId}`
      return authority.deriveBytes(`seal ${machine.name} ${kind} ${identity} ${debug ? 'debug' : ''}`, sealingKeyBytes)
    },
  }
}

function applicationReport(options: SimulatedOptions, level: TcbLevel, debug: boolean, reportData: Uint8Array): Buffer {
  return report({
    level,
    mrEnclave: Buffer.from(options.mrEnclave, 'hex'),
    mrSigner: Buffer.from(simulatedMrSigner, 'hex'),
    productId: options.productId ?? 1,
    svn: options.svn ?? 1,
    flags: attributeFlags.init | attributeFlags.mode64Bit | (debug ? attributeFlags.debug : 0n),
    reportData,
  })
}

/** The part that Intel's quoting enclave and provisioning certification enclave have: attestation key, PCK key, certificates. */
class QuotingEnclave {
  readonly #authority: SimulatedAuthority
  readonly #machine: SimulatedMachine
  readonly #certificationData: 'pckChain' | 'ppidRsa3072'
  readonly #qeId: Buffer
  readonly #attestationKey: { readonly privateKey: KeyObject; readonly publicKey: KeyObject }
  /** By TCB level and QE version: the part of a quote that stays the same. */
  readonly #certified = new Map<string, Buffer>()

  constructor(authority: SimulatedAuthority, machine: SimulatedMachine, certificationData: 'pckChain' | 'ppidRsa3072') {
    this.#authority = authority
    this.#machine = machine
    this.#certificationData = certificationData
    this.#qeId = Buffer.from(authority.qeId(machine.name), 'hex')
    this.#attestationKey = authority.deriveKeys(`attestation key of ${machine.name}`)
  }

  quote(reportOver: (level: TcbLevel) => Buffer, variants: ReadonlySet<MachineVariant>): Buffer {
    const status = Object.entries(tcbVariants).find(([name]) => variants.has(name as MachineVariant))?.[1] ?? 'UpToDate'
    const level = tcbLevels.find((one) => one.status === status)!
    const qeSvn =
      qeSvns[variants.has('qe-revoked') ? 'revoked' : variants.has('qe-out-of-date') ? 'outOfDate' : 'upToDate']
    const signed = Buffer.concat([this.#header(qeSvn, level), reportOver(level)])
    assert.equal(signed.length, quoteSignedSize)
    const signature = signRaw(signed, this.#attestationKey.privateKey)
    const signatureData = Buffer.concat([signature, this.#certifiedKey(qeSvn, level)])
    return Buffer.concat([signed, uint32(signatureData.length), signatureData])
  }

  #header(qeSvn: number, level: TcbLevel): Buffer {
    const header = Buffer.alloc(quoteFields.report.offset)
    header.writeUInt16LE(quoteVersion3, quoteFields.version.offset)
    header.writeUInt16LE(attestationKeyTypeEcdsaP256, quoteFields.attestationKeyType.offset)
    header.writeUInt16LE(qeSvn, quoteFields.qeSvn.offset)
    header.writeUInt16LE(level.pceSvn, quoteFields.pceSvn.offset)
    put(header, quoteFields.qeVendorId, Buffer.from(intelQeVendorId, 'hex'))
    put(header, quoteFields.userData, this.#qeId)
    return header
  }

  /** Attestation key, QE report that binds it, PCK signature over that, authentication data, certification data. */
  #certifiedKey(qeSvn: number, level: TcbLevel): Buffer {
    const id = `${qeSvn} ${level.status}`
    const known = this.#certified.get(id)
    if (known !== undefined) return known
    const attestationKey = rawPublicKey(this.#attestationKey.publicKey)
    const authData = Buffer.from(Array.from({ length: 32 }, (_, index) => index))
    const qeReport = report({
      level,
      mrEnclave: qeMrEnclave,
      mrSigner: qeMrSigner,
      productId: qeProductId,
      svn: qeSvn,
      flags: attributeFlags.init | attributeFlags.mode64Bit | attributeFlags.provisionKey,
      reportData: createHash('sha256').update(attestationKey).update(authData).digest(),
    })
    const certified = Buffer.concat([
      attestationKey,
      qeReport,
      signRaw(qeReport, pckKeys(this.#authority, this.#machine).privateKey),
      uint16(authData.length),
      authData,
      uint16(certificationDataTypes[this.#certificationData]),
      prefixed(this.#certificationData === 'pckChain' ? this.#pckChain(level) : this.#encryptedPpid(level)),
    ])
    this.#certified.set(id, certified)
    return certified
  }

  #pckChain(level: TcbLevel): Buffer {
    const { certificates } = this.#authority
    const leaf = issuePckCertificate(this.#authority, this.#machine, level)
    return Buffer.from(`${leaf.pem}${certificates[caMember(this.#machine.ca)].pem}${certificates.root.pem}\0`)
  }

  /** The ciphertext is to Intel's key, so any bytes will do; then CPUSVN, PCESVN, PCEID. */
  #encryptedPpid(level: TcbLevel): Buffer {
    const ciphertext = this.#authority.deriveBytes(`encrypted PPID of ${this.#machine.name}`, encryptedPpidBytes)
    return Buffer.concat([ciphertext, Uint8Array.from(level.components), uint16(level.pceSvn), uint16(0)])
  }
}

interface ReportFields {
  readonly level: TcbLevel
  readonly mrEnclave: Uint8Array
  readonly mrSigner: Uint8Array
  readonly productId: number
  readonly svn: number
  readonly flags: bigint
  readonly reportData: Uint8Array
}

function report(fields: ReportFields): Buffer {
  const body = Buffer.alloc(quoteFields.report.size)
  put(body, reportFields.cpuSvn, Uint8Array.from(fields.level.components))
  body.writeBigUInt64LE(fields.flags, reportFields.flags.offset)
  // x87, SSE, AVX: what every enclave has.
  body.writeBigUInt64LE(0x07n, reportFields.xfrm.offset)
  put(body, reportFields.mrEnclave, fields.mrEnclave)
  put(body, reportFields.mrSigner, fields.mrSigner)
  body.writeUInt16LE(fields.productId, reportFields.productId.offset)
  body.writeUInt16LE(fields.svn, reportFields.svn.offset)
  put(body, reportFields.reportData, fields.reportData)
  return body
}

function put(target: Buffer, { offset, size }: Field, bytes: Uint8Array): void {
  assert(bytes.byteLength <= size)
  target.set(bytes, offset)
}

function rawPublicKey(key: KeyObject): Buffer {
  const { x, y } = key.export({ format: 'jwk' })
  return Buffer.concat([Buffer.from(x!, 'base64url'), Buffer.from(y!, 'base64url')])
}

function signRaw(bytes: Uint8Array, key: KeyObject): Buffer {
  return sign('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' })
}

function prefixed(bytes: Buffer): Buffer {
  return Buffer.concat([uint32(bytes.length), bytes])
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
