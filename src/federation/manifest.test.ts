import { describe, expect, test } from 'vitest'
import type { FederationError } from './federation-error.ts'
import { type Manifest, manifestOf, verifySameManifest } from './manifest.ts'

const manifest = manifestOf([
  { name: 'norm/mean', shape: [3], role: 'statistic' },
  { name: 'conv/kernel', shape: [2, 3], role: 'weight' },
  { name: 'norm/scale', shape: [3], role: 'unregularised' },
  { name: 'dense/kernel', shape: [], role: 'weight' },
])

test('roles are contiguous, each in the order of the model', () => {
  expect(manifest.map(({ name, elements }) => [name, elements])).toEqual([
    ['conv/kernel', 6],
    ['dense/kernel', 1],
    ['norm/scale', 3],
    ['norm/mean', 3],
  ])
})

describe('the difference between two models is named', () => {
  const changed = (index: number, change: Partial<Manifest[number]>): Manifest =>
    manifest.map((entry, at) => (at === index ? { ...entry, ...change } : entry))

  test.each<[string, Manifest, string]>([
    ['equal', manifest, 'equal'],
    ['another name', changed(1, { name: 'dense/weights' }), 'tensor-missing'],
    ['one more at the end', [...manifest, { ...manifest[0]!, name: 'extra' }], 'tensor-unknown'],
    ['one more in between', [manifest[0]!, { ...manifest[0]!, name: 'extra' }, ...manifest.slice(1)], 'tensor-unknown'],
    ['one less', manifest.slice(0, 3), 'tensor-missing'],
    ['another size', changed(0, { shape: [2, 4] }), 'tensor-shape-mismatch'],
    ['another rank of equal size', changed(0, { shape: [6] }), 'tensor-shape-mismatch'],
    ['transposed', changed(0, { shape: [3, 2] }), 'tensor-shape-mismatch'],
    ['another role', changed(2, { role: 'weight' }), 'tensor-role-mismatch'],
  ])('%s', (_, theirs, expected) => {
    let code = 'equal'
    try {
      verifySameManifest(manifest, theirs)
    } catch (error) {
      code = (error as FederationError).code
    }
    expect(code).toBe(expected)
  })
})
