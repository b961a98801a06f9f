// SPDX-License-Identifier: Apache-2.0
/** Events as lines for people. The reference system's `step: …, loss: …, iter time: …` is kept to the letter. */
import type { PublicError } from '../errors.ts'
import type { CloisterEvent, PeerEvidence } from './events.ts'

const seconds = (ms: number): string => (ms / 1000).toFixed(3)

/** One line without a line break; what a peer wrote is made printable so that it cannot forge log lines. */
export function formatEvent(event: CloisterEvent): string {
  return printable(describe(event))
}

function describe(event: CloisterEvent): string {
  switch (event.kind) {
    case 'process-started':
      return `started: ${event.role}, ${event.engine}, job ${event.job}, platform ${event.platform}`
    case 'listening':
      return `listening on ${event.address}`
    case 'metrics-served':
      return `metrics at http://${event.address}/metrics`
    case 'progress':
      return `${event.activity}: ${event.done} of ${event.total}`
    case 'peer-joined':
      return `${event.peer} joined: ${formatEvidence(event.evidence)}`
    case 'peer-left':
      return `${event.peer} left: ${event.reason}${event.error ? ` (${event.error.code}: ${event.error.message})` : ''}`
    case 'peer-refused':
      return `refused ${event.address}: ${event.error.code}: ${event.error.message}`
    case 'connection-lost':
      return `connection lost (${event.error.code}: ${event.error.message}), attempt ${event.attempt} in ${seconds(event.retryInMs)} s`
    case 'step':
      return `step: ${event.step}, loss: ${event.loss.toFixed(6)}, iter time: ${seconds(event.iterationMs)}`
    case 'update':
      return (
        `update: ${event.step}, loss: ${event.loss.toFixed(6)}, rate: ${event.learningRate.toPrecision(4)}, ` +
        `staleness: ${event.staleness}, contributions: ${event.contributions}, apply time: ${seconds(event.applyMs)}`
      )
    case 'update-refused':
      return `refused step ${event.step} of worker ${event.worker}: ${event.error.code}: ${event.error.message}`
    case 'traffic':
      return `traffic with ${event.peer}: ${event.bytesSent} bytes sent, ${event.bytesReceived} received`
    case 'evaluation':
      return `held out at step ${event.step}, ${event.examples} examples: ${formatScores(event.scores)}`
    case 'saved':
      return `saved ${event.what} of step ${event.step}: ${event.path}`
    case 'checkpointed':
      return `checkpoint of step ${event.step}: ${event.bytes} bytes in ${seconds(event.ms)} s`
    case 'resumed':
      return `resumed at step ${event.step}`
    case 'reassigned':
      return `data shard ${event.shard} moved from worker ${event.from} to worker ${event.to}`
    case 'exported':
      return `released ${event.path}: ${event.form}${event.form === 'age' ? ` for ${event.recipients}` : ''}`
    case 'key-awaited':
      return `waiting for an owner to hand over the key ${event.name}: cloister provision ${event.address}`
    case 'key-provisioned':
      return `key ${event.name} provisioned by owner ${event.owner}`
    case 'warning':
      return `WARNING ${formatError(event.error)}`
    case 'failed':
      return `FAILED ${formatError(event.error)}`
    case 'finished':
      return `finished: ${event.steps} steps, ${event.examples} examples in ${event.seconds.toFixed(1)} s`
  }
}

/** Most messages are phrases without a full stop; hints are sentences. */
function formatError({ code, message, hint }: PublicError): string {
  return `${code}: ${message}${/[.!?]$/.test(message) ? '' : '.'} ${hint}`
}

export function formatScores(scores: Readonly<Record<string, number>>): string {
  return Object.entries(scores)
    .map(([name, value]) => `${name} ${value.toFixed(4)}`)
    .join(', ')
}

export function formatEvidence(evidence: PeerEvidence): string {
  const parts = [evidence.platform]
  if (evidence.mrEnclave !== undefined) parts.push(`MRENCLAVE ${evidence.mrEnclave}`)
  if (evidence.tcbStatus !== undefined) parts.push(`TCB ${evidence.tcbStatus}`)
  if (evidence.advisories !== undefined && evidence.advisories.length > 0) parts.push(evidence.advisories.join(' '))
  parts.push(evidence.detail)
  return parts.filter((part) => part !== '').join(', ')
}

function printable(text: string): string {
  // biome's control-character rule is about regular expressions; code points say it as well.
  return Array.from(text, (character) => {
    const code = character.codePointAt(0) as number
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code === 0x2028 || code === 0x2029 ? '\ufffd' : character
  }).join('')
}
