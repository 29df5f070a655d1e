// The options of a registered version that is an agent in JavaScript: what they are called and what they may be.
import type { ModelVersion } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

export interface ModuleOptions {
  /** Calls in one thread at once. They share it: an agent that waits for others lets the next one work. */
  readonly maxConcurrency: number;
  readonly timeoutSeconds: number;
  readonly startSeconds: number;
  /** A thread that does not come to itself for so long while it has calls is ended: it is in a loop. */
  readonly stallSeconds: number;
  /** Heap of the thread, in MB. */
  readonly memoryMb: number;
}

/** Throws INVALID_PARAMETER that names the option, shows the value and says what it must be. */
export function moduleOptionsOf({ options }: Pick<ModelVersion, 'options'>): ModuleOptions {
  const read = (name: string, least: number, most: number, fallback: number, isWhole = false): number => {
    const value = options[name];
    if (value === undefined || value === null) return fallback;
    // Numbers come as text from a command line.
    const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
    const fits = typeof number === 'number' && number >= least && number <= most;
    if (fits && (!isWhole || Number.isInteger(number))) return number;
    throw new ServingError(
      'INVALID_PARAMETER',
      `The option ${name} of the agent is ${JSON.stringify(value).slice(0, 120)}; it must be a ${isWhole ? 'whole ' : ''}number from ${least} to ${most}.`,
    );
  };
  return {
    maxConcurrency: read('maxConcurrency', 1, 10_000, 128, true),
    timeoutSeconds: read('timeoutSeconds', 0.01, 86_400, 300),
    startSeconds: read('startSeconds', 0.01, 3_600, 60),
    stallSeconds: read('stallSeconds', 0.01, 3_600, 10),
    memoryMb: read('memoryMb', 16, 1_000_000, 512, true),
  };
}
