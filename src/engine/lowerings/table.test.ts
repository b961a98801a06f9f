// SPDX-License-Identifier: Apache-2.0
/** Every lowering, forward and gradient, against TensorFlow.js's CPU backend. More samples of the same: table.slow.test.ts. */
import { afterAll, expect, test, vi } from 'vitest'
import { families } from '../../../test/lowerings/cases.ts'
import { compareCases } from '../../../test/lowerings/differential.ts'
import { requires } from '../../../test/requirements.ts'
import { lowerings } from './table.ts'

requires('tensorflow-library').describe('lowerings', () => {
  const lookUps = vi.spyOn(lowerings, 'get')
  afterAll(() => lookUps.mockRestore())

  test.each(Object.entries(families))('%s', (_, cases) => compareCases(cases, 1), 60_000)

  test('every kernel of the table was in a case', () => {
    const recorded = new Set(lookUps.mock.calls.map(([kernel]) => kernel))
    expect([...lowerings.keys()].filter((kernel) => !recorded.has(kernel))).toEqual([])
  })
})
