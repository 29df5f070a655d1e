// A hard limit over several calls: what a call may cost is held back before the engine is asked, and replaced by
// what it did cost afterwards. Never crossed, however many callers ask at once. Knows no prices and no endpoints.
import type { Budget, Reservation, Spend } from '#core/call.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';

export type BudgetLimits = Budget['limits'];

export interface SpentBudget extends Budget {
  /** Settled so far; reservations in flight are not in it. */
  readonly spent: Spend;
}

export function createBudget(limits: BudgetLimits): SpentBudget {
  return new LimitedBudget(limits);
}

interface Waiter {
  readonly amount: Amount;
  readonly grant: (reservation: Reservation) => void;
  readonly refuse: (error: unknown) => void;
}

/** Cost in whole billionths of a dollar: sums of floats would drift past the limit or short of it. */
interface Amount {
  readonly calls: number;
  readonly tokens: number;
  readonly nanodollars: number;
}

const NANO = 1_000_000_000;
const ZERO: Amount = { calls: 0, tokens: 0, nanodollars: 0 };

class LimitedBudget implements SpentBudget {
  readonly limits: BudgetLimits;
  readonly #limit: Amount;
  #settled = ZERO;
  #held = ZERO;
  /** In order of asking: a small spend does not overtake a large one, which would wait for ever. */
  readonly #waiting: Waiter[] = [];

  constructor(limits: BudgetLimits) {
    for (const [name, limit] of Object.entries(limits)) {
      if (limit === undefined || (typeof limit === 'number' && limit >= 0)) continue;
      throw new ServingError(
        'INVALID_PARAMETER',
        `${name} is ${limit}; it must be a number that is not negative.`,
      );
    }
    this.limits = limits;
    this.#limit = {
      calls: limits.maxCalls ?? Number.POSITIVE_INFINITY,
      tokens: limits.maxTokens ?? Number.POSITIVE_INFINITY,
      nanodollars: Math.floor((limits.maxCost ?? Number.POSITIVE_INFINITY) * NANO + 1e-3),
    };
  }

  get spent(): Spend {
    const { calls, tokens, nanodollars } = this.#settled;
    return { calls, tokens, cost: nanodollars / NANO };
  }

  async reserve(spend: Spend, signal?: AbortSignal): Promise<Reservation> {
    throwIfAborted(signal);
    return this.tryReserve(spend) ?? (await this.#wait(toAmount(spend), signal));
  }

  tryReserve(spend: Spend): Reservation | undefined {
    const amount = toAmount(spend);
    if (!this.#fits(plus(this.#settled, amount))) throw this.#exceeded(amount);
    const isFree = this.#waiting.length === 0 && this.#fits(plus(plus(this.#settled, this.#held), amount));
    return isFree ? this.#hold(amount) : undefined;
  }

  #wait(amount: Amount, signal: AbortSignal | undefined): Promise<Reservation> {
    return new Promise((resolve, reject) => {
      const stop = () => signal?.removeEventListener('abort', onAbort);
      const waiter: Waiter = {
        amount,
        grant: (reservation) => {
          stop();
          resolve(reservation);
        },
        refuse: (error) => {
          stop();
          reject(error);
        },
      };
      const onAbort = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        waiter.refuse(new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal?.reason }));
        // Those behind may have waited only for this one.
        this.#admit();
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(waiter);
    });
  }

  #hold(amount: Amount): Reservation {
    this.#held = plus(this.#held, amount);
    let isSettled = false;
    return {
      settle: (actual) => {
        if (isSettled) return;
        isSettled = true;
        this.#held = minus(this.#held, amount);
        this.#settled = plus(this.#settled, toAmount(actual));
        this.#admit();
      },
    };
  }

  /** Grants or refuses from the front until one has to go on waiting. */
  #admit(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (!this.#fits(plus(this.#settled, next.amount))) {
        this.#waiting.shift();
        next.refuse(this.#exceeded(next.amount));
      } else if (this.#fits(plus(plus(this.#settled, this.#held), next.amount))) {
        this.#waiting.shift();
        next.grant(this.#hold(next.amount));
      } else return;
    }
  }

  #fits(total: Amount): boolean {
    return (
      total.calls <= this.#limit.calls &&
      total.tokens <= this.#limit.tokens &&
      total.nanodollars <= this.#limit.nanodollars
    );
  }

  #exceeded(asked: Amount): ServingError {
    const { maxCalls, maxTokens, maxCost } = this.limits;
    const spent = this.#settled;
    const problem =
      spent.calls + asked.calls > this.#limit.calls
        ? `${maxCalls} calls: ${spent.calls} are spent and ${asked.calls} more would be needed`
        : spent.tokens + asked.tokens > this.#limit.tokens
          ? `${maxTokens} tokens: ${spent.tokens} are spent and up to ${asked.tokens} more would be needed`
          : `$${maxCost}: ${dollars(spent)} is spent and up to ${dollars(asked)} more is asked`;
    return new ServingError(
      'BUDGET_EXCEEDED',
      `The budget is ${problem}. Answers so far are kept; raise the limit and run it again to pay only for the rest.`,
      { details: { limits: { ...this.limits }, spent: { ...this.spent }, asked: toSpend(asked) } },
    );
  }
}

function toAmount({ calls, tokens, cost }: Spend): Amount {
  return { calls, tokens, nanodollars: Math.ceil(cost * NANO - 1e-3) };
}

function toSpend({ calls, tokens, nanodollars }: Amount): { calls: number; tokens: number; cost: number } {
  return { calls, tokens, cost: nanodollars / NANO };
}

function plus(left: Amount, right: Amount): Amount {
  return {
    calls: left.calls + right.calls,
    tokens: left.tokens + right.tokens,
    nanodollars: left.nanodollars + right.nanodollars,
  };
}

function minus(left: Amount, right: Amount): Amount {
  return {
    calls: left.calls - right.calls,
    tokens: left.tokens - right.tokens,
    nanodollars: left.nanodollars - right.nanodollars,
  };
}

function dollars({ nanodollars }: Amount): string {
  return `$${(nanodollars / NANO).toFixed(6)}`;
}
