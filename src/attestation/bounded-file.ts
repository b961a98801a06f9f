// SPDX-License-Identifier: Apache-2.0
/** Files that the host may have made as large as it likes. What stat says is the host's word too: read up to the bound, and no further. */
import { open } from 'node:fs/promises'

export async function readTextFile(path: string, maxBytes: number): Promise<string> {
  const file = await open(path, 'r')
  try {
    const chunks: Buffer[] = []
    let length = 0
    for (;;) {
      const chunk = Buffer.alloc(65_536)
      const { bytesRead } = await file.read(chunk, 0, chunk.length, null)
      if (bytesRead === 0) return Buffer.concat(chunks).toString('utf8')
      length += bytesRead
      if (length > maxBytes) throw new Error(`more than ${maxBytes} bytes`)
      chunks.push(chunk.subarray(0, bytesRead))
    }
  } finally {
    await file.close()
  }
}
