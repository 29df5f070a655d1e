// Why an exchange with a provider failed, below any provider's words: the engine makes a ServingError of it.

export type WireReason =
  /** No connection, or it broke before the answer was complete. */
  | 'broken'
  /** Nothing came within the time. */
  | 'late'
  /** What came is not HTTP as it is written down. */
  | 'malformed'
  /** A head or a body is over the limit. */
  | 'too-large'
  /** We gave up on it: the caller went away or the pool was closed. */
  | 'aborted';

export class WireFailure extends Error {
  readonly reason: WireReason;

  constructor(reason: WireReason, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'WireFailure';
    this.reason = reason;
  }
}

export function malformed(what: string): WireFailure {
  return new WireFailure('malformed', what);
}
