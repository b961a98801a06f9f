// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest'
import type { PublicError } from '../errors.ts'
import { openEngine } from './select.ts'

const unexpected = (warning: PublicError) => expect.unreachable(warning.message)

describe('choice of engine', () => {
  const nowhere = { directory: '/nonexistent/engine', threads: 1 }

  test('auto falls back to JavaScript with a warning that says how to do better', () => {
    const warnings: unknown[] = []
    const engine = openEngine({ ...nowhere, choice: 'auto', onWarning: (warning) => warnings.push(warning) })
    expect(engine.kind).toBe('javascript')
    expect(warnings).toEqual([
      {
        code: 'engine-fallback',
        message: expect.stringContaining('/nonexistent/engine'),
        hint: expect.stringContaining('cloister engine install'),
      },
    ])
  })

  test('tensorflow never falls back', () => {
    const open = () => openEngine({ ...nowhere, choice: 'tensorflow', onWarning: unexpected })
    expect(open).toThrow(expect.objectContaining({ code: 'engine-missing' }))
  })

  test('javascript needs no library', () => {
    expect(openEngine({ ...nowhere, choice: 'javascript', onWarning: unexpected }).kind).toBe('javascript')
  })
})
