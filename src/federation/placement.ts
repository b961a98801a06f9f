// SPDX-License-Identifier: Apache-2.0
/**
 * Which server holds what. Dense tensors lie whole on one server each: the largest first, each on the server that has least
 * (Graham 1969: at most a third above the best balance). Table rows lie where a hash of their id says, row by row. All of it
 * follows from model and number of servers; both sides compute it, and compare digests when they meet.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { FederationError } from './federation-error.ts'
import type { Manifest } from './manifest.ts'
import { mix32 } from './mix32.ts'
import { rowOutOfRange, type TableSpec } from './row-initializer.ts'

export interface Placement {
  readonly servers: number
  /** Server of each tensor, by manifest index. */
  readonly tensors: readonly number[]
  /** SHA-256 over the whole of it, tables included: 32 bytes. */
  readonly digest: Uint8Array
}

export function place(manifest: Manifest, tables: readonly TableSpec[], servers: number): Placement {
  assert(Number.isInteger(servers) && servers > 0)
  const load = new Array<number>(servers).fill(0)
  const tensors = new Array<number>(manifest.length).fill(0)
  const largestFirst = [...manifest.entries()].sort(([i, a], [j, b]) => b.elements - a.elements || i - j)
  for (const [index, { elements }] of largestFirst) {
    const server = load.indexOf(Math.min(...load))
    tensors[index] = server
    load[server]! += elements
  }
  const plan = {
    servers,
    tensors: manifest.map(({ name, shape, role }, index) => [name, shape, role, tensors[index]]),
    tables: tables.map(({ name, width, rows, initial }) => [name, width, rows, initial.scale]),
    rows: 'fmix32(id) mod servers',
  }
  return { servers, tensors, digest: createHash('sha256').update(JSON.stringify(plan)).digest() }
}

/** What one server holds of the manifest, in the manifest's order. */
export function manifestOfServer(manifest: Manifest, { tensors }: Placement, server: number): Manifest {
  return manifest.filter((_, index) => tensors[index] === server)
}

export function serverOfRow(id: number, servers: number): number {
  return mix32(id) % servers
}

/** A server's part of some rows. */
export interface ServerRows {
  readonly ids: Uint32Array
  /** For each of them, where it stands among all. */
  readonly positions: Uint32Array
}

/** By server; ascending ids stay ascending. */
export function rowsByServer(ids: Uint32Array, servers: number): ServerRows[] {
  const counts = new Uint32Array(servers)
  const owners = new Uint8Array(ids.length)
  assert(servers <= 256)
  for (let position = 0; position < ids.length; position++) {
    const server = serverOfRow(ids[position]!, servers)
    owners[position] = server
    counts[server]!++
  }
  const parts = Array.from(counts, (count) => ({ ids: new Uint32Array(count), positions: new Uint32Array(count) }))
  counts.fill(0)
  for (let position = 0; position < ids.length; position++) {
    const server = owners[position]!
    const at = counts[server]!++
    parts[server]!.ids[at] = ids[position]!
    parts[server]!.positions[at] = position
  }
  return parts
}

/** Row ids that a peer asks `server` for: ascending, each once, in the table, and this server's. */
export function verifyRowIds(table: TableSpec, ids: Uint32Array, server: number, servers: number): void {
  const malformed = (expected: string, got: string): FederationError =>
    new FederationError('rows-malformed', `${table.name}: expected ${expected}, got ${got}`, {
      hint: 'The peer does not follow the protocol: compare its version with ours.',
    })
  for (let index = 0; index < ids.length; index++) {
    const id = ids[index]!
    if (id >= table.rows) throw rowOutOfRange(table, id)
    if (index > 0 && id <= ids[index - 1]!) throw malformed('ascending row ids', `${id} after ${ids[index - 1]}`)
    const owner = serverOfRow(id, servers)
    if (owner !== server) throw malformed(`rows of server ${server}`, `row ${id} of server ${owner}`)
  }
}
