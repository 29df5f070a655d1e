// Ctrl-C during a statement: the first cancels it, the second ends the program.
import { ServingError } from '#core/errors.ts';
import type { Signals } from './deps.ts';

export interface Cancellation {
  readonly signal: AbortSignal;
  /** Stops listening. Exactly once, when the work is over. */
  dispose(): void;
}

export function cancelOnInterrupt(signals: Signals): Cancellation {
  const controller = new AbortController();
  const onInterrupt = () => {
    // Without a listener the next interrupt ends the process: the default of the system.
    signals.off('SIGINT', onInterrupt);
    controller.abort();
  };
  signals.on('SIGINT', onInterrupt);
  return { signal: controller.signal, dispose: () => signals.off('SIGINT', onInterrupt) };
}

/** What fails after an interrupt failed because of it, whatever DuckDB or a provider calls that. */
export async function orCancelled<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
    throw new ServingError('CANCELLED', 'The statement was cancelled.', { cause: thrown });
  }
}
