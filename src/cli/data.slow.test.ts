import { join } from 'node:path'
import { expect, test } from 'vitest'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { inspectData } from './data.ts'

requires('cifar10').describe('inspecting the real CIFAR-10', () => {
  test('shows its published channel means and even classes', async () => {
    const directory = join(sharedDirectory, 'data/cifar10')
    const { dataSource, files, parts } = await inspectData({ directory, json: true, write: () => {} })
    expect(dataSource).toBe('cifar-10')
    expect(files.map(({ official, records }) => [official, records])).toEqual(new Array(6).fill([true, 10_000]))
    expect(parts[0]!.channelMeans.map((mean) => mean.toFixed(4))).toEqual(['0.4914', '0.4822', '0.4465'])
    expect(Object.values(parts[1]!.labels)).toEqual(new Array(10).fill(1000))
  })
})
