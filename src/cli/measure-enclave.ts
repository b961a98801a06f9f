// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister measure --enclave DIR`: the MRENCLAVE of an image that Gramine starts. Its files must be those of its SHA256SUMS; then
 * gramine-sgx-sign, where it is on PATH, says what they measure to, by a signature with a key that is thrown away: MRENCLAVE depends on no key.
 * Without it the measurement is what the image's own signature says. A released description is compared with either.
 * Runs outside the enclave, on the machine of whoever wants to know.
 */
import { execFile } from 'node:child_process'
import { createHash, generateKeyPairSync } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import * as v from 'valibot'
import { verifySigstruct } from '../attestation/sigstruct.ts'
import { validate } from '../config/load.ts'
import { CodedError } from '../errors.ts'

export class MeasureError extends CodedError<
  | 'image-incomplete'
  | 'image-altered'
  | 'image-unmeasured'
  | 'image-signature-stale'
  | 'image-signing-failed'
  | 'description-unreadable'
  | 'description-differs'
> {}

const hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, 'expected SHA-256 in hex'))
const sixteenBits = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535))

/** What a release says of its image, and what `--json` prints. */
const descriptionSchema = v.strictObject({
  platform: v.literal('sgx'),
  mrEnclave: hash,
  /** Absent where nobody has signed yet. */
  mrSigner: v.optional(hash),
  productId: sixteenBits,
  svn: sixteenBits,
  debug: v.boolean(),
  files: v.array(v.strictObject({ path: v.string(), sha256: hash })),
})

export type EnclaveDescription = v.InferOutput<typeof descriptionSchema>

export interface MeasuredEnclave {
  readonly description: EnclaveDescription
  readonly by: 'gramine-sgx-sign' | 'signature'
}

export async function measureEnclave(directory: string, signer: string | undefined): Promise<MeasuredEnclave> {
  const files = await checkFiles(directory)
  const manifest = files.map(({ path }) => path).find((path) => /\.manifest$/.test(path))
  if (manifest === undefined) throw incomplete(`${directory}: expected a manifest in SHA256SUMS, got none`)
  const name = manifest.replace(/\.manifest$/, '')
  const signatureFile = join(directory, `${name}.sig`)
  const signed = existsSync(signatureFile) ? verifySigstruct(await readFile(signatureFile)) : undefined
  const computed = signer === undefined ? undefined : await signWith(signer, directory, manifest)
  if (signed !== undefined && computed !== undefined && signed.mrEnclave !== computed.mrEnclave) {
    throw new MeasureError(
      'image-signature-stale',
      `${signatureFile}: expected MRENCLAVE ${computed.mrEnclave}, it signs ${signed.mrEnclave}`,
      { hint: 'The image, or Gramine, is another than the one that was signed: sign again, with the same version.' },
    )
  }
  const enclave = computed ?? signed
  if (enclave === undefined) {
    throw new MeasureError('image-unmeasured', `${directory}: expected ${name}.sig or gramine-sgx-sign, got neither`, {
      hint: 'Install Gramine 1.8 or newer, which measures, or name a signed image. The files are as in SHA256SUMS.',
    })
  }
  const { mrEnclave, productId, svn, debug } = enclave
  const signers = signed === undefined ? {} : { mrSigner: signed.mrSigner }
  return {
    description: { platform: 'sgx', mrEnclave, ...signers, productId, svn, debug, files },
    by: computed === undefined ? 'signature' : 'gramine-sgx-sign',
  }
}

export async function readDescription(file: string): Promise<EnclaveDescription> {
  try {
    return validate(descriptionSchema, JSON.parse(await readFile(file, 'utf8')), file)
  } catch (cause) {
    if (cause instanceof CodedError) throw cause
    throw new MeasureError('description-unreadable', `${file}: expected JSON: ${(cause as Error).message}`, {
      hint: 'A description is what `cloister measure --enclave DIR --json` printed.',
      cause,
    })
  }
}

/** Throws, naming all that differs. Who signed may differ: everybody may sign the same enclave. */
export function compareDescriptions(released: EnclaveDescription, measured: EnclaveDescription): void {
  const differences: string[] = []
  for (const name of ['mrEnclave', 'productId', 'svn', 'debug'] as const) {
    if (released[name] !== measured[name]) {
      differences.push(`${name}: expected ${released[name]}, got ${measured[name]}`)
    }
  }
  const had = new Map(measured.files.map(({ path, sha256 }) => [path, sha256]))
  for (const { path, sha256 } of released.files) {
    const got = had.get(path)
    if (got !== sha256) differences.push(`${path}: expected ${sha256}, got ${got ?? 'no such file'}`)
    had.delete(path)
  }
  for (const path of had.keys()) differences.push(`${path}: not in the release`)
  if (differences.length === 0) return
  throw new MeasureError('description-differs', `not the released image: ${differences.join('; ')}`, {
    hint: 'Build the same sources with the same Node, libraries and Gramine; the files that differ say which.',
  })
}

async function checkFiles(directory: string): Promise<EnclaveDescription['files']> {
  const list = join(directory, 'SHA256SUMS')
  const text = await readFile(list, 'utf8').catch((cause: unknown) => {
    throw incomplete(`${list}: expected the list of the image's digests, it cannot be read`, cause)
  })
  const files = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, sha256, path] = /^([0-9a-f]{64}) [ *](.+)$/.exec(line) ?? []
      if (sha256 === undefined || path === undefined) throw incomplete(`${list}: expected digest and path, got ${line}`)
      return { path, sha256 }
    })
  const wrong: string[] = []
  for (const { path, sha256 } of files) {
    const got = await digestOf(resolve(directory, path))
    if (got !== sha256) wrong.push(`${path} is ${got === undefined ? 'absent' : 'another'}`)
  }
  if (wrong.length === 0) return files
  throw new MeasureError('image-altered', `${directory}: expected the files of SHA256SUMS, ${wrong.join(', ')}`, {
    hint: 'Build the image anew, or unpack the released one again. System files count too: node, libstdc++, libgcc.',
  })
}

function incomplete(message: string, cause?: unknown): MeasureError {
  return new MeasureError('image-incomplete', message, {
    hint: 'Name the directory that `npm run build:enclave` made (build/enclave).',
    cause,
  })
}

async function digestOf(file: string): Promise<string | undefined> {
  const digest = createHash('sha256')
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) digest.update(chunk)
  } catch {
    return undefined
  }
  return digest.digest('hex')
}

/** Relative paths in the manifest are relative to where gramine-sgx-sign runs. */
async function signWith(signer: string, directory: string, manifest: string) {
  const work = await mkdtemp(join(tmpdir(), 'cloister-measure-'))
  try {
    const key = join(work, 'key.pem')
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 3072, publicExponent: 3 })
    await writeFile(key, privateKey.export({ type: 'pkcs1', format: 'pem' }), { mode: 0o600 })
    const signature = join(work, 'enclave.sig')
    const outputs = ['--output', join(work, 'enclave.manifest.sgx'), '--sigfile', signature]
    await promisify(execFile)(signer, ['--manifest', manifest, '--key', key, ...outputs], { cwd: directory })
    return verifySigstruct(await readFile(signature))
  } catch (cause) {
    if (cause instanceof CodedError) throw cause
    throw new MeasureError('image-signing-failed', `gramine-sgx-sign: ${(cause as Error).message}`, {
      hint: 'Gramine must be 1.8 or newer, and all trusted files of the manifest must be on this machine.',
      cause,
    })
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
