// Those who wait for a replica without standing in the queue: requests whose replica was lost before they began, and
// who wants a model loaded. Whoever gives up waiting is forgotten.
import { type ServingError, toServingError } from '#core/errors.ts';

interface Waiter<T> {
  readonly resolve: (replica: T) => void;
  readonly reject: (error: ServingError) => void;
}

export class Waiting<T> {
  #waiters = new Set<Waiter<T>>();

  get size(): number {
    return this.#waiters.size;
  }

  add(signal?: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(toServingError(signal.reason, 'CANCELLED'));
      const waiter: Waiter<T> = {
        resolve: (replica) => {
          signal?.removeEventListener('abort', onAbort);
          resolve(replica);
        },
        reject: (error) => {
          signal?.removeEventListener('abort', onAbort);
          reject(error);
        },
      };
      const onAbort = () => {
        this.#waiters.delete(waiter);
        reject(toServingError(signal?.reason, 'CANCELLED'));
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  tell(replica: T): void {
    for (const waiter of this.#takeAll()) waiter.resolve(replica);
  }

  refuse(error: ServingError): void {
    for (const waiter of this.#takeAll()) waiter.reject(error);
  }

  #takeAll(): ReadonlySet<Waiter<T>> {
    const waiters = this.#waiters;
    this.#waiters = new Set();
    return waiters;
  }
}
