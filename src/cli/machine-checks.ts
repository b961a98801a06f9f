// SPDX-License-Identifier: Apache-2.0
/** What `cloister doctor` finds on the machine itself: processor, driver, quoting service, Gramine. It looks and changes nothing. */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { delimiter, join } from 'node:path'

export interface Finding {
  readonly check: string
  /** `missing`: production will not run; `warning`: it may; `unknown`: could not be found out. */
  readonly state: 'ok' | 'warning' | 'missing' | 'unknown'
  readonly found: string
  /** What to do; always there unless all is well. */
  readonly advice?: string
}

/** Where things are; a test has its own. */
export interface MachinePaths {
  readonly cpuinfo: string
  readonly devices: string
  readonly aesmSocket: string
  readonly qcnl: string
}

const connectTimeoutMs = 2000
const instances =
  'SGX needs an Intel Xeon of the third generation or later, enabled in firmware; in clouds an instance type with it (Azure DCsv3, Alibaba g7t).'

export async function machineFindings(paths: MachinePaths, searchPath: string): Promise<Finding[]> {
  return [
    ...cpuFindings(paths.cpuinfo),
    deviceFinding(paths.devices, 'enclave', ['sgx_enclave', 'sgx/enclave'], 'sgx'),
    deviceFinding(paths.devices, 'provision', ['sgx_provision', 'sgx/provision'], 'sgx_prv'),
    await aesmFinding(paths.aesmSocket),
    attestationFinding(join(paths.devices, 'attestation')),
    ...gramineFindings(searchPath),
  ]
}

function cpuFindings(path: string): Finding[] {
  const check = 'processor'
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch {
    return [{ check, state: 'unknown', found: `${path} cannot be read`, advice: 'Run on Linux, with /proc mounted.' }]
  }
  const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(text)?.[1]?.split(/\s+/))
  const model = /^model name\s*:\s*(.*)$/m.exec(text)?.[1] ?? 'unnamed processor'
  if (!flags.has('sgx')) return [{ check, state: 'missing', found: `${model}: no flag sgx`, advice: instances }]
  if (!flags.has('sgx_lc')) {
    const advice = 'Enable flexible launch control in firmware: DCAP attestation needs it.'
    return [{ check, state: 'missing', found: `${model}: sgx without sgx_lc`, advice }]
  }
  return [{ check, state: 'ok', found: `${model}: sgx, sgx_lc` }]
}

function deviceFinding(directory: string, what: string, names: readonly string[], group: string): Finding {
  const check = `device ${what}`
  const path = names.map((name) => join(directory, name)).find((candidate) => existsSync(candidate))
  if (path === undefined) {
    const old = existsSync(join(directory, 'isgx'))
    const found = old ? 'only isgx, the driver of before DCAP' : `neither ${names.join(' nor ')} in ${directory}`
    const advice = 'Linux 5.11 or newer has the driver; containers need --device, Kubernetes the SGX device plugin.'
    return { check, state: 'missing', found, advice }
  }
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return { check, state: 'ok', found: path }
  } catch {
    const advice = `Let this user read and write it: usermod -aG ${group} USER.`
    return { check, state: 'missing', found: `${path} is not accessible to this user`, advice }
  }
}

async function aesmFinding(path: string): Promise<Finding> {
  const check = 'quoting service'
  if (!existsSync(path)) {
    const advice =
      'Install sgx-aesm-service with libsgx-aesm-quote-ex-plugin and start aesmd; mount its socket into containers.'
    return { check, state: 'missing', found: `no ${path}`, advice }
  }
  const answers = await new Promise<boolean>((done) => {
    const socket = connect(path)
    const end = (result: boolean) => {
      socket.destroy()
      done(result)
    }
    socket.setTimeout(connectTimeoutMs, () => end(false))
    socket.on('connect', () => end(true)).on('error', () => end(false))
  })
  if (answers) return { check, state: 'ok', found: `aesmd answers at ${path}` }
  const advice = 'Start it: systemctl start aesmd; its journal says why it does not run.'
  return { check, state: 'missing', found: `nobody answers at ${path}`, advice }
}

/** Only there inside Gramine. */
function attestationFinding(directory: string): Finding {
  const check = 'inside an enclave'
  if (!existsSync(directory)) return { check, state: 'ok', found: 'no: this is the host' }
  const path = join(directory, 'attestation_type')
  if (!existsSync(path)) {
    return {
      check,
      state: 'warning',
      found: 'no: gramine-direct',
      advice: 'gramine-direct attests nothing: gramine-sgx does.',
    }
  }
  const type = readFileSync(path, 'latin1')
  if (type === 'dcap') return { check, state: 'ok', found: 'yes, with DCAP attestation' }
  const advice = 'Set sgx.remote_attestation = "dcap" in the manifest.'
  return { check, state: 'missing', found: `yes, attestation type ${type}`, advice }
}

function gramineFindings(searchPath: string): Finding[] {
  const programs = ['gramine-sgx', 'gramine-manifest', 'gramine-sgx-sign']
  const directories = searchPath.split(delimiter).filter((directory) => directory !== '')
  const missing = programs.filter((name) => !directories.some((directory) => isExecutable(join(directory, name))))
  if (missing.length === 0) return [{ check: 'Gramine', state: 'ok', found: programs.join(', ') }]
  const advice =
    'Install Gramine 1.8 or newer (gramineproject.io). Without SGX the simulated platform needs none of it.'
  return [{ check: 'Gramine', state: 'missing', found: `not on PATH: ${missing.join(', ')}`, advice }]
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
