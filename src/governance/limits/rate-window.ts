// What was admitted in the last 60 seconds, and what is owed beyond it. Exact: in no window of 60 seconds is more
// admitted than the limit. Knows numbers only: neither who asks nor what is counted.

export const WINDOW_MS = 60_000;
/**
 * What is admitted in one tenth of a second is one entry, which counts until the last of it is 60 seconds old.
 * A caller that uses all of its limit therefore waits at most this much longer than it had to, and a window has at
 * most 601 entries whatever its limit.
 */
const BUCKET_MS = 100;
const NEVER = Number.POSITIVE_INFINITY;

/** Times must not go back (see `SteadyTime`). */
export class RateWindow {
  #limit: number;
  /** Amount leased out and neither used nor given back: it counts like what was admitted. */
  #held = 0;
  /** Used beyond the limit. It is admitted, and counts for 60 seconds, as earlier amounts leave the window. */
  #debt = 0;
  #sum = 0;
  #expiries: number[] = [];
  #amounts: number[] = [];
  #head = 0;
  /** Number of the entry at the head: entries have numbers that stay when those before them expire. */
  #headNumber = 0;
  /** Of the head: most looks need nothing else. */
  #nextExpiry = NEVER;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get limit(): number {
    return this.#limit;
  }

  set limit(limit: number) {
    this.#limit = limit;
  }

  get held(): number {
    return this.#held;
  }

  get debt(): number {
    return this.#debt;
  }

  /** In the window now; at most the limit, unless the limit was lowered. */
  used(now: number): number {
    this.#advance(now);
    return this.#sum;
  }

  isIdle(now: number): boolean {
    this.#advance(now);
    return this.#sum === 0 && this.#debt === 0 && this.#held === 0;
  }

  /** An amount over the limit fits into an empty window, and the minutes after it pay for the rest. */
  fits(now: number, amount: number): boolean {
    this.#advance(now);
    return this.#fitsBeside(this.#held, amount);
  }

  /** What leases that are given back could still make room for. */
  couldFit(now: number, amount: number): boolean {
    this.#advance(now);
    return this.#fitsBeside(0, amount);
  }

  #fitsBeside(held: number, amount: number): boolean {
    if (amount <= 0) return true;
    if (this.#limit <= 0 || this.#debt > 0) return false;
    return this.#sum + held + Math.min(amount, this.#limit) <= this.#limit;
  }

  /** Would there still be room for `claimed` at a later moment if `amount` were admitted now? */
  leavesRoom(now: number, amount: number, atMs: number, claimed: number): boolean {
    this.#advance(now);
    let used = this.#held + this.#debt + amount + Math.min(claimed, this.#limit);
    for (let index = this.#head; index < this.#amounts.length; index += 1) {
      if ((this.#expiries[index] ?? 0) > atMs) used += this.#amounts[index] ?? 0;
    }
    return used <= this.#limit;
  }

  /** How much could be admitted at once. */
  room(now: number): number {
    this.#advance(now);
    return this.#debt > 0 ? 0 : Math.max(0, this.#limit - this.#sum - this.#held);
  }

  /** Admits, also what does not fit (that is owed). Gives the number of the entry, for `refund`. */
  charge(now: number, amount: number): number {
    this.#advance(now);
    const admitted = Math.max(0, Math.min(amount, this.#limit - this.#sum - this.#held));
    this.#debt += amount - admitted;
    return this.#push(now, admitted);
  }

  /** Takes back what was charged and not used; what has left the window is not given back. */
  refund(number: number, amount: number): void {
    const index = this.#head + number - this.#headNumber;
    if (index < this.#head) return;
    const forgiven = Math.min(this.#debt, amount);
    this.#debt -= forgiven;
    const returned = Math.min(amount - forgiven, this.#amounts[index] ?? 0);
    this.#amounts[index] = (this.#amounts[index] ?? 0) - returned;
    this.#sum -= returned;
  }

  hold(amount: number): void {
    this.#held += amount;
  }

  release(amount: number): void {
    this.#held -= amount;
  }

  /** When the amount will fit if nothing else is admitted; Infinity where only a lease or nothing makes room. */
  fitsAt(now: number, amount: number): number {
    this.#advance(now);
    if (this.#limit <= 0 || !this.#fitsEver(amount)) return NEVER;
    let missing = this.#debt + this.#sum + this.#held + Math.min(amount, this.#limit) - this.#limit;
    if (missing <= 0) return now;
    let at = now;
    // Each round trip of the window pays one limit of what is owed.
    const rounds = Math.floor((missing - 1) / this.#limit);
    missing -= rounds * this.#limit;
    for (let index = this.#head; index < this.#amounts.length && missing > 0; index += 1) {
      missing -= this.#amounts[index] ?? 0;
      at = this.#expiries[index] ?? at;
    }
    return at + rounds * WINDOW_MS;
  }

  #fitsEver(amount: number): boolean {
    return this.#held + Math.min(amount, this.#limit) <= this.#limit;
  }

  #advance(now: number): void {
    if (now < this.#nextExpiry && this.#debt === 0) return;
    while (this.#nextExpiry <= now) {
      const at = this.#nextExpiry;
      this.#sum -= this.#amounts[this.#head] ?? 0;
      this.#head += 1;
      this.#headNumber += 1;
      this.#nextExpiry = this.#head < this.#expiries.length ? (this.#expiries[this.#head] ?? NEVER) : NEVER;
      if (this.#debt > 0) this.#pay(at);
    }
    if (this.#debt > 0) this.#pay(now);
    if (this.#head > 32 && this.#head * 2 > this.#amounts.length) this.#compact();
  }

  #pay(at: number): void {
    const paid = Math.min(this.#debt, this.#limit - this.#sum - this.#held);
    if (paid <= 0) return;
    this.#debt -= paid;
    this.#push(at, paid);
  }

  #push(now: number, amount: number): number {
    const expiry = (Math.floor(now / BUCKET_MS) + 1) * BUCKET_MS + WINDOW_MS;
    const last = this.#amounts.length - 1;
    this.#sum += amount;
    if (last >= this.#head && (this.#expiries[last] ?? 0) >= expiry) {
      this.#amounts[last] = (this.#amounts[last] ?? 0) + amount;
      return this.#headNumber + last - this.#head;
    }
    if (last < this.#head) this.#nextExpiry = expiry;
    this.#expiries.push(expiry);
    this.#amounts.push(amount);
    return this.#headNumber + last + 1 - this.#head;
  }

  #compact(): void {
    this.#expiries = this.#expiries.slice(this.#head);
    this.#amounts = this.#amounts.slice(this.#head);
    this.#head = 0;
  }
}
