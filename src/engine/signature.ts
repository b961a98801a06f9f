// SPDX-License-Identifier: Apache-2.0
/**
 * What is checked before an engine sees a value: native code trusts its caller with sizes, so nothing whose length, shape,
 * element type or name differs from what the program declared gets further than this.
 */
import type { ElementType, HostTensor, Signature, TensorSpec, TypedArray } from './engine.ts'
import { EngineError } from './engine-error.ts'

const arrays = { float32: Float32Array, bfloat16: Uint16Array, int32: Int32Array, uint8: Uint8Array } as const

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}

export function bytesOf({ shape, dtype }: TensorSpec): number {
  return elementCount(shape) * arrays[dtype].BYTES_PER_ELEMENT
}

/** Elements of `dtype` over the bytes of `buffer`, which it does not copy. */
export function viewOf(dtype: ElementType, buffer: ArrayBuffer): TypedArray {
  return new arrays[dtype](buffer)
}

export function describeSpec({ shape, dtype }: TensorSpec): string {
  return `${dtype}[${shape.join(', ')}]`
}

/** That `shape` is a shape at all, and that `data`, where given, fills it exactly with its element type. */
export function checkTensor(spec: TensorSpec, data?: TypedArray): void {
  const hint = 'Give non-negative whole dimensions, and as many elements of the element type as they multiply to.'
  if (!spec.shape.every((size) => Number.isSafeInteger(size) && size >= 0) || arrays[spec.dtype] === undefined)
    throw new EngineError('tensor-size', `${describeSpec(spec)} is not the description of a tensor`, { hint })
  if (data !== undefined && !holds(spec, data))
    throw new EngineError('tensor-size', `${describeSpec(spec)} cannot be filled from ${describeData(data)}`, { hint })
}

export function checkInputs(program: string, expected: Signature, inputs: Readonly<Record<string, HostTensor>>): void {
  const hint = `Give exactly the inputs that '${program}' was compiled for: ${Object.keys(expected).join(', ') || 'none'}.`
  const refuse = (message: string): never => {
    throw new EngineError('program-input', `Program '${program}': ${message}`, { hint })
  }
  for (const name of Object.keys(inputs)) if (!Object.hasOwn(expected, name)) refuse(`there is no input '${name}'`)
  for (const [name, spec] of Object.entries(expected)) {
    if (!Object.hasOwn(inputs, name)) refuse(`input '${name}' (${describeSpec(spec)}) is missing`)
    const input = inputs[name]!
    if (input.dtype !== spec.dtype || !sameShape(input.shape, spec.shape))
      refuse(`input '${name}' must be ${describeSpec(spec)}, got ${describeSpec(input)}`)
    if (!holds(spec, input.data))
      refuse(`input '${name}' is ${describeSpec(spec)} but its data is ${describeData(input.data)}`)
  }
}

/** The outputs to compute, in a fixed order. */
export function selectOutputs(program: string, known: readonly string[], wanted?: readonly string[]): string[] {
  if (wanted === undefined) return [...known]
  for (const name of wanted)
    if (!known.includes(name))
      throw new EngineError('program-output', `Program '${program}' has no output '${name}'`, {
        hint: `Its outputs are: ${known.join(', ')}.`,
      })
  return known.filter((name) => wanted.includes(name))
}

function holds(spec: TensorSpec, data: TypedArray): boolean {
  return data instanceof arrays[spec.dtype] && data.length === elementCount(spec.shape)
}

function describeData(data: TypedArray): string {
  return `${data?.constructor?.name ?? typeof data} of ${data?.length ?? 'unknown'} elements`
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis])
}
