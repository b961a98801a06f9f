/**
 * Writes checkpoints whose content follows from their step, one after the other, and says so when each is durable: for tests that kill
 * it or let its files grow no further. `node checkpoint-writer.mjs DIRECTORY STEPS`, from the built program.
 */
import { writeSync } from 'node:fs'
import { CheckpointStore } from '../../dist/storage/checkpoint-store.js'
import { changedRows, contentOf, storeOptions } from './checkpoint-content.mjs'

const [directory, steps] = process.argv.slice(2)
const store = await CheckpointStore.open({
  ...storeOptions(directory),
  onRefused: ({ error }) => writeSync(1, `refused ${error.code}\n`),
})
for (let written = 0, since = store.steps.at(-1); written < Number(steps); written += 1) {
  const step = (since ?? -1) + 1
  try {
    await store.write({ ...contentOf(step), rows: changedRows(step), since })
    writeSync(1, `written ${step}\n`)
    since = step
  } catch (error) {
    writeSync(1, `failed ${error.code}\n`)
    break
  }
}
