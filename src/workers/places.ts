// The places that a provider has (`maxConcurrency`), shared out among the primary and its gateways so that all of them
// together never use more. Whoever does not ask a target holds no place of it: the primary has all of them until a
// gateway asks, and lends them one by one as they become free. Each ends up with an equal part.
import type { Clock } from '#core/clock.ts';
import type { TargetQueue } from '#serving/target-queue.ts';

/** How often the primary looks whether places that it owes have become free. */
const LOOK_MS = 20;
/** A gateway gives its places back when it was found idle this many times in a row. */
const IDLE_LOOKS = 3;
const IDLE_LOOK_MS = 5_000;

/** `isAll`: nothing more follows. */
export interface LentPlaces {
  readonly key: string;
  readonly places: number;
  readonly isAll: boolean;
}

/** One gateway, as the primary sees it. */
export interface PlaceBorrower {
  ask(key: string, most: number): void;
  giveBack(key: string): void;
  /** It has ended, and its connections with it. */
  close(): void;
}

type Tell = (lent: LentPlaces) => void;
type Queue = Pick<TargetQueue, 'capAt' | 'depth' | 'runner'>;

interface Shared {
  readonly most: number;
  /** Of the primary; undefined while it has not opened the target. */
  queue: Queue | undefined;
  /** By gateway: what it has, and what it is to have. */
  readonly lent: Map<Tell, { has: number; readonly share: number }>;
}

export class PlaceOwner {
  readonly #parts: number;
  readonly #clock: Clock;
  readonly #shared = new Map<string, Shared>();
  readonly #closing = new AbortController();
  #isLooking = false;

  constructor(gateways: number, clock: Clock) {
    this.#parts = gateways + 1;
    this.#clock = clock;
  }

  /** A target that the primary has opened. */
  add(key: string, queue: Queue): void {
    const shared = this.#sharedOf(key, queue.runner.limits.maxConcurrency);
    shared.queue = queue;
    this.#cap(shared);
  }

  connect(tell: Tell): PlaceBorrower {
    return {
      ask: (key, most) => {
        const shared = this.#sharedOf(key, most);
        const share = Math.floor(shared.most / this.#parts);
        if (shared.lent.has(tell)) return;
        shared.lent.set(tell, { has: 0, share });
        this.#cap(shared);
        if (!this.#lend(key, shared)) void this.#look();
      },
      giveBack: (key) => this.#takeBack(this.#shared.get(key), tell),
      close: () => {
        for (const shared of this.#shared.values()) this.#takeBack(shared, tell);
      },
    };
  }

  close(): void {
    this.#closing.abort();
  }

  #sharedOf(key: string, most: number): Shared {
    let shared = this.#shared.get(key);
    if (!shared) this.#shared.set(key, (shared = { most, queue: undefined, lent: new Map() }));
    return shared;
  }

  #takeBack(shared: Shared | undefined, tell: Tell): void {
    if (shared?.lent.delete(tell)) this.#cap(shared);
  }

  /** The primary begins nothing above what will be left to it, so that what is owed becomes free. */
  #cap({ most, queue, lent }: Shared): void {
    let owed = 0;
    for (const { share } of lent.values()) owed += share;
    queue?.capAt(most - owed);
  }

  /** Lends what is free. True when nothing is owed any more. */
  #lend(key: string, { most, queue, lent }: Shared): boolean {
    let free = most - (queue?.depth.inFlight ?? 0);
    for (const { has } of lent.values()) free -= has;
    let isAll = true;
    for (const [tell, each] of lent) {
      const more = Math.max(0, Math.min(each.share - each.has, free));
      if (each.has + more < each.share) isAll = false;
      if (more === 0) continue;
      each.has += more;
      free -= more;
      tell({ key, places: each.has, isAll: each.has === each.share });
    }
    return isAll;
  }

  async #look(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      for (let isAll = false; !isAll; ) {
        await this.#clock.sleep(LOOK_MS, this.#closing.signal);
        isAll = true;
        for (const [key, shared] of this.#shared) if (!this.#lend(key, shared)) isAll = false;
      }
    } catch {
      // Closed.
    } finally {
      this.#isLooking = false;
    }
  }
}

interface Borrowed {
  queue: Queue;
  places: number;
  state: 'none' | 'asked' | 'whole';
  idleLooks: number;
}

/** The side of a gateway. */
export class BorrowedPlaces {
  readonly #clock: Clock;
  readonly #ask: (key: string, most: number) => void;
  readonly #giveBack: (key: string) => void;
  readonly #borrowed = new Map<string, Borrowed>();
  readonly #closing = new AbortController();

  constructor(options: {
    readonly clock: Clock;
    readonly ask: (key: string, most: number) => void;
    readonly giveBack: (key: string) => void;
  }) {
    this.#clock = options.clock;
    this.#ask = options.ask;
    this.#giveBack = options.giveBack;
    void this.#look();
  }

  /** A target that was opened: it has no places before they are lent. */
  add(key: string, queue: Queue): void {
    const borrowed = this.#borrowed.get(key) ?? { queue, places: 0, state: 'none', idleLooks: 0 };
    // One that was closed and is opened again: what is still under way there has its places.
    const busy = borrowed.queue === queue ? 0 : borrowed.queue.depth.inFlight;
    borrowed.queue = queue;
    this.#borrowed.set(key, borrowed);
    this.#cap(key, borrowed, Math.max(0, borrowed.places - busy));
    this.#want(key, borrowed);
  }

  take({ key, places, isAll }: LentPlaces): void {
    const borrowed = this.#borrowed.get(key);
    if (!borrowed) return;
    this.#cap(key, borrowed, places);
    if (isAll) borrowed.state = 'whole';
  }

  close(): void {
    this.#closing.abort();
  }

  #cap(key: string, borrowed: Borrowed, places: number): void {
    borrowed.places = places;
    borrowed.queue.capAt(places, () => this.#want(key, borrowed));
  }

  #want(key: string, borrowed: Borrowed): void {
    borrowed.idleLooks = 0;
    if (borrowed.state !== 'none') return;
    borrowed.state = 'asked';
    this.#ask(key, borrowed.queue.runner.limits.maxConcurrency);
  }

  /** Only what was lent as a whole goes back: else more of it could be on its way. */
  async #look(): Promise<void> {
    try {
      for (;;) {
        await this.#clock.sleep(IDLE_LOOK_MS, this.#closing.signal);
        for (const [key, borrowed] of this.#borrowed) {
          const { queue, state } = borrowed;
          borrowed.idleLooks = queue.depth.inFlight === 0 ? borrowed.idleLooks + 1 : 0;
          if (state !== 'whole' || borrowed.idleLooks < IDLE_LOOKS) continue;
          borrowed.state = 'none';
          this.#cap(key, borrowed, 0);
          this.#giveBack(key);
        }
      }
    } catch {
      // Closed.
    }
  }
}
