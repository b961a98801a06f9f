// SPDX-License-Identifier: Apache-2.0
/**
 * The root of the simulated platforms: a directory with one secret from which every key is derived, and the certificates of a PKI in
 * Intel's shape (root → PCK Platform CA, PCK Processor CA, TCB Signing). All processes that open the directory are one authority.
 *
 * Nothing here is secret in earnest: who can read the directory can sign anything. What protects a real deployment is that its
 * policy names Intel's root; this root is another one.
 *
 *     authority/authority.json   secret, date, certificates; written once, mode 0600
 *     machines/<QE ID>.json      the machines that have asked for quotes, as a PCCS knows registered platforms
 *     variants.json              what is wrong on demand; read at each quote and each answer of the PCCS
 */
import {
  createECDH,
  createHash,
  createPrivateKey,
  createPublicKey,
  hkdfSync,
  type KeyObject,
  X509Certificate,
} from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import {
  authorityKeyIdentifier,
  basicConstraints,
  createCertificate,
  crlDistributionPoint,
  type Encoded,
  type Extension,
  keyUsage,
  type Name,
  subjectKeyIdentifier,
} from '../../x509/write.ts'
import { pkiNames } from '../format.ts'
import { replaceFile } from '../text-file.ts'
import { PlatformError } from './platform.ts'
import { parseVariants, type Variants } from './simulated-variants.ts'

export type PckCa = 'platform' | 'processor'
export type AuthorityMember = 'root' | 'platformCa' | 'processorCa' | 'tcbSigner'

export interface SimulatedMachine {
  readonly name: string
  readonly ca: PckCa
}

export interface AuthorityOptions {
  readonly directory: string
  readonly now: () => Date
  /** 32 bytes when the authority is created: every key follows from them. */
  readonly secret: () => Uint8Array
}

export interface KeyPair {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

/** The address in the root certificate; the PCCS answers for it, nothing else does. */
export const rootCrlUrl = 'https://simulated.invalid/SimulatedSGXRootCA.der'

const dayMs = 86_400_000
const yearMs = 365 * dayMs
/** Before the authority's birth, so that collateral can be long expired and its chain still be valid. */
const backdatedMs = 90 * dayMs

const p256Order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

const stateSchema = v.strictObject({
  format: v.literal(1),
  secret: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  createdAt: v.pipe(v.string(), v.isoTimestamp()),
  certificates: v.strictObject({
    root: v.string(),
    platformCa: v.string(),
    processorCa: v.string(),
    tcbSigner: v.string(),
  }),
})
type State = v.InferOutput<typeof stateSchema>
const machineSchema = v.strictObject({ name: v.string(), ca: v.picklist(['platform', 'processor']) })
const variantsSchema = v.array(v.string())

export async function openSimulatedAuthority(options: AuthorityOptions): Promise<SimulatedAuthority> {
  const path = join(options.directory, 'authority')
  const present = await readIfPresent(join(path, 'authority.json'))
  if (present === undefined) await createOnce(path, options)
  const text = present ?? (await readFile(join(path, 'authority.json'), 'utf8'))
  return new SimulatedAuthority(options.directory, parseJson(path, stateSchema, text))
}

/** Whole or not at all: a directory is filled aside and renamed. Who loses the race uses what the winner made. */
async function createOnce(path: string, { directory, now, secret }: AuthorityOptions): Promise<void> {
  await mkdir(directory, { recursive: true })
  const aside = await mkdtemp(`${path}.new-`)
  try {
    const text = `${JSON.stringify(newState(Buffer.from(secret()), now()), undefined, 2)}\n`
    await writeFile(join(aside, 'authority.json'), text, { mode: 0o600, flush: true })
    await rename(aside, path)
  } catch (cause) {
    await rm(aside, { recursive: true, force: true })
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw cause
  }
}

export class SimulatedAuthority {
  readonly directory: string
  readonly createdAt: Date
  readonly certificates: Readonly<Record<AuthorityMember, Encoded>>
  readonly #secret: Buffer

  constructor(directory: string, state: State) {
    this.directory = directory
    this.createdAt = new Date(state.createdAt)
    this.#secret = Buffer.from(state.secret, 'hex')
    const encoded = (pem: string): Encoded => ({ pem, der: new X509Certificate(pem).raw })
    this.certificates = {
      root: encoded(state.certificates.root),
      platformCa: encoded(state.certificates.platformCa),
      processorCa: encoded(state.certificates.processorCa),
      tcbSigner: encoded(state.certificates.tcbSigner),
    }
  }

  keys(member: AuthorityMember): KeyPair {
    return this.deriveKeys(member)
  }

  serialNumber(member: AuthorityMember): bigint {
    return deriveSerialNumber(this.#secret, `serial number of ${member}`)
  }

  deriveBytes(label: string, size: number): Buffer {
    return deriveBytes(this.#secret, label, size)
  }

  deriveKeys(label: string): KeyPair {
    return deriveKeys(this.#secret, label)
  }

  deriveSerialNumber(label: string): bigint {
    return deriveSerialNumber(this.#secret, label)
  }

  /** What is wrong on demand, as it stands now. */
  async variants(): Promise<Variants> {
    const path = join(this.directory, 'variants.json')
    const text = await readIfPresent(path)
    return parseVariants(text === undefined ? [] : parseJson(path, variantsSchema, text))
  }

  async setVariants(entries: readonly string[]): Promise<void> {
    parseVariants(entries)
    await replaceFile(join(this.directory, 'variants.json'), `${JSON.stringify(entries)}\n`)
  }

  async register(machine: SimulatedMachine): Promise<void> {
    const path = join(this.directory, 'machines', `${this.qeId(machine.name)}.json`)
    await replaceFile(path, `${JSON.stringify(machine)}\n`)
  }

  async machines(): Promise<SimulatedMachine[]> {
    const names = await readdir(join(this.directory, 'machines')).catch(() => [])
    const files = names.filter((name) => /^[0-9a-f]{32}\.json$/.test(name)).sort()
    return Promise.all(
      files.map(async (name) => {
        const path = join(this.directory, 'machines', name)
        return parseJson(path, machineSchema, await readFile(path, 'utf8'))
      }),
    )
  }

  /** What a quoting enclave writes in its quotes to say on which machine it runs. */
  qeId(machineName: string): string {
    return this.deriveBytes(`QE ID of ${machineName}`, 16).toString('hex')
  }
}

/** How a policy names a root: SHA-256 over its certificate. */
export function fingerprintOf({ der }: Encoded): string {
  return createHash('sha256').update(der).digest('hex')
}

export function caMember(ca: PckCa): AuthorityMember {
  return ca === 'platform' ? 'platformCa' : 'processorCa'
}

/** Every member of Intel's PKI bears these attributes beside its common name. */
export function intelName(commonName: string): Name {
  return { CN: commonName, O: 'Intel Corporation', L: 'Santa Clara', ST: 'CA', C: 'US' }
}

/** The extensions of Intel's certificates, in Intel's order. */
export function pkiExtensions(publicKey: KeyObject, issuerKey: KeyObject, own: readonly Extension[]): Extension[] {
  return [authorityKeyIdentifier(issuerKey), crlDistributionPoint(rootCrlUrl), subjectKeyIdentifier(publicKey), ...own]
}

function newState(secret: Buffer, createdAt: Date): State {
  const root = deriveKeys(secret, 'root')
  const certificate = (member: AuthorityMember, commonName: string, years: number, own: readonly Extension[]) => {
    const { publicKey } = deriveKeys(secret, member)
    return createCertificate({
      serialNumber: deriveSerialNumber(secret, `serial number of ${member}`),
      issuer: intelName(pkiNames.root),
      subject: intelName(commonName),
      notBefore: new Date(createdAt.getTime() - backdatedMs),
      notAfter: new Date(createdAt.getTime() + years * yearMs),
      publicKey,
      extensions: pkiExtensions(publicKey, root.publicKey, own),
      signingKey: root.privateKey,
    }).pem
  }
  const ca = (pathLength: number) => [keyUsage('keyCertSign', 'cRLSign'), basicConstraints({ ca: true, pathLength })]
  const signer = [keyUsage('digitalSignature', 'nonRepudiation'), basicConstraints({ ca: false })]
  return {
    format: 1,
    secret: secret.toString('hex'),
    createdAt: createdAt.toISOString(),
    certificates: {
      root: certificate('root', pkiNames.root, 30, ca(1)),
      platformCa: certificate('platformCa', pkiNames.platformCa, 15, ca(0)),
      processorCa: certificate('processorCa', pkiNames.processorCa, 15, ca(0)),
      tcbSigner: certificate('tcbSigner', pkiNames.tcbSigner, 7, signer),
    },
  }
}

function deriveBytes(secret: Buffer, label: string, size: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, 'cloister simulated platform', label, size))
}

/** Bytes to scalar with 128 bits to spare, as FIPS 186-5 A.2.1 has it. */
function deriveKeys(secret: Buffer, label: string): KeyPair {
  const wide = BigInt(`0x${deriveBytes(secret, `key of ${label}`, 48).toString('hex')}`)
  const scalar = Buffer.from(((wide % (p256Order - 1n)) + 1n).toString(16).padStart(64, '0'), 'hex')
  const point = createECDH('prime256v1')
  point.setPrivateKey(scalar)
  const [x, y] = [point.getPublicKey().subarray(1, 33), point.getPublicKey().subarray(33)]
  const [d, ...xy] = [scalar, x, y].map((bytes) => bytes.toString('base64url'))
  const key = { kty: 'EC', crv: 'P-256', d: d!, x: xy[0]!, y: xy[1]! }
  const privateKey = createPrivateKey({ key, format: 'jwk' })
  return { privateKey, publicKey: createPublicKey(privateKey) }
}

function deriveSerialNumber(secret: Buffer, label: string): bigint {
  return BigInt(`0x${deriveBytes(secret, label, 16).toString('hex')}`)
}

function parseJson<T>(path: string, schema: v.GenericSchema<unknown, T>, text: string): T {
  try {
    return v.parse(schema, JSON.parse(text))
  } catch (cause) {
    throw new PlatformError('platform-state-invalid', `expected state of a simulated platform in ${path}`, {
      hint: 'Delete it to have it made anew; a new authority has a new root, which policies must then name.',
      cause,
    })
  }
}

async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return undefined
    throw cause
  }
}
