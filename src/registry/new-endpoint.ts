// An endpoint at the moment of its creation: an id of its own, who made it and when. Nothing is served yet.
import type { Principal } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { newId } from './endpoint-config.ts';

export function newEndpoint(name: string, principal: Principal, nowMs: number): Endpoint {
  return {
    id: newId(),
    name,
    task: 'predict',
    servedEntities: [],
    routes: [],
    configVersion: 1,
    description: '',
    tags: [],
    creator: principal.name,
    ...(principal.kind === 'service_principal' ? { creatorKind: principal.kind } : {}),
    createdAtMs: nowMs,
    updatedAtMs: nowMs,
    isEmbedded: false,
  };
}
