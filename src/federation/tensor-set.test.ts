import { afterAll, expect, test } from 'vitest'
import type { Engine, EngineTensor } from '../engine/engine.ts'
import { createJavascriptEngine } from '../engine/javascript.ts'
import { manifestOf } from './manifest.ts'
import { TensorPool, TensorSet } from './tensor-set.ts'

const engine = createJavascriptEngine()
afterAll(() => engine.close())

const manifest = manifestOf([
  { name: 'a', shape: [1, 2], role: 'weight' },
  { name: 'scale', shape: [2], role: 'unregularised' },
  { name: 'b', shape: [], role: 'weight' },
])

/** Counts what is allocated and not disposed of. */
function countingEngine(): { engine: Engine; live: Set<EngineTensor> } {
  const live = new Set<EngineTensor>()
  const counting = Object.create(engine) as Engine
  counting.tensor = (spec) => {
    const made = engine.tensor(spec)
    const dispose = made.dispose.bind(made)
    made.dispose = () => {
      live.delete(made)
      dispose()
    }
    live.add(made)
    return made
  }
  return { engine: counting, live }
}

test('tensors of one role lie one behind the other', () => {
  const set = TensorSet.allocate(engine, manifest)
  const { tensors } = set
  for (const [index, tensor] of tensors.entries()) tensor.fill(index + 1)
  const ofRole = (role: 'weight' | 'unregularised') => [...set.segments.get(role)!.data].filter((value) => value !== 0)
  const place = (name: string) => manifest.findIndex((entry) => entry.name === name) + 1
  expect(ofRole('weight')).toEqual([place('a'), place('a'), place('b')])
  expect(ofRole('unregularised')).toEqual([place('scale'), place('scale')])
  set.release()
})

test('bfloat16 is for what is trained: statistics stay float32', () => {
  const pool = new TensorPool(engine, manifest, 'bfloat16')
  const set = pool.take()
  for (const [index, { role, elements }] of manifest.entries()) {
    expect(set.tensors[index]).toBeInstanceOf(role === 'statistic' ? Float32Array : Uint16Array)
    expect(set.tensors[index]!.length).toBe(elements)
  }
  set.release()
  pool.close()
})

test('a pool gives memory again when its last user has released it, never to two at once', () => {
  const { engine, live } = countingEngine()
  const pool = new TensorPool(engine, manifest)
  const first = pool.take()
  const second = pool.take()
  expect(first.segments).not.toBe(second.segments)
  expect(live.size).toBe(4)
  const retained = first.retain()
  first.release()
  expect(pool.take().segments).not.toBe(first.segments)
  expect(live.size).toBe(6)
  retained.release()
  expect(() => retained.release()).toThrow()
  const again = pool.take()
  expect(again.segments).toBe(first.segments)
  expect(live.size).toBe(6)
  again.release()
  pool.close()
  expect(live.size).toBe(4)
  second.release()
  expect(live.size).toBe(2)
})
