// SPDX-License-Identifier: Apache-2.0
/**
 * `cloister platform serve|set`: a simulated SGX platform for any machine. `serve` makes or opens the authority in a directory and
 * runs its PCCS until it is stopped; `set` changes what is wrong with it while jobs run. Enclaves on it need the directory only.
 */

import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { startPccsServer } from '../attestation/pccs-server.ts'
import { fingerprintOf, openSimulatedAuthority } from '../attestation/platforms/simulated-authority.ts'
import { replaceFile } from '../attestation/text-file.ts'
import { type CliContext, exitStatus } from './context.ts'

export interface ServeOptions {
  readonly directory: string
  readonly host?: string
  /** 0 takes a free one. */
  readonly port?: number
  /** Host by which others reach the service; by default `host`, or this machine's name where that is all addresses. */
  readonly advertise?: string
  /** What is wrong with the platform: see simulated-variants.ts. None: nothing. */
  readonly variant?: readonly string[]
  readonly json?: boolean
}

type Context = Pick<CliContext, 'cwd' | 'now' | 'signal' | 'stdout' | 'stderr'>

/** Beside the state: what a policy and what a DCAP client want of this platform. */
export const simulatedRootFile = 'root.pem'
export const simulatedQcnlFile = 'sgx_default_qcnl.conf'

export async function serve(context: Context, options: ServeOptions): Promise<number> {
  const directory = resolve(context.cwd, options.directory)
  const authority = await openAuthority(context, directory)
  await authority.setVariants(options.variant ?? [])
  const { host = '127.0.0.1', port = 8081 } = options
  const server = await startPccsServer({ authority, host, port, now: context.now })
  const url = new URL(server.url)
  const reachable = options.advertise ?? (isWildcard(host) ? hostname() : undefined)
  if (reachable !== undefined) url.host = `${reachable.includes(':') ? `[${reachable}]` : reachable}:${url.port}`
  try {
    await replaceFile(join(directory, simulatedRootFile), authority.certificates.root.pem)
    // What is set here is to be seen by jobs that run: nothing is kept longer than it must.
    await replaceFile(
      join(directory, simulatedQcnlFile),
      `${JSON.stringify({ pccs_url: url.href, verify_collateral_cache_expire_hours: 0 }, undefined, 2)}\n`,
    )
    const said = {
      pccsUrl: url.href,
      rootFile: join(directory, simulatedRootFile),
      rootFingerprint: fingerprintOf(authority.certificates.root),
      qcnlFile: join(directory, simulatedQcnlFile),
      variants: options.variant ?? [],
    }
    context.stderr.write('SIMULATED PLATFORM: attestation is real in form only, nothing is protected from this host.\n')
    context.stdout.write(options.json ? `${JSON.stringify(said)}\n` : textOf(said))
    await aborted(context.signal)
    return exitStatus.ok
  } finally {
    await server.close()
  }
}

export async function setVariants(
  context: Context,
  options: { readonly directory: string; readonly variant?: readonly string[] },
): Promise<number> {
  const authority = await openAuthority(context, resolve(context.cwd, options.directory))
  await authority.setVariants(options.variant ?? [])
  context.stdout.write(`variants: ${options.variant?.join(', ') || 'none, the platform is healthy'}\n`)
  return exitStatus.ok
}

function openAuthority({ now }: Context, directory: string) {
  return openSimulatedAuthority({ directory, now, secret: () => randomBytes(32) })
}

/** Addresses to listen on that nobody can connect to from elsewhere. */
function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

function textOf(
  said: Readonly<Record<'pccsUrl' | 'rootFile' | 'rootFingerprint' | 'qcnlFile', string>> & {
    variants: readonly string[]
  },
): string {
  const lines = [
    `PCCS       ${said.pccsUrl}`,
    `root       ${said.rootFile} (SHA-256 ${said.rootFingerprint})`,
    `clients    QCNL_CONF_PATH=${said.qcnlFile}`,
    `variants   ${said.variants.join(', ') || 'none, the platform is healthy'}`,
  ]
  return `${lines.join('\n')}\n`
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) done()
    else signal.addEventListener('abort', () => done(), { once: true })
  })
}
