// SPDX-License-Identifier: Apache-2.0
/** Between the generated message types of proto/cloister/v1/federation.proto and ours. */
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { FederationError } from '../federation-error.ts'
import type { Manifest, TensorRole } from '../manifest.ts'
import {
  type ServerMessage,
  ServerMessageSchema,
  type Tensor,
  TensorRole as WireRole,
  type WorkerMessage,
  WorkerMessageSchema,
} from './gen/cloister/v1/federation_pb.ts'

export type { ServerMessage, WorkerMessage }

export const protocolVersion = 3
export const digestBytes = 32
export const sessionBytes = 16

export function serverMessage(
  message: NonNullable<MessageInitShape<typeof ServerMessageSchema>['message']>,
): ServerMessage {
  return create(ServerMessageSchema, { message })
}

export function workerMessage(
  message: NonNullable<MessageInitShape<typeof WorkerMessageSchema>['message']>,
): WorkerMessage {
  return create(WorkerMessageSchema, { message })
}

/** Message kind → its content. */
export type WorkerMessages = { [M in Extract<WorkerMessage['message'], { case: string }> as M['case']]: M['value'] }
export type ServerMessages = { [M in Extract<ServerMessage['message'], { case: string }> as M['case']]: M['value'] }

const wireRoles = {
  weight: WireRole.WEIGHT,
  unregularised: WireRole.UNREGULARISED,
  statistic: WireRole.STATISTIC,
} as const satisfies Record<TensorRole, WireRole>

export function manifestToWire(manifest: Manifest): { name: string; shape: number[]; role: WireRole }[] {
  return manifest.map(({ name, shape, role }) => ({ name, shape: [...shape], role: wireRoles[role] }))
}

export function manifestFromWire(tensors: readonly Tensor[]): Manifest {
  return tensors.map(({ name, shape, role }) => {
    const own = (Object.keys(wireRoles) as TensorRole[]).find((key) => wireRoles[key] === role)
    if (own === undefined) {
      throw new FederationError('tensor-role-mismatch', `${name}: expected a known role, got ${role}`, {
        hint: 'The peer runs another version of Cloister.',
      })
    }
    return { name, shape, role: own, elements: shape.reduce((a, b) => a * b, 1) }
  })
}

export function unexpected(expected: string, got: string | undefined): FederationError {
  return new FederationError('message-unexpected', `expected ${expected}, got ${got ?? 'a message of unknown kind'}`, {
    hint: 'The peer does not follow the protocol: compare its version with ours.',
  })
}
