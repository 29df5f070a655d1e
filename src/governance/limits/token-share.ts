// How much of the tokens that were asked for is really used. What serving asks for is an upper bound (a token is at
// least a byte, and the longest answer is assumed); a limit that counted it would admit a fraction of what it says.

/** Of the newest request in the mean, once there are enough. */
const WEIGHT = 0.05;
/** What is held back above the mean. */
const MARGIN = 1.25;

/** One for each endpoint: how long answers are is a matter of its use. */
export class TokenShare {
  /** Before anything is known, all that is asked. */
  #share = 1;
  #count = 0;

  /** The tokens to hold back for a request of at most `asked`. */
  estimate(asked: number): number {
    if (asked <= 0) return 0;
    return Math.ceil(asked * Math.min(1, this.#share * MARGIN));
  }

  /** Requests that came to nothing say nothing about length. */
  note(asked: number, actual: number): void {
    if (asked <= 0 || actual <= 0) return;
    this.#count += 1;
    this.#share += (Math.min(1, actual / asked) - this.#share) * Math.max(WEIGHT, 1 / this.#count);
  }
}
