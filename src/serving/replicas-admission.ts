// Calls that wait for a model to be opened the first time, when there is no queue yet that could count them.
// They share one opening; more of them than may wait are refused.

export class Admission {
  /** How many inputs each of them still waits with: callers who went away count no more. */
  readonly #waiting = new Set<() => number>();

  get waiting(): number {
    let waiting = 0;
    for (const count of this.#waiting) waiting += count();
    return waiting;
  }

  async wait<T>(opening: Promise<T>, count: () => number): Promise<T> {
    this.#waiting.add(count);
    try {
      return await opening;
    } finally {
      this.#waiting.delete(count);
    }
  }
}
