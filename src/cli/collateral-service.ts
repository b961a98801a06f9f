// SPDX-License-Identifier: Apache-2.0
/** Which PCCS a command asks: what its options say, else what Intel's quoting library on this machine is told, else Intel itself. */
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { readTextFile } from '../attestation/bounded-file.ts'
import { type CloudName, cloudProfile } from '../attestation/cloud-profiles.ts'
import { PccsClient, type PccsOptions } from '../attestation/pccs.ts'
import { PccsError } from '../attestation/pccs-error.ts'
import { defaultQcnlPath, intelPcsUrl, parseQcnl, type QcnlConfig, qcnlFor } from '../attestation/qcnl.ts'
import { splitPem } from '../x509/pem.ts'
import { parseCertificate } from '../x509/read.ts'
import { type CliContext, cacheDirectory } from './context.ts'

export interface ServiceOptions {
  readonly pccs?: string
  readonly cloud?: CloudName
  readonly region?: string
  readonly privateNetwork?: boolean
  readonly qcnl?: string
  /** Takes any TLS certificate: collateral is believed for its signatures. */
  readonly insecureTls?: boolean
}

export interface Service {
  readonly config: QcnlConfig
  /** For people: what decided. */
  readonly origin: string
}

export async function chooseService(
  { cwd, env }: Pick<CliContext, 'cwd' | 'env'>,
  options: ServiceOptions,
  qcnlPath = defaultQcnlPath,
): Promise<Service> {
  const service = await chosen(cwd, env, options, qcnlPath)
  return options.insecureTls ? { ...service, config: { ...service.config, useSecureCert: false } } : service
}

async function chosen(
  cwd: string,
  env: CliContext['env'],
  options: ServiceOptions,
  qcnlPath: string,
): Promise<Service> {
  if (options.pccs !== undefined) return { config: qcnlFor(options.pccs), origin: '--pccs' }
  if (options.cloud !== undefined)
    return { config: cloudProfile(options.cloud, options), origin: `--cloud ${options.cloud}` }
  const named = options.qcnl ?? env.QCNL_CONF_PATH
  if (named !== undefined) return { config: await readQcnl(resolve(cwd, named)), origin: named }
  if (!existsSync(qcnlPath)) return { config: qcnlFor(intelPcsUrl), origin: 'Intel, since nothing is configured' }
  return { config: await readQcnl(qcnlPath), origin: qcnlPath }
}

async function readQcnl(path: string): Promise<QcnlConfig> {
  let text: string
  try {
    text = await readTextFile(path, 65_536)
  } catch (cause) {
    const got = cause instanceof Error ? cause.message : cause
    throw new PccsError('pccs-configuration-invalid', `expected a configuration of the quoting library: ${got}`, {
      hint: `Check --qcnl, QCNL_CONF_PATH or ${defaultQcnlPath}; --pccs URL needs no file.`,
      cause,
    })
  }
  return parseQcnl(text)
}

/** Collateral for a command: with the user's cache, and warnings to stderr. */
export function openService(
  { env, now, stderr }: Pick<CliContext, 'env' | 'now' | 'stderr'>,
  config: QcnlConfig,
  rootFingerprint: string,
  limits?: PccsOptions['limits'],
): PccsClient {
  return new PccsClient({
    config,
    rootFingerprint,
    cacheDirectory: join(cacheDirectory(env), 'collateral'),
    now,
    random: Math.random,
    report: (event) => {
      if (event.kind === 'warning') stderr.write(`warning: ${event.error.code}: ${event.error.message}\n`)
    },
    ...(limits ? { limits } : {}),
  })
}

/** SHA-256 of the certificate in a file, PEM or DER; of a chain the last one, which is the root. */
export function rootFingerprintOfFile(path: string): string {
  const bytes = readFileSync(path)
  const isDer = bytes[0] === 0x30
  const certificates = isDer ? [bytes] : splitPem(bytes.toString('latin1'))
  return parseCertificate(certificates.at(-1)!).fingerprint
}
