// SPDX-License-Identifier: Apache-2.0
/**
 * Events as Prometheus metrics (docs/metrics.md). Nothing but the numbers and names of events gets in, so whoever reads them, the
 * host included, learns no more than from the log. prom-client's default metrics stay off: an enclave does not have what they read.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { CloisterEvent } from './events.ts'

export interface Metrics {
  /** `process` is the process of the run that the event is of: `server`, `worker0`. */
  observe(process: string, event: CloisterEvent): void
  readonly contentType: string
  text(): Promise<string>
}

const secondsBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const stalenessBuckets = [0, 1, 2, 3, 5, 10, 20, 50, 100]

export function createMetrics({ now }: { now: () => Date }): Metrics {
  const registers = [new Registry()] as [Registry]
  const counter = <Label extends string = never>(name: string, help: string, ...labels: Label[]) =>
    new Counter<Label | 'process'>({ name: `cloister_${name}`, help, labelNames: ['process', ...labels], registers })
  const gauge = <Label extends string = never>(name: string, help: string, ...labels: Label[]) =>
    new Gauge<Label | 'process'>({ name: `cloister_${name}`, help, labelNames: ['process', ...labels], registers })
  const histogram = (name: string, help: string, buckets = secondsBuckets) =>
    new Histogram<'process'>({ name: `cloister_${name}`, help, labelNames: ['process'], buckets, registers })

  const process = gauge('process_info', 'What runs; always 1.', 'role', 'engine', 'job', 'platform')
  const failures = counter('failures_total', 'Failures that ended the process, by error code.', 'code')
  const warnings = counter('warnings_total', 'Warnings, by error code.', 'code')
  const finished = gauge('finished', 'Whether the training has finished: 1, else 0.')
  const modelStep = gauge('model_step', 'Updates of the model so far, those before a resumption included.')
  const loss = gauge('training_loss', 'Loss of the last update (server) or step (worker).')
  const learningRate = gauge('learning_rate', 'Learning rate of the last update.')
  const updates = counter('updates_total', 'Updates of the model applied by this process.')
  const contributions = counter('contributions_total', 'Gradients of one batch that updates were made of.')
  const examples = counter('examples_total', 'Training examples in what was applied (server) or computed (worker).')
  const applySeconds = histogram('update_apply_seconds', 'Time to aggregate and apply one update.')
  const staleness = histogram('update_staleness', 'Updates that came between pull and push.', stalenessBuckets)
  const refusals = counter('updates_refused_total', 'Gradients that were not applied, by error code.', 'code')
  const steps = counter('steps_total', 'Training steps computed by this worker.')
  const stepSeconds = histogram('step_seconds', 'Time of one iteration of a worker.')
  const computeSeconds = histogram('step_compute_seconds', 'Part of an iteration spent computing gradients.')
  const waitSeconds = histogram('step_wait_seconds', 'Part of an iteration spent waiting for the server.')
  const connected = gauge('peers_connected', 'Attested peers that take part now.')
  const joined = counter('peers_joined_total', 'Attested peers let in.')
  const left = counter('peers_left_total', 'Peers that left, by reason.', 'reason')
  const refused = counter('peers_refused_total', 'Peers not let in, by error code.', 'code')
  const lost = counter('connections_lost_total', 'Connections to the server lost, each attempt to reconnect included.')
  const sent = counter('sent_bytes_total', 'Bytes sent over connections that have ended.', 'peer')
  const received = counter('received_bytes_total', 'Bytes received over connections that have ended.', 'peer')
  const score = gauge('held_out_score', 'Last score on held-out data.', 'score')
  const scoredExamples = gauge('held_out_examples', 'Examples of the last held-out evaluation.')
  const scoredStep = gauge('held_out_step', 'Update that was evaluated last.')
  const saves = counter('saves_total', 'Files saved, by what they hold.', 'what')
  const savedAt = gauge('saved_timestamp_seconds', 'When such a file was saved last, since 1970.', 'what')
  const checkpoints = counter('checkpoints_total', 'Checkpoints made durable.')
  const checkpointStep = gauge('checkpoint_step', 'Update of the newest durable checkpoint.')
  const checkpointBytes = gauge('checkpoint_bytes', 'Bytes that the newest checkpoint wrote.')
  const checkpointSeconds = histogram('checkpoint_seconds', 'Time to make a checkpoint durable.')
  const resumptions = counter('resumptions_total', 'Times that training went on from saved state.')
  const reassignments = counter('shards_reassigned_total', 'Data shards moved to another worker.')
  const code = boundedNames(100)
  const peers = new Map<string, Set<string>>()
  const peersOf = (name: string): Set<string> => {
    const there = peers.get(name) ?? new Set()
    peers.set(name, there)
    return there
  }

  return {
    contentType: registers[0].contentType,
    text: () => registers[0].metrics(),
    observe(name, event) {
      const at = { process: name }
      switch (event.kind) {
        case 'process-started': {
          const { role, engine, job, platform } = event
          process.set({ ...at, role, engine, job, platform }, 1)
          finished.set(at, 0)
          break
        }
        case 'update':
          modelStep.set(at, event.step)
          loss.set(at, event.loss)
          learningRate.set(at, event.learningRate)
          updates.inc(at)
          contributions.inc(at, event.contributions)
          examples.inc(at, event.examples)
          applySeconds.observe(at, event.applyMs / 1000)
          staleness.observe(at, event.staleness)
          break
        case 'step':
          modelStep.set(at, event.step)
          loss.set(at, event.loss)
          steps.inc(at)
          examples.inc(at, event.examples)
          stepSeconds.observe(at, event.iterationMs / 1000)
          computeSeconds.observe(at, event.computeMs / 1000)
          waitSeconds.observe(at, event.waitMs / 1000)
          break
        case 'update-refused':
          refusals.inc({ ...at, code: code(event.error.code) })
          break
        case 'peer-joined':
          joined.inc(at)
          peersOf(name).add(event.peer)
          connected.set(at, peersOf(name).size)
          break
        case 'peer-left':
          left.inc({ ...at, reason: event.reason })
          // Who was replaced is still there, over another connection.
          if (event.reason !== 'replaced') peersOf(name).delete(event.peer)
          connected.set(at, peersOf(name).size)
          break
        case 'peer-refused':
          refused.inc({ ...at, code: code(event.error.code) })
          break
        case 'connection-lost':
          lost.inc(at)
          connected.set(at, 0)
          peersOf(name).clear()
          break
        case 'traffic':
          sent.inc({ ...at, peer: code(event.peer) }, event.bytesSent)
          received.inc({ ...at, peer: code(event.peer) }, event.bytesReceived)
          break
        case 'evaluation':
          for (const [scored, value] of Object.entries(event.scores)) score.set({ ...at, score: code(scored) }, value)
          scoredExamples.set(at, event.examples)
          scoredStep.set(at, event.step)
          break
        case 'saved':
          saves.inc({ ...at, what: event.what })
          savedAt.set({ ...at, what: event.what }, now().getTime() / 1000)
          break
        case 'checkpointed':
          checkpoints.inc(at)
          checkpointStep.set(at, event.step)
          checkpointBytes.set(at, event.bytes)
          checkpointSeconds.observe(at, event.ms / 1000)
          break
        case 'resumed':
          resumptions.inc(at)
          modelStep.set(at, event.step)
          break
        case 'reassigned':
          reassignments.inc(at)
          break
        case 'warning':
          warnings.inc({ ...at, code: code(event.error.code) })
          break
        case 'failed':
          failures.inc({ ...at, code: code(event.error.code) })
          break
        case 'finished':
          finished.set(at, 1)
          connected.set(at, 0)
          peersOf(name).clear()
          break
      }
    },
  }
}

/** Each label value is a time series for ever, and peers write some of them: after so many new ones all others are `other`. */
function boundedNames(most: number): (name: string) => string {
  const known = new Set<string>()
  return (name) => {
    if (!/^[A-Za-z0-9][\w.-]{0,63}$/.test(name)) return 'other'
    if (!known.has(name) && known.size >= most) return 'other'
    known.add(name)
    return name
  }
}
