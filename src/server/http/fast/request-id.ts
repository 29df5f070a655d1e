// The id of a request that has begun on the short way and is answered on the long one: all its usage rows share it.
import type { IncomingMessage } from 'node:http';

const ids = new WeakMap<object, string>();

export function keepRequestId(incoming: IncomingMessage, requestId: string): void {
  ids.set(incoming, requestId);
}

/** Undefined where the request has none yet. */
export function keptRequestId(incoming: object | undefined): string | undefined {
  return incoming === undefined ? undefined : ids.get(incoming);
}
