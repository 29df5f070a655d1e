// What was tried for a call, for the message of one that ran out of time: who was asked how often, and what the
// last failure of each was. It decides nothing.
import type { Target } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';

interface Station {
  readonly servedEntity: string;
  requests: number;
  error: ServingError | undefined;
}

export class Trail {
  readonly #stations: Station[] = [];

  asked({ servedEntity }: Target): void {
    const known = this.#stations.find((station) => station.servedEntity === servedEntity);
    if (known) known.requests++;
    else this.#stations.push({ servedEntity, requests: 1, error: undefined });
  }

  failed({ servedEntity }: Target, error: ServingError): void {
    const known = this.#stations.find((station) => station.servedEntity === servedEntity);
    if (known) known.error = error;
    else this.#stations.push({ servedEntity, requests: 0, error });
  }

  /** E.g. "'gpt' was asked 2 times (last: RATE_LIMITED), 'claude' once (no answer yet)". */
  describe(): string {
    if (this.#stations.length === 0) return 'nothing was sent, it waited for its turn';
    return this.#stations
      .map(({ servedEntity, requests, error }) => {
        const times =
          requests === 0 ? 'not asked' : requests === 1 ? 'asked once' : `asked ${requests} times`;
        return `'${servedEntity}' was ${times} (${error ? `last: ${error.code}` : 'no answer yet'})`;
      })
      .join(', ');
  }
}
