// SPDX-License-Identifier: Apache-2.0
/**
 * The real platform: Gramine's /dev/attestation (Gramine manual, "Attestation and secret provisioning"; libos/src/fs/dev/attestation.c).
 *
 * The device is one set of globals for the whole process, without locks: each write() replaces the report data, a quote is made when
 * `quote` is opened. So one call at a time, one write of 64 bytes, close, open, read, compare.
 * `report` comes from the CPU (EREPORT) and can be believed. `quote` comes from the host's quoting service: the host may withhold it,
 * or answer with a quote of some other enclave. That is refused here, since peers would be told to trust that other code as `self`.
 */
import assert from 'node:assert/strict'
import { constants } from 'node:fs'
import { access, open } from 'node:fs/promises'
import { join } from 'node:path'
import { quoteFields, reportFields } from '../format.ts'
import {
  fieldOf,
  measurementOf,
  type Platform,
  PlatformError,
  reportDataBytes,
  type SealingKeyKind,
} from './platform.ts'

/** The part of a FileHandle that is used, so that a test can stand in for the device. */
export interface DeviceFile {
  read(buffer: Uint8Array, offset: number, length: number, position: null): Promise<{ bytesRead: number }>
  write(buffer: Uint8Array, offset: number, length: number, position: null): Promise<{ bytesWritten: number }>
  close(): Promise<void>
}

export interface GramineOptions {
  /** `/dev/attestation`. */
  readonly directory: string
  readonly openFile?: (path: string, flags: number) => Promise<DeviceFile>
}

export interface GraminePlatform extends Platform {
  readonly kind: 'gramine'
}

const targetInfoBytes = 512
const reportBytes = 432
const sealingKeyBytes = 16
/** QUOTE_MAX_SIZE in Gramine. */
const maxQuoteBytes = 8192
const maxAttestationTypeBytes = 16

/** One user of the device at a time in this process. Quotes are asked for on the main thread only: a worker thread would have a lock of its own. */
let deviceFree: Promise<unknown> = Promise.resolve()

function exclusively<T>(use: () => Promise<T>): Promise<T> {
  const result = deviceFree.then(use)
  deviceFree = result.catch(() => undefined)
  return result
}

/** Fails at once, saying what is missing, anywhere but in an SGX enclave with DCAP attestation. */
export async function openGraminePlatform(options: GramineOptions): Promise<GraminePlatform> {
  const device = new AttestationDevice(options.directory, options.openFile ?? open)
  await requireDcap(device, options.directory)
  const self = await exclusively(() => ownReport(device))
  return {
    kind: 'gramine',
    self: measurementOf(self),
    async quote(reportData) {
      assert.equal(reportData.byteLength, reportDataBytes, 'report data is 64 bytes')
      // A copy: the caller may go on using its buffer while this waits for the device.
      const wanted = Buffer.from(reportData)
      return exclusively(() => quote(device, self, wanted))
    },
    sealingKey: (kind) => sealingKey(device, kind),
  }
}

async function requireDcap(device: AttestationDevice, directory: string): Promise<void> {
  const type = await device.readIfPresent('attestation_type', maxAttestationTypeBytes)
  if (type === undefined) {
    const inGramine = await access(directory).then(
      () => true,
      () => false,
    )
    if (inGramine) {
      throw new PlatformError(
        'platform-not-sgx',
        `expected ${directory}/attestation_type, which exists inside SGX only: this is gramine-direct`,
        { hint: 'Start with gramine-sgx on a machine with SGX, or choose the simulated platform for a trial.' },
      )
    }
    throw new PlatformError('platform-absent', `expected Gramine's ${directory}, found nothing there`, {
      hint: 'This process runs outside Gramine. Start it with gramine-sgx, or choose the simulated platform for a trial.',
    })
  }
  const name = type.toString('latin1')
  if (name === 'dcap') return
  if (name === 'none') {
    throw new PlatformError('platform-attestation-disabled', 'expected attestation type dcap, the manifest says none', {
      hint: 'Set sgx.remote_attestation = "dcap" in the manifest, then render and sign it again.',
    })
  }
  throw new PlatformError(
    'platform-attestation-unsupported',
    `expected attestation type dcap, got ${JSON.stringify(name)}`,
    { hint: 'EPID was retired by Intel: set sgx.remote_attestation = "dcap" in the manifest.' },
  )
}

/** The report of this enclave to itself, made by the CPU. */
async function ownReport(device: AttestationDevice): Promise<Buffer> {
  const targetInfo = await device.read('my_target_info', targetInfoBytes)
  await device.write('target_info', exactly(targetInfo, targetInfoBytes, 'my_target_info'))
  await device.write('user_report_data', new Uint8Array(reportDataBytes))
  const report = exactly(await device.read('report', reportBytes), reportBytes, 'report')
  return report.subarray(0, quoteFields.report.size)
}

async function quote(device: AttestationDevice, self: Buffer, reportData: Uint8Array): Promise<Uint8Array> {
  await device.write('user_report_data', reportData)
  const answer = await device.read('quote', maxQuoteBytes)
  if (answer.length <= quoteFields.signatureDataLength.offset) {
    throw new PlatformError('platform-quote-failed', `expected a quote, got ${answer.length} bytes`, {
      hint: 'The quoting service of the host (aesmd) is missing or has no PCK certificate: run `cloister doctor` on the host.',
    })
  }
  const report = fieldOf(answer, quoteFields.report)
  if (!fieldOf(report, reportFields.reportData).equals(reportData)) {
    throw new PlatformError(
      'platform-quote-mismatch',
      'expected a quote over the report data just written, got another',
      {
        hint: 'Something else in this process writes to /dev/attestation, or the host replays an old quote.',
      },
    )
  }
  for (const name of ['mrEnclave', 'mrSigner', 'productId', 'svn', 'flags'] as const) {
    if (!fieldOf(report, reportFields[name]).equals(fieldOf(self, reportFields[name]))) {
      throw new PlatformError(
        'platform-quote-mismatch',
        `expected a quote of this enclave, got one with another ${name}`,
        {
          hint: "The host's quoting service answered with a quote of another enclave. Do not trust this host.",
        },
      )
    }
  }
  return answer
}

async function sealingKey(device: AttestationDevice, kind: SealingKeyKind): Promise<Uint8Array> {
  const name = `keys/_sgx_${kind}`
  const key = await device.readIfPresent(name, sealingKeyBytes)
  if (key?.length !== sealingKeyBytes) {
    throw new PlatformError(
      'platform-sealing-key-unavailable',
      `expected ${sealingKeyBytes} bytes in ${name}, got ${key === undefined ? 'no such file' : `${key.length} bytes`}`,
      { hint: 'Sealing keys exist inside SGX only (gramine-sgx, Gramine 1.3 or newer).' },
    )
  }
  return key
}

function exactly(bytes: Buffer, size: number, name: string): Buffer {
  if (bytes.length === size) return bytes
  throw new PlatformError('platform-device-failed', `expected ${size} bytes in ${name}, got ${bytes.length}`, {
    hint: 'This Gramine version is not supported: use 1.8 or newer.',
  })
}

/** The pseudo-files. Sizes are bounded by what the caller expects: one byte more is refused. */
class AttestationDevice {
  readonly #directory: string
  readonly #open: NonNullable<GramineOptions['openFile']>

  constructor(directory: string, openFile: NonNullable<GramineOptions['openFile']>) {
    this.#directory = directory
    this.#open = openFile
  }

  async read(name: string, maxBytes: number): Promise<Buffer> {
    const content = await this.readIfPresent(name, maxBytes)
    if (content !== undefined) return content
    throw this.#failure(name, 'expected the file, it does not exist')
  }

  async readIfPresent(name: string, maxBytes: number): Promise<Buffer | undefined> {
    let file: DeviceFile
    try {
      file = await this.#open(join(this.#directory, name), constants.O_RDONLY)
    } catch (cause) {
      if (errorCode(cause) === 'ENOENT' || errorCode(cause) === 'ENOTDIR') return undefined
      throw this.#failure(name, `cannot be opened: ${errorCode(cause)}`, cause)
    }
    try {
      // st_size is 0: read until the end, never by stat.
      const buffer = Buffer.alloc(maxBytes + 1)
      let length = 0
      while (length < buffer.length) {
        const { bytesRead } = await file.read(buffer, length, buffer.length - length, null)
        if (bytesRead === 0) return buffer.subarray(0, length)
        length += bytesRead
      }
    } catch (cause) {
      throw this.#failure(name, `cannot be read: ${errorCode(cause)}`, cause)
    } finally {
      await file.close()
    }
    throw this.#failure(name, `expected at most ${maxBytes} bytes, got more`)
  }

  async write(name: string, bytes: Uint8Array): Promise<void> {
    try {
      // Neither create nor truncate: the file is there or this is no attestation device.
      const file = await this.#open(join(this.#directory, name), constants.O_RDWR)
      try {
        const { bytesWritten } = await file.write(bytes, 0, bytes.byteLength, null)
        // A second write() would replace the first, not continue it.
        if (bytesWritten !== bytes.byteLength) throw new Error(`wrote ${bytesWritten} of ${bytes.byteLength} bytes`)
      } finally {
        await file.close()
      }
    } catch (cause) {
      throw this.#failure(name, `cannot be written: ${errorCode(cause)}`, cause)
    }
  }

  #failure(name: string, what: string, cause?: unknown): PlatformError {
    const code = name === 'quote' ? 'platform-quote-failed' : 'platform-device-failed'
    const hint =
      name === 'quote'
        ? 'The quoting service of the host (aesmd) is missing or has no PCK certificate: run `cloister doctor` on the host.'
        : 'Run inside gramine-sgx, Gramine 1.8 or newer; the log of Gramine (loader.log_level = "error") says more.'
    return new PlatformError(code, `${join(this.#directory, name)}: ${what}`, { hint, cause })
  }
}

function errorCode(thrown: unknown): string {
  return thrown instanceof Error && 'code' in thrown ? String(thrown.code) : String(thrown)
}
