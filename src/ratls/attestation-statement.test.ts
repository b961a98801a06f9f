import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { type Claimant, statement } from './attestation-exchange.ts'

const jobDigest = createHash('sha256').update('job').digest()

describe('the statement', () => {
  const claimant: Claimant = { role: 'worker', nonce: Buffer.alloc(32, 1), publicKeyHash: Buffer.alloc(32, 2) }
  const challenger: Claimant = { role: 'server', nonce: Buffer.alloc(32, 3), publicKeyHash: Buffer.alloc(32, 4) }
  const exporter = Buffer.alloc(32, 5)

  test('is, byte for byte, what docs/protocol.md says', () => {
    const expected = [
      Buffer.from('cloister attestation exchange v1').toString('hex'),
      '00',
      '03'.repeat(32),
      '01'.repeat(32),
      '05'.repeat(32),
      '02',
      '02'.repeat(32),
      '04'.repeat(32),
      jobDigest.toString('hex'),
    ].join('')
    expect(Buffer.from(statement(claimant, challenger, exporter, jobDigest)).toString('hex')).toBe(expected)
  })

  test('differs when any one thing in it does', () => {
    const stated = (
      own = claimant,
      other = challenger,
      channel: Uint8Array = exporter,
      job: Uint8Array = jobDigest,
    ): string => Buffer.from(statement(own, other, channel, job)).toString('hex')
    const changed = (bytes: Uint8Array, bit: number): Buffer => {
      const copy = Buffer.from(bytes)
      copy[bit >> 3]! ^= 1 << (bit & 7)
      return copy
    }
    const all = [
      stated(),
      stated({ ...claimant, role: 'server' }),
      stated({ ...claimant, role: 'follower' }),
      stated(challenger, claimant),
    ]
    for (let bit = 0; bit < 256; bit++) {
      all.push(
        stated({ ...claimant, nonce: changed(claimant.nonce, bit) }),
        stated({ ...claimant, publicKeyHash: changed(claimant.publicKeyHash, bit) }),
        stated(claimant, { ...challenger, nonce: changed(challenger.nonce, bit) }),
        stated(claimant, { ...challenger, publicKeyHash: changed(challenger.publicKeyHash, bit) }),
        stated(claimant, challenger, changed(exporter, bit)),
        stated(claimant, challenger, exporter, changed(jobDigest, bit)),
      )
    }
    expect(new Set(all).size).toBe(4 + 6 * 256)
  })

  test('does not state the role of the challenger, which signs its own', () => {
    const worker: Claimant = { ...challenger, role: 'worker' }
    expect(statement(claimant, worker, exporter, jobDigest)).toEqual(
      statement(claimant, challenger, exporter, jobDigest),
    )
  })
})
