// SPDX-License-Identifier: Apache-2.0
/** What the Helm chart renders with each of its values files: what protects the pods. And which values it refuses. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { expect, test } from 'vitest'
import { loadDeployment } from '../../src/config/load.ts'
import { helm, lintersPython, requires } from '../requirements.ts'

const deploy = resolve(import.meta.dirname, '../../deploy')
const chart = join(deploy, 'kubernetes/cloister')
const valuesFiles = readdirSync(chart).filter((name) => /^values.*\.yaml$/.test(name))
const toJson = 'import json, sys, yaml; print(json.dumps([m for m in yaml.safe_load_all(sys.stdin) if m]))'

interface Container {
  readonly name: string
  readonly securityContext: object
  readonly env?: readonly { readonly name: string }[]
  readonly resources: { readonly limits: Record<string, string>; readonly requests: Record<string, string> }
  readonly volumeMounts: readonly { readonly name: string; readonly readOnly?: boolean }[]
}
interface PodSpec {
  readonly initContainers?: readonly Container[]
  readonly containers: readonly Container[]
  readonly volumes: readonly Record<string, unknown>[]
}
interface Manifest {
  readonly kind: string
  readonly metadata: { readonly name: string; readonly labels: Record<string, string> }
  readonly data: Record<string, string>
  readonly spec: PodSpec & {
    readonly replicas: number
    readonly template: { readonly metadata: Manifest['metadata']; readonly spec: PodSpec }
    readonly selector: { readonly matchLabels?: object }
    readonly podSelector: object
    readonly policyTypes: readonly string[]
    readonly ingress?: readonly { readonly from: readonly object[]; readonly ports: readonly object[] }[]
    readonly egress?: readonly { readonly to: readonly object[]; readonly ports: readonly object[] }[]
  }
}

function helmTemplate(values: string, settings: readonly string[]) {
  const set = settings.flatMap((setting) => ['--set-json', setting])
  const file = ['--values', join(chart, values), '--kube-version', '1.36.0', '--namespace', 'fl']
  return spawnSync(helm, ['template', 'trial', chart, ...file, ...set], { encoding: 'utf8' })
}

const rendered = new Map<string, Manifest[]>()

function render(values: string, ...settings: string[]): Manifest[] {
  const key = [values, ...settings].join('\n')
  const before = rendered.get(key)
  if (before !== undefined) return before
  const { status, stdout, stderr } = helmTemplate(values, settings)
  expect(stderr).toBe('')
  expect(status).toBe(0)
  const parsed = spawnSync(lintersPython, ['-c', toJson], { encoding: 'utf8', input: stdout })
  const manifests: Manifest[] = JSON.parse(parsed.stdout)
  rendered.set(key, manifests)
  return manifests
}

const of = (manifests: Manifest[], kind: string, end = '') =>
  manifests.filter((manifest) => manifest.kind === kind && manifest.metadata.name.endsWith(end))
const only = (manifests: Manifest[], kind: string, end: string) => {
  const found = of(manifests, kind, end)
  expect(found.map(({ metadata }) => metadata.name)).toHaveLength(1)
  return found[0]!
}
const podsOf = (manifests: Manifest[]): PodSpec[] =>
  manifests.flatMap(({ kind, spec }) =>
    kind === 'Pod' ? [spec] : spec?.template === undefined ? [] : [spec.template.spec],
  )
const containersOf = (pod: PodSpec) => [...(pod.initContainers ?? []), ...pod.containers]

requires('helm', 'python-yaml').describe('the chart', () => {
  test('has values for a trial, each cloud and an owner', () => {
    expect(valuesFiles.sort()).toEqual(
      ['alibaba', 'azure', 'bytedance', 'owner', 'simulated', 'tencent']
        .map((name) => `values-${name}.yaml`)
        .concat('values.yaml'),
    )
  })

  test.each(valuesFiles)(
    '%s: no pod has more than restricted pod security allows, but for a node’s own aesmd',
    (values) => {
      const pods = podsOf(render(values))
      expect(pods.length).toBeGreaterThan(1)
      for (const pod of pods) {
        expect(pod).toMatchObject({
          automountServiceAccountToken: false,
          securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
        })
        expect(pod).not.toHaveProperty('hostNetwork')
        expect(pod).not.toHaveProperty('hostPID')
        const hostPaths = pod.volumes.filter((volume) => 'hostPath' in volume)
        const allowed = values === 'values-azure.yaml' && pod.initContainers !== undefined
        expect(hostPaths).toEqual(
          allowed ? [{ name: 'aesmd', hostPath: { path: '/var/run/aesmd', type: 'Directory' } }] : [],
        )
        for (const container of containersOf(pod)) {
          expect(container.securityContext).toEqual({
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            privileged: false,
            capabilities: { drop: ['ALL'] },
          })
          expect(container.resources.limits).toHaveProperty('memory')
        }
      }
    },
  )

  test.each(valuesFiles)('%s: every pod is denied all traffic but what is named', (values) => {
    const manifests = render(values)
    const policies = of(manifests, 'NetworkPolicy')
    const { spec } = only(manifests, 'NetworkPolicy', '-deny')
    const ours = { 'app.kubernetes.io/name': 'cloister', 'app.kubernetes.io/instance': 'trial' }
    expect(spec).toEqual({ podSelector: { matchLabels: ours }, policyTypes: ['Ingress', 'Egress'] })
    for (const manifest of manifests) {
      const labels = manifest.kind === 'Pod' ? manifest.metadata.labels : manifest.spec?.template?.metadata.labels
      if (labels !== undefined) expect(labels).toMatchObject(ours)
    }
    // An empty list of peers or ports would mean all of them.
    for (const { spec } of policies) {
      for (const { from, ports } of spec.ingress ?? []) expect([from.length, ports.length]).not.toContain(0)
      for (const { to, ports } of spec.egress ?? []) expect([to.length, ports.length]).not.toContain(0)
    }
  })

  test('keeps others out when nobody is named: servers hear their workers and servers only', () => {
    const { spec } = only(render('values.yaml'), 'NetworkPolicy', '-server')
    expect(spec.ingress).toMatchObject([{ from: [{ podSelector: {} }], ports: [{ port: 9000 }] }])
    expect(spec.ingress![0]!.from).toHaveLength(1)
    const opened = only(render('values.yaml', 'networkPolicy.clients=["192.0.2.0/24"]'), 'NetworkPolicy', '-server')
    expect(opened.spec.ingress![0]!.from[1]).toEqual({ ipBlock: { cidr: '192.0.2.0/24' } })
  })

  test('gives an owner’s workers the way to their servers and to collateral, and no other', () => {
    const manifests = render('values-owner.yaml')
    expect(of(manifests, 'StatefulSet').map(({ metadata }) => metadata.name)).toEqual(['trial-cloister-worker'])
    const { spec } = only(manifests, 'NetworkPolicy', '-worker')
    expect(spec.egress).toEqual([{ to: [{ ipBlock: { cidr: '203.0.113.10/32' } }], ports: [{ port: 9000 }] }])
    expect(spec.ingress).toBeUndefined()
  })

  test.each([
    ['intel', { 'sgx.intel.com/enclave': '1', 'sgx.intel.com/provision': '1', 'sgx.intel.com/epc': '8192Mi' }],
    ['azure', { 'sgx.intel.com/epc': '8192Mi' }],
    ['alibaba', { 'alibabacloud.com/sgx_epc_MiB': '8192' }],
  ])('asks the device plugin of %s for the enclave, and the simulated platform for none', (plugin, devices) => {
    const [set] = of(render('values.yaml', `sgx.devicePlugin="${plugin}"`), 'StatefulSet', '-server')
    const { limits, requests } = set!.spec.template.spec.containers[0]!.resources
    expect(limits).toEqual({ memory: '4Gi', ...devices })
    expect(requests).toEqual({ cpu: '2', memory: '4Gi', ...devices })
    const simulated = podsOf(render('values-simulated.yaml', `sgx.devicePlugin="${plugin}"`))
    for (const container of simulated.flatMap(containersOf)) {
      expect(Object.keys(container.resources.limits)).toEqual(['memory'])
    }
  })

  test('has as many servers and workers as the job, and its workers see the data read-only', () => {
    const job = 'job={"servers": 3, "workers": 5, "workload": "image-classification"}'
    const sets = of(render('values.yaml', job), 'StatefulSet')
    expect(sets.map(({ spec }) => spec.replicas)).toEqual([3, 5])
    const data = sets.map(({ spec }) =>
      spec.template.spec.containers[0]!.volumeMounts.filter(({ name }) => name === 'data'),
    )
    expect(data).toEqual([[], [{ name: 'data', mountPath: '/dataset', readOnly: true }]])
    expect(of(render('values.yaml', job, 'workers.firstIndex=3'), 'StatefulSet')[1]!.spec.replicas).toBe(2)
  })

  test.each(valuesFiles)('%s: the deployment files are what cloister takes', (values) => {
    const directory = mkdtempSync(join(tmpdir(), 'cloister-chart-'))
    try {
      const { data } = only(render(values, 'provisioning.enabled=true'), 'ConfigMap', 'cloister')
      const files = Object.keys(data).filter((name) => name.startsWith('deployment-'))
      expect(files.length).toBeGreaterThan(0)
      for (const name of files) {
        const file = join(directory, name)
        writeFileSync(file, data[name]!.replace('"@INDEX@"', '1').replace('@MACHINE@', 'server1'))
        expect(loadDeployment(file).server.health).toEqual({ host: '0.0.0.0', port: 9001 })
      }
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test.each(['alibaba', 'azure', 'bytedance', 'tencent'])('values-%s.yaml has the file of deploy/clouds', (cloud) => {
    const { data } = only(render(`values-${cloud}.yaml`), 'ConfigMap', 'cloister')
    expect(data['qcnl.conf']!.trim()).toBe(
      readFileSync(join(deploy, `clouds/${cloud}/sgx_default_qcnl.conf`), 'utf8').trim(),
    )
  })

  test('lets the operator of Prometheus find the services that have metrics', () => {
    const manifests = render('values.yaml', 'metrics.serviceMonitor.enabled=true')
    const { spec } = only(manifests, 'ServiceMonitor', 'cloister')
    const services = of(manifests, 'Service')
    expect(services).toHaveLength(2)
    for (const { metadata } of services) expect(metadata.labels).toMatchObject(spec.selector.matchLabels!)
    expect(of(render('values.yaml'), 'ServiceMonitor')).toEqual([])
  })

  test.each([
    ['a word that is none', 'plattform="sgx"', 'plattform'],
    ['a word inside', 'servers.replicas=2', 'replicas'],
    ['another platform', 'platform="tdx"', 'platform'],
    ['an image that is no digest', 'image.digest="latest"', 'digest'],
    ['no address of the servers', 'servers.enabled=false', 'expected the address of each server'],
    ['addresses of servers that are here', 'servers.addresses=["a:9000"]', 'expected none while servers.enabled'],
    ['the world by mistake', 'servers.external.enabled=true', 'expected the CIDRs that owners come from'],
    ['a client that is no network', 'networkPolicy.clients=["anybody"]', 'clients'],
    ['a claim without a name', 'data.source="claim"', 'claim'],
    ['a custom plugin without resources', 'sgx.devicePlugin="custom"', 'resources'],
    ['collateral without TLS', 'pccs.url="http://pccs:8081/sgx/certification/v4/"', 'url'],
    ['a worker that the job does not have', 'workers.firstIndex=2', 'the job has no worker of this number'],
    ['two settings in one', 'jobSettings=["seed=1\\nadmission=x"]', 'jobSettings'],
    ['too little enclave memory', 'sgx.epcMiB=0', 'epcMiB'],
    ['a deployment field that decides more', 'deployment.platform={"kind": "simulated"}', 'platform'],
  ])('refuses %s', (_, setting, named) => {
    const { status, stderr } = helmTemplate('values.yaml', [setting])
    expect(status).not.toBe(0)
    expect(stderr).toContain(named)
  })

  test('refuses two policies', () => {
    const settings = ['job={"workload": "image-classification", "admission": {"a": 1}}', 'policy={"a": 1}']
    const { status, stderr } = helmTemplate('values.yaml', settings)
    expect(status).not.toBe(0)
    expect(stderr).toContain('the job has an admission of its own')
  })
})
