/** A clock that stands still until the test moves it. */
import type { Clock } from '../../src/federation/clock.ts'

export class FakeClock implements Clock {
  #now = 0
  readonly #alarms = new Set<{ readonly at: number; readonly action: () => void }>()

  now(): number {
    return this.#now
  }

  after(delayMs: number, action: () => void): () => void {
    const alarm = { at: this.#now + delayMs, action }
    this.#alarms.add(alarm)
    return () => this.#alarms.delete(alarm)
  }

  /** Runs what falls due on the way, in order. */
  advance(byMs: number): void {
    const end = this.#now + byMs
    for (;;) {
      const [next] = [...this.#alarms].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)
      if (next === undefined) break
      this.#alarms.delete(next)
      this.#now = next.at
      next.action()
    }
    this.#now = end
  }

  get alarms(): number {
    return this.#alarms.size
  }
}
