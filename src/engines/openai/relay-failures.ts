// What went wrong with a request that was passed on, in the words of every other engine. Not here: refusals of the
// provider itself (http/failures.ts).
import { ServingError } from '#core/errors.ts';
import type { WireFailure } from '../http/wire/failure.ts';

/** Who was asked. */
export interface AskedProvider {
  readonly provider: string;
  readonly model: string;
  readonly origin: string;
  readonly timeoutMs: number;
}

export function invalidAnswer({ provider, model }: AskedProvider, what: string): ServingError {
  return new ServingError(
    'INVALID_RESPONSE',
    `${provider} model "${model}" answered with ${what}. Try again, or check that the base URL is that of a compatible API.`,
    { details: { provider, model } },
  );
}

export function cutStream({ provider, model }: AskedProvider): ServingError {
  return new ServingError(
    'UPSTREAM_ERROR',
    `The stream of ${provider} model "${model}" was cut before its end. Try again.`,
    { details: { provider, model } },
  );
}

export function wireError(asked: AskedProvider, failure: WireFailure): ServingError {
  const { provider, model, origin, timeoutMs } = asked;
  const options = { cause: failure, details: { provider, model } };
  if (failure.reason === 'late') {
    return new ServingError(
      'TIMEOUT',
      `${provider} model "${model}" did not answer within ${timeoutMs} ms. Ask for less, or raise the timeout of the endpoint.`,
      options,
    );
  }
  if (failure.reason === 'aborted') return new ServingError('CANCELLED', 'The call was cancelled.', options);
  if (failure.reason === 'broken') {
    return new ServingError(
      'UPSTREAM_ERROR',
      `The connection to ${provider} at ${origin} failed (${failure.message}). Check that the server is up and the base URL is right.`,
      options,
    );
  }
  return new ServingError(
    'UPSTREAM_ERROR',
    `${provider} at ${origin} answered with ${failure.message}, which is not HTTP as it should be. Check what stands between here and the provider.`,
    options,
  );
}
