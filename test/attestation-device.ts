/**
 * A stand-in for Gramine's /dev/attestation that keeps its traps: globals without locks, each write() replaces the value (short ones
 * padded with zeros), reading what is written gives nothing, content is made at open. Every call yields, so that a missing lock shows.
 */
import { createHash } from 'node:crypto'
import { basename, dirname } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { quoteFields, quoteVersion3, reportFields } from '../src/attestation/format.ts'
import type { DeviceFile } from '../src/attestation/platforms/gramine.ts'

export interface DeviceBehaviour {
  readonly code: string
  /** What the host's quoting service does to a quote on its way. */
  readonly host?: (quote: Buffer) => Buffer
  /** Files that are not there, or have other content. */
  readonly files?: Readonly<Record<string, Buffer | 'absent' | 'refused'>>
  /** Bytes that one write() takes. */
  readonly maxWriteBytes?: number
}

const digest = (text: string) => createHash('sha256').update(text).digest()

export function attestationDevice(behaviour: DeviceBehaviour) {
  let userReportData = Buffer.alloc(64)
  let targetInfo = Buffer.alloc(512)
  const writes: string[] = []

  const reportBody = () => {
    const body = Buffer.alloc(quoteFields.report.size)
    body.writeBigUInt64LE(0x05n, reportFields.flags.offset)
    digest(behaviour.code).copy(body, reportFields.mrEnclave.offset)
    digest('signer').copy(body, reportFields.mrSigner.offset)
    body.writeUInt16LE(7, reportFields.productId.offset)
    body.writeUInt16LE(3, reportFields.svn.offset)
    userReportData.copy(body, reportFields.reportData.offset)
    return body
  }
  const contents: Record<string, () => Buffer> = {
    attestation_type: () => Buffer.from('dcap'),
    user_report_data: () => Buffer.alloc(0),
    target_info: () => Buffer.alloc(0),
    my_target_info: () => Buffer.concat([digest(behaviour.code), Buffer.alloc(480)]),
    report: () => {
      if (!targetInfo.subarray(0, 32).equals(digest(behaviour.code))) throw denied()
      return Buffer.concat([reportBody(), Buffer.alloc(48, 9)])
    },
    quote: () => {
      const quote = Buffer.alloc(4000, 0xa5)
      quote.writeUInt16LE(quoteVersion3, 0)
      reportBody().copy(quote, quoteFields.report.offset)
      return behaviour.host?.(quote) ?? quote
    },
    'keys/_sgx_mrenclave': () => digest(`seal ${behaviour.code}`).subarray(0, 16),
    'keys/_sgx_mrsigner': () => digest('seal signer').subarray(0, 16),
  }

  async function openFile(path: string): Promise<DeviceFile> {
    await setImmediate()
    const name = basename(dirname(path)) === 'keys' ? `keys/${basename(path)}` : basename(path)
    const changed = behaviour.files?.[name]
    if (changed === 'absent' || contents[name] === undefined)
      throw Object.assign(new Error('absent'), { code: 'ENOENT' })
    if (changed === 'refused') throw denied()
    const content = changed ?? contents[name]()
    let position = 0
    return {
      async read(buffer, offset, length) {
        await setImmediate()
        // Short reads are legal; give few bytes at a time.
        const bytesRead = content.copy(
          buffer,
          offset,
          position,
          Math.min(position + Math.min(length, 1000), content.length),
        )
        position += bytesRead
        return { bytesRead }
      },
      async write(bytes, offset, length) {
        await setImmediate()
        const bytesWritten = Math.min(length, behaviour.maxWriteBytes ?? length)
        const padded = Buffer.alloc(name === 'target_info' ? 512 : 64)
        Buffer.from(bytes.buffer, bytes.byteOffset + offset, bytesWritten).copy(padded)
        if (name === 'user_report_data') userReportData = padded
        if (name === 'target_info') targetInfo = padded
        writes.push(`${name} ${bytesWritten}`)
        return { bytesWritten }
      },
      async close() {
        await setImmediate()
      },
    }
  }
  return { openFile, writes }
}

function denied(): Error {
  return Object.assign(new Error('denied'), { code: 'EACCES' })
}
