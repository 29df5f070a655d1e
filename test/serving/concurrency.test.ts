import { describe, expect, it } from 'vitest';
import { ConcurrencyLimit } from '#serving/concurrency.ts';

/** One round trip: fills every place, then lets `outcome` say what became of each. */
function round(limit: ConcurrencyLimit, outcome: (place: number, ticket: number) => void): void {
  const tickets: number[] = [];
  while (limit.canStart(0)) tickets.push(limit.start());
  for (const [place, ticket] of tickets.entries()) {
    outcome(place, ticket);
    limit.ended();
    // As the queue does: a free place is taken at once, so the limit is in use all the time.
  }
}

describe('the adaptive limit', () => {
  it('starts at 32, or at the maximum when that is lower', () => {
    expect(new ConcurrencyLimit({ maxConcurrency: 256, isAdaptive: true }).value).toBe(32);
    expect(new ConcurrencyLimit({ maxConcurrency: 8, isAdaptive: true }).value).toBe(8);
  });

  it('doubles per round of successes and stops at the maximum', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 100, isAdaptive: true });
    for (let place = 0; place < 32; place++) limit.start();
    for (let success = 0; success < 32; success++) {
      limit.succeeded();
      limit.ended();
      while (limit.canStart(0)) limit.start();
    }
    expect(limit.value).toBe(64);
    for (let success = 0; success < 64; success++) {
      limit.succeeded();
      limit.ended();
      while (limit.canStart(0)) limit.start();
    }
    expect(limit.value).toBe(100);
  });

  it('does not grow while it is not used', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 100, isAdaptive: true });
    for (let call = 0; call < 50; call++) {
      limit.start();
      limit.succeeded();
      limit.ended();
    }
    expect(limit.value).toBe(32);
  });

  it('takes away three tenths, once per round trip, however many are refused', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 100, isAdaptive: true });
    round(limit, (_place, ticket) => limit.rateLimited(ticket));
    expect(limit.value).toBe(Math.floor(32 * 0.7));
    round(limit, (_place, ticket) => limit.rateLimited(ticket));
    expect(limit.value).toBe(Math.floor(32 * 0.7 * 0.7));
  });

  it('takes away little when few of a large round are refused', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 100, isAdaptive: true });
    round(limit, (place, ticket) => {
      if (place < 2) limit.rateLimited(ticket);
    });
    expect(limit.value).toBe(31);
  });

  it('grows by one a round after the first refusal', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 100, isAdaptive: true });
    const first = limit.start();
    limit.rateLimited(first);
    limit.ended();
    const before = limit.value;
    while (limit.canStart(0)) limit.start();
    for (let success = 0; success < before + 1; success++) {
      limit.succeeded();
      limit.ended();
      while (limit.canStart(0)) limit.start();
    }
    expect(limit.value - before).toBe(1);
  });

  it('goes on growing when refusals come at any limit, as they are not about it', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 200, isAdaptive: true });
    for (let rounds = 0; rounds < 60; rounds++) {
      round(limit, (place, ticket) => {
        if (place % 5 === 0) limit.rateLimited(ticket);
        else limit.succeeded();
      });
    }
    expect(limit.value).toBeGreaterThan(100);
  });

  it('comes down again when refusals become more than they were at any limit', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 200, isAdaptive: true });
    for (let rounds = 0; rounds < 100; rounds++) {
      round(limit, (place, ticket) => {
        if (place % 5 === 0 || place >= 40) limit.rateLimited(ticket);
        else limit.succeeded();
      });
    }
    expect(limit.value).toBeLessThan(80);
  });

  it('never falls below one', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 100, isAdaptive: true });
    for (let refusal = 0; refusal < 100; refusal++) {
      const ticket = limit.start();
      limit.rateLimited(ticket);
      limit.ended();
    }
    expect(limit.value).toBe(1);
    expect(limit.canStart(0)).toBe(true);
  });

  it('starts nobody until the time the provider named', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 4, isAdaptive: true });
    limit.rateLimited(limit.start(), 500);
    limit.ended();
    expect(limit.canStart(499)).toBe(false);
    expect(limit.canStart(500)).toBe(true);
  });
});

describe('the exact limit', () => {
  it('is the maximum and stays there', () => {
    const limit = new ConcurrencyLimit({ maxConcurrency: 3, isAdaptive: false });
    round(limit, (_place, ticket) => limit.rateLimited(ticket));
    expect(limit.value).toBe(3);
    expect([limit.start(), limit.start(), limit.start()]).toHaveLength(3);
    expect(limit.canStart(0)).toBe(false);
  });
});
