// How fast a target has answered lately, for estimates. Nothing is decided by it.

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
