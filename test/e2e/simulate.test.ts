/** `cloister simulate` and `train` from a command line to the files that they leave. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parseSafetensors } from '../../src/storage/safetensors.ts'
import { python, requires } from '../requirements.ts'
import { anyEngine, type Reported, Sandbox, smallJob } from './program.ts'

const kinds = new Set([
  ...['process-started', 'listening', 'progress', 'peer-joined', 'peer-left', 'peer-refused', 'connection-lost'],
  ...['step', 'update', 'update-refused', 'traffic', 'evaluation', 'saved', 'warning', 'failed', 'finished'],
  ...['checkpointed', 'exported'],
])

test('a job from its file to its result', async () => {
  const sandbox = new Sandbox()
  const data = await sandbox.synthesize()
  const job = sandbox.write('job.json', smallJob({ updates: 8, training: { evaluateEvery: 4 } }))
  const { status, out, err } = await sandbox.run([
    ...['simulate', '--job', job, '--data', data, '--out', 'run', '--engine', anyEngine],
  ])
  expect({ status, err }).toEqual({ status: 0, err: '' })
  expect(out).toMatch(/\nOptimization finished\.\n$/)
  expect(out).toContain('SYNTHETIC DATA')
  expect(out).not.toContain('TensorFlow.js in Node.js')
  // The attestation of each peer, by the side that judged it, and the loud word on what it is worth.
  for (const who of [/^server: worker0 joined/m, /^server: worker1 joined/m, /^worker0: server joined/m]) {
    expect(out).toMatch(new RegExp(`${who.source}.*NOT PROTECTED.*MRENCLAVE [0-9a-f]{64}.*TCB UpToDate`, 'm'))
  }
  expect(out.match(/WARNING platform-simulated/g)).toHaveLength(1)

  const files = sandbox.files('run')
  expect(files).toEqual(
    expect.arrayContaining([
      ...['server.log', 'worker0.log', 'worker1.log', 'events.jsonl', 'result.json', 'partition.json', 'job.json'],
      ...['deployment.json', 'model/variables.safetensors', 'model/variables.json'],
      // Both workers judged the server, and each kept what it saw.
      ...['evidence/server-peer-1.json', 'evidence/server-peer-2.json'],
      ...['evidence/worker0-peer-1.json', 'evidence/worker1-peer-1.json'],
      ...['audit/server.jsonl', 'audit/worker0.jsonl', 'audit/worker1.jsonl'],
    ]),
  )
  expect(files.includes('model/graph.pb')).toBe(anyEngine === 'tensorflow')
  expect(files.filter((file) => file.endsWith('.tmp'))).toEqual([])

  expect(sandbox.json('run/result.json')).toMatchObject({
    workload: 'image-classification',
    dataSource: 'synthetic',
    mode: 'asynchronous',
    steps: 8,
    examples: 32,
    seconds: expect.any(Number),
    examplesPerSecond: expect.any(Number),
    heldOut: { accuracy: expect.any(Number), loss: expect.any(Number) },
    interrupted: false,
    peers: [
      { name: 'worker0', examples: 100, evidence: { mrEnclave: expect.stringMatching(/^[0-9a-f]{64}$/) } },
      { name: 'worker1', examples: 100, evidence: { tcbStatus: 'UpToDate' } },
    ],
  })
  const { peers } = sandbox.json('run/result.json') as { peers: [{ evidence: { mrEnclave: string } }] }
  const { mrEnclave } = peers[0].evidence
  const policy = ['--policy', 'run/evidence/policy.json', '--self', mrEnclave]
  const audit = await sandbox.run(['audit', 'verify', 'run', ...policy])
  expect(audit).toMatchObject({ status: 0, err: '' })
  expect(audit.out.match(/^VERIFIED /gm)).toHaveLength(3)
  expect(audit.out).not.toContain('NOTE')

  const stepLine = /^\S+ step: \d+, loss: \d+\.\d+, iter time: \d+\.\d+$/m
  expect(sandbox.read('run/worker0.log')).toMatch(stepLine)
  expect(sandbox.read('run/worker1.log')).toMatch(stepLine)

  const events = sandbox.events('run')
  expect(events.filter((event) => !kinds.has(event.kind))).toEqual([])
  expect(events.filter((event) => event.kind === 'update').map((event) => event.step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  expect(events.filter((event) => event.kind === 'evaluation').map((event) => event.step)).toEqual([4, 8])
  // No list of numbers anywhere: nothing that could be a parameter, a gradient or an example.
  for (const event of events) expect(JSON.stringify(event)).not.toMatch(/\[-?\d/)

  const { tensors } = parseSafetensors(readFileSync(sandbox.path('run/model/variables.safetensors')))
  expect(tensors.length).toBeGreaterThan(10)
  for (const { data } of tensors) expect(data.every(Number.isFinite)).toBe(true)
})

test('with --json standard output is events alone, with --metrics one port has all processes', async () => {
  const sandbox = new Sandbox()
  const data = await sandbox.synthesize()
  const job = sandbox.write('job.json', smallJob({ updates: 4 }))
  const run = sandbox.start([
    ...['simulate', '--job', job, '--data', data, '--out', 'run', '--engine', anyEngine],
    ...['--json', '--metrics', '127.0.0.1:0'],
  ])
  const [, address] = (await run.says(/"metrics-served","address":"([^"]+)"/)) as unknown as [string, string]
  for (const worker of [0, 1]) await run.says(new RegExp(`"source":"worker${worker}","kind":"process-started"`))
  const metrics = await (await fetch(`http://${address}/metrics`)).text()
  for (const process of ['server', 'worker0', 'worker1']) {
    expect(metrics).toContain(`cloister_process_info{process="${process}"`)
  }
  const { status, out, err } = await run.exited
  expect({ status, err }).toEqual({ status: 0, err: '' })
  const events = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Reported)
  expect(events.filter(({ source, kind }) => source === 'server' && kind === 'update')).toHaveLength(4)
  expect(events.some((event) => event.kind === 'saved' && event.what === 'result')).toBe(true)
  expect(sandbox.files('run')).toEqual(expect.arrayContaining(['loss.svg', 'accuracy.svg', 'tensorboard/server']))
})

test('two synchronous runs with one seed end in the same bytes, another seed in others', async () => {
  const sandbox = new Sandbox()
  const data = await sandbox.synthesize()
  const learnt = async (out: string, seed: number): Promise<Buffer> => {
    const mode = { name: 'synchronous', quorum: 2 }
    const job = sandbox.write(
      `${out}.json`,
      smallJob({ updates: 4, seed, training: { mode }, data: { augment: true } }),
    )
    const args = ['simulate', '--job', job, '--data', data, '--out', out, '--engine', anyEngine]
    const { status, err } = await sandbox.run(args)
    expect({ status, err }).toEqual({ status: 0, err: '' })
    return readFileSync(sandbox.path(out, 'model/variables.safetensors'))
  }
  const tensorsOf = (bytes: Buffer) => parseSafetensors(bytes).tensors
  const first = await learnt('first', 3)
  expect(Buffer.compare(first, await learnt('second', 3))).toBe(0)
  expect(tensorsOf(await learnt('third', 4))).not.toEqual(tensorsOf(first))
})

test('train runs the same job in one process', async () => {
  const sandbox = new Sandbox()
  const data = await sandbox.synthesize()
  const job = sandbox.write('job.json', smallJob())
  const args = ['train', '--job', job, '--data', data, '--out', 'run', '--engine', anyEngine]
  const { status, out, err } = await sandbox.run(args)
  expect({ status, err }).toEqual({ status: 0, err: '' })
  expect(out).toMatch(/\nOptimization finished\.\n$/)
  expect(sandbox.files('run')).toEqual(expect.arrayContaining(['train.log', 'result.json', 'model/variables.json']))
  expect(sandbox.json('run/result.json')).toMatchObject({ mode: 'one process', steps: 6, examples: 24, peers: [] })
})

test('the JavaScript engine runs the same job', async () => {
  const sandbox = new Sandbox()
  const data = await sandbox.synthesize('images', 10)
  const job = sandbox.write('job.json', smallJob({ workers: 1, updates: 2 }))
  const args = ['simulate', '--job', job, '--data', data, '--out', 'run', '--engine', 'javascript']
  const { status, out, err } = await sandbox.run(args)
  expect({ status, err }).toEqual({ status: 0, err: '' })
  expect(out).not.toContain('TensorFlow.js in Node.js')
  expect(sandbox.json('run/result.json')).toMatchObject({ steps: 2, engine: expect.stringContaining('JavaScript') })
})

requires('tensorflow-library', 'python-tensorflow').describe('the files of a run, read by real TensorFlow', () => {
  test('the graph loads, and the variables are the ones that the graph feeds', async () => {
    const sandbox = new Sandbox()
    const data = await sandbox.synthesize()
    const job = sandbox.write('job.json', smallJob({ workers: 1, updates: 2 }))
    const args = ['simulate', '--job', job, '--data', data, '--out', 'run', '--engine', 'tensorflow']
    expect(await sandbox.run(args)).toMatchObject({ status: 0 })
    const program = `
import json, sys, struct
import tensorflow as tf
directory = sys.argv[1]
definition = tf.compat.v1.GraphDef()
definition.ParseFromString(open(directory + '/graph.pb', 'rb').read())
graph = tf.Graph()
with graph.as_default():
    tf.import_graph_def(definition, name='')
placeholders = {op.name: op.outputs[0].shape.as_list() for op in graph.get_operations() if op.type == 'Placeholder'}
raw = open(directory + '/variables.safetensors', 'rb').read()
(length,) = struct.unpack('<Q', raw[:8])
header = json.loads(raw[8:8 + length])
header.pop('__metadata__', None)
print(json.dumps({'placeholders': placeholders, 'variables': {name: entry['shape'] for name, entry in header.items()}}))
`
    const printed = execFileSync(python, ['-c', program, sandbox.path('run/model')], {
      encoding: 'utf8',
      env: { ...process.env, TF_CPP_MIN_LOG_LEVEL: '3' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const { placeholders, variables } = JSON.parse(printed) as Record<string, Record<string, number[]>>
    expect(Object.keys(variables!).length).toBeGreaterThan(10)
    const fed = Object.values(placeholders!).map((shape) => JSON.stringify(shape))
    for (const shape of Object.values(variables!)) expect(fed).toContain(JSON.stringify(shape))
  })
})
