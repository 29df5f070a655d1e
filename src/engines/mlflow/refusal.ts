// Words for an MLmodel that cannot be used.
import { ServingError } from '#core/errors.ts';

export function invalid(path: string, reason: string, cause?: unknown): ServingError {
  return new ServingError('INVALID_PARAMETER', `${path} cannot be used: ${reason}.`, { cause });
}

/** A value for a message, cut. */
export function show(value: unknown): string {
  return value === undefined ? 'missing' : (JSON.stringify(value) ?? String(value)).slice(0, 80);
}
