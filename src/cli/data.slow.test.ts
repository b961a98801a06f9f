import { join } from 'node:path'
import { expect, test } from 'vitest'
import { requires, sharedDirectory } from '../../test/requirements.ts'
import { fetchData, inspectData } from './data.ts'

requires('cifar10').describe('the real CIFAR-10', () => {
  const directory = join(sharedDirectory, 'data/cifar10')

  test('is known by its contents, and shows its published channel means and even classes', async () => {
    const { dataSource, files, parts } = await inspectData({ directory, json: true, write: () => {} })
    expect(dataSource).toBe('cifar-10')
    expect(files.map(({ official, records }) => [official, records])).toEqual(new Array(6).fill([true, 10_000]))
    expect(parts[0]!.channelMeans.map((mean) => mean.toFixed(4))).toEqual(['0.4914', '0.4822', '0.4465'])
    expect(Object.values(parts[1]!.labels)).toEqual(new Array(10).fill(1000))
  })

  test('is not fetched again', async () => {
    const options = { cacheDirectory: directory, directory, address: 'http://127.0.0.1:1/' }
    const outputs: string[] = []
    for (const json of [false, true]) await fetchData({ ...options, json, write: (text) => outputs.push(text) })
    expect(outputs[0]).toBe(`CIFAR-10, all files as published, in ${directory}\n`)
    expect(JSON.parse(outputs[1]!)).toEqual({ dataSource: 'cifar-10', directory })
  })
})
