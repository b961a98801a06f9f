// SPDX-License-Identifier: Apache-2.0
/** Reads job and deployment files: JSON, validated whole, unknown keys refused with their path. */
import { readFileSync } from 'node:fs'
import * as v from 'valibot'
import { CodedError } from '../errors.ts'
import { type Deployment, deploymentSchema } from './deployment.ts'
import { type Job, jobSchema } from './job.ts'

export class ConfigError extends CodedError<'config-unreadable' | 'config-not-json' | 'config-invalid'> {}

const maxConfigBytes = 1 << 20

/** `set` entries are `path.to.field=value`; the value is JSON, or a string where it is not JSON. */
export function loadJob(file: string, set: readonly string[] = []): Job {
  const value = readJson(file)
  for (const entry of set) applySetting(value, entry)
  return validate(jobSchema, value, file)
}

export function loadDeployment(file: string | undefined): Deployment {
  return validate(deploymentSchema, file === undefined ? {} : readJson(file), file ?? 'deployment')
}

function readJson(file: string): unknown {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new ConfigError('config-unreadable', `${file}: expected a readable file`, {
      hint: 'Check the path and its permissions.',
      cause,
    })
  }
  if (text.length > maxConfigBytes) {
    throw new ConfigError('config-invalid', `${file}: expected at most ${maxConfigBytes} bytes, got ${text.length}`, {
      hint: 'A job or deployment is a short JSON file; is this the right one?',
    })
  }
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new ConfigError('config-not-json', `${file}: expected JSON: ${(cause as Error).message}`, {
      hint: 'Correct the file; `cloister job schema` prints the JSON Schema for editors.',
      cause,
    })
  }
}

/** Parses `value` against `schema`; every problem is listed, each with its path. */
export function validate<Schema extends v.GenericSchema>(
  schema: Schema,
  value: unknown,
  source: string,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, value)
  if (result.success) return result.output
  const problems = result.issues.map((issue) => {
    const where = v.getDotPath(issue) ?? '(whole file)'
    if (issue.type === 'strict_object' && issue.expected === 'never') return `${where}: unknown key`
    return `${where}: ${issue.message}`
  })
  throw new ConfigError('config-invalid', `${source}: ${problems.join('; ')}`, {
    hint: 'Correct the named fields; docs/configuration.md lists all of them, `cloister job schema` prints the schema.',
  })
}

function applySetting(target: unknown, entry: string): void {
  const at = entry.indexOf('=')
  const refuse = (why: string): never => {
    throw new ConfigError('config-invalid', `--set ${entry}: ${why}`, {
      hint: 'Write --set training.updates=400, a path into the job file and a JSON value.',
    })
  }
  if (at <= 0) refuse('expected PATH=VALUE')
  const keys = entry.slice(0, at).split('.')
  const last = keys.pop() as string
  let node = target
  const enter = (key: string): Record<string, unknown> => {
    if (['__proto__', 'constructor', 'prototype'].includes(key)) refuse(`${key} is a reserved name`)
    if (typeof node !== 'object' || node === null || Array.isArray(node)) refuse(`${key}: its parent is not an object`)
    return node as Record<string, unknown>
  }
  for (const key of keys) {
    const parent = enter(key)
    if (parent[key] === undefined) parent[key] = {}
    node = parent[key]
  }
  enter(last)[last] = parseValue(entry.slice(at + 1))
}

function parseValue(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
