import type { CheckpointContent, CheckpointStoreOptions } from '../../src/storage/checkpoint-store.ts'
import type { RowsBlock } from '../../src/storage/rows-block.ts'

export function storeOptions(directory: string): Omit<CheckpointStoreOptions, 'onRefused'>
export function changedRows(step: number): Generator<RowsBlock>
export function contentOf(step: number): Omit<CheckpointContent, 'rows'>
