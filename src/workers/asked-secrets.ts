// Secrets in a gateway: asked from the primary when they are first needed, kept in memory until one of them changes,
// never written anywhere. Whoever needs one that is not here yet leaves the call to the primary.
import type { Clock } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';

/** One that does not exist is not asked for again before this time is over. */
const ASK_AGAIN_MS = 1_000;

export class AskedSecrets {
  readonly #ask: (reference: string) => void;
  readonly #clock: Clock;
  readonly #values = new Map<string, string>();
  /** By reference: when it may be asked for again. */
  readonly #asked = new Map<string, number>();

  constructor(ask: (reference: string) => void, clock: Clock) {
    this.#ask = ask;
    this.#clock = clock;
  }

  /** Throws SECRET_NOT_FOUND where it is not here. */
  resolve(reference: string): string {
    const value = this.#values.get(reference);
    if (value !== undefined) return value;
    const nowMs = this.#clock.now();
    if (nowMs >= (this.#asked.get(reference) ?? 0)) {
      this.#asked.set(reference, nowMs + ASK_AGAIN_MS);
      this.#ask(reference);
    }
    throw new ServingError('SECRET_NOT_FOUND', 'This process does not have the secret.');
  }

  take(reference: string, value: string | null): void {
    if (value === null) return;
    this.#values.set(reference, value);
    this.#asked.delete(reference);
  }

  forget(): void {
    this.#values.clear();
    this.#asked.clear();
  }
}
