// SPDX-License-Identifier: Apache-2.0
/**
 * Several servers as one. Server 0 leads: it says from which step all go on, in synchronous mode whose pushes make each
 * version, when to save, and when training is over. Followers are connected to it over connections that attest both sides, as
 * workers' do. When a server is lost, all go back to the newest step that every one of them has on disk.
 */
export interface GroupOptions {
  readonly servers: number
  readonly jobDigest: Uint8Array
  readonly placementDigest: Uint8Array
}

/** What a server has to go on from. */
export interface Holdings {
  /** Of intact checkpoints. */
  readonly steps: readonly number[]
  /** The newest step that it knows to have been on disk at every server; 0 when there is none. */
  readonly durableStep: number
}

/** One push of one worker: the pull that it consumed, of its session. */
export interface PushPlace {
  readonly worker: number
  readonly session: Uint8Array
  readonly pull: number
}

/** What the leader says, in its order. */
export type Command =
  | { readonly kind: 'round'; readonly baseVersion: number; readonly workers: readonly number[] }
  | { readonly kind: 'save'; readonly step: number }
  | { readonly kind: 'durable'; readonly step: number }
  | { readonly kind: 'complete'; readonly stopped: boolean }
