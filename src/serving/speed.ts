// How fast a target has answered lately: for estimates, and for who may still wait when many do.

const WEIGHT = 0.2;

export class Speed {
  #requestMs: number | undefined;
  #inputsPerRequest = 1;

  note(inputs: number, durationMs: number): void {
    if (this.#requestMs === undefined) {
      this.#requestMs = durationMs;
      this.#inputsPerRequest = inputs;
      return;
    }
    this.#requestMs += WEIGHT * (durationMs - this.#requestMs);
    this.#inputsPerRequest += WEIGHT * (inputs - this.#inputsPerRequest);
  }

  /** A request was given up after so long; had it been answered, it would have taken longer. */
  noteAtLeast(durationMs: number): void {
    if (durationMs > (this.#requestMs ?? 0)) this.note(this.#inputsPerRequest, durationMs);
  }

  /** Mean time of one request; undefined until something was answered. */
  get requestMs(): number | undefined {
    return this.#requestMs;
  }

  /** Until a place is free behind so many inputs; 0 until something was answered. Requests grow with the crowd. */
  waitMs(inputsAhead: number, limit: number, maxInputs: number): number {
    const inputsPerRequest = Math.max(1, Math.min(maxInputs, 2 * this.#inputsPerRequest));
    return ((this.#requestMs ?? 0) * Math.ceil(inputsAhead / inputsPerRequest)) / Math.max(1, limit);
  }

  /** Null until something was answered. */
  secondsFor(inputs: number, requestsInFlight: number, maxInputs: number): number | null {
    if (this.#requestMs === undefined) return null;
    // One request may have carried few inputs because few waited; a large call fills its requests.
    const msPerInput = this.#requestMs / Math.max(1, this.#inputsPerRequest);
    const requests = Math.ceil(inputs / Math.max(1, maxInputs));
    const parallel = Math.max(1, Math.min(requestsInFlight, requests));
    return (inputs * msPerInput) / parallel / 1000;
  }
}
