// SPDX-License-Identifier: Apache-2.0
/** The cases of table.test.ts over many more samples, each seed shown so that a failure can be run again alone. */
import { test } from 'vitest'
import { families } from '../../../test/lowerings/cases.ts'
import { compareCases } from '../../../test/lowerings/differential.ts'
import { requires } from '../../../test/requirements.ts'

requires('tensorflow-library').describe('lowerings over many samples', () => {
  test.each(Object.entries(families))('%s', async (_, cases) => {
    for (let seed = 100; seed < 160; seed++) await compareCases(cases, seed)
  })
})
