// The places of a provider, shared among a primary and its gateways: messages that take their time, calls that take
// theirs, gateways that end. Whatever happens, no more are in use than there are.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Clock } from '#core/clock.ts';
import { BorrowedPlaces, PlaceOwner } from '../../src/workers/places.ts';

/** Time that passes when it is told to. */
class HandClock implements Clock {
  #nowMs = 0;
  #sleepers: { atMs: number; wake: () => void }[] = [];
  now = () => this.#nowMs;
  random = () => 0;
  sleep = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
      this.#sleepers.push({ atMs: this.#nowMs + ms, wake: resolve });
    });

  async pass(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const next = this.#sleepers.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (!next) break;
      this.#sleepers = this.#sleepers.filter((each) => each !== next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.wake();
      for (let turn = 0; turn < 5; turn++) await Promise.resolve();
    }
    this.#nowMs = untilMs;
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
  }
}

/** As much of a target's queue as sharing looks at. */
class Queue {
  readonly runner;
  cap: number;
  inFlight = 0;
  #onLack: (() => void) | undefined;

  constructor(most: number) {
    this.cap = most;
    this.runner = { limits: { maxConcurrency: most } } as never;
  }

  get depth() {
    return { waiting: 0, inFlight: this.inFlight, limit: this.cap };
  }

  capAt(places: number, onLack?: () => void): void {
    this.cap = places;
    this.#onLack = onLack;
  }

  tryBegin(): boolean {
    if (this.inFlight < this.cap) {
      this.inFlight++;
      return true;
    }
    this.#onLack?.();
    return false;
  }

  end(): void {
    if (this.inFlight > 0) this.inFlight--;
  }
}

/** A gateway with messages that arrive in order, when `deliver` is called. */
function openGateway(owner: PlaceOwner, clock: Clock, most: number) {
  const toOwner: (() => void)[] = [];
  const toGateway: (() => void)[] = [];
  const borrower = owner.connect((lent) => toGateway.push(() => places.take(lent)));
  const places = new BorrowedPlaces({
    clock,
    ask: (key, wanted) => toOwner.push(() => borrower.ask(key, wanted)),
    giveBack: (key) => toOwner.push(() => borrower.giveBack(key)),
  });
  const queue = new Queue(most);
  return {
    queue,
    open: () => places.add('k', queue),
    deliver: () => {
      for (const line of [toOwner, toGateway]) for (const message of line.splice(0)) message();
    },
    die: () => {
      queue.inFlight = 0;
      queue.cap = 0;
      toGateway.length = 0;
      places.close();
      borrower.close();
    },
  };
}

describe('places of a provider', () => {
  it('are all for the primary until a gateway asks, and then an equal part for each', async () => {
    const clock = new HandClock();
    const owner = new PlaceOwner(2, clock);
    const own = new Queue(64);
    owner.add('k', own);
    expect(own.cap).toBe(64);
    const gateways = [openGateway(owner, clock, 64), openGateway(owner, clock, 64)];
    for (const gateway of gateways) {
      gateway.open();
      expect(gateway.queue.cap).toBe(0);
      gateway.deliver();
      gateway.deliver();
    }
    expect([own.cap, ...gateways.map(({ queue }) => queue.cap)]).toEqual([22, 21, 21]);
  });

  it('that the primary is using are lent when they become free', async () => {
    const clock = new HandClock();
    const owner = new PlaceOwner(1, clock);
    const own = new Queue(4);
    owner.add('k', own);
    own.inFlight = 3;
    const gateway = openGateway(owner, clock, 4);
    gateway.open();
    gateway.deliver();
    gateway.deliver();
    expect([own.cap, gateway.queue.cap]).toEqual([2, 1]);
    own.inFlight = 2;
    await clock.pass(30);
    gateway.deliver();
    expect([own.cap, gateway.queue.cap]).toEqual([2, 2]);
  });

  it('that a gateway has not used for long go back, and are lent again when it asks again', async () => {
    const clock = new HandClock();
    const owner = new PlaceOwner(1, clock);
    const own = new Queue(8);
    owner.add('k', own);
    const gateway = openGateway(owner, clock, 8);
    const settle = () => {
      gateway.deliver();
      gateway.deliver();
    };
    gateway.open();
    settle();
    expect([own.cap, gateway.queue.cap]).toEqual([4, 4]);
    await clock.pass(16_000);
    settle();
    expect([own.cap, gateway.queue.cap]).toEqual([8, 0]);
    expect(gateway.queue.tryBegin()).toBe(false);
    settle();
    expect([own.cap, gateway.queue.cap]).toEqual([4, 4]);
  });

  it('too few to share stay with the primary', () => {
    const clock = new HandClock();
    const owner = new PlaceOwner(2, clock);
    const own = new Queue(2);
    owner.add('k', own);
    const gateway = openGateway(owner, clock, 2);
    gateway.open();
    gateway.deliver();
    gateway.deliver();
    expect([own.cap, gateway.queue.cap]).toEqual([2, 0]);
  });

  it('are never in use more than there are, whatever is delayed and whoever ends', async () => {
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ do: fc.constant('begin' as const), at: fc.nat(2) }) },
      fc.record({ do: fc.constant('end' as const), at: fc.nat(2) }),
      fc.record({ do: fc.constant('deliver' as const), at: fc.nat(2) }),
      fc.record({ do: fc.constant('open' as const), at: fc.nat(2) }),
      fc.record({ do: fc.constant('die' as const), at: fc.nat(2) }),
      fc.record({ do: fc.constant('pass' as const), at: fc.constantFrom(10, 50, 16_000) }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 12 }),
        fc.array(step, { size: 'max', maxLength: 120 }),
        async (most, steps) => {
          const clock = new HandClock();
          const owner = new PlaceOwner(2, clock);
          const own = new Queue(most);
          let isOwnOpen = false;
          const gateways = [openGateway(owner, clock, most), openGateway(owner, clock, most)];
          const opened = [false, false];
          for (const { do: what, at } of steps) {
            const gateway = gateways[at - 1];
            const queue = gateway?.queue ?? own;
            if (what === 'pass') await clock.pass(at);
            else if (what === 'open' && at === 0 && !isOwnOpen) {
              owner.add('k', own);
              isOwnOpen = true;
            } else if (what === 'open' && gateway && !opened[at - 1]) {
              gateway.open();
              opened[at - 1] = true;
            } else if (what === 'deliver') gateway?.deliver();
            else if (what === 'end') queue.end();
            else if (what === 'begin') {
              if (gateway ? opened[at - 1] : isOwnOpen) queue.tryBegin();
            } else if (what === 'die' && gateway) {
              gateway.die();
              gateways[at - 1] = openGateway(owner, clock, most);
              opened[at - 1] = false;
            }
            const used = own.inFlight + gateways.reduce((sum, each) => sum + each.queue.inFlight, 0);
            expect(used).toBeLessThanOrEqual(most);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
