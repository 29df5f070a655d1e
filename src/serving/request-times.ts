// How long the last requests to a target took, and the quantile of it. For hedging: what takes longer than nearly
// all before it is worth asking a second time.

const KEPT = 256;
/** Fewer say nothing about a tail. */
const ENOUGH = 20;
/** The order is worked out anew after so many more. */
const STALE_AFTER = 16;

export class RequestTimes {
  readonly #times = new Float64Array(KEPT);
  #count = 0;
  #sorted: Float64Array = new Float64Array(0);
  #sortedAt = 0;

  note(durationMs: number): void {
    this.#times[this.#count % KEPT] = durationMs;
    this.#count++;
  }

  /** Undefined until enough is known. */
  quantile(share: number): number | undefined {
    if (this.#count < ENOUGH) return undefined;
    if (this.#sortedAt === 0 || this.#count - this.#sortedAt >= STALE_AFTER) {
      this.#sorted = this.#times.slice(0, Math.min(this.#count, KEPT)).sort();
      this.#sortedAt = this.#count;
    }
    const at = Math.ceil(share * this.#sorted.length) - 1;
    return this.#sorted[Math.min(this.#sorted.length - 1, Math.max(0, at))];
  }
}
