// First in, first out, in constant time. An array with a moving head: `Array.shift` costs its whole length.

export class Fifo<T> {
  #items: T[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  peek(): T | undefined {
    return this.#items[this.#head];
  }

  shift(): T | undefined {
    if (this.length === 0) return undefined;
    const item = this.#items[this.#head];
    this.#head++;
    // Dropped only when half of the array is dead, so each item is moved at most once on average.
    if (this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  /** Drops what does not fit, in one walk. */
  retain(fits: (item: T) => boolean): void {
    this.#items = this.#items.slice(this.#head).filter(fits);
    this.#head = 0;
  }

  /** Takes everything out. */
  clear(): T[] {
    const items = this.#items.slice(this.#head);
    this.#items = [];
    this.#head = 0;
    return items;
  }
}
