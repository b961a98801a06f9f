/** An honest worker whose model, numbers or data are wrong, over the in-memory transport: both sides say so. */
import { afterAll, describe, expect, test } from 'vitest'
import {
  batchSize,
  connectTo,
  honestWorkerFinishes,
  kinds,
  linearLayout,
  linearTraining,
  overheard,
  startForOne,
  startWorker,
} from '../../test/support/federation.ts'
import { linearManifest, linearStep } from '../../test/support/linear-training.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { Training } from './training.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

describe('a worker that is itself at fault', () => {
  test('its model has another shape than the server’s: both sides say so', async () => {
    const server = startForOne(engine)
    const manifest = linearManifest.map((entry) =>
      entry.name === 'dense/kernel' ? { ...entry, shape: [...entry.shape].reverse() } : entry,
    )
    const worker = startWorker(engine, () => server.wire, 1, { layout: { ...linearLayout, manifest } })
    await expect(worker.result).rejects.toMatchObject({
      code: 'tensor-shape-mismatch',
      message: 'dense/kernel: expected shape [3,4], got [4,3]',
    })
    await honestWorkerFinishes(engine, server)
    expect(kinds(server.events, 'peer-left')[0]).toMatchObject({
      error: { code: 'worker-left', message: expect.stringContaining('tensor-shape-mismatch') },
    })
  })

  test.each<[string, { loss?: number; gradient?: number }, string, string]>([
    [
      'its gradient is not finite: the server refuses it',
      { gradient: Number.NaN },
      'values-not-finite',
      'values-not-finite',
    ],
    ['its loss is not finite: it stops', { loss: Number.POSITIVE_INFINITY }, 'loss-not-finite', 'worker-left'],
  ])('%s', async (_, fault, code, told) => {
    const server = startForOne(engine)
    const sound = linearStep(engine, batchSize)
    const said: string[] = []
    const worker = startWorker(engine, () => server.wire, 1, {
      connect: async () => overheard(await connectTo(server.wire, { name: 'w' }), (line) => said.push(line)),
      training: linearTraining(engine, 1, 2, {
        step: {
          async run(...input) {
            const result = await sound.run(...input)
            if (fault.gradient !== undefined) result.gradients.get('dense/bias')!.data[1] = fault.gradient
            return { ...result, loss: fault.loss ?? result.loss }
          },
        },
      }),
    })
    await expect(worker.result).rejects.toMatchObject({ code })
    if (fault.loss !== undefined) expect(said).not.toContain('worker: push')
    await honestWorkerFinishes(engine, server)
    expect(kinds(server.events, 'peer-left')[0]?.error).toMatchObject({ code: told })
  })

  test('its batches fail: the error comes out as it is, and the server is told', async () => {
    const server = startForOne(engine)
    const broken = new RangeError('label 12 at record 7')
    const training = new Training({
      manifest: linearManifest,
      step: linearStep(engine, batchSize),
      evaluation: { run: async () => ({}) },
      tables: [],
      batch: () => Promise.reject(broken),
      heldOut: async function* () {},
      seed: () => 0,
    })
    await expect(startWorker(engine, () => server.wire, 1, { training }).result).rejects.toBe(broken)
    await honestWorkerFinishes(engine, server)
  })
})
