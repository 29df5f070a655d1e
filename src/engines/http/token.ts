// Access tokens that a provider wants in place of a key: asked for once, shared, renewed before they expire.
// Not here: what an identity provider wants to see for one (openai/entra.ts, vertex/account.ts).
import { setMaxListeners } from 'node:events';
import type { StreamEvent } from '#core/call.ts';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import { isJsonObject } from '#core/json.ts';
import { Connection } from './connection.ts';
import type { Secret } from './failures.ts';

/** A token is renewed this long before its end, or after four fifths of its life, whichever is later. */
const MARGIN_MS = 5 * 60_000;
const SHARE_OF_LIFE = 0.2;
/** RFC 6749 leaves `expires_in` optional. */
const LIFE_MS = 60 * 60_000;
const TIMEOUT_MS = 30_000;

export interface Token {
  readonly value: string;
  /** From now. */
  readonly lifeMs: number;
}

export class TokenSource {
  readonly #ask: () => Promise<Token>;
  readonly #clock: Clock;
  #value: string | undefined;
  #renewAtMs = 0;
  #asking: Promise<string> | undefined;

  constructor(ask: () => Promise<Token>, clock: Clock = SYSTEM_CLOCK) {
    this.#ask = ask;
    this.#clock = clock;
  }

  /** The token in use, or a new one. All who ask meanwhile wait for the same; one of them going away stops nobody. */
  async get(signal: AbortSignal): Promise<string> {
    throwIfAborted(signal);
    if (this.#value !== undefined && this.#clock.now() < this.#renewAtMs) return this.#value;
    this.#asking ??= this.#renew().finally(() => {
      this.#asking = undefined;
    });
    return untilAborted(this.#asking, signal);
  }

  /**
   * Does `work` with a token, and once more with a new one where the provider refused it with 401: it may have
   * been revoked before its time. A refused request costs nothing and is no second attempt at the model.
   */
  async with<T>(signal: AbortSignal, work: (token: string) => Promise<T>): Promise<T> {
    const token = await this.get(signal);
    try {
      return await work(token);
    } catch (thrown) {
      if (!isRefused(thrown)) throw thrown;
      this.#forget(token);
      return work(await this.get(signal));
    }
  }

  /** The same for a stream; its first event says that the token was good. */
  async *stream(
    signal: AbortSignal,
    work: (token: string) => AsyncIterable<StreamEvent>,
  ): AsyncGenerator<StreamEvent> {
    const token = await this.get(signal);
    let hasBegun = false;
    try {
      for await (const event of work(token)) {
        hasBegun = true;
        yield event;
      }
      return;
    } catch (thrown) {
      if (hasBegun || !isRefused(thrown)) throw thrown;
    }
    this.#forget(token);
    yield* work(await this.get(signal));
  }

  /** Many may be refused with the same token; only the first of them makes it ask anew. */
  #forget(value: string): void {
    if (this.#value === value) this.#value = undefined;
  }

  async #renew(): Promise<string> {
    const { value, lifeMs } = await this.#ask();
    this.#value = value;
    this.#renewAtMs = this.#clock.now() + lifeMs - Math.min(MARGIN_MS, lifeMs * SHARE_OF_LIFE);
    return value;
  }
}

export interface TokenQuestion {
  /** Who gives the token and for which model, for messages. */
  readonly provider: string;
  readonly model: string;
  readonly url: string;
  readonly form: Readonly<Record<string, string>>;
  readonly secret: Secret;
}

/** Asks a token endpoint of OAuth 2. It is asked about once an hour, so no connection is kept. */
export async function askToken({ provider, model, url, form, secret }: TokenQuestion): Promise<Token> {
  const connection = new Connection({
    provider,
    model,
    baseUrl: url,
    maxConcurrency: 1,
    timeoutMs: TIMEOUT_MS,
  });
  try {
    const answer = await connection.postJson({
      path: '',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams(form).toString(),
      // Not that of a caller: others wait for the same token. The connection has its own time limit.
      signal: new AbortController().signal,
      secret,
    });
    const token = isJsonObject(answer) ? answer : {};
    if (typeof token.access_token !== 'string' || token.access_token === '') {
      throw connection.invalid('no `access_token`');
    }
    const seconds = Number(token.expires_in);
    return { value: token.access_token, lifeMs: seconds > 0 ? seconds * 1000 : LIFE_MS };
  } catch (thrown) {
    throw asAuthFailure(thrown);
  } finally {
    await connection.close();
  }
}

/** Identity providers refuse wrong credentials with 400 as well as 401: nothing the caller sent is at fault. */
function asAuthFailure(thrown: unknown): unknown {
  if (!(thrown instanceof ServingError) || thrown.code !== 'UPSTREAM_REJECTED') return thrown;
  return new ServingError(
    'UPSTREAM_AUTH',
    `No access token was given. ${thrown.message} Check the credentials of the endpoint.`,
    { details: thrown.details, cause: thrown },
  );
}

function isRefused(thrown: unknown): boolean {
  return thrown instanceof ServingError && thrown.code === 'UPSTREAM_AUTH' && thrown.details.status === 401;
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    // One signal may stand over hundreds of requests at once; that is no leak.
    setMaxListeners(0, signal);
    const onAbort = () =>
      reject(new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal.reason }));
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
